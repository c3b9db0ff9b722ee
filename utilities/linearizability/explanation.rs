//! The few operations of a key that no order explains.
//!
//! First the history is cut at the earliest answer with which it can't be explained
//! any more. Then whatever is not needed for the contradiction goes: a read if there
//! is still no order without it; a write if there is none even when that write may
//! happen at any time or never.

use std::collections::HashSet;

use super::history::{Condition, History, Number, Time, Version};
use super::parts::Part;
use super::register::{Action, Key, Register};
use super::search::{Step, Verdict, search};

/// A step, and its record's place in the history.
type Known = (Step<Action>, usize);

/// Operations shown at most; a contradiction needs a handful.
const SHOWN_MAX: usize = 40;
/// Steps of search for one try to leave something out. One that takes more is taken for
/// a failed one: then more is shown than must be.
const TRY_STEPS_MAX: u64 = 100_000;
/// Steps of all tries for one key.
const STEPS_MAX: u64 = 3_000_000;

/// In which order it is tried to leave out steps.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Observation,
    Delete,
    Set,
}

impl Turn {
    fn of(action: &Action) -> Turn {
        match action {
            Action::Read(_) | Action::Mismatch { .. } => Turn::Observation,
            Action::Delete { .. } => Turn::Delete,
            Action::Set { .. } => Turn::Set,
        }
    }
}

/// Says in words and lines why a part that was found to be a violation is one.
pub(super) fn explain(history: &History, part: &Part) -> String {
    let mut steps_left = STEPS_MAX;
    let mut is_violation = |steps: Vec<Step<Action>>| {
        let before = steps_left.min(TRY_STEPS_MAX);
        let mut left = before;
        let steps = without_pointless(&part.rules, steps);
        let verdict = search(&part.rules, Register::absent(), &steps, &mut left);
        steps_left -= before - left;
        verdict == Verdict::Violation
    };
    let all: Vec<Known> = part.steps.iter().cloned().zip(part.records.iter().copied()).collect();
    let prefix = shortest_prefix(&all, &mut is_violation);
    let mut steps: Vec<Option<Step<Action>>> = prefix.iter().map(|(step, _)| Some(step.clone())).collect();
    let mut places = Vec::new();
    // Oldest first: a contradiction is made of what stands close to its end. And reads before
    // deletes before writes: what nobody asks for any more is soon left out.
    for turn in [Turn::Observation, Turn::Delete, Turn::Set] {
        for (place, (step, record)) in prefix.iter().enumerate() {
            if Turn::of(&step.action) != turn {
                continue;
            }
            let whenever = Step { action: step.action.without_answer(), start: step.start, end: None };
            steps[place] = (turn != Turn::Observation).then_some(whenever);
            if !is_violation(steps.iter().flatten().cloned().collect()) {
                steps[place] = Some(step.clone());
                places.push(*record);
            }
        }
    }
    let left_out = part.steps.len() - places.len();
    let by_quiet = places.iter().any(|place| is_late_bulk(history, part, *place));
    let note = if by_quiet {
        "\n  (a bulk that was seen at another key must be whole when all is quiet)"
    } else {
        ""
    };
    format!(
        "no order explains these answers ({left_out} more operations of the key don't matter){note}\n{}",
        lines(history, &places)
    )
}

/// Whether a step's end is not its own answer but the quiet at the end.
fn is_late_bulk(history: &History, part: &Part, record: usize) -> bool {
    let step = part.records.iter().position(|place| *place == record).map(|step| &part.steps[step]);
    let Some(Step { end: Some(end), action: Action::Set { .. }, .. }) = step else { return false };
    history.records[record].returned != Some(*end) && history.quiet_at == Some(*end)
}

/// Records as lines, in the order of their invocations.
pub(super) fn lines(history: &History, places: &[usize]) -> String {
    let mut places = places.to_vec();
    places.sort_unstable();
    let skipped = places.len().saturating_sub(SHOWN_MAX);
    let mut lines: Vec<String> =
        places[skipped..].iter().map(|place| format!("  {}", history.records[*place])).collect();
    if skipped > 0 {
        lines.insert(0, format!("  … {skipped} earlier ones"));
    }
    lines.join("\n")
}

/// Leaves out what need not have happened and can explain nothing: a write of a value that
/// nobody reads, if nothing is left that finds out whether there is something; a delete, if
/// nothing is left that finds out whether there is nothing.
fn without_pointless(rules: &Key, mut steps: Vec<Step<Action>>) -> Vec<Step<Action>> {
    let mut values: HashSet<Number> = HashSet::new();
    let mut versions: HashSet<Version> = HashSet::new();
    let (mut finds_something, mut finds_nothing) = (false, false);
    for Step { action, .. } in &steps {
        let condition = match action {
            Action::Read(read) => {
                finds_nothing |= read.is_none();
                values.extend(read.iter().map(|(value, _)| *value));
                continue;
            }
            Action::Set { condition, .. } => condition,
            Action::Delete { found, condition } => {
                finds_something |= *found == Some(true);
                finds_nothing |= *found == Some(false);
                condition
            }
            Action::Mismatch { current, condition } => {
                finds_nothing |= current.is_none();
                versions.extend(current.clone());
                condition
            }
        };
        match condition {
            Condition::Always => {}
            Condition::IfAbsent => finds_nothing = true,
            Condition::IfVersion(version) => versions.extend([version.clone()]),
        }
    }
    finds_something |= versions.iter().any(|version| !rules.owned.contains(version));
    steps.retain(|step| {
        step.end.is_some()
            || match &step.action {
                Action::Set { value, version, .. } => {
                    let is_named = version.as_ref().is_some_and(|version| versions.contains(version));
                    finds_something || is_named || values.contains(value)
                }
                Action::Delete { .. } => finds_nothing,
                Action::Read(_) | Action::Mismatch { .. } => true,
            }
    });
    steps
}

/// What had happened when the first answer came that nothing explains.
fn shortest_prefix(all: &[Known], is_violation: &mut impl FnMut(Vec<Step<Action>>) -> bool) -> Vec<Known> {
    let mut ends: Vec<Time> = all.iter().filter_map(|(step, _)| step.end).collect();
    ends.sort_unstable();
    ends.dedup();
    // More answers never make a history linearizable again, so halving finds the first one.
    let (mut low, mut high) = (0, ends.len().saturating_sub(1));
    while low < high {
        let middle = (low + high) / 2;
        let prefix: Vec<Step<Action>> = until(all, ends[middle]).into_iter().map(|(step, _)| step).collect();
        if is_violation(prefix) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    ends.get(low).map_or_else(|| all.to_vec(), |end| until(all, *end))
}

/// The history as it was known at `time`: what has no answer yet may have happened.
fn until(all: &[Known], time: Time) -> Vec<Known> {
    let begun = all.iter().filter(|(step, _)| step.start <= time || step.end.is_some_and(|end| end <= time));
    let known = begun.filter_map(|(step, record)| {
        if step.end.is_some_and(|end| end <= time) {
            return Some((step.clone(), *record));
        }
        if step.action.is_observation() {
            return None;
        }
        Some((Step { action: step.action.without_answer(), start: step.start, end: None }, *record))
    });
    known.collect()
}
