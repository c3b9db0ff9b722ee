//! A node: its disk, which outlives its processes, and what a process has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::disk::{SimulatedDisk, Snapshot};
use super::model::{Model, Registry};
use crate::engine::{Conflict, Entry, Placement, Slice, StateHash, Table};
use crate::persistence::{NodeUuid, next_random};
use crate::replication::appends::Appends;
use crate::replication::dynamo::entry::{Content, Decoded, Dotted, decode};
use crate::replication::dynamo::mistake::Mistake;
use crate::replication::dynamo::{
    History, Origin, Place, Replica, SnapshotVector, Start, VersionVector, apply, begin,
};
use crate::replication::group::Acknowledgement;
use crate::replication::message::NodeId;

/// Names what a client asked for.
pub type Operation = u64;

/// Slices of a node.
pub const SHARDS: usize = 2;
/// When the simulation begins, by a clock that is right.
const EPOCH_MS: u64 = 1_000_000;
const GROUP_BYTES_WANTED: usize = 400;

/// Where keys live, on every node.
pub fn placement() -> Placement {
    Placement::new((1, 2), SHARDS)
}

/// A snapshot that is being made.
pub struct Walk {
    pub after: u64,
    pub state: SnapshotVector,
    pub shard: usize,
    pub position: usize,
    pub entries: Vec<Entry>,
    /// How much of the log stays before S.
    pub keep: u64,
}

/// A process that runs.
pub struct Process {
    pub replica: Replica,
    pub slices: Vec<Slice<Operation>>,
    pub appends: Appends,
    pub frame_is_due: bool,
    /// Whose writes the entries are that this process has ordered.
    pub acknowledgements: BTreeMap<u64, Vec<Acknowledgement>>,
    pub applied: u64,
    /// What the slices must hold, by the entries that were applied: all of `vector`.
    pub model: Model,
    pub vector: VersionVector,
    pub walk: Option<Walk>,
    /// Directories that it has admitted.
    pub admitting: BTreeSet<[u8; 16]>,
    pub conflicts: Vec<Conflict>,
    pub knows_eviction: bool,
}

impl Process {
    pub fn tables(&self) -> Vec<&Table> {
        self.slices.iter().map(Slice::table).collect()
    }

    pub fn hash(&self) -> u128 {
        let hashes = self.slices.iter().filter_map(|slice| slice.table().state_hash());
        hashes.fold(StateHash::default(), StateHash::with).0
    }

    /// Whom it takes for members, with their directories, and which directories were evicted. What else it knows
    /// of those who are gone may be known here alone: their last entries may have reached nobody.
    pub fn members(&self) -> (Vec<Place>, Vec<NodeUuid>) {
        let members = self.replica.members();
        let places = members.node_ids().into_iter().filter_map(|id| members.member(id).cloned());
        (places.collect(), members.evicted_directories().collect())
    }

    /// How many tombstones there are, and the latest time among them.
    pub fn tombstones(&self) -> (usize, u64) {
        let all = self.slices.iter().map(|slice| slice.table().tombstones());
        all.fold((0, 0), |(count, latest), (more, time)| (count + more, latest.max(time)))
    }
}

/// A machine.
pub struct Node {
    pub id: NodeId,
    pub disk: SimulatedDisk,
    /// Whom its flags name; empty: all.
    pub named: Vec<NodeId>,
    /// A copy of its directory as it was.
    pub older: Option<SimulatedDisk>,
    pub process: Option<Process>,
    /// Counts its starts, so that what an earlier process ordered reaches no later one.
    pub incarnation: u64,
    /// Where it listens: another one when it has moved.
    pub port: u16,
    pub offset_ms: i64,
    pub sync_ms: u64,
    /// All that is durable, as far as a process has said so.
    pub vector: VersionVector,
    /// States that were taken over may hold this much, in part.
    pub ahead: VersionVector,
    /// It takes no writes before it has heard each of these.
    pub must_hear: BTreeSet<NodeId>,
    /// It takes no writes before it was admitted, and has that entry.
    pub must_be_admitted: bool,
    pub is_evicted: bool,
    pub is_damaged: bool,
    /// Its last root was taken when it held more than it had.
    pub has_rough_root: bool,
    /// It was restored, and has written nothing since: it doesn't know yet where its stream ends.
    pub is_restored: bool,
    /// It was restored, which it knows until its new stream has begun.
    pub begins_anew: bool,
}

impl Node {
    pub fn new(id: NodeId, seed: u64) -> Node {
        Node {
            id,
            disk: SimulatedDisk::new(directory(id, 0), seed ^ id),
            named: Vec::new(),
            older: None,
            process: None,
            incarnation: 0,
            port: 1,
            offset_ms: 0,
            sync_ms: 1,
            vector: VersionVector::default(),
            ahead: VersionVector::default(),
            must_hear: BTreeSet::new(),
            must_be_admitted: false,
            is_evicted: false,
            is_damaged: false,
            has_rough_root: false,
            is_restored: false,
            begins_anew: false,
        }
    }

    /// An empty disk takes the place of what there was.
    pub fn wipe(&mut self, number: u64, seed: u64) {
        let (incarnation, offset_ms, named) = (self.incarnation, self.offset_ms, self.named.clone());
        let disk = SimulatedDisk::new(directory(self.id, number), seed);
        *self =
            Node { disk, incarnation, offset_ms, named, must_be_admitted: true, ..Node::new(self.id, seed) };
    }

    pub fn place(&self) -> Place {
        Place { directory: Some(self.disk.directory), port: self.port, ..named(self.id) }
    }

    /// What its clock says.
    pub fn clock_ms(&self, now_ms: u64) -> u64 {
        (EPOCH_MS + now_ms).saturating_add_signed(self.offset_ms)
    }

    /// Whether what it holds is exactly what its vector says.
    pub fn is_pure(&self) -> bool {
        let covers =
            |process: &Process| process.vector.covers(&self.ahead) && process.replica.excess().is_empty();
        !self.is_damaged && self.process.as_ref().is_none_or(covers)
    }

    /// Starts a process from what the disk has; gives the changes of the members that it finds.
    pub fn start(
        &mut self,
        nodes: u64,
        now_ms: u64,
        random: &mut u64,
        mistake: Option<Mistake>,
        registry: &mut Registry,
    ) -> Vec<Dotted> {
        if self.is_restored {
            self.must_hear = (1..=nodes).filter(|id| *id != self.id).collect();
        }
        let Snapshot { after, state, entries, .. } = self.disk.snapshot.clone();
        let mut slices: Vec<Slice<Operation>> =
            (0..SHARDS).map(|shard| Slice::new(table(&entries, shard), after)).collect();
        slices.iter_mut().for_each(|slice| begin(slice, &state));
        let mut history = History::new(after, state);
        let mut found: Vec<(u64, Bytes)> = Vec::new();
        self.disk.open(&mut |index, payload| found.push((index, payload)));
        let mut member_changes = Vec::new();
        for (index, payload) in &found {
            let entry = decode(payload).expect("an entry that was written");
            if let Decoded::Dotted(dotted) = &entry {
                registry.add(dotted);
                if matches!(dotted.content, Content::Members(_)) {
                    member_changes.push(dotted.clone());
                }
            }
            history.take(*index, &entry);
            slices.iter_mut().enumerate().for_each(|(shard, slice)| apply(slice, shard, *index, &entry));
        }
        slices.iter_mut().for_each(|slice| *slice.output() = Default::default());
        let applied = history.next_index() - 1;
        self.vector = history.vector.clone();
        let (model, vector) = (registry.model(&history.vector), history.vector.clone());
        let mut drawn = next_random(random);
        let mut replica = Replica::new(Start {
            place: self.place(),
            history,
            named: (1..=nodes)
                .filter(|id| self.named.is_empty() || self.named.contains(id))
                .map(named)
                .collect(),
            begins_anew: self.begins_anew,
            origins: Box::new(move || next_random(&mut drawn) as Origin),
        });
        if let Some(mistake) = mistake {
            replica.mistaken(mistake);
        }
        replica.begin(self.clock_ms(now_ms));
        self.incarnation += 1;
        self.process = Some(Process {
            replica,
            slices,
            appends: Appends::new(GROUP_BYTES_WANTED),
            frame_is_due: false,
            acknowledgements: BTreeMap::new(),
            applied,
            model,
            vector,
            walk: None,
            admitting: BTreeSet::new(),
            conflicts: Vec::new(),
            knows_eviction: false,
        });
        member_changes
    }

    /// The process ends, with or without the power.
    pub fn crash(&mut self) {
        self.process = None;
        self.disk.crash();
    }
}

/// As the flags name a node.
fn named(node_id: NodeId) -> Place {
    Place { node_id, directory: None, host: format!("node{node_id}"), port: 1 }
}

fn directory(id: NodeId, number: u64) -> NodeUuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..].copy_from_slice(&(number + 1).to_le_bytes());
    NodeUuid(bytes)
}

/// A shard's table of a snapshot's entries.
fn table(entries: &[Entry], shard: usize) -> Table {
    let mut table = Table::new(placement(), shard).with_tombstones().with_state_hash();
    for entry in entries {
        let hash = placement().hash(entry.key());
        if placement().shard(hash) != shard {
            continue;
        }
        if entry.is_tombstone() {
            table.bury(entry.clone(), hash);
        } else {
            table.insert(entry.clone(), hash);
        }
    }
    table
}
