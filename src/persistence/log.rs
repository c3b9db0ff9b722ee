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
//!
//! A replicated log ([`Log::open_replicated`]) may also replace entries that are
//! not final: [`Log::append_at`] an earlier index supersedes all from there on.
//! The next index goes back, and so a segment may begin at a lower index than
//! the one before it:
//!
//! ```text
//! header: first index     1                11               8
//!                      │ 1 … 10 │ 11 12 │ 5' 6' 7' │ 8' 9' … │
//!                                       └ replaces 5 and all behind it
//! ```
//!
//! A header's first index is the next index at that moment, and nothing changes
//! it later. So every entry of an earlier segment that still counts lies below
//! it: going back since then has only taken entries away. That is all that
//! `cut.rs` needs, and why the log's first index is the lowest of the headers'.
//!
//! In memory a frame changes nothing until it is durable: one that fails to
//! replace entries leaves them, as its bytes are sealed off like any other's.

use std::collections::VecDeque;
use std::io;

use super::disk::{Disk, SyncPurpose};
use super::frame::{self, AppendEntry, FramePlace};
use super::identity::{Identity, NodeUuid};
use super::log_report::{AppendError, Appended, LogFigures, LogOptions};
use super::mutant::broken;
use super::places::{EntryPlaces, Place};
use super::recovery;
use super::recovery_report::{
    OpenError, RecoveredEntry, RecoveryReport, Replay, ReplicatedRecovery, VisitError,
};
use super::replayer::{AtCommit, AtOnce, CommitOf, Committed};
use super::rotation::is_disk_full;
use super::segment::{SEGMENT_HEADER_BYTES, ready_spares};

/// A segment of the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentState {
    pub(super) number: u64,
    /// What its header says.
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

/// Recovers a log and where its entries lie.
fn recover_places<D: Disk>(
    disk: &D,
    options: &LogOptions,
    identity: &Identity,
    replay: Replay,
    mut replayer: AtCommit<'_, D>,
) -> Result<(recovery::Recovered<D::File>, Committed), OpenError> {
    let recovered = recovery::recover(disk, options, identity.node, replay, &mut replayer)?;
    Ok((recovered, replayer.into_committed()))
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
    pub(super) finality: Finality,
    pub(super) failures: Failures,
    /// Segments that recovery passes over: attempts that failed when they had
    /// their name already, and what a restart has discarded. They are removed
    /// as soon as a later segment is there.
    pub(super) leftovers: Vec<u64>,
    /// A segment was unlinked and that is not durable yet.
    pub(super) unlink_pending: bool,
    pub(super) stopped: bool,
    pub(super) buffer: Vec<u8>,
}

/// Which entries can't be replaced any more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finality {
    /// All that are durable.
    AtOnce,
    /// All up to the commit index, which hard states carry, or that a snapshot has.
    AtCommit { commit_of: CommitOf, through: u64 },
}

impl Finality {
    pub(super) fn raise(&mut self, index: u64) {
        if let Finality::AtCommit { through, .. } = self {
            *through = index.max(*through);
        }
    }

    pub(super) fn raise_by(&mut self, hard_state: &[u8]) {
        if let Finality::AtCommit { commit_of, .. } = self {
            let index = commit_of(hard_state);
            self.raise(index);
        }
    }
}

/// Counted for [`LogFigures`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    pub(super) syncs: u64,
    pub(super) seals: u64,
    pub(super) segments: u64,
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
        let mut replayer = AtOnce::new(replay, visit);
        let recovered = recovery::recover(&disk, &options, identity.node, replay, &mut replayer)?;
        Ok(Log::recovered(disk, options, identity, salts, recovered, Finality::AtOnce))
    }

    /// Recovers a replicated log: every entry above `replay.after` that is final
    /// goes to `visit` in order; the others are listed. An entry is final when
    /// the newest hard state's commit index, which `commit_of` reads out of it,
    /// or `replay` reaches it.
    pub fn open_replicated(
        disk: D,
        options: LogOptions,
        identity: &Identity,
        replay: Replay,
        commit_of: CommitOf,
        salts: impl FnMut() -> u64 + Send + 'static,
        visit: &mut dyn FnMut(RecoveredEntry<'_>) -> Result<(), VisitError>,
    ) -> Result<(Log<D>, ReplicatedRecovery), OpenError> {
        let replayer = AtCommit::new(&disk, &options, replay, commit_of, visit);
        let (recovered, committed) = recover_places(&disk, &options, identity, replay, replayer)?;
        let finality = Finality::AtCommit { commit_of, through: committed.through };
        Ok(Log::with_places(disk, options, identity, salts, (recovered, committed), finality))
    }

    /// Recovers a log whose entries are read back while it is appended to, and of
    /// which each is final once it is durable.
    pub fn open_converging(
        disk: D,
        options: LogOptions,
        identity: &Identity,
        replay: Replay,
        salts: impl FnMut() -> u64 + Send + 'static,
        visit: &mut dyn FnMut(RecoveredEntry<'_>) -> Result<(), VisitError>,
    ) -> Result<(Log<D>, ReplicatedRecovery), OpenError> {
        let replayer = AtCommit::all_final(&disk, &options, replay, visit);
        let recovered = recover_places(&disk, &options, identity, replay, replayer)?;
        Ok(Log::with_places(disk, options, identity, salts, recovered, Finality::AtOnce))
    }

    fn with_places(
        disk: D,
        options: LogOptions,
        identity: &Identity,
        salts: impl FnMut() -> u64 + Send + 'static,
        (recovered, committed): (recovery::Recovered<D::File>, Committed),
        finality: Finality,
    ) -> (Log<D>, ReplicatedRecovery) {
        let position = &recovered.position;
        let hard_state = position.hard_state.clone();
        let is_empty = committed.places.next_index() == 0;
        let places = if is_empty { EntryPlaces::new(position.next_index, None) } else { committed.places };
        let (log, report) = Log::recovered(disk, options, identity, salts, recovered, finality);
        let (final_index, tail) = (committed.through, committed.tail);
        (log, ReplicatedRecovery { report, hard_state, final_index, tail, places })
    }

    fn recovered(
        disk: D,
        options: LogOptions,
        identity: &Identity,
        salts: impl FnMut() -> u64 + Send + 'static,
        recovered: recovery::Recovered<D::File>,
        finality: Finality,
    ) -> (Log<D>, RecoveryReport) {
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
            finality,
            failures: Failures::default(),
            leftovers: Vec::new(),
            unlink_pending: false,
            stopped: false,
            buffer: Vec::new(),
        };
        (log, recovered.report)
    }

    /// Appends one frame: one write, one sync. The entries get the next indexes.
    /// When this returns `Ok`, they are durable.
    pub fn append(
        &mut self,
        entries: &[AppendEntry<'_>],
        hard_state: Option<&[u8]>,
    ) -> Result<Appended, AppendError> {
        self.append_at(self.position.next_index, entries, hard_state)
    }

    /// Appends one frame whose entries begin at `first_index`. If that is not
    /// the next index, they supersede all entries from there on, once the frame
    /// is durable; on failure the log is as before.
    pub fn append_at(
        &mut self,
        first_index: u64,
        entries: &[AppendEntry<'_>],
        hard_state: Option<&[u8]>,
    ) -> Result<Appended, AppendError> {
        self.check_running()?;
        self.check_place(first_index, entries.is_empty())?;
        // Room for the hard state that a new segment's first frame repeats.
        let longest = hard_state.or(self.position.hard_state.as_deref()).unwrap_or(&[]);
        let Some(payload_bytes) = frame::payload_bytes(entries, longest) else {
            return Err(AppendError::TooLarge);
        };
        let frame_bytes = frame::FRAME_HEADER_BYTES + payload_bytes.next_multiple_of(frame::ALIGNMENT_BYTES);
        self.make_room(frame_bytes as u64)?;
        let crc = self.encode(first_index, entries, hard_state);
        if broken!(self.options, ReplacedTooEarly) {
            self.position.next_index = first_index;
        }
        if let Err(source) = self.write_and_sync() {
            return Err(self.refuse(source));
        }
        Ok(self.settle(first_index, entries, hard_state, crc))
    }

    pub(super) fn check_running(&self) -> Result<(), AppendError> {
        if self.stopped {
            return Err(AppendError::Unsealed { source: io::Error::other("the log has stopped") });
        }
        Ok(())
    }

    /// Whether entries may begin there.
    fn check_place(&self, first_index: u64, without_entries: bool) -> Result<(), AppendError> {
        let (replaceable_from, next_index) = (self.replaceable_from(), self.position.next_index);
        let replaces = (replaceable_from..next_index).contains(&first_index) && !without_entries;
        if first_index == next_index || replaces || broken!(self.options, CommittedReplaced) {
            return Ok(());
        }
        Err(AppendError::NotReplaceable { first_index, replaceable_from, next_index })
    }

    /// The first index whose entry may be replaced. In a log that is not
    /// replicated it is the next index: what is durable is final.
    pub fn replaceable_from(&self) -> u64 {
        match self.finality {
            Finality::AtOnce => self.position.next_index,
            Finality::AtCommit { through, .. } => through.saturating_add(1).min(self.position.next_index),
        }
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

    fn encode(&mut self, first_index: u64, entries: &[AppendEntry<'_>], hard_state: Option<&[u8]>) -> u32 {
        let repeated = if self.current().has_hard_state { None } else { self.position.hard_state.as_deref() };
        let replaces = first_index < self.position.next_index;
        let place = FramePlace {
            kind: if replaces { frame::KIND_REPLACING } else { frame::KIND_GROUP },
            salt: self.salt,
            predecessor_crc: self.position.crc,
            term: entries.last().map_or(self.position.term, |entry| entry.term),
            number: self.position.next_frame,
            first_index,
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

    pub(super) fn refuse(&mut self, source: io::Error) -> AppendError {
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

    fn settle(
        &mut self,
        first_index: u64,
        entries: &[AppendEntry<'_>],
        hard_state: Option<&[u8]>,
        crc: u32,
    ) -> Appended {
        let bytes = self.buffer.len() as u64;
        let (segment, offset) = (self.current().number, self.current().valid_bytes);
        let frame_number = self.position.next_frame;
        self.position.next_index = first_index + entries.len() as u64;
        self.position.next_frame += 1;
        self.position.crc = crc;
        self.position.term = entries.last().map_or(self.position.term, |entry| entry.term);
        self.position.last_has_content = !entries.is_empty() || hard_state.is_some();
        if let Some(hard_state) = hard_state {
            self.position.hard_state = Some(hard_state.to_vec());
            self.finality.raise_by(hard_state);
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
        let last_index = self.position.next_index - 1;
        let place = Place { segment, salt: self.salt, offset, bytes };
        Appended { first_index, last_index, frame_number, bytes, place }
    }

    pub(super) fn current(&self) -> &SegmentState {
        &self.segments[self.segments.len() - 1]
    }

    pub(super) fn current_mut(&mut self) -> &mut SegmentState {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// The first index that the log retains, as far as headers tell.
    pub(super) fn first_index(&self) -> u64 {
        self.segments.iter().map(|segment| segment.first_index).min().unwrap_or(self.position.next_index)
    }

    /// The log's figures.
    pub fn figures(&self) -> LogFigures {
        let header_bytes = SEGMENT_HEADER_BYTES as u64;
        LogFigures {
            segments: self.segments.len(),
            bytes: self.segments.iter().map(|segment| segment.file_bytes).sum(),
            frame_bytes: self.segments.iter().map(|segment| segment.valid_bytes - header_bytes).sum(),
            first_index: self.first_index(),
            durable_index: self.position.next_index - 1,
            frame_number: self.position.next_frame - 1,
            sync_failures: self.failures.syncs,
            seals: self.failures.seals,
            segment_failures: self.failures.segments,
            buffer_bytes: self.buffer.capacity(),
        }
    }
}
