//! What the replicated node's actors say to each other: peers, the WalWriter
//! (which carries the replica), the ElectionCoordinator and the disk thread.

use crossbeam_channel::Sender;
use datastore::engine::Table;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::persistence::{Configuration, FrameRun, Member, NodeUuid, Unreadable};
use datastore::replication::message::{LogEntry, Message, NodeId};
use datastore::replication::raft::Status;

use crate::anew::Request;
use crate::connection::Connection;
use crate::mailbox::Mailbox;
use crate::memory_figures::Share;

/// What the WalWriter hears about the replicated log.
pub enum ReplicationMessage {
    /// From the ElectionCoordinator: time has passed.
    Tick,
    /// From a ReplicatorPeer: a peer's message arrived.
    Received(Box<Message>),
    /// From a ReplicatorPeer: what was sent to this node may be lost.
    Unreachable(NodeId),
    /// From a ReplicatorPeer: a replica asks from which index on its state is
    /// fresh. Answered by [`PeerMessage::ReadAnswer`] with the same number.
    ReadProbe {
        /// Who asks.
        from: NodeId,
        /// Its name for the question.
        number: u64,
    },
    /// From a ReplicatorPeer: the leader's answer to [`PeerMessage::ReadProbe`].
    ReadAnswer {
        /// The question.
        number: u64,
        /// The index that must be applied; `None`: the node asked doesn't lead.
        index: Option<u64>,
    },
    /// From a ReplicatorPeer: what a peer's state is at an index.
    PeerStateHash {
        /// Whose.
        from: NodeId,
        /// When.
        index: u64,
        /// What.
        hash: u128,
    },
    /// From a Shard: what its slice is at an index.
    ShardStateHash {
        /// When.
        index: u64,
        /// What.
        hash: u128,
    },
    /// From a ReplicatorPeer: a snapshot has arrived there whole, or was given up.
    SnapshotSent {
        /// Where.
        to: NodeId,
        /// Whether it did.
        arrived: bool,
    },
    /// From the peers' handshake: this node was adopted.
    Adopted,
    /// From the peers' handshake, or the ElectionCoordinator: the process is about to begin
    /// anew with other members. Nothing more is decided with those of now.
    BeginsAnew(Request),
    /// From the peers' handshake: the voters were set by force without this node, which
    /// has what the others have not. It takes no more part.
    LeftBehind,
    /// From the SnapshotWriter: a snapshot has come from the leader, and is a
    /// durable one of this node's own by now.
    SnapshotArrived {
        /// What the leader's replica said with it: kind `Snapshot`, with its mark.
        message: Box<Message>,
        /// The state at the mark's index, one table per shard.
        tables: Vec<Table>,
    },
    /// From the SnapshotWriter: a snapshot of this node's own is there.
    SnapshotMade {
        /// The last entry that it holds.
        index: u64,
        /// Its S: what is behind it is in the log, too.
        after: u64,
    },
    /// From the disk thread: the directory says that it may be an older copy.
    DoubtStored,
    /// From the disk thread: the log was cut.
    LogCut {
        /// The first entry that it retains.
        first_index: u64,
    },
    /// From the disk thread: this persist and all before it are durable.
    Persisted {
        /// The last one's number.
        number: u64,
        /// How many they were.
        persists: usize,
        /// The log's growth since the last snapshot began.
        log_bytes: u64,
        /// Its segments.
        segments: usize,
    },
    /// From the log's reader: what a fetch asked for; nothing if it is gone.
    Fetched {
        /// The fetch's number.
        number: u64,
        /// The entries.
        entries: Vec<LogEntry>,
    },
    /// From the log's reader, or from a snapshot's sender: an entry was not found where it should lie.
    /// The disk thread knows whether it was cut meanwhile.
    NotFound {
        /// The fetch's number; `None`: of a snapshot.
        number: Option<u64>,
        /// What was looked for, and where.
        unreadable: Unreadable,
    },
    /// From the disk thread: an entry that the log retains can't be read back. Behind what a fetch asked
    /// for comes [`ReplicationMessage::Fetched`] with nothing.
    Unreadable {
        /// The first that can't be.
        index: u64,
        /// What was found in its place, for a person.
        reason: String,
    },
    /// From a Connection: answer [`crate::connection::ConnectionMessage::ReadReady`] once what is
    /// applied here is at most so old.
    Read {
        /// Who asks.
        reply_to: Mailbox<Connection>,
        /// Its name for the question.
        round: u64,
        /// `None`: everything acknowledged before this was asked, and by the leader.
        staleness_ms_max: Option<u64>,
    },
    /// From the ElectionCoordinator: propose an empty entry, to see whose disk takes it.
    GoOn,
    /// From the ElectionCoordinator: hand leadership to this node.
    TransferTo(NodeId),
    /// From the ElectionCoordinator: propose these members, if they can be proposed now.
    Reconfigure(Box<Configuration>),
}

/// What a ReplicatorPeer hears from its own node. Those from the peer itself come through its sockets.
#[allow(clippy::large_enum_variant)] // nearly all of them are `Send`
pub enum PeerMessage {
    /// From the WalWriter, or from the disk thread when what it promises is durable.
    /// Dropped, with [`ReplicationMessage::Unreachable`] said, when the peer can't be reached.
    Send(Message),
    /// From the ElectionCoordinator: let the peer know that this node is there, and how it is.
    Presence,
    /// From the WalWriter: ask the peer from which index on this node's state is fresh.
    ReadProbe {
        /// This node's name for the question.
        number: u64,
    },
    /// From the WalWriter: the answer to the peer's question.
    ReadAnswer {
        /// The peer's name for the question.
        number: u64,
        /// The index that must be applied; `None`: this node doesn't lead.
        index: Option<u64>,
    },
    /// From the WalWriter: what this node's state is at an index.
    StateHash {
        /// When.
        index: u64,
        /// What.
        hash: u128,
    },
    /// From the WalWriter, in dynamo mode. Dropped, and said so, when the peer can't be reached.
    Converging(Converging),
    /// From the WalWriter: it is no member any more.
    Stop,
    /// From the disk thread: send this snapshot, and then say [`ReplicationMessage::SnapshotSent`].
    StreamSnapshot(Box<SnapshotToSend>),
}

/// A snapshot of this node's own for a peer that lags behind the log.
pub struct SnapshotToSend {
    /// What goes into the peer's replica when the state is there: kind `Snapshot`, with its mark.
    pub message: Message,
    /// The file's name in the data directory.
    pub name: String,
    /// The file, open: it may be removed meanwhile.
    pub file: std::fs::File,
    /// S: entries behind it, up to the mark's index E, are to be sent with the file.
    pub after: u64,
    /// Where those lie in this node's log.
    pub runs: Vec<FrameRun>,
}

/// A leader's snapshot as it came.
pub struct ReceivedSnapshot {
    /// What goes into this node's replica when the state is there.
    pub message: Message,
    /// The file, in the data directory: the leader's bytes.
    pub name: String,
    /// The leader's directory, which the file's first line names.
    pub from: NodeUuid,
    /// The entries behind the file's S, up to the mark's index E.
    pub entries: Vec<LogEntry>,
    /// What they occupy, for `stats`.
    pub kept: Share,
    /// Told when this node's replica has taken it, or that it couldn't.
    pub done: Sender<bool>,
}

/// What the ElectionCoordinator hears.
pub enum CoordinatorMessage {
    /// From the WalWriter, after each tick and after each change of role.
    Status(Box<Status>),
    /// From a ReplicatorPeer: something was heard of this peer just now, or the
    /// connection to it opened or closed.
    Peer {
        /// Which.
        node_id: NodeId,
        /// Whether frames reach it, as far as this node knows.
        connected: bool,
    },
    /// From the node, which stops: hand leadership over if this node has it.
    Resign {
        /// Told when it hasn't, any more, or nobody takes it.
        done: tokio::sync::oneshot::Sender<()>,
    },
    /// From a Connection: `promote`.
    Promote {
        /// Who should lead.
        node_id: NodeId,
        /// Who asks, and its request's place in the connection's order.
        asked_by: (Mailbox<Connection>, u64),
    },
    /// From a Connection: `promote` of this node, with `force`.
    Force {
        /// Who asks, and its request's place in the connection's order.
        asked_by: (Mailbox<Connection>, u64),
    },
    /// From a Connection: `add_member` or `remove_member`.
    Change {
        /// What is asked for.
        wish: Wish,
        /// Who asks, and its request's place in the connection's order.
        asked_by: (Mailbox<Connection>, u64),
    },
}

/// How the members shall be.
#[derive(Clone, Debug)]
pub enum Wish {
    /// With this node, there.
    Add(Member),
    /// Without this one.
    Remove(NodeId),
}
