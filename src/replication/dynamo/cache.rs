//! The newest entries of the log, in memory, for peers that keep up.

use std::collections::VecDeque;

use bytes::Bytes;

use super::vector::Row;

/// How many bytes of payloads are kept: enough for a peer that misses a few moments.
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
        self.bytes += entry.payload.len();
        self.entries.push_back(entry);
        // The newest stays, however large it is.
        while self.bytes > CACHE_BYTES_MAX && self.entries.len() > 1 {
            self.bytes -= self.entries.pop_front().map_or(0, |oldest| oldest.payload.len());
        }
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
