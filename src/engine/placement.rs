//! Where a key lives: its hash, its bucket, its shard.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::limits::BUCKETS;

/// Hashes keys with a seed that is stored with the data, so that a key has the
/// same bucket at every start, and nobody outside can aim keys at one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    seed: (u64, u64),
    shards: usize,
}

impl Placement {
    /// Places keys on `shards` shards (1 to [`crate::limits::SHARDS_MAX`]).
    pub fn new(seed: (u64, u64), shards: usize) -> Placement {
        assert!((1..=crate::limits::SHARDS_MAX).contains(&shards), "{shards} shards");
        Placement { seed, shards }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The key's 64-bit hash: bucket, shard and table position all derive from it.
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        hasher.write(key);
        hasher.finish()
    }

    /// The bucket, 0 to [`BUCKETS`] − 1. It takes the hash's middle bits: a
    /// bucket's own table uses the lowest and the highest.
    pub fn bucket(hash: u64) -> usize {
        (hash >> 40) as usize % BUCKETS
    }

    /// The shard that owns a bucket: buckets are dealt out in turn.
    pub fn shard_of_bucket(&self, bucket: usize) -> usize {
        bucket % self.shards
    }

    /// The shard that owns a key of this hash.
    pub fn shard(&self, hash: u64) -> usize {
        self.shard_of_bucket(Placement::bucket(hash))
    }
}
