//! What a leader's log keeps for followers that are sent a snapshot, beyond what its own restart needs.
//!
//! ```text
//!   a snapshot is sent ──► has arrived ──► the follower catches up by the log ──► has nearly all, or is away
//!   └ the entries behind its S are kept ┘ └ those that the follower lacks are kept ┘ └ nothing is kept for it
//! ```
//!
//! Without that a follower under load never catches up: by the time that it has loaded one snapshot, the log has been
//! cut behind the next one. How much may be kept is the caller's to say.

use std::collections::BTreeMap;

use super::message::NodeId;
use super::raft::{Role, Status};
use crate::limits::CAUGHT_UP_LAG_ENTRIES_MAX;

/// A follower that has a snapshot, and of which nothing is heard for so many ticks, is away: ten seconds.
const AWAY_TICKS_MAX: u32 = 200;

/// What one follower needs.
#[derive(Clone, Debug)]
struct Need {
    /// The first entry.
    from: u64,
    /// The one after the snapshot's last one.
    then: u64,
    is_under_way: bool,
    /// Since it was heard of last, once it has the snapshot.
    away_ticks: u32,
}

/// What all of them need.
#[derive(Clone, Debug, Default)]
pub struct HeldLog {
    needs: BTreeMap<NodeId, Need>,
}

impl HeldLog {
    /// A snapshot is sent to a follower: it holds all up to `after`, and reaches to `index` with the entries behind that.
    pub fn snapshot_sent(&mut self, to: NodeId, after: u64, index: u64) {
        let need = Need { from: after + 1, then: index + 1, is_under_way: true, away_ticks: 0 };
        self.needs.insert(to, need);
    }

    /// It has arrived, or was given up.
    pub fn snapshot_ended(&mut self, to: NodeId, arrived: bool) {
        if !arrived {
            self.needs.remove(&to);
        } else if let Some(need) = self.needs.get_mut(&to) {
            (need.from, need.is_under_way) = (need.then, false);
        }
    }

    /// Where the followers are, at each tick.
    pub fn tick(&mut self, status: &Status) {
        if status.role.role != Role::Leader {
            return self.needs.clear();
        }
        let followers = || status.followers.iter().chain(&status.learners);
        self.needs.retain(|node, need| {
            let Some((_, matched, is_active)) = followers().find(|(id, ..)| id == node) else { return false };
            if need.is_under_way {
                return true;
            }
            need.from = need.from.max(matched + 1);
            need.away_ticks = if *is_active { 0 } else { need.away_ticks + 1 };
            status.last.saturating_sub(*matched) > CAUGHT_UP_LAG_ENTRIES_MAX
                && need.away_ticks < AWAY_TICKS_MAX
        });
    }

    /// How far the log may be cut that needn't reach back beyond `through`.
    pub fn may_cut(&self, through: u64) -> u64 {
        self.needs.values().fold(through, |least, need| least.min(need.from - 1))
    }

    /// Those for which something is kept.
    pub fn followers(&self) -> Vec<NodeId> {
        self.needs.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::raft::RoleChange;

    fn leads(last: u64, followers: &[(NodeId, u64, bool)]) -> Status {
        Status {
            role: RoleChange { role: Role::Leader, leader: Some(1), term: 3 },
            commit: last,
            last,
            applied: last,
            was_handed_over: false,
            followers: followers.to_vec(),
            learners: vec![],
            hosts_witness: false,
            in_doubt: false,
        }
    }

    #[test]
    fn what_a_snapshot_needs_is_kept_and_then_what_its_follower_lacks() {
        let mut held = HeldLog::default();
        held.snapshot_sent(2, 400, 450);
        held.tick(&leads(5_000, &[(2, 7, false), (3, 5_000, true)]));
        assert_eq!((held.may_cut(300), held.may_cut(900)), (300, 400), "entries behind its S go with it");
        held.snapshot_ended(2, true);
        assert_eq!(held.may_cut(900), 450);
        held.tick(&leads(5_000, &[(2, 700, true), (3, 5_000, true)]));
        assert_eq!((held.may_cut(900), held.followers()), (700, vec![2]));
        held.tick(&leads(5_000, &[(2, 4_990, true), (3, 5_000, true)]));
        assert_eq!((held.may_cut(900), held.followers()), (900, vec![]), "it has nearly all");
    }

    #[test]
    fn nothing_is_kept_for_whom_it_helps_no_more() {
        let sent = || {
            let mut held = HeldLog::default();
            held.snapshot_sent(2, 400, 450);
            held
        };
        let mut given_up = sent();
        given_up.snapshot_ended(2, false);
        assert_eq!(given_up.may_cut(900), 900);
        let mut away = sent();
        away.snapshot_ended(2, true);
        (0..AWAY_TICKS_MAX - 1).for_each(|_| away.tick(&leads(5_000, &[(2, 450, false)])));
        assert_eq!(away.may_cut(900), 450);
        away.tick(&leads(5_000, &[(2, 450, false)]));
        assert_eq!(away.may_cut(900), 900);
        let mut removed = sent();
        removed.tick(&leads(5_000, &[(3, 5_000, true)]));
        assert_eq!(removed.may_cut(900), 900);
        let mut follows = sent();
        let mut status = leads(5_000, &[(2, 450, true)]);
        status.role.role = Role::Follower;
        follows.tick(&status);
        assert_eq!(follows.may_cut(900), 900);
    }
}
