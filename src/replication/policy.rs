//! Who should lead, where more than one node could: the lowest id that is there.
//!
//! ```text
//!   elected ──► is a lower id heard of within an election timeout, with a disk that works?
//!                 │ no                      │ yes, the lowest of them
//!                 ▼                         ▼
//!               stays            waits until it has nearly all, and its indexes ──► hands over
//! ```
//!
//! A leader that was handed its leadership, by another's hand-over or by `promote`,
//! keeps it. A node that comes back later changes nothing: leadership stays where it is
//! until the leader fails or someone says `promote`. Moving it at every return
//! would interrupt writes for a matter of taste.
//!
//! Two nodes are another matter: one of them hosts the witness, and only the other
//! one's death leaves a majority. So a host that leads hands over once the other node has
//! been there and up to date for a while, and the next failure finds the witness in
//! the right place.
//!
//! # Bad disks
//!
//! A leader whose disk hangs, or is full, takes no writes, and its heartbeats go on: nobody
//! would be elected in its place.
//!
//! ```text
//!   the disk is bad ──► an empty entry is proposed ──► whose disk has it? ──► hands over to the best
//!                                                                             of those, and pauses
//! ```
//!
//! The entry shows whose disk works now. Between two such hand-overs a pause is made, which each
//! node knows from the others' signs of life: with two bad disks leadership would go to and fro
//! else, and each time cost writes that one of the two may just have taken.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::health::Health;
use super::message::NodeId;
use super::raft::{Role, Status};
use crate::limits::CAUGHT_UP_LAG_ENTRIES_MAX;

/// For so long, in election timeouts, the other one of two nodes must have been there.
const STEADY_ELECTIONS: usize = 20;

/// So long, in election timeouts, a hand-over may take before another one is tried.
const HAND_OVER_ELECTIONS: usize = 4;

/// After a leader has left its bad disk none does for so long.
const PAUSE_FIRST_MS: u64 = 30_000;
/// The pause is doubled each time, up to this.
const PAUSE_MAX_MS: u64 = 600_000;
/// A pause that ended longer ago isn't doubled: the next one is the first.
const PAUSE_REMEMBERED_MS: u64 = 600_000;

/// Since a leader has left its bad disk: for how long that isn't done again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskPause {
    /// The term in which it led; 0: that never happened.
    pub term: u64,
    /// How long ago, in milliseconds.
    pub age_ms: u64,
    /// How long the pause is, in milliseconds.
    pub length_ms: u64,
}

impl DiskPause {
    /// It is not over.
    pub fn goes_on(&self) -> bool {
        self.age_ms < self.length_ms
    }

    /// The one that begins now: twice as long, if the last one ended a short while ago.
    fn next(&self, term: u64) -> DiskPause {
        let is_over_for = self.age_ms.saturating_sub(self.length_ms);
        let goes_on = self.term != 0 && is_over_for < PAUSE_REMEMBERED_MS;
        let length_ms = if goes_on { self.length_ms * 2 } else { PAUSE_FIRST_MS };
        DiskPause { term, age_ms: 0, length_ms: length_ms.min(PAUSE_MAX_MS) }
    }
}

/// What a node knows of the members beside what its replica knows.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// This node, as it tells the others.
    pub own: Health,
    /// What those have said of themselves that say it.
    pub peers: BTreeMap<NodeId, Health>,
    /// Those that are in contact are a quorum without this node's disk.
    pub others_decide: bool,
    /// They are, even without those whose disks are full.
    pub others_have_room: bool,
}

impl Seen {
    /// As far as it is known.
    pub fn of(&self, node_id: NodeId) -> Health {
        self.peers.get(&node_id).copied().unwrap_or_default()
    }

    /// Whether it can take writes, and answers searches as well as this node does.
    fn may_lead(&self, node_id: NodeId) -> bool {
        !self.of(node_id).disk.is_bad() && self.is_indexed(node_id)
    }

    fn is_indexed(&self, node_id: NodeId) -> bool {
        self.of(node_id).indexed_per_mille >= self.own.indexed_per_mille
    }
}

/// What a leader shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Propose an empty entry.
    GoOn,
    /// Let this node lead.
    HandOver(NodeId, Reason),
}

/// Why another node shall lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has the lowest id.
    LowestId,
    /// This node hosts the witness.
    HostsWitness,
    /// This node's disk is bad.
    BadDisk,
}

/// An entry that shows whose disk works.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// The log's last entry before it.
    behind: u64,
    /// Ticks since a hand-over was tried.
    tried: Option<usize>,
}

/// Whether a leader hands over. One for each node, asked at every tick.
#[derive(Clone, Debug)]
pub struct HandOver {
    node_id: NodeId,
    tick_ms: u64,
    election_ticks: usize,
    /// The term that this is about; 0 before the node has ever led.
    term: u64,
    /// Ticks since the election.
    ticks: usize,
    settled: bool,
    /// Ticks for which the other one of two nodes has been there and up to date.
    steady: usize,
    /// Ticks since it was seen so.
    away: usize,
    probe: Option<Probe>,
    pause: DiskPause,
}

impl HandOver {
    /// `election_ticks`: how long a follower that is there may be silent.
    pub fn new(node_id: NodeId, tick_ms: u64, election_ticks: usize) -> HandOver {
        HandOver {
            node_id,
            tick_ms,
            election_ticks,
            term: 0,
            ticks: 0,
            settled: true,
            steady: 0,
            away: 0,
            probe: None,
            pause: DiskPause::default(),
        }
    }

    /// The last time that leadership left a bad disk, as far as this node knows.
    pub fn pause(&self) -> DiskPause {
        self.pause
    }

    /// What this node, which may lead, is to do now.
    pub fn tick(&mut self, status: &Status, seen: &Seen) -> Option<Order> {
        self.pause.age_ms = self.pause.age_ms.saturating_add(self.tick_ms);
        self.hear_of_pauses(seen);
        if status.role.role != Role::Leader {
            return None;
        }
        if status.role.term != self.term {
            // Whoever handed over wanted this node.
            (self.term, self.ticks, self.settled) = (status.role.term, 0, status.was_handed_over);
            (self.steady, self.probe) = (0, None);
        }
        // Whoever else would lead needs the vote of the disk that hangs, or would use up what the full one has kept
        // for a snapshot.
        let own = seen.own.disk;
        if own.is_stalled && !seen.others_decide || own.is_full && !seen.others_have_room {
            self.probe = None;
            return None;
        }
        if let Some(order) = self.leave_bad_disk(status, seen) {
            return Some(order);
        }
        if status.hosts_witness {
            let to = self.hand_back(status, seen)?;
            return Some(Order::HandOver(to, Reason::HostsWitness));
        }
        Some(Order::HandOver(self.lowest(status, seen)?, Reason::LowestId))
    }

    /// Each of its terms is taken once: what peers say is a little older than it was when they said it.
    fn hear_of_pauses(&mut self, seen: &Seen) {
        let heard = seen.peers.values().map(|health| health.pause);
        if let Some(newest) =
            heard.max_by_key(|pause| pause.term).filter(|pause| pause.term > self.pause.term)
        {
            self.pause = newest;
        }
    }

    fn lowest(&mut self, status: &Status, seen: &Seen) -> Option<NodeId> {
        if self.settled {
            return None;
        }
        self.ticks += 1;
        let lower = |&&(id, _, is_active): &&(NodeId, u64, bool)| {
            id < self.node_id && is_active && !seen.of(id).disk.is_bad()
        };
        match status.followers.iter().find(lower) {
            // What little is missing the leader sends before it lets the other one campaign;
            // under a steady load nobody ever has all of it.
            Some(&(id, matched, _)) if has_nearly_all(status, matched) && seen.is_indexed(id) => {
                self.settled = true;
                Some(id)
            }
            // It is there and catches up; or there is still time to hear of one.
            Some(_) => None,
            None => {
                self.settled = self.ticks > self.election_ticks;
                None
            }
        }
    }

    /// From the witness' host to the other node.
    fn hand_back(&mut self, status: &Status, seen: &Seen) -> Option<NodeId> {
        let other = status.followers.iter().find(|(id, matched, is_active)| {
            *is_active && has_nearly_all(status, *matched) && seen.may_lead(*id)
        });
        // Activity is counted anew at every election timeout: for a moment nobody is active.
        self.away = if other.is_some() { 0 } else { self.away + 1 };
        self.steady = if self.away <= self.election_ticks / 2 { self.steady + 1 } else { 0 };
        let is_steady = self.steady >= STEADY_ELECTIONS * self.election_ticks && !self.pause.goes_on();
        let &(id, ..) = other.filter(|_| is_steady)?;
        self.steady = 0;
        Some(id)
    }

    /// From this node, whose disk takes no writes, to one whose disk does.
    fn leave_bad_disk(&mut self, status: &Status, seen: &Seen) -> Option<Order> {
        if !seen.own.disk.is_bad() {
            self.probe = None;
            return None;
        }
        let is_retry = self.pause.term == status.role.term;
        // Who was elected, or promoted, has not got its office from a bad disk.
        let is_from_bad_disk = status.was_handed_over && status.role.term == self.pause.term + 1;
        if self.pause.goes_on() && is_from_bad_disk && !is_retry {
            return None;
        }
        let Some(probe) = &mut self.probe else {
            self.probe = Some(Probe { behind: status.last, tried: None });
            return Some(Order::GoOn);
        };
        if let Some(tried) = &mut probe.tried {
            *tried += 1;
            if *tried > HAND_OVER_ELECTIONS * self.election_ticks {
                self.probe = None;
            }
            return None;
        }
        let behind = probe.behind;
        let has_synced = |id: NodeId, matched: u64| matched > behind && !seen.of(id).disk.is_bad();
        let to = best_of(status, seen, has_synced)?;
        probe.tried = Some(0);
        if !is_retry {
            self.pause = self.pause.next(status.role.term);
        }
        Some(Order::HandOver(to, Reason::BadDisk))
    }
}

fn has_nearly_all(status: &Status, matched: u64) -> bool {
    status.last.saturating_sub(matched) <= CAUGHT_UP_LAG_ENTRIES_MAX
}

/// Who should lead when this leader goes: one that can take writes, then one that has nearly all, then one
/// that has its indexes, then the one with the most entries and the lowest id.
pub fn best_successor(status: &Status, seen: &Seen) -> Option<NodeId> {
    best_of(status, seen, |_, _| true)
}

fn best_of(status: &Status, seen: &Seen, may: impl Fn(NodeId, u64) -> bool) -> Option<NodeId> {
    let there = status.followers.iter().filter(|(id, matched, is_active)| *is_active && may(*id, *matched));
    let worth = |(id, matched, _): &&(NodeId, u64, bool)| {
        let Health { disk, indexed_per_mille, .. } = seen.of(*id);
        (!disk.is_bad(), has_nearly_all(status, *matched), indexed_per_mille, *matched, Reverse(*id))
    };
    there.max_by_key(worth).map(|(id, ..)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::health::{DiskHealth, INDEXED_ALL};
    use crate::replication::raft::RoleChange;

    fn leads(term: u64, followers: &[(NodeId, u64, bool)]) -> Status {
        let role = RoleChange { role: Role::Leader, leader: Some(3), term };
        let followers = followers.to_vec();
        let (learners, was_handed_over, hosts_witness) = (vec![], false, false);
        Status {
            role,
            commit: 900,
            last: 900,
            applied: 900,
            was_handed_over,
            followers,
            learners,
            hosts_witness,
            in_doubt: false,
        }
    }

    fn to(order: Option<Order>) -> Option<NodeId> {
        match order? {
            Order::HandOver(to, _) => Some(to),
            Order::GoOn => None,
        }
    }

    /// Where nobody has said anything of himself.
    fn tick(policy: &mut HandOver, status: &Status) -> Option<NodeId> {
        to(policy.tick(status, &Seen::default()))
    }

    fn health(is_stalled: bool, is_full: bool, indexed_per_mille: u16) -> Health {
        let disk = DiskHealth { oldest_sync_ms: 0, is_stalled, is_full };
        Health { disk, indexed_per_mille, ..Health::default() }
    }

    fn seen(own: Health, peers: &[(NodeId, Health)]) -> Seen {
        Seen { own, peers: peers.iter().copied().collect(), others_decide: true, others_have_room: true }
    }

    const WELL: (bool, bool, u16) = (false, false, INDEXED_ALL);
    const STALLED: (bool, bool, u16) = (true, false, INDEXED_ALL);
    const FULL: (bool, bool, u16) = (false, true, INDEXED_ALL);
    const INDEXING: (bool, bool, u16) = (false, false, 300);

    fn of((is_stalled, is_full, indexed): (bool, bool, u16)) -> Health {
        health(is_stalled, is_full, indexed)
    }

    #[test]
    fn it_hands_over_once_to_the_lowest_id_when_that_has_caught_up() {
        let mut policy = HandOver::new(3, 50, 10);
        assert_eq!(
            tick(&mut policy, &leads(5, &[(1, 4, true), (2, 900, true)])),
            None,
            "node 1 lags and is waited for"
        );
        assert_eq!(tick(&mut policy, &leads(5, &[(1, 900, true), (2, 900, true)])), Some(1));
        assert_eq!(tick(&mut policy, &leads(5, &[(1, 900, true), (2, 900, true)])), None, "once an election");
        assert_eq!(
            tick(&mut policy, &leads(7, &[(1, 0, false), (2, 900, true)])),
            Some(2),
            "the lowest that is there"
        );
    }

    #[test]
    fn who_comes_back_later_changes_nothing() {
        let mut policy = HandOver::new(2, 50, 10);
        for _ in 0..=10 {
            assert_eq!(tick(&mut policy, &leads(5, &[(1, 0, false), (3, 900, true)])), None);
        }
        assert_eq!(tick(&mut policy, &leads(5, &[(1, 900, true), (3, 900, true)])), None);
    }

    #[test]
    fn who_was_promoted_stays() {
        let mut policy = HandOver::new(3, 50, 10);
        let promoted = Status { was_handed_over: true, ..leads(5, &[(1, 900, true), (2, 900, true)]) };
        assert_eq!(tick(&mut policy, &promoted), None);
        assert_eq!(tick(&mut policy, &leads(7, &[(1, 900, true)])), Some(1), "elected later, by itself");
    }

    #[test]
    fn a_witness_s_host_hands_back_when_the_other_node_has_been_there_for_a_while() {
        let status = |matched, is_active| Status {
            hosts_witness: true,
            was_handed_over: true,
            ..leads(5, &[(1, matched, is_active)])
        };
        let mut policy = HandOver::new(2, 50, 10);
        for beat in 1..STEADY_ELECTIONS * 10 {
            assert_eq!(tick(&mut policy, &status(900, beat % 10 != 0)), None, "tick {beat}");
        }
        assert_eq!(tick(&mut policy, &status(900, true)), Some(1));
        assert_eq!(tick(&mut policy, &status(900, true)), None, "it has time to take over");
        (0..150).for_each(|_| assert_eq!(tick(&mut policy, &status(900, true)), None));
        (0..10).for_each(|_| assert_eq!(tick(&mut policy, &status(100, true)), None, "it lags"));
        (0..150).for_each(|_| assert_eq!(tick(&mut policy, &status(900, true)), None));
    }

    #[test]
    fn the_lowest_id_and_those_that_follow_hand_nothing_over() {
        let mut policy = HandOver::new(1, 50, 10);
        assert_eq!(tick(&mut policy, &leads(5, &[(2, 900, true), (3, 900, true)])), None);
        let mut follower = leads(5, &[(1, 900, true)]);
        follower.role.role = Role::Follower;
        assert_eq!(tick(&mut HandOver::new(3, 50, 10), &follower), None);
    }

    #[test]
    fn a_lower_id_with_a_bad_disk_is_passed_over_and_one_that_indexes_is_waited_for() {
        let both = leads(5, &[(1, 900, true), (2, 900, true)]);
        for bad in [STALLED, FULL] {
            let mut policy = HandOver::new(3, 50, 10);
            assert_eq!(to(policy.tick(&both, &seen(of(WELL), &[(1, of(bad))]))), Some(2));
        }
        let mut policy = HandOver::new(3, 50, 10);
        (0..40).for_each(|_| assert_eq!(policy.tick(&both, &seen(of(WELL), &[(1, of(INDEXING))])), None));
        assert_eq!(to(policy.tick(&both, &seen(of(WELL), &[(1, of(WELL))]))), Some(1));
        let mut policy = HandOver::new(3, 50, 10);
        assert_eq!(
            to(policy.tick(&both, &seen(of(INDEXING), &[(1, of(INDEXING))]))),
            Some(1),
            "as far as this one"
        );
    }

    #[test]
    fn a_witness_s_host_hands_nothing_back_to_a_bad_disk_or_half_the_indexes_or_during_a_pause() {
        let status = Status { hosts_witness: true, was_handed_over: true, ..leads(5, &[(1, 900, true)]) };
        let paused = DiskPause { term: 4, age_ms: 0, length_ms: 60_000 };
        for other in [of(STALLED), of(FULL), of(INDEXING), Health { pause: paused, ..of(WELL) }] {
            let mut policy = HandOver::new(2, 50, 10);
            let handed_over =
                (0..1_000).any(|_| policy.tick(&status, &seen(of(WELL), &[(1, other)])).is_some());
            assert!(!handed_over, "{other:?}");
        }
    }

    #[test]
    fn a_leader_leaves_a_bad_disk_when_another_one_has_taken_an_entry_since() {
        for bad in [STALLED, FULL] {
            let mut policy = HandOver::new(1, 50, 10);
            let own_is_bad = seen(of(bad), &[(3, of(INDEXING))]);
            let before = leads(5, &[(2, 900, true), (3, 900, true)]);
            assert_eq!(policy.tick(&before, &own_is_bad), Some(Order::GoOn));
            (0..100)
                .for_each(|_| assert_eq!(policy.tick(&before, &own_is_bad), None, "who hasn't synced it"));
            let after = |matched| Status { last: 901, ..leads(5, &[(2, matched, true), (3, 901, true)]) };
            let order = policy.tick(&after(900), &seen(of(bad), &[(3, of(bad))]));
            assert_eq!(order, None, "its disk was good enough for that entry and is bad now");
            let order = policy.tick(&after(901), &own_is_bad);
            assert_eq!(order, Some(Order::HandOver(2, Reason::BadDisk)), "the one with its indexes");
            // Nobody took over.
            let again: Vec<Order> = (0..60).filter_map(|_| policy.tick(&after(901), &own_is_bad)).collect();
            assert_eq!(again, [Order::GoOn]);
        }
    }

    #[test]
    fn a_leader_whose_disk_hangs_stays_where_the_others_are_no_quorum() {
        let status = leads(5, &[(1, 901, true)]);
        let alone = Seen { others_decide: false, others_have_room: false, ..seen(of(STALLED), &[]) };
        let mut policy = HandOver::new(2, 50, 10);
        (0..100).for_each(|_| assert_eq!(policy.tick(&status, &alone), None));
        let full = Seen { others_have_room: false, ..seen(of(FULL), &[]) };
        (0..100).for_each(|_| assert_eq!(policy.tick(&status, &full), None));
        assert_eq!(policy.tick(&status, &seen(of(FULL), &[])), Some(Order::GoOn));
    }

    /// Hours with two bad disks, or with two nodes of which one has a full disk.
    #[test]
    fn leadership_does_not_go_to_and_fro_between_two_bad_disks() {
        for (bad, hosts_witness) in [(STALLED, false), (FULL, false), (FULL, true)] {
            let mut policies: Vec<HandOver> = (1..=2).map(|id| HandOver::new(id, 50, 10)).collect();
            let (mut leader, mut term, mut last, mut moves) = (1, 5, 900, Vec::new());
            for tick in 0..(2 * 3_600_000 / 50) {
                let pauses: Vec<DiskPause> = policies.iter().map(HandOver::pause).collect();
                for id in 1..=2 {
                    // A disk shows that it is bad only to who leads and writes.
                    let own = if id == leader { of(bad) } else { of(WELL) };
                    let other = Health { pause: pauses[2 - id as usize], ..of(WELL) };
                    let mut status = Status { last, ..leads(term, &[(3 - id, last, true)]) };
                    status.was_handed_over = true;
                    status.hosts_witness = hosts_witness && id == 2;
                    if id != leader {
                        status.role.role = Role::Follower;
                    }
                    match policies[id as usize - 1].tick(&status, &seen(own, &[(3 - id, other)])) {
                        Some(Order::GoOn) => last += 1,
                        Some(Order::HandOver(to, reason)) => {
                            (leader, term) = (to, term + 1);
                            moves.extend((reason == Reason::BadDisk).then_some(tick * 50 / 1_000));
                        }
                        None => {}
                    }
                }
            }
            let between: Vec<u64> = moves.windows(2).map(|two| two[1] - two[0]).collect();
            assert!(between[0] >= 30 && between[1] >= 60 && between[2] >= 120, "{between:?}");
            assert!(between[5..].iter().all(|seconds| *seconds >= 600), "{between:?}");
        }
    }

    #[test]
    fn who_was_elected_on_a_bad_disk_needs_no_pause_to_be_over() {
        let elected = leads(7, &[(2, 900, true), (3, 900, true)]);
        let paused = Health { pause: DiskPause { term: 6, age_ms: 0, length_ms: 60_000 }, ..of(WELL) };
        let mut policy = HandOver::new(1, 50, 10);
        assert_eq!(policy.tick(&elected, &seen(of(FULL), &[(2, paused)])), Some(Order::GoOn));
        let handed_over = Status { was_handed_over: true, ..elected };
        let mut policy = HandOver::new(1, 50, 10);
        assert_eq!(policy.tick(&handed_over, &seen(of(FULL), &[(2, paused)])), None);
        let mut promoted = handed_over;
        promoted.role.term = 9;
        let mut policy = HandOver::new(1, 50, 10);
        assert_eq!(policy.tick(&promoted, &seen(of(FULL), &[(2, paused)])), Some(Order::GoOn));
    }

    #[test]
    fn after_a_long_time_the_pause_is_the_first_again() {
        let first = DiskPause::default().next(3);
        assert_eq!((first.length_ms, first.age_ms), (PAUSE_FIRST_MS, 0));
        assert_eq!(DiskPause { age_ms: 40_000, ..first }.next(4).length_ms, 2 * PAUSE_FIRST_MS);
        assert_eq!(DiskPause { age_ms: 10_000_000, ..first }.next(4).length_ms, PAUSE_FIRST_MS);
    }

    #[test]
    fn who_goes_leaves_to_one_that_can_answer() {
        let status = leads(5, &[(1, 900, true), (2, 890, true), (4, 900, true), (5, 900, false)]);
        let best = |peers: &[(NodeId, Health)]| best_successor(&status, &seen(of(WELL), peers));
        assert_eq!(best(&[]), Some(1));
        assert_eq!(best(&[(1, of(INDEXING))]), Some(4));
        assert_eq!(
            best(&[(1, of(INDEXING)), (4, of(STALLED))]),
            Some(2),
            "it lacks a few entries, which it is sent"
        );
        assert_eq!(
            best(&[(1, of(STALLED)), (2, of(STALLED)), (4, of(STALLED))]),
            Some(1),
            "there is no other"
        );
    }
}
