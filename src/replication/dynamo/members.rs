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
//!   report  what a directory has of the streams that have ended           by each member (ended.rs)
//! ```
//!
//! All nodes that the flags name belong to it from the start, before anyone has met
//! them: what may come from them is waited for. Nodes tell each other whom they take for
//! members (listing.rs), so that it is enough if the flags of one of them name a node.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ended::Report;
use super::vector::{Origin, Row};
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
    /// What a member has of streams that have ended.
    Report {
        /// The member's directory.
        directory: NodeUuid,
        /// What it has of each of them.
        ended: Vec<Row>,
        /// The directories of whose eviction it knows.
        evicted: Vec<NodeUuid>,
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

/// What one change says of a node id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Of the change; zeroes where only the flags name it.
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
    /// Of each node id the last word about each of its directories, and that it is gone.
    records: BTreeMap<NodeId, Vec<Record>>,
    streams: Vec<Stream>,
    /// Directories that were evicted, and the version of the entry that said so.
    pub(super) evicted: Vec<(NodeUuid, (u64, u32))>,
    /// What members have of streams that have ended. A version before knows nothing of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) reports: Vec<Report>,
}

impl Members {
    /// A node that this node's flags name.
    pub fn named(&mut self, node_id: NodeId, host: &str, port: u16) {
        let place = || Place { node_id, directory: None, host: host.into(), port };
        let first = || vec![Record { version: (0, 0), place: Some(place()) }];
        self.records.entry(node_id).or_insert_with(first);
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
                directory.iter().for_each(|directory| self.mark_evicted(*directory, version));
                self.set(*node_id, version, None);
            }
            MemberChange::Report { directory, ended, evicted } => {
                self.report(*directory, ended, evicted, version);
            }
        }
    }

    fn set(&mut self, node_id: NodeId, version: (u64, u32), place: Option<Place>) {
        let about = |place: &Option<Place>| place.as_ref().map(|place| place.directory);
        let records = self.records.entry(node_id).or_default();
        match records.iter_mut().find(|record| about(&record.place) == about(&place)) {
            Some(record) if record.version < version => *record = Record { version, place },
            Some(_) => {}
            None => records.push(Record { version, place }),
        }
        records.sort_by_key(|record| record.version);
        // What the flags say counts until anyone was heard.
        if records.last().is_some_and(|last| last.version > (0, 0)) {
            records.retain(|record| record.version > (0, 0));
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
        other.evicted.iter().for_each(|(directory, version)| self.mark_evicted(*directory, *version));
        self.merge_reports(other);
        for (node_id, records) in &other.records {
            records.iter().for_each(|record| self.set(*node_id, record.version, record.place.clone()));
        }
    }

    /// With what a peer's list of members says: who was evicted, which streams there are, what was reported, and
    /// who has which number that nobody here has met. Another directory of a number that was met is let in by the
    /// entry that says so: the peer may have let it in by its flags alone.
    pub(super) fn merge_list(&mut self, list: &Members, from: NodeId) {
        let gone = Members { records: BTreeMap::new(), ..list.clone() };
        self.merge(&gone);
        for node_id in list.records.keys() {
            match list.member(*node_id) {
                Some(place) => {
                    let of_it = |record: &&Record| record.place.as_ref() == Some(place);
                    let record = list.records.get(node_id).and_then(|records| records.iter().find(of_it));
                    let is_met = |known: &Record| known.version > (0, 0);
                    let is_known = self.records.get(node_id).is_some_and(|known| known.iter().any(is_met));
                    // What a node says of its own number may be that of a directory that nobody has let in.
                    if let Some(record) = record.filter(|_| !is_known && *node_id != from) {
                        self.set(*node_id, record.version, record.place.clone());
                    }
                }
                None => list.evictions_of(*node_id).for_each(|version| self.set(*node_id, version, None)),
            }
        }
    }

    /// What it occupies beside its handle, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let records = self.records.values().flatten();
        let records: usize = records
            .map(|record| {
                size_of_val(record) + record.place.as_ref().map_or(0, |place| place.host.capacity())
            })
            .sum();
        records
            + self.streams.capacity() * size_of::<Stream>()
            + self.evicted.capacity() * size_of::<(NodeUuid, (u64, u32))>()
            + self.reports.iter().map(Report::memory_bytes).sum::<usize>()
    }

    /// Whether a directory was evicted.
    pub fn is_evicted(&self, directory: NodeUuid) -> bool {
        self.evicted.iter().any(|(evicted, _)| *evicted == directory)
    }

    /// A member, `None` if it is none (any more).
    pub fn member(&self, node_id: NodeId) -> Option<&Place> {
        self.last_record(node_id)?.place.as_ref()
    }

    /// A member, and the version of the last word about it.
    pub(super) fn member_since(&self, node_id: NodeId) -> Option<(&Place, (u64, u32))> {
        let record = self.last_record(node_id)?;
        Some((record.place.as_ref()?, record.version))
    }

    /// The version of the last word about a directory with this number.
    pub(super) fn last_word(&self, node_id: NodeId, directory: NodeUuid) -> Option<(u64, u32)> {
        let is_its = |place: &Place| place.directory == Some(directory);
        let mut records = self.records.get(&node_id)?.iter();
        records.find(|record| record.place.as_ref().is_some_and(is_its)).map(|record| record.version)
    }

    fn last_record(&self, node_id: NodeId) -> Option<&Record> {
        // What an evicted directory still says of itself counts for nothing.
        let counts = |record: &&Record| {
            let directory = record.place.as_ref().and_then(|place| place.directory);
            directory.is_none_or(|directory| !self.is_evicted(directory))
        };
        self.records.get(&node_id)?.iter().rev().find(counts)
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

    /// The versions of the entries that have evicted a number.
    pub(super) fn evictions_of(&self, node_id: NodeId) -> impl Iterator<Item = (u64, u32)> {
        let records = self.records.get(&node_id).into_iter().flatten();
        records.filter(|record| record.place.is_none()).map(|record| record.version)
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
    fn members_that_come_with_a_state_are_those_that_its_entries_say() {
        let begin = |id: u8| MemberChange::Begin { origin: u32::from(id), node: place(u64::from(id), id) };
        let evict = MemberChange::Evict { node_id: 3, directory: Some(NodeUuid([3; 16])) };
        let (mut one, mut other) = (Members::default(), Members::default());
        one.apply(&begin(2), at(10, 2));
        other.apply(&begin(3), at(11, 3));
        other.apply(&evict, at(20, 4));
        let mut by_entries = one.clone();
        by_entries.apply(&evict, at(20, 4));
        by_entries.apply(&begin(3), at(11, 3));
        one.merge(&other);
        assert_eq!(one, by_entries);
        assert!(one.is_evicted(NodeUuid([3; 16])) && one.stream(3).is_some());
    }

    #[test]
    fn what_an_evicted_directory_says_late_doesn_t_push_out_its_successor() {
        let mut members = Members::default();
        members.apply(&MemberChange::Begin { origin: 7, node: place(3, 3) }, at(12, 7));
        members.apply(&MemberChange::Evict { node_id: 3, directory: Some(NodeUuid([3; 16])) }, at(20, 5));
        members.apply(&MemberChange::Admit { node: place(3, 4) }, at(30, 5));
        members.apply(&MemberChange::Admit { node: place(3, 3) }, at(40, 7));
        assert_eq!(members.member(3), Some(&place(3, 4)));
    }

    #[test]
    fn a_stream_ends_with_its_node_whoever_evicted_it() {
        let mut members = Members::default();
        members.apply(&MemberChange::Begin { origin: 7, node: place(3, 3) }, at(12, 7));
        members.apply(&MemberChange::Evict { node_id: 3, directory: None }, at(20, 5));
        assert_eq!(members.ended(members.stream(7).unwrap()), Some(at(20, 5)));
        assert_eq!(members.member(3), None);
        members.apply(&MemberChange::Begin { origin: 8, node: place(3, 4) }, at(30, 8));
        assert_eq!(members.ended(members.stream(8).unwrap()), None);
        assert_eq!(members.member(3), Some(&place(3, 4)));
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
