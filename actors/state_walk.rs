//! Walking over this node's whole state from a thread, step by step, while the shards serve.

use std::convert::Infallible;

use crossbeam_channel::bounded;
use datastore::engine::Entry;
use datastore::replication::dynamo::BucketHashes;

use crate::Cast;
use crate::converging_messages::WalkStep;
use crate::shard_messages::ShardMessage;

/// Gives all entries and tombstones of all shards to `take`, some at a time, until it fails.
pub(crate) fn walk<E>(cast: &Cast, mut take: impl FnMut(Vec<Entry>) -> Result<(), E>) -> Result<(), E> {
    for shard in &cast.shards {
        let mut position = Some(0);
        while let Some(at) = position {
            let (reply, step) = bounded(1);
            shard.send(ShardMessage::WalkFor { position: at, reply });
            // A shard ends only with the process.
            let Ok(WalkStep { entries, next }) = step.recv() else { return Ok(()) };
            take(entries)?;
            position = next;
        }
    }
    Ok(())
}

/// The hash of each bucket of all of them.
pub(crate) fn bucket_hashes(cast: &Cast) -> BucketHashes {
    let mut hashes = BucketHashes::default();
    let walked: Result<(), Infallible> = walk(cast, |entries| {
        entries.iter().for_each(|entry| hashes.add(entry));
        Ok(())
    });
    let Ok(()) = walked;
    hashes
}
