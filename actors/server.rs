//! The listening socket: one connection, one actor, dealt out to the data arbiters in turn.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_rt::ArbiterHandle;
use bytes::BytesMut;
use datastore::error::{Code, Error};
use datastore::messaging::peer_hello::PEER_PREFIX;
use datastore::messaging::reply;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::connection::Connection;
use crate::mailbox::mailbox;
use crate::node::Node;
use crate::peer_session;
use crate::peering::Peering;
use crate::request_stream::Begun;
use crate::start::{Cast, Running};
use crate::starting::{Came, Kind, Waiting};

/// How long a connection too many may take to say that it is a peer's. Peers speak first.
pub(crate) const DOUBT: Duration = Duration::from_millis(200);
/// How many of them may do so at once.
pub(crate) const DOUBTFUL_MAX: usize = 32;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// So much may wait in the system for a client that takes it slowly. It counts as reading when it has taken
/// as much again, not when a third of a buffer of several megabytes is free.
const UNSENT_BYTES_MAX: u32 = 256 * 1024;
/// After so long without a word the system asks whether a client is still there,
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(30);
/// again so often,
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
/// and takes it for gone when it was asked so often and said nothing.
const KEEP_ALIVE_PROBES: u32 = 3;
/// What was sent and nobody acknowledged ends a connection after so long: the probes are for a
/// silence with nothing under way.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);
/// A system without files to spare is told so seldom: each attempt fails.
const FAILURE_SAID_EVERY: Duration = Duration::from_secs(10);

/// Binds the address.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    const BACKLOG: i32 = 1024;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The next connection.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    let mut said: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                prepare(&socket);
                return socket;
            }
            Err(error) => {
                // Out of files, or the client is gone already: later ones may do better.
                if said.is_none_or(|said| said.elapsed() >= FAILURE_SAID_EVERY) {
                    said = Some(Instant::now());
                    tracing::warn!(%error, "a connection could not be accepted; what follows of this is not said each time");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Deals connections out to the arbiters in turn.
pub struct Server {
    node: Arc<Node>,
    cast: Arc<Cast>,
    arbiters: Vec<ArbiterHandle>,
    next_arbiter: usize,
}

impl Server {
    /// Of a node that serves.
    pub fn new(running: &Running) -> Server {
        let (node, cast) = (running.node.clone(), running.cast.clone());
        Server { node, cast, arbiters: running.data_arbiters.clone(), next_arbiter: 0 }
    }

    /// Goes on with the connections that came while the node read its directory.
    pub fn resume(&mut self, came: Came) {
        let figures = &self.node.connections;
        figures.accepted.fetch_add(came.accepted, Ordering::Relaxed);
        figures.refused.fetch_add(came.refused, Ordering::Relaxed);
        for Waiting { socket, kind } in came.waiting {
            match kind {
                Kind::Client { begun, unsent } => self.run(socket, Some((*begun, unsent))),
                Kind::Peer(first) => self.greet(socket, first),
            }
        }
    }

    /// Accepts connections for ever.
    pub async fn serve(mut self, listener: TcpListener) {
        let doubtful = Rc::new(Cell::new(0));
        loop {
            let socket = accept(&listener).await;
            let figures = &self.node.connections;
            figures.accepted.fetch_add(1, Ordering::Relaxed);
            if figures.open.load(Ordering::Relaxed) >= self.node.settings.connections_max {
                turn_away(socket, &self.node, &self.cast, &doubtful);
            } else if let Ok(socket) = socket.into_std() {
                self.run(socket, None);
            }
        }
    }

    fn run(&mut self, socket: std::net::TcpStream, resumed: Option<(Begun, Vec<u8>)>) {
        self.node.connections.open.fetch_add(1, Ordering::Relaxed);
        let arbiter = &self.arbiters[self.next_arbiter % self.arbiters.len()];
        self.next_arbiter += 1;
        run(socket, arbiter, self.node.clone(), self.cast.clone(), resumed);
    }

    fn greet(&self, socket: std::net::TcpStream, first: BytesMut) {
        match Peering::of(&self.node).zip(self.cast.replication_arbiter.clone()) {
            Some((peering, arbiter)) => {
                let (node, cast) = (self.node.clone(), self.cast.clone());
                arbiter.spawn_fn(move || peering.begin_session(node, cast, socket, first));
            }
            None => {
                // Its socket takes a line that is its first; a peer that is gone finds nothing.
                let _ = (&socket).write_all(&peer_session::refuse_alone(self.node.settings.node_id));
            }
        }
    }
}

fn prepare(socket: &TcpStream) {
    // A socket that refuses these still works.
    let _ = socket.set_nodelay(true);
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_AFTER)
        .with_interval(KEEP_ALIVE_EVERY)
        .with_retries(KEEP_ALIVE_PROBES);
    let _ = socket.set_tcp_keepalive(&keep_alive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
}

/// There are as many clients as there may be. A peer gets in all the same, or
/// clients could keep a cluster from coming together again.
fn turn_away(socket: TcpStream, node: &Arc<Node>, cast: &Arc<Cast>, doubtful: &Rc<Cell<usize>>) {
    let peering = Peering::of(node).zip(cast.replication_arbiter.clone());
    let Some((peering, arbiter)) = peering.filter(|_| doubtful.get() < DOUBTFUL_MAX) else {
        return refuse_counted(&socket, node);
    };
    let (node, cast, doubtful) = (node.clone(), cast.clone(), doubtful.clone());
    doubtful.set(doubtful.get() + 1);
    actix_rt::spawn(async move {
        let is_peer = tokio::time::timeout(DOUBT, begins_as_peer(&socket)).await;
        doubtful.set(doubtful.get() - 1);
        if !is_peer.unwrap_or(false) {
            return refuse_counted(&socket, &node);
        }
        if let Ok(socket) = socket.into_std() {
            arbiter.spawn_fn(move || peering.begin_session(node, cast, socket, BytesMut::new()));
        }
    });
}

/// Looks at the first bytes, and leaves them where they are.
pub(crate) async fn begins_as_peer(socket: &TcpStream) -> bool {
    let mut first = [0; PEER_PREFIX.len()];
    loop {
        match socket.peek(&mut first).await {
            Ok(count) if count == first.len() => return first == *PEER_PREFIX,
            Ok(count) if count > 0 && PEER_PREFIX.starts_with(&first[..count]) => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            _ => return false,
        }
    }
}

fn refuse_counted(socket: &TcpStream, node: &Node) {
    node.connections.refused.fetch_add(1, Ordering::Relaxed);
    refuse(socket, node.settings.connections_max);
}

/// Tells a client that it is one too many.
pub(crate) fn refuse(socket: &TcpStream, most: usize) {
    // What is left unread when a socket closes may cost the client its answer.
    let _ = socket.try_read(&mut [0; 4_096]);
    let mut line = Vec::new();
    let message = format!("the node has its {most} connections (--max-connections); try again later");
    reply::error(&mut line, b"", &Error::new(Code::TooManyConnections, message));
    // A client that can't even take this line finds the connection closed.
    let _ = socket.try_write(&line);
}

fn run(
    socket: std::net::TcpStream,
    arbiter: &ArbiterHandle,
    node: Arc<Node>,
    cast: Arc<Cast>,
    resumed: Option<(Begun, Vec<u8>)>,
) {
    arbiter.spawn_fn(move || {
        let (address, inbox) = mailbox::<Connection>(cast.connection_gauge.clone());
        let registration = cast.register(address.clone());
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                let half_lines = cast.half_lines.clone();
                let mut connection = Connection::new(node, cast, (address, registration), half_lines, socket);
                if let Some((begun, unsent)) = resumed {
                    connection.resume(begun, &unsent);
                }
                inbox.run(connection);
            }
            Err(_) => cast.connection_closed(&node, registration),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_vanished_is_noticed_within_a_minute_and_a_slow_one_is_none() {
        actix_rt::System::new().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = accept(&listener).await;
            let socket = SockRef::from(&socket);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            let asked = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
            assert!(socket.tcp_keepalive_time().unwrap() + asked <= Duration::from_secs(60));
            // Where it is not set, who reads 100 kB a second is taken for one that doesn't read: the system says
            // that there is room when a third of several megabytes is free.
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
        });
    }
}
