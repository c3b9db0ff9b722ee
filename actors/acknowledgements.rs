//! Whose writes an entry of the log holds, and telling them what became of it.

use datastore::engine::Stamp;
use datastore::error::Error;
use datastore::replication::group::numbered;

use crate::mailbox::Mailbox;
use crate::shard::Shard;
use crate::shard_messages::{Committed, ShardMessage};

pub use datastore::replication::group::{Acknowledgement, Group};

/// Tells each shard that its writes are in the log, as entry `index`; in dynamo mode also
/// what their versions begin with.
pub fn committed(
    shards: &[Mailbox<Shard>],
    index: u64,
    stamp: Option<Stamp>,
    acknowledgements: Vec<Acknowledgement>,
) {
    for (shard, writes) in shards.iter().zip(numbered(acknowledgements, shards.len())) {
        for committed in (Committed { index, stamp, writes }).in_slices() {
            shard.send(ShardMessage::Committed(committed));
        }
    }
}

/// Tells each shard that its writes did not become durable, or (as `error` says) may not have.
pub fn refused(shards: &[Mailbox<Shard>], acknowledgements: Vec<Acknowledgement>, error: &Error) {
    for (shard, writes) in shards.iter().zip(numbered(acknowledgements, shards.len())) {
        let writes: Vec<u32> = writes.into_iter().map(|(write, _)| write).collect();
        if !writes.is_empty() {
            shard.send(ShardMessage::Refused { writes, error: error.clone() });
        }
    }
}
