//! The WalWriter's log in dynamo mode: it carries the replica, and does what that decides.
//!
//! ```text
//! shards ──Append──► group ─ stamp, dot ─► Replica ─┬─ Persist ─► disk thread ─ Persisted ─┐
//!                    peers ── Received ───────────► │  ◄───────────────────────────────────┘
//! shards ◄─Committed── this node's own writes ◄─────┤
//! shards ◄─Converge─── everything else ◄────────────┤  once it is durable, in the log's order
//! peers  ◄──────────── entries that they lack ◄─────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use datastore::engine::Stamp;
use datastore::error::Error;
use datastore::limits;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::replication::dynamo::entry::Decoded;
use datastore::replication::dynamo::{Applied, Effect, Message, Replica, Start};
use datastore::replication::group::{Acknowledgement, Group, numbered};
use datastore::replication::message::{EntryKind, LogEntry};
use datastore::replication::raft::Persist;

use crate::Cast;
use crate::acknowledgements;
use crate::converging_asks::Asks;
use crate::converging_messages::{Converge, ConvergingMessage};
use crate::directory_mark;
use crate::disk_thread::DiskOrder;
use crate::dynamo_cluster::{DynamoCluster, DynamoView};
use crate::node::Node;
use crate::peering::Peering;
use crate::peers::follow_members;
use crate::replication_messages::{PeerMessage, ReplicationMessage};
use crate::shard_messages::{Committed, ShardMessage};
use crate::state_puller;

/// Persists under way with which further writes wait for company.
const PERSISTS_UNDER_WAY_MAX: usize = 2;
/// Bytes of entries read back at once.
const FETCH_BYTES_MAX: u64 = limits::ENTRY_BYTES_WANTED as u64;

/// The log of a node of dynamo mode.
pub struct ConvergingLog {
    node: Arc<Node>,
    cluster: Arc<DynamoCluster>,
    cast: Arc<Cast>,
    disk: Sender<DiskOrder>,
    replica: Replica,
    /// This node's writes on their way to the disk.
    own: VecDeque<(u64, Vec<Acknowledgement>)>,
    /// States that were taken over, on their way to the disk: whom to tell.
    waiting: VecDeque<(u64, Sender<()>)>,
    asks: Asks,
    persists_under_way: usize,
    /// The last entry handed to the shards.
    handed_over: u64,
    /// The directory isn't marked as itself yet: its stream has to begin on the disk first.
    unmarked: bool,
    /// Shards that have still to say how their slices hash, and the sum of the others.
    hashing: Option<(usize, u128)>,
}

impl ConvergingLog {
    /// The log that recovery left at `start`, whose last entry is `last_index`.
    pub(crate) fn new(
        node: Arc<Node>,
        cluster: Arc<DynamoCluster>,
        cast: Arc<Cast>,
        disk: Sender<DiskOrder>,
        (start, last_index): (Start, u64),
    ) -> ConvergingLog {
        let mut log = ConvergingLog {
            replica: Replica::new(start),
            own: VecDeque::new(),
            waiting: VecDeque::new(),
            asks: Asks::new(cluster.clone(), node.settings.request_timeout_ms),
            persists_under_way: 0,
            handed_over: last_index,
            unmarked: true,
            hashing: None,
            node,
            cluster,
            cast,
            disk,
        };
        log.cluster.applied_index.store(last_index, Ordering::Relaxed);
        log.replica.begin(log.cluster.now_ms());
        log.members_changed();
        log.pump();
        log
    }

    /// The last entry handed to the shards.
    pub(crate) fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// Whether writes are to wait for company, or for room.
    pub(crate) fn must_hold(&self) -> bool {
        self.replica.holds_writes()
            || self.persists_under_way >= PERSISTS_UNDER_WAY_MAX
            || self.cluster.persisting_bytes.load(Ordering::Relaxed) >= limits::UNCOMMITTED_BYTES_MAX
    }

    /// A group becomes one entry of this node's stream.
    pub(crate) fn write(&mut self, group: Group) {
        let (payload, requests) = (group.payload(), group.requests as u32);
        let index = self.replica.write(payload.into(), requests, self.cluster.now_ms());
        self.own.push_back((index, group.acknowledgements));
        self.pump();
    }

    /// What the log must know.
    pub(crate) fn hear(&mut self, message: ConvergingMessage) {
        let now_ms = self.cluster.now_ms();
        match message {
            ConvergingMessage::Received { from, message } => self.received(from, message, now_ms),
            ConvergingMessage::Unreachable(peer) => self.replica.unreachable(peer),
            ConvergingMessage::ShardHash(hash) => self.shard_hash(hash),
            ConvergingMessage::Admit(place) => {
                if self.replica.members().member(place.node_id).is_none() {
                    tracing::info!(
                        node_id = place.node_id,
                        host = place.host,
                        port = place.port,
                        "a node joins"
                    );
                    self.replica.admit(place, now_ms);
                }
            }
            ConvergingMessage::Evict { node_id, asked_by } => {
                self.asks.evict(&mut self.replica, node_id, asked_by, now_ms);
            }
            ConvergingMessage::AwaitCopies { version, wanted, asked_by } => {
                self.asks.await_copies(&self.replica, version, wanted, asked_by);
            }
            ConvergingMessage::AwaitVersion { version, reply_to, round } => {
                self.asks.await_version(&self.replica, version, reply_to, round);
            }
            ConvergingMessage::ReadCopies { key, wanted, asked_by } => {
                self.asks.read_copies(&self.replica, (&self.node, &self.cast), &key, wanted, asked_by);
            }
            ConvergingMessage::KeyState { number, state } => self.asks.key_state(number, state),
            ConvergingMessage::TellKeyState { to, number, state } => {
                if let Some(peer) = self.cast.peer(to) {
                    peer.send(PeerMessage::Converging(Converging::KeyState { number, state }));
                }
            }
            ConvergingMessage::States { vector, same, states, done } => {
                self.cluster.states_taken.fetch_add(1, Ordering::Relaxed);
                let index = self.replica.states(&vector, same, states);
                self.waiting.push_back((index, done));
            }
            ConvergingMessage::Forget { rows, seen, done } => {
                let rows = rows.iter().map(|(key, version)| (&key[..], *version));
                let index = self.replica.forget(rows, &seen);
                self.waiting.push_back((index, done));
            }
            ConvergingMessage::Pulled(Some(state)) => {
                tracing::info!("a peer's state is taken over");
                self.replica.pulled(*state);
            }
            ConvergingMessage::Pulled(None) => self.replica.pull_failed(),
            ConvergingMessage::TransferBegins { to, state } => {
                // Whoever asked may have gone.
                let _ = state.send(self.replica.transfer_begins(to));
            }
            ConvergingMessage::TransferEnded(to) => self.replica.transfer_ended(to),
        }
        self.pump();
    }

    fn received(&mut self, from: u64, message: Message, now_ms: u64) {
        match message {
            Message::Entries(entries) => {
                if let Err(reason) = self.replica.received(from, entries) {
                    tracing::error!(peer = from, reason, "a peer's entries can't be taken");
                    self.cluster.links.forget(from);
                }
            }
            Message::Vector { vector, again } => self.replica.heard_vector(from, vector, again, now_ms),
            Message::Pulse(pulse) => self.replica.heard_pulse(from, pulse, now_ms),
            Message::TooFarBehind => self.replica.too_far_behind(from),
        }
    }

    /// What the disk thread and the log's reader say.
    pub(crate) fn hear_disk(&mut self, message: ReplicationMessage) {
        match message {
            ReplicationMessage::Persisted { number, persists, .. } => {
                self.persists_under_way -= persists;
                self.replica.persisted(number);
                self.mark();
            }
            ReplicationMessage::Fetched { number, entries } => {
                let entries = entries.into_iter().map(|entry| (entry.index, entry.payload)).collect();
                self.replica.fetched(number, entries);
            }
            ReplicationMessage::LogCut { first_index } => self.replica.cut(first_index),
            _ => {}
        }
        self.pump();
    }

    /// The directory is itself from now on, whatever it was copied from.
    fn mark(&mut self) {
        if !std::mem::take(&mut self.unmarked) {
            return;
        }
        if let Err(error) = directory_mark::keep(&self.node.settings.data_dir) {
            tracing::warn!(%error, "the directory could not be marked: the next start takes it for a copy");
        }
    }

    /// Time goes on.
    pub(crate) fn tick(&mut self) {
        let figures = self.node.shard_figures.iter();
        let newest = figures.map(|shard| shard.newest_tombstone.load(Ordering::Relaxed)).max().unwrap_or(0);
        self.replica.tick(self.cluster.now_ms(), newest);
        self.publish();
        self.pump();
        self.asks.settle_late(&self.replica);
    }

    /// The log can't go on: nobody knows what of it is on the disk.
    pub(crate) fn disk_failed(&mut self, error: &Error) {
        for (_, acknowledgements) in self.own.drain(..) {
            acknowledgements::refused(&self.cast.shards, acknowledgements, error);
        }
    }

    /// A snapshot's walk begins: what is said of its S is what is here now.
    pub(crate) fn walk_begins(&mut self) {
        self.replica.walk(true);
        *crate::mailbox::lock(&self.cluster.snapshot_state) = self.replica.history().state().encode();
    }

    /// It is over.
    pub(crate) fn walk_ended(&mut self) {
        self.replica.walk(false);
    }

    /// How far the log may be cut.
    pub(crate) fn may_cut(&self, through: u64) -> u64 {
        self.replica.may_cut(through)
    }

    fn publish(&self) {
        self.cluster.awaits_contact.store(self.replica.awaits_contact(), Ordering::Relaxed);
        self.cluster.is_new.store(self.replica.is_new(), Ordering::Relaxed);
        self.cluster.states_equal.store(self.replica.equal_roots(), Ordering::Relaxed);
        self.cluster.seen(DynamoView {
            members: self.replica.members().clone(),
            peers: self.replica.view(self.cluster.now_ms()),
            vector: self.replica.vector().clone(),
            stability: self.replica.stability().clone(),
            skew: self.replica.skew(),
        });
    }

    fn members_changed(&mut self) {
        self.publish();
        let members = self.replica.members();
        if members
            .is_evicted(self.cluster.place.directory.unwrap_or(datastore::persistence::NodeUuid([0; 16])))
        {
            self.cluster.is_evicted.store(true, Ordering::Relaxed);
        }
        tracing::info!(members = ?members.node_ids(), "members");
        let me = self.cluster.place.node_id;
        let others = members.node_ids().into_iter().filter(|id| *id != me).collect();
        follow_members(&self.node, &self.cast, &Peering::Dynamo(self.cluster.clone()), others);
    }

    /// Carries out all that the replica has decided.
    fn pump(&mut self) {
        let mut persists: Vec<LogEntry> = Vec::new();
        let mut foreign: Vec<(u64, Arc<Decoded>, usize)> = Vec::new();
        while self.replica.has_effects() {
            for effect in self.replica.take_effects() {
                match effect {
                    Effect::Persist { index, payload } => {
                        persists.push(LogEntry { index, term: 1, kind: EntryKind::Converging, payload });
                    }
                    Effect::Apply(applied) => self.apply(applied, &mut foreign),
                    other => {
                        self.converge(&mut foreign);
                        self.carry_out(other);
                    }
                }
            }
        }
        self.converge(&mut foreign);
        self.persist(persists);
        // Behind what the shards were handed: whoever waited for it finds it there.
        self.asks.settle(&self.replica);
    }

    fn persist(&mut self, entries: Vec<LogEntry>) {
        let Some(number) = entries.last().map(|entry| entry.index) else { return };
        let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
        self.persists_under_way += 1;
        self.cluster.persisting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let persist = Persist {
            number,
            entries,
            hard_state: None,
            snapshot: None,
            must_sync: true,
            then_send: Vec::new(),
        };
        self.order(DiskOrder::Persist(Box::new(persist)));
    }

    fn apply(&mut self, applied: Applied, foreign: &mut Vec<(u64, Arc<Decoded>, usize)>) {
        let Applied { index, own, entry } = applied;
        let is_write = self.own.front().is_some_and(|(next, _)| own && *next == index);
        let acknowledgements = if is_write { self.own.pop_front() } else { None };
        match (&entry, acknowledgements) {
            (Decoded::Dotted(dotted), Some((_, acknowledgements))) => {
                self.converge(foreign);
                self.committed(index, dotted.stamp(), acknowledgements);
            }
            _ => {
                let bytes = match &entry {
                    Decoded::States { states, .. } => states.len(),
                    Decoded::Forgotten(rows) => rows.len(),
                    Decoded::Dotted(dotted) => dotted.body_bytes(),
                    Decoded::Seen(_) => 0,
                };
                foreign.push((index, Arc::new(entry), bytes));
            }
        }
        self.handed_over = index;
        self.cluster.applied_index.store(index, Ordering::Relaxed);
        while self.waiting.front().is_some_and(|(at, _)| *at <= index) {
            if let Some((_, done)) = self.waiting.pop_front() {
                // The thread may have given up.
                let _ = done.send(());
            }
        }
    }

    fn committed(&self, index: u64, stamp: Stamp, acknowledgements: Vec<Acknowledgement>) {
        for (shard, writes) in self.cast.shards.iter().zip(numbered(acknowledgements, self.cast.shards.len()))
        {
            if !writes.is_empty() {
                shard.send(ShardMessage::Committed(Committed { index, stamp: Some(stamp), writes }));
            }
        }
    }

    /// Hands on what gathered for the shards.
    fn converge(&self, foreign: &mut Vec<(u64, Arc<Decoded>, usize)>) {
        if foreign.is_empty() {
            return;
        }
        let bytes: usize = foreign.iter().map(|(.., bytes)| bytes).sum();
        let permit_bytes = bytes / self.cast.shards.len();
        let entries: Vec<(u64, Arc<Decoded>)> =
            foreign.drain(..).map(|(index, entry, _)| (index, entry)).collect();
        for shard in &self.cast.shards {
            self.node.permits.take(permit_bytes);
            let entries = entries.clone();
            shard.send(ShardMessage::Converge(Converge { entries, permit_bytes }));
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { .. } | Effect::Apply(_) => {}
            Effect::Send { to, message } => self.send(to, message),
            Effect::Fetch { number, low, high } => {
                self.order(DiskOrder::Fetch { number, low, high, bytes_max: FETCH_BYTES_MAX });
            }
            Effect::Pull { from, repair } => {
                tracing::info!(from, ?repair, "taking over a peer's state");
                let (node, cast, cluster) = (self.node.clone(), self.cast.clone(), self.cluster.clone());
                state_puller::start(node, cast, cluster, from, repair);
            }
            Effect::Collect { through } => {
                self.cast
                    .shards
                    .iter()
                    .for_each(|shard| shard.send(ShardMessage::CollectTombstones { through }));
            }
            Effect::Hash => {
                self.hashing = Some((self.cast.shards.len(), 0));
                let index = self.handed_over;
                self.cast.shards.iter().for_each(|shard| shard.send(ShardMessage::StateHash { index }));
            }
            Effect::MembersChanged => self.members_changed(),
            Effect::Skew(skew) => {
                self.cluster.is_clock_wrong.store(skew.is_wrong, Ordering::Relaxed);
                match (skew.is_wrong, skew.is_doubtful) {
                    (true, _) => tracing::error!(
                        ahead_ms = skew.ahead_ms,
                        "THIS NODE'S CLOCK IS WRONG by its peers' median: it takes no writes until it is corrected"
                    ),
                    (_, true) => tracing::warn!(
                        "this node's clock and its only peer's are more than 500 ms apart, and nobody can tell which is right"
                    ),
                    _ => tracing::info!("the clocks agree again"),
                }
            }
            Effect::Differs(difference) => {
                self.cluster.state_differences.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    peer = difference.peer,
                    repair = ?difference.repair,
                    "STATES DIFFER: this node and a peer have had the same writes and don't have the same keys"
                );
            }
            Effect::BeganAnew => tracing::warn!(
                "this directory is an older copy, or has lost entries: peers have writes of it that it has not; it \
                 goes on as a new stream"
            ),
        }
    }

    fn send(&self, to: u64, message: Message) {
        if let Some(peer) = self.cast.peer(to) {
            peer.send(PeerMessage::Converging(Converging::Message(message)));
        }
    }

    fn shard_hash(&mut self, hash: u128) {
        let Some((missing, sum)) = &mut self.hashing else { return };
        *missing -= 1;
        *sum = sum.wrapping_add(hash);
        if let (0, sum) = (*missing, *sum) {
            self.hashing = None;
            self.replica.hashed(sum);
        }
    }

    fn order(&self, order: DiskOrder) {
        // The disk thread ends only with the process.
        if self.disk.send(order).is_err() {
            tracing::error!("the disk thread is gone; stopping");
            std::process::abort();
        }
    }
}
