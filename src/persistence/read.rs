//! Reading entries back, by the places that [`super::EntryPlaces`] gives.
//!
//! Each frame is checked by its checksums and its first index. The reader may
//! run beside the appending thread, with a disk of its own: a frame that was
//! durable is never written again. What may happen in between is that its
//! segment is cut, or that the log begins anew; then the file is gone, or, if it
//! was open already and is being used again, its bytes are no frame of that
//! salt. Both are errors that say so, and so is a frame that was damaged: which of
//! them it is can tell whoever cuts the log.

use std::fmt;
use std::io;

use bytes::Bytes;
use rustix::io::Errno;

use super::disk::{Disk, read_range};
use super::frame;
use super::places::{FrameRun, Place};
use super::segment::segment_name;

/// An entry read back. Its payload has memory of its own: it may be kept longer than its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its kind, as it was given to the log.
    pub kind: u8,
    /// Its bytes.
    pub payload: Bytes,
}

/// Why entries can't be read.
#[derive(Debug)]
pub enum ReadError {
    /// The segment was cut, or the log has begun anew.
    Gone {
        /// The segment.
        file: String,
    },
    /// The frame is not what was written there.
    NotWhole {
        /// The segment.
        file: String,
        /// Where in it.
        offset: u64,
        /// The index of the entry that was expected there.
        expected_index: u64,
    },
    /// The disk failed.
    Io {
        /// The segment.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Gone { file } => write!(formatter, "{file} was cut from the log"),
            ReadError::NotWhole { file, offset, expected_index } => {
                write!(
                    formatter,
                    "{file} has no whole frame with entry {expected_index} at byte {offset} any more"
                )
            }
            ReadError::Io { file, source } => write!(formatter, "{file}: {source}"),
        }
    }
}

impl ReadError {
    /// Whether it says nothing of what is on the disk: the process has too many files open, or no memory.
    pub fn may_pass(&self) -> bool {
        const PASSING: [Errno; 5] = [Errno::INTR, Errno::AGAIN, Errno::NOMEM, Errno::NFILE, Errno::MFILE];
        let ReadError::Io { source, .. } = self else { return false };
        let code = source.raw_os_error();
        PASSING.iter().any(|errno| Some(errno.raw_os_error()) == code)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io { source, .. } => Some(source),
            ReadError::Gone { .. } | ReadError::NotWhole { .. } => None,
        }
    }
}

/// An entry that can't be read, and what was found in its place.
#[derive(Debug)]
pub struct Unreadable {
    /// The first entry that can't be read.
    pub index: u64,
    /// Where it should lie.
    pub run: FrameRun,
    /// Why.
    pub error: ReadError,
}

/// Reads the entries `low..high` that lie at `runs`, in order, until their
/// payloads would exceed `bytes_max`; at least one, however long it is.
pub fn read_entries<D: Disk>(
    disk: &D,
    runs: &[FrameRun],
    low: u64,
    high: u64,
    bytes_max: u64,
) -> Result<Vec<OwnedEntry>, ReadError> {
    match read_readable(disk, runs, low, high, bytes_max) {
        (entries, None) => Ok(entries),
        (_, Some(unreadable)) => Err(unreadable.error),
    }
}

/// As [`read_entries`], and those before the first that can't be read are given nevertheless.
pub fn read_readable<D: Disk>(
    disk: &D,
    runs: &[FrameRun],
    low: u64,
    high: u64,
    bytes_max: u64,
) -> (Vec<OwnedEntry>, Option<Unreadable>) {
    let mut entries: Vec<OwnedEntry> = Vec::new();
    let mut total = 0;
    for run in runs {
        let mut complete = true;
        let wanted = |index: u64| (low..high).contains(&index);
        let read = read_run(disk, run, &mut |entry| {
            if !wanted(entry.index) {
                return true;
            }
            total += entry.payload.len() as u64;
            complete = entries.is_empty() || total <= bytes_max;
            if complete {
                entries.push(entry);
            }
            complete
        });
        if let Err(error) = read {
            // Whatever of the run lies before `low` isn't wanted; a bad frame there is in the way all the same.
            let index = entries.last().map_or(low.max(run.first_index), |last| last.index + 1);
            return (entries, Some(Unreadable { index, run: *run, error }));
        }
        if !complete {
            break;
        }
    }
    (entries, None)
}

/// Gives the run's entries to `take` until it says that it needs no more.
fn read_run<D: Disk>(
    disk: &D,
    run: &FrameRun,
    take: &mut dyn FnMut(OwnedEntry) -> bool,
) -> Result<(), ReadError> {
    let bytes = read_place(disk, &run.place)?;
    let mut index = run.first_index;
    let end = run.first_index + run.entries;
    let mut offset = 0;
    while index < end {
        let frame = frame::decode(&bytes[offset..], run.place.salt)
            .filter(|frame| frame.header.first_index == index)
            .ok_or_else(|| not_whole(&run.place, offset as u64, index))?;
        for entry in frame.entries().take((end - index) as usize) {
            let payload = Bytes::copy_from_slice(entry.payload);
            if !take(OwnedEntry { index, term: entry.term, kind: entry.kind, payload }) {
                return Ok(());
            }
            index += 1;
        }
        offset += frame.header.frame_bytes();
    }
    Ok(())
}

fn not_whole(place: &Place, offset: u64, expected_index: u64) -> ReadError {
    ReadError::NotWhole { file: segment_name(place.segment), offset: place.offset + offset, expected_index }
}

/// The bytes at a place, fewer if the file ends before.
pub(super) fn read_place<D: Disk>(disk: &D, place: &Place) -> Result<Vec<u8>, ReadError> {
    let file = segment_name(place.segment);
    let read =
        disk.open(&file).and_then(|open| read_range(disk, &open, place.offset, place.offset + place.bytes));
    read.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Gone { file },
        _ => ReadError::Io { file, source },
    })
}
