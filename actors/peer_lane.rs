//! One lane to a peer: a queue of frames, and the task that keeps a connection
//! and writes them to it.
//!
//! ```text
//!   ReplicatorPeer ── push ──► queue ──► task ── all that is queued, in one write ──► peer
//!                              │
//!                              └ not connected, or too much queued: dropped. Raft sends
//!                                again what matters; the replica is told that it must.
//! ```
//!
//! What a broken connection may have swallowed is lost with the queue: nothing
//! is sent twice, and what is sent later never overtakes what was sent earlier.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use datastore::error::LeaderAddress;
use datastore::limits;
use datastore::messaging::peer_frame::{PeerFrame, encode};
use datastore::messaging::peer_frame_converging::Converging;
use datastore::messaging::peer_version::for_version;
use datastore::replication::dynamo;
use datastore::replication::handshake::Lane;
use datastore::replication::message::{LogEntry, Message, NodeId, payload_memory_bytes};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::converging_messages::ConvergingMessage;
use crate::memory_figures::Share;
use crate::peer_greeting::{CONNECT_TIMEOUT, GREETING_TIMEOUT, Greeted, prepare};
use crate::peer_links::RarelySaid;
use crate::peer_socket::{read_line, until_closed, write_all};
use crate::peering::Peering;
use crate::replication_messages::CoordinatorMessage;
use crate::start::Cast;
use crate::wal_writer::WalMessage;

/// A peer whose system acknowledges nothing for so long is gone.
const HEARTBEATS_UNANSWERED_MAX: Duration = Duration::from_secs(2);
/// A peer that has much to do may leave entries unread for a while; if it is
/// gone, the heartbeats notice and the lane is opened anew with theirs.
const ENTRIES_UNANSWERED_MAX: Duration = Duration::from_secs(20);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A queue at rest keeps room for so many frames.
const FRAMES_KEPT: usize = 64;
/// Frames are encoded into one write up to about this length.
const WRITE_BYTES: usize = 1 << 20;

/// Frames that wait for a lane's socket.
pub(crate) struct LaneQueue {
    frames: RefCell<VecDeque<(PeerFrame, usize)>>,
    bytes: Cell<usize>,
    /// What they occupy, and what is being written, for `stats`.
    kept: RefCell<Share>,
    writing_bytes: Cell<usize>,
    connected: Cell<bool>,
    filled: Notify,
    /// Rung when the connection is to be opened anew.
    reset: Notify,
}

impl LaneQueue {
    /// Nothing, and no connection.
    pub(crate) fn new(kept: Share) -> LaneQueue {
        LaneQueue {
            frames: RefCell::default(),
            bytes: Cell::new(0),
            kept: RefCell::new(kept),
            writing_bytes: Cell::new(0),
            connected: Cell::new(false),
            filled: Notify::new(),
            reset: Notify::new(),
        }
    }

    /// Queues a frame of the log lane. Says whether there was room for it.
    pub(crate) fn push_entries(&self, frame: PeerFrame) -> bool {
        let bytes = memory_bytes(&frame);
        let queued = self.bytes.get();
        // A message that is larger than the bound goes, too, once it is alone.
        let fits = queued == 0 || queued + bytes <= limits::PEER_LOG_QUEUE_BYTES_MAX;
        if !self.connected.get() || !fits {
            return false;
        }
        self.push(frame, bytes);
        true
    }

    /// Queues a frame of the heartbeat lane: the newest count. Says whether none was dropped.
    pub(crate) fn push_newest(&self, frame: PeerFrame) -> bool {
        if !self.connected.get() {
            return false;
        }
        let is_full = self.frames.borrow().len() >= limits::PEER_HEARTBEAT_QUEUE_MAX;
        if is_full {
            self.pop();
        }
        let bytes = memory_bytes(&frame);
        self.push(frame, bytes);
        !is_full
    }

    fn push(&self, frame: PeerFrame, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.frames.borrow_mut().push_back((frame, bytes));
        self.publish();
        self.filled.notify_one();
    }

    fn publish(&self) {
        let places = self.frames.borrow().capacity() * size_of::<(PeerFrame, usize)>();
        self.kept.borrow_mut().keeps(self.bytes.get() + places + self.writing_bytes.get());
    }

    /// So much room is held for what is being written.
    fn writes(&self, bytes: usize) {
        if self.writing_bytes.replace(bytes) != bytes {
            self.publish();
        }
    }

    fn pop(&self) -> Option<PeerFrame> {
        let (frame, bytes) = self.frames.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get() - bytes);
        if self.bytes.get() == 0 {
            self.frames.borrow_mut().shrink_to(FRAMES_KEPT);
        }
        self.publish();
        Some(frame)
    }

    fn connected(&self) {
        self.connected.set(true);
    }

    fn disconnected(&self) {
        self.connected.set(false);
        self.bytes.set(0);
        *self.frames.borrow_mut() = VecDeque::new();
        self.writing_bytes.set(0);
        self.publish();
    }
}

/// What a frame occupies while it waits. A log has its entries in memory, too, as long as they are among its newest.
fn memory_bytes(frame: &PeerFrame) -> usize {
    let carried: usize = match frame {
        PeerFrame::Message(Message { entries, context, .. }) => {
            entries.iter().map(LogEntry::memory_bytes).sum::<usize>() + payload_memory_bytes(context)
        }
        PeerFrame::Converging(Converging::Message(message)) => match message {
            dynamo::Message::Entries(entries) => {
                entries.iter().map(|payload| size_of_val(payload) + payload_memory_bytes(payload)).sum()
            }
            dynamo::Message::Vector { vector, .. } => vector.memory_bytes(),
            dynamo::Message::Pulse(pulse) => {
                let root = pulse.root.as_ref().map_or(0, |root| root.vector.memory_bytes());
                pulse.vector.memory_bytes() + root
            }
            dynamo::Message::Members(members) => members.memory_bytes(),
            dynamo::Message::TooFarBehind => 0,
        },
        PeerFrame::Converging(
            Converging::KeyState { state: bytes, .. } | Converging::KeyWanted { key: bytes, .. },
        ) => payload_memory_bytes(bytes),
        _ => 0,
    };
    size_of_val(frame) + carried
}

/// A lane's task.
pub(crate) struct LaneTask {
    pub(crate) cast: Arc<Cast>,
    pub(crate) peering: Peering,
    pub(crate) peer: NodeId,
    pub(crate) lane: Lane,
    pub(crate) queue: Rc<LaneQueue>,
    /// The log lane's, on the heartbeat lane.
    pub(crate) other: Option<Rc<LaneQueue>>,
    /// Each looks at the next place where the peer may be.
    pub(crate) attempts: Cell<usize>,
}

impl LaneTask {
    /// Connects, writes, and begins anew, for ever.
    pub(crate) async fn run(self) {
        let mut backoff = BACKOFF_FIRST;
        let mut adopting = false;
        let mut trouble = RarelySaid::default();
        loop {
            match self.connect(adopting).await {
                Ok((socket, Greeted::Connected)) => {
                    (adopting, backoff) = (false, BACKOFF_FIRST);
                    trouble.forget();
                    let error = self.carry(&socket).await;
                    self.say_disconnected(&error);
                }
                Ok((_, Greeted::Adopt)) if !adopting => {
                    adopting = true;
                    continue;
                }
                Ok((_, Greeted::Adopt | Greeted::NotYet)) => adopting = false,
                Ok((_, Greeted::Refused(reason))) => {
                    adopting = false;
                    self.say_trouble(&mut trouble, "the peer is not let in", &reason);
                }
                Err(error) => self.say_trouble(&mut trouble, "the peer can't be reached", &error.to_string()),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connect(&self, adopting: bool) -> io::Result<(TcpStream, Greeted)> {
        let places = self.peering.places_to_look(self.peer);
        let address = places.get(self.attempts.replace(self.attempts.get() + 1) % places.len().max(1));
        let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))?;
        let (socket, line) = match self.greet(address, adopting).await {
            Ok(answered) => answered,
            Err(error) => {
                self.peering.is_silent(address);
                return Err(error);
            }
        };
        let greeted = self.peering.answered(address, &line).await;
        if let Greeted::Connected | Greeted::Adopt = greeted {
            // It is there: the next attempt begins there, too.
            self.attempts.set(self.attempts.get() - 1);
            self.peering.links().found_at(self.peer, &address.host, address.port);
        }
        Ok((socket, greeted))
    }

    /// Connects to a place where the peer may be, and gives the answer to the greeting.
    async fn greet(&self, address: &LeaderAddress, adopting: bool) -> io::Result<(TcpStream, BytesMut)> {
        let late = |what| io::Error::new(io::ErrorKind::TimedOut, what);
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let socket =
            timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| late("it takes no connection"))??;
        let unanswered_max = match self.lane {
            Lane::Heartbeat => HEARTBEATS_UNANSWERED_MAX,
            Lane::Log | Lane::Snapshot => ENTRIES_UNANSWERED_MAX,
        };
        prepare(SockRef::from(&socket), unanswered_max);
        let mut buffer = BytesMut::new();
        let hello = self.peering.greeting(self.peer, self.lane, adopting);
        let line = timeout(GREETING_TIMEOUT, async {
            write_all(&socket, &hello).await?;
            read_line(&socket, &mut buffer).await
        });
        let line = line.await.map_err(|_| late("it doesn't answer the greeting"))??;
        Ok((socket, line))
    }

    /// Writes what is queued until the connection ends; gives the reason.
    async fn carry(&self, socket: &TcpStream) -> io::Error {
        self.queue.connected();
        self.say_connected();
        // As it was greeted a moment ago.
        let writing = self.write(socket, self.peering.links().protocol(self.peer));
        let error = tokio::select! {
            error = writing => error,
            error = until_closed(socket) => error,
            () = self.queue.reset.notified() => io::Error::other("the heartbeats were cut off"),
        };
        self.queue.disconnected();
        error
    }

    async fn write(&self, socket: &TcpStream, protocol: u32) -> io::Error {
        let mut bytes = BytesMut::new();
        loop {
            while bytes.len() < WRITE_BYTES
                && let Some(frame) = self.queue.pop()
            {
                for_version(frame, protocol).iter().for_each(|frame| encode(&mut bytes, frame));
            }
            if bytes.is_empty() {
                bytes = BytesMut::new(); // a lane at rest holds no buffer
                self.queue.writes(0);
                self.queue.filled.notified().await;
                continue;
            }
            self.queue.writes(bytes.capacity());
            if let Err(error) = write_all(socket, &bytes).await {
                return error;
            }
            if bytes.capacity() > WRITE_BYTES {
                bytes = BytesMut::new(); // one large entry must not cost its memory for ever
            }
            bytes.clear();
        }
    }

    fn say_connected(&self) {
        if let Peering::Dynamo(_) = self.peering {
            let speaks = ConvergingMessage::Speaks(self.peer);
            self.cast.wal_writer.send(WalMessage::Converging(speaks));
        }
        if self.lane == Lane::Heartbeat {
            tracing::info!(peer = self.peer, "connected to a peer");
            self.tell_coordinator(true);
        }
    }

    fn say_disconnected(&self, error: &io::Error) {
        self.cast.wal_writer.send(self.peering.unreachable(self.peer));
        if self.lane == Lane::Heartbeat {
            tracing::warn!(peer = self.peer, %error, "the connection to a peer ended");
            self.tell_coordinator(false);
        }
        if let Some(other) = &self.other {
            other.reset.notify_waiters();
        }
    }

    fn tell_coordinator(&self, connected: bool) {
        self.peering.links().set_reached(self.peer, connected);
        if let Some(coordinator) = &self.cast.coordinator {
            coordinator.send(CoordinatorMessage::Peer { node_id: self.peer, connected });
        }
    }

    /// One of the lanes speaks for all: they meet the same trouble.
    fn say_trouble(&self, said: &mut RarelySaid, what: &str, reason: &str) {
        if self.lane == Lane::Heartbeat && said.is_due(reason) {
            tracing::warn!(peer = self.peer, reason, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use datastore::replication::message::{EntryKind, MessageKind};

    use super::*;
    use crate::memory_figures::Held;

    fn probe(number: u64) -> PeerFrame {
        PeerFrame::ReadProbe { number }
    }

    fn append(bytes: usize) -> PeerFrame {
        let payload = vec![0; bytes].into();
        let entries = vec![LogEntry { index: 1, term: 1, kind: EntryKind::Writes, payload }];
        PeerFrame::Message(Message { log_term: 1, entries, ..Message::new(MessageKind::Append, 1, 2, 1) })
    }

    #[test]
    fn nothing_waits_for_a_connection_that_may_never_come() {
        let queue = LaneQueue::new(Arc::new(Held::default()).share());
        assert!(!queue.push_newest(probe(1)) && !queue.push_entries(append(1)));
        queue.connected();
        assert!(queue.push_newest(probe(2)) && queue.push_entries(append(1)));
        queue.disconnected();
        queue.connected();
        assert!(queue.pop().is_none() && queue.bytes.get() == 0);
    }

    #[test]
    fn the_newest_heartbeats_push_the_oldest_out() {
        let queue = LaneQueue::new(Arc::new(Held::default()).share());
        queue.connected();
        let most = limits::PEER_HEARTBEAT_QUEUE_MAX as u64;
        assert!((0..most).all(|number| queue.push_newest(probe(number))));
        assert!(!queue.push_newest(probe(most)));
        let left: Vec<PeerFrame> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(left, (1..=most).map(probe).collect::<Vec<_>>());
    }

    #[test]
    fn entries_are_bounded_in_bytes_and_a_large_one_goes_alone() {
        let queue = LaneQueue::new(Arc::new(Held::default()).share());
        queue.connected();
        assert!(queue.push_entries(append(limits::PEER_LOG_QUEUE_BYTES_MAX + 1)));
        assert!(!queue.push_entries(append(1)));
        queue.pop();
        let half = limits::PEER_LOG_QUEUE_BYTES_MAX / 2;
        assert!(queue.push_entries(append(half)) && !queue.push_entries(append(half)));
        assert!(queue.push_entries(append(1)));
    }
}
