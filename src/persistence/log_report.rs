//! What the log is told and what it says: options, results, errors, figures.

use std::fmt;
use std::io;

use super::places::Place;
use crate::limits::{RECOVERY_HELD_BYTES_MAX, SEGMENT_BYTES_DEFAULT};

/// How the log uses its disk.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// How long a segment is; a longer frame gets a longer one.
    pub segment_bytes: u64,
    /// How many segments that were cut are kept for [`super::prepare_spare`].
    pub retired_segments_max: usize,
    /// How many bytes of frames that may still be replaced recovery keeps in
    /// memory; those beyond are read a second time.
    pub held_bytes_max: usize,
    #[cfg(test)]
    pub(super) mutant: Option<super::mutant::Mutant>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            retired_segments_max: 1,
            held_bytes_max: RECOVERY_HELD_BYTES_MAX,
            #[cfg(test)]
            mutant: None,
        }
    }
}

/// A frame that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The first entry's index; without entries the next one's.
    pub first_index: u64,
    /// The last entry's index, `first_index − 1` without entries.
    pub last_index: u64,
    /// The frame's number.
    pub frame_number: u64,
    /// What it takes on disk.
    pub bytes: u64,
    /// Where it lies, for [`super::EntryPlaces`].
    pub place: Place,
}

/// Why entries were not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The write or the sync failed. The entries are gone and will never come
    /// back; their indexes are used again.
    Refused {
        /// What the disk said.
        source: io::Error,
    },
    /// There is no room. As with [`AppendError::Refused`], nothing has happened.
    DiskFull {
        /// What the disk said.
        source: io::Error,
    },
    /// The entries don't fit the longest frame. Nothing has happened.
    TooLarge,
    /// The entries can't stand there: they would leave a gap, or take the place
    /// of entries that are final, or there are none to take any place. Nothing
    /// has happened.
    NotReplaceable {
        /// Where the entries were to begin.
        first_index: u64,
        /// The first index whose entry may be replaced.
        replaceable_from: u64,
        /// The index behind the last entry.
        next_index: u64,
    },
    /// The write or the sync failed, and the file could not be sealed: whether a
    /// recovery finds the entries is unknown. The node must stop, and every
    /// later append gets this answer.
    Unsealed {
        /// What the disk said last.
        source: io::Error,
    },
}

impl fmt::Display for AppendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Refused { source } => write!(formatter, "the disk refused the write: {source}"),
            AppendError::DiskFull { source } => write!(formatter, "the disk is full: {source}"),
            AppendError::TooLarge => write!(formatter, "more than a frame can hold"),
            AppendError::NotReplaceable { first_index, replaceable_from, next_index } => write!(
                formatter,
                "entries can't begin at {first_index}: only those from {replaceable_from} on may be replaced, and the next one is {next_index}"
            ),
            AppendError::Unsealed { source } => {
                write!(formatter, "the disk refused the write and the log could not be sealed: {source}")
            }
        }
    }
}

impl std::error::Error for AppendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AppendError::Refused { source }
            | AppendError::DiskFull { source }
            | AppendError::Unsealed { source } => Some(source),
            AppendError::TooLarge | AppendError::NotReplaceable { .. } => None,
        }
    }
}

/// What [`super::Log::cut`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// How many segments.
    pub segments: usize,
    /// How long they were together.
    pub bytes: u64,
    /// The index of the first entry that is left.
    pub first_index: u64,
}

/// The log's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// Segments in the chain.
    pub segments: usize,
    /// What their files occupy.
    pub bytes: u64,
    /// What of that is frames.
    pub frame_bytes: u64,
    /// The index of the first entry retained.
    pub first_index: u64,
    /// The index of the last entry: all up to it are durable. It goes down when entries are replaced by fewer.
    pub durable_index: u64,
    /// The number of the last frame.
    pub frame_number: u64,
    /// Frames whose write or sync failed since the start.
    pub sync_failures: u64,
    /// Segments that were sealed since the start.
    pub seals: u64,
    /// Attempts at a new segment that failed since the start.
    pub segment_failures: u64,
    /// What is kept in memory for the next frame, in bytes.
    pub buffer_bytes: usize,
}
