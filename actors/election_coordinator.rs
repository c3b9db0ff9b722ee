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

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use datastore::error::{Code, Error};
use datastore::persistence::{Membership, host_of};
use datastore::replication::doubt::Condition;
use datastore::replication::health::{DiskHealth, Health, INDEXED_ALL};
use datastore::replication::message::{Members, NodeId};
use datastore::replication::policy::{HandOver, Order, Reason, Seen, best_successor};
use datastore::replication::quorum::is_quorum;
use datastore::replication::raft::{Role, Status};
use datastore::replication::reconfiguration::forced_by;
use datastore::replication::tolerance::{Tolerance, tolerance};
use tokio::sync::oneshot;

use crate::Cast;
use crate::cluster::{Cluster, MemberView};
use crate::conditions::doubt_of;
use crate::connection::{Connection, ConnectionMessage};
use crate::mailbox::{Counted, Mailbox};
use crate::membership_changes::{Changes, Step};
use crate::node::Node;
use crate::random::random_u64;
use crate::replication_messages::{CoordinatorMessage, PeerMessage, ReplicationMessage};
use crate::replication_options::{ELECTION_TICKS, TICK_MS};
use crate::wal_writer::WalMessage;

const TICK: Duration = Duration::from_millis(TICK_MS);
/// A peer of which nothing was heard for so long is not in contact.
const SILENCE_MAX: Duration = Duration::from_millis(TICK_MS * ELECTION_TICKS as u64);
/// Between two signs of life to each peer: well below that.
const PRESENCE_TICKS: u64 = 3;
/// A follower that lacks an entry for longer is catching up.
const LAG_SERVING: Duration = Duration::from_millis(1_000);
/// How far back the log's growth is remembered, to tell for how long a follower lags.
const GROWTH_KEPT: usize = 1_200;
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
    heard: BTreeMap<NodeId, Instant>,
    /// When the log was known to end where, oldest first; kept by a leader.
    growth: VecDeque<(Instant, u64)>,
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
            node,
            policy: HandOver::new(cluster.node_id, TICK_MS, ELECTION_TICKS),
            cast,
            cluster,
            beats: 0,
            tick_under_way: false,
            heard: BTreeMap::new(),
            growth: VecDeque::new(),
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
        self.see_own_health();
        if self.beats.is_multiple_of(PRESENCE_TICKS) {
            self.cast.peers.all().iter().for_each(|peer| peer.send(PeerMessage::Presence));
        }
        self.settle_promotions(None);
        self.settle_resignation();
        if self.cluster.is_out() {
            self.last_status = None;
            self.changes.refuse_all(&self.cluster);
            return self.see_members(None);
        }
        if self.cluster.membership().is_none() {
            return self.see_members(None);
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
        let now = Instant::now();
        if status.role.role == Role::Leader {
            if self.growth.back().is_none_or(|(_, last)| *last < status.last) {
                self.growth.push_back((now, status.last));
            }
            if self.growth.len() > GROWTH_KEPT {
                self.growth.pop_front();
            }
        } else {
            self.growth.clear();
        }
        match self.policy.tick(status, &self.seen()) {
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
        self.see_members(Some(status));
        match self.changes.tick(&self.cluster, status) {
            Some(Step::Propose(to)) => self.tell(ReplicationMessage::Reconfigure(Box::new(to))),
            Some(Step::HandOver) => self.hand_over_to_the_best(),
            None => {}
        }
        self.settle_promotions(status.role.leader);
    }

    /// What the others are told of this node.
    fn see_own_health(&self) {
        let watch = &self.node.disk_watch;
        let oldest = watch.oldest();
        let disk = DiskHealth {
            oldest_sync_ms: oldest.as_millis() as u64,
            is_stalled: watch.is_stalled(oldest),
            is_full: self.node.permits.is_disk_full(),
        };
        let health = Health {
            condition: self.cluster.conditions.own(),
            disk,
            indexed_per_mille: self.node.indexed_per_mille(),
            pause: self.policy.pause(),
        };
        let before = self.cluster.healths.set_own(health).disk;
        match (before.is_stalled, disk.is_stalled) {
            (false, true) => {
                tracing::warn!(
                    for_ms = disk.oldest_sync_ms,
                    "STALLED DISK: it has not finished what it was told to write"
                )
            }
            (true, false) => tracing::info!("the disk goes on"),
            _ => {}
        }
    }

    fn seen(&self) -> Seen {
        let voting = self.cluster.membership().map(|known| known.configuration.members).unwrap_or_default();
        let me = self.cluster.node_id;
        let members: Vec<NodeId> = self.cluster.others();
        let there: Vec<NodeId> =
            members.into_iter().filter(|id| *id != me && self.acknowledges(*id)).collect();
        let is_doubted = |voter| self.cluster.condition(host_of(voter)) == Condition::InDoubt;
        let others_decide = is_quorum(&voting, |voter| there.contains(&host_of(voter)), is_doubted);
        Seen { own: self.cluster.healths.own(), peers: self.cluster.healths.peers(), others_decide }
    }

    /// Whether what a member says counts, and its disk takes what it is sent.
    fn acknowledges(&self, id: NodeId) -> bool {
        let is_here = id == self.cluster.node_id;
        let is_in_contact = is_here || self.is_in_contact(id);
        let disk = self.health(id).map(|health| health.disk).unwrap_or_default();
        is_in_contact && self.cluster.condition(id) != Condition::Conflicting && !disk.is_stalled
    }

    /// As it says; `None`: it doesn't.
    fn health(&self, id: NodeId) -> Option<Health> {
        let healths = &self.cluster.healths;
        if id == self.cluster.node_id { Some(healths.own()) } else { healths.of_peer(id) }
    }

    fn is_in_contact(&self, node_id: NodeId) -> bool {
        self.heard.get(&node_id).is_some_and(|heard| heard.elapsed() < SILENCE_MAX)
    }

    /// Puts together what `cluster` shows.
    fn see_members(&mut self, status: Option<&Status>) {
        let ids: Vec<NodeId> = self.cluster.view().members.iter().map(|member| member.node_id).collect();
        let voting = self.cluster.membership().map(|known| known.configuration.members).unwrap_or_default();
        let members: Vec<MemberView> = ids.iter().map(|id| self.member(*id, status, &voting)).collect();
        let condition = |id: NodeId| self.cluster.condition(id);
        let is_there = |id: &NodeId| {
            let is_in_contact = *id == self.cluster.node_id || self.is_in_contact(*id);
            is_in_contact && condition(*id) != Condition::Conflicting
        };
        let there: Vec<NodeId> = ids.into_iter().filter(is_there).collect();
        let doubted: Vec<NodeId> =
            there.iter().copied().filter(|id| condition(*id) == Condition::InDoubt).collect();
        let is_doubted = |voter| doubted.contains(&host_of(voter));
        let is_quorum = is_quorum(&voting, |voter| there.contains(&host_of(voter)), is_doubted);
        self.cluster.has_quorum.store(status.is_some() && is_quorum, Ordering::Relaxed);
        // Who is there and acknowledges nothing helps to elect; what is written now waits for others.
        let counts = |member: &&MemberView| {
            self.acknowledges(member.node_id)
                && member.lag_ms.is_none_or(|lag| lag <= LAG_SERVING.as_millis() as u64)
        };
        let acknowledging: Vec<NodeId> = members.iter().filter(counts).map(|member| member.node_id).collect();
        let Tolerance { any, single } = tolerance(&voting, &acknowledging, &doubted);
        self.cluster.members_seen(members, any, single);
    }

    fn member(&self, node_id: NodeId, status: Option<&Status>, voting: &Members) -> MemberView {
        let leads = status.is_some_and(|status| status.role.role == Role::Leader);
        let last_seen = self.heard.get(&node_id).copied();
        let is_here = node_id == self.cluster.node_id;
        let has = match status {
            Some(status) if is_here => Some((status.applied, status.commit.max(status.applied))),
            Some(status) if leads => {
                let mut followers = status.followers.iter().chain(&status.learners);
                let follower = followers.find(|(id, ..)| *id == node_id);
                follower.map(|(_, matched, _)| (*matched, status.last))
            }
            _ => None,
        };
        let lag_entries = has.map(|(has, last)| last.saturating_sub(has));
        let lag = has.filter(|_| leads).map(|(has, _)| if is_here { Duration::ZERO } else { self.lag(has) });
        let lag_ms = lag.map(|lag| lag.as_millis() as u64);
        let condition = self.cluster.condition(node_id);
        let health = self.health(node_id);
        let is_stalled = health.is_some_and(|health| health.disk.is_stalled);
        let is_indexing = health.is_some_and(|health| health.indexed_per_mille < INDEXED_ALL);
        let state = match (is_here || self.is_in_contact(node_id), lag) {
            (false, _) => "unreachable",
            _ if condition == Condition::Conflicting => "conflicting",
            _ if condition == Condition::InDoubt => "in_doubt",
            _ if is_stalled => "stalled",
            (true, Some(lag)) if lag > LAG_SERVING => "catching_up",
            (true, None) if !is_here && status.is_none_or(|s| s.role.leader != Some(node_id)) => "unknown",
            (true, _) if status.is_none() => "not_adopted",
            _ if is_indexing => "indexing",
            (true, _) => "serving",
        };
        MemberView {
            node_id,
            votes: status.is_none() || voting.votes(node_id),
            state,
            lag_entries,
            lag_ms,
            last_seen: last_seen.or(is_here.then(Instant::now)),
            disk: health.map(|health| health.disk),
        }
    }

    /// For how long a follower that has everything up to `index` has lacked what comes next.
    fn lag(&self, index: u64) -> Duration {
        let missing = self.growth.iter().find(|(_, last)| *last > index);
        missing.map_or(Duration::ZERO, |(since, _)| since.elapsed())
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
        let stored = match self.forced() {
            Ok(to) => {
                let stored = self.cluster.members.rejoins(&to);
                async { stored.await.map(|_| to.epochs) }
            }
            Err(error) => {
                let leader = Err(error);
                return connection.send(ConnectionMessage::Promoted { sequence, leader });
            }
        };
        let forced = stored.into_actor(self).map(move |stored, this, _| {
            let leader = stored.map_err(|reason| Error::new(Code::Internal, reason)).map(|epochs| {
                tracing::warn!(
                    ?epochs,
                    "FORCED: this node is the only voter from now on. What was acknowledged and is not on its disk is \
                     lost. The other nodes listen until they have caught up; one that has what this node has not is kept out"
                );
                this.tell(ReplicationMessage::BeginsAnew);
                this.node.begin_anew();
                this.cluster.node_id
            });
            connection.send(ConnectionMessage::Promoted { sequence, leader });
        });
        context.spawn(forced);
    }

    /// The membership that it is to become.
    fn forced(&self) -> Result<Membership, Error> {
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
        Ok(forced_by(membership, me, format!("{name:016x}")))
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
        if let Some(to) = status.and_then(|status| best_successor(status, &self.seen())) {
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
                Err(Error::new(Code::Timeout, message))
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
                    self.heard.insert(node_id, Instant::now());
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
