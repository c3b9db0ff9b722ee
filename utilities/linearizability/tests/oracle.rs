//! The same verdicts as somebody else's tester: stateright's, which tries all orders
//! without a cache. (The crate `consistency_model` is that tester alone, without the
//! model checker and its web server.)
//!
//! Histories are made by clients of one key whose operations really happen at a
//! moment between invocation and return; then some answers are spoilt. Versions
//! follow the values, so that the plain model below needs none of the checker's
//! reasoning about them. The checker doesn't know that: where an answer names the
//! version of a write that nobody was told of, it may explain what the oracle can't.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use consistency_model::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::{
    delete, deleted, get, mismatch, nothing, read, refused, set, set_if, set_if_absent, unknown, written,
};
use crate::linearizability::history::{Answer, Condition, Number, Operation, Outcome, Record, Version};
use crate::linearizability::{History, STEPS_MAX, check};
use crate::random::Random;

const HISTORIES: u64 = 20_000;
/// Operations of a history at most: the oracle tries every order.
const OPERATIONS_MAX: u64 = 8;

/// One key, told in the plainest way.
#[derive(Clone, Default)]
struct Plain(Option<Number>);

fn version_of(value: Number) -> Version {
    format!("v{value}")
}

impl SequentialSpec for Plain {
    type Op = Operation;
    type Ret = Answer;

    fn invoke(&mut self, operation: &Operation) -> Answer {
        let current = self.0.map(version_of);
        let (Operation::Set { condition, .. } | Operation::Delete { condition, .. }) = operation else {
            return Answer::Read(self.0.map(|value| (value, version_of(value))));
        };
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => current.is_none(),
            Condition::IfVersion(version) => current.as_ref() == Some(version),
        };
        if !holds {
            return Answer::Mismatch(current);
        }
        match operation {
            Operation::Set { value, .. } => {
                self.0 = Some(*value);
                Answer::Written(version_of(*value))
            }
            _ => Answer::Deleted(self.0.take().is_some()),
        }
    }
}

/// Records as one event after the other: an invocation, or a return.
fn oracle(history: &History) -> bool {
    let mut tester = LinearizabilityTester::new(Plain::default());
    let mut events = BTreeMap::new();
    for (place, record) in history.records.iter().enumerate() {
        if !matches!(record.outcome, Outcome::Refused(_)) {
            events.insert(record.invoked, (place, true));
            events.extend(record.returned.map(|returned| (returned, (place, false))));
        }
    }
    for (place, is_invocation) in events.into_values() {
        let record = &history.records[place];
        match (&record.outcome, is_invocation) {
            // Whose outcome is unknown stays in flight for ever; each record is a thread.
            (_, true) => {
                tester.on_invoke(place, record.operation.clone()).expect("a new thread");
            }
            (Outcome::Ok(answer), false) => {
                tester.on_return(place, answer.clone()).expect("it is in flight");
            }
            _ => {}
        }
    }
    tester.is_consistent()
}

/// What is under way: when it will take effect and return, and the answer once it has.
struct Running {
    place: usize,
    answer: Option<Answer>,
}

fn operation(random: &mut Random, history: &History) -> Operation {
    let value = history.records.len() as Number + 1;
    // Mostly one that was there at some time.
    let writes = history.records.iter().flat_map(|record| record.operation.writes()).map(|(_, value)| value);
    let writes: Vec<Number> = writes.collect();
    let named = writes.get(random.below(writes.len() as u64 + 1) as usize);
    let version = version_of(named.copied().unwrap_or(value));
    match random.below(10) {
        0..4 => get("k"),
        4..6 => set("k", value),
        6 => set_if_absent("k", value),
        7 => set_if("k", value, &version),
        8 => delete("k"),
        _ => Operation::Delete { key: "k".to_string(), condition: Condition::IfVersion(version) },
    }
}

/// A history that really happened: each step begins, applies or ends something.
fn happened(random: &mut Random) -> History {
    let mut history = History::default();
    let mut state = Plain::default();
    let mut running: Vec<Running> = Vec::new();
    let operations = 2 + random.below(OPERATIONS_MAX - 1);
    let mut time = 0;
    while (history.records.len() as u64) < operations || !running.is_empty() {
        time += 1;
        let choice = random.below(3);
        if choice == 0 && (history.records.len() as u64) < operations && running.len() < 4 {
            let place = history.records.len();
            let operation = operation(random, &history);
            let outcome = unknown();
            history.records.push(Record { client: 0, operation, invoked: time, returned: None, outcome });
            running.push(Running { place, answer: None });
            continue;
        }
        if running.is_empty() {
            continue;
        }
        let chosen = random.below(running.len() as u64) as usize;
        let record = &mut history.records[running[chosen].place];
        match running[chosen].answer.take() {
            None if random.below(6) == 0 => {
                // It never happens.
                record.outcome = if random.below(2) == 0 { unknown() } else { refused() };
                record.returned = Some(time);
                running.swap_remove(chosen);
            }
            None => running[chosen].answer = Some(state.invoke(&record.operation)),
            Some(answer) => {
                record.outcome = if random.below(5) == 0 { unknown() } else { Outcome::Ok(answer) };
                record.returned = Some(time);
                running.swap_remove(chosen);
            }
        }
    }
    history
}

/// Puts another answer in the place of one.
fn spoil(history: &mut History, random: &mut Random) {
    let place = random.below(history.records.len() as u64) as usize;
    let other = 1 + random.below(history.records.len() as u64);
    let version = version_of(other);
    let is_written = |number: Number| {
        history
            .records
            .iter()
            .any(|record| record.operation.writes().iter().any(|(_, value)| *value == number))
    };
    let (exists, record) = (is_written(other), &history.records[place]);
    let outcome = match (&record.operation, random.below(2)) {
        (Operation::Get { .. }, 0) => nothing(),
        (Operation::Get { .. }, _) if exists => read(other, &version),
        (Operation::Delete { condition: Condition::Always, .. }, choice) => deleted(choice == 0),
        (Operation::Set { condition, .. } | Operation::Delete { condition, .. }, 0)
            if *condition != Condition::Always =>
        {
            mismatch(if exists { Some(version.as_str()) } else { None })
        }
        (Operation::Set { value, .. }, _) => written(&version_of(*value)),
        (Operation::Delete { .. }, _) => deleted(true),
        _ => return,
    };
    history.records[place].outcome = outcome;
}

/// Whether an answer or a condition names a version that belongs to no write that was
/// answered or read.
fn names_an_unknown_version(history: &History) -> bool {
    let known: Vec<Version> = history
        .records
        .iter()
        .filter_map(|record| match &record.outcome {
            Outcome::Ok(Answer::Written(version) | Answer::Read(Some((_, version)))) => Some(version.clone()),
            _ => None,
        })
        .collect();
    let mut named = history.records.iter().flat_map(|record| {
        let condition = match &record.operation {
            Operation::Set { condition, .. } | Operation::Delete { condition, .. } => Some(condition),
            _ => None,
        };
        let in_condition = match condition {
            Some(Condition::IfVersion(version)) => Some(version),
            _ => None,
        };
        let in_answer = match &record.outcome {
            Outcome::Ok(Answer::Mismatch(current)) => current.as_ref(),
            _ => None,
        };
        [in_condition, in_answer].into_iter().flatten()
    });
    named.any(|version| !known.contains(version))
}

#[test]
fn verdicts_are_those_of_another_tester() {
    let seed = std::env::var("DATASTORE_TEST_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().expect("a number"));
    println!("DATASTORE_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let (mut linearizable, mut violations) = (0, 0);
    for number in 0..HISTORIES {
        let mut history = happened(&mut random);
        let is_real = number % 3 == 0;
        for _ in 0..if is_real { 0 } else { 1 + random.below(3) } {
            spoil(&mut history, &mut random);
        }
        let report = check(&history, STEPS_MAX);
        let expected = oracle(&history);
        if !expected && names_an_unknown_version(&history) {
            continue;
        }
        let told = || {
            let lines: Vec<String> = history.records.iter().map(Record::to_string).collect();
            format!("history {number} of seed {seed}:\n{}\n{report}", lines.join("\n"))
        };
        assert!(report.undecided.is_empty(), "{}", told());
        assert_eq!(report.violations.is_empty(), expected, "{}", told());
        assert!(expected || !is_real, "{}", told());
        if expected { linearizable += 1 } else { violations += 1 }
    }
    println!("linearizable {linearizable}, violations {violations}");
    assert!(linearizable > HISTORIES / 4 && violations > HISTORIES / 20);
}
