//! The schedule, and what each effect does to the cluster. See the module's header.

use std::collections::BTreeMap;

use super::Mutant;
use super::checker::{Checker, Counts, Operation};
use super::faults::{Faults, Figures};
use super::members::founded;
use super::node::{Node, Process, SHARDS, State};
use super::operator::Operator;
use super::probes::Asker;
use crate::persistence::{NodeUuid, host_of, next_random};
use crate::replication::message::{Message, NodeId};
use crate::replication::protocol::{PROTOCOL, PROTOCOL_DOUBT};
use crate::replication::raft::{Effect, Input, Role};

pub const TICK_MS: u64 = 50;
/// How many clients there are, and how long each waits between two operations.
const CLIENTS: u64 = 4;
const CLIENT_PAUSE_MS: u64 = 20;
/// After the faults: long enough for an election, and for everyone to catch up.
const CALM_MS: u64 = 20_000;
const SLOW_QUEUE_MS: u64 = 200;

/// What is to happen.
pub enum Event {
    Tick(usize, u64),
    /// To a node on this directory: a connection doesn't outlive it.
    Deliver(Box<Message>, Option<State>, NodeUuid),
    Synced(usize, u64),
    /// A shard takes the next of its queue.
    Shard(usize, u64, usize),
    /// What gathered in a shard leaves.
    Flush(usize, u64, usize),
    /// The WalWriter takes a shard's next append.
    Append(usize, u64, usize),
    /// What gathered in the WalWriter is proposed.
    Propose(usize, u64),
    /// A connection sends its request to a shard.
    Dispatch(usize, u64, usize, Operation),
    /// A node is asked how far it has committed.
    Probe(usize, Asker),
    /// And has answered.
    Answered(usize, u64, Operation, Option<u64>),
    /// Or not in time.
    Impatient(usize, u64, Operation),
    Fetched(usize, u64, (u64, u64, u64, u64)),
    SnapshotReport(usize, u64, NodeId, bool),
    /// The disk has noted that a doubt begins or has ended.
    DoubtNoted(usize, u64),
    Client(u64),
    Fault,
    Operator,
    Restart(usize),
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub milliseconds: u64,
    pub counts: Counts,
    pub committed: u64,
    pub figures: Figures,
}

/// The cluster.
pub struct Cluster {
    pub now_ms: u64,
    order: u64,
    pub random: u64,
    schedule: BTreeMap<(u64, u64), Event>,
    pub nodes: Vec<Node>,
    /// Who has greeted whom, as both were then.
    pub greeted: BTreeMap<(usize, usize), (u64, u64)>,
    pub operator: Option<Operator>,
    /// Of the side that is judged, since voters were set by force.
    pub epochs: Vec<String>,
    pub faults: Faults,
    pub checker: Checker,
    pub mutant: Option<Mutant>,
    pub calm: bool,
    /// What is acknowledged must be on every disk, not only on a majority's.
    pub all_disks: bool,
    /// So much was lost that logs may contradict each other.
    pub may_conflict: bool,
}

impl Cluster {
    /// A cluster of so many nodes, all started, in which things go wrong.
    pub fn new(seed: u64, nodes: u64, mutant: Option<Mutant>) -> Cluster {
        let mut cluster = Cluster::calm(seed, nodes, mutant);
        cluster.calm = false;
        cluster.after(1_000, Event::Fault);
        cluster
    }

    /// A cluster of so many nodes, of as many as there are machines, with an operator
    /// who changes that and loses disks. `sizes`: nodes at least and at most.
    pub fn operated(
        seed: u64,
        (nodes, machines): (u64, u64),
        sizes: (usize, usize),
        mutant: Option<Mutant>,
    ) -> Cluster {
        let mut cluster = Cluster::with_machines(seed, (nodes, machines), mutant);
        cluster.calm = false;
        cluster.after(1_000, Event::Fault);
        cluster.operator = Some(Operator::new(sizes));
        cluster.after(500, Event::Operator);
        cluster
    }

    /// In this cluster disks are set back to older copies, beside all else.
    pub fn with_older_copies(mut self) -> Cluster {
        self.faults.older_copies = true;
        self
    }

    /// In this cluster a node is of the version before.
    pub fn with_earlier_version(mut self, place: usize) -> Cluster {
        self.nodes[place].protocol = PROTOCOL_DOUBT - 1;
        self
    }

    /// A cluster in which nothing goes wrong but that leadership moves, again and again,
    /// while shards are slow.
    pub fn restless(seed: u64, nodes: u64, mutant: Option<Mutant>) -> Cluster {
        let mut cluster = Cluster::new(seed, nodes, mutant);
        cluster.faults.only_promotions = true;
        cluster.nodes.iter_mut().for_each(|node| node.queue_ms = SLOW_QUEUE_MS);
        cluster
    }

    /// A cluster in which nothing goes wrong by itself.
    pub fn calm(seed: u64, nodes: u64, mutant: Option<Mutant>) -> Cluster {
        Cluster::with_machines(seed, (nodes, nodes), mutant)
    }

    fn with_machines(seed: u64, (nodes, machines): (u64, u64), mutant: Option<Mutant>) -> Cluster {
        let founding: Vec<NodeId> = (1..=nodes).collect();
        let membership = founded(&founding);
        let mut cluster = Cluster {
            now_ms: 0,
            order: 0,
            random: seed,
            schedule: BTreeMap::new(),
            nodes: (1..=machines).map(|id| Node::new(id, seed, mutant)).collect(),
            greeted: BTreeMap::new(),
            operator: None,
            epochs: Vec::new(),
            faults: Faults::default(),
            checker: Checker::default(),
            mutant,
            calm: true,
            all_disks: false,
            may_conflict: false,
        };
        cluster.checker.history.founded(membership.base.clone());
        for place in 0..founding.len() {
            cluster.nodes[place].directory.store(membership.clone());
            cluster.start(place);
        }
        (0..CLIENTS).for_each(|client| cluster.after(client, Event::Client(client)));
        cluster
    }

    /// Who leads, by its own word; the highest term counts.
    pub fn leader(&self) -> Option<NodeId> {
        let statuses =
            self.nodes.iter().filter_map(|node| Some((node.id, node.process.as_ref()?.replica.status())));
        let leaders = statuses.filter(|(_, status)| status.role.role == Role::Leader);
        leaders.max_by_key(|(_, status)| status.role.term).map(|(id, _)| id)
    }

    /// Time passes: gives how many writes were acknowledged meanwhile.
    pub fn go_on(&mut self, milliseconds: u64) -> u64 {
        let before = self.acknowledged();
        self.run_until(self.now_ms + milliseconds);
        self.acknowledged() - before
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.checker.counts.acknowledged
    }

    /// Runs with faults, then without, and checks that everyone agrees at the end.
    pub fn run(mut self, milliseconds: u64) -> Report {
        self.run_until(milliseconds);
        self.calm = true;
        self.faults.heal();
        for place in 0..self.nodes.len() {
            self.nodes[place].paused_until_ms = 0;
            self.nodes[place].sync_ms = 1;
            self.nodes[place].hangs_until_ms = 0;
            self.nodes[place].queue_ms = SLOW_QUEUE_MS;
            self.nodes[place].protocol = PROTOCOL.1;
            if self.nodes[place].process.is_none() {
                self.start(place);
            }
        }
        let before = self.checker.counts.acknowledged;
        // Leadership changes once more, while shards are slow: what it leaves behind is never answered.
        self.run_until(milliseconds + CALM_MS / 4);
        let place = self.below(self.nodes.len() as u64) as usize;
        self.promote(place);
        self.run_until(milliseconds + CALM_MS / 2);
        self.nodes.iter_mut().for_each(|node| node.queue_ms = 2);
        self.run_until(milliseconds + CALM_MS);
        let statuses: Vec<_> = self.members().map(|process| process.replica.status()).collect();
        assert!(
            self.checker.counts.acknowledged > before,
            "nothing was acknowledged when all was well again: {statuses:#?}"
        );
        let statuses: Vec<_> = self.members().map(|process| process.replica.status()).collect();
        assert!(
            self.is_settled(),
            "the members are not as they should be: {:?} of {:?}: {statuses:#?}",
            self.operator,
            self.checker.history.members()
        );
        let leaders = self.members().filter(|process| process.leads());
        assert_eq!(leaders.count(), 1, "one leader when all is well");
        assert!(!statuses.iter().any(|status| status.in_doubt), "doubt doesn't end: {statuses:#?}");
        let (first, last) = self
            .members()
            .map(|process| process.notices.handed_over())
            .fold((u64::MAX, 0), |(low, high), at| (low.min(at), high.max(at)));
        let statuses: Vec<_> = self.members().map(|process| process.replica.status()).collect();
        assert!(first + 50 > last, "a node hasn't caught up: {first} and {last} are applied: {statuses:#?}");
        // Who was removed may wait for ever for what the others have.
        let newest = self.checker.history.members();
        let lives = |place: usize, incarnation| {
            self.is_running(place, incarnation) && newest.node(self.nodes[place].id).is_some()
        };
        self.checker.end(self.now_ms, lives);
        Report {
            milliseconds: self.now_ms,
            counts: self.checker.counts,
            committed: self.checker.history.last(),
            figures: Figures { changes: self.checker.history.changes(), ..self.faults.figures },
        }
    }

    /// The processes of those that belong to the cluster.
    fn members(&self) -> impl Iterator<Item = &Process> {
        let members = self.checker.history.members();
        self.nodes
            .iter()
            .filter(|node| members.node(node.id).is_some())
            .filter_map(|node| node.process.as_ref())
    }

    pub fn run_until(&mut self, end_ms: u64) {
        while let Some(entry) = self.schedule.first_entry() {
            if entry.key().0 > end_ms {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now_ms = at;
            self.happen(event);
        }
        self.now_ms = end_ms;
    }

    pub fn after(&mut self, delay_ms: u64, event: Event) {
        self.order += 1;
        self.schedule.insert((self.now_ms + delay_ms, self.order), event);
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        next_random(&mut self.random) % bound
    }

    pub fn start(&mut self, place: usize) {
        let Some((applied, committed)) = self.nodes[place].start() else { return };
        let id = self.nodes[place].id;
        if self.is_judged(place) {
            committed.iter().for_each(|entry| self.checker.applied(id, entry));
        }
        (0..SHARDS).for_each(|shard| self.compare(place, shard, applied));
        self.after(TICK_MS, Event::Tick(place, self.nodes[place].incarnation));
    }

    pub fn crash(&mut self, place: usize) {
        self.nodes[place].crash();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(place, incarnation) => {
                if self.is_paused(place) {
                    return self.when_it_goes_on(place, Event::Tick(place, incarnation));
                }
                if self.is_running(place, incarnation) {
                    self.after(TICK_MS, Event::Tick(place, incarnation));
                    self.step(place, Input::Tick);
                    self.hand_over(place);
                    self.go_on_with_members(place);
                    self.witness_campaigns(place);
                }
            }
            Event::Deliver(message, state, uuid) => self.deliver(message, state, uuid),
            Event::Probe(place, asker) => self.probed(place, asker),
            Event::Synced(place, incarnation) => self.synced(place, incarnation),
            Event::Shard(place, incarnation, ..)
            | Event::Flush(place, incarnation, ..)
            | Event::Append(place, incarnation, ..)
            | Event::Propose(place, incarnation)
            | Event::Answered(place, incarnation, ..)
            | Event::Impatient(place, incarnation, _)
            | Event::Dispatch(place, incarnation, ..) => {
                if self.is_paused(place) {
                    return self.when_it_goes_on(place, event);
                }
                if self.is_running(place, incarnation) {
                    self.inside(event);
                }
            }
            Event::Fetched(place, incarnation, (number, low, high, bytes_max)) => {
                if self.is_running(place, incarnation) {
                    let entries = self.nodes[place].disk.read(low, high, bytes_max);
                    self.step(place, Input::Fetched(number, entries));
                }
            }
            Event::SnapshotReport(place, incarnation, to, is_there) => {
                if self.is_running(place, incarnation) {
                    self.step(place, Input::SnapshotSent(to, is_there));
                }
            }
            Event::DoubtNoted(place, incarnation) => {
                if self.is_paused(place) {
                    return self.when_it_goes_on(place, Event::DoubtNoted(place, incarnation));
                }
                if self.is_running(place, incarnation) {
                    self.doubt_noted(place);
                }
            }
            Event::Client(client) => {
                let pause = 1 + self.below(CLIENT_PAUSE_MS);
                self.after(pause, Event::Client(client));
                self.client();
            }
            Event::Fault if self.calm => {}
            Event::Fault => {
                let pause = 50 + self.below(1_500);
                self.after(pause, Event::Fault);
                self.fault();
            }
            Event::Operator => self.operate(),
            Event::Restart(place) => {
                if self.nodes[place].process.is_none() {
                    self.start(place);
                }
            }
        }
    }

    /// Something happens between the actors of a node.
    fn inside(&mut self, event: Event) {
        match event {
            Event::Shard(place, _, shard) => self.shard(place, shard),
            Event::Flush(place, _, shard) => self.flush_shard(place, shard),
            Event::Append(place, _, shard) => self.append(place, shard),
            Event::Propose(place, _) => self.propose(place),
            Event::Answered(place, _, operation, index) => self.probe_answered(place, operation, index),
            Event::Impatient(place, _, operation) => self.probe_answered(place, operation, None),
            Event::Dispatch(place, _, shard, operation) => self.dispatch(place, shard, operation),
            _ => {}
        }
    }

    pub fn is_running(&self, place: usize, incarnation: u64) -> bool {
        self.nodes[place].incarnation == incarnation && self.nodes[place].process.is_some()
    }

    pub fn is_paused(&self, place: usize) -> bool {
        self.nodes[place].paused_until_ms > self.now_ms
    }

    pub fn when_it_goes_on(&mut self, place: usize, event: Event) {
        self.after(self.nodes[place].paused_until_ms - self.now_ms, event);
    }

    fn deliver(&mut self, message: Box<Message>, state: Option<State>, uuid: NodeUuid) {
        let place = host_of(message.to) as usize - 1;
        if self.is_paused(place) {
            return self.when_it_goes_on(place, Event::Deliver(message, state, uuid));
        }
        if self.nodes[place].directory.uuid != uuid {
            return;
        }
        self.witness_is_elected(place, &message);
        self.nodes[place].heard.insert(host_of(message.from), self.now_ms);
        let Some(process) = &mut self.nodes[place].process else { return };
        if let (Some(mark), Some(state)) = (&message.snapshot, state) {
            process.received.insert(mark.index, state);
        }
        self.step(place, Input::Received(message));
    }

    pub fn step(&mut self, place: usize, input: Input) {
        let Some(process) = &mut self.nodes[place].process else { return };
        process.replica.step(input);
        let effects = process.replica.pump();
        for effect in effects {
            self.carry_out(place, effect);
        }
    }

    fn carry_out(&mut self, place: usize, effect: Effect) {
        let incarnation = self.nodes[place].incarnation;
        match effect {
            Effect::Role(change) => self.role_changed(place, change),
            Effect::Send(message) => self.send(place, message),
            Effect::Persist(persist) => self.persist(place, persist),
            Effect::Proposed(_, index, term) => self.proposed(place, index, term),
            Effect::Dropped(_) => self.dropped(place),
            Effect::Commit(entries) => self.commit(place, entries),
            Effect::Configured(to) => self.nodes[place].directory.configured(*to),
            Effect::ReadReady(handle, index) => self.round_done(place, handle, index),
            Effect::ReadLost(handle) => self.round_lost(place, handle),
            Effect::Fetch { number, low, high, bytes_max } => {
                self.after(1, Event::Fetched(place, incarnation, (number, low, high, bytes_max)));
            }
            Effect::SnapshotWanted(_) => self.snapshot(place, false),
            Effect::DoubtBegins { .. } => self.note_doubt(place, true),
            Effect::DoubtEnds => self.note_doubt(place, false),
            Effect::Conflicts { with, index } => self.conflicts(place, with, index),
            Effect::FollowerConflicts { node, index, last } => {
                assert!(self.may_conflict, "node {node} has committed entry {index}, its leader has {last}");
            }
        }
    }
}
