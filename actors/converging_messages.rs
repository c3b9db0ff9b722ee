//! What the actors of a node of dynamo mode say to each other about the log.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Sender;
use datastore::engine::{Entry, SameVersion, Version};
use datastore::messaging::Copies;
use datastore::replication::dynamo::entry::Decoded;
use datastore::replication::dynamo::{Message, Place, SnapshotVector, VersionVector};
use datastore::replication::message::NodeId;

use crate::admission::PermitTotal;
use crate::connection::Connection;
use crate::mailbox::Mailbox;

/// What the WalWriter hears in dynamo mode.
pub enum ConvergingMessage {
    /// From a peer's session.
    Received {
        /// Who says it.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// From a peer's session or a ReplicatorPeer: a connection was opened, and whoever is there was greeted.
    Speaks(NodeId),
    /// From a ReplicatorPeer: what was sent may be lost.
    Unreachable(NodeId),
    /// From a Shard: its slice hashes to this, behind all that it was handed before it was asked.
    ShardHash(u128),
    /// From a peer's session: a node that nobody knows wants to join.
    Admit(Place),
    /// From a Connection: `evict`.
    Evict {
        /// Whom.
        node_id: NodeId,
        /// Who asks, and its request's place in the connection's order.
        asked_by: (Mailbox<Connection>, u64),
    },
    /// From a Connection: say when so many members have this write.
    AwaitCopies {
        /// The write.
        version: Version,
        /// How many.
        wanted: Copies,
        /// Who asks, and its request's place in the connection's order.
        asked_by: (Mailbox<Connection>, u64),
    },
    /// From a Connection: answer [`crate::connection::ConnectionMessage::ReadReady`] once this write is here.
    AwaitVersion {
        /// The write.
        version: Version,
        /// Who asks.
        reply_to: Mailbox<Connection>,
        /// Its name for the question.
        round: u64,
    },
    /// From a Connection: what have so many members of this key?
    ReadCopies {
        /// The key's UTF-8.
        key: Bytes,
        /// How many.
        wanted: Copies,
        /// Who asks, and its request's place in the connection's order.
        asked_by: (Mailbox<Connection>, u64),
    },
    /// From a Shard or a peer's session: what a member has of a key.
    KeyState {
        /// Who has it: this node, or the peer.
        from: NodeId,
        /// The question.
        number: u64,
        /// The key's states; empty where there is none.
        state: Bytes,
    },
    /// From a Shard: what a peer has asked for.
    TellKeyState {
        /// Who asked.
        to: NodeId,
        /// The question.
        number: u64,
        /// The key's states; empty where there is none.
        state: Bytes,
    },
    /// From the thread that takes over a peer's state: some of it. Told when it is durable.
    States {
        /// What the peer had when it began.
        vector: VersionVector,
        /// Which of two copies of one version stays.
        same: SameVersion,
        /// Encoded.
        states: Bytes,
        /// Whom to tell.
        done: Sender<()>,
    },
    /// From the same: parts that the peer hasn't got.
    Forget {
        /// Keys and versions; those that the peer had seen are gone.
        rows: Vec<(Bytes, Version)>,
        /// What the peer had seen.
        seen: VersionVector,
        /// Whom to tell.
        done: Sender<()>,
    },
    /// From the same: the peer's state is this. Told whether it may be taken over.
    StateBegins {
        /// All that the peer had when it began.
        state: Box<SnapshotVector>,
        /// Whom to tell.
        may_take: Sender<bool>,
    },
    /// From the same: it is all here, or the peer is gone.
    Pulled(Option<Box<SnapshotVector>>),
    /// From the thread that serves a peer's pull: it begins. Told what this node has at least.
    TransferBegins {
        /// Who takes this node's state over.
        to: NodeId,
        /// Whom to tell, with the transfer's number.
        begun: Sender<(u64, SnapshotVector)>,
    },
    /// From the same: the transfer of this number has ended.
    TransferEnded(u64),
}

/// Entries for the shards, in the log's order: each takes what is its own.
pub struct Converge {
    /// Index and entry.
    pub entries: Vec<(u64, Arc<Decoded>)>,
    /// What to give back when they are indexed.
    pub permits: PermitTotal,
}

/// The next step of a walk over a shard's state, tombstones among it.
pub struct WalkStep {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where to go on; `None`: that was all.
    pub next: Option<usize>,
}
