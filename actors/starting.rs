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
    /// One too many, unless they turn out to be peers.
    doubtful: Cell<usize>,
    refused: Cell<u64>,
    /// Of all half-read lines.
    half_bytes: Cell<usize>,
    /// Of all replies that weren't taken yet.
    unsent_bytes: Cell<usize>,
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
        doubtful: Cell::new(0),
        refused: Cell::new(0),
        half_bytes: Cell::new(0),
        unsent_bytes: Cell::new(0),
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
            came.accepted += 1;
            let place = if shared.clients.get() < shared.connections_max {
                Place::Client(Counted::new(&shared, |shared| &shared.clients))
            } else if shared.doubtful.get() < server::DOUBTFUL_MAX {
                Place::Doubtful(Counted::new(&shared, |shared| &shared.doubtful))
            } else {
                shared.refuse(&socket);
                continue;
            };
            let (shared, is_over, give) = (shared.clone(), is_over.clone(), give.clone());
            actix_rt::spawn(async move {
                let waiting = attend(socket, &shared, is_over, place).await;
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
    came.refused = shared.refused.get();
    (outcome, came)
}

impl Shared {
    fn refuse(&self, socket: &TcpStream) {
        self.refused.set(self.refused.get() + 1);
        server::refuse(socket, self.connections_max);
    }
}

/// Counts one of a kind as long as it lives.
struct Counted {
    shared: Rc<Shared>,
    of: fn(&Shared) -> &Cell<usize>,
}

impl Counted {
    fn new(shared: &Rc<Shared>, of: fn(&Shared) -> &Cell<usize>) -> Counted {
        of(shared).set(of(shared).get() + 1);
        Counted { shared: shared.clone(), of }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = (self.of)(&self.shared);
        count.set(count.get() - 1);
    }
}

/// What an accepted connection counts as from its first moment on.
enum Place {
    Client(Counted),
    /// There are as many clients as there may be. A peer gets in all the same, as ever.
    Doubtful(Counted),
}

/// One connection, until it ends or the node serves.
async fn attend(
    socket: TcpStream,
    shared: &Rc<Shared>,
    over: watch::Receiver<bool>,
    place: Place,
) -> Option<Waiting> {
    let counted = match place {
        Place::Client(counted) => counted,
        Place::Doubtful(counted) => {
            let is_peer = timeout(server::DOUBT, server::begins_as_peer(&socket)).await.unwrap_or(false);
            if !is_peer {
                shared.refuse(&socket);
                return None;
            }
            counted
        }
    };
    let mut client = Client {
        shared,
        over,
        decoder: LineDecoder::new(shared.line_bytes_max),
        may_be_peer: true,
        unsent: Vec::new(),
        half_bytes: 0,
        unsent_bytes: 0,
        socket,
    };
    match client.talk().await {
        Talked::Gone => {
            drop(client.into_socket());
            None
        }
        Talked::IsAtEnd => {
            let unsent = std::mem::take(&mut client.unsent);
            let socket = client.into_socket();
            // Nobody waits for it: the node may serve meanwhile.
            actix_rt::spawn(async move {
                let _counted = counted;
                let mut sent = 0;
                send(&socket, &unsent, &mut sent).await;
            });
            None
        }
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
    /// It says no more, and takes what it hasn't taken yet.
    IsAtEnd,
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
    /// Its part of what all replies occupy that weren't taken yet.
    unsent_bytes: usize,
    socket: TcpStream,
}

impl Client<'_> {
    async fn talk(&mut self) -> Talked {
        loop {
            if let Some(ended) = self.write().await {
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
            self.count_unsent();
            if is_end || other.is_some() {
                return Talked::IsAtEnd;
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

    /// Whether more may be read of this client. While the half-read lines, or the replies not taken yet, of all clients
    /// together occupy their budget, it waits.
    fn has_room(&self) -> bool {
        let for_lines =
            self.half_bytes <= READ_BYTES || self.shared.half_bytes.get() <= limits::HALF_LINES_BYTES_MAX;
        for_lines && self.shared.unsent_bytes.get() <= limits::REQUESTS_BYTES_CROWDED
    }

    fn count_unsent(&mut self) {
        let all = &self.shared.unsent_bytes;
        all.set(all.get() - self.unsent_bytes + self.unsent.capacity());
        self.unsent_bytes = self.unsent.capacity();
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

    /// Writes what is there. `Some` when the connection is at its end here, be it that the node serves by now.
    async fn write(&mut self) -> Option<Talked> {
        let mut sent = 0;
        let ended = tokio::select! {
            biased;
            is_taken = send(&self.socket, &self.unsent, &mut sent) => (!is_taken).then_some(Talked::Gone),
            _ = self.over.changed() => Some(Talked::NodeServes),
        };
        self.unsent.drain(..sent);
        self.unsent.shrink_to_fit();
        self.count_unsent();
        ended
    }

    fn into_socket(mut self) -> TcpStream {
        self.decoder = LineDecoder::new(0);
        self.count_half();
        self.unsent = Vec::new();
        self.count_unsent();
        self.socket
    }
}

/// Sends all of it, as fast as it is taken; says whether it was. `sent` is how far it is.
async fn send(socket: &TcpStream, unsent: &[u8], sent: &mut usize) -> bool {
    let patience = Duration::from_millis(limits::WRITE_PROGRESS_TIMEOUT_MS);
    while *sent < unsent.len() {
        match socket.try_write(&unsent[*sent..]) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !matches!(timeout(patience, socket.writable()).await, Ok(Ok(()))) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
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
    shared: &Rc<Shared>,
    mut over: watch::Receiver<bool>,
) -> Option<Waiting> {
    if shared.peers.get() >= PEERS_WAITING_MAX {
        return None;
    }
    let _counted = Counted::new(shared, |shared| &shared.peers);
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
