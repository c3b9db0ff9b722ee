//! A history taken apart, one part for each key.

use std::collections::{BTreeMap, HashMap};

use super::facts::Facts;
use super::history::{Answer, Condition, History, Number, Operation, Outcome, Record, Time, Version};
use super::register::{Action, Key};
use super::search::Step;

/// All that was done to one key.
pub(super) struct Part {
    pub key: String,
    pub rules: Key,
    pub steps: Vec<Step<Action>>,
    /// For each step: its record's place in the history.
    pub records: Vec<usize>,
}

/// The parts of a history, in the order of their keys.
///
/// A write without an answer has the end at which somebody had seen it. One that
/// nobody saw has none: it need not have happened.
pub(super) fn parts(history: &History, facts: &Facts) -> Vec<Part> {
    let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
    for (place, record) in history.records.iter().enumerate() {
        for (key, action, end) in actions(history, facts, place, record) {
            let part = parts.entry(key).or_insert_with(|| Part {
                key: key.to_string(),
                rules: Key { owned: Default::default() },
                steps: Vec::new(),
                records: Vec::new(),
            });
            part.steps.push(Step { action, start: record.invoked, end });
            part.records.push(place);
        }
    }
    let mut parts: Vec<Part> = parts.into_values().collect();
    let mut owned: HashMap<&str, Vec<&Version>> = HashMap::new();
    for (key, version) in facts.owned() {
        owned.entry(key).or_default().push(version);
    }
    for part in &mut parts {
        let versions = owned.get(part.key.as_str()).into_iter().flatten();
        part.rules.owned = versions.map(|version| (*version).clone()).collect();
    }
    parts
}

/// What a record does to which key, and when it must have been done.
fn actions<'h>(
    history: &History,
    facts: &Facts,
    place: usize,
    record: &'h Record,
) -> Vec<(&'h str, Action, Option<Time>)> {
    if matches!(record.outcome, Outcome::Refused(_)) {
        return Vec::new();
    }
    let is_unknown = matches!(record.outcome, Outcome::Unknown(_));
    let version = facts.version(place);
    let set = |value: Number, condition: &Condition| Action::Set {
        value,
        version: version.clone(),
        condition: condition.clone(),
    };
    match (&record.operation, &record.outcome) {
        (Operation::Get { key }, Outcome::Ok(Answer::Read(read))) => {
            vec![(key, Action::Read(read.clone()), record.returned)]
        }
        (
            Operation::Set { key, condition, .. } | Operation::Delete { key, condition },
            Outcome::Ok(Answer::Mismatch(current)),
        ) => {
            let action = Action::Mismatch { current: current.clone(), condition: condition.clone() };
            vec![(key, action, record.returned)]
        }
        (Operation::Set { key, value, condition }, _) => {
            let end = if is_unknown { facts.seen(*value) } else { record.returned };
            vec![(key, set(*value, condition), end)]
        }
        (Operation::Delete { key, condition }, outcome) => {
            let found = match outcome {
                Outcome::Ok(Answer::Deleted(found)) => Some(*found),
                _ => None,
            };
            let end = if is_unknown { None } else { record.returned };
            vec![(key, Action::Delete { found, condition: condition.clone() }, end)]
        }
        (Operation::BulkSet { records }, _) => {
            // Seen at one key, it is at all of them as soon as nothing is under way.
            let whole_at = version.as_ref().and(history.quiet_at);
            let write = |(key, value): &'h (String, Number)| {
                let end = if is_unknown { facts.seen(*value).or(whole_at) } else { record.returned };
                (key.as_str(), set(*value, &Condition::Always), end)
            };
            records.iter().map(write).collect()
        }
        (Operation::Get { .. }, _) => Vec::new(),
    }
}
