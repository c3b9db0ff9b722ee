//! One simulated node: the real replica, real slices to apply to, a disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Mutant;
use super::checker::Operation;
use super::cluster::TICK_MS;
use super::disk::{Found, Held, SimulatedDisk};
use super::log_writer::GROUP_BYTES_WANTED;
use super::members::Directory;
use super::older_copies::OlderCopy;
use super::probes::Asker;
use super::shards::SimulatedShard;
use super::snapshots::Copying;
use crate::engine::{Entry, Placement, Requests, Table, Version, replay};
use crate::persistence::next_random;
use crate::replication::appends::Appends;
use crate::replication::message::{EntryKind, LogEntry, NodeId};
use crate::replication::notices::Notices;
use crate::replication::policy::HandOver;
use crate::replication::protocol::PROTOCOL;
use crate::replication::raft::{Handle, Options, Replica, Role};

/// Slices of a node.
pub const SHARDS: usize = 2;
/// Which entries' states are compared: not all, as on a node.
const ENTRIES_BETWEEN_HASHES: u64 = 3;

/// Where keys live, on every node.
pub fn placement() -> Placement {
    Placement::new((1, 2), SHARDS)
}

/// A whole state: what a snapshot holds.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last entry in it.
    pub applied: u64,
    pub entries: Vec<Entry>,
}

impl State {
    /// A shard's part, as a table.
    pub fn table(&self, shard: usize) -> Table {
        let placement = placement();
        let mut table = Table::new(placement, shard).with_state_hash();
        for entry in &self.entries {
            let hash = placement.hash(entry.key());
            if placement.shard(hash) == shard {
                table.insert(entry.clone(), hash);
            }
        }
        table
    }
}

/// A process that runs.
pub struct Process {
    pub replica: Replica,
    pub policy: HandOver,
    /// What the WalWriter has gathered, and what it tells the shards.
    pub appends: Appends,
    pub notices: Notices,
    pub persists_under_way: usize,
    pub propose_is_due: bool,
    pub shards: Vec<SimulatedShard>,
    /// Who waits for a round.
    pub rounds: BTreeMap<Handle, Asker>,
    /// Operations that wait for the leader's answer.
    pub probes: BTreeSet<Operation>,
    /// Operations that wait until an entry is handed over.
    pub waiting: BTreeMap<u64, Vec<Operation>>,
    pub next_handle: Handle,
    /// Proposals as the mutants remember them: entry index to (term, payload).
    pub proposed: BTreeMap<u64, (u64, bytes::Bytes)>,
    /// The payload that is being proposed.
    pub proposing: bytes::Bytes,
    /// Snapshots that came out of band, by their index.
    pub received: BTreeMap<u64, State>,
    pub copying: Option<Copying>,
}

impl Process {
    pub fn leads(&self) -> bool {
        self.replica.status().role.role == Role::Leader
    }
}

/// A machine: its disk outlives its processes.
pub struct Node {
    pub id: NodeId,
    pub disk: SimulatedDisk,
    /// What disks had that were lost, or set back: it counted when it was asked for.
    pub lost: Vec<Held>,
    /// When a message of each other node came last.
    pub heard: BTreeMap<NodeId, u64>,
    /// Older copies of disk and directory.
    pub copies: Vec<OlderCopy>,
    /// What the disk is to note about doubt: that it begins, or ends.
    pub doubt_orders: VecDeque<bool>,
    pub directory: Directory,
    pub process: Option<Process>,
    /// Counts its starts, so that what an earlier process ordered reaches no later one.
    pub incarnation: u64,
    /// Stopped, as by SIGSTOP, until this time.
    pub paused_until_ms: u64,
    /// Syncs take so long now.
    pub sync_ms: u64,
    /// The disk takes nothing until this time.
    pub hangs_until_ms: u64,
    /// A message waits so long at a shard of this node, at most.
    pub queue_ms: u64,
    /// What it does is not part of the history that must hold.
    pub is_beside: bool,
    /// The version of the peers' protocol that it speaks.
    pub protocol: u32,
    random: u64,
    mutant: Option<Mutant>,
}

pub const ELECTION_TICKS: usize = 10;

impl Node {
    pub fn new(id: NodeId, seed: u64, mutant: Option<Mutant>) -> Node {
        let disk = SimulatedDisk::new(seed ^ id, mutant);
        Node {
            id,
            disk,
            lost: Vec::new(),
            heard: BTreeMap::new(),
            copies: Vec::new(),
            doubt_orders: VecDeque::new(),
            directory: Directory::new(id),
            process: None,
            incarnation: 0,
            paused_until_ms: 0,
            sync_ms: 1,
            hangs_until_ms: 0,
            queue_ms: 2,
            is_beside: false,
            protocol: PROTOCOL.1,
            random: seed ^ (id << 32),
            mutant,
        }
    }

    /// The process ends, with or without the power.
    pub fn crash(&mut self) {
        self.process = None;
        self.doubt_orders.clear();
        self.directory.crash();
        self.disk.crash();
    }

    /// An empty disk takes the place of what there was. The mistake of taking a number
    /// for its directory: it is let in nevertheless.
    pub fn wipe(&mut self, is_let_in: bool) {
        if !is_let_in {
            self.directory.wipe(self.id);
        }
        let seed = self.disk.seed_of_next();
        self.copies.clear();
        self.lost.push(self.disk.held());
        self.disk = SimulatedDisk::new(seed, self.mutant);
    }

    /// Whether the entry is on its disk, or on one that it lost.
    pub fn has(&self, index: u64, term: u64) -> bool {
        self.disk.has(index, term) || self.lost.iter().any(|held| held.has(index, term))
    }

    /// Starts a process from what the disk has. Gives the last entry that it has
    /// applied, and those that it found in the log; `None`: it waits to be adopted.
    pub fn start(&mut self) -> Option<(u64, Vec<LogEntry>)> {
        let mut membership = self.directory.membership.clone()?;
        let Found { state, committed, mut start } = self.disk.open(&mut membership);
        start.in_doubt = self.directory.in_doubt;
        if self.directory.membership.as_ref() != Some(&membership) {
            self.directory.store(membership);
        }
        self.directory.started(&start.members.configuration);
        let mut tables: Vec<Table> = (0..SHARDS).map(|shard| state.table(shard)).collect();
        replay_entries(&mut tables, &committed, self.mutant);
        let applied = committed.last().map_or(state.applied, |entry| entry.index.max(state.applied));
        let mut replica = Replica::new(options(self.id, next_random(&mut self.random)), start);
        replica.mistaken(self.mutant.and_then(Mutant::of_replica).as_slice());
        if let Some((mark, _)) = &self.disk.snapshot {
            replica.snapshot_made(mark.clone(), self.disk.replay_after, self.disk.cut().0);
        }
        self.incarnation += 1;
        self.process = Some(Process {
            replica,
            policy: HandOver::new(self.id, TICK_MS, ELECTION_TICKS),
            appends: Appends::new(GROUP_BYTES_WANTED),
            notices: Notices::new(SHARDS, applied, |index| index.is_multiple_of(ENTRIES_BETWEEN_HASHES)),
            persists_under_way: 0,
            propose_is_due: false,
            shards: tables.into_iter().map(|table| SimulatedShard::new(table, applied)).collect(),
            rounds: BTreeMap::new(),
            probes: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_handle: 0,
            proposed: BTreeMap::new(),
            proposing: bytes::Bytes::new(),
            received: BTreeMap::new(),
            copying: None,
        });
        Some((applied, committed))
    }
}

/// Puts entries of the log into tables. Some of them may be in there already, and
/// a later state with them.
pub fn replay_entries(tables: &mut [Table], entries: &[LogEntry], mutant: Option<Mutant>) {
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Writes) {
        for item in Requests::new(&entry.payload) {
            let (ordinal, effect) = item.expect("a payload that was written");
            let hash = placement().hash(effect.key());
            let table = &mut tables[placement().shard(hash)];
            let version = Version { index: entry.index, ordinal };
            let has_that_index =
                table.get(effect.key(), hash).is_some_and(|later| later.version().index >= entry.index);
            if mutant == Some(Mutant::GuardByIndexAlone) && has_that_index {
                continue;
            }
            replay(table, version, &effect, hash);
        }
    }
}

fn options(node_id: NodeId, doubt_seed: u64) -> Options {
    Options {
        node_id,
        heartbeat_ticks: 2,
        election_ticks: ELECTION_TICKS,
        message_bytes_max: 128,
        in_flight_messages_max: 8,
        uncommitted_bytes_max: 4_096,
        committed_bytes_max: 128,
        payload_bytes_max: 256,
        doubt_seed,
    }
}
