//! What a peer sends to this node in dynamo mode: one session a connection that a peer opened.
//!
//! Entries from too far ahead of this node's clock are held by not reading on: nothing
//! is buffered for that, and nothing dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use datastore::address::is_everywhere;
use datastore::error::{Code, Error};
use datastore::messaging::peer_frame::{PeerFrame, decode};
use datastore::messaging::peer_frame_converging::Converging;
use datastore::messaging::peer_greeting::{evicted_line, greeting_welcome_line, read_greeting};
use datastore::messaging::peer_hello::refused_line;
use datastore::replication::dynamo::clock::is_ahead;
use datastore::replication::dynamo::entry::time_of;
use datastore::replication::dynamo::{Decision, Greeting, Message, Place, decide};
use datastore::replication::handshake::Lane;
use datastore::replication::message::NodeId;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::converging_messages::ConvergingMessage;
use crate::dynamo_cluster::DynamoCluster;
use crate::dynamo_greeting::{own, speaks};
use crate::memory_figures::Share;
use crate::node::Node;
use crate::peer_greeting::{GREETING_TIMEOUT, prepare};
use crate::peer_links::SessionPlace;
use crate::peer_socket::{fill, read_line, write_all};
use crate::shard_messages::ShardMessage;
use crate::start::Cast;
use crate::state_source;
use crate::wal_writer::WalMessage;

/// How long to look away when this node has too much under way.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);
/// How long to look away from entries that are ahead of this node's clock.
const AHEAD_PAUSE: Duration = Duration::from_millis(20);
/// It is noted that a peer is there no more often than this.
const HEARD_EVERY: Duration = Duration::from_millis(50);
const UNANSWERED_MAX: Duration = Duration::from_secs(2);

/// Serves a connection whose first bytes are a peer's. To be called on the replication arbiter.
pub(crate) fn begin(
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<DynamoCluster>,
    socket: std::net::TcpStream,
    read: BytesMut,
) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let from = socket.peer_addr().ok();
    let kept = node.memory.peers.share();
    actix_rt::spawn(Session { node, cast, cluster, socket, buffer: read, kept, from }.run());
}

struct Session {
    node: Arc<Node>,
    cast: Arc<Cast>,
    cluster: Arc<DynamoCluster>,
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
        let Ok(Some(greeting)) = timeout(GREETING_TIMEOUT, self.greet()).await else { return };
        let peer = greeting.from.node_id;
        if greeting.lane == Lane::Snapshot {
            return self.serve_state(peer);
        }
        let links = &self.cluster.clone().links;
        let session = links.begin_session(peer, greeting.lane, greeting.boot);
        self.cast.wal_writer.send(WalMessage::Converging(ConvergingMessage::Speaks(peer)));
        if links.is_another_process(peer, greeting.boot) {
            // What the one before has said counts no more: this one's directory may be an older copy.
            self.cast.wal_writer.send(WalMessage::Converging(ConvergingMessage::Unreachable(peer)));
        }
        let ended = tokio::select! {
            ended = self.receive(peer, greeting.lane, &session) => ended,
            () = session.replaced.notified() => Ok(()),
        };
        links.end_session(peer, greeting.lane, &session);
        if let Err(error) = ended {
            tracing::debug!(peer, lane = ?greeting.lane, %error, "a peer's session ended");
        }
    }

    /// Answers the first line; gives it if frames are to follow.
    async fn greet(&mut self) -> Option<Greeting> {
        let line = read_line(&self.socket, &mut self.buffer).await.ok()?;
        let greeting = match read_greeting(&line) {
            Ok(greeting) => greeting,
            Err(reason) => {
                self.refuse(0, &Error::new(Code::BadRequest, reason)).await;
                return None;
            }
        };
        let peer = greeting.from.node_id;
        match decide(&self.cluster.place, &self.cluster.members(), &greeting) {
            Decision::Accept if self.cluster.links.is_there_twice(peer, greeting.boot) => {
                let message =
                    format!("another process is connected as node {peer}: only one with that number may run");
                self.refuse(peer, &Error::new(Code::BadRequest, message)).await;
                None
            }
            Decision::Accept => {
                self.cluster.is_at(&self.reachable(greeting.from.clone()));
                let welcome = own(&self.cluster, peer, greeting.lane);
                write_all(&self.socket, &greeting_welcome_line(&welcome)).await.ok()?;
                speaks(&self.cluster, &greeting);
                Some(greeting)
            }
            Decision::Admit => {
                let place = self.reachable(greeting.from);
                self.cast.wal_writer.send(WalMessage::Converging(ConvergingMessage::Admit(place)));
                self.refuse(peer, &Error::new(Code::Starting, "it is being admitted: come again")).await;
                None
            }
            Decision::Evicted(error) => {
                self.refuse_with(peer, &error, &evicted_line(&error)).await;
                None
            }
            Decision::Refuse(error) => {
                self.refuse(peer, &error).await;
                None
            }
        }
    }

    /// A node that listens on all its addresses is known here by the one that it came from.
    fn reachable(&self, mut place: Place) -> Place {
        let is_any = is_everywhere(&place.host);
        if let Some(from) = self.from.filter(|_| is_any) {
            place.host = from.ip().to_string();
        }
        place
    }

    async fn refuse(&self, peer: NodeId, error: &Error) {
        self.refuse_with(peer, error, &refused_line(error, None)).await;
    }

    async fn refuse_with(&self, peer: NodeId, error: &Error, line: &[u8]) {
        if self.cluster.links.is_refusal_due(peer, &error.message) && error.code != Code::Starting {
            let from = self.from.map(|from| from.to_string());
            tracing::warn!(peer, from, reason = error.message, "a peer was refused");
        }
        // Who is gone already can't be told.
        let _ = write_all(&self.socket, line).await;
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
                self.wait_for_time(peer, &frame).await;
                if place.is_over() {
                    return Ok(());
                }
                if !self.deliver(peer, frame) {
                    tracing::error!(peer, ?lane, "a peer sent a frame that doesn't belong to this lane");
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if heard.is_none_or(|heard| heard.elapsed() >= HEARD_EVERY) {
                    heard = Some(Instant::now());
                    place.hear();
                    self.cluster.heard(peer);
                }
            }
            while lane == Lane::Log && self.cluster.holds_entries_back(&self.node.permits) {
                tokio::time::sleep(CROWDED_PAUSE).await;
            }
            self.kept.keeps(self.buffer.capacity());
            fill(&self.socket, &mut self.buffer).await?;
        }
    }

    /// Waits until this node's clock has come so far that the entries may be taken.
    async fn wait_for_time(&self, peer: NodeId, frame: &PeerFrame) {
        let PeerFrame::Converging(Converging::Message(Message::Entries(entries))) = frame else { return };
        let latest = entries.iter().filter_map(|payload| time_of(payload)).max().unwrap_or(0);
        let mut said = false;
        while is_ahead(latest, self.cluster.now_ms()) {
            if !said {
                said = true;
                tracing::warn!(
                    peer,
                    "a peer's writes are more than 500 ms ahead of this node's clock: they wait"
                );
            }
            tokio::time::sleep(AHEAD_PAUSE).await;
        }
    }

    /// Hands a frame on. Says whether it is one that a lane carries.
    fn deliver(&self, peer: NodeId, frame: PeerFrame) -> bool {
        let PeerFrame::Converging(frame) = frame else { return false };
        let message = match frame {
            Converging::Message(message) => ConvergingMessage::Received { from: peer, message },
            Converging::KeyState { number, state } => {
                ConvergingMessage::KeyState { from: peer, number, state }
            }
            Converging::KeyWanted { number, key } => {
                let hash = self.node.placement.hash(&key);
                let shard = &self.cast.shards[self.node.placement.shard(hash)];
                shard.send(ShardMessage::KeyWanted { key, hash, number, from: Some(peer) });
                return true;
            }
            Converging::StateWanted { .. } | Converging::StateBegins { .. } | Converging::States(_) => {
                return false;
            }
        };
        self.cast.wal_writer.send(WalMessage::Converging(message));
        true
    }

    /// A state has a thread of its own: neither its length nor the peer delays anyone.
    fn serve_state(self, peer: NodeId) {
        let Session { node, cast, socket, buffer, .. } = self;
        let Ok(socket) = socket.into_std() else { return };
        state_source::begin(node, cast, socket, buffer, peer);
    }
}
