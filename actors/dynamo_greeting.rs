//! Greeting a peer in dynamo mode.

use std::sync::atomic::Ordering;

use datastore::error::LeaderAddress;
use datastore::messaging::peer_greeting::{GreetingAnswer, greeting_line, read_greeting_answer};
use datastore::replication::dynamo::{Decision, Greeting, decide};
use datastore::replication::handshake::Lane;
use datastore::replication::message::NodeId;

use crate::dynamo_cluster::DynamoCluster;
use crate::peer_greeting::Greeted;

/// Who this node is.
pub(crate) fn own(cluster: &DynamoCluster, to: NodeId, lane: Lane) -> Greeting {
    Greeting {
        mode: "dynamo".into(),
        protocol: cluster.protocol,
        lane,
        from: cluster.place.clone(),
        boot: cluster.boot,
        to,
        is_new: cluster.is_new.load(Ordering::Relaxed),
        advertise: cluster.advertise.clone(),
    }
}

/// Notes the latest version of the protocol that both this node and a peer speak, and where clients find that.
pub(crate) fn speaks(cluster: &DynamoCluster, theirs: &Greeting) {
    cluster.links.advertises(theirs.from.node_id, theirs.advertise.clone());
    cluster.links.speaks(theirs.from.node_id, theirs.protocol.1.min(cluster.protocol.1));
}

/// The first line to a peer.
pub(crate) fn greeting(cluster: &DynamoCluster, peer: NodeId, lane: Lane) -> Vec<u8> {
    greeting_line(&own(cluster, peer, lane))
}

/// Takes the answer that came from where a peer was looked for.
pub(crate) fn answered(cluster: &DynamoCluster, address: &LeaderAddress, line: &[u8]) -> Greeted {
    let peer = address.node_id;
    match read_greeting_answer(line) {
        Err(reason) => Greeted::Refused(reason),
        Ok(GreetingAnswer::Refused { evicted: true, message, .. }) => {
            // Who was evicted hears of it here and nowhere else, and it is never taken back.
            cluster.is_evicted.store(true, Ordering::Relaxed);
            Greeted::Refused(message)
        }
        Ok(GreetingAnswer::Refused { retryable: true, .. }) => Greeted::NotYet,
        Ok(GreetingAnswer::Refused { code, message, .. }) => {
            cluster.refusals.refused(address, &code, &message);
            Greeted::Refused(message)
        }
        Ok(GreetingAnswer::Welcome(theirs)) if theirs.from.node_id != peer => {
            Greeted::Refused(format!("node {peer} was meant, and there is node {}", theirs.from.node_id))
        }
        Ok(GreetingAnswer::Welcome(theirs)) => match decide(&cluster.place, &cluster.members(), &theirs) {
            Decision::Accept => {
                speaks(cluster, &theirs);
                cluster.refusals.let_in(peer);
                Greeted::Connected
            }
            // It comes by itself, and is admitted then.
            Decision::Admit => Greeted::NotYet,
            Decision::Refuse(error) if error.retryable() => Greeted::NotYet,
            Decision::Refuse(error) | Decision::Evicted(error) => Greeted::Refused(error.message),
        },
    }
}
