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
//!
//! In dynamo mode value and vector are decided each by itself, and the older of
//! the two keeps its version in 12 bytes behind the value; two bits of the key's
//! length say which it is. An entry with neither part is a tombstone there: the
//! version of a delete; one of a key that was not there has the bit and the 12 bytes, too.

use std::fmt;

use triomphe::ThinArc;

use crate::version::Version;

/// Bits of the key's length: which part is older than the entry's version.
const OLDER_VALUE: u16 = 1 << 15;
const OLDER_VECTOR: u16 = 1 << 14;
const KEY_BYTES_MASK: u16 = OLDER_VECTOR - 1;
/// The older part's version: index and ordinal.
const OLDER_BYTES: usize = 12;

const _: () = assert!(crate::limits::KEY_BYTES_MAX <= KEY_BYTES_MASK as usize);

/// One part of an entry with the version that wrote it.
pub type Part<'a> = (Version, &'a [u8]);

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
/// What a tombstone of a key that was not there costs beside its key.
pub(super) const TOMBSTONE_OF_ABSENT_OVERHEAD_BYTES: usize = ENTRY_OVERHEAD_BYTES + OLDER_BYTES;

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

    /// The version of a delete, which has neither value nor vector.
    pub fn tombstone(version: Version, key: &[u8]) -> Entry {
        Entry::assemble(version, key, &[], &[])
    }

    /// The version of a delete that found nothing to take away.
    pub fn tombstone_of_absent(version: Version, key: &[u8]) -> Entry {
        // That there is another version beside its own says it.
        Entry::assemble_with(version, key, &[], &[], Some((OLDER_VALUE, version)))
    }

    /// An entry whose parts were written apart; the vector as this machine's f32s.
    /// `None` when there is neither.
    pub fn of_parts(key: &[u8], value: Option<Part<'_>>, vector: Option<Part<'_>>) -> Option<Entry> {
        let (value_version, vector_version) = (value.map(|part| part.0), vector.map(|part| part.0));
        let newest = value_version.max(vector_version)?;
        let (value, vector) = (value.map_or(&[][..], |part| part.1), vector.map_or(&[][..], |part| part.1));
        let older = match (value_version, vector_version) {
            (Some(of_value), Some(of_vector)) if of_value < of_vector => Some((OLDER_VALUE, of_value)),
            (Some(of_value), Some(of_vector)) if of_vector < of_value => Some((OLDER_VECTOR, of_vector)),
            _ => None,
        };
        Some(Entry::assemble_with(newest, key, value, vector, older))
    }

    fn assemble(version: Version, key: &[u8], value: &[u8], vector: &[u8]) -> Entry {
        Entry::assemble_with(version, key, value, vector, None)
    }

    fn assemble_with(
        version: Version,
        key: &[u8],
        value: &[u8],
        vector: &[u8],
        older: Option<(u16, Version)>,
    ) -> Entry {
        assert!(key.len() <= crate::limits::KEY_BYTES_MAX, "key of {} bytes", key.len());
        assert!(vector.len() / 4 <= crate::limits::VECTOR_LENGTH_MAX, "vector of {} bytes", vector.len());
        let header = Header {
            index: version.index,
            ordinal: version.ordinal,
            key_bytes: key.len() as u16 | older.map_or(0, |(which, _)| which),
            vector_length: (vector.len() / 4) as u16,
        };
        if let Some((_, Version { index, ordinal })) = older {
            let rest = [&index.to_le_bytes()[..], &ordinal.to_le_bytes()].concat();
            return Entry(ThinArc::from_header_and_slice(header, &[vector, key, value, &rest].concat()));
        }
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

    /// The vector as this machine's f32s.
    pub(super) fn vector_bytes(&self) -> &[u8] {
        &self.0.slice[..self.0.header.header.vector_length as usize * 4]
    }

    /// The version of the write that made this entry.
    pub fn version(&self) -> Version {
        let header = &self.0.header.header;
        Version { index: header.index, ordinal: header.ordinal }
    }

    fn older(&self) -> Option<(u16, Version)> {
        let which = self.0.header.header.key_bytes & !KEY_BYTES_MASK;
        if which == 0 {
            return None;
        }
        let rest = &self.0.slice[self.0.slice.len() - OLDER_BYTES..];
        let (mut index, mut ordinal) = ([0; 8], [0; 4]);
        index.copy_from_slice(&rest[..8]);
        ordinal.copy_from_slice(&rest[8..]);
        Some((which, Version { index: u64::from_le_bytes(index), ordinal: u32::from_le_bytes(ordinal) }))
    }

    fn part_version(&self, flag: u16) -> Version {
        self.older().filter(|(which, _)| *which == flag).map_or_else(|| self.version(), |(_, older)| older)
    }

    /// The value with the version that wrote it.
    pub fn value_part(&self) -> Option<Part<'_>> {
        self.value().map(|value| (self.part_version(OLDER_VALUE), value))
    }

    /// The vector, as this machine's f32s, with the version that wrote it.
    pub fn vector_part(&self) -> Option<Part<'_>> {
        let vector = self.vector_bytes();
        (!vector.is_empty()).then(|| (self.part_version(OLDER_VECTOR), vector))
    }

    /// Whether it is the version of a delete.
    pub fn is_tombstone(&self) -> bool {
        self.value().is_none() && self.vector_bytes().is_empty()
    }

    /// Whether it is the version of a delete that found nothing to take away.
    pub fn is_tombstone_of_absent(&self) -> bool {
        self.is_tombstone() && self.older().is_some()
    }

    fn key_bytes(&self) -> usize {
        usize::from(self.0.header.header.key_bytes & KEY_BYTES_MASK)
    }

    /// The key's UTF-8.
    pub fn key(&self) -> &[u8] {
        let start = self.0.header.header.vector_length as usize * 4;
        &self.0.slice[start..start + self.key_bytes()]
    }

    /// The value's JSON text as it was sent, `None` when the key has only a vector.
    pub fn value(&self) -> Option<&[u8]> {
        let header = &self.0.header.header;
        let start = header.vector_length as usize * 4 + self.key_bytes();
        let tail = if header.key_bytes > KEY_BYTES_MASK { OLDER_BYTES } else { 0 };
        let value = &self.0.slice[start..self.0.slice.len() - tail];
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
    fn parts_that_were_written_apart_keep_their_versions() {
        let later = Version { index: 9, ordinal: 1 };
        let vector: Vec<u8> = [1.5f32, 2.0].iter().flat_map(|number| number.to_ne_bytes()).collect();
        for (of_value, of_vector) in [(VERSION, later), (later, VERSION), (later, later)] {
            let entry = Entry::of_parts(b"k", Some((of_value, b"7")), Some((of_vector, &vector))).unwrap();
            assert_eq!((entry.key(), entry.version()), (&b"k"[..], later));
            assert_eq!(entry.value_part(), Some((of_value, &b"7"[..])));
            assert_eq!(entry.vector_part(), Some((of_vector, &vector[..])));
            assert_eq!(entry.vector(), Some(&[1.5f32, 2.0][..]));
        }
        assert!(Entry::of_parts(b"k", None, None).is_none());
        let tombstone = Entry::tombstone(later, b"k");
        assert!(tombstone.is_tombstone() && tombstone.version() == later && tombstone.key() == b"k");
        let of_absent = Entry::tombstone_of_absent(later, b"k");
        assert!(of_absent.is_tombstone() && of_absent.version() == later && of_absent.key() == b"k");
        assert!(of_absent.is_tombstone_of_absent() && !tombstone.is_tombstone_of_absent());
        assert!(of_absent.value_part().is_none() && of_absent.vector_part().is_none());
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
