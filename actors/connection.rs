//! Connection: one client. Owns its socket and the order of its replies.
//!
//! Every request takes a slot; answers fill slots in any order and leave in
//! theirs. What may be dispatched when is [`Barrier`]'s decision; to whom, is in
//! `dispatch`; how replies leave, in `connection_output`.
//!
//! ```text
//! socket ─► RequestStream ─► slots + queue ─► Barrier ─► shards, IndexManagers
//! socket ◄─ output ◄─ slots, in order ◄───── Replies, Found ◄──┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, StreamHandler};
use bytes::{Bytes, BytesMut};
use datastore::engine::Version;
use datastore::error::Error;
use datastore::messaging::{Asks, Decoded, Operation};
use datastore::ordering::{Barrier, Class};
use datastore::query::Gathering;
use datastore::settings::Mode;
use tokio::net::TcpStream;

use crate::Cast;
use crate::awaited::Asker;
pub use crate::connection_messages::ConnectionMessage;
use crate::connection_output::Rest;
use crate::connection_turns::Turns;
use crate::converging_messages::ConvergingMessage;
use crate::dispatch_dynamo;
use crate::freshness::{Freshness, Rounds, freshness};
use crate::half_lines::HalfLines;
use crate::mailbox::{Counted, Mailbox};
use crate::memory_figures::Share;
use crate::node::Node;
use crate::peer_session;
use crate::peering::Peering;
use crate::replication_messages::ReplicationMessage;
use crate::request_stream::{Begun, Gate, Received, RequestStream};
use crate::shard_messages::{Replies, ReplyItem, ShardRequest};
use crate::slot::{
    Arena, Queued, Slot, SlotState, answer_bytes, class, error_line, not_in_mode, request_bytes,
};
use crate::standing::Reached;
use crate::wal_writer::WalMessage;

/// A connection at rest keeps room for so many requests.
const REQUESTS_KEPT: usize = 64;

/// The actor.
pub struct Connection {
    pub(crate) node: Arc<Node>,
    pub(crate) cast: Arc<Cast>,
    pub(crate) address: Mailbox<Connection>,
    pub(crate) reached: Reached,
    registration: usize,
    /// Tells those who work for this connection when it is gone.
    pub(crate) asker: Arc<Asker>,
    half_lines: Arc<HalfLines>,
    /// What was read of it before the node served, until reading begins.
    begun: Option<Begun>,
    pub(crate) socket: Rc<TcpStream>,
    pub(crate) gate: Rc<Gate>,
    pub(crate) barrier: Barrier,
    pub(crate) slots: VecDeque<Slot>,
    /// The sequence number of the first slot.
    pub(crate) first_sequence: u64,
    pub(crate) queue: VecDeque<Queued>,
    /// Requests to several actors whose replies are not on their way out.
    pub(crate) gatherings: usize,
    /// Per shard, what is to be sent for the arena at hand.
    pub(crate) outgoing: Vec<Vec<ShardRequest>>,
    pub(crate) output: BytesMut,
    /// Goes out behind it.
    pub(crate) rest: Option<Rest>,
    /// A task waits until the socket takes more.
    pub(crate) writing: bool,
    pub(crate) read_ended: bool,
    pub(crate) deadline_is_set: bool,
    pub(crate) rounds: Rounds,
    pub(crate) turns: Turns,
    /// On a member: it was answered as by a primary.
    asked_primary: bool,
    /// Requests answered `timeout` whose real answers are still to come.
    pub(crate) timed_out: HashMap<u64, Class>,
    /// What `stats` is told of it.
    kept: Share,
}

impl Connection {
    /// A connection on an accepted socket. It must be made on the arbiter that will run it.
    pub fn new(
        node: Arc<Node>,
        cast: Arc<Cast>,
        (address, registration): (Mailbox<Connection>, usize),
        half_lines: Arc<HalfLines>,
        socket: TcpStream,
    ) -> Connection {
        let shards = node.settings.shards;
        let at = socket.local_addr().ok().map(|address| address.ip().to_canonical());
        Connection {
            reached: Reached { at, port: cast.port },
            kept: node.memory.connections.share(),
            node,
            cast,
            address,
            registration,
            asker: Arc::default(),
            half_lines,
            begun: None,
            socket: Rc::new(socket),
            gate: Rc::new(Gate::default()),
            barrier: Barrier::default(),
            slots: VecDeque::new(),
            first_sequence: 0,
            queue: VecDeque::new(),
            gatherings: 0,
            outgoing: (0..shards).map(|_| Vec::new()).collect(),
            output: BytesMut::new(),
            rest: None,
            writing: false,
            read_ended: false,
            deadline_is_set: false,
            rounds: Rounds::default(),
            turns: Turns::default(),
            asked_primary: false,
            timed_out: HashMap::new(),
        }
    }

    /// It was begun while the node read its directory: goes on where it is.
    pub fn resume(&mut self, begun: Begun, unsent: &[u8]) {
        self.begun = Some(begun);
        self.gate.add(unsent.len());
        self.output.extend_from_slice(unsent);
    }

    fn received(&mut self, decoded: Decoded, context: &mut Context<Self>) {
        let Decoded { arena, requests } = decoded;
        let arena = Arena::new(self.node.memory.requests.count(arena), self.gate.clone());
        let now = Instant::now();
        let mut asked: Option<Option<u64>> = None;
        for request in requests {
            let sequence = self.first_sequence + self.slots.len() as u64;
            let mut slot = Slot::new(&arena, request.id, request.asks, now);
            let operation = match self.in_mode(slot.asks.as_deref()).and(request.operation) {
                Ok(operation) => operation,
                Err(error) => {
                    self.push_refused(slot, &error);
                    continue;
                }
            };
            slot.class = class(&operation);
            slot.counted_bytes = request_bytes(&operation);
            self.gate.add(slot.counted_bytes);
            let round = match self.freshness(&operation, slot.asks.as_deref()) {
                Freshness::AsItIs => None,
                Freshness::Round(most) => {
                    // The freshest of them decides for all.
                    asked = Some(asked.map_or(most, |other| other.min(most)));
                    Some(self.rounds.next())
                }
                Freshness::Version(version) => Some(self.begin_waiting(version)),
                Freshness::Refused(error) => {
                    self.push_refused(slot, &error);
                    continue;
                }
            };
            let may_leave = round.is_none()
                && self.queue.is_empty()
                && self.may_dispatch(&operation, slot.class)
                && self.has_turn(&arena.bytes, sequence, &operation, context);
            self.slots.push_back(slot);
            if may_leave {
                self.dispatch(&arena.bytes, sequence, request.id, operation);
            } else {
                let arena = arena.bytes.clone();
                self.queue.push_back(Queued { arena, sequence, id: request.id, operation, round });
            }
        }
        self.send_outgoing(&arena.bytes);
        if let Some(staleness_ms_max) = asked {
            let (reply_to, round) = (self.address.clone(), self.rounds.begin());
            let read = ReplicationMessage::Read { reply_to, round, staleness_ms_max };
            self.cast.wal_writer.send(WalMessage::Replication(read));
        }
    }

    /// A request that is refused before anyone was asked takes its turn like any other.
    fn push_refused(&mut self, mut slot: Slot, error: &Error) {
        let line = error_line(slot.id(), error);
        let counted = answer_bytes(line.len());
        self.gate.add(counted);
        self.gate.remove(std::mem::replace(&mut slot.counted_bytes, counted));
        slot.becomes(SlotState::Line(line));
        self.slots.push_back(slot);
    }

    /// What a request waits for.
    fn freshness(&mut self, operation: &Operation, asks: Option<&Asks>) -> Freshness {
        if self.node.dynamo.is_some() {
            return dispatch_dynamo::freshness(operation, asks);
        }
        let cluster = self.node.cluster.as_ref();
        cluster.map_or(Freshness::AsItIs, |cluster| freshness(cluster, operation, &mut self.asked_primary))
    }

    /// Asks to be told when a write is here: gives the round that stands for it.
    fn begin_waiting(&mut self, version: Version) -> u64 {
        let (reply_to, round) = (self.address.clone(), self.rounds.begin());
        let await_it = ConvergingMessage::AwaitVersion { version, reply_to, round };
        self.cast.wal_writer.send(WalMessage::Converging(await_it));
        round
    }

    /// Whether this node's mode knows what is asked for: decoding knows no mode.
    fn in_mode(&self, asks: Option<&Asks>) -> Result<(), Box<Error>> {
        match asks {
            Some(asks) if self.node.settings.mode != Mode::Dynamo => Err(Box::new(not_in_mode(asks))),
            _ => Ok(()),
        }
    }

    /// The slot of a request, unless it has been answered (it timed out).
    pub(crate) fn slot(&mut self, sequence: u64) -> Option<&mut Slot> {
        let place = sequence.checked_sub(self.first_sequence)?;
        self.slots.get_mut(place as usize)
    }

    fn replies(&mut self, replies: Replies) {
        let Replies { shard, lines, items } = replies;
        let mut start = 0;
        for item in items {
            match item {
                ReplyItem::Line { sequence, end } => {
                    self.line(sequence, &lines[start..end]);
                    start = end;
                }
                ReplyItem::Large { sequence, entry, vector } => {
                    self.fill(sequence, entry.memory_bytes(), SlotState::Large { entry, vector });
                }
                ReplyItem::Entries { sequence, entries } => {
                    self.gather(sequence, |gathering| gathering.entries(shard, entries));
                }
                ReplyItem::Part { sequence, outcome } => {
                    self.gather(sequence, |gathering| gathering.part(outcome));
                }
            }
        }
    }

    /// A finished line: straight to the output when its turn has come, which is the usual case.
    fn line(&mut self, sequence: u64, line: &[u8]) {
        if sequence == self.first_sequence && !self.slots.is_empty() && self.rest.is_none() {
            self.answered(sequence);
            self.output_line(line);
        } else {
            self.fill(sequence, line.len(), SlotState::Line(Bytes::copy_from_slice(line)));
        }
    }

    /// An answer came: whether or not anyone still waits for it, the barrier knows.
    fn answered(&mut self, sequence: u64) {
        let class = match self.slot(sequence) {
            Some(slot) => Some(slot.class),
            None => self.timed_out.remove(&sequence),
        };
        if let Some(class) = class {
            self.barrier.answered(class);
        }
    }

    /// A slot has its answer, which the gate counts from now on instead of the request.
    pub(crate) fn fill(&mut self, sequence: u64, bytes: usize, state: SlotState) {
        self.answered(sequence);
        self.settle(sequence, bytes, state);
    }

    /// As [`Connection::fill`], of a request that nobody was asked about.
    fn settle(&mut self, sequence: u64, bytes: usize, state: SlotState) {
        let Some(slot) = self.slot(sequence) else { return };
        let counted = answer_bytes(bytes);
        let before = std::mem::replace(&mut slot.counted_bytes, counted);
        slot.becomes(state);
        self.gate.add(counted);
        self.gate.remove(before);
    }

    /// One of several answers came; with the last one the slot is ready or asks again.
    pub(crate) fn gather(&mut self, sequence: u64, take: impl FnOnce(&mut Gathering)) {
        let Some(slot) = self.slot(sequence) else {
            // It timed out. The first of its parts releases the barrier: what that
            // lets go earlier was promised nothing by an unknown outcome.
            return self.answered(sequence);
        };
        let SlotState::Gathering(gathering) = &mut slot.state else { return };
        take(gathering);
        if gathering.is_waiting() {
            return;
        }
        let SlotState::Gathering(mut gathering) = std::mem::replace(&mut slot.state, SlotState::Waiting)
        else {
            return;
        };
        if let Some(stage) = gathering.next_stage() {
            slot.state = SlotState::Gathering(gathering);
            self.ask_copies(sequence, stage);
            return;
        }
        self.fill(sequence, gathering.memory_bytes(), SlotState::Gathered(gathering));
    }

    /// Something changed: dispatch what may go now, send what is ready. Sending
    /// may make room for another gathering, and so on.
    pub(crate) fn go_on(&mut self, context: &mut Context<Self>) {
        loop {
            self.dispatch_queued(context);
            self.drain(context);
            if !self.front_may_leave(context) {
                break;
            }
        }
        self.rest();
    }

    /// The other side is a node: its frames are the replication arbiter's. This
    /// actor's part of the socket closes; the copy goes on.
    fn hand_over(&mut self, first: BytesMut, context: &mut Context<Self>) {
        let peering = Peering::of(&self.node).zip(self.cast.replication_arbiter.clone());
        let Some((peering, arbiter)) = peering else {
            let line = peer_session::refuse_alone(self.node.settings.node_id);
            self.gate.add(line.len());
            self.output.extend_from_slice(&line);
            self.read_ended = true;
            return self.go_on(context);
        };
        if let Ok(socket) = self.socket.as_fd().try_clone_to_owned() {
            let (node, cast) = (self.node.clone(), self.cast.clone());
            arbiter.spawn_fn(move || peering.begin_session(node, cast, socket.into(), first));
        }
        context.stop();
    }

    /// Fills a slot with a line that needed nobody.
    pub(crate) fn answer_now(&mut self, sequence: u64, write: impl FnOnce(&mut Vec<u8>, &[u8])) {
        let Some(slot) = self.slot(sequence) else { return };
        let mut line = Vec::new();
        write(&mut line, slot.id());
        line.shrink_to_fit();
        self.settle(sequence, line.len(), SlotState::Line(Bytes::from(line)));
    }

    /// At rest a connection keeps what it needs for a few requests, whatever it had under way;
    /// says what it has, for `stats`.
    pub(crate) fn rest(&mut self) {
        if self.slots.is_empty() && self.queue.is_empty() {
            self.slots.shrink_to(REQUESTS_KEPT);
            self.queue.shrink_to(0);
            self.timed_out.shrink_to(REQUESTS_KEPT);
        }
        let lists = self.slots.capacity() * size_of::<Slot>() + self.queue.capacity() * size_of::<Queued>();
        let output_spare = self.output.capacity() - self.output.len();
        self.kept.keeps(self.gate.bytes_beside_arenas().max(lists) + output_spare);
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let stream = RequestStream::new(
            self.node.clone(),
            self.half_lines.clone(),
            self.socket.clone(),
            self.gate.clone(),
            self.begun.take(),
        );
        context.add_stream(stream);
        self.drain(context);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.asker.leaves();
        self.cast.connection_closed(&self.node, self.registration);
    }
}

impl StreamHandler<Received> for Connection {
    fn handle(&mut self, received: Received, context: &mut Self::Context) {
        match received {
            Received::Requests(decoded) => self.received(decoded, context),
            Received::Peer(first) => return self.hand_over(first, context),
            Received::End => self.read_ended = true,
            Received::Failed(_) => return context.stop(),
            Received::HalfLineTimeout => {
                self.node.connections.closed_half_line.fetch_add(1, Ordering::Relaxed);
                self.read_ended = true;
            }
            Received::Idle => {
                self.node.connections.closed_idle.fetch_add(1, Ordering::Relaxed);
                self.read_ended = true;
            }
            Received::Other(protocol) => {
                let answer = protocol.answer();
                self.gate.add(answer.len());
                self.output.extend_from_slice(&answer);
                self.read_ended = true;
            }
        }
        self.go_on(context);
    }

    fn finished(&mut self, _: &mut Self::Context) {
        // Not the end of the connection: replies may still be under way.
    }
}

impl Handler<Counted<ConnectionMessage>> for Connection {
    type Result = ();

    fn handle(&mut self, counted: Counted<ConnectionMessage>, context: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            ConnectionMessage::Replies(replies) => self.replies(replies),
            ConnectionMessage::Met => self.barrier.met(),
            ConnectionMessage::Found { sequence, part } => {
                self.gather(sequence, |gathering| gathering.found(part));
            }
            ConnectionMessage::SnapshotMade { sequence, made } => {
                self.gather(sequence, |gathering| gathering.snapshot_made(made));
            }
            ConnectionMessage::ReadReady { round, ready } => self.rounds.done(round, ready),
            ConnectionMessage::Promoted { sequence, leader } => self.promoted(sequence, leader),
            ConnectionMessage::MembersChanged { sequence, outcome } => {
                self.members_changed(sequence, outcome);
            }
            ConnectionMessage::Founded { sequence, member, outcome } => {
                self.first_added(sequence, &member, outcome);
            }
            ConnectionMessage::Copied { sequence, outcome } => {
                self.gather(sequence, |gathering| gathering.copied_outcome(outcome));
            }
            ConnectionMessage::CopiesRead { sequence, entry } => {
                self.gather(sequence, |gathering| gathering.copies_read(entry));
            }
            ConnectionMessage::Stop => self.gate.close(),
        }
        self.go_on(context);
    }
}
