//! The other nodes of the cluster, each with its ReplicatorPeer: they come and go
//! with the members.

use std::sync::{Arc, PoisonError, RwLock};

use datastore::replication::message::NodeId;

use crate::mailbox::{Gauge, Mailbox, mailbox};
use crate::node::Node;
use crate::peering::Peering;
use crate::replication_messages::PeerMessage;
use crate::replicator_peer::ReplicatorPeer;
use crate::start::{Cast, MAILBOX_CAPACITY};

/// Their mailboxes, by node id.
#[derive(Default)]
pub struct Peers {
    mailboxes: RwLock<Vec<(NodeId, Mailbox<ReplicatorPeer>)>>,
}

impl Peers {
    /// What is said to one of them goes there.
    pub fn get(&self, node_id: NodeId) -> Option<Mailbox<ReplicatorPeer>> {
        let mailboxes = self.mailboxes.read().unwrap_or_else(PoisonError::into_inner);
        mailboxes.iter().find(|(id, _)| *id == node_id).map(|(_, mailbox)| mailbox.clone())
    }

    /// What is said to all of them.
    pub fn all(&self) -> Vec<Mailbox<ReplicatorPeer>> {
        let mailboxes = self.mailboxes.read().unwrap_or_else(PoisonError::into_inner);
        mailboxes.iter().map(|(_, mailbox)| mailbox.clone()).collect()
    }

    /// The same, with whose they are.
    pub fn all_by_id(&self) -> Vec<(NodeId, Mailbox<ReplicatorPeer>)> {
        self.mailboxes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, node_id: NodeId, mailbox: Mailbox<ReplicatorPeer>) {
        self.mailboxes.write().unwrap_or_else(PoisonError::into_inner).push((node_id, mailbox));
    }

    /// Those that are not among `wanted` any more.
    fn take_others(&self, wanted: &[NodeId]) -> Vec<(NodeId, Mailbox<ReplicatorPeer>)> {
        let mut mailboxes = self.mailboxes.write().unwrap_or_else(PoisonError::into_inner);
        mailboxes.extract_if(.., |(id, _)| !wanted.contains(id)).collect()
    }
}

/// One ReplicatorPeer for each other node that the cluster has now, and none for any else.
/// A node that was removed keeps them: those that don't know yet may need its vote.
pub(crate) fn follow_members(node: &Arc<Node>, cast: &Arc<Cast>, peering: &Peering, wanted: Vec<NodeId>) {
    let Some(arbiter) = &cast.replication_arbiter else { return };
    for (peer, mailbox) in cast.peers.take_others(&wanted) {
        mailbox.send(PeerMessage::Stop);
        peering.links().forget(peer);
        node.remove_gauge(&gauge_name(peer));
    }
    for peer in wanted.into_iter().filter(|peer| cast.peers.get(*peer).is_none()) {
        let gauge = Gauge::new(gauge_name(peer), "ReplicatorPeer", MAILBOX_CAPACITY);
        node.add_gauge(gauge.clone());
        let (mailbox, inbox) = mailbox::<ReplicatorPeer>(gauge);
        cast.peers.add(peer, mailbox);
        let (node, cast, peering) = (node.clone(), cast.clone(), peering.clone());
        arbiter.spawn_fn(move || inbox.run(ReplicatorPeer::new(node, cast, peering, peer)));
    }
}

fn gauge_name(peer: NodeId) -> String {
    format!("replicator-peer-{peer}")
}
