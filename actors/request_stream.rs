//! The reading half of a connection: socket → whole lines → requests.
//!
//! It stops reading while the connection has as many unanswered requests and
//! unsent replies as it may (the [`Gate`]), so that a client that sends and
//! never reads costs bounded memory; the rest waits in the sockets' buffers.
//!
//! A connection whose first bytes are those of a peer is no client's: it is
//! handed over as it is.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use datastore::limits;
use datastore::messaging::peer_hello::PEER_PREFIX;
use datastore::messaging::{Decoded, LineDecoder, OtherProtocol};
use futures_core::Stream;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::idle::{IdleWatch, QuietSince};
use crate::memory_figures::Share;
use crate::node::Node;
use crate::read_buffer::read_once;

/// Counts what a connection has under way, in bytes of memory; shared by its reading half and its actor.
#[derive(Default)]
pub struct Gate {
    bytes: Cell<usize>,
    /// Of these, lines of requests.
    arena_bytes: Cell<usize>,
    closed: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    quiet: QuietSince,
}

impl Gate {
    /// Requests came in, or replies wait to be sent.
    pub fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// Requests were answered, or replies sent.
    pub fn remove(&self, bytes: usize) {
        let left = self.bytes.get() - bytes;
        self.bytes.set(left);
        if left == 0 && bytes > 0 {
            self.quiet.now();
        }
        if left < limits::CONNECTION_IN_FLIGHT_BYTES_MAX / 2 {
            self.wake();
        }
    }

    /// Lines came in, of which some are needed.
    pub fn add_arena(&self, bytes: usize) {
        self.arena_bytes.set(self.arena_bytes.get() + bytes);
        self.add(bytes);
    }

    /// None of them is needed any more.
    pub fn remove_arena(&self, bytes: usize) {
        self.arena_bytes.set(self.arena_bytes.get() - bytes);
        self.remove(bytes);
    }

    /// What is under way.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// What is under way without the lines of the requests.
    pub fn bytes_beside_arenas(&self) -> usize {
        self.bytes.get() - self.arena_bytes.get()
    }

    /// Nothing more is to be read.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// Since when nothing is under way, if so.
    pub fn quiet(&self) -> Option<&QuietSince> {
        (self.bytes.get() == 0).then_some(&self.quiet)
    }

    fn wake(&self) {
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    fn is_open(&self) -> bool {
        self.bytes.get() < limits::CONNECTION_IN_FLIGHT_BYTES_MAX
    }
}

/// What reading brought.
pub enum Received {
    /// Requests, in the order of their lines.
    Requests(Decoded),
    /// Another node greets this one, and these are its first bytes. Nothing more is read here.
    Peer(BytesMut),
    /// The client closed its half; replies still go out.
    End,
    /// The socket failed.
    Failed(io::Error),
    /// A started line made no progress.
    HalfLineTimeout,
    /// Nothing came or went for `--idle-timeout-ms`.
    Idle,
    /// The client speaks another protocol: it is told so, and nothing more is read.
    Other(OtherProtocol),
}

/// What was read of a connection while the node read its directory.
pub struct Begun {
    /// With the half-read line, if there is one.
    pub decoder: LineDecoder,
    /// So far it may be a peer.
    pub may_be_peer: bool,
}

/// How long to look away when all connections together have too much under way.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);
/// Half-read lines beyond one ordinary read take from a budget that all connections share.
const HALF_LINE_FREE_BYTES: usize = limits::SOCKET_READ_BYTES;

/// Bytes of half-read lines over all connections.
#[derive(Default)]
pub struct HalfLines {
    bytes: AtomicUsize,
}

/// The stream of requests of one connection.
pub struct RequestStream {
    node: Arc<Node>,
    half_lines: Arc<HalfLines>,
    half_line_bytes: usize,
    /// What the half-read line occupies, for `stats`.
    kept: Share,
    socket: Rc<TcpStream>,
    gate: Rc<Gate>,
    decoder: LineDecoder,
    timer: Pin<Box<Sleep>>,
    /// When a half-read line must have grown; unset while there is none, or while we don't read.
    progress_due: Option<Instant>,
    /// So far it may be a peer.
    may_be_peer: bool,
    idle: IdleWatch,
    /// The client closed its half.
    at_end: bool,
    ended: bool,
}

impl RequestStream {
    /// Reads requests from `socket` while `gate` is open. It goes on where `begun` is, if anything was read.
    pub fn new(
        node: Arc<Node>,
        half_lines: Arc<HalfLines>,
        socket: Rc<TcpStream>,
        gate: Rc<Gate>,
        begun: Option<Begun>,
    ) -> Self {
        let Begun { decoder, may_be_peer } = begun.unwrap_or_else(|| Begun {
            decoder: LineDecoder::new(node.settings.line_bytes_max),
            may_be_peer: true,
        });
        let mut stream = RequestStream {
            kept: node.memory.connections.share(),
            idle: IdleWatch::new(node.settings.idle_timeout_ms),
            node,
            half_lines,
            half_line_bytes: 0,
            socket,
            gate,
            decoder,
            timer: Box::pin(sleep_until(Instant::now())),
            progress_due: None,
            may_be_peer,
            at_end: false,
            ended: false,
        };
        stream.account_half_line();
        stream.progresses();
        stream
    }

    /// A half-read line has just grown, if there is one.
    fn progresses(&mut self) {
        let patience = Duration::from_millis(limits::LINE_PROGRESS_TIMEOUT_MS);
        self.progress_due = self.decoder.is_within_line().then(|| Instant::now() + patience);
    }

    fn end(&mut self, how: Received) -> Poll<Option<Received>> {
        self.ended = true;
        self.account_half_line();
        Poll::Ready(Some(how))
    }

    /// Waits on the timer; whether its time has come.
    fn poll_timer(&mut self, until: Instant, context: &mut Context<'_>) -> bool {
        if self.timer.deadline() != until {
            self.timer.as_mut().reset(until);
        }
        self.timer.as_mut().poll(context).is_ready()
    }

    fn account_half_line(&mut self) {
        let bytes = if self.ended { 0 } else { self.decoder.half_bytes() };
        self.kept.keeps(bytes);
        let counted = bytes.saturating_sub(HALF_LINE_FREE_BYTES);
        let before = std::mem::replace(&mut self.half_line_bytes, counted);
        if counted >= before {
            self.half_lines.bytes.fetch_add(counted - before, Ordering::Relaxed);
        } else {
            self.half_lines.bytes.fetch_sub(before - counted, Ordering::Relaxed);
        }
    }

    /// Another connection's half-read lines fill the budget and this one's would add to it.
    fn must_wait_for_room(&self) -> bool {
        let others = self.half_lines.bytes.load(Ordering::Relaxed) - self.half_line_bytes;
        let room = limits::NODE_IN_FLIGHT_BYTES_MAX / 2;
        self.node.permits.is_crowded() || (others > room && self.half_line_bytes > 0)
    }

    /// Reads once. `Ok(None)`: nothing there yet.
    fn read(&mut self) -> io::Result<Option<Came>> {
        let RequestStream { socket, decoder, may_be_peer, .. } = self;
        read_once(socket, |bytes| {
            if bytes.is_empty() {
                return Came::End;
            }
            if *may_be_peer {
                let first = [decoder.half(), bytes].concat();
                if first.starts_with(PEER_PREFIX) {
                    return Came::Peer(BytesMut::from(&first[..]));
                }
                *may_be_peer = PEER_PREFIX.starts_with(&first);
            }
            Came::Bytes(decoder.decode(bytes))
        })
    }
}

/// What one read has brought.
enum Came {
    /// The client closed its half.
    End,
    /// Another node greets this one.
    Peer(BytesMut),
    /// Bytes, and what requests they complete.
    Bytes(Option<Decoded>),
}

impl Stream for RequestStream {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if this.gate.closed.get() {
                return this.end(Received::End);
            }
            if this.at_end {
                // What stands behind the last newline is a request, too.
                return match (this.decoder.finish(), this.decoder.other_protocol()) {
                    (Some(decoded), _) => Poll::Ready(Some(Received::Requests(decoded))),
                    (None, Some(other)) => this.end(Received::Other(other)),
                    (None, None) => this.end(Received::End),
                };
            }
            if !this.gate.is_open() {
                this.progress_due = None;
                *this.gate.reader.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            if this.must_wait_for_room() {
                this.progress_due = None;
                let until = Instant::now() + CROWDED_PAUSE;
                if !this.poll_timer(until, context) {
                    return Poll::Pending;
                }
                continue;
            }
            match this.socket.poll_read_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return this.end(Received::Failed(error)),
                Poll::Pending => {
                    *this.gate.reader.borrow_mut() = Some(context.waker().clone());
                    let due = this.progress_due;
                    if due.is_some_and(|due| this.poll_timer(due, context)) {
                        return this.end(Received::HalfLineTimeout);
                    }
                    let quiet = this.gate.quiet().filter(|_| due.is_none());
                    if this.idle.is_over(quiet, context) {
                        return this.end(Received::Idle);
                    }
                    return Poll::Pending;
                }
            }
            let decoded = match this.read() {
                Ok(None) => continue,
                Ok(Some(Came::End)) => {
                    this.at_end = true;
                    continue;
                }
                Ok(Some(Came::Peer(first))) => return this.end(Received::Peer(first)),
                Ok(Some(Came::Bytes(decoded))) => decoded,
                Err(error) => return this.end(Received::Failed(error)),
            };
            this.account_half_line();
            this.progresses();
            this.idle.read();
            if let Some(other) = this.decoder.other_protocol() {
                return this.end(Received::Other(other));
            }
            if let Some(decoded) = decoded {
                return Poll::Ready(Some(Received::Requests(decoded)));
            }
        }
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.ended = true;
        self.account_half_line();
    }
}
