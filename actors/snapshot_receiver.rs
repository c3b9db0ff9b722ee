//! Snapshots from the leader.

use std::net::TcpStream;
use std::sync::Arc;

use bytes::BytesMut;
use datastore::replication::message::NodeId;

use crate::cluster::Cluster;
use crate::node::Node;
use crate::start::Cast;

/// A snapshot that has come in part.
pub(crate) struct Partial;

/// Receives a snapshot in a thread of its own.
pub(crate) fn begin(
    _node: Arc<Node>,
    _cast: Arc<Cast>,
    _cluster: Arc<Cluster>,
    _socket: TcpStream,
    _buffer: BytesMut,
    _peer: NodeId,
) {
}
