//! A snapshot from the leader: one thread a connection, whose protocol is in
//! `snapshot_sender`. The file's bytes go to "snapshots/received", the entries
//! behind it stay in memory, and the SnapshotWriter makes both this node's own.
//!
//! A file that has come in part is gone on with if it is the same one: made by
//! the same node, with the same S, for the same place in the log, of the same
//! length. The process remembers that, so that what a crash leaves behind is
//! never taken for anything; it is removed at the next start.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use crossbeam_channel::bounded;
use datastore::messaging::peer_frame::{PeerFrame, SnapshotBegin};
use datastore::persistence::{Disk, FileDisk, NodeUuid, SNAPSHOT_DIRECTORY, SyncPurpose};
use datastore::replication::message::{LogEntry, MessageKind, NodeId, SnapshotMark};

use crate::cluster::Cluster;
use crate::memory_figures::{Held, Share};
use crate::node::Node;
use crate::peer_thread::{BlockingPeer, out_of_place};
use crate::replication_messages::ReceivedSnapshot;
use crate::snapshot_writer::SnapshotMessage;
use crate::start::{Cast, spawn};

/// The file while it comes. `list_snapshots` knows no such name.
const RECEIVED: &str = "snapshots/received";
/// How much is written between two syncs: no sync then stalls the log's for long.
const SYNC_EVERY_BYTES: u64 = 1 << 20;
/// How long a new connection waits for the thread of the one before.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A file that has come in part.
pub(crate) struct Partial {
    which: Which,
    written: u64,
}

/// Which snapshot it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Which {
    node: NodeUuid,
    index: u64,
    term: u64,
    after: u64,
    file_bytes: u64,
}

/// Removes what a process before this one has received in part.
pub(crate) fn remove_leftover(disk: &FileDisk) -> io::Result<()> {
    match disk.remove(RECEIVED) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Receives a snapshot in a thread of its own.
pub(crate) fn begin(
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<Cluster>,
    socket: TcpStream,
    read: BytesMut,
    peer: NodeId,
) {
    let receive = move || {
        let receiver = BlockingPeer::new(socket, read)
            .and_then(|socket| Ok((socket, FileDisk::open(&node.settings.data_dir)?)))
            .map(|(socket, disk)| {
                let held = node.memory.snapshots.clone();
                Receiver { cast, cluster, socket, disk, peer, held }
            });
        if let Err(error) = receiver.map_err(ReceiveError::from).and_then(Receiver::run) {
            tracing::warn!(peer, %error, "a snapshot was not received");
        }
    };
    if let Err(error) = spawn("snapshot receiver", receive) {
        tracing::error!(peer, %error, "a snapshot was not received");
    }
}

/// Why a snapshot doesn't arrive.
#[derive(Debug)]
enum ReceiveError {
    Connection(io::Error),
    File(io::Error),
    /// What the peer sends doesn't fit together.
    Wrong(String),
    /// The thread before this one still works on its snapshot.
    Busy,
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Connection(error) => write!(formatter, "{error}"),
            ReceiveError::File(error) => write!(formatter, "{RECEIVED}: {error}"),
            ReceiveError::Wrong(reason) => write!(formatter, "{reason}"),
            ReceiveError::Busy => write!(formatter, "another snapshot is still being taken in"),
        }
    }
}

impl std::error::Error for ReceiveError {}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> ReceiveError {
        ReceiveError::Connection(error)
    }
}

struct Receiver {
    cast: Arc<Cast>,
    cluster: Arc<Cluster>,
    socket: BlockingPeer,
    disk: FileDisk,
    peer: NodeId,
    /// Where it is counted what the entries that have come occupy.
    held: Arc<Held>,
}

impl Receiver {
    fn run(mut self) -> Result<(), ReceiveError> {
        let PeerFrame::SnapshotBegin(begin) = self.socket.receive(&|| false)? else {
            return Err(out_of_place().into());
        };
        let mark = self.check(&begin)?;
        let which = Which {
            node: begin.node,
            index: mark.index,
            term: mark.term,
            after: begin.after,
            file_bytes: begin.file_bytes,
        };
        // Whoever sends now counts; the thread before sees its connection end.
        let cluster = self.cluster.clone();
        cluster.links.begin_snapshot(self.socket.handle()?);
        let mut partial = wait_for(&cluster)?;
        let entries = self.receive(which, &mut partial)?;
        let taken = self.hand_over(begin, entries);
        *partial = None;
        remove_leftover(&self.disk).map_err(ReceiveError::File)?;
        tracing::info!(peer = self.peer, index = mark.index, taken, "a snapshot was received");
        Ok(self.socket.send(&PeerFrame::SnapshotResult { taken })?)
    }

    fn check(&self, begin: &SnapshotBegin) -> Result<SnapshotMark, ReceiveError> {
        let message = &begin.message;
        let wrong = |reason: &str| ReceiveError::Wrong(reason.into());
        if message.kind != MessageKind::Snapshot {
            return Err(wrong("the message with it is of another kind"));
        }
        if message.from != self.peer || message.to != self.cluster.node_id {
            return Err(wrong("the message with it is not from this peer to this node"));
        }
        message.snapshot.clone().ok_or_else(|| wrong("it doesn't say for which place in the log it is"))
    }

    /// Takes the file and the entries; gives those when all is durable.
    fn receive(
        &mut self,
        which: Which,
        partial: &mut Option<Partial>,
    ) -> Result<(Vec<LogEntry>, Share), ReceiveError> {
        let mut file = match partial {
            Some(Partial { which: known, .. }) if *known == which => self.disk.open(RECEIVED),
            _ => {
                *partial = None;
                remove_leftover(&self.disk).and_then(|()| self.disk.create_new(RECEIVED))
            }
        }
        .map_err(ReceiveError::File)?;
        let Partial { written, .. } = partial.get_or_insert(Partial { which, written: 0 });
        self.disk.set_length(&mut file, *written).map_err(ReceiveError::File)?;
        tracing::info!(peer = self.peer, index = which.index, from_byte = *written, "receiving a snapshot");
        self.socket.send(&PeerFrame::SnapshotResume { offset: *written })?;
        let mut synced = *written;
        let mut entries: Vec<LogEntry> = Vec::new();
        let (mut kept, mut came_bytes) = (self.held.share(), 0);
        loop {
            match self.socket.receive(&|| false)? {
                PeerFrame::SnapshotChunk { offset, bytes }
                    if offset == *written && which.file_bytes - offset >= bytes.len() as u64 =>
                {
                    self.disk.write_at(&mut file, offset, &bytes).map_err(ReceiveError::File)?;
                    *written += bytes.len() as u64;
                    if *written - synced >= SYNC_EVERY_BYTES {
                        self.disk.sync(&mut file, SyncPurpose::Other).map_err(ReceiveError::File)?;
                        synced = *written;
                    }
                }
                PeerFrame::SnapshotEntries(more) => {
                    came_bytes += more.iter().map(LogEntry::memory_bytes).sum::<usize>();
                    kept.keeps(came_bytes);
                    entries.extend(more);
                }
                PeerFrame::SnapshotEnd => break,
                _ => return Err(out_of_place().into()),
            }
        }
        if *written != which.file_bytes {
            let reason = format!("{written} of the file's {} bytes came", which.file_bytes);
            return Err(ReceiveError::Wrong(reason));
        }
        let first = which.after.saturating_add(1);
        if !entries.iter().map(|entry| entry.index).eq(first..=which.index) {
            let reason = format!("entries {first} to {} didn't all come", which.index);
            return Err(ReceiveError::Wrong(reason));
        }
        self.disk.sync(&mut file, SyncPurpose::Other).map_err(ReceiveError::File)?;
        self.disk.sync_directory(SNAPSHOT_DIRECTORY).map_err(ReceiveError::File)?;
        Ok((entries, kept))
    }

    /// Waits until this node's replica has taken it, or hasn't.
    fn hand_over(&self, begin: SnapshotBegin, (entries, kept): (Vec<LogEntry>, Share)) -> bool {
        let (done, is_done) = bounded(1);
        let received = ReceivedSnapshot {
            message: begin.message,
            name: RECEIVED.into(),
            from: begin.node,
            entries,
            kept,
            done,
        };
        self.cast.snapshot_writer.send(SnapshotMessage::Install(Box::new(received)));
        // Whoever drops it unanswered hasn't taken it.
        is_done.recv().unwrap_or(false)
    }
}

/// The right to the file, once the thread before is done with it.
fn wait_for(cluster: &Cluster) -> Result<MutexGuard<'_, Option<Partial>>, ReceiveError> {
    let began = Instant::now();
    loop {
        match cluster.links.partial.try_lock() {
            Ok(partial) => return Ok(partial),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if began.elapsed() >= PREDECESSOR_TIMEOUT => {
                return Err(ReceiveError::Busy);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
