//! The few operations of a key that no order explains.
//!
//! First the history is cut at the earliest answer with which it can't be explained
//! any more. Then whatever is not needed for the contradiction goes: a read if there
//! is still no order without it; a write if there is none even when that write may
//! happen at any time or never.

use super::history::{History, Time};
use super::parts::Part;
use super::register::{Action, Register};
use super::search::{Step, Verdict, search};

/// A step, and its record's place in the history.
type Known = (Step<Action>, usize);

/// Operations shown at most; a contradiction needs a handful.
const SHOWN_MAX: usize = 40;

/// Says in words and lines why a part that was found to be a violation is one.
pub(super) fn explain(history: &History, part: &Part, steps_max: u64) -> String {
    let is_violation = |steps: &[Step<Action>]| {
        // Smaller than what was settled already, so mostly far cheaper; if not, the step is kept.
        let mut steps_left = steps_max;
        search(&part.rules, Register::absent(), steps, &mut steps_left) == Verdict::Violation
    };
    let all: Vec<Known> = part.steps.iter().cloned().zip(part.records.iter().copied()).collect();
    let prefix = shortest_prefix(&all, is_violation);
    let mut steps: Vec<Option<Step<Action>>> = prefix.iter().map(|(step, _)| Some(step.clone())).collect();
    let mut places = Vec::new();
    // Oldest first: a contradiction is made of what stands close to its end, and the
    // searches get shorter as the past goes.
    for (place, (step, record)) in prefix.iter().enumerate() {
        steps[place] = (!step.action.is_observation()).then(|| Step {
            action: step.action.without_answer(),
            start: step.start,
            end: None,
        });
        let rest: Vec<Step<Action>> = steps.iter().flatten().cloned().collect();
        if !is_violation(&rest) {
            steps[place] = Some(step.clone());
            places.push(*record);
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

/// What had happened when the first answer came that nothing explains.
fn shortest_prefix(all: &[Known], is_violation: impl Fn(&[Step<Action>]) -> bool) -> Vec<Known> {
    let mut ends: Vec<Time> = all.iter().filter_map(|(step, _)| step.end).collect();
    ends.sort_unstable();
    ends.dedup();
    // More answers never make a history linearizable again, so halving finds the first one.
    let (mut low, mut high) = (0, ends.len().saturating_sub(1));
    while low < high {
        let middle = (low + high) / 2;
        let prefix: Vec<Step<Action>> = until(all, ends[middle]).into_iter().map(|(step, _)| step).collect();
        if is_violation(&prefix) {
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
