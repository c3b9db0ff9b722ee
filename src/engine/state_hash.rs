//! A hash of everything that a table holds, to compare replicas by.
//!
//! It is the sum of the entries' own hashes, so that it doesn't depend on their
//! order or place, and a change costs two entries' hashes, however large the
//! table is. An entry's hash covers key, version, value and vector.
//!
//! The hashes are 128 bits wide and not keyed: they find replicas that differ by
//! a fault, not ones that someone has made collide on purpose.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::entry::Entry;

/// The hash of a set of entries.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StateHash(pub u128);

impl StateHash {
    /// With one more entry, of this hash; or with all of another set.
    #[must_use]
    pub fn with(self, other: StateHash) -> StateHash {
        StateHash(self.0.wrapping_add(other.0))
    }

    /// Without an entry of this hash, which it had.
    #[must_use]
    pub fn without(self, other: StateHash) -> StateHash {
        StateHash(self.0.wrapping_sub(other.0))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// A key's hash, by which two nodes know it for the same one.
pub fn key_hash(key: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    hasher.finish128().as_u128()
}

/// One entry's hash.
pub fn entry_hash(entry: &Entry) -> StateHash {
    const ABSENT: u64 = u64::MAX;
    let mut hasher = SipHasher13::new();
    let version = entry.version();
    hasher.write_u64(version.index);
    hasher.write_u32(version.ordinal);
    // Lengths first, so that no two entries run into the same bytes.
    hasher.write_u64(entry.key().len() as u64);
    hasher.write(entry.key());
    match entry.value() {
        Some(value) => {
            hasher.write_u64(value.len() as u64);
            hasher.write(value);
        }
        None => hasher.write_u64(ABSENT),
    }
    for number in entry.vector().unwrap_or_default() {
        hasher.write_u32(number.to_bits());
    }
    // Parts that were written apart: the older one's version counts, too.
    for (part, _) in [entry.value_part(), entry.vector_part()].into_iter().flatten() {
        if part != version {
            hasher.write_u64(part.index);
            hasher.write_u32(part.ordinal);
        }
    }
    StateHash(hasher.finish128().as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Placement, Table, Version};

    const ENTRIES: u32 = 200;

    fn entry(number: u32, ordinal: u32, value: &[u8]) -> Entry {
        let vector = [number as f32];
        let vector = number.is_multiple_of(3).then_some(&vector[..]);
        Entry::new(Version { index: 7, ordinal }, &number.to_le_bytes(), Some(value), vector)
    }

    fn insert(table: &mut Table, entry: Entry) {
        let hash = table.placement().hash(entry.key());
        table.insert(entry, hash);
    }

    fn tables(seed: (u64, u64)) -> (Table, Table) {
        let placement = Placement::new(seed, 1);
        (Table::new(placement, 0).with_state_hash(), Table::new(placement, 0))
    }

    #[test]
    fn the_hash_kept_at_every_change_is_that_of_what_is_there_wherever_it_is_placed() {
        let ((mut kept, mut counted), (mut elsewhere, _)) = (tables((1, 2)), tables((3, 4)));
        for number in 0..ENTRIES {
            insert(&mut kept, entry(number, 0, b"old"));
            insert(&mut kept, entry(number, number, b"1"));
        }
        for number in (0..ENTRIES).rev() {
            insert(&mut counted, entry(number, number, b"1"));
            insert(&mut elsewhere, entry(number, number, b"1"));
        }
        let hash = kept.state_hash();
        assert!(hash.is_some_and(|hash| hash != StateHash::default()));
        assert_eq!(hash, counted.with_state_hash().state_hash());
        assert_eq!(hash, elsewhere.state_hash());
        for number in 0..ENTRIES {
            let key = number.to_le_bytes();
            let hash = kept.placement().hash(&key);
            kept.update(&key, hash, |_| None);
        }
        assert_eq!(kept.state_hash(), Some(StateHash::default()));
    }

    #[test]
    fn key_version_value_and_vector_all_count() {
        let version = Version { index: 1, ordinal: 1 };
        let later = Version { index: 1, ordinal: 2 };
        let all = [
            Entry::new(version, b"k", Some(b"1"), None),
            Entry::new(later, b"k", Some(b"1"), None),
            Entry::new(version, b"l", Some(b"1"), None),
            Entry::new(version, b"k", Some(b"2"), None),
            Entry::new(version, b"k", Some(b"1"), Some(&[1.0])),
            Entry::new(version, b"k", None, Some(&[1.0])),
            Entry::new(version, b"k1", Some(b""), None),
        ];
        for (place, one) in all.iter().enumerate() {
            for other in &all[..place] {
                assert_ne!(entry_hash(one), entry_hash(other));
            }
        }
    }
}
