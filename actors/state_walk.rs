//! Walking over this node's whole state from a thread, step by step, while the shards serve.

use crossbeam_channel::bounded;
use datastore::engine::{Entry, entry_hash, key_hash};
use datastore::limits::BUCKETS;

use crate::Cast;
use crate::converging_messages::WalkStep;
use crate::shard_messages::ShardMessage;

/// The bucket of a key that all nodes place it in, whatever their own placement.
pub(crate) fn common_bucket(key: &[u8]) -> usize {
    key_hash(key) as usize % BUCKETS
}

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

/// The hash of each bucket. Tombstones don't count: nodes forget them at different times.
pub(crate) fn bucket_hashes(cast: &Cast) -> Vec<u128> {
    let mut hashes = vec![0u128; BUCKETS];
    let walked: Result<(), ()> = walk(cast, |entries| {
        for entry in entries.iter().filter(|entry| !entry.is_tombstone()) {
            let hash = &mut hashes[common_bucket(entry.key())];
            *hash = hash.wrapping_add(entry_hash(entry).0);
        }
        Ok(())
    });
    debug_assert!(walked.is_ok(), "nothing fails");
    hashes
}
