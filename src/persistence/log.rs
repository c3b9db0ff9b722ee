//! The write-ahead log: appended to by one thread, one frame at a time.
//!
//! ```text
//! append ─► frame written ─► synced ─► Ok: durable, its indexes are taken
//!              │ failed        │ failed
//!              └───────────────┴─► seal (see `seal.rs`) ─► Refused: never happened
//!                                        │ failed 8 times
//!                                        └─► Unsealed: nobody knows; stop the node
//! ```
//!
//! At any moment at most one frame is not known to be durable. All before it
//! are, and each frame says so of the one before it; an idle log says so of its
//! last entries by one frame without entries ([`Log::append_idle_frame`]).
//!
//! The latest hard state stands in the first frame of every segment, so that
//! cutting the log from the front never loses it.

use std::collections::VecDeque;
use std::io;

use super::disk::{Disk, LOG_DIRECTORY, SyncPurpose, remove_if_present};
use super::frame::{self, AppendEntry, FramePlace};
use super::identity::{Identity, IdentityError, NodeUuid};
use super::log_report::{AppendError, Appended, LogFigures, LogOptions};
use super::mutant::broken;
use super::recovery;
use super::recovery_report::{OpenError, RecoveredEntry, RecoveryReport, Replay, VisitError};
use super::segment::{
    Creation, SEGMENT_HEADER_BYTES, SegmentHeader, create_segment, ready_spares, segment_name,
};
use crate::limits::SEGMENT_BYTES_MIN;

/// A segment of the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentState {
    pub(super) number: u64,
    pub(super) first_index: u64,
    /// Where its frames end.
    pub(super) valid_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) has_hard_state: bool,
    /// A sync of it failed: it is never synced or used again.
    pub(super) sealed: bool,
}

/// What the next frame continues.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    pub(super) next_index: u64,
    pub(super) next_frame: u64,
    /// The header CRC of the last frame.
    pub(super) crc: u32,
    pub(super) term: u64,
    pub(super) hard_state: Option<Vec<u8>>,
    /// Whether the last frame has entries or a hard state, which only a further frame proves durable.
    pub(super) last_has_content: bool,
}

/// The log, open for appending.
pub struct Log<D: Disk> {
    pub(super) disk: D,
    pub(super) options: LogOptions,
    pub(super) node: NodeUuid,
    pub(super) salts: Box<dyn FnMut() -> u64 + Send>,
    /// Oldest first; the last one is appended to. Never empty.
    pub(super) segments: VecDeque<SegmentState>,
    pub(super) file: D::File,
    pub(super) salt: u64,
    /// The current file's successor may exist on disk: nothing may be added to it.
    pub(super) closed: bool,
    /// The highest number that was ever tried.
    pub(super) last_number: u64,
    pub(super) position: Position,
    pub(super) failures: Failures,
    /// Attempts that failed when they had their name already: they are removed
    /// as soon as a later one succeeds.
    pub(super) leftovers: Vec<u64>,
    /// A segment was unlinked and that is not durable yet.
    pub(super) unlink_pending: bool,
    stopped: bool,
    buffer: Vec<u8>,
}

/// Counted for [`LogFigures`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    pub(super) syncs: u64,
    pub(super) seals: u64,
    pub(super) segments: u64,
}

/// Makes a new data directory: the log's first segment, then the identity. A
/// crash in between leaves a directory that this function may be called for
/// again; one that has an identity, or frames, is left as it is.
pub fn initialise<D: Disk>(
    disk: &D,
    options: &LogOptions,
    identity: &Identity,
    salt: u64,
) -> Result<(), OpenError> {
    if Identity::load(disk)?.is_some() {
        return Err(OpenError::AlreadyInitialised);
    }
    recovery::remove_unused_log(disk)?;
    let header = SegmentHeader {
        flags: 0,
        node: identity.node,
        number: 1,
        salt,
        predecessor: 0,
        predecessor_length: 0,
        first_frame: 1,
        first_index: 1,
        predecessor_crc: 0,
    };
    let creation = Creation {
        header,
        bytes: options.segment_bytes.max(SEGMENT_HEADER_BYTES as u64),
        purpose: SyncPurpose::Other,
        use_spare: false,
        #[cfg(test)]
        mutant: None,
    };
    create_segment(disk, &creation)
        .map_err(|error| OpenError::Io { file: segment_name(1), source: error.source })?;
    identity.store(disk).map_err(|error: IdentityError| OpenError::Identity(error))
}

impl<D: Disk> Log<D> {
    /// Recovers the log: every entry above `replay.after` goes to `visit` in
    /// order, and the log is ready to be appended to. See `recovery.rs`.
    pub fn open(
        disk: D,
        options: LogOptions,
        identity: &Identity,
        replay: Replay,
        salts: impl FnMut() -> u64 + Send + 'static,
        visit: &mut dyn FnMut(RecoveredEntry<'_>) -> Result<(), VisitError>,
    ) -> Result<(Log<D>, RecoveryReport), OpenError> {
        let recovered = recovery::recover(&disk, &options, identity.node, replay, visit)?;
        let log = Log {
            disk,
            options,
            node: identity.node,
            salts: Box::new(salts),
            segments: recovered.segments,
            file: recovered.file,
            salt: recovered.salt,
            closed: false,
            last_number: recovered.last_number,
            position: recovered.position,
            failures: Failures::default(),
            leftovers: Vec::new(),
            unlink_pending: false,
            stopped: false,
            buffer: Vec::new(),
        };
        Ok((log, recovered.report))
    }

    /// Appends one frame: one write, one sync. The entries get the next indexes.
    /// When this returns `Ok`, they are durable.
    pub fn append(
        &mut self,
        entries: &[AppendEntry<'_>],
        hard_state: Option<&[u8]>,
    ) -> Result<Appended, AppendError> {
        if self.stopped {
            return Err(AppendError::Unsealed { source: io::Error::other("the log has stopped") });
        }
        // Room for the hard state that a new segment's first frame repeats.
        let longest = hard_state.or(self.position.hard_state.as_deref()).unwrap_or(&[]);
        let Some(payload_bytes) = frame::payload_bytes(entries, longest) else {
            return Err(AppendError::TooLarge);
        };
        let frame_bytes = frame::FRAME_HEADER_BYTES + payload_bytes.next_multiple_of(frame::ALIGNMENT_BYTES);
        self.make_room(frame_bytes as u64)?;
        let crc = self.encode(entries, hard_state);
        if let Err(source) = self.write_and_sync() {
            return Err(self.refuse(source));
        }
        Ok(self.settle(entries, hard_state, crc))
    }

    /// Whether only a further frame can prove that the last one was durable.
    /// Asked when the log has been idle for [`crate::limits::IDLE_FRAME_AFTER_MS`], and at shutdown.
    pub fn needs_idle_frame(&self) -> bool {
        self.position.last_has_content && !self.stopped
    }

    /// Appends a frame without entries, after which damage to the frames before
    /// it can't be taken for a write cut short.
    pub fn append_idle_frame(&mut self) -> Result<Appended, AppendError> {
        self.append(&[], None)
    }

    /// The index that the next entry gets.
    pub fn next_index(&self) -> u64 {
        self.position.next_index
    }

    /// The latest hard state that is durable.
    pub fn hard_state(&self) -> Option<&[u8]> {
        self.position.hard_state.as_deref()
    }

    /// The disk, for a [`super::prepare_spare`] in the same thread.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Whether a spare for the next rotation is missing.
    pub fn needs_spare(&self) -> bool {
        ready_spares(&self.disk).is_ok_and(|spares| spares == 0)
    }

    fn encode(&mut self, entries: &[AppendEntry<'_>], hard_state: Option<&[u8]>) -> u32 {
        let repeated = if self.current().has_hard_state { None } else { self.position.hard_state.as_deref() };
        let place = FramePlace {
            salt: self.salt,
            predecessor_crc: self.position.crc,
            term: entries.last().map_or(self.position.term, |entry| entry.term),
            number: self.position.next_frame,
            first_index: self.position.next_index,
            durable_number: self.position.next_frame - 1,
        };
        frame::encode(&mut self.buffer, &place, entries, hard_state.or(repeated).unwrap_or(&[]))
    }

    fn write_and_sync(&mut self) -> io::Result<()> {
        let offset = self.current().valid_bytes;
        self.disk.write_at(&mut self.file, offset, &self.buffer)?;
        if broken!(self.options, AcknowledgeBeforeSync) {
            return Ok(());
        }
        self.disk.sync(&mut self.file, SyncPurpose::Append)
    }

    fn refuse(&mut self, source: io::Error) -> AppendError {
        self.failures.syncs += 1;
        if broken!(self.options, NoSeal) {
            return AppendError::Refused { source };
        }
        match self.seal() {
            Ok(()) if is_disk_full(&source) => AppendError::DiskFull { source },
            Ok(()) => AppendError::Refused { source },
            Err(source) => {
                if broken!(self.options, UnsealedIsRefused) {
                    return AppendError::Refused { source };
                }
                self.stopped = true;
                AppendError::Unsealed { source }
            }
        }
    }

    fn settle(&mut self, entries: &[AppendEntry<'_>], hard_state: Option<&[u8]>, crc: u32) -> Appended {
        let bytes = self.buffer.len() as u64;
        let first_index = self.position.next_index;
        let frame_number = self.position.next_frame;
        self.position.next_index += entries.len() as u64;
        self.position.next_frame += 1;
        self.position.crc = crc;
        self.position.term = entries.last().map_or(self.position.term, |entry| entry.term);
        self.position.last_has_content = !entries.is_empty() || hard_state.is_some();
        if let Some(hard_state) = hard_state {
            self.position.hard_state = Some(hard_state.to_vec());
        }
        let has_hard_state = self.position.hard_state.is_some();
        let current = self.current_mut();
        current.valid_bytes += bytes;
        current.has_hard_state = has_hard_state;
        // One giant frame must not hold its memory for ever.
        const BUFFER_BYTES_KEPT: usize = 8 * 1024 * 1024;
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        Appended { first_index, last_index: self.position.next_index - 1, frame_number, bytes }
    }

    /// Goes on in a new segment if the frame doesn't fit this one. Nothing of
    /// the frame is written yet, so that a failure here is a plain refusal.
    fn make_room(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        let current = self.current();
        if !self.closed && current.valid_bytes + frame_bytes <= current.file_bytes {
            return Ok(());
        }
        let bytes = self.options.segment_bytes.max(SEGMENT_HEADER_BYTES as u64 + frame_bytes);
        self.new_segment(bytes, SyncPurpose::Other, true).map_err(|source| {
            if is_disk_full(&source) {
                AppendError::DiskFull { source }
            } else {
                AppendError::Refused { source }
            }
        })
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

    fn next_header(&mut self, purpose: SyncPurpose) -> SegmentHeader {
        let (predecessor, predecessor_length) = (self.current().number, self.current().valid_bytes);
        let too_long = if broken!(self.options, SealKeepsRefusedFrame) && purpose == SyncPurpose::Seal {
            self.buffer.len() as u64
        } else {
            0
        };
        SegmentHeader {
            flags: if purpose == SyncPurpose::Seal { super::segment::FLAG_SEALS } else { 0 },
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

    pub(super) fn current(&self) -> &SegmentState {
        &self.segments[self.segments.len() - 1]
    }

    pub(super) fn current_mut(&mut self) -> &mut SegmentState {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// The log's figures.
    pub fn figures(&self) -> LogFigures {
        let header_bytes = SEGMENT_HEADER_BYTES as u64;
        LogFigures {
            segments: self.segments.len(),
            bytes: self.segments.iter().map(|segment| segment.file_bytes).sum(),
            frame_bytes: self.segments.iter().map(|segment| segment.valid_bytes - header_bytes).sum(),
            first_index: self.segments[0].first_index,
            durable_index: self.position.next_index - 1,
            frame_number: self.position.next_frame - 1,
            sync_failures: self.failures.syncs,
            seals: self.failures.seals,
            segment_failures: self.failures.segments,
        }
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The size of a segment that seals another, unless segments are smaller still:
/// small, so that it is made quickly.
pub(super) const SEALING_SEGMENT_BYTES: u64 = SEGMENT_BYTES_MIN;
const _: () = assert!(SEALING_SEGMENT_BYTES > SEGMENT_HEADER_BYTES as u64);
