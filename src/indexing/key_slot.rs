//! A key's place in a list, as a hash table holds it.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// A key's hash and its place in a list of entries. The hash stands here so that
/// the table grows without touching a key.
#[derive(Clone, Copy)]
pub(super) struct KeySlot {
    pub(super) hash: u32,
    pub(super) place: u32,
}

impl KeySlot {
    /// The table takes its position from the low bits and its tag from the high ones.
    pub(super) fn table_hash(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// What a slot keeps of a key.
pub(super) fn hash_of(hash_key: (u64, u64), key: &[u8]) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(hash_key.0, hash_key.1);
    hasher.write(key);
    hasher.finish() as u32
}
