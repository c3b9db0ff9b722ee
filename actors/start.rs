//! Starting a node: recover, make every mailbox, then every actor, bottom-up.
//!
//! Mailboxes come first, so that actors that talk to each other are all given
//! every address when they are made; nothing is wired afterwards.
//!
//! ```text
//! thread            actors
//! data arbiter 0    Shard 0, WalWriter, connections
//! data arbiter n    Shard n, connections
//! index n           IndexManager n
//! snapshots         SnapshotWriter
//! disk              (no actor) the log's only writer
//! spares            (no actor) zeroes segments ahead of need
//! main              accepts connections, waits for signals
//! ```
//!
//! On a member of a cluster there are two more, and the WalWriter moves, so that
//! heartbeats share no thread with a disk, a search or a shard:
//!
//! ```text
//! replication       WalWriter, ReplicatorPeers, ElectionCoordinator, peers' sockets
//! log reader        (no actor) reads entries back for followers that lag
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context};
use actix_rt::{Arbiter, ArbiterHandle};
use crossbeam_channel::RecvTimeoutError;
use datastore::engine::Placement;
use datastore::error::Error;
use datastore::persistence::FileDisk;
use datastore::replication::dynamo;
use datastore::replication::message::NodeId;
use datastore::replication::raft::{self, HardState};
use datastore::settings::Settings;
use slab::Slab;
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::connection::{Connection, ConnectionMessage};
use crate::converging_log::ConvergingLog;
use crate::converging_recovery::RecoveredConverging;
use crate::disk_room::DiskRoom;
use crate::disk_thread::DiskOrder;
use crate::disk_thread::DiskThread;
use crate::dynamo_cluster::DynamoCluster;
use crate::election_coordinator::ElectionCoordinator;
use crate::half_lines::HalfLines;
use crate::idle_memory::{BEATS_MAX, give_back_at_rest};
use crate::index_manager::IndexManager;
use crate::mailbox::{Gauge, Inbox, Mailbox, mailbox};
use crate::memory_figures::Resident;
use crate::node::{Node, lock};
use crate::peer_links::RarelySaid;
use crate::peering::Peering;
use crate::peers::{Peers, follow_members};
use crate::recovered_log::RecoveredLog;
use crate::recovery::{Read, Recovered};
use crate::replicated_disk::ReplicatedDisk;
use crate::replicated_log::ReplicatedLog;
use crate::replicated_snapshots::OwnSnapshot;
use crate::replication_messages::CoordinatorMessage;
use crate::replicator_peer::ReplicatorPeer;
use crate::shard::{Shard, ShardNeighbours};
use crate::snapshot_receiver::remove_leftover;
use crate::snapshot_writer::SnapshotWriter;
use crate::wal_writer::{Agreement, WalMessage, WalWriter};

pub use crate::start_error::StartError;

/// Messages that may wait for one actor before what clients bring is refused.
/// More than there can be connections, so that each may always have one under way.
pub(crate) const MAILBOX_CAPACITY: u64 = 65_536;

/// Everyone's address.
pub struct Cast {
    /// One per slice of the keyspace.
    pub shards: Vec<Mailbox<Shard>>,
    /// One per shard.
    pub index_managers: Vec<Mailbox<IndexManager>>,
    /// The log.
    pub wal_writer: Mailbox<WalWriter>,
    /// The snapshots.
    pub snapshot_writer: Mailbox<SnapshotWriter>,
    /// One per other member of the cluster.
    pub peers: Peers,
    /// Time and policy; `None` on a node that is on its own.
    pub coordinator: Option<Mailbox<ElectionCoordinator>>,
    /// Where peers' sockets are served; `None` on a node that is on its own.
    pub replication_arbiter: Option<ArbiterHandle>,
    /// What the value index hashes with, the same on every shard.
    pub index_hash_key: (u64, u64),
    /// The port that the node really listens on.
    pub port: u16,
    /// What all connections share to count their messages.
    pub connection_gauge: Arc<Gauge>,
    /// Half-read lines over all connections.
    pub half_lines: Arc<HalfLines>,
    /// The open connections.
    connections: Mutex<Slab<Mailbox<Connection>>>,
    /// Rung when a connection closes.
    connection_closed: Notify,
}

impl Cast {
    /// Remembers a connection, to tell it when the node stops.
    pub fn register(&self, address: Mailbox<Connection>) -> usize {
        lock(&self.connections).insert(address)
    }

    /// What is said to one peer goes there.
    pub fn peer(&self, node_id: NodeId) -> Option<Mailbox<ReplicatorPeer>> {
        self.peers.get(node_id)
    }

    /// A connection is gone.
    pub fn connection_closed(&self, node: &Node, registration: usize) {
        lock(&self.connections).try_remove(registration);
        node.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connection_closed.notify_one();
    }
}

/// A node that serves.
pub struct Running {
    /// What the actors share.
    pub node: Arc<Node>,
    /// Their addresses.
    pub cast: Arc<Cast>,
    /// Where connections run.
    pub data_arbiters: Vec<ArbiterHandle>,
    disk_thread: std::thread::JoinHandle<()>,
}

/// Starts the cast over what was read. Clients are served once this returns.
pub fn start(settings: Settings, port: u16, read: Read) -> Result<Running, StartError> {
    let Read { recovered, before, with_data } = read;
    let cluster = recovered.cluster.clone();
    let dynamo = recovered.dynamo.as_ref().map(|(dynamo, _)| dynamo.clone());
    let shards = settings.shards;
    let placement = Placement::new(recovered.identity.placement_seed, shards);
    let gauge = |name: String, kind| Gauge::new(name, kind, MAILBOX_CAPACITY);
    let per_shard = |name: &'static str, kind| -> Vec<Arc<Gauge>> {
        (0..shards).map(|shard| gauge(format!("{name}-{shard}"), kind)).collect()
    };
    let (shard_boxes, shard_inboxes) = mailboxes::<Shard>(per_shard("shard", "Shard"));
    let (index_boxes, index_inboxes) = mailboxes::<IndexManager>(per_shard("index-manager", "IndexManager"));
    let (wal_box, wal_inbox) = mailbox::<WalWriter>(gauge("wal-writer".into(), "WalWriter"));
    let (snapshot_box, snapshot_inbox) =
        mailbox::<SnapshotWriter>(gauge("snapshot-writer".into(), "SnapshotWriter"));
    let (coordinator_box, coordinator_inbox) = cluster
        .as_ref()
        .map(|_| mailbox::<ElectionCoordinator>(gauge("election-coordinator".into(), "ElectionCoordinator")))
        .unzip();
    let connection_gauge = gauge("connections".into(), "Connection");

    let mut gauges: Vec<Arc<Gauge>> = shard_inboxes.iter().map(|inbox| inbox.gauge.clone()).collect();
    gauges.push(wal_inbox.gauge.clone());
    gauges.extend(index_inboxes.iter().map(|inbox| inbox.gauge.clone()));
    gauges.push(snapshot_inbox.gauge.clone());
    gauges.extend(coordinator_inbox.iter().map(|inbox| inbox.gauge.clone()));
    gauges.push(connection_gauge.clone());
    let replicates = cluster.is_some() || dynamo.is_some();
    let replication_arbiter = replicates.then(|| Arbiter::new().handle());
    let node = Arc::new(Node::new(settings, placement, gauges, (cluster, dynamo)));

    let cast = Arc::new(Cast {
        shards: shard_boxes,
        index_managers: index_boxes,
        wal_writer: wal_box,
        snapshot_writer: snapshot_box,
        peers: Peers::default(),
        coordinator: coordinator_box,
        replication_arbiter,
        index_hash_key: recovered.identity.placement_seed,
        port,
        connection_gauge,
        half_lines: Arc::default(),
        connections: Mutex::default(),
        connection_closed: Notify::new(),
    });
    let inboxes = Inboxes {
        shards: shard_inboxes,
        index_managers: index_inboxes,
        wal_writer: wal_inbox,
        snapshot_writer: snapshot_inbox,
        coordinator: coordinator_inbox,
    };
    let running = run(node, cast, recovered, inboxes)?;
    running.node.memory.begins(before, with_data, Resident::now());
    Ok(running)
}

/// Of actors that don't run yet.
struct Inboxes {
    shards: Vec<Inbox<Shard>>,
    index_managers: Vec<Inbox<IndexManager>>,
    wal_writer: Inbox<WalWriter>,
    snapshot_writer: Inbox<SnapshotWriter>,
    coordinator: Option<Inbox<ElectionCoordinator>>,
}

fn mailboxes<A: Actor<Context = Context<A>>>(gauges: Vec<Arc<Gauge>>) -> (Vec<Mailbox<A>>, Vec<Inbox<A>>) {
    gauges.into_iter().map(mailbox).unzip()
}

fn run(
    node: Arc<Node>,
    cast: Arc<Cast>,
    recovered: Recovered,
    inboxes: Inboxes,
) -> Result<Running, StartError> {
    let Recovered {
        tables,
        log,
        identity,
        disk: files,
        last_index,
        log_bytes,
        snapshot_figures,
        lock: directory_lock,
        cluster,
        replicated,
        dynamo,
    } = recovered;
    *lock(&node.snapshots) = snapshot_figures;

    let (disk, orders) = crossbeam_channel::unbounded();
    let spares = crate::spare_maker::start(&node.settings)?;
    let kept_readable = |places, hard_state, persisting_bytes: &Arc<AtomicUsize>| {
        Ok(ReplicatedDisk {
            places,
            hard_state,
            hard_state_waits: false,
            cast: cast.clone(),
            reader: crate::log_reader::start(files.clone(), cast.wal_writer.clone())?,
            directory: files.clone(),
            node: identity.node,
            persisting_bytes: persisting_bytes.clone(),
            doubts: RarelySaid::default(),
        })
    };
    let mut seen = None;
    let (replicated_disk, begun) = match (cluster, replicated, dynamo) {
        (Some(cluster), Some(RecoveredLog { start, newest, places, hard_state, .. }), _) => {
            let replicated_disk = kept_readable(places, hard_state, &cluster.persisting_bytes)?;
            (Some(replicated_disk), Begun::Led(cluster, start.map(|start| Box::new((start, newest)))))
        }
        (_, _, Some((dynamo, RecoveredConverging { start, places, seen: known }))) => {
            seen = Some(known);
            let replicated_disk = kept_readable(places, HardState::default(), &dynamo.persisting_bytes)?;
            (Some(replicated_disk), Begun::Converging(dynamo, Box::new(start)))
        }
        _ => (None, Begun::Alone),
    };
    let disk_thread = DiskThread {
        backlog: VecDeque::new(),
        stopping: None,
        kept: (node.memory.log_buffer.share(), node.memory.log_index.share()),
        replicated: replicated_disk,
        growth_bytes: log_bytes,
        segments_seen: 0,
        _lock: directory_lock,
        log,
        orders,
        wal_writer: cast.wal_writer.clone(),
        node: node.clone(),
        room: DiskRoom::default(),
        spares,
    };
    let disk_thread = spawn("disk", move || disk_thread.run())?;

    let writer = SnapshotWriter::new(node.clone(), cast.clone(), identity, files);
    Arbiter::new().spawn_fn(move || inboxes.snapshot_writer.run(writer));
    let hash_key = cast.index_hash_key;
    for (number, inbox) in inboxes.index_managers.into_iter().enumerate() {
        let (node, shard) = (node.clone(), cast.shards[number].clone());
        let buckets = (tables[number].walk_length(), !tables[number].is_empty());
        let arbiter = Arbiter::new();
        arbiter.spawn(give_back_at_rest(inbox.gauge.clone(), 0));
        arbiter.spawn_fn(move || inbox.run(IndexManager::new(number, node, shard, hash_key, buckets)));
    }
    let data_arbiters: Vec<ArbiterHandle> = inboxes.shards.iter().map(|_| Arbiter::new().handle()).collect();
    let wal_arbiter = cast.replication_arbiter.as_ref().unwrap_or(&data_arbiters[0]);
    run_wal_writer(wal_arbiter, (&node, &cast), disk, begun, last_index, inboxes.wal_writer);
    run_replication(&node, &cast, inboxes.coordinator);
    for (number, (inbox, table)) in inboxes.shards.into_iter().zip(tables).enumerate() {
        let neighbours = ShardNeighbours {
            wal_writer: cast.wal_writer.clone(),
            index_manager: cast.index_managers[number].clone(),
            snapshot_writer: cast.snapshot_writer.clone(),
        };
        let shard = Shard::new(number, node.clone(), (table, seen.clone()), last_index, neighbours);
        data_arbiters[number].spawn(give_back_at_rest(inbox.gauge.clone(), 0));
        data_arbiters[number].spawn_fn(move || inbox.run(shard));
    }
    Ok(Running { node, cast, data_arbiters, disk_thread })
}

/// What the WalWriter's log begins as.
enum Begun {
    /// A node on its own.
    Alone,
    /// A member of a cluster in leader mode.
    Led(Arc<Cluster>, Option<Box<(raft::Start, Option<OwnSnapshot>)>>),
    /// A node of dynamo mode.
    Converging(Arc<DynamoCluster>, Box<dynamo::Start>),
}

fn run_wal_writer(
    arbiter: &ArbiterHandle,
    (node, cast): (&Arc<Node>, &Arc<Cast>),
    disk: crossbeam_channel::Sender<DiskOrder>,
    begun: Begun,
    last_index: u64,
    inbox: Inbox<WalWriter>,
) {
    let (node, cast) = (node.clone(), cast.clone());
    let agreement = match begun {
        Begun::Alone => Agreement::Alone,
        Begun::Led(cluster, start) => {
            let log = ReplicatedLog::new(
                node.clone(),
                cluster,
                cast.clone(),
                disk.clone(),
                start.map(|start| *start),
            );
            Agreement::Led(Box::new(log))
        }
        Begun::Converging(cluster, start) => {
            let start = (*start, last_index);
            let log = ConvergingLog::new(node.clone(), cluster, cast.clone(), disk.clone(), start);
            Agreement::Converging(Box::new(log))
        }
    };
    if !matches!(agreement, Agreement::Alone) {
        // Of this thread's own: else a shard's is watched on it.
        arbiter.spawn(give_back_at_rest(inbox.gauge.clone(), BEATS_MAX));
    }
    let wal_writer = WalWriter::new(node, cast, disk, agreement, last_index);
    arbiter.spawn_fn(move || inbox.run(wal_writer));
}

/// The actors that only a member of a cluster has.
fn run_replication(node: &Arc<Node>, cast: &Arc<Cast>, coordinator: Option<Inbox<ElectionCoordinator>>) {
    let (Some(cluster), Some(arbiter)) = (&node.cluster, &cast.replication_arbiter) else { return };
    let leftover = FileDisk::open(&node.settings.data_dir).and_then(|disk| remove_leftover(&disk));
    if let Err(error) = leftover {
        tracing::warn!(%error, "a snapshot that came in part could not be removed");
    }
    follow_members(node, cast, &Peering::Leader(cluster.clone()), cluster.others());
    if let Some(inbox) = coordinator {
        let (node, cast, cluster) = (node.clone(), cast.clone(), cluster.clone());
        arbiter.spawn_fn(move || inbox.run(ElectionCoordinator::new(node, cast, cluster)));
    }
}

/// A named thread.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|source| StartError::Thread { name: name.into(), source })
}

impl Running {
    /// Takes no more requests, answers those in flight, and makes the log's end
    /// certain. Clients that don't take their replies are waited for no longer
    /// than a request may take.
    pub async fn stop(self) {
        self.node.stopping.store(true, Ordering::Relaxed);
        let open: Vec<Mailbox<Connection>> =
            lock(&self.cast.connections).iter().map(|(_, address)| address.clone()).collect();
        for connection in open {
            connection.send(ConnectionMessage::Stop);
        }
        let patience = Duration::from_millis(self.node.settings.request_timeout_ms + 1_000);
        let all_closed = async {
            while self.node.connections.open.load(Ordering::Relaxed) > 0 {
                self.cast.connection_closed.notified().await;
            }
        };
        if tokio::time::timeout(patience, all_closed).await.is_err() {
            tracing::warn!("some clients did not take their replies in time");
        }
        if let Some(coordinator) = &self.cast.coordinator {
            let (done, is_done) = tokio::sync::oneshot::channel();
            coordinator.send(CoordinatorMessage::Resign { done });
            // An error: it is gone, and so is its leadership.
            let _ = is_done.await;
        }
        let (done, is_done) = crossbeam_channel::bounded(1);
        self.cast.wal_writer.send(WalMessage::Stop(done));
        let joined = tokio::task::spawn_blocking(move || {
            while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(DISK_LOOK) {
                let watch = &self.node.disk_watch;
                if watch.is_stalled(watch.oldest()) {
                    return None;
                }
            }
            // An error: the WalWriter or the disk thread is gone, which the join tells.
            Some(self.disk_thread.join().is_ok())
        });
        match joined.await {
            Ok(Some(true)) => tracing::info!("stopped"),
            Ok(None) => tracing::warn!("stopped without waiting for the disk, which hangs"),
            _ => tracing::error!("the disk thread did not end well"),
        }
    }
}

/// How often a node that stops looks whether its disk still works.
const DISK_LOOK: Duration = Duration::from_millis(100);

/// The log can't go on: its clients are told, then the process ends, and the
/// next start finds out what the disk really holds.
pub(crate) fn stop_after_fatal_error(error: &Error) {
    /// Long enough for the answers that are on their way.
    const GRACE: Duration = Duration::from_millis(500);
    tracing::error!(%error, "the log can't go on; the node stops");
    actix_rt::spawn(async {
        tokio::time::sleep(GRACE).await;
        crate::logging::exit(1);
    });
}
