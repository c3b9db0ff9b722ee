//! ReplicatorPeer: one per peer. Sends it what this node's replica says, on
//! connections of its own; what the peer says comes through the connections that
//! the peer has opened (`peer_session`).
//!
//! ```text
//!   PeerMessage ─► log lane         entries and their acknowledgements
//!               ─► heartbeat lane   all other messages, probes, answers, hashes
//!               ─► a thread         one snapshot at a time
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Context, Handler};
use actix_rt::task::JoinHandle;
use datastore::messaging::peer_frame::PeerFrame;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::replication::dynamo::Message;
use datastore::replication::handshake::Lane;
use datastore::replication::health::Health;
use datastore::replication::message::{MessageKind, NodeId};

use crate::mailbox::Counted;
use crate::node::Node;
use crate::peer_lane::{LaneQueue, LaneTask};
use crate::peering::Peering;
use crate::replication_messages::PeerMessage;
use crate::snapshot_sender::SnapshotStreams;
use crate::start::Cast;

/// The replica is told of what was dropped, but not of each message.
const UNREACHABLE_EVERY: Duration = Duration::from_millis(100);

/// The actor.
pub struct ReplicatorPeer {
    node: Arc<Node>,
    cast: Arc<Cast>,
    peering: Peering,
    peer: NodeId,
    log: Rc<LaneQueue>,
    heartbeats: Rc<LaneQueue>,
    unreachable_said: Option<Instant>,
    snapshots: SnapshotStreams,
    lanes: Vec<JoinHandle<()>>,
}

impl ReplicatorPeer {
    /// What is said to one peer. It must be made on the replication arbiter.
    pub fn new(node: Arc<Node>, cast: Arc<Cast>, peering: Peering, peer: NodeId) -> ReplicatorPeer {
        let queue = || Rc::new(LaneQueue::new(node.memory.peers.share()));
        ReplicatorPeer {
            log: queue(),
            heartbeats: queue(),
            node,
            cast,
            peering,
            peer,
            unreachable_said: None,
            snapshots: SnapshotStreams::default(),
            lanes: Vec::new(),
        }
    }

    fn lane_task(&self, lane: Lane) -> LaneTask {
        let (queue, other) = match lane {
            Lane::Heartbeat => (&self.heartbeats, Some(self.log.clone())),
            Lane::Log | Lane::Snapshot => (&self.log, None),
        };
        LaneTask {
            cast: self.cast.clone(),
            peering: self.peering.clone(),
            peer: self.peer,
            lane,
            queue: queue.clone(),
            other,
            attempts: Cell::new(0),
        }
    }

    fn dropped(&mut self) {
        if self.unreachable_said.is_none_or(|said| said.elapsed() >= UNREACHABLE_EVERY) {
            self.unreachable_said = Some(Instant::now());
            self.cast.wal_writer.send(self.peering.unreachable(self.peer));
        }
    }
}

impl Actor for ReplicatorPeer {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        for lane in [Lane::Heartbeat, Lane::Log] {
            self.lanes.push(actix_rt::spawn(self.lane_task(lane).run()));
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.lanes.drain(..).for_each(|lane| lane.abort());
    }
}

impl Handler<Counted<PeerMessage>> for ReplicatorPeer {
    type Result = ();

    fn handle(&mut self, counted: Counted<PeerMessage>, context: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            PeerMessage::Send(message) => {
                let is_entries = matches!(message.kind, MessageKind::Append | MessageKind::AppendResponse);
                let frame = PeerFrame::Message(message);
                let kept = if is_entries {
                    self.log.push_entries(frame)
                } else {
                    self.heartbeats.push_newest(frame)
                };
                if !kept {
                    self.dropped();
                }
            }
            // Of these nothing is owed: who asks asks again.
            PeerMessage::Presence => {
                let health = match &self.peering {
                    Peering::Leader(cluster) => cluster.healths.own(),
                    Peering::Dynamo(_) => Health::default(),
                };
                self.heartbeats.push_newest(PeerFrame::Health(health));
            }
            PeerMessage::ReadProbe { number } => {
                self.heartbeats.push_newest(PeerFrame::ReadProbe { number });
            }
            PeerMessage::ReadAnswer { number, index } => {
                self.heartbeats.push_newest(PeerFrame::ReadAnswer { number, index });
            }
            PeerMessage::StateHash { index, hash } => {
                self.heartbeats.push_newest(PeerFrame::StateHash { index, hash });
            }
            PeerMessage::Converging(frame) => {
                let is_pulse = matches!(frame, Converging::Message(Message::Pulse(_)));
                let frame = PeerFrame::Converging(frame);
                let kept =
                    if is_pulse { self.heartbeats.push_newest(frame) } else { self.log.push_entries(frame) };
                if !kept && !is_pulse {
                    // Each time: the cursor has gone on.
                    self.cast.wal_writer.send(self.peering.unreachable(self.peer));
                }
            }
            PeerMessage::Stop => context.stop(),
            PeerMessage::StreamSnapshot(snapshot) => {
                if let Peering::Leader(cluster) = &self.peering {
                    self.snapshots.send(&self.node, &self.cast, cluster, self.peer, *snapshot);
                }
            }
        }
    }
}
