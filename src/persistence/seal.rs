//! Sealing: how a frame whose sync failed is made to never have been.
//!
//! After a failed sync nobody knows which bytes the disk has: the page cache may
//! hold them and call them clean, so that a second sync of the file answers
//! "done" and does nothing. So that file is never synced again. Instead:
//!
//! ```text
//! 00000007.wal  │ header │ frame 41 │ frame 42 │ frame 43 (failed) ░░░
//!                                              ▲
//! 00000008.wal  │ header: "7 ends here" ───────┘ │ frame 43 (another one) …
//! ```
//!
//! 1. a new small segment, whose header names the sealed one and the length up
//!    to its last *synced* frame, is written, synced and named, and the name is
//!    synced: from here on recovery never looks behind that length;
//! 2. the sealed file is cut to that length (a courtesy: nothing rests on it);
//! 3. only then is the refusal reported, and frame and indexes are used again.
//!
//! A crash before 1 is complete finds the frame or finds it torn: nobody had an
//! answer yet, so both are right. An attempt that fails is repeated with a new
//! file of a higher number. An attempt that failed after its file was named may
//! be found by a recovery too: it says the same as the next one (predecessor and
//! length can't have changed) and has no frames, so that the highest number wins
//! and nothing is lost by leaving the others out. Until an attempt succeeds the
//! sealed file gets no further frame: it is `closed`.
//!
//! At most one frame is unsynced at a time, so there are never later frames that
//! would have to be framed again behind the seal.

use std::io;

use super::disk::{Disk, SyncPurpose};
use super::log::Log;
use super::rotation::{SEALING_SEGMENT_BYTES, is_disk_full};
use super::segment::segment_name;
use crate::limits::SEAL_ATTEMPTS_MAX;

impl<D: Disk> Log<D> {
    /// Cuts off whatever lies behind the last durable frame of the current
    /// segment, for ever. On failure the log can't be used any more.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        self.closed = true;
        let sealed = self.segments.len() - 1;
        self.segments[sealed].sealed = true;
        let mut attempt = 0;
        while let Err(error) = self.try_seal() {
            attempt += 1;
            if attempt == SEAL_ATTEMPTS_MAX {
                return Err(error);
            }
        }
        self.failures.seals += 1;
        self.tidy_behind_seal(sealed);
        Ok(())
    }

    /// A full disk has no room even for a small file; a spare has its room already.
    fn try_seal(&mut self) -> io::Result<()> {
        let bytes = SEALING_SEGMENT_BYTES.min(self.options.segment_bytes);
        match self.new_segment(bytes, SyncPurpose::Seal, false) {
            Err(error) if is_disk_full(&error) => self.new_segment(bytes, SyncPurpose::Seal, true),
            result => result,
        }
    }

    /// Gives room back. Failures are of no consequence: a recovery does the same.
    fn tidy_behind_seal(&mut self, sealed: usize) {
        let segment = self.segments[sealed];
        if let Ok(mut file) = self.disk.open(&segment_name(segment.number))
            && self.disk.set_length(&mut file, segment.valid_bytes).is_ok()
        {
            self.segments[sealed].file_bytes = segment.valid_bytes;
        }
    }
}
