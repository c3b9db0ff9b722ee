//! The schedule, and what each effect does. See the module's header.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Registry;
use super::network::Link;
use super::node::{Node, Process};
use super::transfers::Transfer;
use crate::persistence::{NodeUuid, next_random};
use crate::replication::dynamo::mistake::Mistake;
use crate::replication::dynamo::{Effect, Row};

pub const TICK_MS: u64 = 50;
/// How many clients there are, and how long each waits between two operations.
const CLIENTS: u64 = 3;
const CLIENT_PAUSE_MS: u64 = 60;
/// After the faults everyone is to have everything within so long: those whose
/// clocks were ahead are waited for.
const CONVERGES_MS: u64 = 60_000;
/// Who is then alone for so long is given up by an operator.
const STRANDED_MS: u64 = 5_000;

/// What is to happen.
pub enum Event {
    Tick(usize, u64),
    /// From, to, and on which connection.
    Deliver(usize, usize, u64),
    Synced(usize, u64),
    /// What gathered becomes an entry.
    Frame(usize, u64),
    Fetched(usize, u64, (u64, u64, u64)),
    WalkStep(usize, u64),
    Transfer(u64),
    PullFailed(usize, u64),
    Greet,
    Client,
    Fault,
    Restart(usize),
    /// The directory that was evicted gives way to an empty one.
    Wipe(usize, NodeUuid),
    /// A clock is right again.
    ClockSet(usize),
    /// An operator looks for nodes that reach nobody.
    Operator,
}

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub milliseconds: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub refused: u64,
    /// How often writes had to wait behind a start.
    pub waits: u64,
    pub crashes: u64,
    pub partitions: u64,
    pub failed_syncs: u64,
    pub clock_jumps: u64,
    pub held: u64,
    pub snapshots: u64,
    pub cuts: u64,
    pub transfers: u64,
    pub broken_transfers: u64,
    pub repairs: u64,
    pub evictions: u64,
    pub evicted_together: u64,
    /// Older copies that have taken from an evicted node what no member counts.
    pub excessive: u64,
    /// Nodes whose older copy knew none of the others' directories.
    pub stranded: u64,
    pub restored: u64,
    /// Of those, how many were started at another port.
    pub moved: u64,
    pub began_anew: u64,
    /// How often a forked stream was noticed.
    pub forked: u64,
    pub collected: u64,
    pub conflicts: u64,
    pub differences: u64,
    pub equal_roots: u64,
    pub lost: u64,
    /// Nodes that hold, at the end, what came with a state of a node that was lost.
    pub astray: u64,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub figures: Figures,
    /// From the end of the faults until all had the same.
    pub converged_ms: u64,
    /// And until all tombstones were gone and the roots compared.
    pub settled_ms: u64,
}

/// The cluster.
pub struct Cluster {
    pub now_ms: u64,
    order: u64,
    pub random: u64,
    schedule: BTreeMap<(u64, u64), Event>,
    pub nodes: Vec<Node>,
    pub links: BTreeMap<(usize, usize), Link>,
    pub channels: BTreeMap<(usize, usize), std::collections::VecDeque<crate::replication::dynamo::Message>>,
    pub last_at: BTreeMap<(usize, usize), u64>,
    pub parted: BTreeSet<(usize, usize)>,
    pub delay_ms_max: u64,
    pub failed_syncs_percent: u64,
    pub transfers: BTreeMap<u64, Transfer>,
    pub next_transfer: u64,
    pub next_operation: u64,
    pub registry: Registry,
    /// Who was admitted, by which entry.
    pub admitted: Vec<(NodeUuid, Row)>,
    /// Nodes whose replicas may have something to do.
    pub is_dirty: BTreeSet<usize>,
    pub figures: Figures,
    pub mistake: Option<Mistake>,
    /// Nothing goes wrong by itself.
    pub is_calm: bool,
    pub has_clients: bool,
    /// A test looks at what happens itself.
    pub is_directed: bool,
    pub wipes: u64,
}

impl Cluster {
    /// So many nodes, all started, in which things go wrong.
    pub fn new(seed: u64, nodes: u64, mistake: Option<Mistake>) -> Cluster {
        let mut cluster = Cluster::calm(seed, nodes, mistake);
        cluster.is_calm = false;
        cluster.has_clients = true;
        cluster.is_directed = false;
        (0..CLIENTS).for_each(|client| cluster.after(client, Event::Client));
        cluster.after(1_000, Event::Fault);
        cluster
    }

    /// So many nodes, in which nothing happens by itself.
    pub fn calm(seed: u64, nodes: u64, mistake: Option<Mistake>) -> Cluster {
        let mut cluster = Cluster {
            now_ms: 0,
            order: 0,
            random: seed,
            schedule: BTreeMap::new(),
            nodes: (1..=nodes).map(|id| Node::new(id, seed)).collect(),
            links: BTreeMap::new(),
            channels: BTreeMap::new(),
            last_at: BTreeMap::new(),
            parted: BTreeSet::new(),
            delay_ms_max: 3,
            failed_syncs_percent: 0,
            transfers: BTreeMap::new(),
            next_transfer: 0,
            next_operation: 0,
            registry: Registry::default(),
            admitted: Vec::new(),
            is_dirty: BTreeSet::new(),
            figures: Figures::default(),
            mistake,
            is_calm: true,
            has_clients: false,
            is_directed: true,
            wipes: 0,
        };
        for place in 0..cluster.nodes.len() {
            cluster.nodes[place].offset_ms = cluster.below(400) as i64 - 200;
            cluster.start(place);
        }
        cluster.after(1, Event::Greet);
        cluster.pump();
        cluster
    }

    /// Runs with faults, then without, and checks that everyone agrees at the end.
    pub fn run(mut self, milliseconds: u64) -> Report {
        self.run_until(milliseconds);
        self.heal();
        let converged_ms = self.run_while(CONVERGES_MS, "converge", |cluster| !cluster.has_converged());
        let settled_ms = self.run_while(CONVERGES_MS, "settle", |cluster| !cluster.has_settled());
        self.check_end();
        self.figures.milliseconds = self.now_ms;
        self.figures.failed_syncs = self.nodes.iter().map(|node| node.disk.failed_syncs).sum();
        self.figures.lost = self.registry.acknowledged.iter().filter(|write| write.is_lost).count() as u64;
        self.figures.astray = self.nodes.iter().filter(|node| !node.is_pure()).count() as u64;
        self.figures.equal_roots = self.processes().map(|process| process.replica.equal_roots()).sum();
        Report { figures: self.figures, converged_ms, settled_ms: converged_ms + settled_ms }
    }

    /// All that is wrong is mended, and the clients go.
    pub fn heal(&mut self) {
        self.is_calm = true;
        self.has_clients = false;
        self.parted.clear();
        (self.delay_ms_max, self.failed_syncs_percent) = (3, 0);
        for place in 0..self.nodes.len() {
            self.nodes[place].sync_ms = 1;
            self.nodes[place].offset_ms = self.below(400) as i64 - 200;
            if self.nodes[place].process.is_none() {
                self.start(place);
            }
        }
        // A start may have found that another one is evicted.
        for place in 0..self.nodes.len() {
            if self.nodes[place].is_evicted {
                self.wipe(place);
            }
        }
        self.after(STRANDED_MS, Event::Operator);
        self.pump();
    }

    /// Runs while something is so, which it must not be for too long: gives how long it was.
    pub fn run_while(&mut self, at_most_ms: u64, what: &str, holds: impl Fn(&Cluster) -> bool) -> u64 {
        let began = self.now_ms;
        while holds(self) {
            assert!(self.now_ms < began + at_most_ms, "they don't {what}: {}", self.describe());
            self.run_until(self.now_ms + 10);
        }
        self.now_ms - began
    }

    pub fn run_until(&mut self, end_ms: u64) {
        while let Some(entry) = self.schedule.first_entry() {
            if entry.key().0 > end_ms {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now_ms = at;
            self.happen(event);
            self.pump();
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

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nodes.iter().filter_map(|node| node.process.as_ref())
    }

    /// Whether this process of a node still runs.
    pub fn runs(&self, (place, incarnation): (usize, u64)) -> bool {
        self.nodes[place].incarnation == incarnation && self.nodes[place].process.is_some()
    }

    pub fn start(&mut self, place: usize) {
        let nodes = self.nodes.len() as u64;
        let (now_ms, mistake) = (self.now_ms, self.mistake);
        let found = self.nodes[place].start(nodes, now_ms, &mut self.random, mistake, &mut self.registry);
        self.is_dirty.insert(place);
        // One that was on its way to the disk when the process ended may have got there.
        found.iter().for_each(|dotted| self.member_change(dotted));
        self.check(place);
        // Nodes don't tick together.
        let first = 1 + self.below(TICK_MS);
        self.after(first, Event::Tick(place, self.nodes[place].incarnation));
    }

    pub fn crash(&mut self, place: usize) {
        self.cut_all(place);
        self.nodes[place].crash();
        self.is_dirty.remove(&place);
    }

    /// An empty directory, of the same number.
    pub fn wipe(&mut self, place: usize) {
        if self.nodes[place].process.is_some() {
            self.crash(place);
        }
        self.wipes += 1;
        let seed = next_random(&mut self.random);
        self.nodes[place].wipe(self.wipes, seed);
        self.start(place);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(place, incarnation) if self.runs((place, incarnation)) => {
                self.after(TICK_MS, Event::Tick(place, incarnation));
                self.tick(place);
            }
            Event::Deliver(from, to, epoch) => self.deliver(from, to, epoch),
            Event::Synced(place, incarnation) if self.runs((place, incarnation)) => self.synced(place),
            Event::Frame(place, incarnation) if self.runs((place, incarnation)) => self.frame(place),
            Event::WalkStep(place, incarnation) if self.runs((place, incarnation)) => self.walk_step(place),
            Event::Fetched(place, incarnation, (number, low, high)) if self.runs((place, incarnation)) => {
                let entries = self.nodes[place].disk.read(low, high);
                if let Some(process) = &mut self.nodes[place].process {
                    process.replica.fetched(number, entries);
                    self.is_dirty.insert(place);
                }
            }
            Event::Transfer(number) => self.transfer(number),
            Event::PullFailed(place, incarnation) => self.pull_failed(place, incarnation),
            Event::Greet => self.greet_all(),
            Event::Client if self.has_clients => {
                let pause = 1 + self.below(CLIENT_PAUSE_MS);
                self.after(pause, Event::Client);
                self.client();
            }
            Event::Fault if !self.is_calm => {
                let pause = 50 + self.below(1_500);
                self.after(pause, Event::Fault);
                self.fault();
            }
            Event::Restart(place) if self.nodes[place].process.is_none() => self.start(place),
            Event::Wipe(place, directory)
                if self.nodes[place].is_evicted && self.nodes[place].disk.directory == directory =>
            {
                self.wipe(place)
            }
            Event::Operator if self.is_calm => {
                self.after(STRANDED_MS, Event::Operator);
                self.give_up_stranded();
            }
            Event::ClockSet(place) => self.nodes[place].offset_ms = self.below(400) as i64 - 200,
            _ => {}
        }
    }

    fn tick(&mut self, place: usize) {
        let now_ms = self.nodes[place].clock_ms(self.now_ms);
        let Some(process) = &mut self.nodes[place].process else { return };
        let (_, latest) = process.tombstones();
        process.replica.tick(now_ms, latest);
        self.is_dirty.insert(place);
    }

    /// Carries out what replicas want, in their order, until they want nothing.
    pub fn pump(&mut self) {
        while let Some(place) = self.is_dirty.pop_first() {
            let Some(process) = &mut self.nodes[place].process else { continue };
            for effect in process.replica.take_effects() {
                self.carry_out(place, effect);
            }
            if self.nodes[place].process.as_ref().is_some_and(|process| process.replica.has_effects()) {
                self.is_dirty.insert(place);
            }
        }
    }

    fn carry_out(&mut self, place: usize, effect: Effect) {
        let incarnation = self.nodes[place].incarnation;
        match effect {
            Effect::Persist { index, payload } => {
                self.nodes[place].disk.write(index, payload);
                let sync_ms = self.nodes[place].sync_ms;
                let delay = 1 + self.below(sync_ms + 1);
                self.after(delay, Event::Synced(place, incarnation));
            }
            Effect::Apply(applied) => self.applied(place, applied),
            Effect::Send { to, message } => self.send(place, to, message),
            Effect::Fetch { number, low, high } => {
                let delay = 1 + self.below(20);
                self.after(delay, Event::Fetched(place, incarnation, (number, low, high)));
            }
            Effect::Pull { from, repair } => self.pull(place, from, repair),
            Effect::Collect { through } => self.collect(place, through),
            Effect::Hash => {
                self.nodes[place].has_rough_root = !self.nodes[place].is_pure();
                if let Some(process) = &mut self.nodes[place].process {
                    let hash = process.hash();
                    process.replica.hashed(hash);
                }
            }
            Effect::Differs(_) => self.differs(place),
            Effect::BeganAnew => self.figures.began_anew += 1,
            Effect::Forked { .. } => {
                self.figures.forked += 1;
                assert!(self.registry.has_forks, "a stream is taken for forked: {}", self.describe());
            }
            Effect::MembersChanged | Effect::Skew(_) => {}
        }
    }

    fn synced(&mut self, place: usize) {
        let count = 1 + self.below(4) as usize;
        let fails = !self.is_calm && self.below(100) < self.failed_syncs_percent;
        let Some(through) = self.nodes[place].disk.sync(count, fails) else { return };
        let node = &mut self.nodes[place];
        if let Some(process) = &mut node.process {
            process.replica.persisted(through);
            node.vector = process.replica.vector().clone();
            self.is_dirty.insert(place);
        }
    }

    fn collect(&mut self, place: usize, through: u64) {
        let Some(process) = &mut self.nodes[place].process else { return };
        let gone: usize = process.slices.iter_mut().map(|slice| slice.collect_tombstones(through)).sum();
        self.figures.collected += gone as u64;
    }
}
