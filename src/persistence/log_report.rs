//! What the log is told and what it says: options, results, errors, figures.

use std::fmt;
use std::io;

use crate::limits::SEGMENT_BYTES_DEFAULT;

/// How the log uses its disk.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// How long a segment is; a longer frame gets a longer one.
    pub segment_bytes: u64,
    /// How many segments that were cut are kept for [`super::prepare_spare`].
    pub retired_segments_max: usize,
    #[cfg(test)]
    pub(super) mutant: Option<super::mutant::Mutant>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            retired_segments_max: 1,
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
            AppendError::TooLarge => None,
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
    /// The index of the last entry: all up to it are durable.
    pub durable_index: u64,
    /// The number of the last frame.
    pub frame_number: u64,
    /// Frames whose write or sync failed since the start.
    pub sync_failures: u64,
    /// Segments that were sealed since the start.
    pub seals: u64,
    /// Attempts at a new segment that failed since the start.
    pub segment_failures: u64,
}
