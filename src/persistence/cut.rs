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
        let mut report = CutReport { first_index: self.segments[0].first_index, ..CutReport::default() };
        if self.unlink_pending {
            self.disk.sync_directory(LOG_DIRECTORY)?;
            self.unlink_pending = false;
        }
        // Recovery knows them by their neighbours, which are about to go.
        self.remove_leftovers()?;
        while self.segments.len() > 1 && self.segments[1].first_index <= through.saturating_add(1) {
            let kept_elsewhere = self.segments.iter().skip(1).any(|segment| segment.has_hard_state);
            if self.position.hard_state.is_some() && !kept_elsewhere {
                break;
            }
            let oldest = self.segments[0];
            self.unlink(&oldest)?;
            self.segments.pop_front();
            report.segments += 1;
            report.bytes += oldest.file_bytes;
            report.first_index = self.segments[0].first_index;
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
