//! ElectionCoordinator: time and policy.
//!
//! It beats the replica's clock, watches who is there, and decides who should
//! lead where more than one could ([`HandOver`], `promote`). What it knows of the
//! members is what `cluster` and `stats` show.
//!
//! ```text
//! every 50 ms ─ Tick ─► WalWriter ─ Status ─► members' states and lag ─► Cluster's view
//!                           ▲                 └► HandOver, promote
//!                           └───── TransferTo ──────┘
//! ```
//!
//! The next tick waits for the status of the last one: a WalWriter that was held
//! up for a while must not make up for it by many ticks at once, which would look
//! like a leader that is silent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use datastore::error::{Code, Error, Outcome};
use datastore::persistence::Membership;
use datastore::replication::doubt::Condition;
use datastore::replication::message::NodeId;
use datastore::replication::policy::{HandOver, Order, Reason, best_successor};
use datastore::replication::raft::{Role, Status};
use datastore::replication::reconfiguration::forced_by;
use tokio::sync::oneshot;

use crate::Cast;
use crate::anew::Anew;
use crate::cluster::Cluster;
use crate::conditions::doubt_of;
use crate::connection::{Connection, ConnectionMessage};
use crate::mailbox::{Counted, Mailbox};
use crate::members_seen::MembersSeen;
use crate::membership_changes::{Changes, Step};
use crate::node::Node;
use crate::random::random_u64;
use crate::replication_messages::{CoordinatorMessage, PeerMessage, ReplicationMessage};
use crate::replication_options::{ELECTION_TICKS, TICK_MS};
use crate::wal_writer::WalMessage;

const TICK: Duration = Duration::from_millis(TICK_MS);
/// Between two signs of life to each peer: well below that.
const PRESENCE_TICKS: u64 = 3;
/// What a hand-over may take: the replica gives up after an election timeout.
const HAND_OVER_MAX: Duration = Duration::from_millis(4 * TICK_MS * ELECTION_TICKS as u64);
/// What a node that stops waits for its successor; an election would take as long.
const RESIGNATION_MAX: Duration = Duration::from_millis(2 * TICK_MS * ELECTION_TICKS as u64);

/// A `promote` under way.
struct Promotion {
    to: NodeId,
    asked_by: (Mailbox<Connection>, u64),
    until: Instant,
}

/// The actor.
pub struct ElectionCoordinator {
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<Cluster>,
    policy: HandOver,
    beats: u64,
    /// A tick was sent whose status hasn't come.
    tick_under_way: bool,
    members: MembersSeen,
    promotions: Vec<Promotion>,
    changes: Changes,
    /// The node stops: whom to tell, and until when to wait.
    resigning: Option<(oneshot::Sender<()>, Instant)>,
    last_status: Option<Status>,
}

impl ElectionCoordinator {
    /// Of a member.
    pub fn new(node: Arc<Node>, cast: Arc<Cast>, cluster: Arc<Cluster>) -> ElectionCoordinator {
        ElectionCoordinator {
            members: MembersSeen::new(node.clone(), cluster.clone()),
            node,
            policy: HandOver::new(cluster.node_id, TICK_MS, ELECTION_TICKS),
            cast,
            cluster,
            beats: 0,
            tick_under_way: false,
            promotions: Vec::new(),
            changes: Changes::default(),
            resigning: None,
            last_status: None,
        }
    }

    fn tell(&self, message: ReplicationMessage) {
        self.cast.wal_writer.send(WalMessage::Replication(message));
    }

    fn beat(&mut self) {
        self.beats += 1;
        self.members.see_own(self.policy.pause());
        if self.beats.is_multiple_of(PRESENCE_TICKS) {
            self.cast.peers.all().iter().for_each(|peer| peer.send(PeerMessage::Presence));
        }
        self.settle_promotions(None);
        self.settle_resignation();
        if self.cluster.begins_anew.load(Ordering::Relaxed) {
            // There is no replica any more, and nothing will be heard of it.
            return self.members.see_members(None);
        }
        if self.cluster.is_out() {
            self.last_status = None;
            self.changes.refuse_all(&self.cluster);
            return self.members.see_members(None);
        }
        if self.cluster.membership().is_none() {
            return self.members.see_members(None);
        }
        if !std::mem::replace(&mut self.tick_under_way, true) {
            self.tell(ReplicationMessage::Tick);
        }
    }

    /// Where the replica stands, after a tick or a change of role.
    fn status(&mut self, status: Status) {
        self.last_status = Some(status.clone());
        self.note_status(&status);
        self.settle_resignation();
    }

    fn note_status(&mut self, status: &Status) {
        self.tick_under_way = false;
        self.members.note_growth(status);
        match self.policy.tick(status, &self.members.seen()) {
            Some(Order::GoOn) => self.tell(ReplicationMessage::GoOn),
            Some(Order::HandOver(to, reason)) => {
                let reason = match reason {
                    Reason::LowestId => "it has the lowest id that is there",
                    Reason::HostsWitness => "this node hosts the witness",
                    Reason::BadDisk => "this node's disk takes no writes",
                };
                tracing::info!(to, reason, "handing leadership over");
                self.tell(ReplicationMessage::TransferTo(to));
            }
            None => {}
        }
        // What the changes go by is as it is now, however long this node was held up.
        self.members.see_members(Some(status));
        match self.changes.tick(&self.cluster, status) {
            Some(Step::Propose(to)) => self.tell(ReplicationMessage::Reconfigure(Box::new(to))),
            Some(Step::HandOver) => self.hand_over_to_the_best(),
            None => {}
        }
        self.settle_promotions(status.role.leader);
    }

    fn promote(&mut self, to: NodeId, asked_by: (Mailbox<Connection>, u64)) {
        let refuse = |error: Error| {
            let (connection, sequence) = &asked_by;
            connection.send(ConnectionMessage::Promoted { sequence: *sequence, leader: Err(error) });
        };
        let leader = self.cluster.role().leader;
        let view = self.cluster.view();
        let Some(member) = view.members.iter().find(|member| member.node_id == to) else {
            let message = format!("`node_id` {to} is no member of this cluster");
            return refuse(Error::new(Code::BadRequest, message));
        };
        if !member.votes {
            let message =
                format!("node {to} only listens until it has caught up; `cluster` shows when it votes");
            return refuse(Error::new(Code::BadRequest, message));
        }
        if leader != Some(to) && self.cluster.condition(to) == Condition::InDoubt {
            let message = format!("{}; `cluster` shows when it may lead", doubt_of(to));
            return refuse(Error::new(Code::BadRequest, message));
        }
        // A replica can only ask for itself: the leader takes such a request from no one else.
        if leader.is_none()
            || (leader != Some(self.cluster.node_id) && to != self.cluster.node_id && leader != Some(to))
        {
            return refuse(self.cluster.refusal());
        }
        if leader != Some(to) {
            tracing::info!(to, "promote: handing leadership over");
            self.tell(ReplicationMessage::TransferTo(to));
        }
        let until = Instant::now() + HAND_OVER_MAX;
        self.promotions.push(Promotion { to, asked_by, until });
        self.settle_promotions(leader);
    }

    /// Makes this node the only voter, whatever the others have: for a majority that is lost.
    fn force(&mut self, (connection, sequence): (Mailbox<Connection>, u64), context: &mut Context<Self>) {
        let (before, to) = match self.forced() {
            Ok(forced) => forced,
            Err(error) => {
                let leader = Err(error);
                return connection.send(ConnectionMessage::Promoted { sequence, leader });
            }
        };
        let until = Instant::now() + Duration::from_millis(self.node.settings.request_timeout_ms);
        let consent = Anew::Forced { before: Box::new(before), until }.consent(self.cast.clone());
        let (node, epochs) = (self.node.clone(), to.epochs.clone());
        let begins = move |is_stored: bool| {
            if is_stored {
                tracing::warn!(
                    ?epochs,
                    "FORCED: this node is the only voter from now on. What was acknowledged and is not on its disk is \
                     lost. The other nodes listen until they have caught up; one that has what this node has not is kept \
                     out"
                );
            } else {
                tracing::error!(
                    "the file of the members could not be changed: this node begins anew as it was, not forced"
                );
            }
            node.begin_anew();
        };
        let stored = self.cluster.members.rejoins(&to, Box::new(consent), Box::new(begins));
        let me = self.cluster.node_id;
        let told = stored.into_actor(self).map(move |stored, _, _| {
            let leader = match stored {
                Ok(true) => Ok(me),
                Ok(false) => Err(Error::new(
                    Code::BadRequest,
                    "`force`: when the disk had it a majority was in contact, or too much time was over; nothing was changed",
                )),
                Err(reason) => Err(Error::new(Code::Internal, reason)),
            };
            connection.send(ConnectionMessage::Promoted { sequence, leader });
        });
        context.spawn(told);
    }

    /// The membership that it has, and the one that it is to have.
    fn forced(&self) -> Result<(Membership, Membership), Error> {
        let me = self.cluster.node_id;
        let refuse = |message: &str| Error::new(Code::BadRequest, message);
        let Some(membership) = self.cluster.membership().filter(|_| !self.cluster.is_removed()) else {
            return Err(refuse("`force`: this node is no member of a cluster"));
        };
        if self.cluster.has_quorum.load(Ordering::Relaxed) {
            let message = "`force`: this node is in contact with a majority, none of which may be an older copy of itself, \
                           or with all nodes that vote; they may have what this node has not, and `promote` without \
                           `force` loses nothing";
            return Err(refuse(message));
        }
        let name = random_u64().map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        Ok((membership.clone(), forced_by(membership, me, format!("{name:016x}"))))
    }

    /// Hands over before it goes, so that clients don't wait for an election.
    fn resign(&mut self, done: oneshot::Sender<()>) {
        self.resigning = Some((done, Instant::now() + RESIGNATION_MAX));
        self.hand_over_to_the_best();
        self.settle_resignation();
    }

    fn hand_over_to_the_best(&mut self) {
        let leads = |status: &&Status| status.role.role == Role::Leader;
        let status = self.last_status.as_ref().filter(leads);
        if let Some(to) = status.and_then(|status| best_successor(status, &self.members.seen())) {
            tracing::info!(to, "handing leadership over");
            self.tell(ReplicationMessage::TransferTo(to));
        }
    }

    fn settle_resignation(&mut self) {
        let leads = self.last_status.as_ref().is_some_and(|status| status.role.role == Role::Leader);
        let is_over = |(_, until): &mut (oneshot::Sender<()>, Instant)| !leads || Instant::now() > *until;
        if let Some((done, _)) = self.resigning.take_if(is_over) {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }

    fn settle_promotions(&mut self, leader: Option<NodeId>) {
        let now = Instant::now();
        for Promotion { to, asked_by: (connection, sequence), until } in std::mem::take(&mut self.promotions)
        {
            let leader = if leader == Some(to) {
                Ok(to)
            } else if now > until {
                let message =
                    format!("node {to} didn't take leadership over in time; it may be behind, or away");
                Err(Error::new(Code::Timeout, message).with_outcome(Outcome::Unknown))
            } else {
                self.promotions.push(Promotion { to, asked_by: (connection, sequence), until });
                continue;
            };
            connection.send(ConnectionMessage::Promoted { sequence, leader });
        }
    }
}

impl Actor for ElectionCoordinator {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(TICK, |this, _| this.beat());
    }
}

impl Handler<Counted<CoordinatorMessage>> for ElectionCoordinator {
    type Result = ();

    fn handle(&mut self, counted: Counted<CoordinatorMessage>, context: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            CoordinatorMessage::Status(status) => self.status(*status),
            CoordinatorMessage::Resign { done } => self.resign(done),
            CoordinatorMessage::Peer { node_id, connected } => {
                if connected {
                    self.members.hear(node_id);
                }
            }
            CoordinatorMessage::Promote { node_id, asked_by } => self.promote(node_id, asked_by),
            CoordinatorMessage::Force { asked_by } => self.force(asked_by, context),
            CoordinatorMessage::Change { wish, asked_by } => {
                self.changes.ask(wish, asked_by);
                if self.last_status.as_ref().is_none_or(|status| status.role.role != Role::Leader) {
                    self.changes.refuse_all(&self.cluster);
                }
            }
        }
    }
}
