//! The listening socket: one connection, one actor, dealt out to the data arbiters in turn.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use bytes::BytesMut;
use datastore::error::{Code, Error};
use datastore::messaging::peer_hello::PEER_PREFIX;
use datastore::messaging::reply;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::connection::Connection;
use crate::mailbox::mailbox;
use crate::node::Node;
use crate::peering::Peering;
use crate::start::Cast;

/// Files that the node itself needs beside its clients' connections: the log's, and its peers' sockets.
const FILES_RESERVED: u64 = 128;
/// How long a connection too many may take to say that it is a peer's. Peers speak first.
const DOUBT: Duration = Duration::from_millis(200);
/// How many of them may do so at once.
const DOUBTFUL_MAX: usize = 32;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// So much may wait in the system for a client that takes it slowly. It counts as reading when it has taken
/// as much again, not when a third of a buffer of several megabytes is free.
const UNSENT_BYTES_MAX: u32 = 1024 * 1024;
/// After so long without a word the system asks whether a client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Raises the limit of open files as far as it goes, and says how many
/// connections that allows: `wanted`, or fewer.
pub fn connections_allowed(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let allowed = current.map_or(usize::MAX, |files| files.saturating_sub(FILES_RESERVED) as usize);
    if allowed < wanted {
        tracing::warn!(wanted, allowed, "fewer connections: the process may not open more files (ulimit -n)");
    }
    wanted.min(allowed).max(1)
}

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

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, node: Arc<Node>, cast: Arc<Cast>, arbiters: Vec<ArbiterHandle>) {
    let mut next_arbiter = 0;
    let doubtful = Rc::new(Cell::new(0));
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of files, or the client is gone already: later ones may do better.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        prepare(&socket);
        let figures = &node.connections;
        figures.accepted.fetch_add(1, Ordering::Relaxed);
        if figures.open.load(Ordering::Relaxed) >= node.settings.connections_max {
            turn_away(socket, &node, &cast, &doubtful);
            continue;
        }
        figures.open.fetch_add(1, Ordering::Relaxed);
        let arbiter = &arbiters[next_arbiter % arbiters.len()];
        next_arbiter += 1;
        run(socket, arbiter, node.clone(), cast.clone());
    }
}

fn prepare(socket: &TcpStream) {
    // A socket that refuses these still works.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    let _ = SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
}

/// There are as many clients as there may be. A peer gets in all the same, or
/// clients could keep a cluster from coming together again.
fn turn_away(socket: TcpStream, node: &Arc<Node>, cast: &Arc<Cast>, doubtful: &Rc<Cell<usize>>) {
    let peering = Peering::of(node).zip(cast.replication_arbiter.clone());
    let Some((peering, arbiter)) = peering.filter(|_| doubtful.get() < DOUBTFUL_MAX) else {
        return refuse(&socket, node);
    };
    let (node, cast, doubtful) = (node.clone(), cast.clone(), doubtful.clone());
    doubtful.set(doubtful.get() + 1);
    actix_rt::spawn(async move {
        let is_peer = tokio::time::timeout(DOUBT, begins_as_peer(&socket)).await;
        doubtful.set(doubtful.get() - 1);
        if !is_peer.unwrap_or(false) {
            // What is left unread when a socket closes may cost the client its answer.
            let _ = socket.try_read(&mut [0; 4_096]);
            return refuse(&socket, &node);
        }
        if let Ok(socket) = socket.into_std() {
            arbiter.spawn_fn(move || peering.begin_session(node, cast, socket, BytesMut::new()));
        }
    });
}

/// Looks at the first bytes, and leaves them where they are.
async fn begins_as_peer(socket: &TcpStream) -> bool {
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

fn refuse(socket: &TcpStream, node: &Node) {
    let most = node.settings.connections_max;
    node.connections.refused.fetch_add(1, Ordering::Relaxed);
    let mut line = Vec::new();
    let message = format!("the node has its {most} connections (--max-connections); try again later");
    reply::error(&mut line, b"", &Error::new(Code::TooManyConnections, message));
    // A client that can't even take this line finds the connection closed.
    let _ = socket.try_write(&line);
}

fn run(socket: TcpStream, arbiter: &ArbiterHandle, node: Arc<Node>, cast: Arc<Cast>) {
    let Ok(socket) = socket.into_std() else {
        node.connections.open.fetch_sub(1, Ordering::Relaxed);
        return;
    };
    arbiter.spawn_fn(move || {
        let (address, inbox) = mailbox::<Connection>(cast.connection_gauge.clone());
        let registration = cast.register(address.clone());
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                let half_lines = cast.half_lines.clone();
                inbox.run(Connection::new(node, cast, (address, registration), half_lines, socket));
            }
            Err(_) => cast.connection_closed(&node, registration),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it is not set, who reads 100 kB a second is taken for one that doesn't read: the system says that
    /// there is room when a third of several megabytes is free.
    #[tokio::test]
    async fn a_client_that_takes_what_is_unsent_counts_as_reading() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        prepare(&socket);
        assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
    }
}
