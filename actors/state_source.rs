//! Showing this node's state to a peer that takes it over: one thread a peer.
//!
//! ```text
//!   peer                                         this node
//!     │ greeting, lane snapshot ──────────────────► │
//!     │ ◄──────────────────────────────── welcome   │
//!     │ StateWanted, hashes of all buckets or none ►│  which differ?
//!     │ ◄──────────────────── StateBegins           │  vector: at least all of that
//!     │ ◄──────────────────────────── States …      │  walked while writes go on
//!     │ ◄───────────────────────── SnapshotEnd      │
//!     │ SnapshotResult ───────────────────────────► │  the log is kept until then
//! ```

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use crossbeam_channel::bounded;
use datastore::limits;
use datastore::messaging::peer_frame::PeerFrame;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::replication::dynamo::entry::encode_state;
use datastore::replication::dynamo::{SnapshotVector, bucket_of};
use datastore::replication::message::NodeId;

use crate::converging_messages::ConvergingMessage;
use crate::node::Node;
use crate::peer_thread::{BlockingPeer, out_of_place};
use crate::start::{Cast, spawn};
use crate::state_walk::{bucket_hashes, walk};
use crate::wal_writer::WalMessage;

/// The peer makes all of it durable before it says that it has it.
const RESULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Serves a peer whose connection has been greeted.
pub(crate) fn begin(node: Arc<Node>, cast: Arc<Cast>, socket: TcpStream, read: BytesMut, peer: NodeId) {
    let begun = spawn("state source", move || {
        let served = BlockingPeer::new(socket, read).and_then(|socket| serve(&node, &cast, socket, peer));
        match served {
            Ok(keys) => tracing::info!(peer, keys, "a peer has taken over this node's state"),
            Err(error) => tracing::warn!(peer, %error, "a peer has not taken over this node's state"),
        }
    });
    if let Err(error) = begun {
        tracing::error!(%error, peer, "this node's state can't be shown");
    }
}

fn serve(node: &Node, cast: &Cast, mut socket: BlockingPeer, peer: NodeId) -> io::Result<u64> {
    let stops = || node.stopping.load(std::sync::atomic::Ordering::Relaxed);
    let PeerFrame::Converging(Converging::StateWanted { hashes }) = socket.receive(&stops)? else {
        return Err(out_of_place());
    };
    let buckets = match hashes.len() {
        0 => None,
        _ => Some(bucket_hashes(cast).differing(&hashes).ok_or_else(out_of_place)?),
    };
    let (reply, begun) = bounded(1);
    let begins = ConvergingMessage::TransferBegins { to: peer, begun: reply };
    cast.wal_writer.send(WalMessage::Converging(begins));
    let (number, state) = begun.recv().map_err(|_| io::Error::other("the node stops"))?;
    let shown = show(cast, &mut socket, state, buckets, &stops);
    // This one and no other: the peer may have begun another one meanwhile, as another process.
    cast.wal_writer.send(WalMessage::Converging(ConvergingMessage::TransferEnded(number)));
    shown
}

/// Says all that is wanted, and hears that it was taken. Gives how many keys that were.
fn show(
    cast: &Cast,
    socket: &mut BlockingPeer,
    state: SnapshotVector,
    buckets: Option<Vec<u32>>,
    stops: &dyn Fn() -> bool,
) -> io::Result<u64> {
    let begins = Converging::StateBegins { state, buckets: buckets.clone().unwrap_or_default() };
    socket.send(&PeerFrame::Converging(begins))?;
    let mut keys = 0;
    let mut states = BytesMut::new();
    walk(cast, |entries| {
        let is_wanted = |key: &[u8]| {
            buckets.as_ref().is_none_or(|buckets| buckets.binary_search(&bucket_of(key)).is_ok())
        };
        for entry in entries.iter().filter(|entry| is_wanted(entry.key())) {
            keys += 1;
            encode_state(&mut states, entry);
            // As soon as it is enough: values may be large.
            if states.len() >= limits::SNAPSHOT_CHUNK_BYTES {
                let full = states.split().freeze();
                socket.send(&PeerFrame::Converging(Converging::States(full)))?;
            }
        }
        io::Result::Ok(())
    })?;
    if !states.is_empty() {
        socket.send(&PeerFrame::Converging(Converging::States(states.freeze())))?;
    }
    socket.send(&PeerFrame::SnapshotEnd)?;
    match socket.receive_within(RESULT_TIMEOUT, stops)? {
        PeerFrame::SnapshotResult { taken: true } => Ok(keys),
        PeerFrame::SnapshotResult { taken: false } => Err(io::Error::other("the peer gave up")),
        _ => Err(out_of_place()),
    }
}
