//! What a peer sends to this node: one session a connection that a peer opened.
//!
//! ```text
//!   socket, first line ─► handshake ─► accepted: frames ─► WalWriter
//!                                   ├► adopted: the same
//!                                   ├► introduced ─┐
//!                                   └► refused ────┴─► an answer, and the end
//! ```
//!
//! A session says nothing after its answer; what this node has to say goes
//! through its own connections. Entries are not read while this node has more
//! under way than it should; heartbeats always are, so that a node that is busy
//! isn't taken for one that is dead.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use datastore::error::{Code, Error};
use datastore::messaging::peer_frame::{PeerFrame, decode};
use datastore::messaging::peer_greeting::is_dynamo;
use datastore::messaging::peer_hello::{read_hello, refusal_error, refused_line, welcome_line};
use datastore::persistence::{Membership, host_of};
use datastore::replication::doubt::Condition;
use datastore::replication::handshake::{Decision, Hello, Lane, Refusal, Welcome, decide};
use datastore::replication::message::{MessageKind, NodeId};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::anew::Anew;
use crate::cluster::Cluster;
use crate::memory_figures::Share;
use crate::node::Node;
use crate::peer_greeting::{GREETING_TIMEOUT, own, prepare};
use crate::peer_links::SessionPlace;
use crate::peer_socket::{fill, read_line, write_all};
use crate::replication_messages::{CoordinatorMessage, ReplicationMessage};
use crate::snapshot_receiver;
use crate::start::Cast;
use crate::wal_writer::WalMessage;

/// How long to look away when this node has too much under way.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);
/// The coordinator hears of a peer no more often than this.
const HEARD_EVERY: Duration = Duration::from_millis(50);
const UNANSWERED_MAX: Duration = Duration::from_secs(2);

/// What a peer is told by a node without a cluster.
pub(crate) fn refuse_alone(node_id: u64) -> Vec<u8> {
    let message = format!(
        "node {node_id} runs on its own, without --peers, and belongs to no cluster: correct the address, or start \
         it with --peers on an empty directory"
    );
    refused_line(&Error::new(Code::UnsupportedInMode, message), None)
}

/// Serves a connection whose first bytes are a peer's. To be called on the replication arbiter.
pub(crate) fn begin(
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<Cluster>,
    socket: std::net::TcpStream,
    read: BytesMut,
) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let from = socket.peer_addr().ok();
    let kept = node.memory.peers.share();
    let session = Session { node, cast, cluster, socket, buffer: read, kept, from };
    actix_rt::spawn(session.run());
}

struct Session {
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<Cluster>,
    socket: TcpStream,
    /// Read, and not yet taken for frames.
    buffer: BytesMut,
    /// What that occupies, for `stats`.
    kept: Share,
    from: Option<SocketAddr>,
}

impl Session {
    async fn run(mut self) {
        prepare(SockRef::from(&self.socket), UNANSWERED_MAX);
        // Who doesn't finish its greeting is no peer, and gets no answer.
        let Ok(Some(hello)) = timeout(GREETING_TIMEOUT, self.greet()).await else { return };
        if hello.lane == Lane::Snapshot {
            return self.receive_snapshot(hello.node_id);
        }
        let links = &self.cluster.clone().links;
        let session = links.begin_session(hello.node_id, hello.lane, hello.boot);
        if hello.lane == Lane::Heartbeat {
            self.cluster.healths.peer_comes(hello.node_id, links.protocol(hello.node_id));
        }
        let ended = tokio::select! {
            ended = self.receive(hello.node_id, hello.lane, &session) => ended,
            () = session.replaced.notified() => Ok(()),
        };
        links.end_session(hello.node_id, hello.lane, &session);
        if let Err(error) = ended {
            tracing::debug!(peer = hello.node_id, lane = ?hello.lane, %error, "a peer's session ended");
        }
    }

    /// Answers the first line; gives it if frames are to follow.
    async fn greet(&mut self) -> Option<Hello> {
        let line = read_line(&self.socket, &mut self.buffer).await.ok()?;
        if is_dynamo(&line) {
            let message = "this node runs with --mode leader, the other one with --mode dynamo: give all nodes of a \
                           cluster the same --mode";
            self.refuse(0, &Error::new(Code::BadRequest, message)).await;
            return None;
        }
        let hello = match read_hello(&line) {
            Ok(hello) => hello,
            Err(reason) => {
                self.refuse(0, &Error::new(Code::BadRequest, reason)).await;
                return None;
            }
        };
        let (protocol, is_member) = match decide(&own(&self.cluster), &hello) {
            Decision::Refuse(refusal) => {
                if matches!(refusal, Refusal::Diverged { .. }) && !self.cluster.is_left_behind() {
                    tracing::error!("{refusal}");
                    self.cast.wal_writer.send(WalMessage::Replication(ReplicationMessage::LeftBehind));
                }
                let refusal = self.said(refusal);
                self.refuse(hello.node_id, &refusal_error(&refusal)).await;
                return None;
            }
            Decision::Introduce { protocol } => (protocol, false),
            Decision::Accept { .. } if self.cluster.links.is_there_twice(hello.node_id, hello.boot) => {
                let message = format!(
                    "another process is connected as node {}, with the same directory: only one of them may run",
                    hello.node_id
                );
                self.refuse(hello.node_id, &Error::new(Code::BadRequest, message)).await;
                return None;
            }
            Decision::Accept { protocol, meet } => {
                if meet && !self.meets(&hello).await {
                    return None;
                }
                (protocol, true)
            }
            Decision::Adopt { protocol, membership } => {
                if !self.is_adopted(hello.node_id, membership).await {
                    return None;
                }
                (protocol, true)
            }
            Decision::Rejoin { membership } => {
                self.rejoin(hello, membership).await;
                return None;
            }
        };
        self.cluster.links.speaks(hello.node_id, protocol);
        self.cluster.links.advertises(hello.node_id, hello.advertise.clone());
        if is_member {
            self.cluster.conditions.peer_greets(hello.node_id, hello.in_doubt);
        }
        let membership = self.cluster.membership();
        let welcome = Welcome {
            protocol,
            epochs: membership.as_ref().map_or(Vec::new(), |membership| membership.epochs.clone()),
            lags: !is_member && membership.is_some(),
            cluster: membership.map(|membership| membership.cluster),
            node_id: self.cluster.node_id,
            node: self.cluster.node,
            boot: self.cluster.boot,
            in_doubt: self.cluster.conditions.own() == Condition::InDoubt,
            advertise: self.cluster.advertise.clone(),
        };
        write_all(&self.socket, &welcome_line(&welcome)).await.ok()?;
        is_member.then_some(hello)
    }

    /// Notes the directory of who greets. Says whether it may go on: what was decided before the disk had that is
    /// decided again.
    async fn meets(&self, hello: &Hello) -> bool {
        let error = match self.cluster.members.meet(hello.node_id, hello.node).await {
            Ok(_) => match decide(&own(&self.cluster), hello) {
                Decision::Accept { meet: false, .. }
                    if !self.cluster.links.is_there_twice(hello.node_id, hello.boot) =>
                {
                    return true;
                }
                _ => Error::new(Code::Starting, "what this node knows of its members has just changed"),
            },
            Err(error) => Error::new(Code::Internal, error),
        };
        self.refuse(hello.node_id, &error).await;
        false
    }

    /// Becomes a member. What follows doesn't depend on this session, which ends when the disk takes too long.
    async fn is_adopted(&self, founder: NodeId, membership: Membership) -> bool {
        let (cast, by) = (self.cast.clone(), membership.clone());
        let adopted = self.cluster.members.adopted(
            &membership,
            Box::new(move |_| {
                let members = by.node_ids();
                tracing::info!(
                    cluster = by.cluster,
                    founder,
                    ?members,
                    "adopted: this node is a member of a cluster"
                );
                cast.wal_writer.send(WalMessage::Replication(ReplicationMessage::Adopted));
            }),
        );
        let Err(error) = adopted.await else { return true };
        self.refuse(founder, &Error::new(Code::Internal, error)).await;
        false
    }

    /// The members were changed without this node: it takes over what was decided, and starts anew.
    async fn rejoin(&self, hello: Hello, membership: Membership) {
        let from = hello.node_id;
        let why = Anew::Told { hello: Box::new(hello), membership: Box::new(membership.clone()) };
        let (node, told) = (self.node.clone(), membership.clone());
        let begins = Box::new(move |is_stored| {
            tracing::warn!(
                is_stored,
                from,
                members = ?told.node_ids(),
                voters = ?told.configuration.members.voters,
                epochs = told.epochs.len(),
                "the members have changed without this node; it begins anew with those that it was told"
            );
            node.begin_anew();
        });
        let consent = Box::new(why.consent(self.cast.clone()));
        let error = match self.cluster.members.rejoins(&membership, consent, begins).await {
            Ok(true) => Error::new(Code::Starting, "this node begins anew with the members that it was told"),
            Ok(false) => Error::new(Code::Starting, "what this node knows of its members has just changed"),
            Err(error) => Error::new(Code::Internal, error),
        };
        self.refuse(from, &error).await;
    }

    /// The refusal that the peer is told. A leader that was paused may only be about to find out that it leads no more:
    /// until it is sure it says that it lags.
    fn said(&self, refusal: Refusal) -> Refusal {
        match &refusal {
            Refusal::Forgotten { node_id, leader, .. }
                if !self.cluster.conditions.is_forgotten(*node_id, &refusal.to_string()) =>
            {
                Refusal::Lags { node_id: *leader }
            }
            _ => refusal,
        }
    }

    async fn refuse(&self, node_id: NodeId, error: &Error) {
        if self.cluster.links.is_refusal_due(node_id, &error.message) && error.code != Code::Starting {
            let from = self.from.map(|from| from.to_string());
            tracing::warn!(peer = node_id, from, reason = error.message, "a peer was refused");
        }
        let cluster = self.cluster.membership().map(|membership| membership.cluster);
        // Who is gone already can't be told.
        let _ = write_all(&self.socket, &refused_line(error, cluster.as_deref())).await;
    }

    async fn receive(&mut self, peer: NodeId, lane: Lane, place: &SessionPlace) -> io::Result<()> {
        let mut heard: Option<Instant> = None;
        loop {
            loop {
                let frame = decode(&mut self.buffer).map_err(|error| {
                    tracing::error!(peer, ?lane, %error, "a peer's connection brought what is no frame; it is closed");
                    io::Error::new(io::ErrorKind::InvalidData, error)
                })?;
                let Some(frame) = frame else { break };
                let is_known = self.deliver(peer, frame);
                if !is_known {
                    tracing::error!(peer, ?lane, "a peer sent a frame that doesn't belong to this lane");
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if heard.is_none_or(|heard| heard.elapsed() >= HEARD_EVERY) {
                    heard = Some(Instant::now());
                    place.hear();
                    self.say_heard(peer);
                }
            }
            while lane == Lane::Log && self.cluster.holds_entries_back(&self.node.permits) {
                tokio::time::sleep(CROWDED_PAUSE).await;
            }
            self.kept.keeps(self.buffer.capacity());
            fill(&self.socket, &mut self.buffer).await?;
        }
    }

    /// Hands a frame on. Says whether it is one that this lane carries.
    fn deliver(&self, peer: NodeId, frame: PeerFrame) -> bool {
        let message = match frame {
            // A message in another node's name would be a fault of the peer's: it counts for nothing.
            PeerFrame::Message(message)
                if host_of(message.from) != peer || host_of(message.to) != self.cluster.node_id =>
            {
                return true;
            }
            // Its state comes on a connection of its own; told without it, the replica would wait for it.
            PeerFrame::Message(message) if message.kind == MessageKind::Snapshot => return false,
            PeerFrame::Message(message) => ReplicationMessage::Received(Box::new(message)),
            PeerFrame::Presence(condition) => {
                self.cluster.conditions.peer_says(peer, condition);
                self.cluster.healths.forget(peer);
                return true;
            }
            PeerFrame::Health(health) => {
                self.cluster.conditions.peer_says(peer, health.condition);
                self.cluster.healths.peer_says(peer, health);
                return true;
            }
            PeerFrame::ReadProbe { number } => ReplicationMessage::ReadProbe { from: peer, number },
            PeerFrame::ReadAnswer { number, index } => ReplicationMessage::ReadAnswer { number, index },
            PeerFrame::StateHash { index, hash } => {
                ReplicationMessage::PeerStateHash { from: peer, index, hash }
            }
            PeerFrame::SnapshotBegin(_)
            | PeerFrame::SnapshotResume { .. }
            | PeerFrame::SnapshotChunk { .. }
            | PeerFrame::SnapshotEntries(_)
            | PeerFrame::SnapshotEnd
            | PeerFrame::SnapshotResult { .. }
            | PeerFrame::Converging(_) => return false,
        };
        self.cast.wal_writer.send(WalMessage::Replication(message));
        true
    }

    fn say_heard(&self, peer: NodeId) {
        if let Some(coordinator) = &self.cast.coordinator {
            let connected = self.cluster.links.is_reached(peer);
            coordinator.send(CoordinatorMessage::Peer { node_id: peer, connected });
        }
    }

    /// A snapshot has a thread of its own: neither its length nor the disk delays anyone.
    fn receive_snapshot(self, peer: NodeId) {
        let Session { node, cast, cluster, socket, buffer, .. } = self;
        let Ok(socket) = socket.into_std() else { return };
        snapshot_receiver::begin(node, cast, cluster, socket, buffer, peer);
    }
}
