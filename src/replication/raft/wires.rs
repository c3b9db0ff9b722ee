//! A few replicas on wires, for tests: each message lies there until a test delivers it, and
//! every disk writes at once. Whatever happens, an entry's index and term name one entry for
//! ever, and what one node hands out as committed is what all do.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Effect, HardState, Input, Mistake, Options, Replica, Role, Start, StartMembers, Status};
use crate::persistence::{Configuration, Member, Members, host_of};
use crate::replication::message::{LogEntry, Message, MessageKind, NodeId};

pub const ELECTION_TICKS: usize = 10;

/// What a node's disk has.
#[derive(Clone, Default)]
pub struct Disk {
    hard_state: HardState,
    log: Vec<LogEntry>,
}

impl Disk {
    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }
}

/// The replicas and what is between them.
pub struct Wires {
    configuration: Configuration,
    replicas: BTreeMap<NodeId, Replica>,
    disks: BTreeMap<NodeId, Disk>,
    /// Oldest first.
    pub messages: Vec<Message>,
    /// What effects were, beside messages and persists, and whose.
    pub effects: Vec<(NodeId, Effect)>,
    named: BTreeMap<(u64, u64), Bytes>,
    committed: BTreeMap<u64, (u64, Bytes)>,
    mistakes: Vec<Mistake>,
    starts: u64,
    slow_disk: Option<SlowDisk>,
}

/// A disk that keeps entries waiting.
struct SlowDisk {
    of: NodeId,
    /// The syncs that have been asked for, and what is said behind each.
    late: Vec<(u64, Vec<Message>)>,
}

impl Wires {
    /// Nodes 1 to `count`, which all vote.
    pub fn new(count: u64, mistakes: &[Mistake]) -> Wires {
        let node = |node_id| Member { node_id, host: "h".into(), port: 1, node: None };
        let configuration = Configuration::founding((1..=count).map(node).collect(), 1);
        let mut wires = Wires {
            configuration,
            replicas: BTreeMap::new(),
            disks: (1..=count).map(|id| (id, Disk::default())).collect(),
            messages: Vec::new(),
            effects: Vec::new(),
            named: BTreeMap::new(),
            committed: BTreeMap::new(),
            mistakes: mistakes.to_vec(),
            starts: 0,
            slow_disk: None,
        };
        (1..=count).for_each(|id| wires.start(id, false));
        wires
    }

    /// A process begins on what the node's disk has.
    pub fn start(&mut self, id: NodeId, in_doubt: bool) {
        self.starts += 1;
        let Disk { hard_state, log } = self.disks[&id].clone();
        let (applied, tail) = log.split_at(hard_state.commit as usize);
        let start = Start {
            hard_state,
            members: StartMembers::founding(self.configuration.clone()),
            cut: (0, 0),
            applied: applied.iter().map(|entry| entry.term).collect(),
            tail: tail.to_vec(),
            in_doubt,
        };
        let options = Options {
            node_id: id,
            heartbeat_ticks: 2,
            election_ticks: ELECTION_TICKS,
            message_bytes_max: 1 << 20,
            in_flight_messages_max: 64,
            uncommitted_bytes_max: 1 << 20,
            committed_bytes_max: 1 << 20,
            payload_bytes_max: 1 << 20,
            doubt_seed: self.starts,
        };
        let mut replica = Replica::new(options, start);
        replica.mistaken(&self.mistakes);
        self.replicas.insert(id, replica);
        self.pump(id);
    }

    /// The process is gone, and what was on the wires to and from it stays there.
    pub fn stop(&mut self, id: NodeId) {
        self.replicas.remove(&id);
    }

    /// A backup of a node's disk.
    pub fn copy(&self, id: NodeId) -> Disk {
        self.disks[&id].clone()
    }

    /// A node begins anew on an older copy. `is_known`: as one that may be such.
    pub fn set_back(&mut self, id: NodeId, to: &Disk, is_known: bool) {
        self.disks.insert(id, to.clone());
        self.start(id, is_known);
    }

    /// So much was set back that what was committed may be committed otherwise. Names are for ever.
    pub fn forget_what_was_committed(&mut self) {
        self.committed.clear();
    }

    pub fn step(&mut self, id: NodeId, input: Input) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.step(input);
        self.pump(id);
    }

    fn pump(&mut self, id: NodeId) {
        loop {
            let Some(replica) = self.replicas.get_mut(&id) else { return };
            let effects = replica.pump();
            let (mut persisted, mut fetched) = (None, Vec::new());
            for effect in effects {
                match effect {
                    Effect::Send(message) => self.messages.push(message),
                    Effect::Persist(persist) => {
                        let waits = !persist.entries.is_empty();
                        self.write(id, persist.hard_state, persist.entries);
                        match &mut self.slow_disk {
                            Some(disk) if disk.of == id && (waits || !disk.late.is_empty()) => {
                                disk.late.push((persist.number, persist.then_send));
                            }
                            _ => {
                                persisted = Some(persist.number);
                                self.messages.extend(persist.then_send);
                            }
                        }
                    }
                    Effect::Fetch { number, low, high, .. } => {
                        let entries = self.disks[&id].log[low as usize - 1..high as usize - 1].to_vec();
                        fetched.push(Input::Fetched(number, entries));
                    }
                    Effect::Commit(entries) => entries.iter().for_each(|entry| self.commit(id, entry)),
                    effect => self.effects.push((id, effect)),
                }
            }
            if persisted.is_none() && fetched.is_empty() {
                return;
            }
            let replica = self.replicas.get_mut(&id).expect("it is there");
            persisted.into_iter().for_each(|number| replica.step(Input::Persisted(number)));
            fetched.into_iter().for_each(|input| replica.step(input));
        }
    }

    fn write(&mut self, id: NodeId, hard_state: Option<HardState>, entries: Vec<LogEntry>) {
        let disk = self.disks.get_mut(&id).expect("it has one");
        disk.hard_state = hard_state.unwrap_or(disk.hard_state);
        for entry in entries {
            let named = self.named.entry((entry.index, entry.term)).or_insert_with(|| entry.payload.clone());
            assert_eq!(*named, entry.payload, "two entries {} of term {}", entry.index, entry.term);
            disk.log.truncate(entry.index as usize - 1);
            disk.log.push(entry);
        }
    }

    fn commit(&mut self, id: NodeId, entry: &LogEntry) {
        let is = (entry.term, entry.payload.clone());
        let known = self.committed.entry(entry.index).or_insert_with(|| is.clone());
        assert_eq!(*known, is, "node {id} has another entry {}", entry.index);
    }

    /// From now on entries get to this node's disk, and stay on their way to it until `disk_is_fast`.
    pub fn disk_is_slow(&mut self, id: NodeId) {
        self.slow_disk = Some(SlowDisk { of: id, late: Vec::new() });
    }

    pub fn disk_is_fast(&mut self) {
        let Some(SlowDisk { of: id, late }) = self.slow_disk.take() else { return };
        for (number, then_send) in late {
            self.messages.extend(then_send);
            self.step(id, Input::Persisted(number));
        }
    }

    /// Time passes at one node.
    pub fn tick(&mut self, id: NodeId, ticks: usize) {
        (0..ticks).for_each(|_| self.step(id, Input::Tick));
    }

    /// Delivers what this lets through, oldest first, and what comes of it, until nothing is left that it does.
    pub fn deliver(&mut self, may_pass: impl Fn(&Message) -> bool) {
        for _ in 0..100_000 {
            let Some(place) = self.messages.iter().position(&may_pass) else { return };
            let message = self.messages.remove(place);
            self.step(host_of(message.to), Input::Received(Box::new(message)));
        }
        panic!("they never stop talking");
    }

    /// As `deliver`, of what these nodes say to each other.
    pub fn deliver_among(&mut self, ids: &[NodeId]) {
        self.deliver(|message| ids.contains(&host_of(message.from)) && ids.contains(&host_of(message.to)));
    }

    /// What is on the wires is lost.
    pub fn lose(&mut self, is_lost: impl Fn(&Message) -> bool) {
        self.messages.retain(|message| !is_lost(message));
    }

    /// Time passes at these nodes alike, and they hear each other.
    pub fn run(&mut self, among: &[NodeId], ticks: usize) {
        for _ in 0..ticks {
            among.iter().for_each(|id| self.tick(*id, 1));
            self.deliver_among(among);
        }
    }

    /// A client's write at this node.
    pub fn write_at(&mut self, id: NodeId, text: &'static str) {
        self.step(id, Input::Propose(0, Bytes::from_static(text.as_bytes())));
    }

    /// Whether this write is committed.
    pub fn is_committed(&self, text: &str) -> bool {
        self.committed.values().any(|(_, payload)| payload == text.as_bytes())
    }

    pub fn status(&self, id: NodeId) -> Status {
        self.replicas[&id].status()
    }

    pub fn leads(&self, id: NodeId) -> bool {
        self.status(id).role.role == Role::Leader
    }

    pub fn term(&self, id: NodeId) -> u64 {
        self.status(id).role.term
    }

    pub fn in_doubt(&self, id: NodeId) -> bool {
        self.status(id).in_doubt
    }

    /// Whether a node's replica has had this effect since it was last asked.
    pub fn take_effect(&mut self, id: NodeId, is_it: impl Fn(&Effect) -> bool) -> bool {
        let before = self.effects.len();
        self.effects.retain(|(of, effect)| *of != id || !is_it(effect));
        self.effects.len() < before
    }

    /// Votes are not the log's.
    pub fn members(&self) -> &Members {
        &self.configuration.members
    }
}

/// Whether a message asks for a vote, or answers that.
pub fn is_vote(message: &Message) -> bool {
    use MessageKind::{RequestPreVote, RequestPreVoteResponse, RequestVote, RequestVoteResponse};
    matches!(message.kind, RequestPreVote | RequestPreVoteResponse | RequestVote | RequestVoteResponse)
}
