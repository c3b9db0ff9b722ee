//! One simulated node: the real replica, a state to apply to, a disk.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Mutant;
use super::checker::Operation;
use super::disk::{Found, SimulatedDisk};
use crate::replication::message::{EntryKind, LogEntry, Members, NodeId};
use crate::replication::policy::HandOver;
use crate::replication::raft::{Handle, Options, Replica, election_timeout_ticks};

/// What entries are applied to: how often each key was written and by whom
/// last, and a hash over all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub applied: u64,
    pub registers: BTreeMap<u8, Operation>,
    pub hash: u64,
}

impl State {
    pub fn apply(&mut self, entry: &LogEntry) {
        assert_eq!(entry.index, self.applied + 1, "entries are applied in order");
        self.applied = entry.index;
        if entry.kind == EntryKind::Writes {
            self.registers.insert(key_of(&entry.payload), operation_of(&entry.payload));
        }
        for byte in entry.payload.iter().copied().chain(entry.term.to_le_bytes()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

/// A write as an entry's payload.
pub fn payload(operation: Operation, key: u8) -> Bytes {
    let mut bytes = operation.to_le_bytes().to_vec();
    bytes.push(key);
    bytes.into()
}

pub fn operation_of(payload: &[u8]) -> Operation {
    u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"))
}

fn key_of(payload: &[u8]) -> u8 {
    payload[8]
}

/// A process that runs.
pub struct Process {
    pub replica: Replica,
    pub policy: HandOver,
    pub state: State,
    /// Writes that were proposed here: entry index to (term, operation).
    pub proposed: BTreeMap<u64, (u64, Operation)>,
    /// Reads under way: what clients had seen when each began, and the index that
    /// must be applied before it is answered, once that is known.
    pub reads: BTreeMap<Handle, (u64, Option<u64>)>,
    /// Handed out and not applied yet.
    pub committed: VecDeque<LogEntry>,
    /// Writes on their way to a proposal.
    pub handles: BTreeMap<Handle, Operation>,
    pub next_handle: Handle,
    /// Snapshots that came out of band, by their index.
    pub received: BTreeMap<u64, State>,
}

/// A machine: its disk outlives its processes.
pub struct Node {
    pub id: NodeId,
    pub disk: SimulatedDisk,
    pub process: Option<Process>,
    /// Counts its starts, so that what an earlier process ordered reaches no later one.
    pub incarnation: u64,
    /// Stopped, as by SIGSTOP, until this time.
    pub paused_until_ms: u64,
    /// Syncs take so long now.
    pub sync_ms: u64,
}

pub const ELECTION_TICKS: usize = 10;

impl Node {
    pub fn new(id: NodeId, seed: u64, mutant: Option<Mutant>) -> Node {
        let disk = SimulatedDisk::new(seed ^ id, mutant);
        Node { id, disk, process: None, incarnation: 0, paused_until_ms: 0, sync_ms: 1 }
    }

    /// Starts a process from what the disk has.
    pub fn start(&mut self, voters: &[NodeId]) {
        let Found { mut state, committed, mut start } = self.disk.open();
        committed.iter().for_each(|entry| state.apply(entry));
        if start.members == Members::default() {
            start.members = Members { voters: voters.to_vec(), ..Members::default() };
        }
        let place = voters.iter().position(|voter| *voter == self.id).unwrap_or(voters.len());
        let mut replica = Replica::new(options(self.id, place), start);
        if let Some((mark, _)) = &self.disk.snapshot {
            replica.snapshot_made(mark.clone(), self.disk.cut().0);
        }
        self.incarnation += 1;
        self.process = Some(Process {
            replica,
            policy: HandOver::new(self.id, ELECTION_TICKS),
            state,
            proposed: BTreeMap::new(),
            reads: BTreeMap::new(),
            committed: VecDeque::new(),
            handles: BTreeMap::new(),
            next_handle: 0,
            received: BTreeMap::new(),
        });
    }
}

fn options(node_id: NodeId, place: usize) -> Options {
    Options {
        node_id,
        heartbeat_ticks: 2,
        election_ticks: ELECTION_TICKS,
        timeout_ticks: election_timeout_ticks(ELECTION_TICKS, place),
        message_bytes_max: 64,
        in_flight_messages_max: 8,
        uncommitted_bytes_max: 4_096,
        committed_bytes_max: 64,
        payload_bytes_max: 128,
    }
}
