//! Going on in another segment: when a frame doesn't fit the current one, and
//! when that is sealed.
//!
//! Nothing of a frame is written to a segment before its name is durable. An
//! attempt that failed may have left a file with a name: it is found by a
//! recovery as long as no later one is there, and says where the current segment
//! ends. So that one is `closed` until an attempt succeeds.

use std::io;

use super::disk::{Disk, LOG_DIRECTORY, SyncPurpose, remove_if_present};
use super::log::{Log, SegmentState};
use super::log_report::AppendError;
use super::mutant::broken;
use super::segment::{
    Creation, FLAG_SEALS, SEGMENT_HEADER_BYTES, SegmentHeader, create_segment, segment_name,
};
use crate::limits::SEGMENT_BYTES_MIN;

impl<D: Disk> Log<D> {
    /// Goes on in a new segment if the frame doesn't fit this one. Nothing of
    /// the frame is written yet, so that a failure here is a plain refusal.
    pub(super) fn make_room(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        let current = self.current();
        if !self.closed && current.valid_bytes + frame_bytes <= current.file_bytes {
            return Ok(());
        }
        let bytes = self.options.segment_bytes.max(SEGMENT_HEADER_BYTES as u64 + frame_bytes);
        self.new_segment(bytes, SyncPurpose::Other, true).map_err(refused)
    }

    /// Goes on in a new segment if the current one holds entries up to this one: what is
    /// no longer needed of it can be cut only then.
    pub fn leave_segment_of(&mut self, index: u64) -> io::Result<()> {
        let current = self.current();
        let is_empty = current.valid_bytes <= SEGMENT_HEADER_BYTES as u64;
        if self.stopped || is_empty || current.first_index > index {
            return Ok(());
        }
        let bytes = self.options.segment_bytes;
        self.new_segment(bytes, SyncPurpose::Other, true)
    }

    /// Begins a new segment behind the last durable frame. On failure the log
    /// is as before, but for `closed`.
    pub(super) fn new_segment(
        &mut self,
        bytes: u64,
        purpose: SyncPurpose,
        use_spare: bool,
    ) -> io::Result<()> {
        self.last_number += 1;
        let creation = Creation {
            header: self.next_header(purpose),
            frames: Vec::new(),
            bytes,
            purpose,
            use_spare,
            #[cfg(test)]
            mutant: self.options.mutant,
        };
        match create_segment(&self.disk, &creation) {
            Ok((file, file_bytes)) => {
                self.segments.push_back(SegmentState {
                    number: creation.header.number,
                    first_index: creation.header.first_index,
                    valid_bytes: SEGMENT_HEADER_BYTES as u64,
                    file_bytes,
                    has_hard_state: false,
                    sealed: false,
                });
                self.file = file;
                self.salt = creation.header.salt;
                self.closed = false;
                // Its header names where the frames before it end: a bad one among them is damage.
                self.position.last_has_content = false;
                // If this fails, the next cut or the next start does it.
                let _ = self.remove_leftovers();
                Ok(())
            }
            Err(error) => {
                self.failures.segments += 1;
                // The new segment may be found after a crash, and cuts this one
                // off where it ends now: what came behind would be lost.
                self.closed |= error.may_exist && !broken!(self.options, GrowsBesideSuccessor);
                if error.may_exist {
                    self.leftovers.push(creation.header.number);
                }
                Err(error.source)
            }
        }
    }

    pub(super) fn remove_leftovers(&mut self) -> io::Result<()> {
        if self.leftovers.is_empty() {
            return Ok(());
        }
        for &number in &self.leftovers {
            remove_if_present(&self.disk, &segment_name(number))?;
        }
        self.disk.sync_directory(LOG_DIRECTORY)?;
        self.leftovers.clear();
        Ok(())
    }

    pub(super) fn next_header(&mut self, purpose: SyncPurpose) -> SegmentHeader {
        let (predecessor, predecessor_length) = (self.current().number, self.current().valid_bytes);
        let too_long = if broken!(self.options, SealKeepsRefusedFrame) && purpose == SyncPurpose::Seal {
            self.buffer.len() as u64
        } else {
            0
        };
        SegmentHeader {
            flags: if purpose == SyncPurpose::Seal { FLAG_SEALS } else { 0 },
            node: self.node,
            number: self.last_number,
            salt: if broken!(self.options, NoSalt) { 0 } else { (self.salts)() },
            predecessor,
            predecessor_length: predecessor_length + too_long,
            first_frame: self.position.next_frame,
            first_index: self.position.next_index,
            predecessor_crc: self.position.crc,
        }
    }
}

/// A failure before anything of a frame was written.
pub(super) fn refused(source: io::Error) -> AppendError {
    if is_disk_full(&source) { AppendError::DiskFull { source } } else { AppendError::Refused { source } }
}

/// Whether a disk has refused for want of room: its own, or what a quota or a limit of the file's size leaves of it.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The size of a segment that seals another, unless segments are smaller still:
/// small, so that it is made quickly.
pub(super) const SEALING_SEGMENT_BYTES: u64 = SEGMENT_BYTES_MIN;
const _: () = assert!(SEALING_SEGMENT_BYTES > SEGMENT_HEADER_BYTES as u64);
