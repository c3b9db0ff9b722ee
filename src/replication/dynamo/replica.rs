//! The state machine of dynamo mode: every node takes writes, and all converge.
//!
//! ```text
//!   write     ─► stamp, dot ─┐
//!   received  ─► in sequence?┴─► Persist ─► (disk) ─► persisted ─► Apply
//!                                                       └────────► Send: entries to peers that lack them,
//!                                                                  and what is on this disk now
//! ```
//!
//! Nothing is sent, shown or counted before it is on this node's disk: a dot that a
//! crash took back is used again, and must never have been seen. The log is what a
//! peer that was away is served from; memory holds only the newest of it.
//!
//! What becomes of keys is the slices' business (`src/engine/converge.rs`); here it is
//! decided which entries there are, in which order this node has them, and who has what.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::cache::{Cache, Cached};
use super::clock::{HybridClock, is_ahead};
use super::entry::{Content, Decoded, Dotted};
use super::forks::Forks;
use super::history::History;
use super::members::Place;
use super::message::{Applied, Effect, Message, Pulse};
use super::own::Own;
use super::peer::Peer;
use super::roots::{Root, Roots};
use super::skew::{Clocks, Skew};
use super::stability::Stability;
use super::stream::has_only_begun_anew;
use super::vector::{Origin, Row, VersionVector};
use crate::engine::Seen;
use crate::persistence::NodeUuid;
use crate::replication::message::NodeId;

/// A peer that is silent for so many ticks is not in contact.
pub(super) const SILENCE_TICKS: u64 = 20;
/// Ticks between two pulses, roots and looks for tombstones that may go.
const PULSE_TICKS: u64 = 2;
/// For so long a node that has just started holds its writes for its peers' word.
pub(super) const SURE_TICKS: u64 = 8;
/// How many entries are read back at once, at most.
pub(super) const FETCH_ENTRIES: u64 = 4_096;

/// What a replica begins with.
pub struct Start {
    /// This node, its directory and address.
    pub place: Place,
    /// What its log has led to, and what of a snapshot is before it.
    pub history: History,
    /// Nodes that the flags name, with their addresses.
    pub named: Vec<Place>,
    /// The directory has lost entries: it goes on as another stream.
    pub begins_anew: bool,
    /// Draws names of streams, at random.
    pub origins: Box<dyn FnMut() -> Origin + Send>,
}

/// Ordered, and not on the disk yet.
pub(super) struct Pending {
    pub(super) index: u64,
    pub(super) own: bool,
    pub(super) payload: Bytes,
    pub(super) entry: Decoded,
}

/// The state machine.
pub struct Replica {
    pub(super) place: Place,
    pub(super) directory: NodeUuid,
    pub(super) origin: Origin,
    pub(super) origins: Box<dyn FnMut() -> Origin + Send>,
    pub(super) clock: HybridClock,
    /// All that is in the log or on its way there.
    pub(super) ordered: VersionVector,
    pub(super) next_index: u64,
    pub(super) pending: VecDeque<Pending>,
    /// What is durable.
    pub(super) history: History,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) cache: Cache,
    pub(super) tick: u64,
    pub(super) clocks: Clocks,
    pub(super) skew: Skew,
    pub(super) roots: Roots,
    /// The vector of the root that was asked for.
    pub(super) hashing: Option<VersionVector>,
    /// A peer's state is being taken over; whether only in part, to repair this one.
    pub(super) pulling: Option<(NodeId, bool)>,
    /// Peers that take over this node's state, and from where on they will need its log, by the
    /// transfer's number.
    pub(super) transfers: BTreeMap<u64, (NodeId, u64)>,
    /// Peers that have taken this node's state over, and from which entry on they need its log.
    pub(super) catching_up: BTreeMap<NodeId, u64>,
    pub(super) last_transfer: u64,
    pub(super) walk_under_way: bool,
    /// Since when states are ahead of their entries.
    pub(super) ahead_since: u64,
    /// Where this stream ends is known.
    pub(super) is_sure: bool,
    /// What this node has to say, and doesn't before it is sure.
    pub(super) own: Own,
    pub(super) forks: Forks,
    /// Entries of this node's stream came from others.
    pub(super) is_older_copy: bool,
    /// Entries of this directory are lost, and its clock may be behind what others have forgotten.
    pub(super) lost_entries: bool,
    /// Enough is known of who the members are for entries to be taken.
    pub(super) listens: bool,
    /// Directories that each peer takes for members', by its newest list, and that no entry has let in here yet.
    pub(super) heard_of: BTreeMap<NodeId, Vec<(NodeId, NodeUuid)>>,
    /// Since when there are such.
    pub(super) heard_of_tick: u64,
    /// All members there were at some time have been heard since this process began.
    pub(super) has_met_all: bool,
    /// How much counts of each stream that has ended.
    pub(super) limits: BTreeMap<Origin, u64>,
    /// The members have changed since it was found that nothing is to be reported.
    pub(super) may_owe_report: bool,
    /// This node's last report.
    pub(super) report_index: u64,
    pub(super) collected: u64,
    pub(super) stable: Stability,
    pub(super) next_fetch: u64,
    pub(super) effects: Vec<Effect>,
    #[cfg(test)]
    pub(super) mistake: Option<super::mistake::Mistake>,
}

impl Replica {
    /// A replica that goes on where its log ends; `begin` is to be called before anything else.
    pub fn new(start: Start) -> Replica {
        let Start { place, mut history, named, begins_anew, origins } = start;
        let directory = place.directory.unwrap_or(NodeUuid([0; 16]));
        for node in named.iter().chain([&place]) {
            history.members.named(node.node_id, &node.host, node.port);
        }
        let known = history.members.current_stream(directory).filter(|_| !begins_anew);
        let origin = known.map_or(0, |stream| stream.origin);
        let mut clock = HybridClock::default();
        clock.observe(history.latest());
        let lost_entries = begins_anew || has_only_begun_anew(&history, directory);
        Replica {
            directory,
            origin,
            origins,
            clock,
            ordered: history.vector.clone(),
            next_index: history.next_index(),
            pending: VecDeque::new(),
            cache: Cache::new(history.next_index()),
            peers: BTreeMap::new(),
            tick: 0,
            clocks: Clocks::default(),
            skew: Skew::default(),
            roots: Roots::default(),
            hashing: None,
            pulling: None,
            transfers: BTreeMap::new(),
            catching_up: BTreeMap::new(),
            last_transfer: 0,
            walk_under_way: false,
            ahead_since: 0,
            is_sure: false,
            own: Own::default(),
            forks: Forks::default(),
            is_older_copy: false,
            lost_entries,
            listens: false,
            heard_of: BTreeMap::new(),
            heard_of_tick: 0,
            has_met_all: false,
            limits: BTreeMap::new(),
            may_owe_report: true,
            report_index: 0,
            collected: 0,
            stable: Stability::default(),
            next_fetch: 0,
            effects: Vec::new(),
            place,
            history,
            #[cfg(test)]
            mistake: None,
        }
    }

    /// Begins this node's stream, if its directory has none.
    pub fn begin(&mut self, now_ms: u64) {
        self.follow_members();
        if self.origin == 0 {
            self.begin_stream(now_ms);
            return self.listen(now_ms);
        }
        self.listen(now_ms);
        self.own.has_moved = self.is_elsewhere();
        self.do_what_waited(now_ms);
    }

    /// What is to be done now.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Writes of this node become an entry: gives its index, and the stamp is in what is applied.
    pub fn write(&mut self, body: Bytes, requests: u32, now_ms: u64) -> u64 {
        self.leave_stream(now_ms);
        self.order_own(Content::Writes(body), requests, now_ms)
    }

    pub(super) fn order_own(&mut self, content: Content, requests: u32, now_ms: u64) -> u64 {
        let first = self.clock.stamp(now_ms, requests);
        let origin = self.origin;
        let rows = self.ordered.rows().iter().filter(|row| row.origin != origin);
        let context = Seen::of(rows.map(|row| (row.origin, row.time)));
        let sequence = self.ordered.sequence(origin) + 1;
        let dotted = Dotted { origin, sequence, first, requests, context, content };
        let payload = dotted.encode();
        self.order(Decoded::Dotted(dotted), payload, true)
    }

    /// An entry takes its place in the log.
    pub(super) fn order(&mut self, entry: Decoded, payload: Bytes, own: bool) -> u64 {
        let index = self.next_index;
        self.next_index += 1;
        match &entry {
            Decoded::Dotted(dotted) => self.ordered.raise(dotted.row()),
            Decoded::Seen(state) => {
                state.dropped.iter().for_each(|origin| self.ordered.remove(*origin));
                self.ordered.merge(&state.vector);
            }
            Decoded::States { .. } | Decoded::Forgotten(_) => {}
        }
        self.effects.push(Effect::Persist { index, payload: payload.clone() });
        self.pending.push_back(Pending { index, own, payload, entry });
        index
    }

    /// Everything up to this entry is durable.
    pub fn persisted(&mut self, through: u64) {
        let (mut foreign, mut members, mut again) = (false, false, false);
        while self.pending.front().is_some_and(|pending| pending.index <= through) {
            let Some(Pending { index, own, payload, entry }) = self.pending.pop_front() else { break };
            let drops = matches!(&entry, Decoded::Seen(state) if !state.dropped.is_empty());
            let is_news =
                matches!(&entry, Decoded::Seen(state) if drops || !self.history.vector.covers(&state.vector));
            again |= drops;
            members |= self.history.take(index, &entry);
            foreign |= !own;
            let row = match &entry {
                Decoded::Dotted(dotted) => Some(dotted.row()),
                Decoded::Seen(_) if is_news => {
                    // What came by it is nowhere in the log: a cursor would pass over it.
                    self.peers.values_mut().for_each(Peer::begin_again);
                    None
                }
                _ => None,
            };
            self.cache.push(Cached { index, payload, row, since: self.tick });
            self.effects.push(Effect::Apply(Applied { index, own, entry }));
        }
        if members {
            self.follow_members();
            self.effects.push(Effect::MembersChanged);
            // Whom an earlier list named may be none any more.
            self.peers.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.send_list(id));
        }
        if foreign {
            let vector = &self.history.vector;
            for to in self.peers.keys() {
                let message = Message::Vector { vector: vector.clone(), again };
                self.effects.push(Effect::Send { to: *to, message });
            }
        }
        if again {
            self.has_dropped();
        }
        self.pump_all();
    }

    /// A peer for each other member, and none for any else.
    pub(super) fn follow_members(&mut self) {
        self.follow_ends();
        let ids = self.history.members.node_ids();
        // A later stream of this directory, which it has lost: all others take this one for ended.
        let last = self.history.members.current_stream(self.directory).map(|stream| stream.origin);
        let is_pending = self.ordered.sequence(self.origin) > self.history.vector.sequence(self.origin);
        let is_other = self.origin != 0 && last.is_some_and(|last| last != self.origin);
        self.is_older_copy |= is_other && !is_pending && !self.reuses_origins();
        let me = self.place.node_id;
        for gone in self.peers.keys().copied().filter(|id| !ids.contains(id)).collect::<Vec<_>>() {
            self.peers.remove(&gone);
            self.heard_of.remove(&gone);
            self.clocks.forget(gone);
            self.roots.forget(gone);
            self.transfers.retain(|_, (to, _)| *to != gone);
            self.forget_forks(gone);
        }
        for id in ids.into_iter().filter(|id| *id != me) {
            self.peers.entry(id).or_insert_with(Peer::new);
        }
    }

    /// What a peer has on its disk.
    pub fn heard_vector(&mut self, from: NodeId, vector: VersionVector, again: bool, now_ms: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let is_first = peer.heard_tick == 0;
        peer.heard_tick = self.tick.max(1);
        if (is_first || self.lost_entries) && !is_ahead(vector.latest(), now_ms) {
            // Every tombstone that is forgotten is earlier than what each member has.
            self.lost_entries = false;
            self.clock.observe(vector.latest());
        }
        let own = vector.row(self.origin);
        // Nothing goes out before it is durable: what is on its way to the disk is in a place that was taken.
        if own.sequence > self.history.vector.sequence(self.origin) && !self.reuses_origins() {
            // It has entries of this stream that this directory hasn't: they were written, and lost here.
            self.is_older_copy = true;
            self.clock.observe(vector.latest());
        }
        self.notice_forks(from, &vector);
        self.leave_stream(now_ms);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if again {
            peer.cut_off();
        }
        peer.said(vector, self.tick);
        self.do_what_waited(now_ms);
        self.pump(from);
    }

    /// A peer's sign of life.
    pub fn heard_pulse(&mut self, from: NodeId, pulse: Pulse, now_ms: u64) {
        let Pulse { vector, clock_ms, root } = pulse;
        self.heard_clock(from, clock_ms, now_ms);
        if let Some(root) = root {
            self.roots.peer(from, root);
        }
        self.heard_vector(from, vector, false, now_ms);
    }

    /// What time a peer's pulse says it is. Where its entries are held back, its pulses come
    /// here at once nevertheless: behind them a pulse would always seem to be in time.
    pub fn heard_clock(&mut self, from: NodeId, clock_ms: u64, now_ms: u64) {
        self.clocks.heard(from, self.tick, clock_ms as i64 - now_ms as i64);
    }

    /// The way to a peer was cut: what was on it is lost.
    pub fn unreachable(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.cut_off();
        }
    }

    /// Time goes on; `tombstones` is the latest time among those that are kept, 0 for none.
    pub fn tick(&mut self, now_ms: u64, tombstones: u64) {
        self.tick += 1;
        self.leave_stream(now_ms);
        self.listen(now_ms);
        self.report_if_due(now_ms);
        self.do_what_waited(now_ms);
        self.pulse(now_ms);
        self.watch_clock();
        self.watch_roots();
        self.watch_tombstones(now_ms, tombstones);
        self.watch_forks();
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.is_stalled(self.tick) {
                peer.begin_again();
            }
            let must_have = self.history.must_have();
            let is_stuck = must_have.is_some_and(|must_have| peer.is_stuck_behind(must_have, self.tick));
            if is_stuck && !self.takes_over() {
                // What it has reported on ended streams may be in what was cut.
                self.send_list(id);
                self.send(id, Message::TooFarBehind);
            }
            self.pump(id);
        }
    }

    fn pulse(&mut self, now_ms: u64) {
        if !self.tick.is_multiple_of(PULSE_TICKS) {
            return;
        }
        for to in self.peers.keys() {
            let root = self.roots.last().cloned();
            let pulse = Pulse { vector: self.history.vector.clone(), clock_ms: now_ms, root };
            self.effects.push(Effect::Send { to: *to, message: Message::Pulse(pulse) });
        }
    }

    /// Every shard has answered: the state that was asked for hashes to this.
    pub fn hashed(&mut self, hash: u128) {
        if let Some(vector) = self.hashing.take() {
            self.roots.own(Root { vector, hash });
        }
    }

    /// A snapshot's walk begins, or is over: while it goes on no tombstone goes, since
    /// what the log says behind the snapshot's beginning may need it again.
    pub fn walk(&mut self, under_way: bool) {
        self.walk_under_way = under_way;
        if under_way {
            // The log is cut there.
            self.history.mark();
        }
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send { to, message });
    }

    /// Whether a stream is another node's.
    pub(super) fn is_foreign(&self, row: &Row) -> bool {
        let stream = self.history.members.stream(row.origin);
        row.origin != self.origin && stream.is_none_or(|stream| stream.directory != self.directory)
    }
}
