//! SnapshotWriter: makes snapshots while the node serves.
//!
//! ```text
//! Make ─► BeginWalk through the WalWriter to every shard ─► WalkBegun from each: S
//!      ─► Walk, a few buckets at a time, shard by shard  ─► Walked: lines into the file
//!      ─► trailer with E, sync, rename, read back        ─► Cut: the log up to the S of
//!                                                            the oldest snapshot kept
//! ```
//!
//! S is the last entry that the WalWriter had handed to the shards: what the
//! walk shows holds at least all of it. E is the last entry of which the walk
//! can show anything. Recovery replays the entries between over it.

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler};
use crossbeam_channel::Sender;
use datastore::engine::Entry;
use datastore::error::{Code, Error, Outcome};
use datastore::limits;
use datastore::persistence::{
    Disk, FileDisk, Identity, SNAPSHOT_DIRECTORY, SnapshotError, SnapshotFile, SnapshotHeader,
    SnapshotReport, SnapshotTook, keep_newest_snapshots, list_snapshots, remove_all_but_newest_whole,
    remove_old_snapshots,
};
use datastore::replication::recovered::SnapshotState;
use datastore::settings::SnapshotCompression;

use crate::Cast;
use crate::connection::{Connection, ConnectionMessage};
use crate::mailbox::{Counted, Mailbox};
use crate::node::{Node, lock};
use crate::replication_messages::{ReceivedSnapshot, ReplicationMessage};
use crate::shard_messages::ShardMessage;
use crate::snapshot_installer::make_own;
use crate::wal_writer::WalMessage;

/// Fast, and small enough: the level above costs twice the time for a tenth of the size.
const ZSTD_LEVEL: i32 = 1;
/// Snapshots kept while there is room, each with its log.
const SNAPSHOTS_KEPT: usize = 2;

/// A client that asked for a snapshot, and its request's place in the connection's order.
pub type Asker = (Mailbox<Connection>, u64);

/// What the SnapshotWriter hears.
pub enum SnapshotMessage {
    /// From a Connection, or (without an asker) from the WalWriter, since the log has grown.
    Make {
        /// Who wants to know.
        asked_by: Option<Asker>,
    },
    /// From a peer's connection: a leader's snapshot, whole.
    Install(Box<ReceivedSnapshot>),
    /// From the WalWriter: what became of a leader's snapshot.
    Installed {
        /// It is the state now; else the replica had no use for it.
        taken: bool,
    },
    /// From a Shard: it has applied every entry up to this one.
    WalkBegun {
        /// The last entry that the WalWriter had handed to any shard.
        handed_over: u64,
    },
    /// From a Shard: the entries of some buckets.
    Walked {
        /// Which shard.
        shard: usize,
        /// The entries, shared.
        entries: Vec<Entry>,
        /// The next bucket, `None` behind the last one.
        next: Option<usize>,
        /// The last entry that the shard has applied.
        applied_index: u64,
    },
}

enum State {
    Idle,
    /// Shards have still to begin.
    Beginning {
        waiting_for: usize,
        after: u64,
        askers: Vec<Asker>,
        began: Instant,
    },
    Walking(Box<Walk>),
    /// A leader's snapshot is this node's own by now; the log has still to begin anew behind it.
    Installing {
        report: SnapshotReport,
        /// Its name was that of another one of this node's own.
        replaces: bool,
        /// Told when that is done.
        done: Sender<bool>,
    },
}

struct Walk {
    file: SnapshotFile<FileDisk>,
    through: u64,
    askers: Vec<Asker>,
    began: Instant,
}

/// The actor.
pub struct SnapshotWriter {
    node: Arc<Node>,
    cast: Arc<Cast>,
    identity: Identity,
    disk: FileDisk,
    state: State,
    /// Asked for while one was under way: it may have passed their writes already.
    next_askers: Vec<Asker>,
    /// Came while another one was being installed.
    next_received: Option<ReceivedSnapshot>,
}

impl SnapshotWriter {
    /// A writer in this directory.
    pub fn new(node: Arc<Node>, cast: Arc<Cast>, identity: Identity, disk: FileDisk) -> Self {
        SnapshotWriter {
            node,
            cast,
            identity,
            disk,
            state: State::Idle,
            next_askers: Vec::new(),
            next_received: None,
        }
    }

    /// Without room for a plain one a snapshot is compressed, whatever was asked for: every version reads both, and
    /// without it the log gives no room back.
    fn zstd_level(&self) -> Option<i32> {
        if self.node.settings.snapshot_compression == SnapshotCompression::Zstd {
            return Some(ZSTD_LEVEL);
        }
        let needed = self.node.snapshot_bytes_needed(false);
        (!self.has_room_for(needed.unwrap_or_else(|| self.node.snapshot_bytes(false)))).then_some(ZSTD_LEVEL)
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        self.disk.free_bytes(SNAPSHOT_DIRECTORY).is_ok_and(|free_bytes| free_bytes >= bytes)
    }

    /// A leader's snapshot has come. One of this node's own that is under way
    /// would mix two states, and is given up; none begins before the log goes on
    /// behind this one.
    fn install(&mut self, received: ReceivedSnapshot) {
        if let State::Installing { .. } = self.state {
            if let Some(before) = self.next_received.replace(received) {
                // Whoever sent it may have gone.
                let _ = before.done.send(false);
            }
            return;
        }
        self.make_way();
        let before = list_snapshots(&self.disk).unwrap_or_default();
        let (node, placement) = (self.identity.node, self.node.placement);
        match make_own(&self.disk, node, placement, self.zstd_level(), &received) {
            Ok((tables, report)) => {
                let ReceivedSnapshot { message, done, .. } = received;
                let replaces = before.iter().any(|info| info.name == report.name);
                self.state = State::Installing { report, replaces, done };
                let message = Box::new(message);
                let arrived = ReplicationMessage::SnapshotArrived { message, tables };
                self.cast.wal_writer.send(WalMessage::Replication(arrived));
            }
            Err(error) => {
                tracing::warn!(%error, "the leader's snapshot could not be taken over");
                let _ = received.done.send(false);
                self.ended(false);
            }
        }
    }

    /// Gives up what is under way.
    fn make_way(&mut self) {
        let askers = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle | State::Installing { .. } => return,
            State::Beginning { askers, .. } => askers,
            State::Walking(walk) => {
                let Walk { file, askers, .. } = *walk;
                abandon(file);
                askers
            }
        };
        self.refuse(askers, &"a snapshot of the leader's takes the state's place");
    }

    /// The log goes on behind the leader's snapshot, or the replica had no use for it.
    fn installed(&mut self, taken: bool) {
        let State::Installing { report, replaces, done } = std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        if taken {
            // No earlier one can be completed any more.
            if let Err(error) = remove_old_snapshots(&self.disk, 1) {
                tracing::warn!(%error, "an old snapshot could not be removed");
            }
            let mut figures = lock(&self.node.snapshots);
            (figures.last_index, figures.last_bytes) = (report.through, report.file_bytes);
        } else if replaces {
            // What it stands in place of may be all that the log's beginning is kept in: both hold the same entries.
            tracing::debug!(
                file = report.name,
                "a snapshot that isn't needed stays in place of this node's own"
            );
        } else if let Err(error) = self.disk.remove(&report.name) {
            tracing::warn!(%error, file = report.name, "a snapshot that isn't needed could not be removed");
        }
        let _ = done.send(true);
        match self.next_received.take() {
            Some(next) => self.install(next),
            None => self.ended(taken),
        }
    }

    fn begin(&mut self, askers: Vec<Asker>) {
        if self.node.permits.is_disk_full() {
            self.keep_only_newest();
            if askers.is_empty() && !self.has_room_for(self.node.snapshot_bytes_needed(true).unwrap_or(0)) {
                tracing::info!(
                    "there is no room for a snapshot; one is made when there is, or when less is to be kept"
                );
                return self.ended(false);
            }
        }
        let waiting_for = self.cast.shards.len();
        lock(&self.node.snapshots).progress = Some(0.0);
        self.state = State::Beginning { waiting_for, after: u64::MAX, askers, began: Instant::now() };
        self.cast.wal_writer.send(WalMessage::BeginWalk);
    }

    /// On a disk without room the newest snapshot and the log behind it are enough, once that one was read from end to
    /// end. What this gives back needs no room first, and the next snapshot may need it.
    fn keep_only_newest(&self) {
        match remove_all_but_newest_whole(&self.disk, self.identity.node) {
            Ok(Some(through)) => self.cast.wal_writer.send(WalMessage::Cut { through }),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the snapshot before the newest one stays"),
        }
    }

    fn walk_begun(&mut self, handed_over: u64) {
        let State::Beginning { waiting_for, after, .. } = &mut self.state else { return };
        *waiting_for -= 1;
        *after = (*after).min(handed_over);
        if *waiting_for > 0 {
            return;
        }
        let State::Beginning { after, askers, began, .. } = std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        let header = SnapshotHeader { node: self.identity.node, after };
        match SnapshotFile::create(self.disk.clone(), header, self.zstd_level()) {
            Ok(file) => {
                self.state = State::Walking(Box::new(Walk { file, through: after, askers, began }));
                self.cast.shards[0].send(ShardMessage::Walk { position: 0 });
            }
            Err(error) => self.failed(askers, &error),
        }
    }

    fn walked(&mut self, shard: usize, entries: &[Entry], next: Option<usize>, applied_index: u64) {
        let State::Walking(walk) = &mut self.state else { return };
        walk.through = walk.through.max(applied_index);
        for entry in entries {
            if let Err(error) = walk.file.write_entry(entry) {
                if error.is_disk_full() {
                    let contents = self.node.contents();
                    let (bytes, entries) = (walk.file.file_bytes(), walk.file.entries());
                    let compressed = walk.file.is_compressed();
                    let took = SnapshotTook::in_part(bytes, entries, &contents, compressed);
                    lock(&self.node.snapshots).took = Some((compressed, took));
                }
                return self.give_up(&error);
            }
        }
        self.progresses(shard, next);
        match next {
            Some(position) => self.cast.shards[shard].send(ShardMessage::Walk { position }),
            None if shard + 1 < self.cast.shards.len() => {
                self.cast.shards[shard + 1].send(ShardMessage::Walk { position: 0 });
            }
            None => self.finish(),
        }
    }

    /// All shards before this one are written, and this one's buckets up to the next.
    fn progresses(&self, shard: usize, next: Option<usize>) {
        let shards = self.cast.shards.len();
        let of_this_one = next.map_or(1.0, |next| (next * shards) as f64 / limits::BUCKETS as f64);
        let progress = (shard as f64 + of_this_one.min(1.0)) / shards as f64;
        lock(&self.node.snapshots).progress = Some((progress * 1_000.0).round() / 1_000.0);
    }

    /// What a member's snapshot says of its last entry; nothing on a node that is on its own.
    fn state_of(&self, index: u64) -> Vec<u8> {
        if let Some(dynamo) = &self.node.dynamo {
            return lock(&dynamo.snapshot_state).clone();
        }
        let cluster = self.node.cluster.as_ref();
        let known = cluster
            .and_then(|cluster| Some((cluster.term_of_committed(index)?, cluster.configuration_at(index))));
        known.map_or(Vec::new(), |(term, members)| SnapshotState::new(term, false, &members).encode())
    }

    fn finish(&mut self) {
        let State::Walking(walk) = std::mem::replace(&mut self.state, State::Idle) else { return };
        let Walk { file, through, askers, began } = *walk;
        let compressed = file.is_compressed();
        match file.finish(through, &self.state_of(through)) {
            Ok(report) => {
                let took_ms = began.elapsed().as_millis() as u64;
                self.made(&report, compressed, took_ms);
                for (connection, sequence) in askers {
                    let made = Ok((report.through, report.file_bytes, took_ms));
                    connection.send(ConnectionMessage::SnapshotMade { sequence, made });
                }
                self.ended(true);
            }
            Err(error) => self.failed(askers, &error),
        }
    }

    fn made(&mut self, report: &SnapshotReport, compressed: bool, took_ms: u64) {
        tracing::info!(
            index = report.through,
            entries = report.entries,
            bytes = report.file_bytes,
            took_ms,
            "snapshot made"
        );
        let reckoned_bytes = self.node.contents().snapshot_bytes(compressed);
        let mut figures = lock(&self.node.snapshots);
        figures.took = Some((compressed, SnapshotTook { bytes: report.file_bytes, reckoned_bytes }));
        figures.made += 1;
        figures.last_index = report.through;
        figures.last_bytes = report.file_bytes;
        figures.last_took_ms = took_ms;
        drop(figures);
        if self.node.cluster.is_some() {
            let made = ReplicationMessage::SnapshotMade { index: report.through, after: report.after };
            self.cast.wal_writer.send(WalMessage::Replication(made));
        }
        // A disk without room keeps only the newest; its log is what gives room back.
        let keep = if self.node.permits.is_disk_full() { 1 } else { SNAPSHOTS_KEPT };
        // The first snapshot alone leaves the log whole: should it turn out
        // damaged, the log from its beginning still has everything.
        match keep_newest_snapshots(&self.disk, self.identity.node, keep) {
            Ok(Some(through)) => self.cast.wal_writer.send(WalMessage::Cut { through }),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the log stays as it is behind the snapshots that are kept"),
        }
    }

    fn give_up(&mut self, error: &dyn Failure) {
        let State::Walking(walk) = std::mem::replace(&mut self.state, State::Idle) else { return };
        let Walk { file, askers, .. } = *walk;
        abandon(file);
        self.failed(askers, error);
    }

    fn failed(&mut self, askers: Vec<Asker>, error: &dyn Failure) {
        self.refuse(askers, error);
        self.ended(false);
    }

    fn refuse(&mut self, askers: Vec<Asker>, error: &dyn Failure) {
        tracing::warn!(%error, "the snapshot failed; the log stays as it is");
        lock(&self.node.snapshots).failed += 1;
        for (connection, sequence) in askers {
            let code = if error.is_disk_full() { Code::DiskFull } else { Code::Internal };
            let told =
                Error::new(code, format!("the snapshot failed: {error}")).with_outcome(Outcome::NotApplied);
            connection.send(ConnectionMessage::SnapshotMade { sequence, made: Err(told) });
        }
    }

    fn ended(&mut self, made: bool) {
        lock(&self.node.snapshots).progress = None;
        let askers = std::mem::take(&mut self.next_askers);
        if askers.is_empty() {
            self.cast.wal_writer.send(WalMessage::SnapshotEnded { made });
        } else {
            self.begin(askers);
        }
    }
}

fn abandon(file: SnapshotFile<FileDisk>) {
    if let Err(error) = file.abandon() {
        tracing::warn!(%error, "an unfinished snapshot could not be removed");
    }
}

/// Why there is no snapshot.
trait Failure: std::fmt::Display {
    fn is_disk_full(&self) -> bool {
        false
    }
}

impl Failure for SnapshotError {
    fn is_disk_full(&self) -> bool {
        SnapshotError::is_disk_full(self)
    }
}

impl Failure for &str {}

impl Actor for SnapshotWriter {
    type Context = Context<Self>;
}

impl Handler<Counted<SnapshotMessage>> for SnapshotWriter {
    type Result = ();

    fn handle(&mut self, counted: Counted<SnapshotMessage>, _: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            SnapshotMessage::Make { asked_by } => match self.state {
                State::Idle => self.begin(asked_by.into_iter().collect()),
                State::Beginning { .. } | State::Walking(_) | State::Installing { .. } => {
                    self.next_askers.extend(asked_by)
                }
            },
            SnapshotMessage::Install(received) => self.install(*received),
            SnapshotMessage::Installed { taken } => self.installed(taken),
            SnapshotMessage::WalkBegun { handed_over } => self.walk_begun(handed_over),
            SnapshotMessage::Walked { shard, entries, next, applied_index } => {
                self.walked(shard, &entries, next, applied_index);
            }
        }
    }
}
