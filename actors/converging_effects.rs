//! Carrying out what the replica of dynamo mode has decided, in its order.

use crate::acknowledgements;
use crate::converging_log::ConvergingLog;
use crate::converging_messages::Converge;
use crate::disk_thread::DiskOrder;
use crate::dynamo_cluster::DynamoView;
use crate::peering::Peering;
use crate::peers::follow_members;
use crate::replication_messages::PeerMessage;
use crate::replication_options::TICK_MS;
use crate::shard_messages::ShardMessage;
use crate::state_puller;
use datastore::limits;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::replication::dynamo::entry::Decoded;
use datastore::replication::dynamo::{Applied, Effect, Message, beyond_most};
use datastore::replication::message::{EntryKind, LogEntry, NodeId};
use datastore::replication::raft::Persist;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of entries read back at once.
const FETCH_BYTES_MAX: u64 = limits::ENTRY_BYTES_WANTED as u64;

impl ConvergingLog {
    pub(crate) fn publish(&mut self) {
        let ahead = self.replica.ahead(self.cluster.now_ms());
        let node_ids: Vec<NodeId> = ahead.iter().map(|ahead| ahead.node_id).collect();
        if self.ahead != node_ids {
            tracing::warn!(
                ?ahead,
                "nodes whose stamps are ahead of time: what they write is held back until then"
            );
            self.ahead = node_ids;
        }
        self.cluster.awaits_contact.store(self.replica.awaits_contact(), Ordering::Relaxed);
        self.cluster.is_new.store(self.replica.is_new(), Ordering::Relaxed);
        self.cluster.has_excess.store(!self.replica.excess().is_empty(), Ordering::Relaxed);
        self.cluster.states_equal.store(self.replica.equal_roots(), Ordering::Relaxed);
        self.cluster.seen(DynamoView {
            members: self.replica.members().clone(),
            peers: self.replica.view(TICK_MS),
            vector: self.replica.vector().clone(),
            stability: self.replica.stability().clone(),
            unknown_members: self.replica.unknown_members(),
            skew: self.replica.skew(),
            forks: self.replica.forks(),
            ahead,
        });
    }

    pub(crate) fn members_changed(&mut self) {
        self.publish();
        let members = self.replica.members();
        if members
            .is_evicted(self.cluster.place.directory.unwrap_or(datastore::persistence::NodeUuid([0; 16])))
        {
            self.cluster.is_evicted.store(true, Ordering::Relaxed);
        }
        tracing::info!(members = ?members.node_ids(), "members");
        if beyond_most(members) > 0 {
            tracing::error!("TOO MANY MEMBERS: nobody more is admitted before some are evicted");
        }
        let me = self.cluster.place.node_id;
        let others = members.node_ids().into_iter().filter(|id| *id != me).collect();
        follow_members(&self.node, &self.cast, &Peering::Dynamo(self.cluster.clone()), others);
    }

    /// Carries out all that the replica has decided.
    pub(crate) fn pump(&mut self) {
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
        let bytes = entries.iter().map(LogEntry::memory_bytes).sum();
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
                acknowledgements::committed(&self.cast.shards, index, Some(dotted.stamp()), acknowledgements);
            }
            _ => {
                let bytes = entry.memory_bytes();
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

    /// Hands on what gathered for the shards.
    fn converge(&self, foreign: &mut Vec<(u64, Arc<Decoded>, usize)>) {
        if foreign.is_empty() {
            return;
        }
        let bytes: usize = foreign.iter().map(|(.., bytes)| bytes).sum();
        let bytes = bytes / self.cast.shards.len();
        let entries: Vec<(u64, Arc<Decoded>)> =
            foreign.drain(..).map(|(index, entry, _)| (index, entry)).collect();
        for (number, shard) in self.cast.shards.iter().enumerate() {
            let permits = self.node.permits.for_entries(number, bytes);
            self.node.permits.take(number, permits);
            let entries = entries.clone();
            shard.send(ShardMessage::Converge(Converge { entries, permits }));
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
            Effect::Forked { fork, peer } => tracing::error!(
                stream = fork.origin,
                of_node = fork.node_id,
                peer,
                "A STREAM HAS FORKED: its node's directory was set back to an older state, and has taken writes before \
                 it heard the others. Whoever has the later ones takes over what the others have; deletes are kept \
                 meanwhile. If this doesn't end, `evict` that node and start it on an empty directory"
            ),
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

    pub(crate) fn shard_hash(&mut self, hash: u128) {
        let Some((missing, sum)) = &mut self.hashing else { return };
        *missing -= 1;
        *sum = sum.wrapping_add(hash);
        if let (0, sum) = (*missing, *sum) {
            self.hashing = None;
            self.replica.hashed(sum);
        }
    }

    pub(crate) fn order(&self, order: DiskOrder) {
        // The disk thread ends only with the process.
        if self.disk.send(order).is_err() {
            tracing::error!("the disk thread is gone; stopping");
            crate::logging::abort();
        }
    }
}
