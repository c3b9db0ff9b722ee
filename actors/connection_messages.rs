//! What a Connection hears from the actors that answer its requests.

use datastore::engine::Entry;
use datastore::error::Error;
use datastore::persistence::Member;
use datastore::query::Part;

use crate::shard_messages::Replies;

/// What a Connection hears.
pub enum ConnectionMessage {
    /// From a Shard.
    Replies(Replies),
    /// From the WalWriter: the parts of the multi-key write dispatched last have met.
    Met,
    /// From an IndexManager.
    Found {
        /// The request's place in this connection's order.
        sequence: u64,
        /// What one shard's indexes found.
        part: Result<Part, Error>,
    },
    /// From the SnapshotWriter.
    SnapshotMade {
        /// The request's place in this connection's order.
        sequence: u64,
        /// The snapshot's entry index, its bytes and how long it took in ms.
        made: Result<(u64, u64, u64), Error>,
    },
    /// From the WalWriter: what is applied here is as fresh as it was asked to be, or can't be.
    ReadReady {
        /// The connection's name for the question.
        round: u64,
        /// Why not.
        ready: Result<(), Error>,
    },
    /// From the ElectionCoordinator: what became of a `promote`.
    Promoted {
        /// The request's place in this connection's order.
        sequence: u64,
        /// Who leads now.
        leader: Result<u64, Error>,
    },
    /// From the ElectionCoordinator: what became of `add_member` or `remove_member`.
    MembersChanged {
        /// The request's place in this connection's order.
        sequence: u64,
        /// Why they were not, or may not have been.
        outcome: Result<(), Error>,
    },
    /// From the thread that founds a cluster: what became of a lone node's `add_member`.
    Founded {
        /// The request's place in this connection's order.
        sequence: u64,
        /// Who was to come.
        member: Member,
        /// Why it was not noted.
        outcome: Result<(), Error>,
    },
    /// From the WalWriter, in dynamo mode: a write is on as many disks as it was to be, or not in time.
    Copied {
        /// The request's place in this connection's order.
        sequence: u64,
        /// Why not.
        outcome: Result<(), Error>,
    },
    /// From the WalWriter, in dynamo mode: what several members have of a key comes to this.
    CopiesRead {
        /// The request's place in this connection's order.
        sequence: u64,
        /// The key's entry.
        entry: Result<Option<Entry>, Error>,
    },
    /// From the node: answer what came, then close.
    Stop,
}
