//! What must hold whatever happens. A violation stops the run.
//!
//! All committed writes are in one order, the log's. So the history is
//! linearizable if every operation fits that order between its beginning and its
//! end: who asked after something was seen sees no less; a write that succeeded
//! is in the log once, at the version told, behind exactly what its condition
//! named; what was refused is nowhere.

use std::collections::BTreeMap;

use super::history::{History, Request};
use crate::engine::{Condition, Entry, StateHash, Version};
use crate::error::{Detail, Error, Outcome};
use crate::persistence::{Configuration, is_witness};
use crate::replication::message::{LogEntry, NodeId};
use crate::replication::raft::{Role, RoleChange};

/// A client's operation.
pub type Operation = u64;
pub type Key = &'static [u8];

/// What a client wants.
#[derive(Clone, Debug)]
pub enum What {
    Get { key: Key, freshness: Freshness },
    Write { key: Key, deletes: bool, condition: Condition },
    Bulk { keys: Vec<Key>, deletes: bool },
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// On a leader, that asks whether it leads.
    Linearizable,
    /// On a replica, that asks its leader: no less fresh.
    Probed,
    /// As it is on the node asked.
    Local,
}

impl What {
    fn keys(&self) -> Vec<&[u8]> {
        match self {
            What::Get { key, .. } | What::Write { key, .. } => vec![*key],
            What::Bulk { keys, .. } => keys.to_vec(),
        }
    }

    fn deletes(&self) -> bool {
        matches!(self, What::Write { deletes: true, .. } | What::Bulk { deletes: true, .. })
    }
}

/// An operation and what became of it.
struct Asked {
    what: What,
    /// The newest entry that some client had seen when it began.
    seen: u64,
    /// Whom it was asked: node, its incarnation, and when.
    of: (usize, u64, u64),
    /// Answers that are still to come.
    missing: usize,
    refused: bool,
    /// Nobody waits for the answer any more.
    given_up: bool,
    /// Where it is in the log.
    logged: Option<Version>,
}

/// How much was checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub acknowledged: u64,
    pub acknowledged_bulks: u64,
    pub acknowledged_conditional: u64,
    pub refused: u64,
    pub refused_by_condition: u64,
    pub unknown: u64,
    pub reads: u64,
    pub replica_reads: u64,
    pub local_reads: u64,
    pub hashes: u64,
}

/// Everything that was seen.
#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<u64, NodeId>,
    pub history: History,
    operations: BTreeMap<Operation, Asked>,
    /// Deletions in the log that nobody has claimed: a deletion doesn't say whose it is.
    deletions: BTreeMap<Vec<Vec<u8>>, Vec<Version>>,
    /// The newest entry that some client has seen the effect of.
    seen: u64,
    /// What clients last knew of each key.
    recent: BTreeMap<Key, Option<Version>>,
    /// The key that was written last.
    pub newest: Option<Key>,
    pub counts: Counts,
}

impl Checker {
    /// An operation begins, at a node in its so-manieth life.
    pub fn ask(&mut self, what: What, of: (usize, u64, u64)) -> Operation {
        let operation = self.operations.len() as u64 + 1;
        let missing = if matches!(what, What::Bulk { .. }) { super::node::SHARDS } else { 1 };
        let asked =
            Asked { what, seen: self.seen, of, missing, refused: false, given_up: false, logged: None };
        self.operations.insert(operation, asked);
        operation
    }

    pub fn what(&self, operation: Operation) -> &What {
        &self.operations[&operation].what
    }

    /// Whether someone waits for the answer, or has had it.
    pub fn is_asked(&self, operation: Operation) -> bool {
        !self.operations[&operation].given_up
    }

    /// One node goes on alone, with what its log holds: what it lacks is lost, though it
    /// was acknowledged.
    pub fn forced(&mut self, base: Configuration, through: u64, has: impl Fn(u64, u64) -> bool) {
        let kept = self.history.forced(base, through, has);
        self.forget_behind(kept);
    }

    /// All that has more than this was set back: what was behind it is lost, though it was acknowledged.
    pub fn restored(&mut self, kept: u64) {
        self.history.restored(kept);
        self.forget_behind(kept);
    }

    fn forget_behind(&mut self, kept: u64) {
        self.leaders.clear();
        for asked in self.operations.values_mut() {
            asked.given_up |= asked.missing > 0;
            asked.missing = 0;
            asked.logged = asked.logged.filter(|at| at.index <= kept);
        }
        for versions in self.deletions.values_mut() {
            versions.retain(|at| at.index <= kept);
        }
        self.recent.clear();
        self.seen = self.seen.min(kept);
    }

    /// What clients last knew of a key.
    pub fn recent(&self, key: Key) -> Option<Version> {
        self.recent.get(key).copied().flatten()
    }

    fn answered(&mut self, operation: Operation) -> &mut Asked {
        let asked = self.operations.get_mut(&operation).expect("it was asked");
        asked.missing = asked.missing.saturating_sub(1);
        asked
    }

    /// A term has one leader, and that is a node with data.
    pub fn role(&mut self, node: NodeId, change: RoleChange) {
        assert!(
            change.leader.is_none_or(|leader| !is_witness(leader)),
            "a witness leads in term {}",
            change.term
        );
        if change.role == Role::Leader {
            let leader = *self.leaders.entry(change.term).or_insert(node);
            assert_eq!(leader, node, "two leaders in term {}", change.term);
        }
    }

    /// A node hands over an entry: every node the same one.
    pub fn applied(&mut self, node: NodeId, entry: &LogEntry) {
        for request in self.history.committed(node, entry) {
            self.logged(&request);
            self.history.apply(&request);
        }
        self.history.applied(entry.index);
    }

    /// A request is in the log, and the state is that before it.
    fn logged(&mut self, request: &Request) {
        let version = request.version;
        let mut keys: Vec<&[u8]> = request.effects.iter().map(|(key, _)| &key[..]).collect();
        keys.sort_unstable();
        let Some(operation) = request.effects[0].1 else {
            let keys = keys.into_iter().map(<[u8]>::to_vec).collect();
            return self.deletions.entry(keys).or_default().push(version);
        };
        let asked = self.operations.get_mut(&operation).expect("someone asked for it");
        assert!(!asked.refused, "refused operation {operation} was applied");
        let before = asked.logged.replace(version);
        assert_eq!(before, None, "operation {operation} was applied twice");
        let mut wanted = asked.what.keys();
        wanted.sort_unstable();
        assert_eq!(keys, wanted, "operation {operation} is in the log in part");
        assert!(request.effects.iter().all(|(_, whose)| *whose == Some(operation)), "requests are mixed up");
        if let What::Write { key, condition, .. } = asked.what {
            self.condition_held(operation, condition, self.history.before(key, version));
        }
    }

    fn condition_held(&self, operation: Operation, condition: Condition, before: Option<Version>) {
        let held = match condition {
            Condition::None => true,
            Condition::Absent => before.is_none(),
            Condition::Version(wanted) => before == wanted,
            Condition::NeverMatches => false,
        };
        assert!(held, "operation {operation} wanted {condition:?} and the log has {before:?} before it");
    }

    /// A write was acknowledged: it is the committed one there, and on a majority's disks.
    /// `existed`: what was said of a deleted key.
    pub fn acknowledged(&mut self, operation: Operation, version: Version, existed: Option<bool>) {
        let asked = self.answered(operation);
        let (what, logged) = (asked.what.clone(), asked.logged);
        assert!(!asked.refused, "operation {operation} was refused and acknowledged");
        if what.deletes() {
            self.claim_deletion(operation, version);
        } else {
            assert_eq!(logged, Some(version), "operation {operation} was acknowledged and is not there");
        }
        self.counts.acknowledged += 1;
        match &what {
            What::Write { key, condition, .. } => {
                let before = self.history.before(key, version);
                self.condition_held(operation, *condition, before);
                assert!(existed.is_none_or(|existed| existed == before.is_some()), "it existed, or not");
                self.counts.acknowledged_conditional += u64::from(*condition != Condition::None);
            }
            What::Bulk { .. } => self.counts.acknowledged_bulks += 1,
            What::Get { .. } => panic!("a read was acknowledged"),
        }
        for key in keys_of(&what) {
            self.recent.insert(key, (!what.deletes()).then_some(version));
            self.newest = Some(key);
        }
        self.seen = self.seen.max(version.index);
    }

    fn claim_deletion(&mut self, operation: Operation, version: Version) {
        let asked = self.operations.get_mut(&operation).expect("it was asked");
        if let Some(before) = asked.logged.replace(version) {
            return assert_eq!(before, version, "the parts of bulk {operation} differ");
        }
        let unclaimed = self.deletions.get_mut(&signature(&asked.what));
        let place = unclaimed.as_ref().and_then(|versions| versions.iter().position(|at| *at == version));
        match unclaimed.zip(place) {
            Some((versions, place)) => versions.remove(place),
            None => panic!("deletion {operation} was acknowledged and is not at {version}"),
        };
    }

    /// A read was answered.
    pub fn read(&mut self, operation: Operation, entry: Option<&Entry>) {
        let asked = self.answered(operation);
        let What::Get { key, freshness } = asked.what else { panic!("a write was answered as a read") };
        let seen = if freshness == Freshness::Local { 0 } else { asked.seen };
        let version = entry.map(Entry::version);
        let saw = self.history.saw(key, version, seen);
        if let (Some(version), Some(entry)) = (version, entry) {
            let whose = self.history.at(key, version).flatten().map(|operation| operation.to_string());
            assert_eq!(whose.as_deref().map(str::as_bytes), entry.value(), "a read saw another value");
        }
        self.recent.insert(key, version);
        match freshness {
            Freshness::Linearizable => self.counts.reads += 1,
            Freshness::Probed => self.counts.replica_reads += 1,
            // How old it is, nobody said; but what it saw is committed.
            Freshness::Local => self.counts.local_reads += 1,
        }
        self.seen = self.seen.max(saw);
    }

    /// A condition refused: the key was so at some moment since the operation began.
    pub fn mismatch(&mut self, operation: Operation, current: Option<Version>) {
        let asked = self.answered(operation);
        asked.refused = true;
        let (seen, logged) = (asked.seen, asked.logged);
        let What::Write { key, condition, .. } = asked.what else { panic!("only writes have conditions") };
        assert_eq!(logged, None, "operation {operation} is in the log and was refused");
        let holds = match condition {
            Condition::Absent => current.is_none(),
            Condition::Version(wanted) => wanted == current,
            _ => true,
        };
        assert!(!holds, "operation {operation} was refused although {condition:?} holds for {current:?}");
        self.seen = self.seen.max(self.history.saw(key, current, seen));
        self.recent.insert(key, current);
        self.counts.refused_by_condition += 1;
    }

    /// An operation was refused, or nobody knows: see the error's outcome.
    pub fn refused(&mut self, operation: Operation, error: &Error) {
        if let Detail::Current(current) = error.detail {
            return self.mismatch(operation, current);
        }
        let asked = self.answered(operation);
        if matches!(asked.what, What::Get { .. }) {
            return;
        }
        if error.outcome == Outcome::NotApplied {
            asked.refused = true;
            assert_eq!(asked.logged, None, "operation {operation} is in the log and was refused");
            self.counts.refused += 1;
        } else {
            self.counts.unknown += 1;
        }
    }

    /// A shard's state behind an entry is what the log makes of it.
    pub fn state(&mut self, node: NodeId, shard: usize, index: u64, hash: StateHash) {
        let wanted = self.history.hash(shard, index);
        assert_eq!(hash, wanted, "node {node} has another state of shard {shard} behind entry {index}");
        self.counts.hashes += 1;
    }

    /// Nobody asks any more, and all that was to come came. `lives`: whether that
    /// life of the node goes on.
    pub fn end(&self, now_ms: u64, lives: impl Fn(usize, u64) -> bool) {
        const PATIENCE_MS: u64 = 5_000;
        let mut unclaimed: BTreeMap<Vec<Vec<u8>>, usize> = BTreeMap::new();
        for (operation, Asked { what, of, missing, refused, logged, .. }) in &self.operations {
            let (place, incarnation, asked_ms) = *of;
            let waits = *missing > 0 && asked_ms + PATIENCE_MS < now_ms && lives(place, incarnation);
            assert!(!waits, "operation {operation} ({what:?}) of {asked_ms} ms is never answered");
            if what.deletes() && !refused && logged.is_none() {
                *unclaimed.entry(signature(what)).or_default() += 1;
            }
        }
        for (keys, versions) in &self.deletions {
            let may_be = unclaimed.get(keys).copied().unwrap_or(0);
            assert!(versions.len() <= may_be, "refused deletions were applied: {versions:?}");
        }
    }
}

fn keys_of(what: &What) -> Vec<Key> {
    match what {
        What::Get { key, .. } | What::Write { key, .. } => vec![*key],
        What::Bulk { keys, .. } => keys.clone(),
    }
}

/// What deletions are told apart by.
fn signature(what: &What) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = keys_of(what).into_iter().map(<[u8]>::to_vec).collect();
    keys.sort_unstable();
    keys
}
