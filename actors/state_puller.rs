//! Taking over a peer's state: what a node does whose log no other log continues, or
//! whose keys were damaged. See `state_source.rs` for what is said on the way.
//!
//! The states go through this node's log like anything else, some at a time; at the end
//! what the peer had seen and has no more is forgotten, and then the vector is raised.
//! So a crash in between leaves what has come, and the next attempt begins anew.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use datastore::engine::{Entry, SameVersion, Version, key_hash};
use datastore::messaging::peer_frame::PeerFrame;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::replication::dynamo::clock::is_ahead;
use datastore::replication::dynamo::entry::states;
use datastore::replication::dynamo::{SnapshotVector, VersionVector, bucket_of};
use datastore::replication::handshake::Lane;
use datastore::replication::message::NodeId;

use crate::converging_messages::ConvergingMessage;
use crate::dynamo_cluster::DynamoCluster;
use crate::dynamo_greeting::{answered, greeting};
use crate::memory_figures::Share;
use crate::node::Node;
use crate::peer_greeting::Greeted;
use crate::peer_thread::{BlockingPeer, out_of_place};
use crate::start::{Cast, spawn};
use crate::state_walk::{bucket_hashes, walk};
use crate::wal_writer::WalMessage;

/// A source that walks over many keys without finding one to send is silent meanwhile. One that
/// is gone shows by its socket.
const PATIENCE: Duration = Duration::from_secs(600);
/// States on their way to this node's disk.
const UNDER_WAY_MAX: usize = 4;
/// Forgotten parts in one entry.
const FORGOTTEN_ROWS: usize = 4_096;

/// Begins. The WalWriter hears [`ConvergingMessage::Pulled`] at the end, either way.
pub(crate) fn start(
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<DynamoCluster>,
    from: NodeId,
    repair: Option<SameVersion>,
) {
    let wal_writer = cast.wal_writer.clone();
    let kept = node.memory.snapshots.share();
    let begun = spawn("state puller", move || {
        let puller = Puller {
            node,
            cast: cast.clone(),
            cluster,
            from,
            repair,
            buckets: Vec::new(),
            received: HashSet::new(),
            kept,
        };
        let pulled = puller
            .run()
            .inspect_err(|error| tracing::warn!(from, %error, "a peer's state was not taken over"));
        cast.wal_writer.send(WalMessage::Converging(ConvergingMessage::Pulled(pulled.ok().map(Box::new))));
    });
    if let Err(error) = begun {
        tracing::error!(%error, from, "a peer's state can't be taken over");
        wal_writer.send(WalMessage::Converging(ConvergingMessage::Pulled(None)));
    }
}

struct Puller {
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<DynamoCluster>,
    from: NodeId,
    /// `None`: all of it; else where buckets differ, and what stays of two copies of one version.
    repair: Option<SameVersion>,
    /// Of a repair: the buckets that come, ascending.
    buckets: Vec<u32>,
    /// Hashes of the keys that have come, wide enough that no two keys have the same.
    received: HashSet<u128>,
    /// What these occupy, for `stats`.
    kept: Share,
}

impl Puller {
    fn run(mut self) -> io::Result<SnapshotVector> {
        let hashes = self.repair.map_or(Vec::new(), |_| bucket_hashes(&self.cast).hashes().to_vec());
        let node = self.node.clone();
        let stops = move || node.stopping.load(Ordering::Relaxed);
        let mut socket = self.connect(&stops)?;
        socket.send(&PeerFrame::Converging(Converging::StateWanted { hashes }))?;
        let PeerFrame::Converging(Converging::StateBegins { state, buckets }) =
            socket.receive_within(PATIENCE, &stops)?
        else {
            return Err(out_of_place());
        };
        self.buckets = buckets;
        self.check_time(state.latest())?;
        self.check_members(&state)?;
        let vector = &state.vector;
        let taken = self.take(&mut socket, vector, &stops).and_then(|()| self.forget(vector));
        socket.send(&PeerFrame::SnapshotResult { taken: taken.is_ok() })?;
        taken.map(|()| state)
    }

    /// Its state may have more of an evicted node's writes than counts.
    fn check_members(&self, state: &SnapshotVector) -> io::Result<()> {
        let (may_take, answer) = bounded(1);
        let begins = ConvergingMessage::StateBegins { state: Box::new(state.clone()), may_take };
        self.cast.wal_writer.send(WalMessage::Converging(begins));
        match answer.recv() {
            Ok(true) => Ok(()),
            _ => Err(io::Error::other("it has writes of an evicted node that no member has reported")),
        }
    }

    /// What is from too far ahead would draw this node's clock along.
    fn check_time(&self, time: u64) -> io::Result<()> {
        if is_ahead(time, self.cluster.now_ms()) {
            return Err(io::Error::other("its writes are more than 500 ms ahead of this node's clock"));
        }
        Ok(())
    }

    fn connect(&self, stops: &dyn Fn() -> bool) -> io::Result<BlockingPeer> {
        let nowhere = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
        let address = self.cluster.address(self.from).ok_or_else(nowhere)?;
        let hello = greeting(&self.cluster, self.from, Lane::Snapshot);
        let (socket, line) = BlockingPeer::greet(&(address.host.clone(), address.port), &hello, stops)?;
        match answered(&self.cluster, &address, &line) {
            Greeted::Connected => Ok(socket),
            Greeted::Refused(reason) => Err(io::Error::other(reason)),
            Greeted::NotYet | Greeted::Adopt => Err(io::Error::other("it isn't ready for that")),
        }
    }

    /// Takes what comes, no faster than this node's disk does.
    fn take(
        &mut self,
        socket: &mut BlockingPeer,
        vector: &VersionVector,
        stops: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let mut under_way: Vec<Receiver<()>> = Vec::new();
        loop {
            match socket.receive_within(PATIENCE, stops)? {
                PeerFrame::Converging(Converging::States(batch)) => {
                    for entry in states(batch.clone()) {
                        let entry = entry.ok_or_else(out_of_place)?;
                        self.check_time(entry.version().index)?;
                        if !entry.is_tombstone() {
                            self.received.insert(key_hash(entry.key()));
                        }
                    }
                    self.kept.keeps(self.received.capacity() * size_of::<u128>());
                    if under_way.len() >= UNDER_WAY_MAX {
                        until_durable(&under_way.remove(0))?;
                    }
                    let (done, is_done) = bounded(1);
                    let same = self.repair.unwrap_or(SameVersion::Ours);
                    let message =
                        ConvergingMessage::States { vector: vector.clone(), same, states: batch, done };
                    self.cast.wal_writer.send(WalMessage::Converging(message));
                    under_way.push(is_done);
                }
                PeerFrame::SnapshotEnd => return under_way.iter().try_for_each(until_durable),
                _ => return Err(out_of_place()),
            }
        }
    }

    /// Forgets what the peer had seen and has no more: others have deleted it, and
    /// forgotten that they did.
    fn forget(&self, vector: &VersionVector) -> io::Result<()> {
        if self.repair == Some(SameVersion::Greater) {
            // Nobody knows which of the two is damaged: what one has lost is not to be lost on both.
            return Ok(());
        }
        let mut rows: Vec<(Bytes, Version)> = Vec::new();
        walk(&self.cast, |entries| {
            for entry in entries.iter().filter(|entry| !entry.is_tombstone()) {
                if !self.received.contains(&key_hash(entry.key())) && self.concerns(entry.key()) {
                    rows.extend(
                        self.missing(entry, vector)
                            .into_iter()
                            .map(|version| (Bytes::copy_from_slice(entry.key()), version)),
                    );
                }
            }
            if rows.len() < FORGOTTEN_ROWS {
                Ok(())
            } else {
                self.say_forgotten(std::mem::take(&mut rows), vector)
            }
        })?;
        self.say_forgotten(rows, vector)
    }

    /// Whether the peer would have sent this key, if it had it.
    fn concerns(&self, key: &[u8]) -> bool {
        self.repair.is_none() || self.buckets.binary_search(&bucket_of(key)).is_ok()
    }

    /// The parts of an entry that the peer has no more, or, where its copy counts, hasn't got.
    fn missing(&self, entry: &Entry, vector: &VersionVector) -> Vec<Version> {
        let parts = [entry.value_part().map(|part| part.0), entry.vector_part().map(|part| part.0)];
        let its_copy_counts = self.repair == Some(SameVersion::Theirs);
        parts.into_iter().flatten().filter(|version| its_copy_counts || vector.has(*version)).collect()
    }

    fn say_forgotten(&self, rows: Vec<(Bytes, Version)>, seen: &VersionVector) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        tracing::info!(
            keys = rows.len(),
            from = self.from,
            "keys that a peer has seen deleted are forgotten"
        );
        let (seen, (done, is_done)) = (seen.clone(), bounded(1));
        self.cast.wal_writer.send(WalMessage::Converging(ConvergingMessage::Forget { rows, seen, done }));
        until_durable(&is_done)
    }
}

fn until_durable(is_done: &Receiver<()>) -> io::Result<()> {
    is_done.recv().map_err(|_| io::Error::other("the node stops"))
}
