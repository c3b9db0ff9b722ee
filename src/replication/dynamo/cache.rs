//! The newest entries of the log, in memory, for peers that keep up.

use std::collections::VecDeque;

use bytes::Bytes;

use super::vector::Row;
use crate::replication::message::payload_memory_bytes;

/// How much memory entries may occupy here: enough for a peer that misses a few moments.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// A durable entry.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) index: u64,
    pub(super) payload: Bytes,
    /// `None`: it is of no stream, and goes to nobody.
    pub(super) row: Option<Row>,
    /// The tick in which it became durable.
    pub(super) since: u64,
}

impl Cached {
    /// What it occupies, in bytes. Most entries are small: their payloads are the least of it.
    fn memory_bytes(&self) -> usize {
        size_of::<Cached>() + payload_memory_bytes(&self.payload)
    }
}

/// The newest entries.
pub(super) struct Cache {
    entries: VecDeque<Cached>,
    bytes: usize,
    next_index: u64,
}

impl Cache {
    pub(super) fn new(next_index: u64) -> Cache {
        Cache { entries: VecDeque::new(), bytes: 0, next_index }
    }

    pub(super) fn push(&mut self, entry: Cached) {
        self.next_index = entry.index + 1;
        self.bytes += entry.memory_bytes();
        self.entries.push_back(entry);
        // The newest stays, however large it is.
        while self.bytes > CACHE_BYTES_MAX && self.entries.len() > 1 {
            self.bytes -= self.entries.pop_front().map_or(0, |oldest| oldest.memory_bytes());
        }
    }

    /// What it occupies, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let spare = self.entries.capacity() - self.entries.len();
        self.bytes + spare * size_of::<Cached>()
    }

    /// The first index that is here.
    pub(super) fn first_index(&self) -> u64 {
        self.entries.front().map_or(self.next_index, |entry| entry.index)
    }

    /// Behind the last entry.
    pub(super) fn next_index(&self) -> u64 {
        self.next_index
    }

    pub(super) fn get(&self, index: u64) -> Option<&Cached> {
        let place = index.checked_sub(self.first_index())?;
        self.entries.get(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_entries_count_as_what_they_occupy() {
        const PAYLOAD_BYTES: usize = 12;
        let mut cache = Cache::new(1);
        let most = CACHE_BYTES_MAX / PAYLOAD_BYTES;
        for index in 1..=most as u64 {
            let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
            cache.push(Cached { index, payload, row: None, since: 0 });
        }
        let kept = cache.next_index() - cache.first_index();
        assert!(kept * 100 < CACHE_BYTES_MAX as u64, "{kept} entries of at least 100 bytes each");
        assert!(cache.bytes <= CACHE_BYTES_MAX && cache.memory_bytes() <= 2 * CACHE_BYTES_MAX);
    }
}
