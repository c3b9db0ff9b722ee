//! The verdict on a history.

use std::collections::BTreeMap;
use std::fmt;

use super::explanation::{explain, lines};
use super::facts::{Facts, Fault};
use super::history::{Counts, History};
use super::parts::parts;
use super::register::Register;
use super::search::{Verdict, search};

/// Steps for one key that settle it unless dozens of its writes have no outcome.
pub const STEPS_MAX: u64 = 20_000_000;

/// A key whose answers nothing explains.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which one.
    pub key: String,
    /// What is wrong, and the operations that show it, a line each.
    pub explanation: String,
}

/// What a check found out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many requests had which outcome.
    pub counts: Counts,
    /// Keys that were held to their answers.
    pub keys: usize,
    /// What nothing explains.
    pub violations: Vec<Violation>,
    /// Keys that no verdict was found for within the steps allowed.
    pub undecided: Vec<String>,
    /// Steps of all searches.
    pub steps: u64,
}

impl Report {
    /// Every key was explained.
    pub fn is_linearizable(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

/// Holds a history to its answers, each key with at most `steps_max` steps of search.
pub fn check(history: &History, steps_max: u64) -> Report {
    let mut facts = Facts::of(history);
    let mut report = Report { counts: history.counts(), ..Report::default() };
    let mut faults: BTreeMap<String, Vec<Fault>> = BTreeMap::new();
    for fault in std::mem::take(&mut facts.faults) {
        faults.entry(fault.key.clone()).or_default().push(fault);
    }
    for part in parts(history, &facts) {
        report.keys += 1;
        if faults.contains_key(&part.key) {
            continue;
        }
        let mut steps_left = steps_max;
        match search(&part.rules, Register::absent(), &part.steps, &mut steps_left) {
            Verdict::Linearizable => {}
            Verdict::Undecided => report.undecided.push(part.key.clone()),
            Verdict::Violation => {
                let explanation = explain(history, &part);
                report.violations.push(Violation { key: part.key.clone(), explanation });
            }
        }
        report.steps += steps_max - steps_left;
    }
    for (key, faults) in faults {
        let text = |fault: &Fault| format!("{}\n{}", fault.text, lines(history, &fault.records));
        let explanation = faults.iter().map(text).collect::<Vec<_>>().join("\n");
        report.violations.push(Violation { key, explanation });
    }
    report
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { answered, reads, refused, unknown } = self.counts;
        writeln!(
            formatter,
            "operations {} (answered {answered}, of them reads {reads}; refused {refused}; unknown {unknown}), \
             keys {}, violations {}, undecided {}, steps {}",
            answered + refused + unknown,
            self.keys,
            self.violations.len(),
            self.undecided.len(),
            self.steps,
        )?;
        for violation in &self.violations {
            writeln!(formatter, "VIOLATION {}: {}", violation.key, violation.explanation)?;
        }
        for key in &self.undecided {
            writeln!(formatter, "UNDECIDED {key}")?;
        }
        Ok(())
    }
}
