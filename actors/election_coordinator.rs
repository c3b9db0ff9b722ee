//! ElectionCoordinator: time and policy.

use std::sync::Arc;

use actix::{Actor, Context, Handler};

use crate::cluster::Cluster;
use crate::mailbox::Counted;
use crate::node::Node;
use crate::replication_messages::CoordinatorMessage;
use crate::start::Cast;

/// The actor.
pub struct ElectionCoordinator {
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<Cluster>,
}

impl ElectionCoordinator {
    /// Of a member.
    pub fn new(node: Arc<Node>, cast: Arc<Cast>, cluster: Arc<Cluster>) -> ElectionCoordinator {
        ElectionCoordinator { node, cast, cluster }
    }
}

impl Actor for ElectionCoordinator {
    type Context = Context<Self>;
}

impl Handler<Counted<CoordinatorMessage>> for ElectionCoordinator {
    type Result = ();

    fn handle(&mut self, counted: Counted<CoordinatorMessage>, _: &mut Self::Context) {
        let Some((_message, _handling)) = counted.begin() else { return };
    }
}
