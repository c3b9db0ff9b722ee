//! Who may still join: what is ordered counts, though it is not durable yet.
//!
//! Who greets is judged by the members that are durable (`greeting.rs`). Of several that
//! greet in one go each would find the same place free; so the places are counted once
//! more where admissions are ordered, with all of those that are on their way to the disk.

use super::entry::{Content, Decoded};
use super::members::{MemberChange, Members, Place};
use super::replica::{Pending, Replica};
use crate::limits::MEMBERS_MAX;

/// How many members there are beyond the most that may be: parted nodes each admitted some.
pub fn beyond_most(members: &Members) -> usize {
    members.node_ids().len().saturating_sub(MEMBERS_MAX)
}

impl Replica {
    /// A node asks to join that nobody has named. Says whether it is admitted now: not if it is a
    /// member, was evicted, or finds no place, by all that is ordered, and not yet before this node is sure
    /// where its stream ends and has heard all its members once.
    pub fn let_join(&mut self, node: Place, now_ms: u64) -> bool {
        let members = self.ordered_members();
        let is_evicted = node.directory.is_some_and(|directory| members.is_evicted(directory));
        let is_free = members.member(node.node_id).is_none() && members.node_ids().len() < MEMBERS_MAX;
        is_free && !is_evicted && self.may_admit() && self.admit(node, now_ms)
    }

    /// The members once all that is ordered is durable.
    fn ordered_members(&self) -> Members {
        let mut members = self.history.members.clone();
        for Pending { entry, .. } in &self.pending {
            match entry {
                Decoded::Seen(state) => members.merge(&state.members),
                Decoded::Dotted(dotted) => {
                    let Content::Members(body) = &dotted.content else { continue };
                    if let Some(change) = MemberChange::decode(body) {
                        members.apply(&change, dotted.stamp().version(0));
                    }
                }
                Decoded::States { .. } | Decoded::Forgotten(_) => {}
            }
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::replica::Start;
    use crate::replication::dynamo::{History, SnapshotVector, VersionVector};

    fn place(node_id: u8) -> Place {
        let directory = Some(NodeUuid([node_id; 16]));
        Place { node_id: node_id.into(), directory, host: "h".into(), port: 1 }
    }

    /// Node 1, that names node 2.
    fn replica() -> Replica {
        let mut replica = Replica::new(Start {
            place: place(1),
            history: History::new(0, SnapshotVector::default()),
            named: vec![Place { directory: None, ..place(2) }],
            begins_anew: false,
            origins: Box::new(|| 7),
        });
        replica.begin(1_000);
        replica.speaks(2, 1, 1_000);
        replica.heard_vector(2, VersionVector::default(), false, 1_000);
        replica
    }

    #[test]
    fn of_many_that_ask_in_one_go_only_so_many_are_admitted_as_there_are_places() {
        let mut replica = replica();
        let admitted: Vec<u8> = (3..=11).filter(|id| replica.let_join(place(*id), 1_000)).collect();
        assert_eq!(admitted, Vec::from_iter(3..=9));
        replica.persisted(u64::MAX);
        assert_eq!(replica.members().node_ids(), Vec::from_iter(1..=9));
        assert!(!replica.let_join(place(10), 1_000));
        assert_eq!(beyond_most(replica.members()), 0);
        replica.evict(9, 1_000);
        assert!(replica.let_join(place(10), 1_000), "the place is free with what is ordered");
        replica.persisted(u64::MAX);
        assert_eq!(replica.members().node_ids(), [1, 2, 3, 4, 5, 6, 7, 8, 10]);
        assert!(!replica.let_join(place(9), 1_000), "its directory was evicted");
    }

    #[test]
    fn who_asks_on_two_lanes_is_admitted_once_and_a_number_goes_to_who_asked_first() {
        let mut replica = replica();
        assert!(replica.let_join(place(3), 1_000));
        assert!(!replica.let_join(place(3), 1_000));
        assert!(!replica.let_join(Place { directory: Some(NodeUuid([77; 16])), ..place(3) }, 1_000));
        replica.persisted(u64::MAX);
        assert_eq!(replica.members().member(3), Some(&place(3)));
    }

    #[test]
    fn what_two_parts_have_admitted_stays_and_nobody_more_comes() {
        let mut replica = replica();
        (3..=9).for_each(|id| assert!(replica.let_join(place(id), 1_000)));
        replica.persisted(u64::MAX);
        let mut other = SnapshotVector::default();
        for id in 10..=12 {
            let stamp = crate::version::Version { index: u64::from(id) << 16, ordinal: 9 };
            other.members.apply(&MemberChange::Admit { node: place(id) }, stamp);
        }
        replica.pulled(other);
        assert!(!replica.let_join(place(13), 1_000), "they count before they are durable");
        replica.persisted(u64::MAX);
        assert_eq!(beyond_most(replica.members()), 3);
        (3..=5).for_each(|id| replica.evict(id, 1_000));
        assert!(!replica.let_join(place(13), 1_000), "nine are left");
        replica.evict(6, 1_000);
        assert!(replica.let_join(place(13), 1_000));
    }
}
