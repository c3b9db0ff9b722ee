//! The disk thread: the log's only writer.
//!
//! It blocks for one group, takes what else is there, and makes one frame, one
//! write and one sync of it. It never waits for more: what arrives while it
//! syncs is the next frame.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use datastore::error::{Code, Error, Outcome};
use datastore::limits;
use datastore::persistence::{AppendEntry, AppendError, Disk, Log, Unreadable};
use datastore::replication::message::{EntryKind, Message};
use datastore::replication::raft::Persist;

use crate::acknowledgements::Group;
use crate::disk_room::{DiskRoom, ROOM_CHECK};
use crate::mailbox::Mailbox;
use crate::memory_figures::Share;
use crate::node::{Node, lock};
use crate::replicated_disk::ReplicatedDisk;
use crate::wal_writer::{WalMessage, WalWriter};

/// What the disk thread is told.
pub enum DiskOrder {
    /// Log this.
    Group(Group),
    /// A snapshot begins: the log's growth is counted anew.
    SnapshotBegins,
    /// A verified snapshot covers the entries up to here.
    Cut {
        /// The last entry that may go.
        through: u64,
    },
    /// Of a replicated log: make this durable, send what it promises, and say so.
    Persist(Box<Persist>),
    /// Of a replicated log: read these entries back.
    Fetch {
        /// Comes back with them.
        number: u64,
        /// The first index.
        low: u64,
        /// Behind the last index.
        high: u64,
        /// Bytes of payloads.
        bytes_max: u64,
    },
    /// Of a replicated log: this entry was not found where it should lie. Was it cut meanwhile, or is
    /// it lost?
    NotFound {
        /// The fetch that looked for it; `None`: a snapshot's sender.
        number: Option<u64>,
        /// What was looked for, and where.
        unreadable: Unreadable,
    },
    /// Of a replicated log: note in the directory that it may be an older copy, or is none any more.
    NoteDoubt {
        /// Whether it may be.
        begins: bool,
    },
    /// Of a replicated log: send the snapshot that this message names with it.
    StreamSnapshot(Box<Message>),
    /// No more groups will come: make the end of the log certain, then answer and end.
    Stop(Sender<()>),
}

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
    /// What is known of the disk's room.
    pub room: DiskRoom,
    /// The log's growth since the last snapshot began.
    pub growth_bytes: u64,
    /// Asks for a spare segment.
    pub spares: Sender<()>,
    /// Segments when a spare was last asked for.
    pub segments_seen: usize,
    /// Orders that came while the disk refused, and wait for their turn.
    pub backlog: VecDeque<DiskOrder>,
    /// The node stops: whom to tell when the log's end is certain.
    pub stopping: Option<Sender<()>>,
    /// `None` on a node that is on its own.
    pub replicated: Option<ReplicatedDisk>,
    /// Its room for a frame, and the places of all entries, for `stats`.
    pub kept: (Share, Share),
    /// The directory's lock, held as long as there is someone to write.
    pub _lock: std::fs::File,
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
            self.node.disk_watch.ends();
            let next = pending.take().map_or_else(|| self.wait(), Next::Order);
            self.node.disk_watch.begins();
            match next {
                Next::Order(DiskOrder::Group(group)) => {
                    let (group, other) = self.gather(group);
                    pending = other;
                    self.log_group(group);
                }
                Next::Order(DiskOrder::SnapshotBegins) => self.growth_bytes = 0,
                Next::Order(DiskOrder::Cut { through }) => self.cut(through),
                Next::Order(DiskOrder::Persist(persist)) => pending = self.persist(*persist),
                Next::Order(DiskOrder::Fetch { number, low, high, bytes_max }) => {
                    self.fetch(number, low, high, bytes_max);
                }
                Next::Order(DiskOrder::NotFound { number, unreadable }) => {
                    self.not_found(number, &unreadable)
                }
                Next::Order(DiskOrder::NoteDoubt { begins }) => self.note_doubt(begins),
                Next::Order(DiskOrder::StreamSnapshot(message)) => self.stream_snapshot(*message),
                Next::Order(DiskOrder::Stop(done)) => self.stopping = Some(done),
                Next::Idle => self.idle(),
                Next::Ended => return,
            }
            if let Some(done) = self.stopping.take() {
                self.idle();
                // Whoever asked may have given up waiting.
                let _ = done.send(());
                return;
            }
        }
    }

    /// The next order, if there is one.
    pub(crate) fn next_order(&mut self) -> Option<DiskOrder> {
        self.backlog.pop_front().or_else(|| self.orders.try_recv().ok())
    }

    fn wait(&mut self) -> Next {
        if let Some(order) = self.backlog.pop_front() {
            return Next::Order(order);
        }
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
        let kind = EntryKind::Writes.to_byte();
        let appended = self.log.append(&[AppendEntry { term: 1, kind, payload: &slices }], None);
        self.node.record_sync(began.elapsed(), requests);
        self.publish();
        match appended {
            Ok(appended) => {
                self.growth_bytes += appended.bytes;
                self.room.unchecked_bytes += appended.bytes;
                let (index, log_bytes) = (appended.last_index, self.growth_bytes);
                let segments = self.segments_seen;
                self.wal_writer.send(WalMessage::Synced { index, acknowledgements, log_bytes, segments });
            }
            Err(failure) => {
                let (error, fatal) = told(&failure);
                tracing::warn!(%failure, fatal, "a log write failed");
                if let AppendError::DiskFull { .. } = failure {
                    self.refused_for_room();
                }
                self.wal_writer.send(WalMessage::Failed { acknowledgements, error, fatal });
            }
        }
    }

    fn idle(&mut self) {
        self.write_waiting_hard_state();
        if self.log.needs_idle_frame()
            && let Err(failure) = self.log.append_idle_frame()
        {
            // Nobody waits for it, and the log is sealed or says so at the next group.
            tracing::warn!(%failure, "the idle frame was not written");
        }
        self.check_room_sometimes();
        self.publish();
    }

    pub(crate) fn cut(&mut self, through: u64) {
        match self.log.cut(through) {
            Ok(report) => tracing::info!(through, ?report, "log cut behind a snapshot"),
            Err(error) => {
                tracing::warn!(%error, through, "the log could not be cut; trying again after the next snapshot")
            }
        }
        self.room.log_was_cut(self.log.figures().segments, lock(&self.node.snapshots).made);
        self.after_cut();
        self.publish();
    }

    /// After the log has gone on to another segment, the next one is prepared.
    fn ask_for_spare(&mut self, segments: usize) {
        if segments != self.segments_seen {
            self.segments_seen = segments;
            // The spare maker ends only with the process.
            let _ = self.spares.send(());
        }
    }

    pub(crate) fn publish(&mut self) {
        let from = self.log.figures();
        self.ask_for_spare(from.segments);
        self.kept.0.keeps(from.buffer_bytes);
        self.kept.1.keeps(self.replicated.as_ref().map_or(0, |replicated| replicated.places.memory_bytes()));
        let mut figures = lock(&self.node.log_figures);
        figures.bytes = from.bytes;
        figures.segments = from.segments as u64;
        figures.durable_index = from.durable_index;
        figures.sync_failures = from.sync_failures;
    }
}

/// What clients are told of a failed append, and whether the node must stop.
pub(crate) fn told(failure: &AppendError) -> (Error, bool) {
    match failure {
        AppendError::Refused { .. } => (
            Error::new(Code::SyncFailed, format!("{failure}; the write is undone and will never appear")),
            false,
        ),
        AppendError::TooLarge => {
            (Error::new(Code::BatchTooLarge, "the request is more than a log frame can hold"), false)
        }
        // Not asked for by this node: its entries get the next indexes.
        AppendError::NotReplaceable { .. } => {
            (Error::new(Code::Internal, format!("{failure}")).with_outcome(Outcome::NotApplied), false)
        }
        AppendError::DiskFull { .. } => {
            (Error::new(Code::DiskFull, format!("{failure}; free some room: reads go on")), false)
        }
        AppendError::Unsealed { .. } => (
            Error::new(
                Code::SyncFailed,
                format!("{failure}; the node stops: read after its restart to find out"),
            )
            .with_outcome(Outcome::Unknown),
            true,
        ),
    }
}
