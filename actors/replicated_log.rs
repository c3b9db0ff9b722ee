//! The WalWriter's log on a member of a cluster: it carries the replica, and does
//! what that decides.
//!
//! ```text
//! shards ──Append──► group ─propose─► Replica ─┬─ Persist ─► disk thread ─ Persisted ─┐
//!                                              ├─ Send ────► ReplicatorPeers          │
//!                      peers ── Received ────► │  ◄───────────────────────────────────┘
//! shards ◄─Committed── of its own proposals ◄──┤
//! shards ◄─Logged───── of everything else ◄────┴─ Commit, in the log's order
//! ```
//!
//! When its shards take writes at all is [`Notices`]'s decision. They hear of each
//! change in the order of everything else that the WalWriter tells them; when an
//! office ends, they answer all their writes in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use crossbeam_channel::Sender;
use datastore::error::{Code, Error};
use datastore::limits;
use datastore::persistence::{Configuration, host_of};
use datastore::replication::group::Group;
use datastore::replication::message::{LogEntry, Message, MessageKind, payload_memory_bytes};
use datastore::replication::notices::{Notice, Notices, lost};
use datastore::replication::raft::{Effect, Input, Persist, Replica, Role, RoleChange, Start};

use crate::Cast;
use crate::acknowledgements;
use crate::cluster::Cluster;
use crate::disk_thread::DiskOrder;
use crate::memory_figures::Share;
use crate::node::Node;
use crate::peering::Peering;
use crate::peers::follow_members;
use crate::replicated_reads::ReplicatedReads;
use crate::replicated_snapshots::{OwnSnapshot, Snapshots};
use crate::replication_messages::{CoordinatorMessage, PeerMessage, ReplicationMessage};
use crate::replication_options::{first_start, options};
use crate::shard_messages::{Committed, ShardMessage};
use crate::shard_replication::Logged;
use crate::state_hashes::StateHashes;

/// Persists under way with which further writes wait for company: a group that
/// is proposed at once is an entry by itself, and each costs every node a frame.
const PERSISTS_UNDER_WAY_MAX: usize = 2;

/// What became of a [`ReplicatedLog::pump`], beside what it did itself.
#[derive(Default)]
pub(crate) struct Outcome {
    /// What was gathered for the log has been answered.
    pub(crate) office_ended: bool,
    /// A follower needs a snapshot, and there is none that helps it.
    pub(crate) snapshot_wanted: bool,
}

/// The log of a member.
pub struct ReplicatedLog {
    pub(crate) node: Arc<Node>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) cast: Arc<Cast>,
    disk: Sender<DiskOrder>,
    /// `None` until this node is adopted: it has no vote, and no log.
    pub(crate) replica: Option<Replica>,
    next_handle: u64,
    persists_under_way: usize,
    role: RoleChange,
    /// What the shards are told, and when writes count.
    pub(crate) notices: Notices,
    reads: ReplicatedReads,
    pub(crate) hashes: StateHashes,
    pub(crate) snapshots: Snapshots,
    outcome: Outcome,
    /// What the log occupies in memory, for `stats`.
    kept: Share,
}

impl ReplicatedLog {
    /// The log of a member that recovery left at `start`; `None`: it was never adopted.
    pub(crate) fn new(
        node: Arc<Node>,
        cluster: Arc<Cluster>,
        cast: Arc<Cast>,
        disk: Sender<DiskOrder>,
        start: Option<(Start, Option<OwnSnapshot>)>,
    ) -> ReplicatedLog {
        let notices = Notices::new(cast.shards.len(), 0, StateHashes::is_due);
        let mut log = ReplicatedLog {
            reads: ReplicatedReads::new(cluster.clone()),
            hashes: StateHashes::new(cast.shards.len(), cluster.clone()),
            kept: node.memory.log_entries.share(),
            node,
            cluster,
            cast,
            disk,
            replica: None,
            next_handle: 0,
            persists_under_way: 0,
            role: RoleChange { role: Role::Follower, leader: None, term: 0 },
            notices,
            snapshots: Snapshots::default(),
            outcome: Outcome::default(),
        };
        if let Some((start, newest)) = start {
            log.begin(start, newest);
        }
        log
    }

    fn begin(&mut self, start: Start, newest: Option<OwnSnapshot>) {
        self.snapshots.cut_index = start.cut.0;
        let handed_over = start.cut.0 + start.applied.len() as u64;
        self.notices.installed(handed_over);
        // By it the handshake judges whether this node has what a forced log has not.
        self.cluster.applied_index.store(handed_over, Ordering::Relaxed);
        self.cluster.configured(&start.members.configuration);
        follow_members(&self.node, &self.cast, &Peering::Leader(self.cluster.clone()), self.cluster.others());
        let mut replica = Replica::new(options(&self.cluster), start);
        if let Some(term) = replica.term_of(handed_over) {
            self.cluster.committed(handed_over, term);
        }
        if let Some((mark, after)) = newest {
            replica.snapshot_made(mark.clone(), after, self.snapshots.cut_index);
            self.snapshots.newest = Some((mark, after));
        }
        self.replica = Some(replica);
    }

    /// The office in which writes count now.
    pub(crate) fn office(&self) -> u64 {
        self.notices.office()
    }

    /// The last entry handed to the shards.
    pub(crate) fn handed_over(&self) -> u64 {
        self.notices.handed_over()
    }

    /// Whether writes are to wait for company, or for room.
    pub(crate) fn must_hold(&self) -> bool {
        self.persists_under_way >= PERSISTS_UNDER_WAY_MAX
            || self.notices.uncommitted_bytes() >= limits::UNCOMMITTED_BYTES_MAX
    }

    /// Proposes a group as one entry. It ends, like any input, with a pump.
    pub(crate) fn propose(&mut self, group: Group) {
        let Some(replica) = &mut self.replica else {
            let error = self.cluster.refusal();
            return acknowledgements::refused(&self.cast.shards, group.acknowledgements, &error);
        };
        self.next_handle += 1;
        let payload = self.notices.proposing(group);
        replica.step(Input::Propose(self.next_handle, payload));
    }

    /// The log is to go on by an entry. Says whether it does: only where this node leads.
    pub(crate) fn go_on(&mut self) -> bool {
        self.step(Input::GoOn);
        self.role.role == Role::Leader
    }

    /// What the replica must know.
    pub(crate) fn hear(&mut self, message: ReplicationMessage) {
        match message {
            ReplicationMessage::Adopted => self.adopted(),
            ReplicationMessage::LeftBehind => self.left_behind(),
            ReplicationMessage::BeginsAnew(request) => {
                let still_holds = request.why.still_holds(&self.cluster);
                if still_holds {
                    self.cluster.begins_anew.store(true, Ordering::Relaxed);
                    self.take_no_more_part();
                }
                // The thread of the members' file waits for it, and ends only with the process.
                let _ = request.answer.send(still_holds);
            }
            ReplicationMessage::Tick => {
                self.reads.tick();
                self.step(Input::Tick);
                if let Some(replica) = &self.replica {
                    self.snapshots.held.tick(&replica.status());
                }
                self.tell_coordinator();
            }
            ReplicationMessage::Received(message) => self.step(Input::Received(message)),
            ReplicationMessage::Unreachable(peer) => self.step(Input::Unreachable(peer)),
            ReplicationMessage::SnapshotSent { to, arrived } => {
                self.snapshots.held.snapshot_ended(to, arrived);
                self.step(Input::SnapshotSent(to, arrived));
            }
            ReplicationMessage::GoOn => self.step(Input::GoOn),
            ReplicationMessage::TransferTo(node) => self.step(Input::TransferTo(node)),
            ReplicationMessage::Reconfigure(to) => self.step(Input::Reconfigure(to)),
            ReplicationMessage::Fetched { number, entries } => self.step(Input::Fetched(number, entries)),
            ReplicationMessage::Persisted { number, persists, .. } => self.persisted(number, persists),
            ReplicationMessage::DoubtStored => self.step(Input::DoubtStored),
            ReplicationMessage::LogCut { first_index } => {
                self.snapshots.cut_index = self.snapshots.cut_index.max(first_index.saturating_sub(1));
                self.snapshot_moved();
            }
            ReplicationMessage::SnapshotMade { index, after } => self.snapshot_made(index, after),
            ReplicationMessage::NotFound { number, unreadable } => {
                self.order(DiskOrder::NotFound { number, unreadable });
            }
            ReplicationMessage::Unreadable { index, .. } => self.step(Input::Unreadable(index)),
            ReplicationMessage::SnapshotArrived { message, tables } => self.snapshot_arrived(message, tables),
            ReplicationMessage::Read { reply_to, round, staleness_ms_max } => {
                self.reads.ask(reply_to, round, staleness_ms_max);
            }
            ReplicationMessage::ReadProbe { from, number } => self.reads.probed(from, number),
            ReplicationMessage::ReadAnswer { number, index } => self.reads.probe_answered(number, index),
            ReplicationMessage::PeerStateHash { from, index, hash } => self.hashes.of_peer(from, index, hash),
            ReplicationMessage::ShardStateHash { index, hash } => {
                if let Some(hash) = self.hashes.of_shard(index, hash) {
                    for peer in self.cast.peers.all() {
                        peer.send(PeerMessage::StateHash { index, hash });
                    }
                }
            }
        }
    }

    pub(crate) fn step(&mut self, input: Input) {
        if let Some(replica) = &mut self.replica {
            replica.step(input);
        }
    }

    /// The founder has taken this node in: from now on it votes and listens.
    fn adopted(&mut self) {
        if self.replica.is_none() {
            self.begin(first_start(&self.cluster), None);
        }
    }

    /// Carries out all that follows from what was heard.
    pub(crate) fn pump(&mut self) -> Outcome {
        loop {
            if let Some(replica) = &mut self.replica {
                if let Some(handle) = self.reads.begin_round() {
                    replica.step(Input::Read(handle));
                }
                for effect in replica.pump() {
                    self.carry_out(effect);
                }
            }
            self.reads.applied(self.notices.handed_over());
            self.reads.begin_probe(&self.cast);
            if !self.reads.wants_round() || self.replica.is_none() {
                break;
            }
        }
        self.give_up_unwanted_snapshot();
        self.kept.keeps(self.replica.as_ref().map_or(0, Replica::memory_bytes));
        std::mem::take(&mut self.outcome)
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Role(change) => self.role_changed(change),
            Effect::Send(message) if message.kind == MessageKind::Snapshot => self.send_snapshot(message),
            Effect::Send(message) => self.send(message),
            Effect::Persist(persist) => self.persist(persist),
            Effect::Proposed(_, index, term) => self.notices.proposed(index, term),
            Effect::Dropped(_) => {
                self.notices.dropped(&Error::new(Code::NoLeader, "leadership is being handed over"));
                self.tell_shards();
            }
            Effect::Commit(entries) => self.commit(entries),
            Effect::Configured(to) => self.configured(&to),
            Effect::ReadReady(handle, index) => self.reads.round_done(handle, Some(index), &self.cast),
            Effect::ReadLost(handle) => self.reads.round_done(handle, None, &self.cast),
            Effect::Fetch { number, low, high, bytes_max } => {
                self.order(DiskOrder::Fetch { number, low, high, bytes_max });
            }
            Effect::SnapshotWanted(_) => self.outcome.snapshot_wanted = true,
            Effect::DoubtBegins { promised, last } => self.doubt_begins(promised, last),
            Effect::DoubtEnds => self.doubt_ends(),
            Effect::Conflicts { with, index } => self.conflicts(with, index),
            Effect::FollowerConflicts { node, index, last } => {
                if let Some(why) = self.cluster.conditions.peer_conflicts(node, index, last) {
                    tracing::error!("{why}");
                }
            }
        }
    }

    fn send(&self, message: Message) {
        if let Some(peer) = self.cast.peer(host_of(message.to)) {
            peer.send(PeerMessage::Send(message));
        }
    }

    /// The members are these from here on.
    fn configured(&mut self, to: &Configuration) {
        let gone = self.cluster.configured(to);
        for node in &gone {
            self.cluster.conditions.forget(*node);
            self.cluster.healths.forget(*node);
        }
        let Configuration { index, members, nodes } = to;
        let nodes: Vec<u64> = nodes.iter().map(|node| node.node_id).collect();
        tracing::info!(index, ?nodes, voters = ?members.voters, learners = ?members.learners, ?gone, "members");
        if self.cluster.is_removed() {
            tracing::warn!("this node was removed from its cluster; stop it, it takes no more part");
        }
        follow_members(&self.node, &self.cast, &Peering::Leader(self.cluster.clone()), self.cluster.others());
    }

    fn persist(&mut self, persist: Persist) {
        if let Some(mark) = &persist.snapshot {
            let Some(state) = self.snapshots.arrived.take() else {
                panic!("the replica installs a snapshot that it was never told of");
            };
            self.snapshots.installing = Some((persist.number, mark.clone(), state));
        }
        self.persists_under_way += 1;
        let bytes = persist.entries.iter().map(LogEntry::memory_bytes).sum();
        self.cluster.persisting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.order(DiskOrder::Persist(Box::new(persist)));
    }

    fn persisted(&mut self, number: u64, persists: usize) {
        self.persists_under_way -= persists;
        if let Some((_, mark, state)) = self.snapshots.installing.take_if(|(install, ..)| *install <= number)
        {
            self.install(&mark, state);
        }
        self.step(Input::Persisted(number));
    }

    fn commit(&mut self, entries: Vec<LogEntry>) {
        entries.iter().for_each(|entry| self.cluster.committed(entry.index, entry.term));
        let office_begun = self.notices.committed(entries, &self.role);
        self.tell_shards();
        self.cluster.applied_index.store(self.notices.handed_over(), Ordering::Relaxed);
        if office_begun {
            self.cluster.set_serves_as_primary(true);
            tracing::info!(term = self.role.term, "serving as primary");
        }
    }

    fn tell_shards(&mut self) {
        for (shard, notice) in self.notices.take() {
            let message = match notice {
                Notice::Committed { index, writes } => {
                    for committed in (Committed { index, stamp: None, writes }).in_slices() {
                        self.cast.shards[shard].send(ShardMessage::Committed(committed));
                    }
                    continue;
                }
                Notice::Refused { writes, error } => ShardMessage::Refused { writes, error },
                Notice::Logged(entries) => {
                    let bytes: usize = entries.iter().map(logged_bytes).sum();
                    let permits = self.node.permits.for_entries(shard, bytes / self.cast.shards.len());
                    self.node.permits.take(shard, permits);
                    ShardMessage::Logged(Logged { entries, permits })
                }
                Notice::Office(office) => ShardMessage::Office(office),
                Notice::StateHash(index) => ShardMessage::StateHash { index },
            };
            self.cast.shards[shard].send(message);
        }
    }

    fn role_changed(&mut self, change: RoleChange) {
        let RoleChange { role, leader, term } = change;
        tracing::info!(?role, leader, term, "role");
        if self.notices.role_changed(&change) {
            self.office_ended();
        }
        self.role = change;
        self.cluster.role_changed(change);
        self.reads.leader_changed(&self.cast);
        self.tell_coordinator();
    }

    fn office_ended(&mut self) {
        self.cluster.set_serves_as_primary(false);
        self.outcome.office_ended = true;
        self.tell_shards();
    }

    /// The log can't go on, and the node stops: its clients hear it first.
    pub(crate) fn disk_failed(&mut self, error: &Error) {
        self.notices.end(error);
        self.office_ended();
        self.replica = None;
    }

    /// There is another cluster of this name by now. What this node has stays readable
    /// on it, and nothing is added.
    fn left_behind(&mut self) {
        self.cluster.set_left_behind();
        self.take_no_more_part();
    }

    pub(crate) fn take_no_more_part(&mut self) {
        self.notices.end(&lost());
        self.office_ended();
        self.replica = None;
        let role = RoleChange { role: Role::Follower, leader: None, term: self.role.term };
        self.role = role;
        self.cluster.role_changed(role);
        self.reads.end(&self.cast);
    }

    /// The node stops: nothing more is to be written.
    pub(crate) fn stop(&mut self) {
        self.replica = None;
    }

    fn tell_coordinator(&self) {
        let (Some(replica), Some(coordinator)) = (&self.replica, &self.cast.coordinator) else { return };
        let status = replica.status();
        self.cluster.commit_index.store(status.commit, Ordering::Relaxed);
        coordinator.send(CoordinatorMessage::Status(Box::new(status)));
    }

    pub(crate) fn order(&self, order: DiskOrder) {
        // The disk thread ends only with the process.
        if self.disk.send(order).is_err() {
            tracing::error!("the disk thread is gone; stopping");
            crate::logging::abort();
        }
    }
}

/// What an entry occupies that waits for the shards.
fn logged_bytes(entry: &(u64, Bytes)) -> usize {
    size_of_val(entry) + payload_memory_bytes(&entry.1)
}
