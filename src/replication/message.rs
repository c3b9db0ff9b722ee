//! What nodes of a cluster say to each other about the log.
//!
//! These are plain values; `src/messaging` gives them bytes, and
//! [`super::raft`] gives them meaning. Each field says who sets it.

use bytes::Bytes;

use crate::persistence::Configuration;
pub use crate::persistence::Members;

/// A node's number in its cluster; never 0.
pub type NodeId = u64;

/// What an entry of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// One group commit of writes.
    Writes,
    /// The cluster's members from here on: an encoded [`Configuration`].
    Members,
    /// What a new leader begins its term with: nothing, so that it learns what is committed.
    Empty,
    /// Dynamo mode's, whatever it holds: see `src/replication/dynamo/entry.rs`.
    Converging,
}

impl EntryKind {
    /// The byte in log frames and peer frames.
    pub fn to_byte(self) -> u8 {
        match self {
            EntryKind::Writes => 0,
            EntryKind::Members => 1,
            EntryKind::Empty => 2,
            EntryKind::Converging => 3,
        }
    }

    /// The kind that a byte stands for.
    pub fn from_byte(byte: u8) -> Option<EntryKind> {
        [EntryKind::Writes, EntryKind::Members, EntryKind::Empty, EntryKind::Converging]
            .into_iter()
            .find(|kind| kind.to_byte() == byte)
    }
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place; the first one is 1.
    pub index: u64,
    /// The term of the leader that proposed it. Index and term name an entry for ever.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Encoded effects, or members; empty where there are none.
    pub payload: Bytes,
}

/// What a payload costs beside its handle and its bytes: its reference count, and what an allocator
/// rounds up for the two.
const PAYLOAD_OVERHEAD_BYTES: usize = 48;

/// What a payload that is kept occupies, in bytes, without its handle: small ones are mostly overhead.
pub fn payload_memory_bytes(payload: &Bytes) -> usize {
    if payload.is_empty() { 0 } else { payload.len() + PAYLOAD_OVERHEAD_BYTES }
}

impl LogEntry {
    /// What it occupies while it waits somewhere, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<LogEntry>() + payload_memory_bytes(&self.payload)
    }
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Leader: entries behind `index`, which has `log_term`; `commit`.
    Append,
    /// Follower: has everything up to `index`; or `reject`, with `reject_hint` and its `log_term`.
    AppendResponse,
    /// Candidate: asks for a vote in `term`; its log ends at `index`, `log_term`.
    RequestVote,
    /// Voter: `reject` or not.
    RequestVoteResponse,
    /// Leader: a snapshot is on its way out of band; `snapshot` says which.
    Snapshot,
    /// Leader: is there; `commit` and its `commit_term`; `context` of reads that wait for a round.
    Heartbeat,
    /// Follower: heard it; `context` comes back.
    HeartbeatResponse,
    /// To the leader: hand over to `from`.
    TransferLeader,
    /// From the leader that hands over: campaign at once.
    TimeoutNow,
    /// Before a campaign, in a term that nobody has entered yet: would you vote for me?
    RequestPreVote,
    /// The answer to that.
    RequestPreVoteResponse,
    /// Leader: the receiver's doubt of number `index` has ended.
    DoubtEnded,
    /// Leader: the receiver has committed what the leader, whose log ends at `index`, hasn't.
    Conflict,
}

impl MessageKind {
    /// Every kind, at the place of its byte on the wire.
    pub const ALL: [MessageKind; 13] = [
        MessageKind::Append,
        MessageKind::AppendResponse,
        MessageKind::RequestVote,
        MessageKind::RequestVoteResponse,
        MessageKind::Snapshot,
        MessageKind::Heartbeat,
        MessageKind::HeartbeatResponse,
        MessageKind::TransferLeader,
        MessageKind::TimeoutNow,
        MessageKind::RequestPreVote,
        MessageKind::RequestPreVoteResponse,
        MessageKind::DoubtEnded,
        MessageKind::Conflict,
    ];
}

/// A snapshot's place in the log and the members there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The last entry that it holds.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The members as of that entry.
    pub configuration: Configuration,
}

/// One message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub kind: MessageKind,
    /// Who sends it.
    pub from: NodeId,
    /// Who receives it.
    pub to: NodeId,
    /// The sender's term; a pre-vote's is one ahead of it.
    pub term: u64,
    /// See the kinds; else 0.
    pub log_term: u64,
    /// See the kinds; else 0.
    pub index: u64,
    /// The sender's commit index, as far as the receiver is known to have the log; else 0.
    pub commit: u64,
    /// The term of the entry at `commit`, with votes, their answers and heartbeats; else 0.
    pub commit_term: u64,
    /// A response that says no.
    pub reject: bool,
    /// With a rejected append: where the receiver's log may still agree.
    pub reject_hint: u64,
    /// With a rejected append: the receiver wants a snapshot of at least this index; else 0.
    pub request_snapshot: u64,
    /// Of reads that wait for a heartbeat round, or of a hand-over; else empty.
    pub context: Bytes,
    /// The entries of an append.
    pub entries: Vec<LogEntry>,
    /// Of [`MessageKind::Snapshot`].
    pub snapshot: Option<SnapshotMark>,
    /// With answers: the number of the sender's doubt; 0 for none.
    pub doubt: u64,
}

impl Message {
    /// A message that says nothing beside its kind.
    pub fn new(kind: MessageKind, from: NodeId, to: NodeId, term: u64) -> Message {
        Message {
            kind,
            from,
            to,
            term,
            log_term: 0,
            index: 0,
            commit: 0,
            commit_term: 0,
            reject: false,
            reject_hint: 0,
            request_snapshot: 0,
            context: Bytes::new(),
            entries: Vec::new(),
            snapshot: None,
            doubt: 0,
        }
    }
}
