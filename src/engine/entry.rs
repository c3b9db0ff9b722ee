//! One key's state: its version, its value's JSON text and its vector, in one
//! immutable, shared allocation.
//!
//! ```text
//! ┌ reference count ┬ index ┬ ordinal, key bytes, vector length ┬ length ┬ vector ┬ key ┬ value ┐
//! │ 8               │ 8     │ 4 + 2 + 2                         │ 8      │ 4·n    │ k   │ rest  │
//! └─────────────────┴───────┴───────────────────────────────────┴────────┴────────┴─────┴───────┘
//! ```
//!
//! A write makes a new entry and drops the old one when its last holder does.
//! So the keyspace, the indexes, a snapshot's walk and a reply under way share
//! one copy and nobody waits for anybody. The vector stands first, so that it
//! is aligned for its numbers. A value is never empty (JSON has no empty text),
//! so an empty rest means "no value".

use std::fmt;

use triomphe::ThinArc;

use crate::version::Version;

struct Header {
    index: u64,
    ordinal: u32,
    key_bytes: u16,
    vector_length: u16,
}

/// A key with its version, value and vector. Cloning shares it.
#[derive(Clone)]
pub struct Entry(ThinArc<Header, u8>);

/// What an entry costs beside its own bytes: reference count, header, length.
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

impl Entry {
    /// A new entry. `key` is at most [`crate::limits::KEY_BYTES_MAX`] bytes of
    /// UTF-8, `vector` at most [`crate::limits::VECTOR_LENGTH_MAX`] numbers;
    /// `value` is JSON text. Longer parts are a broken invariant: the decoder
    /// refuses them before they come here.
    pub fn new(version: Version, key: &[u8], value: Option<&[u8]>, vector: Option<&[f32]>) -> Entry {
        let vector = vector.unwrap_or(&[]);
        let mut bytes = Vec::with_capacity(vector.len() * 4);
        for number in vector {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        Entry::assemble(version, key, value.unwrap_or(&[]), &bytes)
    }

    /// The same vector (if any) under a new version and value.
    pub fn with_value(&self, version: Version, value: &[u8]) -> Entry {
        Entry::assemble(version, self.key(), value, self.vector_bytes())
    }

    /// The same value (if any) under a new version and vector.
    pub fn with_vector(&self, version: Version, vector: &[f32]) -> Entry {
        Entry::new(version, self.key(), self.value(), Some(vector))
    }

    /// An entry whose vector comes as the log and the wire carry it, little-endian f32s.
    pub fn with_little_endian_vector(
        version: Version,
        key: &[u8],
        value: Option<&[u8]>,
        vector: &[u8],
    ) -> Entry {
        let value = value.unwrap_or(&[]);
        if cfg!(target_endian = "little") {
            return Entry::assemble(version, key, value, vector);
        }
        let native: Vec<u8> = vector.chunks_exact(4).flat_map(|b| [b[3], b[2], b[1], b[0]]).collect();
        Entry::assemble(version, key, value, &native)
    }

    fn assemble(version: Version, key: &[u8], value: &[u8], vector: &[u8]) -> Entry {
        assert!(key.len() <= crate::limits::KEY_BYTES_MAX, "key of {} bytes", key.len());
        assert!(vector.len() / 4 <= crate::limits::VECTOR_LENGTH_MAX, "vector of {} bytes", vector.len());
        let header = Header {
            index: version.index,
            ordinal: version.ordinal,
            key_bytes: key.len() as u16,
            vector_length: (vector.len() / 4) as u16,
        };
        let total = vector.len() + key.len() + value.len();
        // Most entries are small: they are put together on the stack and cost one allocation.
        const SMALL_BYTES: usize = 512;
        if total <= SMALL_BYTES {
            let mut small = [0u8; SMALL_BYTES];
            small[..vector.len()].copy_from_slice(vector);
            small[vector.len()..vector.len() + key.len()].copy_from_slice(key);
            small[vector.len() + key.len()..total].copy_from_slice(value);
            Entry(ThinArc::from_header_and_slice(header, &small[..total]))
        } else {
            Entry(ThinArc::from_header_and_slice(header, &[vector, key, value].concat()))
        }
    }

    fn vector_bytes(&self) -> &[u8] {
        &self.0.slice[..self.0.header.header.vector_length as usize * 4]
    }

    /// The version of the write that made this entry.
    pub fn version(&self) -> Version {
        let header = &self.0.header.header;
        Version { index: header.index, ordinal: header.ordinal }
    }

    /// The key's UTF-8.
    pub fn key(&self) -> &[u8] {
        let start = self.0.header.header.vector_length as usize * 4;
        &self.0.slice[start..start + self.0.header.header.key_bytes as usize]
    }

    /// The value's JSON text as it was sent, `None` when the key has only a vector.
    pub fn value(&self) -> Option<&[u8]> {
        let header = &self.0.header.header;
        let value = &self.0.slice[header.vector_length as usize * 4 + header.key_bytes as usize..];
        (!value.is_empty()).then_some(value)
    }

    /// The vector, `None` when the key has only a value.
    pub fn vector(&self) -> Option<&[f32]> {
        let bytes = self.vector_bytes();
        // The slice begins behind 8-byte fields, so this never fails; were it to, stopping is right.
        (!bytes.is_empty()).then(|| bytemuck::cast_slice(bytes))
    }

    /// Brings the entry's beginning into the processor's cache.
    pub(super) fn prefetch(&self) {
        const FIRST_BYTES: usize = 128;
        super::prefetch(self.address().wrapping_sub(ENTRY_OVERHEAD_BYTES), FIRST_BYTES);
    }

    /// What the entry occupies in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.0.slice.len()
    }

    /// Where the entry lies. To know it touches nothing of the entry, so a scan
    /// can have entries fetched into the cache before it reads them.
    pub fn address(&self) -> *const u8 {
        self.0.ptr().cast()
    }

    /// Whether two handles are the same allocation.
    pub fn is_same(&self, other: &Entry) -> bool {
        std::ptr::eq(self.0.slice.as_ptr(), other.0.slice.as_ptr())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Entry")
            .field("key", &String::from_utf8_lossy(self.key()))
            .field("version", &self.version())
            .field("value", &self.value().map(String::from_utf8_lossy))
            .field("vector", &self.vector())
            .finish()
    }
}

/// One key's change as the indexes see it: at least one side is present, and
/// both, when present, have the same key.
#[derive(Clone, Debug)]
pub struct Change {
    /// The entry before the write, absent when the key is new.
    pub old: Option<Entry>,
    /// The entry after the write, absent when the key was deleted.
    pub new: Option<Entry>,
}

impl Change {
    /// The bytes a change keeps alive while it waits for the indexes.
    pub fn memory_bytes(&self) -> usize {
        self.old.as_ref().map_or(0, Entry::memory_bytes) + self.new.as_ref().map_or(0, Entry::memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { index: 7, ordinal: 3 };

    #[test]
    fn parts_come_back_as_they_went_in() {
        for size in [1usize, 100, 600, 70_000] {
            let value = vec![b'7'; size];
            let entry = Entry::new(VERSION, "ключ".as_bytes(), Some(&value), Some(&[1.5, -2.0, 3.25]));
            assert_eq!(entry.key(), "ключ".as_bytes());
            assert_eq!(entry.value(), Some(&value[..]));
            assert_eq!(entry.vector(), Some(&[1.5, -2.0, 3.25][..]));
            assert_eq!(entry.version(), VERSION);
        }
    }

    #[test]
    fn a_set_keeps_the_vector_and_a_vector_keeps_the_value() {
        let later = Version { index: 8, ordinal: 0 };
        let vector_only = Entry::new(VERSION, b"k", None, Some(&[1.0]));
        assert_eq!(vector_only.value(), None);
        let both = vector_only.with_value(later, b"\"x\"");
        assert_eq!((both.value(), both.vector()), (Some(&b"\"x\""[..]), Some(&[1.0f32][..])));
        let other = both.with_vector(later, &[2.0, 3.0]);
        assert_eq!((other.value(), other.vector()), (Some(&b"\"x\""[..]), Some(&[2.0f32, 3.0][..])));
        assert_eq!(other.version(), later);
    }
}
