//! Cutting the log from the front, once a snapshot has what it held.
//!
//! ```text
//! 00000003.wal  00000004.wal  00000005.wal  00000006.wal
//! └ all ≤ through ──────────┘ └ some above  └ appended to
//!   unlinked (or retired), oldest first, then the directory synced, once
//! ```
//!
//! A snapshot that has all of `through` is durable before. A crash may leave any of the segments that were to go:
//! recovery knows by the snapshot that nothing is missing with those that are gone, and removes the rest of them.
//! A segment that is missing between two others is damage where the snapshot doesn't have what was in it. File
//! systems that keep the order of removals, which is all that are in use, leave no hole even then.
//!
//! In a replicated log the indexes may go back, and segments begin at indexes
//! that don't ascend (see `log.rs`):
//!
//! ```text
//! header: first index  1            11           6            9
//!                     │ 1 … 10     │ 11 12 5'   │ 6' 7' 8'   │ 9' …
//! cut(7)              └ go ────────────────────┘ └ stays: entry 8 is above 7
//! ```
//!
//! All that counts in the segments before one lies below the first index of its
//! header. So the *last* segment that begins at or below `through` + 1 becomes
//! the oldest: nothing above `through` goes. A segment that once held higher
//! indexes holds nothing back: it goes when a later one begins low enough, and
//! that is so when the log has grown by one more segment at the latest. A crash
//! half-way leaves 11 as the oldest header, with 6 behind it; so the log's first
//! index is the lowest of the headers', and the snapshot's entry 7 reaches it.
//! What was cut can't be replaced any more.

use std::io;

use super::disk::{Disk, LOG_DIRECTORY, remove_if_present};
use super::log::{Log, SegmentState};
use super::log_report::CutReport;
use super::mutant::broken;
use super::segment::{LogFile, classify, retired_name, segment_name};

impl<D: Disk> Log<D> {
    /// Removes whole segments, oldest first, whose entries are all at or below
    /// `through`: a snapshot has them. The one appended to stays, and so does
    /// the last one that holds the hard state.
    pub fn cut(&mut self, through: u64) -> io::Result<CutReport> {
        self.finality.raise(through);
        let mut report = CutReport { first_index: self.first_index(), ..CutReport::default() };
        if self.unlink_pending {
            self.disk.sync_directory(LOG_DIRECTORY)?;
            self.unlink_pending = false;
        }
        // Recovery knows them by their neighbours, which are about to go.
        self.remove_leftovers()?;
        let count = self.segments_below(through).min(self.segments_before_hard_state());
        if count == 0 {
            return Ok(report);
        }
        let mut retired = self.retired_segments()?;
        self.unlink_pending = true;
        for _ in 0..count {
            let oldest = self.segments[0];
            self.unlink(&oldest, &mut retired)?;
            self.segments.pop_front();
            report.segments += 1;
            report.bytes += oldest.file_bytes;
        }
        report.first_index = self.first_index();
        self.disk.sync_directory(LOG_DIRECTORY)?;
        self.unlink_pending = false;
        Ok(report)
    }

    /// How many segments there are before the last one that holds the hard state, if there is one.
    fn segments_before_hard_state(&self) -> usize {
        let has = |segment: &SegmentState| segment.has_hard_state;
        let last =
            self.position.hard_state.as_ref().map(|_| self.segments.iter().rposition(has).unwrap_or(0));
        last.unwrap_or(self.segments.len())
    }

    /// How many segments hold only entries up to `through`, or superseded ones.
    fn segments_below(&self, through: u64) -> usize {
        if broken!(self.options, CutTooFar) {
            let begins = self.segments.iter().map(|segment| segment.first_index).min();
            return if begins <= Some(through) { self.segments.len() - 1 } else { 0 };
        }
        let begins_below = |segment: &SegmentState| segment.first_index <= through.saturating_add(1);
        self.segments.iter().rposition(begins_below).unwrap_or(0)
    }

    fn unlink(&self, segment: &SegmentState, retired: &mut usize) -> io::Result<()> {
        let name = segment_name(segment.number);
        let reusable = !segment.sealed && segment.file_bytes == self.options.segment_bytes;
        if reusable && *retired < self.options.retired_segments_max {
            *retired += 1;
            return self.disk.rename(&name, &retired_name(segment.number));
        }
        remove_if_present(&self.disk, &name)
    }

    fn retired_segments(&self) -> io::Result<usize> {
        let names = self.disk.list(LOG_DIRECTORY)?;
        let retired = |name: &&String| classify(name) == LogFile::Retired;
        Ok(names.iter().filter(retired).count())
    }
}
