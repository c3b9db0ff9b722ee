//! What nodes of dynamo mode say to each other, and what a replica asks of its node.

use bytes::Bytes;

use super::entry::Decoded;
use super::forks::Fork;
use super::members::Members;
use super::roots::{Difference, Root};
use super::skew::Skew;
use super::vector::VersionVector;
use crate::engine::SameVersion;
use crate::replication::message::NodeId;

/// From one replica to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Entries of streams, in the sender's log's order; all are on its disk.
    Entries(Vec<Bytes>),
    /// What is on the sender's disk.
    Vector {
        /// All of it.
        vector: VersionVector,
        /// Something came that doesn't follow on what is here: go back to there.
        again: bool,
    },
    /// A sign of life.
    Pulse(Pulse),
    /// What the receiver lacks is no longer in the sender's log: it needs the sender's state.
    TooFarBehind,
    /// Whom the sender takes for members, and what they have said of streams that have ended.
    Members(Members),
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// What is on the sender's disk.
    pub vector: VersionVector,
    /// The sender's clock.
    pub clock_ms: u64,
    /// Its last root.
    pub root: Option<Root>,
}

/// An entry of the log that is durable, and to be applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its place in this node's log.
    pub index: u64,
    /// This node wrote it, in this process: its shards know the writes by number.
    pub own: bool,
    /// What it is.
    pub entry: Decoded,
}

/// What the node is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Make this entry durable: the log goes on with it.
    Persist {
        /// Its place.
        index: u64,
        /// Its bytes.
        payload: Bytes,
    },
    /// Apply it, behind all that was applied before.
    Apply(Applied),
    /// Say this to a peer.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Read entries of the log back.
    Fetch {
        /// Comes back with them.
        number: u64,
        /// The first index.
        low: u64,
        /// Behind the last.
        high: u64,
    },
    /// Take over a peer's state.
    Pull {
        /// Whose.
        from: NodeId,
        /// Only where both have the same writes and not the same keys; and what stays
        /// of two copies of one version. `None`: all of it.
        repair: Option<SameVersion>,
    },
    /// Forget tombstones up to this time.
    Collect {
        /// Inclusive.
        through: u64,
    },
    /// Say how the state hashes, behind all that was applied.
    Hash,
    /// The members have changed.
    MembersChanged,
    /// This node's clock is right, wrong, or may be.
    Skew(Skew),
    /// A peer has had the same writes and has other keys.
    Differs(Difference),
    /// This node's directory is an older copy: it goes on as another stream.
    BeganAnew,
    /// A stream has forked: a peer has other entries in its places. Said now and then while it is so.
    Forked {
        /// Which.
        fork: Fork,
        /// Who has it otherwise.
        peer: NodeId,
    },
}
