//! Whether nodes that had the same writes have the same keys.
//!
//! A *root* is the hash of all entries, taken behind all that the vector beside it
//! covers. Equal vectors must mean equal roots; if they don't, some node's state was
//! damaged behind its back, or this program is wrong. Then the copy that most nodes
//! have is right; where no majority is, both sides take the greater of two copies of
//! one version, so that they are equal again.

use std::collections::BTreeMap;

use super::vector::VersionVector;
use crate::engine::SameVersion;
use crate::replication::message::NodeId;

/// A state: what it has, and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Everything that was written up to here.
    pub vector: VersionVector,
    /// The hash of what that led to.
    pub hash: u128,
}

/// Ticks between two complaints about the same difference.
const REPEAT_TICKS: u64 = 100;

/// What nodes said of their states.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    own: Option<Root>,
    peers: BTreeMap<NodeId, Root>,
    /// Peer, both hashes, and when it was said.
    said: Option<(NodeId, u128, u128, u64)>,
    /// Comparisons that found the same.
    pub equal: u64,
    last_equal: Option<VersionVector>,
}

/// Two states that must be equal and aren't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose state is another.
    pub peer: NodeId,
    /// What to do about it here: `None` if the other one is to repair itself.
    pub repair: Option<SameVersion>,
}

impl Roots {
    /// This node's state.
    pub fn own(&mut self, root: Root) {
        self.own = Some(root);
    }

    /// The vector of this node's last root.
    pub fn own_vector(&self) -> Option<&VersionVector> {
        self.own.as_ref().map(|root| &root.vector)
    }

    /// This node's last root.
    pub fn last(&self) -> Option<&Root> {
        self.own.as_ref()
    }

    /// This node's state is changed by a repair, at the same vector.
    pub fn repaired(&mut self) {
        self.own = None;
    }

    /// A peer's state.
    pub fn peer(&mut self, from: NodeId, root: Root) {
        self.peers.insert(from, root);
    }

    /// A peer counts no more.
    pub fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// Compares, with those that are `in_contact`: once all of them stand where this node does.
    pub fn compare(&mut self, in_contact: &[NodeId], tick: u64) -> Option<Difference> {
        let own = self.own.as_ref()?;
        let mut hashes: Vec<(NodeId, u128)> = Vec::new();
        for peer in in_contact {
            let root = self.peers.get(peer)?;
            if root.vector != own.vector {
                return None;
            }
            hashes.push((*peer, root.hash));
        }
        let Some(&(peer, hash)) = hashes.iter().find(|(_, hash)| *hash != own.hash) else {
            if !hashes.is_empty() && self.last_equal.as_ref() != Some(&own.vector) {
                self.equal += 1;
                self.last_equal = Some(own.vector.clone());
            }
            return None;
        };
        let repeats = self.said.is_some_and(|(to, ours, theirs, at)| {
            (to, ours, theirs) == (peer, own.hash, hash) && tick < at + REPEAT_TICKS
        });
        if repeats {
            return None;
        }
        self.said = Some((peer, own.hash, hash, tick));
        let alike = |of: u128| hashes.iter().filter(|(_, hash)| *hash == of).count();
        let ours = 1 + alike(own.hash);
        let best = hashes.iter().map(|(_, hash)| alike(*hash)).max().unwrap_or(0);
        let (peer, repair) = match ours.cmp(&best) {
            std::cmp::Ordering::Greater => (peer, None),
            std::cmp::Ordering::Equal => (peer, Some(SameVersion::Greater)),
            std::cmp::Ordering::Less => {
                let of_most = hashes.iter().find(|(_, hash)| alike(*hash) == best);
                (of_most.map_or(peer, |(peer, _)| *peer), Some(SameVersion::Theirs))
            }
        };
        Some(Difference { peer, repair })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::dynamo::vector::Row;

    fn root(sequence: u64, hash: u128) -> Root {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin: 1, sequence, time: sequence });
        Root { vector, hash }
    }

    fn compared(own: u128, peers: &[u128]) -> Option<Difference> {
        let mut roots = Roots::default();
        roots.own(root(1, own));
        for (place, hash) in peers.iter().enumerate() {
            roots.peer(place as u64 + 2, root(1, *hash));
        }
        let ids: Vec<NodeId> = (2..2 + peers.len() as u64).collect();
        let found = roots.compare(&ids, 1);
        assert_eq!(roots.compare(&ids, 2), None, "the same isn't said twice");
        found
    }

    #[test]
    fn the_copy_that_most_have_is_right() {
        assert_eq!(compared(7, &[7, 7]), None);
        assert_eq!(compared(7, &[8, 8]), Some(Difference { peer: 2, repair: Some(SameVersion::Theirs) }));
        assert_eq!(compared(7, &[7, 8]), Some(Difference { peer: 3, repair: None }));
        assert_eq!(compared(7, &[8]), Some(Difference { peer: 2, repair: Some(SameVersion::Greater) }));
        assert_eq!(compared(7, &[8, 9]), Some(Difference { peer: 2, repair: Some(SameVersion::Greater) }));
    }

    #[test]
    fn states_are_compared_only_at_the_same_vector() {
        let mut roots = Roots::default();
        roots.own(root(1, 7));
        roots.peer(2, root(2, 8));
        assert_eq!(roots.compare(&[2], 1), None);
        roots.own(root(2, 8));
        assert_eq!((roots.compare(&[2], 2), roots.equal), (None, 1));
        assert_eq!((roots.compare(&[2], 3), roots.equal), (None, 1), "counted once");
    }
}
