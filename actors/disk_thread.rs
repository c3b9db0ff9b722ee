//! The disk thread: the log's only writer.
//!
//! It blocks for one group, takes what else is there, and makes one frame, one
//! write and one sync of it. It never waits for more: what arrives while it
//! syncs is the next frame.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use datastore::error::{Code, Error, Outcome};
use datastore::limits;
use datastore::persistence::{AppendEntry, AppendError, Disk, Log};

use crate::mailbox::Mailbox;
use crate::node::{Node, lock};
use crate::wal_writer::{WalMessage, WalWriter};

/// Whose writes a group holds; each stands for one or more requests, in the
/// order of their ordinals.
#[derive(Debug)]
pub enum Acknowledgement {
    /// One request each.
    Singles {
        /// The shard that knows them.
        shard: usize,
        /// By these numbers.
        writes: Vec<u32>,
    },
    /// One request together.
    Multi {
        /// Shard and number of each part.
        parts: Vec<(usize, u32)>,
    },
}

/// Requests to log, in order.
#[derive(Debug, Default)]
pub struct Group {
    /// Encoded requests, to be written one behind the other.
    pub pieces: Vec<Vec<u8>>,
    /// Whose they are.
    pub acknowledgements: Vec<Acknowledgement>,
    /// How many requests.
    pub requests: usize,
    /// How many bytes.
    pub bytes: usize,
}

impl Group {
    /// Adds encoded bytes.
    pub fn push(&mut self, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    fn merge(&mut self, mut other: Group) {
        self.pieces.append(&mut other.pieces);
        self.acknowledgements.append(&mut other.acknowledgements);
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// What the disk thread is told.
pub enum DiskOrder {
    /// Log this.
    Group(Group),
    /// A verified snapshot covers the entries up to here.
    Cut {
        /// The last entry that may go.
        through: u64,
    },
    /// No more groups will come: make the end of the log certain, then answer and end.
    Stop(Sender<()>),
}

/// How often an idle disk thread looks at the room on the disk.
const ROOM_CHECK: Duration = Duration::from_secs(1);

/// The thread's state.
pub struct DiskThread<D: Disk> {
    /// The log.
    pub log: Log<D>,
    /// What to do comes from here.
    pub orders: Receiver<DiskOrder>,
    /// Results go there.
    pub wal_writer: Mailbox<WalWriter>,
    /// For the figures and the disk's gate.
    pub node: Arc<Node>,
    /// When the room on the disk was last looked at.
    pub room_checked: Instant,
    /// The log's bytes when it was last cut.
    pub bytes_at_cut: u64,
}

enum Next {
    Order(DiskOrder),
    Idle,
    Ended,
}

impl<D: Disk> DiskThread<D> {
    /// Works until it is told to stop.
    pub fn run(mut self) {
        self.publish();
        let mut pending = None;
        loop {
            let next = pending.take().map_or_else(|| self.wait(), Next::Order);
            match next {
                Next::Order(DiskOrder::Group(group)) => {
                    let (group, other) = self.gather(group);
                    pending = other;
                    self.log_group(group);
                }
                Next::Order(DiskOrder::Cut { through }) => self.cut(through),
                Next::Order(DiskOrder::Stop(done)) => {
                    self.idle();
                    // Whoever asked may have given up waiting.
                    let _ = done.send(());
                    return;
                }
                Next::Idle => self.idle(),
                Next::Ended => return,
            }
        }
    }

    fn wait(&self) -> Next {
        let idle_after = Duration::from_millis(limits::IDLE_FRAME_AFTER_MS);
        let patience = if self.log.needs_idle_frame() { idle_after } else { ROOM_CHECK };
        match self.orders.recv_timeout(patience) {
            Ok(order) => Next::Order(order),
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }

    /// Takes what else is there, up to a frame's size.
    fn gather(&self, mut group: Group) -> (Group, Option<DiskOrder>) {
        while group.bytes < limits::FRAME_BYTES_MAX {
            match self.orders.try_recv() {
                Ok(DiskOrder::Group(other)) => group.merge(other),
                Ok(order) => return (group, Some(order)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    fn log_group(&mut self, group: Group) {
        self.check_room_sometimes();
        let Group { pieces, acknowledgements, requests, .. } = group;
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let began = Instant::now();
        let appended = self.log.append(&[AppendEntry::new(&slices)], None);
        let took = began.elapsed();
        {
            let mut figures = lock(&self.node.log_figures);
            figures.syncs += 1;
            figures.sync_us.saturating_record(took.as_micros() as u64);
            figures.records_per_sync.saturating_record(requests as u64);
        }
        self.publish();
        match appended {
            Ok(appended) => {
                let log_bytes = self.log_bytes_since_cut();
                let index = appended.last_index;
                self.wal_writer.send(WalMessage::Synced { index, acknowledgements, log_bytes });
            }
            Err(failure) => {
                let (error, fatal) = told(&failure);
                tracing::warn!(%failure, fatal, "a log write failed");
                self.wal_writer.send(WalMessage::Failed { acknowledgements, error, fatal });
            }
        }
    }

    fn log_bytes_since_cut(&self) -> u64 {
        self.log.figures().appended_bytes.saturating_sub(self.bytes_at_cut)
    }

    fn idle(&mut self) {
        if self.log.needs_idle_frame()
            && let Err(failure) = self.log.append_idle_frame()
        {
            // Nobody waits for it, and the log is sealed or says so at the next group.
            tracing::warn!(%failure, "the idle frame was not written");
        }
        self.check_room_sometimes();
        self.publish();
    }

    fn cut(&mut self, through: u64) {
        match self.log.cut(through) {
            Ok(report) => tracing::info!(through, ?report, "log cut behind a snapshot"),
            Err(error) => tracing::warn!(%error, through, "the log could not be cut; trying again after the next snapshot"),
        }
        self.bytes_at_cut = self.log.figures().appended_bytes;
        self.publish();
    }

    fn check_room_sometimes(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.room_checked) < ROOM_CHECK / 4 {
            return;
        }
        self.room_checked = now;
        let room = self.log.disk().free_bytes();
        let snapshot_bytes = self.node.permits.memory_bytes();
        let was_full = self.node.permits.is_disk_full();
        match room {
            Ok(free) => {
                let full = datastore::persistence::disk_is_full(
                    was_full,
                    free,
                    snapshot_bytes,
                    self.node.settings.segment_bytes,
                );
                if full != was_full {
                    tracing::warn!(free_bytes = free, full, "the disk's reserve is reached, or free again");
                }
                self.node.permits.set_disk_full(full);
            }
            Err(error) => tracing::warn!(%error, "could not ask how much room the disk has"),
        }
    }

    fn publish(&self) {
        let from = self.log.figures();
        let mut figures = lock(&self.node.log_figures);
        figures.bytes = from.bytes;
        figures.segments = from.segments;
        figures.durable_index = from.durable_index;
        figures.sync_failures = from.sync_failures;
    }
}

/// What clients are told of a failed append, and whether the node must stop.
fn told(failure: &AppendError) -> (Error, bool) {
    match failure {
        AppendError::Refused { .. } => {
            (Error::new(Code::SyncFailed, format!("{failure}; the write is undone and will never appear")), false)
        }
        AppendError::DiskFull { .. } => (
            Error::new(Code::DiskFull, format!("{failure}; free some room: reads go on")),
            false,
        ),
        AppendError::Unsealed { .. } => (
            Error::new(Code::SyncFailed, format!("{failure}; the node stops: read after its restart to find out"))
                .with_outcome(Outcome::Unknown),
            true,
        ),
    }
}
