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
use datastore::error::Error;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::replication::dynamo::{Message, Replica, Start};
use datastore::replication::group::{Acknowledgement, Group};
use datastore::replication::message::NodeId;

use crate::Cast;
use crate::acknowledgements;
use crate::converging_asks::Asks;
use crate::converging_messages::ConvergingMessage;
use crate::directory_mark;
use crate::disk_thread::DiskOrder;
use crate::dynamo_cluster::DynamoCluster;
use crate::memory_figures::Share;
use crate::node::Node;
use crate::replication_messages::{PeerMessage, ReplicationMessage};

/// Groups of this node's writes under way with which further ones wait for company.
const GROUPS_UNDER_WAY_MAX: usize = 2;

/// The log of a node of dynamo mode.
pub struct ConvergingLog {
    pub(crate) node: Arc<Node>,
    pub(crate) cluster: Arc<DynamoCluster>,
    pub(crate) cast: Arc<Cast>,
    pub(crate) disk: Sender<DiskOrder>,
    pub(crate) replica: Replica,
    /// This node's writes on their way to the disk.
    pub(crate) own: VecDeque<(u64, Vec<Acknowledgement>)>,
    /// States that were taken over, on their way to the disk: whom to tell.
    pub(crate) waiting: VecDeque<(u64, Sender<()>)>,
    pub(crate) asks: Asks,
    /// The last entry handed to the shards.
    pub(crate) handed_over: u64,
    /// The directory isn't marked as itself yet: its stream has to begin on the disk first.
    pub(crate) unmarked: bool,
    /// That this directory was evicted is in its log, or on its way there.
    knows_eviction: bool,
    /// Shards that have still to say how their slices hash, and the sum of the others.
    pub(crate) hashing: Option<(usize, u128)>,
    /// Nodes of which it was said that their stamps are ahead of time.
    pub(crate) ahead: Vec<NodeId>,
    /// What the replica and those who wait keep in memory, for `stats`.
    kept: Kept,
}

struct Kept {
    entries: Share,
    marks: Share,
    peers: Share,
    asks: Share,
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
            handed_over: last_index,
            unmarked: true,
            knows_eviction: false,
            hashing: None,
            ahead: Vec::new(),
            kept: Kept {
                entries: node.memory.log_entries.share(),
                marks: node.memory.log_index.share(),
                peers: node.memory.peers.share(),
                asks: node.memory.connections.share(),
            },
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
        // Its own alone: what peers send is on its way to the disk all the time.
        self.replica.holds_writes() || self.own.len() >= GROUPS_UNDER_WAY_MAX
    }

    /// A group becomes one entry of this node's stream.
    pub(crate) fn write(&mut self, group: Group) {
        if let Some(error) = self.cluster.write_refusal() {
            // It was taken before that was known, and has no place in the log.
            return acknowledgements::refused(&self.cast.shards, group.acknowledgements, &error);
        }
        self.cluster.is_new.store(false, Ordering::Relaxed);
        let (payload, requests) = (group.payload(), group.requests as u32);
        let index = self.replica.write(payload.into(), requests, self.cluster.now_ms());
        self.own.push_back((index, group.acknowledgements));
        self.pump();
    }

    /// The log is to go on by an entry. Says whether it does.
    pub(crate) fn go_on(&mut self) -> bool {
        let goes_on = self.replica.go_on(self.cluster.now_ms());
        self.pump();
        goes_on
    }

    /// What the log must know.
    pub(crate) fn hear(&mut self, message: ConvergingMessage) {
        let now_ms = self.cluster.now_ms();
        match message {
            ConvergingMessage::Received { from, message } => self.received(from, message, now_ms),
            ConvergingMessage::Speaks(peer) => {
                self.replica.speaks(peer, self.cluster.links.protocol(peer), now_ms);
            }
            ConvergingMessage::Unreachable(peer) => self.replica.unreachable(peer),
            ConvergingMessage::ShardHash(hash) => self.shard_hash(hash),
            ConvergingMessage::Admit(place) => {
                let (node_id, host, port) = (place.node_id, place.host.clone(), place.port);
                if self.replica.let_join(place, now_ms) {
                    tracing::info!(node_id, host, port, "a node joins");
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
            ConvergingMessage::KeyState { from, number, state } => self.asks.key_state(from, number, state),
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
            // Of a state that has too much nothing can be told to count.
            ConvergingMessage::TransferBegins { .. } if !self.replica.excess().is_empty() => {}
            ConvergingMessage::TransferBegins { to, begun } => {
                // Whoever asked may have gone.
                let _ = begun.send(self.replica.transfer_begins(to));
            }
            ConvergingMessage::StateBegins { state, may_take } => {
                let _ = may_take.send(self.replica.may_take(&state));
            }
            ConvergingMessage::TransferEnded(number) => self.replica.transfer_ended(number),
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
            Message::Members(list) => self.replica.heard_list(from, &list, now_ms),
        }
    }

    /// What the disk thread and the log's reader say.
    pub(crate) fn hear_disk(&mut self, message: ReplicationMessage) {
        match message {
            ReplicationMessage::Persisted { number, .. } => {
                self.replica.persisted(number);
                self.mark();
            }
            ReplicationMessage::Fetched { number, entries } => {
                let entries = entries.into_iter().map(|entry| (entry.index, entry.payload)).collect();
                self.replica.fetched(number, entries);
            }
            ReplicationMessage::LogCut { first_index } => self.replica.cut(first_index),
            ReplicationMessage::NotFound { number, unreadable } => {
                self.order(DiskOrder::NotFound { number, unreadable });
            }
            ReplicationMessage::Unreadable { index, .. } => self.replica.unreadable(index),
            _ => {}
        }
        self.pump();
    }

    /// The directory is itself from now on, whatever it was copied from.
    fn mark(&mut self) {
        if !std::mem::take(&mut self.unmarked) {
            return;
        }
        let node = self.node.clone();
        let keep = move || {
            if let Err(error) = directory_mark::keep(&node.settings.data_dir) {
                tracing::warn!(%error, "the directory could not be marked: the next start takes it for a copy");
            }
        };
        // No heartbeat waits for the disk.
        if let Err(error) = std::thread::Builder::new().name("directory-mark".into()).spawn(keep) {
            tracing::warn!(%error, "the directory could not be marked: the next start takes it for a copy");
        }
    }

    /// Time goes on.
    pub(crate) fn tick(&mut self) {
        let figures = self.node.shard_figures.iter();
        let newest = figures.map(|shard| shard.newest_tombstone.load(Ordering::Relaxed)).max().unwrap_or(0);
        if self.cluster.is_evicted.load(Ordering::Relaxed)
            && !std::mem::replace(&mut self.knows_eviction, true)
        {
            self.replica.hear_eviction(self.cluster.now_ms());
        }
        self.replica.tick(self.cluster.now_ms(), newest);
        self.publish();
        self.pump();
        self.asks.settle_late(&self.replica);
        let memory = self.replica.memory();
        self.kept.entries.keeps(memory.entries);
        self.kept.marks.keeps(memory.marks);
        self.kept.peers.keeps(memory.peers);
        self.kept.asks.keeps(self.asks.memory_bytes());
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
    pub(crate) fn may_cut(&mut self, through: u64, has_room: bool) -> (u64, Vec<NodeId>) {
        if !has_room {
            self.replica.let_go_of_all();
        }
        let may = self.replica.may_cut(through);
        (may, if may < through { self.replica.held_for() } else { Vec::new() })
    }
}
