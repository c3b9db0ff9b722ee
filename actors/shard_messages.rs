//! What a shard hears; with connections it exchanges a batch of requests there, a
//! batch of answers back.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Sender;
use datastore::engine::{Condition, Entry, Stamp, Table};
use datastore::error::Error;
use datastore::messaging::Span;
use datastore::query::Query;
use datastore::replication::message::NodeId;
use datastore::version::Version;

use crate::admission::Permit;
use crate::awaited::Awaited;
use crate::connection::Connection;
use crate::converging_messages::{Converge, WalkStep};
use crate::mailbox::Mailbox;
use crate::shard_replication::{Logged, OfficeNotice};

/// What a shard hears.
pub enum ShardMessage {
    /// From a Connection: what a socket read brought for this shard.
    Batch(Batch),
    /// From the WalWriter: writes are durable.
    Committed(Committed),
    /// From the WalWriter: writes did not become durable, or may not have.
    Refused {
        /// The writes, by the numbers that this shard gave them.
        writes: Vec<u32>,
        /// What their clients are told.
        error: Error,
    },
    /// From the WalWriter, asked by the SnapshotWriter: every entry up to
    /// `handed_over` that concerns this shard is in the mailbox before this.
    BeginWalk {
        /// The last entry that the WalWriter handed to any shard.
        handed_over: u64,
    },
    /// From the SnapshotWriter: the entries of these buckets, please.
    Walk {
        /// The first bucket.
        position: usize,
    },
    /// From the IndexManager: the buckets handed over are indexed.
    BucketsIndexed,
    /// From a Connection on a member: a search that must find all that this shard was handed before it.
    Search(Search),
    /// From the WalWriter: this node takes writes from now on, or no more.
    Office(OfficeNotice),
    /// From the WalWriter: entries that were decided elsewhere.
    Logged(Logged),
    /// From the WalWriter: a state that arrived whole.
    Install {
        /// This shard's part of it.
        table: Table,
        /// The last entry that it holds.
        index: u64,
    },
    /// From the WalWriter, in dynamo mode: entries that this node didn't write.
    Converge(Converge),
    /// From the WalWriter, in dynamo mode: everyone is behind all writes up to this time.
    CollectTombstones {
        /// Tombstones up to it may go.
        through: u64,
    },
    /// From the WalWriter or a peer's session, in dynamo mode: what is there of this key?
    KeyWanted {
        /// Its UTF-8.
        key: Bytes,
        /// Its hash.
        hash: u64,
        /// The question.
        number: u64,
        /// The peer that asks; `None`: this node.
        from: Option<NodeId>,
    },
    /// From a thread that shows this node's state to a peer, or compares it: the next step of a walk.
    WalkFor {
        /// The first bucket.
        position: usize,
        /// Where the entries go.
        reply: Sender<WalkStep>,
    },
    /// From the WalWriter: what is the state behind this entry?
    StateHash {
        /// The last entry handed over.
        index: u64,
    },
}

impl ShardMessage {
    /// About how many requests it is to handle.
    pub(crate) fn requests(&self) -> usize {
        match self {
            ShardMessage::Batch(batch) => batch.requests.len(),
            ShardMessage::Committed(committed) => committed.writes.len(),
            ShardMessage::Logged(logged) => logged.entries.len(),
            ShardMessage::Converge(converge) => converge.entries.len(),
            _ => 1,
        }
    }
}

/// One read's requests for one shard.
pub struct Batch {
    /// What the spans point into.
    pub arena: Bytes,
    /// In the order of their lines.
    pub requests: Vec<ShardRequest>,
    /// Who asked.
    pub reply_to: Mailbox<Connection>,
}

/// A request, or a shard's share of one.
pub struct ShardRequest {
    /// The request's place in its connection's order.
    pub sequence: u64,
    /// The `id` to echo.
    pub id: Span,
    /// What to do.
    pub operation: ShardOperation,
    /// What a write holds, until it is indexed or refused.
    pub permit: Permit,
}

/// What a shard can do for a connection. Every key comes with its hash.
pub enum ShardOperation {
    /// `get`.
    Get { key: Span, hash: u64 },
    /// `get_vector`.
    GetVector { key: Span, hash: u64 },
    /// `set`.
    Set { key: Span, hash: u64, value: Span, condition: Condition },
    /// `add_vector`.
    AddVector { key: Span, hash: u64, vector: Span, condition: Condition },
    /// `delete`.
    Delete { key: Span, hash: u64, condition: Condition },
    /// This shard's keys of a `bulk_get`.
    BulkGet { keys: Vec<(Span, u64)> },
    /// This shard's part of a `bulk_set` or, without values, a `bulk_delete`.
    /// `whole_bytes`: what all parts hold together.
    Part { multi: u64, parts: u32, writes: Vec<(Span, u64, Option<Span>)>, whole_bytes: usize },
    /// A single-key write whose connection answers it itself, later.
    Awaited(Box<ShardOperation>),
    /// `count` of everything.
    Count,
}

/// A search of a shard's indexes. On a member it goes to them by way of the
/// shard: its mailbox brings them all that was handed to the shard before.
pub struct Search {
    /// The request's place in its connection's order.
    pub sequence: u64,
    /// What to look for, shared by all shards.
    pub query: Arc<Query>,
    /// Who asked.
    pub reply_to: Mailbox<Connection>,
    /// Until when it is waited for.
    pub(crate) awaited: Awaited,
}

/// Writes of one log entry that concern one shard.
pub struct Committed {
    /// The entry.
    pub index: u64,
    /// In dynamo mode: what its requests are stamped with.
    pub stamp: Option<Stamp>,
    /// The shard's number of the write, and the ordinal of its request.
    pub writes: Vec<(u32, u32)>,
}

/// Writes that a shard applies before it looks at whatever else its thread has to do.
const WRITES_AT_ONCE: usize = 1_024;

impl Committed {
    /// The same writes in the same order, in messages that take a shard's thread for a moment each. A frame of
    /// the log may hold very many.
    pub fn in_slices(self) -> impl Iterator<Item = Committed> {
        let Committed { index, stamp, mut writes } = self;
        let mut behind = Vec::new();
        if writes.len() > WRITES_AT_ONCE {
            behind = writes.chunks(WRITES_AT_ONCE).map(<[_]>::to_vec).collect();
            writes = Vec::new();
        }
        let whole = Some(writes).filter(|writes| !writes.is_empty());
        whole.into_iter().chain(behind).map(move |writes| Committed { index, stamp, writes })
    }
}

/// A shard's answers to one connection.
pub struct Replies {
    /// Which shard.
    pub shard: usize,
    /// Finished lines, one behind the other.
    pub lines: Vec<u8>,
    /// What there is, in the order in which it arose.
    pub items: Vec<ReplyItem>,
}

/// One answer.
pub enum ReplyItem {
    /// A finished line: it ends at this byte of `lines`, where the next one begins.
    Line { sequence: u64, end: usize },
    /// A large value or vector: the connection writes it out when its turn has come.
    Large { sequence: u64, entry: Entry, vector: bool },
    /// This shard's entries of a `bulk_get`.
    Entries { sequence: u64, entries: Vec<Option<Entry>> },
    /// This shard's part of a multi-key write, or of a `count`.
    Part { sequence: u64, outcome: Result<(usize, Option<Version>), Error> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_holds_comes_in_slices_and_in_its_order() {
        let slices = |count: u32| {
            let writes: Vec<(u32, u32)> = (0..count).map(|write| (write, write + 1)).collect();
            let slices: Vec<_> =
                Committed { index: 7, stamp: None, writes: writes.clone() }.in_slices().collect();
            assert!(slices.iter().all(|slice| slice.index == 7 && slice.writes.len() <= WRITES_AT_ONCE));
            assert_eq!(slices.iter().flat_map(|slice| slice.writes.clone()).collect::<Vec<_>>(), writes);
            slices.len()
        };
        assert_eq!([0, 1, 1_024, 1_025, 5_000].map(slices), [0, 1, 1, 2, 5]);
    }
}
