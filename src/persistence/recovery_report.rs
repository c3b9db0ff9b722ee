//! What a recovery is asked for and what it says: entries, damage, refusals.

use std::fmt;
use std::io;

use super::disk::LOG_DIRECTORY;
use super::identity::{IdentityError, NodeUuid};
use super::places::{EntryPlaces, Place};
use super::read::ReadError;

/// What is to be recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// S: entries up to it are in the snapshot; 0 without one.
    pub after: u64,
    /// E: the log must reach it, or the snapshot shows writes that the log has lost; 0 without one.
    pub must_reach: u64,
    /// Give up what lies behind damage instead of refusing.
    pub truncate_damaged: bool,
}

/// An entry read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredEntry<'a> {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its kind, as it was given to the log.
    pub kind: u8,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// An entry behind the commit index: whether it stays is for the replicas to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its kind, as it was given to the log.
    pub kind: u8,
    /// Its frame.
    pub place: Place,
}

/// What a recovery of a replicated log found, beside the entries that it handed over.
#[derive(Debug, Default)]
pub struct ReplicatedRecovery {
    /// What any recovery says.
    pub report: RecoveryReport,
    /// The newest hard state.
    pub hard_state: Option<Vec<u8>>,
    /// All entries up to it are final: the commit index of that hard state, or
    /// what a snapshot shows if that is more.
    pub final_index: u64,
    /// The entries behind it, in order.
    pub tail: Vec<TailEntry>,
    /// Where every retained entry lies.
    pub places: EntryPlaces,
}

/// What a visitor failed with.
pub type VisitError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that can't be what was once durable there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// The index of the entry that was expected there.
    pub expected_index: u64,
    /// What is wrong.
    pub reason: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} is damaged at byte {}, where entry {} was expected: {}",
            self.file, self.offset, self.expected_index, self.reason
        )
    }
}

/// A tail that was cut because it was never whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: String,
    /// Where the tail began.
    pub offset: u64,
    /// How long it was up to its last byte that was not zero.
    pub bytes: u64,
    /// The index that the next entry gets instead.
    pub expected_index: u64,
    /// Where the bytes were copied; `None`: the disk had no room for that.
    pub copied_to: Option<String>,
}

/// What a recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments read.
    pub segments: usize,
    /// Bytes of frames read.
    pub bytes: u64,
    /// Frames read.
    pub frames: u64,
    /// Entries handed to the visitor.
    pub entries: u64,
    /// Their payloads' bytes.
    pub entry_bytes: u64,
    /// The first index that the log retains.
    pub first_index: u64,
    /// The last index; one less than `first_index` in an empty log.
    pub last_index: u64,
    /// A tail that was cut.
    pub torn: Option<TornTail>,
    /// Damage that `truncate_damaged` got past: everything behind it is lost,
    /// and in a cluster the node counts as wiped.
    pub truncated: Option<Damage>,
    /// Where the files behind the damage went.
    pub set_aside: Vec<String>,
    /// What earlier recoveries had put aside, and is gone now.
    pub removed_aside: Vec<String>,
    /// Segments in front of a missing one, which a snapshot has: a crash has cut a cut short, and they are gone now.
    pub rest_of_cut: usize,
}

/// Why a log can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk failed.
    Io {
        /// The file, or the directory.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The identity file can't be used.
    Identity(IdentityError),
    /// [`super::initialise`] on a directory that has data.
    AlreadyInitialised,
    /// The identity file is gone, the log has entries.
    IdentityMissing {
        /// A segment with entries.
        file: String,
    },
    /// The identity file says that there is a log, and there is none.
    LogMissing,
    /// Bytes that were durable are not what they were.
    Damaged(Damage),
    /// A newer version wrote the segment.
    NewerFormat {
        /// The segment.
        file: String,
        /// Its format.
        found: u32,
        /// The newest that this version reads.
        supported: u32,
    },
    /// The segment belongs to another node.
    ForeignSegment {
        /// The segment.
        file: String,
        /// Whose it is.
        found: NodeUuid,
        /// Whose directory it is.
        expected: NodeUuid,
    },
    /// Entries between the snapshot and the first retained one are missing.
    Gap {
        /// The first index after the snapshot.
        needed: u64,
        /// The first index that the log has.
        first: u64,
    },
    /// The log ends before the snapshot's E.
    EndsTooEarly {
        /// The log's last index.
        last: u64,
        /// E.
        must_reach: u64,
    },
    /// A frame can't be read a second time.
    Read(ReadError),
    /// The visitor refused an entry.
    Visit {
        /// The entry.
        index: u64,
        /// Why.
        source: VisitError,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { file, source } => write!(formatter, "{file}: {source}"),
            OpenError::Identity(error) => write!(formatter, "{error}"),
            OpenError::AlreadyInitialised => write!(formatter, "the directory has data already"),
            OpenError::IdentityMissing { file } => {
                write!(formatter, "{file} has entries, but the directory has no identity file")
            }
            OpenError::LogMissing => {
                write!(
                    formatter,
                    "the identity file says that data existed, but {LOG_DIRECTORY} has no segment"
                )
            }
            OpenError::Damaged(damage) => write!(formatter, "{damage}"),
            OpenError::NewerFormat { file, found, supported } => write!(
                formatter,
                "{file} has format {found}, this version reads up to {supported}: start the version that wrote it"
            ),
            OpenError::ForeignSegment { file, found, expected } => {
                write!(formatter, "{file} belongs to node {found}, the directory to node {expected}")
            }
            OpenError::Gap { needed, first } => write!(
                formatter,
                "the snapshot needs the log from entry {needed} on, but it begins at entry {first}"
            ),
            OpenError::EndsTooEarly { last, must_reach } => write!(
                formatter,
                "the snapshot shows writes up to entry {must_reach}, but the log ends at entry {last}"
            ),
            OpenError::Read(error) => write!(formatter, "{error}"),
            OpenError::Visit { index, source } => write!(formatter, "entry {index}: {source}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<IdentityError> for OpenError {
    fn from(error: IdentityError) -> OpenError {
        OpenError::Identity(error)
    }
}

pub(super) fn at(file: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let file = file.into();
    move |source| OpenError::Io { file, source }
}
