//! ReplicatorPeer: one per peer.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use datastore::replication::message::NodeId;

use crate::cluster::Cluster;
use crate::mailbox::Counted;
use crate::node::Node;
use crate::replication_messages::PeerMessage;
use crate::start::Cast;

/// The actor.
pub struct ReplicatorPeer {
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<Cluster>,
    peer: NodeId,
}

impl ReplicatorPeer {
    /// What is said to one peer. It must be made on the replication arbiter.
    pub fn new(node: Arc<Node>, cast: Arc<Cast>, cluster: Arc<Cluster>, peer: NodeId) -> ReplicatorPeer {
        ReplicatorPeer { node, cast, cluster, peer }
    }
}

impl Actor for ReplicatorPeer {
    type Context = Context<Self>;
}

impl Handler<Counted<PeerMessage>> for ReplicatorPeer {
    type Result = ();

    fn handle(&mut self, counted: Counted<PeerMessage>, _: &mut Self::Context) {
        let Some((_message, _handling)) = counted.begin() else { return };
    }
}
