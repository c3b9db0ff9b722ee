//! In which buckets two nodes' keys differ.
//!
//! Each node places its keys by a seed of its own; a bucket here is the same on all of
//! them. A bucket's hash is the sum of its entries' own hashes, so that they may be
//! added in any order. Tombstones don't count: nodes forget them at different times.

use crate::engine::{Entry, StateHash, entry_hash, key_hash};
use crate::limits::BUCKETS;

/// The bucket of a key.
pub fn bucket_of(key: &[u8]) -> u32 {
    (key_hash(key) % BUCKETS as u128) as u32
}

/// The hashes of all buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketHashes(Vec<u128>);

impl Default for BucketHashes {
    fn default() -> BucketHashes {
        BucketHashes(vec![0; BUCKETS])
    }
}

impl BucketHashes {
    /// Adds an entry; a tombstone changes nothing.
    pub fn add(&mut self, entry: &Entry) {
        if !entry.is_tombstone() {
            let hash = &mut self.0[bucket_of(entry.key()) as usize];
            *hash = StateHash(*hash).with(entry_hash(entry)).0;
        }
    }

    /// All of them, in the order of the buckets.
    pub fn hashes(&self) -> &[u128] {
        &self.0
    }

    /// The buckets that have other hashes there. `None`: those are not one of each bucket.
    pub fn differing(&self, theirs: &[u128]) -> Option<Vec<u32>> {
        let pairs = self.0.iter().zip(theirs).enumerate();
        let differing = pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(bucket, _)| bucket as u32);
        (theirs.len() == self.0.len()).then(|| differing.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;

    #[test]
    fn only_buckets_with_other_entries_differ() {
        let version = Version { index: 1, ordinal: 1 };
        let entry = |key: u32, value: &[u8]| Entry::new(version, &key.to_le_bytes(), Some(value), None);
        let (mut one, mut other) = (BucketHashes::default(), BucketHashes::default());
        for key in 0..1_000 {
            one.add(&entry(key, b"1"));
            other.add(&entry(999 - key, if key == 990 { b"2" } else { b"1" }));
        }
        one.add(&Entry::tombstone(version, b"gone"));
        assert_eq!(one.differing(other.hashes()), Some(vec![bucket_of(&9u32.to_le_bytes())]));
        assert_eq!(one.differing(one.hashes()), Some(Vec::new()));
        assert_eq!(one.differing(&[1]), None);
    }
}
