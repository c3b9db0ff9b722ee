//! How the members' disks and indexes are: this node's as it tells the others, theirs as they say.

use std::collections::BTreeMap;
use std::sync::Mutex;

use datastore::replication::health::Health;
use datastore::replication::message::NodeId;
use datastore::replication::protocol::PROTOCOL_HEALTH;

use crate::mailbox::lock;

/// The health of this node, and of those of its peers that tell theirs.
#[derive(Default)]
pub(crate) struct Healths {
    own: Mutex<Health>,
    peers: Mutex<BTreeMap<NodeId, Health>>,
}

impl Healths {
    /// This node's own.
    pub(crate) fn own(&self) -> Health {
        *lock(&self.own)
    }

    /// This node's own from now on; gives what it was.
    pub(crate) fn set_own(&self, health: Health) -> Health {
        std::mem::replace(&mut *lock(&self.own), health)
    }

    /// A peer has come, or come back: what an earlier process of it said counts no more. Until it says how it is, it
    /// may have no indexes, if it is of a version that says it.
    pub(crate) fn peer_comes(&self, peer: NodeId, protocol: u32) {
        if protocol >= PROTOCOL_HEALTH {
            self.peer_says(peer, Health { indexed_per_mille: 0, ..Health::default() });
        } else {
            self.forget(peer);
        }
    }

    /// A peer says how it is.
    pub(crate) fn peer_says(&self, peer: NodeId, health: Health) {
        lock(&self.peers).insert(peer, health);
    }

    /// A peer of an earlier version doesn't say, or it is no member any more.
    pub(crate) fn forget(&self, peer: NodeId) {
        lock(&self.peers).remove(&peer);
    }

    /// A peer's; `None`: it doesn't say.
    pub(crate) fn of_peer(&self, peer: NodeId) -> Option<Health> {
        lock(&self.peers).get(&peer).copied()
    }

    /// Those of all that say it.
    pub(crate) fn peers(&self) -> BTreeMap<NodeId, Health> {
        lock(&self.peers).clone()
    }
}
