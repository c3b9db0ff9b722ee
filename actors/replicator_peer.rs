//! ReplicatorPeer: one per peer.

use actix::{Actor, Context, Handler};

use crate::mailbox::Counted;
use crate::replication_messages::PeerMessage;

/// The actor.
pub struct ReplicatorPeer {}

impl Actor for ReplicatorPeer {
    type Context = Context<Self>;
}

impl Handler<Counted<PeerMessage>> for ReplicatorPeer {
    type Result = ();

    fn handle(&mut self, counted: Counted<PeerMessage>, _: &mut Self::Context) {
        let Some((_message, _handling)) = counted.begin() else { return };
    }
}
