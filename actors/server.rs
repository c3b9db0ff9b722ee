//! The listening socket: one connection, one actor, dealt out to the data arbiters in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use datastore::error::{Code, Error};
use datastore::messaging::reply;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::connection::Connection;
use crate::mailbox::mailbox;
use crate::node::Node;
use crate::start::Cast;

/// Files that the node itself needs beside its connections.
const FILES_RESERVED: u64 = 64;
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
            figures.refused.fetch_add(1, Ordering::Relaxed);
            refuse(&socket, node.settings.connections_max);
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
    let _ = SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
}

fn refuse(socket: &TcpStream, most: usize) {
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
