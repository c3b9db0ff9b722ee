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
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use datastore::error::Error;
use datastore::limits;
use datastore::messaging::peer_hello::PEER_PREFIX;
use datastore::messaging::{Decoded, LineDecoder, OtherProtocol};
use futures_core::Stream;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::half_lines::{
    Decoding, HalfLine, HalfLines, LONG_LINE_BYTES, PATIENCE, ROOM_PAUSE, Room, has_ended,
};
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
    /// Only as much is to be under way as one read brings.
    is_narrow: Cell<bool>,
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

    /// Whether less than usual is to be under way, since this connection's writes wait for their turn.
    pub fn narrow(&self, is_narrow: bool) {
        self.is_narrow.set(is_narrow);
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

    fn is_open(&self, bytes_max: usize) -> bool {
        self.bytes.get() < bytes_max
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

/// A connection decodes so many requests before the others on its thread have their turn.
const TURN_REQUESTS: usize = 1_024;

/// The stream of requests of one connection.
pub struct RequestStream {
    node: Arc<Node>,
    half_line: HalfLine,
    /// What the half-read line occupies, for `stats`.
    kept: Share,
    socket: Rc<TcpStream>,
    gate: Rc<Gate>,
    decoder: LineDecoder,
    /// The decoder, while a long line is decoded elsewhere.
    decoding: Option<Decoding>,
    timer: Pin<Box<Sleep>>,
    /// When a half-read line must have grown; unset while there is none, or while we don't read.
    progress_due: Option<Instant>,
    /// Requests decoded since others had their turn.
    decoded: usize,
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
            half_line: HalfLine::new(half_lines),
            socket,
            gate,
            decoder,
            decoding: None,
            timer: Box::pin(sleep_until(Instant::now())),
            progress_due: None,
            decoded: 0,
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
        self.progress_due = self.decoder.is_within_line().then(|| Instant::now() + PATIENCE);
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
        self.half_line.occupies(bytes);
    }

    /// Waits until the line that has begun may grow. `Ready`: it may, or something else is to be done.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Room> {
        loop {
            match self.half_line.room() {
                Room::Wait if has_ended(&self.socket) => return Poll::Ready(Room::Grow),
                Room::Wait => {}
                room => return Poll::Ready(room),
            }
            self.progress_due = None;
            if !self.poll_timer(Instant::now() + ROOM_PAUSE, context) {
                return Poll::Pending;
            }
        }
    }

    /// The line that has begun found no room in time: it is answered, and what comes of it is thrown away.
    fn refuse_half_line(&mut self) -> Option<Decoded> {
        let refusal = Error::overloaded(format!(
            "half-read lines of other connections occupy all {} bytes that there are for them, and \
             this line found no room within {} ms; send it again",
            limits::HALF_LINES_BYTES_MAX,
            limits::LINE_PROGRESS_TIMEOUT_MS
        ));
        let decoded = self.decoder.refuse_half(refusal);
        self.account_half_line();
        self.progress_due = Some(Instant::now() + PATIENCE);
        decoded
    }

    /// What is decoded now, if anything: lines that came earlier go first.
    fn poll_decoded(&mut self, decoded: Option<Decoded>) -> Option<Poll<Option<Received>>> {
        self.account_half_line();
        let decoded = decoded?;
        self.decoded += decoded.requests.len();
        Some(Poll::Ready(Some(Received::Requests(decoded))))
    }

    /// What this connection may have under way now: less while all of them have very much, or while its
    /// writes wait.
    fn in_flight_bytes_max(&self) -> usize {
        let memory = &self.node.memory;
        let all = memory.requests.bytes() + memory.connections.bytes();
        if self.gate.is_narrow.get() || all >= limits::REQUESTS_BYTES_CROWDED {
            limits::SOCKET_READ_BYTES
        } else {
            limits::CONNECTION_IN_FLIGHT_BYTES_MAX
        }
    }

    /// Reads once. `Ok(None)`: nothing there yet.
    fn read(&mut self) -> io::Result<Option<Came>> {
        let RequestStream { socket, decoder, may_be_peer, half_line, node, .. } = self;
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
            if decoder.half().len() >= LONG_LINE_BYTES && bytes.contains(&b'\n') {
                let decoder = std::mem::replace(decoder, LineDecoder::new(node.settings.line_bytes_max));
                return Came::LongLine(half_line.decode_long(decoder, Some(bytes.to_vec())));
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
    /// The end of a long line.
    LongLine(Decoding),
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
            if let Some(decoding) = &mut this.decoding {
                let Poll::Ready(decoded) = decoding.as_mut().poll(context) else { return Poll::Pending };
                this.decoding = None;
                let Some((decoder, decoded)) = decoded else { return this.end(Received::End) };
                this.decoder = decoder;
                this.progresses();
                this.idle.read();
                if let Some(other) = this.decoder.other_protocol() {
                    return this.end(Received::Other(other));
                }
                match this.poll_decoded(decoded) {
                    Some(received) => return received,
                    None => continue,
                }
            }
            // What was read is still answered.
            if this.gate.closed.get() && !this.decoder.has_more() {
                return this.end(Received::End);
            }
            if !this.gate.is_open(this.in_flight_bytes_max()) {
                (this.progress_due, this.decoded) = (None, 0);
                *this.gate.reader.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            if this.decoded >= TURN_REQUESTS {
                this.decoded = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.decoder.has_more() {
                let decoded = this.decoder.more();
                match this.poll_decoded(decoded) {
                    Some(received) => return received,
                    None => continue,
                }
            }
            if this.at_end && this.decoder.half().len() >= LONG_LINE_BYTES {
                let empty = LineDecoder::new(this.node.settings.line_bytes_max);
                let decoder = std::mem::replace(&mut this.decoder, empty);
                this.decoding = Some(this.half_line.decode_long(decoder, None));
                continue;
            }
            if this.at_end {
                // What stands behind the last newline is a request, too.
                return match (this.decoder.finish(), this.decoder.other_protocol()) {
                    (Some(decoded), _) => Poll::Ready(Some(Received::Requests(decoded))),
                    (None, Some(other)) => this.end(Received::Other(other)),
                    (None, None) => this.end(Received::End),
                };
            }
            match this.socket.poll_read_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return this.end(Received::Failed(error)),
                Poll::Pending => {
                    this.decoded = 0;
                    *this.gate.reader.borrow_mut() = Some(context.waker().clone());
                    if this.progress_due.is_none() {
                        // It wasn't read for a while: its time begins anew.
                        this.progresses();
                    }
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
            match this.poll_room(context) {
                Poll::Ready(Room::Refused) => match this.refuse_half_line() {
                    Some(refused) => return Poll::Ready(Some(Received::Requests(refused))),
                    None => match this.decoder.other_protocol() {
                        Some(other) => return this.end(Received::Other(other)),
                        None => continue,
                    },
                },
                Poll::Ready(Room::Grow | Room::Wait) => {}
                Poll::Pending => return Poll::Pending,
            }
            let decoded = match this.read() {
                Ok(None) => continue,
                Ok(Some(Came::End)) => {
                    this.at_end = true;
                    continue;
                }
                Ok(Some(Came::Peer(first))) => return this.end(Received::Peer(first)),
                Ok(Some(Came::LongLine(decoding))) => {
                    (this.decoding, this.progress_due) = (Some(decoding), None);
                    continue;
                }
                Ok(Some(Came::Bytes(decoded))) => decoded,
                Err(error) => return this.end(Received::Failed(error)),
            };
            this.progresses();
            this.idle.read();
            if let Some(other) = this.decoder.other_protocol() {
                return this.end(Received::Other(other));
            }
            if let Some(received) = this.poll_decoded(decoded) {
                return received;
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
