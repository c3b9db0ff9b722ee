//! What ReplicatorPeers and their lanes need of the mode that their node runs in.

use std::sync::Arc;

use bytes::BytesMut;
use datastore::error::LeaderAddress;
use datastore::replication::handshake::Lane;
use datastore::replication::message::NodeId;

use crate::Cast;
use crate::cluster::Cluster;
use crate::converging_messages::ConvergingMessage;
use crate::dynamo_cluster::DynamoCluster;
use crate::dynamo_greeting;
use crate::dynamo_session;
use crate::node::Node;
use crate::peer_greeting::{self, Greeted};
use crate::peer_links::PeerLinks;
use crate::peer_session;
use crate::replication_messages::ReplicationMessage;
use crate::wal_writer::WalMessage;

/// One of the two modes.
#[derive(Clone)]
pub enum Peering {
    /// One primary.
    Leader(Arc<Cluster>),
    /// Every node writes.
    Dynamo(Arc<DynamoCluster>),
}

impl Peering {
    /// The one that a node runs in; `None` on a node that is on its own.
    pub(crate) fn of(node: &Node) -> Option<Peering> {
        let led = node.cluster.clone().map(Peering::Leader);
        led.or_else(|| node.dynamo.clone().map(Peering::Dynamo))
    }

    /// Serves a connection whose first bytes are a peer's. To be called on the replication arbiter.
    pub(crate) fn begin_session(
        self,
        node: Arc<Node>,
        cast: Arc<Cast>,
        socket: std::net::TcpStream,
        read: BytesMut,
    ) {
        match self {
            Peering::Leader(cluster) => peer_session::begin(node, cast, cluster, socket, read),
            Peering::Dynamo(cluster) => dynamo_session::begin(node, cast, cluster, socket, read),
        }
    }

    /// What the sockets to and from the peers share.
    pub(crate) fn links(&self) -> &PeerLinks {
        match self {
            Peering::Leader(cluster) => &cluster.links,
            Peering::Dynamo(cluster) => &cluster.links,
        }
    }

    /// Where a peer may be.
    pub(crate) fn places_to_look(&self, peer: NodeId) -> Vec<LeaderAddress> {
        match self {
            Peering::Leader(cluster) => cluster.places_to_look(peer),
            Peering::Dynamo(cluster) => cluster.places_to_look(peer),
        }
    }

    /// The first line to a peer.
    pub(crate) fn greeting(&self, peer: NodeId, lane: Lane, adopting: bool) -> Vec<u8> {
        match self {
            Peering::Leader(cluster) => peer_greeting::greeting(cluster, peer, lane, adopting),
            Peering::Dynamo(cluster) => dynamo_greeting::greeting(cluster, peer, lane),
        }
    }

    /// What the WalWriter is told when what was sent may be lost.
    pub(crate) fn unreachable(&self, peer: NodeId) -> WalMessage {
        match self {
            Peering::Leader(_) => WalMessage::Replication(ReplicationMessage::Unreachable(peer)),
            Peering::Dynamo(_) => WalMessage::Converging(ConvergingMessage::Unreachable(peer)),
        }
    }

    /// What became of it, by the answer that came from there.
    pub(crate) async fn answered(&self, address: &LeaderAddress, line: &[u8]) -> Greeted {
        match self {
            Peering::Leader(cluster) => peer_greeting::answered(cluster, address, line).await,
            Peering::Dynamo(cluster) => dynamo_greeting::answered(cluster, address, line),
        }
    }

    /// Nobody answers there.
    pub(crate) fn is_silent(&self, address: &LeaderAddress) {
        match self {
            Peering::Leader(cluster) => cluster.refusals.is_silent(address),
            Peering::Dynamo(cluster) => cluster.refusals.is_silent(address),
        }
    }
}
