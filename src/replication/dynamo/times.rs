//! When the last entries of each stream were written, by their places.
//!
//! Two entries in one place have different times: that is how a node finds that another one
//! has a stream otherwise (`forks.rs`).

use std::collections::{BTreeMap, VecDeque};

use super::vector::{Origin, Row, VersionVector};

/// How many entries of a stream are remembered.
const KEPT_ENTRIES: usize = 4_096;

/// Times of the last entries of each stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    streams: BTreeMap<Origin, Last>,
}

/// The last entries of one stream, without a gap.
#[derive(Clone, Debug, Default)]
struct Last {
    sequence: u64,
    times: VecDeque<u64>,
}

impl Times {
    /// Of who has this, and nothing more is known of it.
    pub(super) fn of(vector: &VersionVector) -> Times {
        let mut times = Times::default();
        vector.rows().iter().for_each(|row| times.raise(*row));
        times
    }

    /// A stream goes on with this entry, or is here up to it.
    pub(super) fn raise(&mut self, row: Row) {
        let last = self.streams.entry(row.origin).or_default();
        if row.sequence <= last.sequence {
            return;
        }
        if row.sequence != last.sequence + 1 {
            last.times.clear();
        }
        last.sequence = row.sequence;
        last.times.push_back(row.time);
        if last.times.len() > KEPT_ENTRIES {
            last.times.pop_front();
        }
    }

    /// What was known of a stream counts no more.
    pub(super) fn forget(&mut self, origin: Origin) {
        self.streams.remove(&origin);
    }

    /// The last time of the entry in this place, if that is remembered.
    pub(super) fn time(&self, origin: Origin, sequence: u64) -> Option<u64> {
        let last = self.streams.get(&origin)?;
        let behind = usize::try_from(last.sequence.checked_sub(sequence)?).ok()?;
        last.times.get(last.times.len().checked_sub(behind + 1)?).copied()
    }

    /// What it occupies, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.streams.values().map(|last| last.times.capacity() * size_of::<u64>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_are_remembered_and_nothing_across_a_gap() {
        let mut times = Times::default();
        let row = |sequence| Row { origin: 3, sequence, time: sequence * 10 };
        let last = KEPT_ENTRIES as u64 + 5;
        (1..=last).for_each(|sequence| times.raise(row(sequence)));
        times.raise(Row { time: 7, ..row(last) });
        assert_eq!(times.time(3, last), Some(last * 10));
        assert_eq!((times.time(3, 6), times.time(3, 5)), (Some(60), None));
        assert_eq!((times.time(3, last + 1), times.time(4, 1)), (None, None));
        times.raise(row(last + 2));
        assert_eq!((times.time(3, last + 2), times.time(3, last)), (Some((last + 2) * 10), None));
    }
}
