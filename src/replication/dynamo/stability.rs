//! When a tombstone may go: when no write that is earlier than it can come any more.
//!
//! ```text
//!   what each member has, durably, of each stream, by time
//!
//!              stream 1   stream 2   stream 3
//!   node 1        90         80         70
//!   node 2        85         80         60    ◄─ the lowest of all: 60
//!   node 3        90         75         70
//! ```
//!
//! Streams are taken in sequence and their times grow: who has a stream up to 60 has
//! every write of it up to 60. So if *everyone* has *every* stream up to 60, whatever
//! is still on its way is later than 60, and a delete at or before 60 has nothing left
//! to suppress. It isn't enough that all have the tombstone itself: an older write of
//! a third node may still be on its way.
//!
//! An idle stream would hold everything back; it writes a watermark. A member that is
//! down does hold it back, until it comes again or is evicted.
//!
//! A stream that has ended (its directory was evicted, or began another one) grows no
//! more. It counts until every member has reported how much it has of it (`ended.rs`), so
//! that none takes more of it from anyone, and all have as much as was reported.

use std::collections::BTreeMap;

use super::members::Members;
use super::vector::{Origin, VersionVector};
use crate::replication::message::NodeId;

/// Up to which time everyone has everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stability {
    /// Deletes up to this time may be forgotten.
    pub through: u64,
    /// Who holds it back: members that lack something later, or haven't been heard, or have
    /// written nothing later.
    pub held_by: Vec<NodeId>,
}

/// Of the members with what each of them has, durably; one that is missing in
/// `vectors` has nothing, as far as this node knows. `limits` says how much counts of each
/// stream that has ended.
pub fn stability(
    members: &Members,
    limits: &BTreeMap<Origin, u64>,
    vectors: &BTreeMap<NodeId, VersionVector>,
) -> Stability {
    let nothing = VersionVector::default();
    let of = |node_id: &NodeId| vectors.get(node_id).unwrap_or(&nothing);
    let node_ids = members.node_ids();
    let all: Vec<&VersionVector> = node_ids.iter().map(of).collect();
    let counts = |origin| match members.stream(origin).and_then(|stream| members.ended(stream)) {
        None => true,
        Some(_) => {
            let limit = limits.get(&origin).copied().unwrap_or(0);
            let have_it = all.iter().all(|vector| vector.sequence(origin) == limit);
            !(have_it && members.all_have_reported(origin))
        }
    };
    let mut origins: Vec<u32> = members.streams().iter().map(|stream| stream.origin).collect();
    origins.extend(all.iter().flat_map(|vector| vector.rows().iter().map(|row| row.origin)));
    origins.sort_unstable();
    origins.dedup();
    origins.retain(|origin| counts(*origin));
    // A member that has begun no stream yet may begin one at any time.
    let has_stream = |node_id: &NodeId| {
        let directory = members.member(*node_id).and_then(|place| place.directory);
        directory.is_some_and(|directory| members.current_stream(directory).is_some())
    };
    let silent: Vec<NodeId> = node_ids.iter().copied().filter(|node_id| !has_stream(node_id)).collect();
    if !silent.is_empty() {
        return Stability { through: 0, held_by: silent };
    }
    let rows = node_ids.iter().zip(&all).flat_map(|(node_id, vector)| {
        let row = |origin: &u32| (*node_id, *origin, vector.row(*origin).time);
        origins.iter().map(row).collect::<Vec<_>>()
    });
    let rows: Vec<(NodeId, u32, u64)> = rows.collect();
    let through = rows.iter().map(|(.., time)| *time).min().unwrap_or(0);
    // Who lacks something of a stream holds it back; if nobody does, the stream's owner, who adds nothing.
    let holds = |(node_id, origin): (NodeId, u32)| {
        let lacks = all.iter().any(|vector| vector.row(origin).time > through);
        let owner = members.stream(origin).map(|stream| stream.node_id).filter(|_| !lacks);
        owner.filter(|owner| node_ids.contains(owner)).unwrap_or(node_id)
    };
    let lowest = rows.iter().filter(|(.., time)| *time == through);
    let mut held_by: Vec<NodeId> = lowest.map(|(node_id, origin, _)| holds((*node_id, *origin))).collect();
    held_by.sort_unstable();
    held_by.dedup();
    Stability { through, held_by }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stable(members: &Members, vectors: &BTreeMap<NodeId, VersionVector>) -> Stability {
        stability(members, &members.limits(), vectors)
    }
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::members::{MemberChange, Place};
    use crate::replication::dynamo::vector::Row;
    use crate::version::Version;

    fn begun(node_ids: &[u8]) -> Members {
        let mut members = Members::default();
        for &id in node_ids {
            let directory = Some(NodeUuid([id; 16]));
            let node = Place { node_id: u64::from(id), directory, host: "h".into(), port: 1 };
            let origin = u32::from(id);
            members.apply(
                &MemberChange::Begin { origin, node },
                Version { index: u64::from(id), ordinal: origin },
            );
        }
        members
    }

    fn has(times: &[u64]) -> VersionVector {
        let mut vector = VersionVector::default();
        for (place, &time) in times.iter().enumerate() {
            vector.raise(Row { origin: place as u32 + 1, sequence: time, time });
        }
        vector
    }

    #[test]
    fn it_is_the_lowest_of_all_streams_at_all_members() {
        let vectors =
            BTreeMap::from([(1, has(&[90, 80, 70])), (2, has(&[85, 80, 60])), (3, has(&[90, 75, 70]))]);
        assert_eq!(stable(&begun(&[1, 2, 3]), &vectors), Stability { through: 60, held_by: vec![2] });
    }

    #[test]
    fn a_stream_of_which_all_have_everything_is_held_back_by_its_owner() {
        // Node 3 is down: the others have all that it has written, and go on.
        let vectors =
            BTreeMap::from([(1, has(&[90, 80, 60])), (2, has(&[90, 80, 60])), (3, has(&[55, 50, 60]))]);
        assert_eq!(stable(&begun(&[1, 2, 3]), &vectors), Stability { through: 50, held_by: vec![3] });
        let vectors =
            BTreeMap::from([(1, has(&[90, 80, 60])), (2, has(&[90, 80, 60])), (3, has(&[90, 80, 60]))]);
        assert_eq!(stable(&begun(&[1, 2, 3]), &vectors), Stability { through: 60, held_by: vec![3] });
    }

    #[test]
    fn who_was_not_heard_or_has_begun_nothing_holds_all_back() {
        let vectors = BTreeMap::from([(1, has(&[90, 80])), (2, has(&[90, 80]))]);
        let mut members = begun(&[1, 2]);
        assert_eq!(stable(&members, &vectors).through, 80);
        members.named(3, "h", 1);
        assert_eq!(stable(&members, &vectors), Stability { through: 0, held_by: vec![3] });
        let heard = BTreeMap::from([(1, has(&[90, 80]))]);
        assert_eq!(stable(&begun(&[1, 2]), &heard), Stability { through: 0, held_by: vec![2] });
    }

    #[test]
    fn an_ended_stream_counts_until_all_have_reported_and_have_it_to_its_end() {
        let mut members = begun(&[1, 2, 3]);
        let evict = MemberChange::Evict { node_id: 3, directory: Some(NodeUuid([3; 16])) };
        members.apply(&evict, Version { index: 95, ordinal: 1 });
        let vectors = |one: [u64; 3], other: [u64; 3]| BTreeMap::from([(1, has(&one)), (2, has(&other))]);
        let through = |members: &Members, one, other| stable(members, &vectors(one, other)).through;
        assert_eq!(through(&members, [100, 100, 7], [96, 100, 7]), 7, "nobody has reported");
        for (id, sequence) in [(1u8, 7), (2, 6)] {
            let has = has(&[100, 100, sequence]);
            let report = members.due_report(NodeUuid([id; 16]), &has).expect("a stream has ended");
            assert_eq!(through(&members, [100, 100, 7], [96, 100, 7]), 7, "not all have reported");
            members.apply(&report, Version { index: 96 + u64::from(id), ordinal: id.into() });
        }
        assert_eq!(through(&members, [100, 100, 7], [96, 100, 6]), 6, "lacks one");
        assert_eq!(through(&members, [100, 100, 8], [96, 100, 7]), 7, "has more than counts");
        assert_eq!(through(&members, [100, 100, 7], [96, 100, 7]), 96);
    }
}
