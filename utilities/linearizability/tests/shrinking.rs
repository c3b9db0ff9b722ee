//! What is shown of a violation, and what a long history costs.

use super::{Script, delete, deleted, get, read, set, unknown, written};
use crate::linearizability::{History, STEPS_MAX, check};

/// Operations one after the other, all in order.
fn long(operations: u64, mut script: Script) -> Script {
    for at in 0..operations {
        let (value, version) = (1_000 + at, format!("{}", 1_000 + at));
        script = script.then(10 * at, 10 * at + 1, set("k", value), written(&version)).then(
            10 * at + 2,
            10 * at + 3,
            get("k"),
            read(value, &version),
        );
    }
    script
}

fn explanation(history: &History) -> String {
    let report = check(history, STEPS_MAX);
    assert_eq!(report.violations.len(), 1, "{report}");
    report.violations[0].explanation.clone()
}

#[test]
fn only_what_contradicts_itself_is_shown() {
    let script = long(200, Script::default()).then(1_007, 1_008, get("k"), read(1_098, "1098")).then(
        1_005,
        1_006,
        set("k", 5),
        unknown(),
    );
    let explanation = explanation(&script.history);
    let lines: Vec<&str> = explanation.lines().collect();
    assert_eq!(lines.len(), 4, "{explanation}");
    assert!(lines[0].contains("(399 more operations of the key don't matter)"), "{explanation}");
    assert!(lines[1].contains("set k = 1098 → ok, version 1098"), "{explanation}");
    assert!(lines[2].contains("set k = 1100 → ok, version 1100"), "{explanation}");
    assert!(lines[3].contains("1.007 – 1.008 ms") && lines[3].contains("get k → 1098"), "{explanation}");
}

#[test]
fn dozens_of_unknown_outcomes_are_settled() {
    let mut script = long(100, Script::default());
    for value in 0..40 {
        let outcome = if value % 4 == 0 { delete("k") } else { set("k", value + 1) };
        script = script.then(value * 20 + 5, value * 20 + 6, outcome, unknown());
    }
    let good = check(&script.history, STEPS_MAX);
    assert!(good.is_linearizable() && good.steps < 1_000_000, "{good}");
    // And when nothing explains the end, that is found out as well.
    let script = script.then(2_000, 2_001, get("k"), read(1_050, "1050"));
    let bad = check(&script.history, STEPS_MAX);
    assert_eq!((bad.violations.len(), bad.undecided.len()), (1, 0), "{bad}");
}

#[test]
fn deletes_that_found_something_beside_unknown_writes_are_settled() {
    let mut script = Script::default();
    for at in 0..12 {
        script = script.then(10 * at, 10 * at + 1, set("k", at + 1), unknown()).then(
            10 * at + 2,
            10 * at + 3,
            delete("k"),
            deleted(true),
        );
    }
    assert!(check(&script.history, STEPS_MAX).is_linearizable());
    let script = script.then(1_000, 1_001, delete("k"), deleted(true));
    let report = check(&script.history, STEPS_MAX);
    assert_eq!((report.violations.len(), report.undecided.len()), (1, 0), "{report}");
    println!("{report}");
}
