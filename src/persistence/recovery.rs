//! Recovery: from the files of a log to its entries, or to the reason why not.
//!
//! ```text
//! chain     the highest number ─ its header names its predecessor ─ … ─ the oldest retained
//! scan      oldest first, frame by frame; each must continue the one before
//!
//!           │ header │ frame │ frame │ bad ……                        │
//!                                    ▲
//!   all zeroes from here on                              the log's end
//!   not the last segment, before its valid length        damage
//!   a valid header behind it that knew it durable        damage
//!   otherwise                                            torn: never acknowledged, or the very last frame
//! ```
//!
//! Damage is refused, naming file, offset and index; `truncate_damaged` gets
//! past it by giving up everything from there on. A torn tail is copied aside
//! ("torn-…"), zeroed, synced and reported. Files whose headers name the same
//! predecessor and length are attempts at one new segment (see `seal.rs`): the
//! highest is the segment, the others are empty and are removed.
//!
//! What was read came from the page cache, and a process that was killed between
//! a write and its sync leaves there what the disk doesn't have. So the last
//! frame (all others were synced before it was written) is written again and
//! synced, and the directory is synced, before anyone is told of it.
//!
//! Nothing is written before everything is read and the log is found to be good
//! enough to start with.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;

use super::disk::{Disk, LOG_DIRECTORY, read_range, remove_durably, remove_if_present};
use super::frame;
use super::identity::{IdentityError, NodeUuid};
use super::log::{LogOptions, Position, SegmentState};
use super::mutant::broken;
use super::repair;
use super::scan::{Scan, Tail, scan_segment};
use super::segment::{
    FLAG_SEALS, HeaderFault, LogFile, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader, classify, in_log,
    segment_name,
};

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
    /// Where the bytes were copied.
    pub copied_to: String,
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

/// What [`super::Log`] is made of after a recovery.
pub(super) struct Recovered<F> {
    pub(super) segments: VecDeque<SegmentState>,
    pub(super) file: F,
    pub(super) salt: u64,
    pub(super) last_number: u64,
    pub(super) position: Position,
    pub(super) report: RecoveryReport,
}

/// The segments by number.
type Headers = BTreeMap<u64, SegmentHeader>;

pub(super) fn recover<D: Disk>(
    disk: &D,
    options: &LogOptions,
    node: NodeUuid,
    replay: Replay,
    visit: &mut dyn FnMut(RecoveredEntry<'_>) -> Result<(), VisitError>,
) -> Result<Recovered<D::File>, OpenError> {
    let (mut headers, mut damage) = read_headers(disk, node)?;
    let last_number =
        headers.keys().copied().max().max(damage.as_ref().map(|&(number, _)| number)).unwrap_or(0);
    if last_number == 0 {
        return Err(OpenError::LogMissing);
    }
    let mut chain = usable_chain(&mut headers, &mut damage, replay.truncate_damaged)?;
    let Some(&oldest) = chain.first() else {
        return Err(damage.map_or(OpenError::LogMissing, |(_, damage)| OpenError::Damaged(damage)));
    };
    let first_index = headers[&oldest].first_index;
    if first_index > replay.after.saturating_add(1) {
        return Err(OpenError::Gap { needed: replay.after + 1, first: first_index });
    }
    let mut scan = Scan::new(&headers[&oldest]);
    let mut truncated = damage.map(|(_, damage)| damage);
    let mut tail = Tail::Clean;
    for place in 0..chain.len() {
        let number = chain[place];
        let next = chain.get(place + 1).map(|next| headers[next]);
        tail = scan_segment(disk, &mut scan, &headers[&number], next.as_ref(), replay.after, visit)?;
        if let Tail::Damaged { offset, reason } = tail {
            let damage = scan.damage(number, offset, reason);
            if !replay.truncate_damaged {
                return Err(OpenError::Damaged(damage));
            }
            truncated = Some(damage);
            chain.truncate(place + 1);
            break;
        }
    }
    let last_index = scan.position.next_index - 1;
    if last_index < replay.must_reach {
        return Err(OpenError::EndsTooEarly { last: last_index, must_reach: replay.must_reach });
    }
    let mut report = RecoveryReport {
        segments: chain.len(),
        bytes: scan.bytes,
        frames: scan.frames,
        entries: scan.entries,
        first_index,
        last_index,
        truncated,
        ..RecoveryReport::default()
    };
    let file = repair::repair(disk, &chain, &scan, tail, &mut report, broken!(options, RecoveryTrustsCache))?;
    let mut segments: VecDeque<SegmentState> = scan.segments.into();
    segments.truncate(chain.len());
    for (place, number) in chain.iter().enumerate().skip(1) {
        segments[place - 1].sealed = headers[number].flags & FLAG_SEALS != 0;
    }
    let salt = headers[&chain[chain.len() - 1]].salt;
    Ok(Recovered { segments, file, salt, last_number, position: scan.position, report })
}

/// Every segment's header; and the first one that is damaged, with its number.
fn read_headers<D: Disk>(disk: &D, node: NodeUuid) -> Result<(Headers, Option<(u64, Damage)>), OpenError> {
    let mut headers = Headers::new();
    let mut damage: Option<(u64, Damage)> = None;
    for number in segment_numbers(disk)? {
        let name = segment_name(number);
        let file = disk.open(&name).map_err(at(&name))?;
        let bytes = read_range(disk, &file, 0, SEGMENT_HEADER_BYTES as u64).map_err(at(&name))?;
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.node != node => {
                return Err(OpenError::ForeignSegment { file: name, found: header.node, expected: node });
            }
            Ok(header) if header.number == number => {
                headers.insert(number, header);
            }
            Err(HeaderFault::NewerFormat(found)) => {
                return Err(OpenError::NewerFormat { file: name, found, supported: SEGMENT_FORMAT });
            }
            _ if damage.is_none() => {
                let reason = "the segment's header is not what was written";
                damage = Some((number, Damage { file: name, offset: 0, expected_index: 0, reason }));
            }
            _ => {}
        }
    }
    Ok((headers, damage))
}

/// The first index that the log retains, without reading its frames: whether a
/// snapshot that is older than the newest can still be completed from it.
pub fn first_retained_index<D: Disk>(disk: &D, node: NodeUuid) -> Result<u64, OpenError> {
    let (mut headers, mut damage) = read_headers(disk, node)?;
    // Damage further on doesn't change where the log begins; opening it refuses or passes that.
    let chain = usable_chain(&mut headers, &mut damage, true)?;
    let missing = || damage.map_or(OpenError::LogMissing, |(_, damage)| OpenError::Damaged(damage));
    chain.first().map(|oldest| headers[oldest].first_index).ok_or_else(missing)
}

/// The chain, up to the first segment with a damaged header or without its
/// predecessor: that one and all behind it are given up, if that is allowed.
fn usable_chain(
    headers: &mut Headers,
    damage: &mut Option<(u64, Damage)>,
    truncate_damaged: bool,
) -> Result<Vec<u64>, OpenError> {
    loop {
        if let Some((number, damage)) = damage {
            damage.expected_index =
                headers.range(..*number).next_back().map_or(0, |(_, last)| last.first_index);
            if !truncate_damaged {
                return Err(OpenError::Damaged(damage.clone()));
            }
            headers.split_off(number);
        }
        match find_chain(headers) {
            Ok(chain) => return Ok(chain),
            Err((number, missing)) => *damage = Some((number, missing)),
        }
    }
}

/// The numbers of the segments, ascending.
pub(super) fn segment_numbers<D: Disk>(disk: &D) -> Result<Vec<u64>, OpenError> {
    let mut numbers: Vec<u64> = disk
        .list(LOG_DIRECTORY)
        .map_err(at(LOG_DIRECTORY))?
        .iter()
        .filter_map(|name| match classify(name) {
            LogFile::Segment(number) => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The chain from the oldest to the newest segment; or, if one is missing in
/// between, the number of the first one that it cuts off, and what to say of it.
fn find_chain(headers: &Headers) -> Result<Vec<u64>, (u64, Damage)> {
    let mut chain: Vec<u64> = Vec::new();
    let mut next = headers.keys().next_back().copied();
    while let Some(number) = next {
        chain.push(number);
        // A number that doesn't descend would be no predecessor.
        next = Some(headers[&number].predecessor)
            .filter(|&before| before < number && headers.contains_key(&before));
    }
    chain.reverse();
    for (number, header) in headers {
        let Some(&successor) = chain.iter().find(|&&member| member >= *number) else { continue };
        let named = &headers[&successor];
        let is_attempt = (named.predecessor, named.predecessor_length)
            == (header.predecessor, header.predecessor_length)
            && header.predecessor < *number;
        if successor != *number && !is_attempt {
            let file = segment_name(named.predecessor);
            let reason = "the segment is missing";
            return Err((successor, Damage { file, offset: 0, expected_index: 0, reason }));
        }
    }
    Ok(chain)
}

/// Clears the way for [`super::initialise`]: what a crash left before there was
/// an identity. Frames are never removed.
pub(super) fn remove_unused_log<D: Disk>(disk: &D) -> Result<(), OpenError> {
    for name in disk.list(LOG_DIRECTORY).map_err(at(LOG_DIRECTORY))? {
        let kind = classify(&name);
        let name = in_log(&name);
        if kind == LogFile::Other {
            continue;
        }
        if let LogFile::Segment(_) = kind {
            let file = disk.open(&name).map_err(at(&name))?;
            let first = SEGMENT_HEADER_BYTES as u64;
            let bytes = read_range(disk, &file, first, first + frame::FRAME_HEADER_BYTES as u64);
            if bytes.map_err(at(&name))?.iter().any(|&byte| byte != 0) {
                return Err(OpenError::IdentityMissing { file: name });
            }
        }
        remove_durably(disk, LOG_DIRECTORY, &name).map_err(at(&name))?;
    }
    Ok(())
}

/// Removes what is neither in the chain nor a copy of something.
pub(super) fn remove_leftovers<D: Disk>(disk: &D, chain: &[u64]) -> Result<(), OpenError> {
    let mut removed = false;
    for name in disk.list(LOG_DIRECTORY).map_err(at(LOG_DIRECTORY))? {
        let is_leftover = match classify(&name) {
            LogFile::Segment(number) => !chain.contains(&number),
            LogFile::Spare | LogFile::Retired | LogFile::Unfinished => true,
            LogFile::Other => false,
        };
        if is_leftover {
            let name = in_log(&name);
            remove_if_present(disk, &name).map_err(at(&name))?;
            removed = true;
        }
    }
    if removed {
        disk.sync_directory(LOG_DIRECTORY).map_err(at(LOG_DIRECTORY))?;
    }
    Ok(())
}
