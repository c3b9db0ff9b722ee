//! Whose stamps are ahead of time, though its clock may be right by now.
//!
//! A node never stamps below what it has stamped before. One that has run with a clock that was
//! an hour ahead goes on from there when the clock is right again: others hold back what it
//! writes until their clocks are there. What it says that it has shows them that.

use std::collections::BTreeMap;

use super::clock::{is_ahead, milliseconds};
use super::replica::Replica;
use crate::replication::message::NodeId;

/// A node whose writes are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Which.
    pub node_id: NodeId,
    /// What it writes is stamped this or later, in milliseconds since 1970.
    pub stamped_ms: u64,
}

impl Replica {
    /// The nodes whose stamps are ahead of time, as far as this node knows, itself among them.
    pub fn ahead(&self, now_ms: u64) -> Vec<Ahead> {
        let skew = self.skew();
        // By a clock that is wrong the others' would seem to be.
        let right_ms = if skew.is_wrong { now_ms.saturating_add_signed(-skew.ahead_ms) } else { now_ms };
        let mut latest: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut is_at = |node_id, time| {
            if is_ahead(time, right_ms) {
                let latest = latest.entry(node_id).or_default();
                *latest = milliseconds(time).max(*latest);
            }
        };
        is_at(self.place.node_id, self.clock.last());
        let members = self.members();
        for (id, peer) in &self.peers {
            for row in peer.vector.iter().flat_map(|vector| vector.rows()) {
                match members.stream(row.origin) {
                    Some(stream) if members.ended(stream).is_some() => {}
                    Some(stream) => is_at(stream.node_id, row.time),
                    // That it has begun is held back, too.
                    None => is_at(*id, row.time),
                }
            }
        }
        latest.into_iter().map(|(node_id, stamped_ms)| Ahead { node_id, stamped_ms }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::replica::Start;
    use crate::replication::dynamo::{History, MemberChange, Place, Row, SnapshotVector, VersionVector};
    use crate::version::Version;

    const HOUR_MS: u64 = 3_600_000;

    fn place(node_id: u8) -> Place {
        let directory = Some(NodeUuid([node_id; 16]));
        Place { node_id: node_id.into(), directory, host: "h".into(), port: 1 }
    }

    /// Node 1 of three, all of which have begun their streams.
    fn replica() -> Replica {
        let mut state = SnapshotVector::default();
        for id in 1..=3 {
            let change = MemberChange::Begin { origin: id.into(), node: place(id) };
            state.members.apply(&change, Version { index: 1, ordinal: id.into() });
            state.vector.raise(Row { origin: id.into(), sequence: 1, time: 1 });
        }
        let history = History::new(0, state);
        let start =
            Start { place: place(1), history, named: vec![], begins_anew: false, origins: Box::new(|| 7) };
        let mut replica = Replica::new(start);
        replica.begin(1_000);
        replica
    }

    fn wrote(origin: u32, at_ms: u64) -> VersionVector {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin, sequence: 2, time: at_ms << 16 });
        vector
    }

    #[test]
    fn a_node_whose_stamps_are_ahead_is_told_until_they_are_not_or_it_was_evicted() {
        let mut replica = replica();
        let ahead = Ahead { node_id: 3, stamped_ms: HOUR_MS };
        replica.heard_vector(2, wrote(2, 1_400), false, 1_000);
        replica.heard_vector(3, wrote(3, HOUR_MS), false, 1_000);
        assert_eq!(replica.ahead(1_000), [ahead], "and not node 2, which is within the bound");
        assert_eq!(replica.ahead(HOUR_MS - 501), [ahead]);
        assert_eq!(replica.ahead(HOUR_MS - 500), []);
        // Told by another node, whose clock is ahead, too.
        replica.heard_vector(2, wrote(3, HOUR_MS + 1), false, 1_000);
        assert_eq!(replica.ahead(1_000), [Ahead { stamped_ms: HOUR_MS + 1, ..ahead }]);
        replica.evict(3, 1_000);
        replica.persisted(u64::MAX);
        assert_eq!(replica.ahead(1_000), []);
    }

    #[test]
    fn a_node_tells_it_of_itself() {
        let mut replica = replica();
        replica.write(bytes::Bytes::new(), 1, HOUR_MS);
        assert_eq!(replica.ahead(1_000), [Ahead { node_id: 1, stamped_ms: HOUR_MS }]);
        assert_eq!(replica.ahead(HOUR_MS), [], "by the clock that it had then");
    }

    #[test]
    fn by_a_clock_that_is_wrong_itself_not_all_others_are_ahead() {
        let mut replica = replica();
        for peer in [2, 3] {
            replica.heard_vector(peer, wrote(peer as u32, HOUR_MS), false, 1_000);
            replica.heard_clock(peer, HOUR_MS, 1_000);
        }
        assert_eq!(replica.ahead(1_000).len(), 2, "it knows no better yet");
        replica.tick(1_000, 0);
        assert!(replica.skew().is_wrong);
        assert_eq!(replica.ahead(1_000), []);
    }
}
