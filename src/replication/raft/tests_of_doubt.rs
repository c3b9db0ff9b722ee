//! Nodes that are set back to older copies, message by message. Each rule is also left out once: then
//! the same course of events must break what is promised.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::wires::{ELECTION_TICKS, Wires, is_vote};
use super::{Effect, Input, Mistake};
use crate::replication::doubt::{TERM_GAP, for_earlier};
use crate::replication::message::{Message, MessageKind, NodeId};

pub const ALL_OF_3: [NodeId; 3] = [1, 2, 3];
const ALL_OF_5: [NodeId; 5] = [1, 2, 3, 4, 5];
/// Longer than any node waits before it campaigns, and the elections that come of it.
pub const LONG: usize = 12 * ELECTION_TICKS;
/// A leader that has been silent for so long is no reason any more to refuse another one a vote.
const LEASE_TICKS: usize = ELECTION_TICKS + 1;

/// Node 1 leads, and all have what it has committed.
pub fn led(count: u64, mistakes: &[Mistake]) -> Wires {
    let mut wires = Wires::new(count, mistakes);
    let all: Vec<NodeId> = (1..=count).collect();
    wires.run(&all, 2 * ELECTION_TICKS);
    assert!(wires.leads(1));
    wires
}

/// With every rule nothing breaks; without this one something does.
fn needs(mistake: &[Mistake], course: fn(&[Mistake])) {
    course(&[]);
    let broken = catch_unwind(AssertUnwindSafe(|| course(mistake)));
    assert!(broken.is_err(), "{mistake:?} breaks nothing");
}

fn leader_of(wires: &Wires, ids: &[NodeId]) -> NodeId {
    ids.iter().copied().find(|id| wires.leads(*id)).expect("one leads")
}

pub fn is_begun(effect: &Effect) -> bool {
    matches!(effect, Effect::DoubtBegins { .. })
}

#[test]
fn what_two_of_three_had_is_not_decided_without_the_one_that_still_has_it() {
    needs(&[Mistake::DoubtIgnoredInElections], |mistakes| {
        let mut wires = led(3, mistakes);
        let before = wires.copy(2);
        wires.write_at(1, "w");
        wires.deliver_among(&[1, 2]);
        assert!(wires.is_committed("w"));
        wires.stop(1);
        wires.lose(|_| true);
        wires.set_back(2, &before, true);
        wires.run(&[2, 3], LONG);
        assert!(!wires.leads(2) && !wires.leads(3));
        wires.start(1, false);
        wires.run(&ALL_OF_3, LONG);
        let leader = leader_of(&wires, &ALL_OF_3);
        wires.write_at(leader, "after");
        wires.run(&ALL_OF_3, 4);
        assert!(wires.is_committed("after") && !wires.in_doubt(2));
    });
}

/// Node 1 leads and is stopped for a while, as by a debugger; nodes 2 and 3 go on. Then node 3 is set
/// back, and hears of node 1 alone, which doesn't know of any of that.
fn an_old_leader_goes_on_beside_a_restored_follower(mistakes: &[Mistake]) -> Wires {
    let mut wires = led(3, mistakes);
    let before = wires.copy(3);
    wires.run(&[2, 3], LONG);
    assert!(wires.leads(2));
    wires.write_at(2, "newer");
    wires.deliver_among(&[2, 3]);
    assert!(wires.is_committed("newer"));
    wires.set_back(3, &before, true);
    wires.lose(|_| true);
    wires.step(1, Input::Read(7));
    wires.write_at(1, "older");
    wires.run(&[1, 3], ELECTION_TICKS / 2);
    wires
}

#[test]
fn an_old_leader_commits_nothing_with_a_restored_follower() {
    needs(&[Mistake::DoubtIgnoredInCommits], |mistakes| {
        let mut wires = an_old_leader_goes_on_beside_a_restored_follower(mistakes);
        wires.run(&ALL_OF_3, LONG);
        assert!(!wires.is_committed("older") && !wires.in_doubt(3));
    });
}

#[test]
fn an_old_leader_answers_no_read_with_a_restored_follower() {
    needs(&[Mistake::DoubtIgnoredInRounds], |mistakes| {
        let mut wires = an_old_leader_goes_on_beside_a_restored_follower(mistakes);
        assert!(!wires.take_effect(1, |effect| matches!(effect, Effect::ReadReady(..))));
        wires.run(&ALL_OF_3, LONG);
        assert!(wires.take_effect(1, |effect| *effect == Effect::ReadLost(7)));
    });
}

#[test]
fn an_old_leader_doesn_t_go_on_by_the_word_of_a_restored_follower() {
    needs(&[Mistake::DoubtIgnoredInCheck], |mistakes| {
        let mut wires = an_old_leader_goes_on_beside_a_restored_follower(mistakes);
        wires.run(&[1, 3], 2 * ELECTION_TICKS);
        assert!(!wires.leads(1));
    });
}

/// A read that was asked when all are there is answered by all, whoever is in doubt.
#[test]
fn where_all_answer_a_round_is_done_and_writes_are_committed() {
    let mut wires = led(3, &[]);
    let before = ALL_OF_3.map(|id| (id, wires.copy(id)));
    wires.write_at(1, "w");
    wires.run(&ALL_OF_3, 4);
    wires.forget_what_was_committed();
    before.iter().for_each(|(id, copy)| wires.set_back(*id, copy, true));
    wires.run(&ALL_OF_3, LONG);
    assert!(ALL_OF_3.iter().all(|id| !wires.in_doubt(*id)));
    assert!(wires.term(1) > TERM_GAP, "all had to vote: nobody knows any more which terms were led");
    let leader = leader_of(&wires, &ALL_OF_3);
    wires.step(leader, Input::Read(7));
    wires.write_at(leader, "after");
    wires.run(&ALL_OF_3, 4);
    assert!(wires.is_committed("after"));
    assert!(wires.take_effect(leader, |effect| matches!(effect, Effect::ReadReady(7, _))));
}

#[test]
fn a_follower_that_is_set_back_catches_up_and_disturbs_nobody() {
    needs(&[Mistake::ProgressKept], |mistakes| {
        let mut wires = led(3, mistakes);
        let before = wires.copy(2);
        ["a", "b", "c"].into_iter().for_each(|text| wires.write_at(1, text));
        wires.run(&ALL_OF_3, 4);
        let term = wires.term(1);
        wires.lose(|_| true);
        wires.set_back(2, &before, true);
        wires.tick(1, 2);
        wires.deliver(|message| message.kind == MessageKind::Heartbeat);
        wires.deliver(|message| message.kind == MessageKind::HeartbeatResponse);
        let known = wires.status(1).followers[0];
        assert!(known.1 <= wires.copy(2).last(), "what it had is not what it has: {known:?}");
        wires.run(&ALL_OF_3, LONG);
        assert!(!wires.in_doubt(2) && wires.take_effect(2, |effect| *effect == Effect::DoubtEnds));
        assert!(wires.leads(1) && wires.term(1) == term, "its leader led all along");
        assert_eq!(wires.copy(2).last(), wires.copy(1).last());
    });
}

/// Node 5 asks for votes in `term`, and has node 4's. What it asks of the others is on its way.
fn asks_for_votes(wires: &mut Wires, term: u64) {
    [2, 3, 4].into_iter().for_each(|id| wires.tick(id, LEASE_TICKS));
    wires.lose(|message| message.from != 5);
    let is_among = |message: &Message| [message.from, message.to].iter().all(|id| [3, 4, 5].contains(id));
    while !wires
        .messages
        .iter()
        .any(|message| message.kind == MessageKind::RequestVote && message.term == term)
    {
        wires.tick(5, 1);
        let is_pre_vote = |message: &Message| {
            matches!(message.kind, MessageKind::RequestPreVote | MessageKind::RequestPreVoteResponse)
        };
        wires.deliver(|message| is_pre_vote(message) && is_among(message));
    }
    let is_of_4 =
        |message: &Message| (message.from, message.to) == (5, 4) || (message.from, message.to) == (4, 5);
    wires.deliver(|message| is_vote(message) && message.term == term && is_of_4(message));
    assert_eq!((wires.term(4), wires.term(5)), (term, term));
}

/// Node 3 hears what node 5 asked for, when it has heard of no leader for a while.
fn is_heard_late(wires: &mut Wires) {
    wires.tick(3, LEASE_TICKS);
    let is_of_3 =
        |message: &Message| (message.from, message.to) == (5, 3) || (message.from, message.to) == (3, 5);
    wires.deliver(|message| is_vote(message) && is_of_3(message));
}

/// A vote that was forgotten is still with the candidate that it was given to. It makes a leader of
/// that one only together with a voter that has the proof, which won't have it.
#[test]
fn a_forgotten_vote_decides_nothing_once_its_doubt_has_ended() {
    needs(&[Mistake::EndedWithoutProof], |mistakes| {
        let mut wires = led(5, mistakes);
        let before = wires.copy(4);
        asks_for_votes(&mut wires, 2);
        wires.set_back(4, &before, true);
        // Node 1 has heard nothing of that, and leads on.
        wires.lose(|message| !is_vote(message));
        wires.run(&[1, 2, 3, 4], 2 * ELECTION_TICKS);
        assert!(wires.leads(1) && wires.term(1) == 1 && !wires.in_doubt(4));
        wires.write_at(1, "w");
        wires.deliver_among(&[1, 2, 4]);
        assert!(wires.is_committed("w"));
        is_heard_late(&mut wires);
        assert!(!wires.leads(5), "with the vote that node 4 forgot, and node 3's");
    });
}

/// A leader is in doubt as anyone: by what is on its own disk nothing is committed that could still be
/// decided by the vote that it forgot. It would show where terms are not taken from far ahead.
#[test]
fn a_leader_in_doubt_does_not_count_its_own_disk() {
    needs(&[Mistake::NoGap, Mistake::LeaderNeverInDoubt], |mistakes| {
        let mistakes = [&[Mistake::NoGap], mistakes].concat();
        let mut wires = led(5, &mistakes);
        let before = wires.copy(4);
        asks_for_votes(&mut wires, 2);
        asks_for_votes(&mut wires, 3);
        wires.set_back(4, &before, true);
        wires.lose(|message| !(is_vote(message) && message.from == 5 && message.term == 3));
        // Node 1 leads no more, and node 4 is elected in term 2.
        wires.tick(1, 3 * ELECTION_TICKS);
        [2, 3].into_iter().for_each(|id| wires.tick(id, LEASE_TICKS));
        wires.lose(|message| message.from != 5);
        wires.tick(4, 6 * ELECTION_TICKS);
        wires.deliver(|message| is_vote(message) && message.from != 5 && message.to != 5);
        assert!(wires.leads(4) && wires.term(4) == 2, "{:?}", wires.status(4));
        wires.write_at(4, "w");
        wires.deliver_among(&[1, 2, 4]);
        let is_committed = wires.is_committed("w");
        is_heard_late(&mut wires);
        assert!(!is_committed || !wires.leads(5), "node 5 leads, and has nothing of what node 4 committed");
    });
}

/// All are set back: whatever term they had led since is led by nobody again.
#[test]
fn no_term_is_led_twice_after_a_restore_of_all() {
    needs(&[Mistake::NoGap], |mistakes| {
        let mut wires = led(3, mistakes);
        let before = ALL_OF_3.map(|id| (id, wires.copy(id)));
        for others in [[2, 3], [1, 3], [2, 3], [1, 2]] {
            wires.lose(|_| true);
            wires.run(&others, LONG);
            let leader = leader_of(&wires, &others);
            wires.write_at(leader, "lost");
            wires.deliver_among(&others);
        }
        let led_before = wires.term(1);
        before.iter().for_each(|(id, copy)| wires.set_back(*id, copy, true));
        wires.lose(|_| true);
        wires.forget_what_was_committed();
        wires.run(&[1, 2], LONG);
        assert!(!wires.leads(1) && !wires.leads(2), "one is missing");
        wires.run(&ALL_OF_3, LONG);
        let leader = leader_of(&wires, &ALL_OF_3);
        assert!(wires.term(leader) > led_before);
        wires.write_at(leader, "written since");
        wires.run(&ALL_OF_3, 4);
        assert!(wires.is_committed("written since"));
    });
}

/// A node in doubt whose leader is of the version before catches up, and counts for nothing.
#[test]
fn a_leader_of_the_version_before_brings_a_node_in_doubt_up_to_date_and_doesn_t_count_it() {
    let mut wires = led(3, &[]);
    let before = wires.copy(2);
    ["a", "b"].into_iter().for_each(|text| wires.write_at(1, text));
    wires.run(&ALL_OF_3, 4);
    wires.set_back(2, &before, true);
    let talk = |wires: &mut Wires, ids: &[NodeId]| {
        for _ in 0..LONG {
            ids.iter().for_each(|id| wires.tick(*id, 1));
            for _ in 0..3 {
                let told = std::mem::take(&mut wires.messages);
                wires.messages = told.into_iter().filter_map(for_earlier).collect();
                let ids = ids.to_vec();
                wires.deliver(|message| ids.contains(&message.to) && message.from != 2);
                let told = std::mem::take(&mut wires.messages);
                wires.messages = told.into_iter().filter_map(for_earlier).collect();
                wires.deliver(|message| ids.contains(&message.to) && message.from == 2);
            }
        }
    };
    // It believes that node 2 has what it had, and sends it something when there is something new.
    wires.write_at(1, "c");
    talk(&mut wires, &ALL_OF_3);
    assert_eq!(wires.copy(2).last(), wires.copy(1).last());
    assert!(wires.in_doubt(2) && wires.leads(1));
    wires.write_at(1, "w");
    talk(&mut wires, &[1, 2]);
    assert!(!wires.is_committed("w"), "node 3 is away");
    talk(&mut wires, &ALL_OF_3);
    assert!(wires.is_committed("w"));
}

/// The witness of two nodes is in doubt with its host.
#[test]
fn of_two_nodes_both_are_needed_while_the_one_with_the_witness_is_in_doubt() {
    let mut wires = Wires::new(2, &[]);
    wires.run(&[1, 2], 2 * ELECTION_TICKS);
    assert!(wires.leads(1) && wires.members().voters.len() == 3);
    let before = [1, 2].map(|id| wires.copy(id));
    wires.write_at(1, "w");
    wires.run(&[1, 2], 4);
    assert!(wires.is_committed("w"));
    wires.stop(1);
    wires.lose(|_| true);
    wires.set_back(2, &before[1], true);
    wires.run(&[2], LONG);
    assert!(!wires.leads(2));
    wires.start(1, false);
    wires.run(&[1, 2], LONG);
    assert!(!wires.in_doubt(2) && (wires.leads(1) || wires.leads(2)));
    // The other one: the host has two votes without doubt, and goes on alone.
    wires.stop(1);
    wires.run(&[2], LONG);
    wires.lose(|_| true);
    assert!(wires.leads(2));
    wires.set_back(1, &before[0], true);
    wires.run(&[1, 2], LONG);
    assert!(!wires.in_doubt(1) && wires.leads(2));
}

/// Set back once more while it is in doubt, it has another number: what the first doubt was told doesn't end
/// the second one.
#[test]
fn what_ends_a_doubt_ends_no_other_one() {
    let mut wires = led(3, &[]);
    let before = wires.copy(2);
    wires.write_at(1, "w");
    wires.run(&ALL_OF_3, 4);
    wires.lose(|_| true);
    wires.set_back(2, &before, true);
    wires.tick(1, 2);
    // All but the word that the doubt has ended.
    wires.deliver(|message| message.kind != MessageKind::DoubtEnded);
    assert!(wires.messages.iter().any(|message| message.kind == MessageKind::DoubtEnded));
    wires.set_back(2, &before, true);
    wires.deliver(|message| message.to == 2);
    assert!(wires.in_doubt(2));
    wires.run(&ALL_OF_3, LONG);
    assert!(!wires.in_doubt(2));
}

#[test]
fn nobody_hands_over_to_a_node_in_doubt() {
    let mut wires = led(5, &[]);
    let before = wires.copy(2);
    wires.write_at(1, "w");
    wires.run(&ALL_OF_5, 4);
    wires.set_back(2, &before, true);
    wires.run(&[1, 2], 2);
    wires.step(1, Input::TransferTo(2));
    wires.write_at(1, "taken");
    assert!(!wires.take_effect(1, |effect| matches!(effect, Effect::Dropped(_))), "nothing is handed over");
    assert!(wires.status(1).followers.iter().any(|(id, _, is_there)| *id == 2 && !is_there));
}

/// As soon as so many are in doubt that all votes are needed, who was elected by fewer leads no more: not at its next
/// tick.
#[test]
fn who_comes_to_need_all_votes_leads_no_more_at_once() {
    let mut wires = led(3, &[]);
    let before = [2, 3].map(|id| wires.copy(id));
    wires.write_at(1, "w");
    wires.run(&ALL_OF_3, 4);
    wires.lose(|_| true);
    wires.set_back(2, &before[0], true);
    wires.tick(1, 2);
    wires.deliver_among(&ALL_OF_3);
    assert!(wires.leads(1), "two are without doubt");
    wires.set_back(3, &before[1], true);
    wires.lose(|_| true);
    wires.set_back(2, &before[0], true);
    wires.tick(1, 2);
    assert!(wires.leads(1), "it hasn't heard of that");
    wires.deliver_among(&ALL_OF_3);
    assert!(!wires.leads(1));
    wires.run(&ALL_OF_3, LONG);
    let leader = leader_of(&wires, &ALL_OF_3);
    wires.write_at(leader, "after");
    wires.run(&ALL_OF_3, LONG);
    assert!(wires.is_committed("after") && !wires.in_doubt(2) && !wires.in_doubt(3));
}

/// While the host of the witness leads in doubt, all three votes are needed: the witness' too, that it would keep to
/// itself beside a follower that has everything.
#[test]
fn of_two_nodes_the_one_with_the_witness_may_lead_in_doubt() {
    let mut wires = Wires::new(2, &[]);
    wires.run(&[1, 2], 2 * ELECTION_TICKS);
    assert!(wires.leads(1) && wires.members().voters.len() == 3);
    wires.stop(1);
    wires.run(&[2], LONG);
    wires.write_at(2, "w");
    wires.run(&[2], LONG);
    assert!(wires.is_committed("w"), "by two votes in one node");
    let whole = wires.copy(2);
    wires.lose(|_| true);
    wires.set_back(2, &whole, true);
    wires.start(1, false);
    // The witness says what is on the disk before the host has heard that the other one is there, if that is fast.
    wires.disk_is_slow(2);
    wires.run(&[1, 2], LONG);
    assert!(wires.leads(2) && wires.in_doubt(2), "the other one lacks what is committed");
    wires.disk_is_fast();
    wires.run(&[1, 2], 4);
    assert!(wires.leads(2) && !wires.in_doubt(2), "before the witness takes the other one for stuck");
    wires.write_at(2, "after");
    wires.run(&[1, 2], LONG);
    assert!(wires.is_committed("after"));
}
