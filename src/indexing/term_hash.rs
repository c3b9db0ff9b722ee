//! What a term is known by: 96 bits of a hash with a secret key.

use std::cmp::Ordering;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// What a term is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct TermHash([u32; 3]);

impl PartialOrd for TermHash {
    fn partial_cmp(&self, other: &TermHash) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// In one comparison: terms are sorted at every write.
impl Ord for TermHash {
    fn cmp(&self, other: &TermHash) -> Ordering {
        let whole = |hash: &TermHash| u128::from(hash.table_hash()) << 32 | u128::from(hash.0[2]);
        whole(self).cmp(&whole(other))
    }
}

impl TermHash {
    pub(super) fn new(hash_key: (u64, u64), term: &str) -> TermHash {
        let mut hasher = SipHasher13::new_with_keys(hash_key.0, hash_key.1);
        hasher.write(term.as_bytes());
        let hash = hasher.finish128();
        TermHash([hash.h1 as u32, (hash.h1 >> 32) as u32, hash.h2 as u32])
    }

    pub(super) fn table_hash(self) -> u64 {
        u64::from(self.0[0]) | u64::from(self.0[1]) << 32
    }
}
