//! Cutting the log from the front, once a snapshot has what it held.
//!
//! ```text
//! 00000003.wal  00000004.wal  00000005.wal  00000006.wal
//! └ all ≤ through ──────────┘ └ some above  └ appended to
//!   unlinked (or retired), oldest first, the directory synced after each
//! ```
//!
//! The order is what recovery relies on: a segment that is missing between two
//! others is damage, one that is missing at the front was cut.
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
        for _ in 0..self.segments_below(through) {
            let kept_elsewhere = self.segments.iter().skip(1).any(|segment| segment.has_hard_state);
            if self.position.hard_state.is_some() && !kept_elsewhere {
                break;
            }
            let oldest = self.segments[0];
            self.unlink(&oldest)?;
            self.segments.pop_front();
            report.segments += 1;
            report.bytes += oldest.file_bytes;
            report.first_index = self.first_index();
            // One by one: were a later one gone and an earlier one back after a
            // crash, the log would have a hole.
            if !broken!(self.options, UnlinkNotSynced) {
                self.unlink_pending = true;
                self.disk.sync_directory(LOG_DIRECTORY)?;
                self.unlink_pending = false;
            }
        }
        Ok(report)
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

    fn unlink(&self, segment: &SegmentState) -> io::Result<()> {
        let name = segment_name(segment.number);
        let reusable = !segment.sealed && segment.file_bytes == self.options.segment_bytes;
        if reusable && self.retired_segments()? < self.options.retired_segments_max {
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
