//! Where each entry of the log lies: an index in memory, to read entries back.
//!
//! ```text
//! runs     │ 1…40: segment 3, byte 4096, 16 KiB │ 41…44: segment 3, byte 20480 │ 45…
//! terms    │ from 1: term 1            │ from 43: term 4               │
//! salts    │ segment 3: …  │ segment 4: …
//! ```
//!
//! A run is one frame, or several short ones that lie behind each other and
//! hold consecutive entries: so a log of small frames needs few places. A frame
//! that replaces entries shortens the runs that hold them and begins a new run;
//! a run's entries are therefore the first so many of those in its frames, and
//! runs are disjoint and ascending like the entries of the log.
//!
//! It is a plain value. Whoever appends keeps it up to date by what the log
//! says; whoever reads takes the places from it ([`EntryPlaces::between`]) and
//! may do so in another thread, since [`super::read_entries`] needs nothing else.

use std::collections::VecDeque;

use super::log_report::Appended;
use crate::limits::PLACE_BYTES_MAX;

/// Where a frame lies, or several that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The segment's salt, without which no frame of it can be checked.
    pub salt: u64,
    /// Where in the segment.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// A place and the entries to be found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// Where to read.
    pub place: Place,
    /// The index of the first entry there.
    pub first_index: u64,
    /// How many of its entries count, from the first on; others were superseded.
    pub entries: u64,
}

/// A [`FrameRun`] as it is kept: without the salt, which the whole segment shares.
#[derive(Clone, Copy, Debug)]
struct Run {
    first_index: u64,
    entries: u32,
    bytes: u32,
    segment: u64,
    offset: u64,
}

impl Run {
    fn end_index(&self) -> u64 {
        self.first_index + u64::from(self.entries)
    }
}

/// The places and terms of all entries that the log retains.
#[derive(Clone, Debug, Default)]
pub struct EntryPlaces {
    first_index: u64,
    next_index: u64,
    runs: VecDeque<Run>,
    /// From which index on which term.
    terms: VecDeque<(u64, u64)>,
    salts: VecDeque<(u64, u64)>,
}

impl EntryPlaces {
    /// Of a log without entries whose next one is `next_index`, and the term of
    /// the one before it, if it is known.
    pub fn new(next_index: u64, term_before: Option<u64>) -> EntryPlaces {
        let terms = term_before.map(|term| (next_index.saturating_sub(1), term)).into_iter().collect();
        EntryPlaces { first_index: next_index, next_index, terms, ..EntryPlaces::default() }
    }

    /// The first entry that has a place.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// The index behind the last entry that has a place.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// What it occupies, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
            + (self.terms.capacity() + self.salts.capacity()) * size_of::<(u64, u64)>()
    }

    /// The term of an entry; of the one before the first, too, if it was known.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index >= self.next_index {
            return None;
        }
        let run = self.terms.partition_point(|(from, _)| *from <= index).checked_sub(1)?;
        Some(self.terms[run].1)
    }

    /// From which entry on which term, from an entry on.
    pub fn terms_from(&self, index: u64) -> Vec<(u64, u64)> {
        let first = self.terms.partition_point(|(from, _)| *from <= index).saturating_sub(1);
        self.terms.iter().skip(first).copied().collect()
    }

    /// Takes in what [`super::Log::append_at`] has made durable; `terms` are
    /// those of its entries.
    pub fn appended(&mut self, appended: &Appended, terms: impl IntoIterator<Item = u64>) {
        self.record(appended.first_index, appended.place, terms);
    }

    /// Begins anew behind the snapshot: what [`super::Log::restart_at`] has done.
    pub fn restarted(&mut self, appended: &Appended, snapshot_term: u64) {
        *self = EntryPlaces::new(appended.first_index, Some(snapshot_term));
    }

    /// Takes in a frame. One that begins before the next index supersedes the
    /// entries from there on.
    pub(super) fn record(&mut self, first_index: u64, place: Place, terms: impl IntoIterator<Item = u64>) {
        let replaces = first_index < self.next_index;
        if replaces {
            self.truncate(first_index);
        }
        for term in terms {
            if self.terms.back().is_none_or(|(_, last)| *last != term) {
                self.terms.push_back((self.next_index, term));
            }
            self.next_index += 1;
        }
        let entries = (self.next_index - first_index) as u32;
        let continues = |run: &Run| {
            // A shortened run holds superseded entries behind its own: nothing can follow them in it.
            !replaces
                && (run.segment, run.offset + u64::from(run.bytes)) == (place.segment, place.offset)
                && u64::from(run.bytes) + place.bytes <= PLACE_BYTES_MAX
        };
        match self.runs.back_mut() {
            Some(run) if continues(run) => {
                run.entries += entries;
                run.bytes += place.bytes as u32;
            }
            _ if entries > 0 => self.push(first_index, entries, place),
            _ => {}
        }
    }

    fn push(&mut self, first_index: u64, entries: u32, place: Place) {
        if self.salts.back().is_none_or(|(segment, _)| *segment != place.segment) {
            self.salts.push_back((place.segment, place.salt));
        }
        let (segment, offset, bytes) = (place.segment, place.offset, place.bytes as u32);
        self.runs.push_back(Run { first_index, entries, bytes, segment, offset });
    }

    fn truncate(&mut self, from: u64) {
        while self.runs.back().is_some_and(|run| run.first_index >= from) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut() {
            run.entries = run.entries.min((from - run.first_index) as u32);
        }
        while self.terms.back().is_some_and(|(first, _)| *first >= from) {
            self.terms.pop_back();
        }
        self.next_index = from;
        self.first_index = self.first_index.min(from);
    }

    /// Forgets the entries before `first_index`, which [`super::LogFigures`] says
    /// after a cut, failed or not, but for the term of the last of them.
    pub fn cut(&mut self, first_index: u64) {
        let first_index = first_index.min(self.next_index);
        if first_index <= self.first_index {
            return;
        }
        self.first_index = first_index;
        while self.runs.front().is_some_and(|run| run.end_index() <= first_index) {
            self.runs.pop_front();
        }
        while self.terms.get(1).is_some_and(|(from, _)| *from < first_index) {
            self.terms.pop_front();
        }
        let needed = self.runs.front().map_or(u64::MAX, |run| run.segment);
        while self.salts.front().is_some_and(|(segment, _)| *segment < needed) {
            self.salts.pop_front();
        }
    }

    /// The places of the entries `low..high`, or of as many of them as may give
    /// `bytes_max`, but at least of the first.
    pub fn between(&self, low: u64, high: u64, bytes_max: u64) -> Vec<FrameRun> {
        let mut found = Vec::new();
        let mut bytes = 0;
        if low < self.first_index {
            return found;
        }
        let first = self.runs.partition_point(|run| run.end_index() <= low);
        for run in self.runs.range(first..).take_while(|run| run.first_index < high) {
            // The first run may hold mostly entries before `low`: it doesn't count.
            bytes += if found.is_empty() { 0 } else { u64::from(run.bytes) };
            found.push(self.with_salt(run));
            if bytes >= bytes_max {
                break;
            }
        }
        found
    }

    /// Whether this entry still lies there: it was not cut, nor replaced, since the place was given.
    pub fn has_at(&self, index: u64, place: &Place) -> bool {
        let now = self.between(index, index + 1, 1);
        now.first().is_some_and(|run| {
            (run.place.segment, run.place.salt, run.place.offset) == (place.segment, place.salt, place.offset)
        })
    }

    fn with_salt(&self, run: &Run) -> FrameRun {
        let place = self.salts.partition_point(|(segment, _)| *segment < run.segment);
        let salt = self.salts.get(place).map_or(0, |(_, salt)| *salt);
        FrameRun {
            place: Place { segment: run.segment, salt, offset: run.offset, bytes: u64::from(run.bytes) },
            first_index: run.first_index,
            entries: u64::from(run.entries),
        }
    }
}
