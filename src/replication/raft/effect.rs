//! What a replica is told, what it says, and where it stands.

use bytes::Bytes;

use super::hard_state::HardState;
use crate::persistence::Configuration;
use crate::replication::message::{LogEntry, Message, NodeId, SnapshotMark};

/// Names a proposal or a read for whoever made it.
pub type Handle = u64;

/// What doesn't change while a node runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node_id: NodeId,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks for which a node that has heard of its leader refuses to vote for another.
    pub election_ticks: usize,
    /// Bytes of entries in one message. One larger entry passes alone.
    pub message_bytes_max: u64,
    /// Appends to one follower that are not answered yet.
    pub in_flight_messages_max: usize,
    /// Bytes proposed and not committed beyond which proposals are dropped.
    pub uncommitted_bytes_max: u64,
    /// Bytes of committed entries handed out at once.
    pub committed_bytes_max: u64,
    /// Bytes of applied payloads kept in memory for followers.
    pub payload_bytes_max: usize,
    /// Random, another one at each start: numbers of doubts are drawn from it.
    pub doubt_seed: u64,
}

/// When a node campaigns: the lower its place among the members, the earlier, so
/// that the lowest id that is available and up to date leads. Timeouts that differ
/// by more than a round trip also spare split votes, without randomness.
pub fn election_timeout_ticks(election_ticks: usize, place: usize) -> usize {
    election_ticks + election_ticks / 5 + place * (election_ticks * 3 / 5).max(1)
}

/// So much longer a node in doubt waits.
pub(super) fn patience_ticks(election_ticks: usize) -> usize {
    2 * election_ticks
}

/// Whom a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartMembers {
    /// As of the last applied entry.
    pub configuration: Configuration,
    /// As the cluster was founded, or forced.
    pub base: Configuration,
    /// Members that entries up to this one name count no more: they were set by force.
    pub forced_through: u64,
    /// No term before this one is begun any more: see [`crate::replication::recovered::members`].
    pub term_least: u64,
}

impl StartMembers {
    /// Nothing has changed them yet.
    #[cfg(test)]
    pub fn founding(base: Configuration) -> StartMembers {
        StartMembers { configuration: base.clone(), base, forced_through: 0, term_least: 0 }
    }
}

/// What a node knows of its past.
#[derive(Clone, Debug)]
pub struct Start {
    /// The newest hard state on the disk.
    pub hard_state: HardState,
    /// Who belongs to the cluster.
    pub members: StartMembers,
    /// Index and term of the entry before the first retained one; (0, 0) for none.
    pub cut: (u64, u64),
    /// The terms of the retained entries that are applied; their payloads stay on the disk.
    pub applied: Vec<u64>,
    /// The entries behind those: not known to be committed.
    pub tail: Vec<LogEntry>,
    /// It may be an older copy of what it was: see [`crate::replication::doubt`].
    pub in_doubt: bool,
}

/// What a node hears.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A peer's message arrived.
    Received(Box<Message>),
    /// A client's writes; answered by [`Effect::Proposed`] or [`Effect::Dropped`].
    Propose(Handle, Bytes),
    /// A client's linearizable read; answered by [`Effect::ReadReady`] or [`Effect::ReadLost`].
    Read(Handle),
    /// The [`Persist`] of this number, and all before it, are durable and their messages are sent.
    Persisted(u64),
    /// The payloads that an [`Effect::Fetch`] asked for; none if they are gone.
    Fetched(u64, Vec<LogEntry>),
    /// This entry can't be read back from the disk, and never will: who lacks it, or one
    /// before it, is sent a snapshot.
    Unreadable(u64),
    /// A leader's log is to go on by an entry, whatever is in it.
    GoOn,
    /// A leader proposes other members; `index` is that of those that it changes.
    Reconfigure(Box<Configuration>),
    /// Hand leadership to this node.
    TransferTo(NodeId),
    /// The doubt that an [`Effect::DoubtBegins`] told of is durable.
    DoubtStored,
    /// A peer can't be reached: what was sent to it may be lost.
    Unreachable(NodeId),
    /// A snapshot reached this follower, or was given up. Must be said of each
    /// [`crate::replication::message::MessageKind::Snapshot`] sent: until then the follower is sent nothing else.
    SnapshotSent(NodeId, bool),
}

/// What must be durable, in this order, before `then_send` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Comes back in [`Input::Persisted`].
    pub number: u64,
    /// The first one may be at or below the log's last index: it replaces from there on.
    pub entries: Vec<LogEntry>,
    /// `None`: as it was.
    pub hard_state: Option<HardState>,
    /// A snapshot that has arrived out of band: its state takes the place of all
    /// that was applied, and the log begins anew behind it, before anything else here.
    pub snapshot: Option<SnapshotMark>,
    /// Whether it needs a sync; a commit index alone doesn't.
    pub must_sync: bool,
    /// What this promises to others.
    pub then_send: Vec<Message>,
}

/// What a node is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It takes the writes.
    Leader,
    /// It follows `leader`, if it knows one.
    Follower,
    /// It asks for votes.
    Candidate,
}

/// A change of role, leader or term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// This node's role.
    pub role: Role,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
    /// The term that this is about.
    pub term: u64,
}

/// What a node must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Role, leader or term are not what they were.
    Role(RoleChange),
    /// Send at once.
    Send(Message),
    /// Make durable, then send, then say [`Input::Persisted`].
    Persist(Persist),
    /// The proposal is entry (index, term). Whether it is committed shows in [`Effect::Commit`].
    Proposed(Handle, u64, u64),
    /// The proposal was not taken, and never happens.
    Dropped(Handle),
    /// Apply, in order. An index with another term than proposed was decided otherwise.
    Commit(Vec<LogEntry>),
    /// These are the members from here on: an entry of the next [`Effect::Commit`], or a
    /// snapshot's, names them.
    Configured(Box<Configuration>),
    /// The read may be answered when this index is applied.
    ReadReady(Handle, u64),
    /// This node can't answer the read: it doesn't lead any more.
    ReadLost(Handle),
    /// Read entries `low..high` back from the disk, at most so many bytes but one at least.
    Fetch {
        /// Comes back in [`Input::Fetched`].
        number: u64,
        /// The first index.
        low: u64,
        /// Behind the last index.
        high: u64,
        /// Bytes of payloads.
        bytes_max: u64,
    },
    /// This follower needs what the log no longer has.
    SnapshotWanted(NodeId),
    /// This node said that it had the entry `promised` on its disk, and its log has another
    /// one there, or ends at `last`: what it promised is gone, and so may be its votes. To
    /// be made durable, and then [`Input::DoubtStored`]; until then it says nothing to anyone.
    DoubtBegins {
        /// An entry that the leader knows it to have had.
        promised: u64,
        /// The last one that it has.
        last: u64,
    },
    /// Its doubt has ended: to be noted on the disk.
    DoubtEnds,
    /// This node has committed another entry `index` than its leader, or one more. Nothing that it
    /// is told is heard any more, and it says nothing.
    Conflicts {
        /// The leader.
        with: NodeId,
        /// An entry that its log and the leader's don't have alike.
        index: u64,
    },
    /// A follower has committed the entry `index`, and this leader's log ends at `last`. What
    /// the follower says counts for nothing.
    FollowerConflicts {
        /// Which.
        node: NodeId,
        /// An entry that it has committed.
        index: u64,
        /// The leader's last one.
        last: u64,
    },
}

/// A node's place in the protocol, for figures and checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Role, leader and term.
    pub role: RoleChange,
    /// The last committed entry that it knows of.
    pub commit: u64,
    /// The last entry of its log.
    pub last: u64,
    /// The last entry handed out for applying.
    pub applied: u64,
    /// A leader that was handed its leadership, by a hand-over or a `promote`.
    pub was_handed_over: bool,
    /// A leader's view of each node that votes: its last entry that is known; whether it was
    /// heard of lately and is not in doubt.
    pub followers: Vec<(NodeId, u64, bool)>,
    /// And of those that only listen.
    pub learners: Vec<(NodeId, u64, bool)>,
    /// A witness lives in this node.
    pub hosts_witness: bool,
    /// This node may be an older copy of itself.
    pub in_doubt: bool,
}
