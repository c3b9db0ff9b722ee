//! Snapshots for a peer that lags.

use std::sync::Arc;

use datastore::replication::message::NodeId;

use crate::cluster::Cluster;
use crate::node::Node;
use crate::replication_messages::{ReplicationMessage, SnapshotToSend};
use crate::start::Cast;
use crate::wal_writer::WalMessage;

/// The snapshots on their way to one peer.
#[derive(Default)]
pub(crate) struct SnapshotStreams;

impl SnapshotStreams {
    /// Sends a snapshot.
    pub(crate) fn send(
        &mut self,
        _node: &Arc<Node>,
        cast: &Arc<Cast>,
        _cluster: &Arc<Cluster>,
        peer: NodeId,
        _snapshot: SnapshotToSend,
    ) {
        let message = ReplicationMessage::SnapshotSent { to: peer, arrived: false };
        cast.wal_writer.send(WalMessage::Replication(message));
    }
}
