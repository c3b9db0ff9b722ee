//! Which entries a recovery hands over, and when.
//!
//! Without replication each entry was final when it was durable: it is handed
//! over as soon as it is read ([`AtOnce`]). A replicated log decides later: only
//! entries up to the commit index of the newest hard state are final, and a
//! later frame may supersede the others ([`AtCommit`]):
//!
//! ```text
//! frames   │ 1 2 3 │ 4 5, commit 2 │ 3' 4' │ commit 3 │
//! waiting    1 2 3   3 4 5           3' 4'   4'            ← the tail, at the end
//! handed over        1 2                     3'
//! ```
//!
//! What waits is held in memory up to a bound; frames beyond it are read again
//! when their turn comes. A snapshot's E counts as committed, but only at the
//! end: up to there entries may have been superseded before they were final.

use std::collections::VecDeque;

use super::disk::Disk;
use super::frame::{self, Frame, KIND_REPLACING};
use super::log_report::LogOptions;
use super::mutant::broken;
use super::places::{EntryPlaces, Place};
use super::read::read_place;
use super::recovery_report::{Damage, OpenError, RecoveredEntry, Replay, TailEntry, VisitError};
use super::segment::segment_name;

/// Reads the commit index out of a hard state: the log doesn't know its layout.
pub type CommitOf = fn(&[u8]) -> u64;

/// Who gets an entry of a recovery.
pub(super) type Visit<'a> = &'a mut dyn FnMut(RecoveredEntry<'_>) -> Result<(), VisitError>;

/// A frame as it was read: whole, and the next of the chain.
#[derive(Clone, Copy)]
pub(super) struct ReadFrame<'a> {
    pub(super) frame: Frame<'a>,
    pub(super) bytes: &'a [u8],
    pub(super) place: Place,
}

/// What a recovery does with the frames that it reads.
pub(super) trait Replayer {
    /// Why the frame can't have been written, although it is whole.
    fn objection(&self, frame: &Frame<'_>) -> Option<&'static str>;
    /// The next frame.
    fn take(&mut self, read: &ReadFrame<'_>) -> Result<(), OpenError>;
    /// There are no more.
    fn finish(&mut self) -> Result<(), OpenError>;
    /// How many entries were handed over, and how long they were together.
    fn visited(&self) -> (u64, u64);
}

/// The visitor, and what it has had.
struct Visitor<'a> {
    visit: Visit<'a>,
    /// The last index that it has had or doesn't want.
    through: u64,
    entries: u64,
    bytes: u64,
}

impl Visitor<'_> {
    /// Hands over the frame's entries up to `limit` that are still to come.
    fn hand_over(&mut self, frame: &Frame<'_>, limit: u64) -> Result<(), OpenError> {
        for (index, entry) in (frame.header.first_index..=limit).zip(frame.entries()) {
            if index <= self.through {
                continue;
            }
            self.through = index;
            self.entries += 1;
            self.bytes += entry.payload.len() as u64;
            (self.visit)(RecoveredEntry {
                index,
                term: entry.term,
                kind: entry.kind,
                payload: entry.payload,
            })
            .map_err(|source| OpenError::Visit { index, source })?;
        }
        Ok(())
    }
}

/// Each entry is final at once.
pub(super) struct AtOnce<'a> {
    visitor: Visitor<'a>,
}

impl<'a> AtOnce<'a> {
    pub(super) fn new(replay: Replay, visit: Visit<'a>) -> AtOnce<'a> {
        AtOnce { visitor: Visitor { visit, through: replay.after, entries: 0, bytes: 0 } }
    }
}

impl Replayer for AtOnce<'_> {
    fn objection(&self, frame: &Frame<'_>) -> Option<&'static str> {
        // Clients were told of the entries that it would take back.
        (frame.header.kind == KIND_REPLACING)
            .then_some("a frame replaces entries, and without replication all are final")
    }

    fn take(&mut self, read: &ReadFrame<'_>) -> Result<(), OpenError> {
        self.visitor.hand_over(&read.frame, u64::MAX)
    }

    fn finish(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    fn visited(&self) -> (u64, u64) {
        (self.visitor.entries, self.visitor.bytes)
    }
}

/// A frame with entries that are not final yet.
struct Waiting {
    place: Place,
    first_index: u64,
    /// Behind its last entry that was not superseded.
    end_index: u64,
    /// `None`: to be read again.
    bytes: Option<Vec<u8>>,
}

/// Entries are final once a hard state's commit index covers them.
pub(super) struct AtCommit<'a, D: Disk> {
    disk: &'a D,
    options: &'a LogOptions,
    replay: Replay,
    commit_of: CommitOf,
    visitor: Visitor<'a>,
    waiting: VecDeque<Waiting>,
    held_bytes: usize,
    commit: u64,
    places: EntryPlaces,
    tail: Vec<TailEntry>,
}

/// What a recovery of a replicated log knows at its end.
pub(super) struct Committed {
    /// All up to it is final.
    pub(super) through: u64,
    pub(super) places: EntryPlaces,
    pub(super) tail: Vec<TailEntry>,
}

impl<'a, D: Disk> AtCommit<'a, D> {
    pub(super) fn new(
        disk: &'a D,
        options: &'a LogOptions,
        replay: Replay,
        commit_of: CommitOf,
        visit: Visit<'a>,
    ) -> AtCommit<'a, D> {
        AtCommit {
            disk,
            options,
            replay,
            commit_of,
            visitor: Visitor { visit, through: replay.after, entries: 0, bytes: 0 },
            waiting: VecDeque::new(),
            held_bytes: 0,
            commit: 0,
            places: EntryPlaces::default(),
            tail: Vec::new(),
        }
    }

    /// As of a log of which nothing is ever replaced, with the places of its entries.
    pub(super) fn all_final(
        disk: &'a D,
        options: &'a LogOptions,
        replay: Replay,
        visit: Visit<'a>,
    ) -> AtCommit<'a, D> {
        AtCommit { commit: u64::MAX, ..AtCommit::new(disk, options, replay, |_| u64::MAX, visit) }
    }

    pub(super) fn into_committed(self) -> Committed {
        Committed { through: self.commit, places: self.places, tail: self.tail }
    }

    /// Forgets the waiting entries from `from` on.
    fn supersede(&mut self, from: u64) {
        while let Some(last) = self.waiting.back_mut() {
            if last.first_index < from {
                last.end_index = last.end_index.min(from);
                return;
            }
            self.held_bytes -= last.bytes.as_ref().map_or(0, Vec::len);
            self.waiting.pop_back();
        }
    }

    fn wait(&mut self, read: &ReadFrame<'_>) {
        let first_index = read.frame.header.first_index;
        let end_index = first_index + u64::from(read.frame.header.entries);
        if first_index == end_index || end_index <= self.visitor.through + 1 {
            return;
        }
        let holds = self.held_bytes + read.bytes.len() <= self.options.held_bytes_max;
        let bytes = holds.then(|| read.bytes.to_vec());
        self.held_bytes += bytes.as_ref().map_or(0, Vec::len);
        self.waiting.push_back(Waiting { place: read.place, first_index, end_index, bytes });
    }

    /// Hands over what waits and is final.
    fn release(&mut self) -> Result<(), OpenError> {
        while let Some(first) = self.waiting.front() {
            // Nothing of it is new: else each frame would check the first one again.
            if first.first_index > self.commit || self.visitor.through >= self.commit {
                break;
            }
            let (place, last_index) = (first.place, first.end_index - 1);
            let read_again;
            let bytes = match &first.bytes {
                Some(bytes) => bytes,
                None => {
                    read_again = read_place(self.disk, &place).map_err(OpenError::Read)?;
                    &read_again
                }
            };
            let frame = whole(bytes, &place, first.first_index)?;
            self.visitor.hand_over(&frame, last_index.min(self.commit))?;
            if last_index > self.commit {
                break;
            }
            self.held_bytes -= first.bytes.as_ref().map_or(0, Vec::len);
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// What still waits at the end.
    fn list_tail(&mut self) -> Result<(), OpenError> {
        for waiting in std::mem::take(&mut self.waiting) {
            let bytes = match waiting.bytes {
                Some(bytes) => bytes,
                None => read_place(self.disk, &waiting.place).map_err(OpenError::Read)?,
            };
            let frame = whole(&bytes, &waiting.place, waiting.first_index)?;
            for (index, entry) in (waiting.first_index..waiting.end_index).zip(frame.entries()) {
                if index > self.visitor.through {
                    let (term, kind, place) = (entry.term, entry.kind, waiting.place);
                    self.tail.push(TailEntry { index, term, kind, place });
                }
            }
        }
        Ok(())
    }
}

/// The frame at a place that was read once already.
fn whole<'a>(bytes: &'a [u8], place: &Place, expected_index: u64) -> Result<Frame<'a>, OpenError> {
    frame::decode(bytes, place.salt).ok_or_else(|| {
        let reason = "a frame that was whole a moment ago is not any more";
        let file = segment_name(place.segment);
        OpenError::Damaged(Damage { file, offset: place.offset, expected_index, reason })
    })
}

impl<D: Disk> Replayer for AtCommit<'_, D> {
    fn objection(&self, frame: &Frame<'_>) -> Option<&'static str> {
        let takes_back = frame.header.kind == KIND_REPLACING && frame.header.first_index <= self.commit;
        takes_back.then_some("a frame replaces entries that were committed")
    }

    fn take(&mut self, read: &ReadFrame<'_>) -> Result<(), OpenError> {
        let header = &read.frame.header;
        if self.places.next_index() == 0 {
            // A frame without entries has the term of the entry before it; 0 is none.
            let term_before = (header.entries == 0 && header.term > 0).then_some(header.term);
            self.places = EntryPlaces::new(header.first_index, term_before);
        }
        if header.kind == KIND_REPLACING && !broken!(self.options, SupersededStays) {
            self.supersede(header.first_index);
        }
        self.places.record(header.first_index, read.place, read.frame.entries().map(|entry| entry.term));
        if let Some(hard_state) = read.frame.hard_state {
            self.commit = self.commit.max((self.commit_of)(hard_state));
        }
        if broken!(self.options, CommitIgnored) {
            self.commit = self.places.next_index() - 1;
        }
        self.release()?;
        if self.waiting.is_empty() {
            self.visitor.hand_over(&read.frame, self.commit)?;
        }
        self.wait(read);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OpenError> {
        self.commit = self.commit.max(self.replay.must_reach).max(self.replay.after);
        self.release()?;
        self.list_tail()
    }

    fn visited(&self) -> (u64, u64) {
        (self.visitor.entries, self.visitor.bytes)
    }
}
