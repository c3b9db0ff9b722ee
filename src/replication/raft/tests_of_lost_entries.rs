//! Disks that were set back and no mark tells it, message by message: what shows, when, and to whom.

use super::tests_of_doubt::{ALL_OF_3, LONG, is_begun, led};
use super::wires::{Disk, ELECTION_TICKS, Wires};
use super::{Effect, Input};
use crate::replication::message::{EntryKind, LogEntry, Message, MessageKind};

#[test]
fn a_disk_that_lost_entries_says_nothing_before_its_doubt_is_stored() {
    let mut wires = led(3, &[]);
    let before = wires.copy(2);
    ["a", "b"].into_iter().for_each(|text| wires.write_at(1, text));
    wires.run(&ALL_OF_3, 4);
    wires.lose(|_| true);
    wires.set_back(2, &before, false);
    wires.tick(1, 2);
    wires.deliver_among(&ALL_OF_3);
    assert!(wires.take_effect(2, is_begun));
    wires.run(&ALL_OF_3, ELECTION_TICKS / 2);
    wires.tick(1, 2);
    wires.deliver(|message| message.to == 2);
    assert!(!wires.messages.iter().any(|message| message.from == 2), "{:?}", wires.messages);
    wires.run(&ALL_OF_3, ELECTION_TICKS);
    assert!(wires.take_effect(2, is_begun), "the disk may have refused: it is asked again");
    wires.step(2, Input::DoubtStored);
    wires.run(&ALL_OF_3, LONG);
    assert!(!wires.in_doubt(2) && wires.leads(1));
    assert_eq!(wires.copy(2).last(), wires.copy(1).last());
}

/// Node 2 gets entries of node 1's that nobody else gets. Node 3 leads then, and replaces them.
fn with_a_tail_that_was_replaced() -> (Wires, Disk) {
    let mut wires = led(5, &[]);
    ["x", "y"].into_iter().for_each(|text| wires.write_at(1, text));
    wires.deliver(|message| message.to == 2);
    let with_tail = wires.copy(2);
    wires.lose(|_| true);
    wires.stop(1);
    wires.run(&[3, 4, 5], LONG);
    assert!(wires.leads(3));
    wires.write_at(3, "z");
    wires.run(&[2, 3, 4, 5], LONG);
    assert!(wires.is_committed("z"));
    wires.lose(|_| true);
    (wires, with_tail)
}

/// The entry at the leader's commit index is there, but it is another one.
#[test]
fn a_disk_that_has_entries_which_were_replaced_commits_none_of_them() {
    let (mut wires, with_tail) = with_a_tail_that_was_replaced();
    wires.set_back(2, &with_tail, false);
    wires.run(&[2, 3, 4, 5], ELECTION_TICKS);
    assert!(wires.take_effect(2, is_begun));
    wires.step(2, Input::DoubtStored);
    wires.run(&[2, 3, 4, 5], LONG);
    assert!(!wires.in_doubt(2));
}

/// As a leader of the version before says it: without the entry's term.
#[test]
fn in_doubt_a_commit_index_alone_is_not_believed() {
    let (mut wires, with_tail) = with_a_tail_that_was_replaced();
    wires.set_back(2, &with_tail, true);
    wires.tick(3, 2);
    let heartbeats = wires.messages.iter_mut().filter(|message| message.kind == MessageKind::Heartbeat);
    heartbeats.for_each(|heartbeat| heartbeat.commit_term = 0);
    let commit = wires.status(2).commit;
    wires.deliver(|message| message.to == 2);
    assert_eq!(wires.status(2).commit, commit);
}

/// Node 2's disk was set back, nobody knows it, and node 3 never had what node 1 and it had committed.
#[test]
fn a_node_whose_log_contradicts_its_leader_s_takes_no_more_part() {
    let mut wires = led(3, &[]);
    let before = wires.copy(2);
    wires.write_at(1, "w");
    wires.run(&[1, 2], 4);
    wires.stop(1);
    wires.lose(|_| true);
    wires.set_back(2, &before, false);
    wires.forget_what_was_committed();
    wires.run(&[2, 3], LONG);
    wires.write_at(2, "other");
    wires.run(&[2, 3], 4);
    assert!(wires.leads(2) && wires.is_committed("other"));
    wires.forget_what_was_committed(); // node 1 knows "w" to be
    wires.start(1, false);
    wires.run(&ALL_OF_3, LONG);
    assert!(wires.take_effect(1, |effect| matches!(effect, Effect::Conflicts { with: 2, .. })));
    wires.write_at(2, "goes on");
    wires.write_at(1, "refused");
    wires.run(&ALL_OF_3, 4);
    assert!(wires.is_committed("goes on"));
    assert!(wires.take_effect(1, |effect| matches!(effect, Effect::Dropped(_))));
    wires.lose(|_| true);
    wires.tick(1, LONG);
    assert!(!wires.messages.iter().any(|message| message.from == 1), "it says nothing");
}

/// As above; but what was forgotten is a whole term, which is led once more, and nothing is in the log of
/// its second leader yet that could tell the two apart.
#[test]
fn a_leader_whose_follower_has_committed_more_tells_it_and_counts_it_for_nothing() {
    let mut wires = led(3, &[]);
    let before = [2, 3].map(|id| (id, wires.copy(id)));
    wires.stop(1);
    wires.start(1, false);
    wires.run(&ALL_OF_3, LONG);
    let (leader, term) = (1, wires.term(1));
    assert!(wires.leads(leader) && term == 2, "{:?}", wires.status(1));
    ["v", "w"].into_iter().for_each(|text| wires.write_at(1, text));
    wires.run(&ALL_OF_3, 4);
    wires.stop(1);
    wires.lose(|_| true);
    before.iter().for_each(|(id, copy)| wires.set_back(*id, copy, false));
    wires.forget_what_was_committed();
    wires.run(&[2, 3], LONG);
    assert!(wires.leads(2) && wires.term(2) == term);
    wires.start(1, false);
    wires.run(&ALL_OF_3, ELECTION_TICKS / 2);
    assert!(wires.take_effect(2, |effect| matches!(effect, Effect::FollowerConflicts { node: 1, .. })));
    assert!(wires.take_effect(1, |effect| matches!(effect, Effect::Conflicts { with: 2, .. })));
    assert!(wires.leads(2));
}

/// A term that was forgotten comes twice, and with it the name of an entry.
#[test]
fn an_entry_of_one_name_and_other_content_is_a_contradiction() {
    let mut wires = led(3, &[]);
    wires.write_at(1, "w");
    wires.run(&ALL_OF_3, 4);
    let term = wires.term(1);
    let last = wires.status(2).commit;
    let mut append =
        Message { log_term: term, index: last - 1, ..Message::new(MessageKind::Append, 1, 2, term) };
    let entry =
        |text: &'static str| LogEntry { index: last, term, kind: EntryKind::Writes, payload: text.into() };
    append.entries = vec![entry("w")];
    wires.step(2, Input::Received(Box::new(append.clone())));
    assert!(!wires.take_effect(2, |effect| matches!(effect, Effect::Conflicts { .. })), "the same again");
    append.entries = vec![entry("other")];
    wires.step(2, Input::Received(Box::new(append)));
    assert!(wires.take_effect(2, |effect| matches!(effect, Effect::Conflicts { with: 1, .. })));
}
