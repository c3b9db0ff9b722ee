//! Clients of a node that still reads its data directory.
//!
//! The port is bound from the beginning. Until the directory is read each request is
//! answered `starting`, with how far that is, but for `ping`; then connections go on
//! where they are, with the line that is half read and the replies that weren't taken
//! yet. Peers wait, as they do for a node that isn't there yet.
//!
//! ```text
//! accept ─► attend: read ─► lines ─► `starting` ─► written ─┐
//!             ▲                                             │   the directory is read
//!             └─────────────────────────────────────────────┘ ────────────────────────► Waiting ─► Connection
//! ```
//!
//! What a client costs is bounded: it is read 8 KiB at a time, and not before it took the
//! replies to what it sent before; half-read lines share a budget; there are as many
//! clients as the node serves.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use datastore::error::{Code, Detail, Error};
use datastore::limits;
use datastore::messaging::peer_hello::PEER_PREFIX;
use datastore::messaging::{Decoded, LineDecoder, Operation, reply};
use datastore::settings::Settings;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::progress::directory_read;
use crate::request_stream::Begun;
use crate::server;

/// What is read of a client at once.
const READ_BYTES: usize = 8 * 1024;
/// So many peers' connections wait; a peer has three, and makes new ones.
const PEERS_WAITING_MAX: usize = 64;
/// A peer says one line, and then waits.
const PEER_BYTES_MAX: usize = 64 * 1024;

/// A connection that was there when the node began to serve.
pub(crate) struct Waiting {
    pub(crate) socket: std::net::TcpStream,
    pub(crate) kind: Kind,
}

/// Who is at the other end, and what came from there.
pub(crate) enum Kind {
    /// A client, with the replies that it hasn't taken.
    Client { begun: Box<Begun>, unsent: Vec<u8> },
    /// A peer, with its greeting.
    Peer(BytesMut),
}

/// What all connections share meanwhile.
struct Shared {
    line_bytes_max: usize,
    connections_max: usize,
    clients: Cell<usize>,
    peers: Cell<usize>,
    /// Of all half-read lines.
    half_bytes: Cell<usize>,
    read: RefCell<Vec<u8>>,
}

/// Who came before the node served.
#[derive(Default)]
pub struct Came {
    /// Those that are still there.
    pub(crate) waiting: Vec<Waiting>,
    /// How many were accepted.
    pub(crate) accepted: u64,
    /// Of these, one too many.
    pub(crate) refused: u64,
}

/// Answers `starting` until `ready` is; gives what became of that.
pub async fn serve_until<T>(
    listener: &TcpListener,
    settings: &Settings,
    ready: impl Future<Output = T>,
) -> (T, Came) {
    let shared = Rc::new(Shared {
        line_bytes_max: settings.line_bytes_max,
        connections_max: settings.connections_max,
        clients: Cell::new(0),
        peers: Cell::new(0),
        half_bytes: Cell::new(0),
        read: RefCell::new(vec![0; READ_BYTES]),
    });
    let (over, is_over) = watch::channel(false);
    let (give, mut given) = mpsc::unbounded_channel();
    let mut came = Came::default();
    let outcome = {
        tokio::pin!(ready);
        loop {
            let socket = tokio::select! {
                outcome = &mut ready => break outcome,
                socket = server::accept(listener) => socket,
            };
            let is_full = shared.clients.get() >= shared.connections_max;
            came.accepted += 1;
            came.refused += u64::from(is_full);
            let (shared, is_over, give) = (shared.clone(), is_over.clone(), give.clone());
            actix_rt::spawn(async move {
                let waiting = attend(socket, &shared, is_over, is_full).await;
                if let Some(waiting) = waiting {
                    // Whoever takes them waits for all.
                    let _ = give.send(waiting);
                }
            });
        }
    };
    drop((give, is_over));
    // It is received by all that are still there.
    let _ = over.send(true);
    while let Some(waiting) = given.recv().await {
        came.waiting.push(waiting);
    }
    (outcome, came)
}

/// Counts one of a kind as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a Cell<usize>) -> Counted<'a> {
        count.set(count.get() + 1);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One connection, until it ends or the node serves.
async fn attend(
    socket: TcpStream,
    shared: &Shared,
    over: watch::Receiver<bool>,
    is_full: bool,
) -> Option<Waiting> {
    if is_full {
        // A peer gets in all the same, as ever.
        let is_peer = timeout(server::DOUBT, server::begins_as_peer(&socket)).await.unwrap_or(false);
        if !is_peer {
            server::refuse(&socket, shared.connections_max);
            return None;
        }
    }
    let counted = Counted::new(&shared.clients);
    let mut client = Client {
        shared,
        over,
        decoder: LineDecoder::new(shared.line_bytes_max),
        may_be_peer: true,
        unsent: Vec::new(),
        half_bytes: 0,
        socket,
    };
    match client.talk().await {
        Talked::Gone => None,
        Talked::NodeServes => {
            let begun = Begun {
                decoder: std::mem::replace(&mut client.decoder, LineDecoder::new(0)),
                may_be_peer: client.may_be_peer,
            };
            let unsent = std::mem::take(&mut client.unsent);
            let socket = client.into_socket().into_std().ok()?;
            Some(Waiting { socket, kind: Kind::Client { begun: Box::new(begun), unsent } })
        }
        Talked::IsPeer(first) => {
            let over = client.over.clone();
            let socket = client.into_socket();
            drop(counted);
            wait_as_peer(socket, first, shared, over).await
        }
    }
}

/// How talking to a client ends.
enum Talked {
    /// It is gone, or was told to be.
    Gone,
    /// It goes on with an actor of its own.
    NodeServes,
    /// It is none; this has come of its greeting.
    IsPeer(BytesMut),
}

/// What a read brought.
enum Brought {
    End,
    Peer(BytesMut),
    Lines(Option<Decoded>),
}

struct Client<'a> {
    shared: &'a Shared,
    over: watch::Receiver<bool>,
    decoder: LineDecoder,
    may_be_peer: bool,
    unsent: Vec<u8>,
    /// Its part of what all half-read lines occupy.
    half_bytes: usize,
    socket: TcpStream,
}

impl Client<'_> {
    async fn talk(&mut self) -> Talked {
        loop {
            if let Some(ended) = self.write(true).await {
                return ended;
            }
            let within_line = self.decoder.is_within_line();
            let patience = Duration::from_millis(limits::LINE_PROGRESS_TIMEOUT_MS);
            tokio::select! {
                // The node serves, or nobody says any more that it doesn't.
                _ = self.over.changed() => return Talked::NodeServes,
                readable = self.socket.readable(), if self.has_room() => if readable.is_err() { return Talked::Gone },
                () = tokio::time::sleep(patience), if within_line && self.has_room() => return Talked::Gone,
            }
            let read = match self.read() {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(_) => return Talked::Gone,
            };
            let (decoded, is_end) = match read {
                Brought::Peer(first) => return Talked::IsPeer(first),
                Brought::Lines(decoded) => (decoded, false),
                Brought::End => (self.decoder.finish(), true),
            };
            decoded.iter().for_each(|decoded| self.answer(decoded));
            while self.decoder.has_more() {
                let decoded = self.decoder.more();
                decoded.iter().for_each(|decoded| self.answer(decoded));
            }
            self.count_half();
            let other = self.decoder.other_protocol();
            self.unsent.extend(other.map(|protocol| protocol.answer()).unwrap_or_default());
            if is_end || other.is_some() {
                self.write(false).await;
                return Talked::Gone;
            }
        }
    }

    /// Reads once; `None` when nothing is there.
    fn read(&mut self) -> std::io::Result<Option<Brought>> {
        let mut read = self.shared.read.borrow_mut();
        let count = match self.socket.try_read(&mut read) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = &read[..count];
        if bytes.is_empty() {
            return Ok(Some(Brought::End));
        }
        if self.may_be_peer {
            let first = [self.decoder.half(), bytes].concat();
            if first.starts_with(PEER_PREFIX) {
                return Ok(Some(Brought::Peer(BytesMut::from(&first[..]))));
            }
            self.may_be_peer = PEER_PREFIX.starts_with(&first);
        }
        Ok(Some(Brought::Lines(self.decoder.decode(bytes))))
    }

    /// Others' half-read lines may have filled the budget: then this one waits until the node serves.
    fn has_room(&self) -> bool {
        self.half_bytes <= READ_BYTES || self.shared.half_bytes.get() <= limits::NODE_IN_FLIGHT_BYTES_MAX / 2
    }

    fn count_half(&mut self) {
        let half = self.decoder.half_bytes();
        let all = &self.shared.half_bytes;
        all.set(all.get() - self.half_bytes + half);
        self.half_bytes = half;
    }

    fn answer(&mut self, decoded: &Decoded) {
        for request in &decoded.requests {
            let id = request.id.of(&decoded.arena);
            match &request.operation {
                Ok(Operation::Ping) => reply::pong(&mut self.unsent, id),
                Ok(_) => reply::error(&mut self.unsent, id, &starting(directory_read())),
                Err(refusal) => reply::error(&mut self.unsent, id, refusal),
            }
        }
    }

    /// Writes what is there. `Some` when the connection is at its end here, be it that the node serves
    /// by now, where the connection `may_go_on`.
    async fn write(&mut self, may_go_on: bool) -> Option<Talked> {
        let mut sent = 0;
        let patience = Duration::from_millis(limits::WRITE_PROGRESS_TIMEOUT_MS);
        let ended = loop {
            if sent == self.unsent.len() {
                break None;
            }
            match self.socket.try_write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tokio::select! {
                        _ = self.over.changed(), if may_go_on => break Some(Talked::NodeServes),
                        writable = timeout(patience, self.socket.writable()) => {
                            if !matches!(writable, Ok(Ok(()))) {
                                break Some(Talked::Gone);
                            }
                        }
                    }
                }
                Err(_) => break Some(Talked::Gone),
            }
        };
        self.unsent.drain(..sent);
        self.unsent.shrink_to_fit();
        ended
    }

    fn into_socket(mut self) -> TcpStream {
        self.decoder = LineDecoder::new(0);
        self.count_half();
        self.socket
    }
}

fn starting(progress: f64) -> Error {
    let message = format!(
        "the node reads its data directory, and has {:.1} % of it; try again in a moment",
        progress * 100.0
    );
    Error::new(Code::Starting, message).with_detail(Detail::Progress(progress))
}

/// A peer that greets waits for its answer, and may lose patience.
async fn wait_as_peer(
    socket: TcpStream,
    mut first: BytesMut,
    shared: &Shared,
    mut over: watch::Receiver<bool>,
) -> Option<Waiting> {
    if shared.peers.get() >= PEERS_WAITING_MAX {
        return None;
    }
    let _counted = Counted::new(&shared.peers);
    loop {
        tokio::select! {
            _ = over.changed() => {
                return Some(Waiting { socket: socket.into_std().ok()?, kind: Kind::Peer(first) });
            }
            readable = socket.readable() => readable.ok()?,
        }
        let mut read = shared.read.borrow_mut();
        match socket.try_read(&mut read) {
            Ok(0) => return None,
            Ok(count) if first.len() + count <= PEER_BYTES_MAX => first.extend_from_slice(&read[..count]),
            Ok(_) => return None,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}
