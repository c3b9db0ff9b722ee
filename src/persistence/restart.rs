//! Beginning anew behind a snapshot that is ahead of the whole log: a follower
//! that has installed one discards all its entries.
//!
//! ```text
//! 00000007.wal  │ … 40 41 │                       discarded
//! 00000008.wal  │ header: begins anew, first index 1001 │ frame: hard state, term │
//!               └ written, synced, then named, and the name synced; then 7 is removed
//! ```
//!
//! The header and the frame become durable as one, under the name: a crash
//! before it leaves the old log, a crash after it the new one. Recovery follows
//! the chain no further back than to such a segment, so that the older ones
//! count no more, whichever of them a crash leaves.
//!
//! The snapshot is durable first. A crash in between leaves it beside the old
//! log: its owner finds that the log ends before the snapshot, or has another
//! term at its index ([`super::EntryPlaces::term`]), and calls this again. (That
//! start asks the log for nothing: `after` is the snapshot's index, `must_reach`
//! 0.) A snapshot that the log doesn't reach back to is refused as ever
//! ([`super::OpenError::Gap`]).

use super::disk::{Disk, SyncPurpose};
use super::frame::{self, FramePlace};
use super::log::{Log, Position, SegmentState};
use super::log_report::{AppendError, Appended};
use super::mutant::broken;
use super::places::Place;
use super::rotation::refused;
use super::segment::{
    Creation, FLAG_RESTARTS, SEGMENT_HEADER_BYTES, SegmentHeader, create_segment, segment_name,
};

impl<D: Disk> Log<D> {
    /// Discards all entries and goes on behind the entry `index` of `term`,
    /// which a durable snapshot has; durable when this returns `Ok`. On failure
    /// the log is as before.
    pub fn restart_at(&mut self, index: u64, term: u64, hard_state: &[u8]) -> Result<Appended, AppendError> {
        self.check_running()?;
        let (first_index, replaceable_from) = (index.saturating_add(1), self.replaceable_from());
        // What is final must be in the snapshot.
        if first_index < replaceable_from {
            let next_index = self.next_index();
            return Err(AppendError::NotReplaceable { first_index, replaceable_from, next_index });
        }
        frame::payload_bytes(&[], hard_state).ok_or(AppendError::TooLarge)?;
        if broken!(self.options, RestartRemovesFirst) {
            self.segments.iter().for_each(|old| drop(self.disk.remove(&segment_name(old.number))));
        }
        self.last_number += 1;
        let header =
            SegmentHeader { flags: FLAG_RESTARTS, first_index, ..self.next_header(SyncPurpose::Other) };
        let place = FramePlace {
            kind: frame::KIND_GROUP,
            salt: header.salt,
            predecessor_crc: header.predecessor_crc,
            term,
            number: header.first_frame,
            first_index,
            durable_number: header.first_frame - 1,
        };
        let crc = frame::encode(&mut self.buffer, &place, &[], hard_state);
        let (file, file_bytes) = self.create_restarting(header)?;
        self.file = file;
        self.position = Position {
            next_index: first_index,
            next_frame: header.first_frame + 1,
            crc,
            term,
            hard_state: Some(hard_state.to_vec()),
            // The header came with it: it can't be taken for a write cut short.
            last_has_content: false,
        };
        self.finality.raise(index);
        self.finality.raise_by(hard_state);
        Ok(self.settle_restart(&header, file_bytes))
    }

    /// Goes on in the segment and discards those before it. What can't be
    /// removed now is by the next cut or the next start.
    fn settle_restart(&mut self, header: &SegmentHeader, file_bytes: u64) -> Appended {
        let (offset, bytes) = (SEGMENT_HEADER_BYTES as u64, self.buffer.len() as u64);
        self.leftovers.extend(self.segments.drain(..).map(|old| old.number));
        self.segments.push_back(SegmentState {
            number: header.number,
            first_index: header.first_index,
            valid_bytes: offset + bytes,
            file_bytes,
            has_hard_state: true,
            sealed: false,
        });
        self.salt = header.salt;
        self.closed = false;
        let _ = self.remove_leftovers();
        Appended {
            first_index: header.first_index,
            last_index: header.first_index - 1,
            frame_number: header.first_frame,
            bytes,
            place: Place { segment: header.number, salt: header.salt, offset, bytes },
        }
    }

    /// Makes the segment, with the frame in the buffer as its first.
    fn create_restarting(&mut self, header: SegmentHeader) -> Result<(D::File, u64), AppendError> {
        let frame_later = broken!(self.options, RestartFrameLater);
        let creation = Creation {
            header,
            frames: if frame_later { Vec::new() } else { self.buffer.clone() },
            bytes: self.options.segment_bytes.max((SEGMENT_HEADER_BYTES + self.buffer.len()) as u64),
            purpose: SyncPurpose::Other,
            use_spare: true,
            #[cfg(test)]
            mutant: self.options.mutant,
        };
        match create_segment(&self.disk, &creation) {
            Ok((mut file, bytes)) => {
                if frame_later {
                    let _ = self.disk.write_at(&mut file, SEGMENT_HEADER_BYTES as u64, &self.buffer);
                    let _ = self.disk.sync(&mut file, SyncPurpose::Other);
                }
                Ok((file, bytes))
            }
            Err(error) => {
                self.failures.segments += 1;
                if !error.may_exist {
                    return Err(refused(error.source));
                }
                // A recovery may find it: only a further segment of the old
                // chain makes it true that the log is as before.
                self.leftovers.push(header.number);
                Err(self.refuse(error.source))
            }
        }
    }
}
