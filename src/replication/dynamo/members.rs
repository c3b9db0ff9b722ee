//! Who belongs to a cluster of dynamo mode, as its nodes agree on without a leader.
//!
//! A change is an entry of the stream of the node that made it, so that everyone who
//! has that node's later entries has the change, too. For each node id the change
//! with the highest version counts; a directory that was evicted stays so for ever:
//!
//! ```text
//!   begin   a directory begins a stream: "these entries are node 3's"     by itself
//!   admit   a node that nobody has named joins                            by whom it met
//!   evict   node 3 is gone for good, and so is this directory             by an operator
//! ```
//!
//! All nodes that the flags name belong to it from the start, before anyone has met
//! them: what may come from them is waited for.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::vector::Origin;
use crate::persistence::NodeUuid;
use crate::replication::message::NodeId;
use crate::version::Version;

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberChange {
    /// A stream begins.
    Begin {
        /// The stream.
        origin: Origin,
        /// Whose it is.
        node: Place,
    },
    /// A node joins.
    Admit {
        /// Which.
        node: Place,
    },
    /// A node is gone for good.
    Evict {
        /// Its number.
        node_id: NodeId,
        /// Its directory, if anyone has met it.
        directory: Option<NodeUuid>,
    },
}

/// A node and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its number.
    pub node_id: NodeId,
    /// Its directory; `None` before it was met.
    pub directory: Option<NodeUuid>,
    /// Where it is reached.
    pub host: String,
    /// Where it is reached.
    pub port: u16,
}

impl MemberChange {
    /// As an entry's body.
    pub fn encode(&self) -> Bytes {
        // Writing plain fields into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads an entry's body.
    pub fn decode(bytes: &[u8]) -> Option<MemberChange> {
        serde_json::from_slice(bytes).ok()
    }
}

/// What is known of one node id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Of the change that counts; zeroes where only the flags name it.
    version: (u64, u32),
    /// `None`: it is gone.
    place: Option<Place>,
}

/// A stream and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Which.
    pub origin: Origin,
    /// Whose.
    pub node_id: NodeId,
    /// Of which directory.
    pub directory: NodeUuid,
    /// Of the entry that began it.
    pub began: (u64, u32),
}

/// Everyone, past and present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    records: BTreeMap<NodeId, Record>,
    streams: Vec<Stream>,
    /// Directories that were evicted, and the version of the entry that said so.
    evicted: Vec<(NodeUuid, (u64, u32))>,
}

impl Members {
    /// A node that this node's flags name.
    pub fn named(&mut self, node_id: NodeId, host: &str, port: u16) {
        let place = || Place { node_id, directory: None, host: host.into(), port };
        self.records.entry(node_id).or_insert_with(|| Record { version: (0, 0), place: Some(place()) });
    }

    /// A change, made by the entry of this version.
    pub fn apply(&mut self, change: &MemberChange, version: Version) {
        let version = (version.index, version.ordinal);
        match change {
            MemberChange::Begin { origin, node } => {
                if let Some(directory) = node.directory.filter(|_| self.stream(*origin).is_none()) {
                    let (origin, node_id) = (*origin, node.node_id);
                    self.streams.push(Stream { origin, node_id, directory, began: version });
                    self.streams.sort_by_key(|stream| stream.origin);
                }
                self.set(node.node_id, version, Some(node.clone()));
            }
            MemberChange::Admit { node } => self.set(node.node_id, version, Some(node.clone())),
            MemberChange::Evict { node_id, directory } => {
                if let Some(directory) = directory.filter(|directory| !self.is_evicted(*directory)) {
                    self.evicted.push((directory, version));
                    self.evicted.sort_by_key(|(directory, _)| directory.0);
                }
                self.set(*node_id, version, None);
            }
        }
    }

    fn set(&mut self, node_id: NodeId, version: (u64, u32), place: Option<Place>) {
        let newer = self.records.get(&node_id).is_none_or(|record| record.version < version);
        if newer {
            self.records.insert(node_id, Record { version, place });
        }
    }

    /// With all that another node knows of them: its state comes without the entries that said so.
    pub fn merge(&mut self, other: &Members) {
        for stream in other
            .streams
            .iter()
            .filter(|stream| self.stream(stream.origin).is_none())
            .cloned()
            .collect::<Vec<_>>()
        {
            self.streams.push(stream);
        }
        self.streams.sort_by_key(|stream| stream.origin);
        for (directory, version) in &other.evicted {
            if !self.is_evicted(*directory) {
                self.evicted.push((*directory, *version));
            }
        }
        self.evicted.sort_by_key(|(directory, _)| directory.0);
        for (node_id, record) in &other.records {
            self.set(*node_id, record.version, record.place.clone());
        }
    }

    /// Whether a directory was evicted.
    pub fn is_evicted(&self, directory: NodeUuid) -> bool {
        self.evicted.iter().any(|(evicted, _)| *evicted == directory)
    }

    /// A member, `None` if it is none (any more).
    pub fn member(&self, node_id: NodeId) -> Option<&Place> {
        let place = self.records.get(&node_id)?.place.as_ref()?;
        place.directory.is_none_or(|directory| !self.is_evicted(directory)).then_some(place)
    }

    /// The numbers of all members, ascending.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.records.keys().copied().filter(|node_id| self.member(*node_id).is_some()).collect()
    }

    /// A stream by its origin.
    pub fn stream(&self, origin: Origin) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.origin == origin)
    }

    /// All streams that ever began, ascending by origin.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The stream that a directory writes now: the one that it began last.
    pub fn current_stream(&self, directory: NodeUuid) -> Option<&Stream> {
        let own = self.streams.iter().filter(|stream| stream.directory == directory);
        own.max_by_key(|stream| stream.began)
    }

    /// What ended a stream, if it has ended: the version of the entry that evicted its
    /// directory, or that began another one of it.
    pub fn ended(&self, stream: &Stream) -> Option<Version> {
        let version = |(index, ordinal): (u64, u32)| Version { index, ordinal };
        let evicted = self.evicted.iter().find(|(directory, _)| *directory == stream.directory);
        let successor = self.current_stream(stream.directory).filter(|last| last.origin != stream.origin);
        let ends = [evicted.map(|(_, at)| *at), successor.map(|last| last.began)];
        ends.into_iter().flatten().min().map(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, ordinal: u32) -> Version {
        Version { index, ordinal }
    }

    fn place(node_id: NodeId, directory: u8) -> Place {
        Place { node_id, directory: Some(NodeUuid([directory; 16])), host: "h".into(), port: 1 }
    }

    #[test]
    fn changes_in_any_order_lead_to_the_same_members() {
        let changes = [
            (MemberChange::Begin { origin: 5, node: place(2, 2) }, at(10, 5)),
            (MemberChange::Admit { node: place(3, 3) }, at(11, 5)),
            (MemberChange::Begin { origin: 7, node: place(3, 3) }, at(12, 7)),
            (MemberChange::Evict { node_id: 3, directory: Some(NodeUuid([3; 16])) }, at(20, 5)),
            (MemberChange::Admit { node: place(3, 4) }, at(30, 5)),
        ];
        let mut forward = Members::default();
        let mut backward = Members::default();
        for (members, order) in [(&mut forward, [0, 1, 2, 3, 4]), (&mut backward, [4, 3, 2, 1, 0])] {
            members.named(2, "h", 1);
            order.iter().for_each(|at| members.apply(&changes[*at].0, changes[*at].1));
        }
        assert_eq!(forward, backward);
        let (mut first, mut last) = (Members::default(), Members::default());
        last.named(2, "h", 1);
        changes[..2].iter().for_each(|(change, version)| first.apply(change, *version));
        changes[2..].iter().for_each(|(change, version)| last.apply(change, *version));
        last.merge(&first);
        assert_eq!(last, forward, "what two have heard apart");
        assert_eq!(forward.node_ids(), [2, 3]);
        assert_eq!(forward.member(3), Some(&place(3, 4)));
        assert!(forward.is_evicted(NodeUuid([3; 16])));
        assert_eq!(forward.ended(forward.stream(7).unwrap()), Some(at(20, 5)));
        assert_eq!(forward.ended(forward.stream(5).unwrap()), None);
    }

    #[test]
    fn a_directory_that_begins_anew_ends_its_earlier_stream() {
        let mut members = Members::default();
        members.apply(&MemberChange::Begin { origin: 5, node: place(2, 2) }, at(10, 5));
        members.apply(&MemberChange::Begin { origin: 6, node: place(2, 2) }, at(20, 6));
        assert_eq!(members.ended(members.stream(5).unwrap()), Some(at(20, 6)));
        assert_eq!(members.current_stream(NodeUuid([2; 16])).unwrap().origin, 6);
        assert_eq!(members.ended(members.stream(6).unwrap()), None);
    }
}
