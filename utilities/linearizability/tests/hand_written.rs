//! Small histories of which a reader can tell what is right.

use super::{
    Script, bulk, delete, deleted, get, mismatch, nothing, read, refused, set, set_if, set_if_absent,
    unknown, written,
};
use crate::linearizability::{STEPS_MAX, check};

#[track_caller]
fn holds(script: Script) {
    let report = check(&script.history, STEPS_MAX);
    assert!(report.is_linearizable(), "{report}");
}

#[track_caller]
fn is_caught(script: Script, text: &str) {
    let report = check(&script.history, STEPS_MAX);
    assert!(report.undecided.is_empty(), "{report}");
    let explanations: Vec<&str> = report.violations.iter().map(|found| found.explanation.as_str()).collect();
    assert!(explanations.iter().any(|explanation| explanation.contains(text)), "{text}: {report}");
}

const NO_ORDER: &str = "no order explains";

fn script() -> Script {
    Script::default()
}

#[test]
fn one_after_the_other() {
    holds(
        script()
            .then(0, 1, get("k"), nothing())
            .then(2, 3, set("k", 1), written("a"))
            .then(4, 5, get("k"), read(1, "a"))
            .then(6, 7, set_if("k", 2, "a"), written("b"))
            .then(8, 9, set_if("k", 3, "a"), mismatch(Some("b")))
            .then(10, 11, set_if_absent("k", 4), mismatch(Some("b")))
            .then(12, 13, delete("k"), deleted(true))
            .then(14, 15, delete("k"), deleted(false))
            .then(16, 17, set_if("k", 5, "b"), mismatch(None))
            .then(18, 19, set_if_absent("k", 6), written("c"))
            .then(20, 21, get("k"), read(6, "c")),
    );
}

#[test]
fn a_read_beside_a_write_may_see_it_or_not() {
    let script = || script().then(0, 1, set("k", 1), written("a")).then(2, 9, set("k", 2), written("b"));
    holds(script().then(3, 4, get("k"), read(1, "a")).then(5, 6, get("k"), read(2, "b")));
    is_caught(script().then(3, 4, get("k"), read(2, "b")).then(5, 6, get("k"), read(1, "a")), NO_ORDER);
}

#[test]
fn what_happens_at_the_same_moment_has_no_order() {
    let script = || script().then(0, 3, get("k"), read(1, "a"));
    holds(script().then(3, 4, set("k", 1), written("a")));
    is_caught(script().then(4, 5, set("k", 1), written("a")), NO_ORDER);
}

#[test]
fn a_stale_read_is_caught() {
    let script = script().then(0, 1, set("k", 1), written("a")).then(2, 3, set("k", 2), written("b")).then(
        4,
        5,
        get("k"),
        read(1, "a"),
    );
    is_caught(script, NO_ORDER);
}

#[test]
fn a_read_of_nothing_behind_a_write_is_caught() {
    is_caught(script().then(0, 1, set("k", 1), written("a")).then(2, 3, get("k"), nothing()), NO_ORDER);
}

#[test]
fn a_read_before_its_write_is_caught() {
    is_caught(script().then(0, 1, get("k"), read(1, "a")).then(2, 3, set("k", 1), written("a")), NO_ORDER);
    is_caught(script().then(0, 1, get("k"), read(1, "a")).then(2, 3, set("k", 1), unknown()), NO_ORDER);
}

#[test]
fn a_read_that_goes_back_in_time_is_caught() {
    // Both writes overlap both reads, but the reads can't disagree on their order.
    let script = || script().then(0, 90, set("k", 1), written("a")).then(0, 90, set("k", 2), written("b"));
    holds(script().then(10, 11, get("k"), read(2, "b")).then(12, 13, get("k"), read(1, "a")));
    let script = script().then(10, 11, get("k"), read(1, "a")).then(12, 13, get("k"), read(2, "b")).then(
        14,
        15,
        get("k"),
        read(1, "a"),
    );
    is_caught(script, NO_ORDER);
}

#[test]
fn a_lost_update_is_caught() {
    // Two successes on one version: the first one's write is gone.
    let script = script()
        .then(0, 1, set("k", 1), written("a"))
        .then(2, 5, set_if("k", 2, "a"), written("b"))
        .then(3, 6, set_if("k", 3, "a"), written("c"));
    is_caught(script, NO_ORDER);
}

#[test]
fn a_condition_that_succeeds_on_a_stale_version_is_caught() {
    let script = script().then(0, 1, set("k", 1), written("a")).then(2, 3, set("k", 2), written("b")).then(
        4,
        5,
        set_if("k", 3, "a"),
        written("c"),
    );
    is_caught(script, NO_ORDER);
}

#[test]
fn a_refusal_that_names_a_stale_version_is_caught() {
    let script = || script().then(0, 1, set("k", 1), written("a")).then(2, 3, set("k", 2), written("b"));
    is_caught(script().then(4, 5, set_if("k", 3, "z"), mismatch(Some("a"))), NO_ORDER);
    is_caught(script().then(4, 5, set_if_absent("k", 3), mismatch(None)), NO_ORDER);
    // The version was right, so the write should have been made.
    is_caught(script().then(4, 5, set_if("k", 3, "b"), mismatch(Some("b"))), NO_ORDER);
}

#[test]
fn two_creations_are_caught() {
    let script = script().then(0, 9, set_if_absent("k", 1), written("a")).then(
        0,
        9,
        set_if_absent("k", 2),
        written("b"),
    );
    is_caught(script, NO_ORDER);
}

#[test]
fn an_unknown_write_may_come_at_once_late_or_never() {
    let script = || script().then(0, 1, set("k", 1), written("a")).then(2, 3, set("k", 2), unknown());
    holds(script().then(4, 5, get("k"), read(1, "a")));
    holds(script().then(4, 5, get("k"), read(2, "b")));
    // Long behind the moment when its client gave up.
    holds(script().then(4, 5, get("k"), read(1, "a")).then(50, 51, get("k"), read(2, "b")));
    // But not, and then again.
    let script = script().then(4, 5, get("k"), read(2, "b")).then(6, 7, set("k", 3), written("c")).then(
        8,
        9,
        get("k"),
        read(2, "b"),
    );
    is_caught(script, NO_ORDER);
}

#[test]
fn an_unknown_write_that_is_applied_twice_is_caught() {
    let script = script()
        .then(2, 3, set("k", 2), unknown())
        .then(4, 5, get("k"), read(2, "b"))
        .then(6, 7, set("k", 3), written("c"))
        .then(8, 9, get("k"), read(2, "d"));
    is_caught(script, "applied twice");
}

#[test]
fn an_unknown_condition_may_fail_but_never_succeed_wrongly() {
    let script = || {
        script().then(0, 1, set("k", 1), written("a")).then(2, 3, set_if("k", 2, "a"), unknown()).then(
            4,
            5,
            set("k", 3),
            written("c"),
        )
    };
    holds(script().then(6, 7, get("k"), read(3, "c")));
    // It can't come behind the write that its condition doesn't allow.
    is_caught(script().then(6, 7, get("k"), read(3, "c")).then(8, 9, get("k"), read(2, "b")), NO_ORDER);
}

#[test]
fn an_unknown_delete_may_come_at_once_late_or_never() {
    let script = || script().then(0, 1, set("k", 1), written("a")).then(2, 3, delete("k"), unknown());
    holds(script().then(4, 5, get("k"), read(1, "a")));
    holds(script().then(4, 5, get("k"), nothing()));
    holds(script().then(4, 5, get("k"), read(1, "a")).then(6, 7, get("k"), nothing()));
    is_caught(script().then(4, 5, get("k"), nothing()).then(6, 7, get("k"), read(1, "a")), NO_ORDER);
}

#[test]
fn a_refused_write_that_shows_up_is_caught() {
    let script = script().then(0, 1, set("k", 1), refused()).then(2, 3, get("k"), read(1, "a"));
    is_caught(script, "its write had been refused");
}

#[test]
fn a_write_whose_condition_failed_and_that_shows_up_is_caught() {
    let script = script()
        .then(0, 1, set("k", 1), written("a"))
        .then(2, 3, set_if_absent("k", 2), mismatch(Some("a")))
        .then(4, 5, get("k"), read(2, "b"));
    is_caught(script, "its write had been refused");
}

#[test]
fn a_refused_delete_that_happened_is_caught() {
    let script = script().then(0, 1, set("k", 1), written("a")).then(2, 3, delete("k"), refused()).then(
        4,
        5,
        get("k"),
        nothing(),
    );
    is_caught(script, NO_ORDER);
}

#[test]
fn a_value_that_nobody_wrote_is_caught() {
    is_caught(script().then(0, 1, get("k"), read(7, "a")), "nobody has written it");
    let elsewhere = script().then(0, 1, set("other", 7), written("a")).then(2, 3, get("k"), read(7, "a"));
    is_caught(elsewhere, "nobody has written it");
}

#[test]
fn two_writes_with_one_version_are_caught() {
    let script = script().then(0, 1, set("k", 1), written("a")).then(2, 3, set("k", 2), written("a"));
    is_caught(script, "two writes have one version");
}

#[test]
fn a_version_that_a_refusal_names_belongs_to_a_write_that_nobody_saw() {
    let script = |version| {
        script()
            .then(0, 1, set("k", 1), written("a"))
            .then(2, 3, set("k", 2), unknown())
            .then(4, 5, set_if("k", 3, "a"), mismatch(Some("b")))
            .then(6, 7, set_if("k", 4, version), written("d"))
    };
    holds(script("b"));
    // Once named, the version of that write can be no other one.
    is_caught(script("c"), NO_ORDER);
    let nobodys = super::Script::default().then(0, 1, set("k", 1), written("a")).then(
        4,
        5,
        set_if("k", 3, "a"),
        mismatch(Some("b")),
    );
    is_caught(nobodys, NO_ORDER);
}

#[test]
fn a_delete_that_found_something_needs_a_write() {
    let script = || script().then(2, 3, delete("k"), deleted(true));
    holds(script().then(0, 1, set("k", 1), unknown()));
    is_caught(script().then(0, 1, set("k", 1), refused()), NO_ORDER);
    let twice = script().then(0, 1, set("k", 1), unknown()).then(4, 5, delete("k"), deleted(true));
    is_caught(twice, NO_ORDER);
}

#[test]
fn a_bulk_may_be_seen_in_part_while_it_is_under_way() {
    let script = || script().then(0, 9, bulk(&[("a", 1), ("b", 2)]), written("v"));
    holds(script().then(2, 3, get("a"), read(1, "v")).then(4, 5, get("b"), nothing()));
    is_caught(script().then(2, 3, get("a"), read(1, "v")).then(10, 11, get("b"), nothing()), NO_ORDER);
}

#[test]
fn a_bulk_has_one_version() {
    let script = script()
        .then(0, 1, bulk(&[("a", 1), ("b", 2)]), unknown())
        .then(2, 3, get("a"), read(1, "v"))
        .then(4, 5, get("b"), read(2, "w"));
    is_caught(script, "two versions");
}

#[test]
fn a_bulk_that_was_seen_is_whole_in_the_end() {
    let script =
        || {
            script()
                .then(0, 1, bulk(&[("a", 1), ("b", 2)]), unknown())
                .then(2, 3, get("a"), read(1, "v"))
                .then(4, 5, get("b"), nothing())
        };
    holds(script().quiet_at(20).then(21, 22, get("b"), read(2, "v")));
    // Written over is as good as there.
    let over = script().then(6, 7, set("b", 3), written("w"));
    holds(over.quiet_at(20).then(21, 22, get("b"), read(3, "w")));
    is_caught(script().quiet_at(20).then(21, 22, get("b"), nothing()), "must be whole when all is quiet");
    // Nobody has waited until all was quiet: it may still come.
    holds(script().then(21, 22, get("b"), nothing()));
}

#[test]
fn a_bulk_that_nobody_saw_need_not_be() {
    let script = script()
        .then(0, 1, bulk(&[("a", 1), ("b", 2)]), unknown())
        .quiet_at(20)
        .then(21, 22, get("a"), nothing())
        .then(23, 24, get("b"), nothing());
    holds(script);
}

#[test]
fn keys_are_checked_alone() {
    let report = check(
        &script()
            .then(0, 1, set("good", 1), written("a"))
            .then(2, 3, get("good"), read(1, "a"))
            .then(4, 5, set("bad", 2), written("b"))
            .then(6, 7, get("bad"), nothing())
            .history,
        STEPS_MAX,
    );
    assert_eq!((report.keys, report.violations.len()), (2, 1));
    assert_eq!(report.violations[0].key, "bad");
}

#[test]
fn too_few_steps_are_undecided() {
    let script = script().then(0, 1, set("k", 1), written("a")).then(2, 3, get("k"), read(1, "a"));
    let report = check(&script.history, 1);
    assert_eq!((report.undecided.as_slice(), report.violations.len()), (&["k".to_string()][..], 0));
    assert!(!report.is_linearizable());
}
