//! ElectionCoordinator: time and policy.

use actix::{Actor, Context, Handler};

use crate::mailbox::Counted;
use crate::replication_messages::CoordinatorMessage;

/// The actor.
pub struct ElectionCoordinator {}

impl Actor for ElectionCoordinator {
    type Context = Context<Self>;
}

impl Handler<Counted<CoordinatorMessage>> for ElectionCoordinator {
    type Result = ();

    fn handle(&mut self, counted: Counted<CoordinatorMessage>, _: &mut Self::Context) {
        let Some((_message, _handling)) = counted.begin() else { return };
    }
}
