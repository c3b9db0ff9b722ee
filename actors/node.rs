//! What the actors of a node share: its settings, the bounds on its work and
//! the figures that they publish.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use datastore::engine::Placement;
use datastore::error::{Code, Error};
use datastore::indexing::{Kinds, Rooms, Sizes};
use datastore::limits;
use datastore::persistence::{Contents, SnapshotTook};
use datastore::replication::health::INDEXED_ALL;
use datastore::settings::Settings;
use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::admission::{Admission, PermitTotal, Work};
use crate::cluster::Cluster;
use crate::disk_watch::DiskWatch;
use crate::dynamo_cluster::DynamoCluster;
pub use crate::mailbox::lock;
use crate::mailbox::{Gauge, histogram, record};
use crate::memory_figures::{Held, Resident};
use crate::unreadable_log::UnreadableLog;

/// Shared by every actor of one node.
pub struct Node {
    /// What it was started with.
    pub settings: Settings,
    /// Where keys live.
    pub placement: Placement,
    /// When the process began to serve.
    pub started: Instant,
    /// What may still be let in.
    pub permits: Permits,
    /// What is kept in memory, and where.
    pub memory: MemoryFigures,
    /// One per shard.
    pub shard_figures: Vec<ShardFigures>,
    /// The log's.
    pub log_figures: Mutex<LogFigures>,
    /// How long its disk has been at what it is doing.
    pub disk_watch: DiskWatch,
    /// The gauges of all actors, in the order of `stats`.
    gauges: Mutex<Vec<Arc<Gauge>>>,
    /// The connections'.
    pub connections: ConnectionFigures,
    /// The snapshots'.
    pub snapshots: Mutex<SnapshotFigures>,
    /// What of the log can't be read back.
    pub unreadable_log: UnreadableLog,
    /// Who else there is, in leader mode; `None` on a node that is on its own.
    pub cluster: Option<Arc<Cluster>>,
    /// Who else there is, in dynamo mode.
    pub dynamo: Option<Arc<DynamoCluster>>,
    /// Set when the node takes no more requests.
    pub stopping: AtomicBool,
    /// Rung when the process is to begin anew, with what the directory says by then.
    anew: Notify,
    next_multi: AtomicU64,
}

/// What places beside entries and indexes keep in memory, each kind by itself.
#[derive(Default)]
pub struct MemoryFigures {
    /// What the process occupied beside its program when it began to serve, without any data.
    pub base: AtomicU64,
    /// Lines of clients' requests, and what was decoded of them.
    pub requests: Arc<Held>,
    /// What connections of clients have beside those: slots, replies, half-read lines; and what waits
    /// for other nodes.
    pub connections: Arc<Held>,
    /// Entries of a replicated log that are in memory for the peers, or wait for the disk.
    pub log_entries: Arc<Held>,
    /// Where each entry of it lies, and from where in it peers can be served.
    pub log_index: Arc<Held>,
    /// The disk thread's room for a frame.
    pub log_buffer: Arc<Held>,
    /// What waits for peers' sockets, is on its way to them, or came from them and is no whole frame yet.
    pub peers: Arc<Held>,
    /// What has come of a peer's snapshot or state, until it is this node's own.
    pub snapshots: Arc<Held>,
}

impl MemoryFigures {
    /// The node begins to serve. It has occupied so much before it read its directory, when
    /// it had read it, and with all its threads: what recovery has read is none of the base.
    pub fn begins(&self, before: Option<Resident>, with_data: Option<Resident>, now: Option<Resident>) {
        let [before, with_data, now] =
            [before, with_data, now].map(|at| at.map_or(0, |resident| resident.anonymous_bytes()));
        self.base.store(before + now.saturating_sub(with_data), Ordering::Relaxed);
    }
}

/// What one shard and its indexes publish after each batch.
#[derive(Default)]
pub struct ShardFigures {
    /// Keys.
    pub keys: AtomicU64,
    /// What entries and tables occupy, in bytes.
    pub memory_bytes: AtomicU64,
    /// What vectors have of that, in bytes.
    pub vector_bytes: AtomicU64,
    /// What the tables have room for beyond that, in bytes.
    pub spare_bytes: AtomicU64,
    /// In dynamo mode: versions of deletes that are kept.
    pub tombstones: AtomicU64,
    /// Those among them of keys that were not there.
    pub absent_tombstones: AtomicU64,
    /// What these occupy, in bytes.
    pub absent_tombstone_bytes: AtomicU64,
    /// The latest time among all; 0 for none.
    pub newest_tombstone: AtomicU64,
    /// What each index has and occupies, and the tables that may be about to grow.
    pub indexes: Mutex<(Sizes, Rooms)>,
    /// Buckets indexed since the start; all of them: the indexes are ready.
    pub buckets_indexed: AtomicUsize,
    /// How long the rest of the build is expected to take, in milliseconds; 0 when it is done, or can't be told yet.
    pub build_expected_ms: AtomicU64,
    /// Searches that wait for their turn at the indexes.
    pub searches_waiting: AtomicUsize,
    /// Searches that the indexes have answered.
    pub searches_done: AtomicU64,
    /// Searches that were not begun, or given up, since nobody waited for them any more.
    pub searches_dropped: AtomicU64,
}

/// What the disk thread publishes after each sync.
pub struct LogFigures {
    /// Syncs of groups.
    pub syncs: u64,
    /// How long write and sync of a group took.
    pub sync_us: Histogram<u64>,
    /// Requests that shared a sync.
    pub records_per_sync: Histogram<u64>,
    /// Bytes of all segments that hold something.
    pub bytes: u64,
    /// How many those are.
    pub segments: u64,
    /// The last durable entry.
    pub durable_index: u64,
    /// Syncs that failed, on purpose or not.
    pub sync_failures: u64,
    /// Peers for which more of the log is kept than the node needs.
    pub held_for: Vec<u64>,
}

impl Default for LogFigures {
    fn default() -> Self {
        LogFigures {
            syncs: 0,
            sync_us: histogram(),
            records_per_sync: histogram(),
            bytes: 0,
            segments: 0,
            durable_index: 0,
            sync_failures: 0,
            held_for: Vec::new(),
        }
    }
}

/// Counts of client connections.
#[derive(Default)]
pub struct ConnectionFigures {
    /// Open now.
    pub open: AtomicUsize,
    /// Ever accepted.
    pub accepted: AtomicU64,
    /// Turned away with `too_many_connections`.
    pub refused: AtomicU64,
    /// Closed because the client didn't read.
    pub closed_not_reading: AtomicU64,
    /// Closed because a started line made no progress.
    pub closed_half_line: AtomicU64,
    /// Closed because nothing came or went for `--idle-timeout-ms`.
    pub closed_idle: AtomicU64,
}

/// What the snapshot writer publishes.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFigures {
    /// Made since the start.
    pub made: u64,
    /// Failed since the start.
    pub failed: u64,
    /// The last one's entry index, 0 when there is none.
    pub last_index: u64,
    /// The last one's size on disk.
    pub last_bytes: u64,
    /// How long it took.
    pub last_took_ms: u64,
    /// How much of the keyspace is in the one under way, from 0 to 1.
    pub progress: Option<f64>,
    /// What the last one has shown about the next: whether it was compressed, and what it took or would have taken.
    pub took: Option<(bool, SnapshotTook)>,
}

/// The bounds on the node's work, in bytes.
pub struct Permits {
    /// How fast writes are let in.
    pub admission: Arc<Admission>,
    /// Admitted writes that are not yet applied and indexed.
    in_flight_bytes: AtomicUsize,
    /// Beyond this writes are refused: a write counts itself, and each line must be possible.
    in_flight_bytes_max: usize,
    /// Of these, what counts as on its way into memory.
    admitted_bytes: AtomicUsize,
    /// What entries and indexes occupy.
    memory_bytes: AtomicI64,
    gate: AtomicU8,
}

const GATE_OPEN: u8 = 0;
const GATE_DISK_FULL: u8 = 1;

impl Permits {
    /// No work yet, for so many shards that are indexed or not, and lines of this length.
    pub fn new(shards: usize, is_indexed: bool, line_bytes_max: usize) -> Permits {
        Permits {
            in_flight_bytes_max: limits::NODE_IN_FLIGHT_BYTES_MAX + line_bytes_max,
            admission: Arc::new(Admission::new(shards, is_indexed)),
            in_flight_bytes: AtomicUsize::new(0),
            admitted_bytes: AtomicUsize::new(0),
            memory_bytes: AtomicI64::new(0),
            gate: AtomicU8::new(GATE_OPEN),
        }
    }

    /// Why a write that needs room may not come in, if so, but for what `memory_bound` says of it. Deletes
    /// are not asked.
    pub fn refusal(&self) -> Option<Error> {
        if self.gate.load(Ordering::Relaxed) == GATE_DISK_FULL {
            return Some(Error::new(
                Code::DiskFull,
                "the disk has no more room than a snapshot and a log segment need; free some: reads and deletes go on",
            ));
        }
        if self.in_flight_bytes() > self.in_flight_bytes_max {
            return Some(Error::overloaded(
                "the node has as many writes under way as it may hold; try again",
            ));
        }
        None
    }

    /// Whether what other nodes send should wait: clients' writes do so where they are let in.
    pub fn is_crowded(&self) -> bool {
        self.in_flight_bytes() > limits::NODE_IN_FLIGHT_BYTES_MAX / 2 || self.admission.is_far_behind()
    }

    /// Writes to this shard are let in.
    pub fn take(&self, shard: usize, permits: PermitTotal) {
        self.in_flight_bytes.fetch_add(permits.bytes as usize, Ordering::Relaxed);
        self.admitted_bytes.fetch_add(permits.admitted_bytes as usize, Ordering::Relaxed);
        self.admission.take(shard, permits.time_us);
    }

    /// A write that was let in goes into memory: says what is on its way there with it.
    pub fn admit(&self, bytes: usize) -> usize {
        self.admitted_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// It doesn't, after all.
    pub fn withdraw(&self, bytes: usize) {
        self.admitted_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Writes to this shard are finished.
    pub fn give_back(&self, shard: usize, permits: PermitTotal) {
        self.in_flight_bytes.fetch_sub(permits.bytes as usize, Ordering::Relaxed);
        self.admitted_bytes.fetch_sub(permits.admitted_bytes as usize, Ordering::Relaxed);
        self.admission.give_back(shard, permits.time_us);
    }

    /// What a write that is decided elsewhere takes of this shard, when it comes here.
    pub fn for_entries(&self, shard: usize, bytes: usize) -> PermitTotal {
        let work = Work { writes: 1, value_bytes: bytes as u64, vector_bytes: 0 };
        let bytes = bytes as u64;
        PermitTotal { bytes, admitted_bytes: bytes, time_us: self.admission.estimate_us(shard, work) }
    }

    /// Admitted and unfinished, in bytes.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Relaxed)
    }

    /// Entries and indexes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed).max(0) as u64
    }

    /// Entries or indexes grew or shrank.
    pub fn memory_changed(&self, by: i64) {
        self.memory_bytes.fetch_add(by, Ordering::Relaxed);
    }

    /// The disk's reserve is reached, or free again.
    pub fn set_disk_full(&self, full: bool) {
        self.gate.store(if full { GATE_DISK_FULL } else { GATE_OPEN }, Ordering::Relaxed);
    }

    /// Whether the disk's reserve is reached.
    pub fn is_disk_full(&self) -> bool {
        self.gate.load(Ordering::Relaxed) == GATE_DISK_FULL
    }
}

impl Node {
    /// A node's shared part, before its actors.
    pub fn new(
        settings: Settings,
        placement: Placement,
        gauges: Vec<Arc<Gauge>>,
        (cluster, dynamo): (Option<Arc<Cluster>>, Option<Arc<DynamoCluster>>),
    ) -> Node {
        Node {
            permits: Permits::new(settings.shards, settings.indexes != Kinds::NONE, settings.line_bytes_max),
            memory: MemoryFigures::default(),
            shard_figures: (0..settings.shards).map(|_| ShardFigures::default()).collect(),
            settings,
            placement,
            started: Instant::now(),
            log_figures: Mutex::new(LogFigures::default()),
            disk_watch: DiskWatch::default(),
            gauges: Mutex::new(gauges),
            connections: ConnectionFigures::default(),
            snapshots: Mutex::new(SnapshotFigures::default()),
            unreadable_log: UnreadableLog::default(),
            cluster,
            dynamo,
            stopping: AtomicBool::new(false),
            anew: Notify::new(),
            next_multi: AtomicU64::new(0),
        }
    }

    /// The log wrote and synced so many requests (or entries) together.
    pub fn record_sync(&self, took: std::time::Duration, records: usize) {
        self.disk_watch.record(took);
        let mut figures = lock(&self.log_figures);
        figures.syncs += 1;
        record(&mut figures.sync_us, took.as_micros() as u64);
        record(&mut figures.records_per_sync, records as u64);
    }

    /// The gauges of all actors that run, in the order of `stats`.
    pub fn gauges(&self) -> Vec<Arc<Gauge>> {
        lock(&self.gauges).clone()
    }

    /// An actor more: behind those of its kind, or at the end.
    pub fn add_gauge(&self, gauge: Arc<Gauge>) {
        let mut gauges = lock(&self.gauges);
        let place = gauges.iter().rposition(|other| other.kind == gauge.kind);
        // The connections' comes last, the ElectionCoordinator's before it.
        let place = place.map_or(gauges.len().saturating_sub(2), |last| last + 1);
        gauges.insert(place, gauge);
    }

    /// An actor less.
    pub fn remove_gauge(&self, name: &str) {
        lock(&self.gauges).retain(|gauge| gauge.name != name);
    }

    /// The members were decided elsewhere than in the log: the process stops in good
    /// order and begins anew with them.
    pub fn begin_anew(&self) {
        self.anew.notify_one();
    }

    /// Comes back when the process is to begin anew.
    pub async fn is_to_begin_anew(&self) {
        self.anew.notified().await;
    }

    /// Whether the log may be longer than this node needs it.
    pub fn may_keep_more_of_the_log(&self) -> bool {
        let bytes_max = lock(&self.snapshots).last_bytes.max(limits::LOG_HELD_BYTES_LEAST);
        lock(&self.log_figures).bytes <= bytes_max && !self.permits.is_disk_full()
    }

    /// What the next snapshot will hold.
    pub fn contents(&self) -> Contents {
        let sum = |of: fn(&ShardFigures) -> &AtomicU64| -> u64 {
            self.shard_figures.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum()
        };
        Contents {
            entries: sum(|shard| &shard.keys) + sum(|shard| &shard.tombstones),
            memory_bytes: sum(|shard| &shard.memory_bytes),
            vector_bytes: sum(|shard| &shard.vector_bytes),
        }
    }

    /// What the next snapshot takes, as far as that can be reckoned, and as the last one of its kind was larger.
    pub fn snapshot_bytes(&self, compressed: bool) -> u64 {
        let reckoned = self.contents().snapshot_bytes(compressed);
        self.took(compressed).map_or(reckoned, |took| took.correct(reckoned).max(reckoned))
    }

    /// How much room there must be for the next snapshot to be worth an attempt; `None`: nothing is known.
    pub fn snapshot_bytes_needed(&self, compressed: bool) -> Option<u64> {
        let likely = self.took(compressed)?.correct(self.contents().snapshot_bytes(compressed));
        Some(likely.saturating_add(likely / 8))
    }

    fn took(&self, compressed: bool) -> Option<SnapshotTook> {
        let took = lock(&self.snapshots).took;
        took.filter(|(was_compressed, _)| *was_compressed == compressed).map(|(_, took)| took)
    }

    /// How many of the buckets are indexed, of all shards.
    pub fn buckets_indexed(&self) -> usize {
        self.shard_figures.iter().map(|shard| shard.buckets_indexed.load(Ordering::Relaxed)).sum()
    }

    /// How much of the indexes is built, in thousandths.
    pub fn indexed_per_mille(&self) -> u16 {
        (self.buckets_indexed() * usize::from(INDEXED_ALL) / limits::BUCKETS) as u16
    }

    /// A number that no other multi-key write of this process has.
    pub fn next_multi(&self) -> u64 {
        self.next_multi.fetch_add(1, Ordering::Relaxed)
    }
}
