//! A snapshot for a peer that lags behind the log: one thread a snapshot, so
//! that neither the disk nor a long file delays a heartbeat.
//!
//! ```text
//!   sender                                      receiver
//!     │ hello, lane snapshot ─────────────────────► │
//!     │ ◄─────────────────────────────── welcome    │
//!     │ SnapshotBegin ────────────────────────────► │  the same one as before?
//!     │ ◄─────────────────── SnapshotResume offset  │  then it goes on where it ended
//!     │ SnapshotChunk … ──────────────────────────► │  into snapshots/received
//!     │ SnapshotEntries (S, E] … ─────────────────► │  kept in memory
//!     │ SnapshotEnd ──────────────────────────────► │  synced, loaded, made its own
//!     │ ◄─────────────────── SnapshotResult taken   │
//! ```
//!
//! A connection that breaks is opened again and again, as long as something
//! arrives in between. Every order is answered, since the replica waits for it.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use datastore::limits;
use datastore::messaging::peer_frame::{PeerFrame, SnapshotBegin};
use datastore::persistence::{FileDisk, Unreadable, read_readable};
use datastore::replication::handshake::Lane;
use datastore::replication::message::{LogEntry, NodeId, SnapshotMark};

use crate::cluster::Cluster;
use crate::log_reader::log_entry;
use crate::mailbox::Mailbox;
use crate::node::Node;
use crate::peer_greeting::{Greeted, answered_again, greeting};
use crate::peer_thread::{BlockingPeer, out_of_place};
use crate::replication_messages::{ReplicationMessage, SnapshotToSend};
use crate::start::{Cast, spawn};
use crate::wal_writer::{WalMessage, WalWriter};

/// So often without anything arriving in between.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// After a snapshot that did not arrive; doubled for each one before it, so many times at most.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);
const FAILURES_COUNTED_MAX: u32 = 7;
/// The receiver syncs, reads and indexes the whole snapshot before it says what became of it.
const RESULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The snapshot on its way to one peer.
#[derive(Default)]
pub(crate) struct SnapshotStreams {
    current: Option<Arc<State>>,
    /// Snapshots in a row that did not arrive.
    failures: Arc<AtomicU32>,
}

struct State {
    mark: SnapshotMark,
    given_up: AtomicBool,
    ended: AtomicBool,
}

impl SnapshotStreams {
    /// Sends a snapshot, and says what became of it. One that is under way for
    /// the same place in the log answers for this order, too; another one is given up.
    pub(crate) fn send(
        &mut self,
        node: &Arc<Node>,
        cast: &Arc<Cast>,
        cluster: &Arc<Cluster>,
        peer: NodeId,
        order: SnapshotToSend,
    ) {
        let mark = order.message.snapshot.clone().unwrap_or_default();
        if let Some(current) = self.current.take_if(|current| !current.ended.load(Ordering::Acquire)) {
            if current.mark == mark {
                self.current = Some(current);
                return;
            }
            current.given_up.store(true, Ordering::Relaxed);
        }
        let state = Arc::new(State { mark, given_up: AtomicBool::new(false), ended: AtomicBool::new(false) });
        self.current = Some(state.clone());
        let wal_writer = cast.wal_writer.clone();
        let answer = move |arrived| {
            // First: an order that comes from now on begins a new stream.
            state.ended.store(true, Ordering::Release);
            let message = ReplicationMessage::SnapshotSent { to: peer, arrived };
            wal_writer.send(WalMessage::Replication(message));
        };
        let Some(address) = cluster.address(peer) else { return answer(false) };
        let stream = Stream {
            cluster: cluster.clone(),
            peer,
            address: (address.host, address.port),
            data_dir: node.settings.data_dir.clone(),
            wal_writer: Some(cast.wal_writer.clone()),
            state: self.current.clone(),
            failures: self.failures.clone(),
            order,
        };
        let failed = answer.clone();
        if let Err(error) = spawn("snapshot sender", move || answer(stream.run())) {
            tracing::error!(%error, "a snapshot could not be sent");
            failed(false);
        }
    }
}

/// Why a snapshot doesn't arrive.
#[derive(Debug)]
enum SendError {
    /// The connection: the next one may do better.
    Connection(io::Error),
    /// The peer doesn't let this node in, now.
    Refused(String),
    /// This node's own files.
    File(io::Error),
    /// The entries behind the snapshot were cut from the log, or are damaged.
    Entries(Box<Unreadable>),
    /// They are not all among those that the log has.
    Missing(u64),
    /// Someone wants another snapshot sent.
    GivenUp,
}

impl SendError {
    fn may_pass(&self) -> bool {
        matches!(self, SendError::Connection(_) | SendError::Refused(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Connection(error) => write!(formatter, "{error}"),
            SendError::Refused(reason) => write!(formatter, "refused: {reason}"),
            SendError::File(error) => write!(formatter, "the snapshot's file: {error}"),
            SendError::Entries(unreadable) => {
                write!(formatter, "entry {} behind it: {}", unreadable.index, unreadable.error)
            }
            SendError::Missing(index) => write!(formatter, "entry {index} behind it is not in the log"),
            SendError::GivenUp => write!(formatter, "another snapshot takes its place"),
        }
    }
}

impl std::error::Error for SendError {}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> SendError {
        SendError::Connection(error)
    }
}

/// One snapshot for one peer, in its thread.
struct Stream {
    cluster: Arc<Cluster>,
    peer: NodeId,
    address: (String, u16),
    data_dir: PathBuf,
    order: SnapshotToSend,
    /// Who is told of entries that can't be read.
    wal_writer: Option<Mailbox<WalWriter>>,
    state: Option<Arc<State>>,
    failures: Arc<AtomicU32>,
}

impl Stream {
    /// Whether the peer has it. A failure is told late, and later each time: the
    /// replica asks for another one at once.
    fn run(self) -> bool {
        if self.send() {
            self.failures.store(0, Ordering::Relaxed);
            return true;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let slices = 1 << failures.min(FAILURES_COUNTED_MAX);
        for _ in 0..slices {
            if self.is_given_up() {
                break;
            }
            std::thread::sleep(FAILURE_PAUSE);
        }
        false
    }

    fn send(&self) -> bool {
        let (peer, name) = (self.peer, self.order.name.clone());
        tracing::info!(peer, name, "sending a snapshot");
        let mut reached = 0;
        let mut attempts = 0;
        loop {
            let before = reached;
            let error = match self.attempt(&mut reached) {
                Ok(taken) => {
                    tracing::info!(peer, name, taken, "a snapshot was sent");
                    if !taken {
                        self.doubt();
                    }
                    return taken;
                }
                Err(error) => error,
            };
            attempts = if reached > before { 1 } else { attempts + 1 };
            if !error.may_pass() || self.is_given_up() || attempts >= ATTEMPTS_MAX {
                tracing::warn!(peer, name, %error, "a snapshot did not arrive");
                match error {
                    SendError::Entries(unreadable) => self.not_found(*unreadable),
                    SendError::File(_) => self.doubt(),
                    _ => {}
                }
                return false;
            }
            tracing::debug!(peer, name, %error, "a snapshot's connection ended; it goes on with another one");
            std::thread::sleep(PAUSE);
        }
    }

    /// This snapshot will never do, if the entry isn't just cut: another one is needed.
    fn not_found(&self, unreadable: Unreadable) {
        if let Some(wal_writer) = self.wal_writer.as_ref().filter(|_| !unreadable.error.may_pass()) {
            let message = ReplicationMessage::NotFound { number: None, unreadable };
            wal_writer.send(WalMessage::Replication(message));
        }
    }

    /// The file can't be read, here or by the peer. If that wasn't chance another one is made, once: it
    /// may be the peer that can't.
    fn doubt(&self) {
        if let Some(wal_writer) = &self.wal_writer
            && self.failures.load(Ordering::Relaxed) == 1
        {
            wal_writer.send(WalMessage::SnapshotDoubtful);
        }
    }

    fn is_given_up(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.given_up.load(Ordering::Relaxed))
    }

    /// Sends over one connection. `reached` is how far the file has got.
    fn attempt(&self, reached: &mut u64) -> Result<bool, SendError> {
        let given_up = || self.is_given_up();
        let hello = greeting(&self.cluster, self.peer, Lane::Snapshot, false);
        let (mut peer, line) = BlockingPeer::greet(&self.address, &hello, &given_up)?;
        match answered_again(&self.cluster, self.peer, &line) {
            Greeted::Connected => {}
            Greeted::Adopt | Greeted::NotYet => return Err(SendError::Refused("it is not adopted".into())),
            Greeted::Refused(reason) => return Err(SendError::Refused(reason)),
        }
        let file_bytes = self.order.file.metadata().map_err(SendError::File)?.len();
        let node = self.cluster.node;
        let (message, after) = (self.order.message.clone(), self.order.after);
        peer.send(&PeerFrame::SnapshotBegin(SnapshotBegin { message, node, file_bytes, after }))?;
        let offset = match peer.receive(&given_up)? {
            PeerFrame::SnapshotResume { offset } if offset <= file_bytes => offset,
            PeerFrame::SnapshotResult { taken } => return Ok(taken),
            _ => return Err(out_of_place().into()),
        };
        self.send_file(&mut peer, offset, file_bytes, reached)?;
        self.send_entries(&mut peer)?;
        peer.send(&PeerFrame::SnapshotEnd)?;
        match peer.receive_within(RESULT_TIMEOUT, &given_up)? {
            PeerFrame::SnapshotResult { taken } => Ok(taken),
            _ => Err(out_of_place().into()),
        }
    }

    fn send_file(
        &self,
        peer: &mut BlockingPeer,
        mut offset: u64,
        file_bytes: u64,
        reached: &mut u64,
    ) -> Result<(), SendError> {
        while offset < file_bytes {
            if self.is_given_up() {
                return Err(SendError::GivenUp);
            }
            let count = (file_bytes - offset).min(limits::SNAPSHOT_CHUNK_BYTES as u64);
            let mut bytes = vec![0; count as usize];
            self.order.file.read_exact_at(&mut bytes, offset).map_err(SendError::File)?;
            peer.send(&PeerFrame::SnapshotChunk { offset, bytes: Bytes::from(bytes) })?;
            offset += count;
            // What is here may be lost on its way, but then the next offset asked for is lower.
            *reached = (*reached).max(offset);
        }
        Ok(())
    }

    fn send_entries(&self, peer: &mut BlockingPeer) -> Result<(), SendError> {
        let through = self.order.message.snapshot.as_ref().map_or(0, |mark| mark.index);
        let disk = FileDisk::open(&self.data_dir).map_err(SendError::File)?;
        let mut runs = &self.order.runs[..];
        let mut next = self.order.after + 1;
        while next <= through {
            if self.is_given_up() {
                return Err(SendError::GivenUp);
            }
            let is_past = |run: &datastore::persistence::FrameRun| run.first_index + run.entries <= next;
            runs = &runs[runs.iter().take_while(|run| is_past(run)).count()..];
            let bytes_max = limits::SNAPSHOT_ENTRIES_BYTES as u64;
            let (read, unreadable) = read_readable(&disk, runs, next, through + 1, bytes_max);
            if let Some(unreadable) = unreadable.filter(|_| read.is_empty()) {
                return Err(SendError::Entries(Box::new(unreadable)));
            }
            let entries: Option<Vec<LogEntry>> = read.into_iter().map(log_entry).collect();
            let entries = entries.ok_or(SendError::Missing(next))?;
            let last = entries.last().map(|entry| entry.index).ok_or(SendError::Missing(next))?;
            peer.send(&PeerFrame::SnapshotEntries(entries))?;
            next = last + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops where it fails

    use std::io::Write;
    use std::net::TcpListener;

    use bytes::BytesMut;
    use datastore::messaging::peer_hello::{read_hello, welcome_line};
    use datastore::persistence::{
        AppendEntry, EntryPlaces, Identity, Log, LogOptions, Member, Membership, NodeUuid, Replay, initialise,
    };
    use datastore::replication::handshake::{PROTOCOL, Welcome};
    use datastore::replication::message::{Message, MessageKind};

    use super::*;

    fn uuid(node_id: NodeId) -> NodeUuid {
        NodeUuid([node_id as u8; 16])
    }

    /// A log of 40 entries of 1 MiB: too much for a batch.
    fn log(disk: &FileDisk) -> EntryPlaces {
        let identity = Identity {
            node: uuid(1),
            cluster: None,
            mode: "leader".into(),
            placement_seed: (1, 2),
            created_by: "test".into(),
        };
        let options = LogOptions::default();
        initialise(disk, &options, &identity, 1).unwrap();
        let (mut log, _) =
            Log::open(disk.clone(), options, &identity, Replay::default(), || 5, &mut |_| Ok(())).unwrap();
        let mut places = EntryPlaces::new(1, None);
        for index in 1..=40_u8 {
            let payload = vec![index; 1 << 20];
            let entry = AppendEntry { kind: 0, term: 3, payload: &[&payload] };
            let appended = log.append(&[entry], None).unwrap();
            places.appended(&appended, [3]);
        }
        places
    }

    fn stream(directory: &std::path::Path, port: u16, file_bytes: usize) -> Stream {
        let disk = FileDisk::open(directory).unwrap();
        let places = log(&disk);
        let member = |node_id| {
            let node = Some(uuid(node_id));
            Member { node_id, host: "127.0.0.1".into(), port, node }
        };
        let membership = Membership::new("c".repeat(32), 1, vec![member(1), member(2)]);
        let cluster = Cluster::new(1, uuid(1), 7, Some(membership), (Vec::new(), None), (disk, PROTOCOL));
        let path = directory.join("snapshot");
        let bytes: Vec<u8> = (0..file_bytes).map(|at| (at / 1000) as u8).collect();
        std::fs::write(&path, bytes).unwrap();
        let mark = SnapshotMark { index: 38, term: 3, ..SnapshotMark::default() };
        let message = Message { snapshot: Some(mark), ..Message::new(MessageKind::Snapshot, 1, 2, 3) };
        let order = SnapshotToSend {
            message,
            name: "snapshot".into(),
            file: std::fs::File::open(&path).unwrap(),
            after: 5,
            runs: places.between(6, 39, u64::MAX),
        };
        let address = ("127.0.0.1".into(), port);
        Stream {
            cluster: Arc::new(cluster),
            peer: 2,
            address,
            data_dir: directory.into(),
            order,
            wal_writer: None,
            state: None,
            failures: Arc::default(),
        }
    }

    /// The next connection, greeted, and what it begins with.
    fn accept(listener: &TcpListener) -> (BlockingPeer, SnapshotBegin) {
        let (mut socket, _) = listener.accept().unwrap();
        let mut peer = BlockingPeer::new(socket.try_clone().unwrap(), BytesMut::new()).unwrap();
        let hello = read_hello(&peer.read_line(&|| false).unwrap()).unwrap();
        assert_eq!((hello.lane, hello.node_id, hello.to), (Lane::Snapshot, 1, 2));
        let (cluster, epochs) = (hello.cluster, vec![]);
        let (node, lags) = (uuid(2), false);
        let in_doubt = false;
        let welcome = Welcome {
            protocol: 2,
            cluster,
            epochs,
            lags,
            node_id: 2,
            node,
            boot: 1,
            in_doubt,
            advertise: None,
        };
        socket.write_all(&welcome_line(&welcome)).unwrap();
        match peer.receive(&|| false).unwrap() {
            PeerFrame::SnapshotBegin(begin) => (peer, begin),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_snapshot_arrives_over_connections_that_break() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file_bytes = 3 * limits::SNAPSHOT_CHUNK_BYTES + 7;
        let stream = stream(directory.path(), listener.local_addr().unwrap().port(), file_bytes);
        let expected = std::fs::read(directory.path().join("snapshot")).unwrap();
        let sender = std::thread::spawn(move || stream.run());

        let mut file = Vec::new();
        let (mut peer, begin) = accept(&listener);
        assert_eq!((begin.node, begin.file_bytes, begin.after), (uuid(1), file_bytes as u64, 5));
        peer.send(&PeerFrame::SnapshotResume { offset: 0 }).unwrap();
        match peer.receive(&|| false).unwrap() {
            PeerFrame::SnapshotChunk { offset: 0, bytes } => file.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
        drop(peer); // the connection breaks

        let (mut peer, again) = accept(&listener);
        assert_eq!(again, begin);
        peer.send(&PeerFrame::SnapshotResume { offset: file.len() as u64 }).unwrap();
        let mut indexes = Vec::new();
        let mut frames = 0;
        loop {
            match peer.receive(&|| false).unwrap() {
                PeerFrame::SnapshotChunk { offset, bytes } => {
                    assert_eq!(offset, file.len() as u64);
                    file.extend_from_slice(&bytes);
                }
                PeerFrame::SnapshotEntries(entries) => {
                    frames += 1;
                    for entry in entries {
                        assert!(
                            entry.term == 3 && entry.payload.iter().all(|byte| *byte == entry.index as u8)
                        );
                        indexes.push(entry.index);
                    }
                }
                PeerFrame::SnapshotEnd => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(file == expected);
        assert!(indexes.iter().copied().eq(6..=38), "{indexes:?}");
        assert!(frames > 1, "all entries came in one frame");
        peer.send(&PeerFrame::SnapshotResult { taken: true }).unwrap();
        assert!(sender.join().unwrap());
    }

    #[test]
    fn an_entry_behind_the_snapshot_that_can_t_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = stream(directory.path(), listener.local_addr().unwrap().port(), 10);
        let place = stream.order.runs.iter().find(|run| run.first_index == 20).unwrap().place;
        let segment = directory.path().join(datastore::persistence::segment_name(place.segment));
        let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
        file.write_all_at(b"?", place.offset + 1_000).unwrap();
        let sender = std::thread::spawn(move || stream.attempt(&mut 0));
        let (mut peer, _) = accept(&listener);
        peer.send(&PeerFrame::SnapshotResume { offset: 10 }).unwrap();
        while peer.receive(&|| false).is_ok() {}
        match sender.join().unwrap() {
            Err(SendError::Entries(unreadable)) => assert_eq!(unreadable.index, 20),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_peer_that_gets_no_further_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = stream(directory.path(), listener.local_addr().unwrap().port(), 10);
        let sender = std::thread::spawn(move || stream.run());
        for _ in 0..ATTEMPTS_MAX {
            drop(accept(&listener));
        }
        assert!(!sender.join().unwrap());
    }
}
