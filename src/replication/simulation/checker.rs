//! What must hold whatever happens. A violation stops the run.

use std::collections::{BTreeMap, BTreeSet};

use super::node::State;
use crate::replication::message::{EntryKind, LogEntry, NodeId};
use crate::replication::raft::{Role, RoleChange};

/// A client's operation.
pub type Operation = u64;

/// Everything that was seen.
#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<u64, NodeId>,
    /// Each committed entry: its term and payload.
    committed: BTreeMap<u64, (u64, Vec<u8>)>,
    /// The state's hash behind each entry.
    hashes: BTreeMap<u64, u64>,
    refused: BTreeSet<Operation>,
    /// The newest entry that some client has seen the effect of.
    pub seen: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub refusals: u64,
}

impl Checker {
    /// A term has one leader.
    pub fn role(&mut self, node: NodeId, change: RoleChange) {
        if change.role == Role::Leader {
            let leader = *self.leaders.entry(change.term).or_insert(node);
            assert_eq!(leader, node, "two leaders in term {}", change.term);
        }
    }

    /// Every node applies the same entry at an index, and has the same state behind it.
    pub fn applied(&mut self, node: NodeId, entry: &LogEntry, state: &State) {
        let said = (entry.term, entry.payload.to_vec());
        let known = self.committed.entry(entry.index).or_insert_with(|| said.clone());
        assert_eq!(*known, said, "node {node} applies another entry {}", entry.index);
        if entry.kind == EntryKind::Writes {
            let operation = super::node::operation_of(&entry.payload);
            assert!(!self.refused.contains(&operation), "refused operation {operation} was applied");
        }
        let hash = *self.hashes.entry(entry.index).or_insert(state.hash);
        assert_eq!(hash, state.hash, "node {node} has another state behind entry {}", entry.index);
    }

    /// What was acknowledged is the committed entry there, and on a majority's disks.
    pub fn acknowledged(&mut self, operation: Operation, index: u64, disks: usize, majority: usize) {
        let (_, payload) = self.committed.get(&index).expect("acknowledged before anyone applied it");
        assert!(
            !payload.is_empty() && super::node::operation_of(payload) == operation,
            "operation {operation} was acknowledged and is not at {index}"
        );
        assert!(disks >= majority, "operation {operation} was acknowledged with {disks} disks");
        self.seen = self.seen.max(index);
        self.acknowledged += 1;
    }

    /// An operation was definitely refused: it may never show.
    pub fn refused(&mut self, operation: Operation) {
        self.refused.insert(operation);
        self.refusals += 1;
    }

    /// A read saw the state behind `applied`; `seen` is what clients had seen when it began.
    pub fn read(&mut self, applied: u64, seen: u64) {
        assert!(applied >= seen, "a read saw the state behind {applied}, and {seen} had been seen before it");
        self.seen = self.seen.max(applied);
        self.reads += 1;
    }

    /// The newest committed entry.
    pub fn last_committed(&self) -> u64 {
        self.committed.keys().next_back().copied().unwrap_or(0)
    }
}
