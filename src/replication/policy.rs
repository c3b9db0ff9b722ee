//! Who should lead, where more than one node could: the lowest id that is there.
//!
//! ```text
//!   elected ──► is a lower id heard of within an election timeout?
//!                 │ no                      │ yes, the lowest of them
//!                 ▼                         ▼
//!               stays            waits until it has nearly all ──► hands over
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

use super::message::NodeId;
use super::raft::{Role, Status};
use crate::limits::CAUGHT_UP_LAG_ENTRIES_MAX;

/// For so long, in election timeouts, the other one of two nodes must have been there.
const STEADY_ELECTIONS: usize = 20;

/// Whether a leader hands over. One for each node, asked at every tick.
#[derive(Clone, Debug)]
pub struct HandOver {
    node_id: NodeId,
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
}

impl HandOver {
    /// `election_ticks`: how long a follower that is there may be silent.
    pub fn new(node_id: NodeId, election_ticks: usize) -> HandOver {
        HandOver { node_id, election_ticks, term: 0, ticks: 0, settled: true, steady: 0, away: 0 }
    }

    /// To whom to hand over now, if to anyone.
    pub fn tick(&mut self, status: &Status) -> Option<NodeId> {
        if status.role.role != Role::Leader {
            return None;
        }
        if status.role.term != self.term {
            // Whoever handed over wanted this node.
            (self.term, self.ticks, self.settled) = (status.role.term, 0, status.was_handed_over);
            self.steady = 0;
        }
        if status.hosts_witness {
            return self.hand_back(status);
        }
        if self.settled {
            return None;
        }
        self.ticks += 1;
        let lower = |&&(id, _, is_active): &&(NodeId, u64, bool)| id < self.node_id && is_active;
        match status.followers.iter().find(lower) {
            // What little is missing the leader sends before it lets the other one campaign;
            // under a steady load nobody ever has all of it.
            Some(&(id, matched, _)) if status.last - matched <= CAUGHT_UP_LAG_ENTRIES_MAX => {
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
}

impl HandOver {
    /// From the witness' host to the other node.
    fn hand_back(&mut self, status: &Status) -> Option<NodeId> {
        let other = status.followers.iter().find(|(_, matched, is_active)| {
            *is_active && status.last - (*matched).min(status.last) <= CAUGHT_UP_LAG_ENTRIES_MAX
        });
        // Activity is counted anew at every election timeout: for a moment nobody is active.
        self.away = if other.is_some() { 0 } else { self.away + 1 };
        self.steady = if self.away <= self.election_ticks / 2 { self.steady + 1 } else { 0 };
        let &(id, ..) = other.filter(|_| self.steady >= STEADY_ELECTIONS * self.election_ticks)?;
        self.steady = 0;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn it_hands_over_once_to_the_lowest_id_when_that_has_caught_up() {
        let mut policy = HandOver::new(3, 10);
        assert_eq!(
            policy.tick(&leads(5, &[(1, 4, true), (2, 900, true)])),
            None,
            "node 1 lags and is waited for"
        );
        assert_eq!(policy.tick(&leads(5, &[(1, 900, true), (2, 900, true)])), Some(1));
        assert_eq!(policy.tick(&leads(5, &[(1, 900, true), (2, 900, true)])), None, "once an election");
        assert_eq!(
            policy.tick(&leads(7, &[(1, 0, false), (2, 900, true)])),
            Some(2),
            "the lowest that is there"
        );
    }

    #[test]
    fn who_comes_back_later_changes_nothing() {
        let mut policy = HandOver::new(2, 10);
        for _ in 0..=10 {
            assert_eq!(policy.tick(&leads(5, &[(1, 0, false), (3, 900, true)])), None);
        }
        assert_eq!(policy.tick(&leads(5, &[(1, 900, true), (3, 900, true)])), None);
    }

    #[test]
    fn who_was_promoted_stays() {
        let mut policy = HandOver::new(3, 10);
        let promoted = Status { was_handed_over: true, ..leads(5, &[(1, 900, true), (2, 900, true)]) };
        assert_eq!(policy.tick(&promoted), None);
        assert_eq!(policy.tick(&leads(7, &[(1, 900, true)])), Some(1), "elected later, by itself");
    }

    #[test]
    fn a_witness_s_host_hands_back_when_the_other_node_has_been_there_for_a_while() {
        let status = |matched, is_active| Status {
            hosts_witness: true,
            was_handed_over: true,
            ..leads(5, &[(1, matched, is_active)])
        };
        let mut policy = HandOver::new(2, 10);
        for tick in 1..STEADY_ELECTIONS * 10 {
            assert_eq!(policy.tick(&status(900, tick % 10 != 0)), None, "tick {tick}");
        }
        assert_eq!(policy.tick(&status(900, true)), Some(1));
        assert_eq!(policy.tick(&status(900, true)), None, "it has time to take over");
        (0..150).for_each(|_| assert_eq!(policy.tick(&status(900, true)), None));
        (0..10).for_each(|_| assert_eq!(policy.tick(&status(100, true)), None, "it lags"));
        (0..150).for_each(|_| assert_eq!(policy.tick(&status(900, true)), None));
    }

    #[test]
    fn the_lowest_id_and_those_that_follow_hand_nothing_over() {
        let mut policy = HandOver::new(1, 10);
        assert_eq!(policy.tick(&leads(5, &[(2, 900, true), (3, 900, true)])), None);
        let mut follower = leads(5, &[(1, 900, true)]);
        follower.role.role = Role::Follower;
        assert_eq!(HandOver::new(3, 10).tick(&follower), None);
    }
}
