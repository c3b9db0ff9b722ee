//! Looking at a log without changing it: what recovery would find, segment by
//! segment, and what lies behind damage as well.
//!
//! A recovery stops at damage. Here the segments behind it are read too, each
//! from what its own header says, so that all damage is told at once and what
//! is still legible can be copied out.

use super::disk::Disk;
use super::frame::{Frame, FrameEntry};
use super::identity::NodeUuid;
use super::recovery::{read_headers, usable_chain};
use super::recovery_report::{Damage, OpenError, RecoveredEntry, VisitError};
use super::replayer::{ReadFrame, Replayer, Visit};
use super::scan::{Scan, Tail, scan_segment};
use super::segment::{SegmentHeader, segment_name};

/// What stands behind a segment's last whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// Nothing, or what its successor says isn't valid.
    Clean,
    /// A write that a crash cut short: a start cuts it.
    Torn {
        /// Where it begins.
        offset: u64,
        /// How long it is up to its last byte that is not zero.
        bytes: u64,
    },
    /// Bytes that were durable once and are not what they were.
    Damaged(Damage),
}

/// One segment as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInspection {
    /// Its name in the data directory.
    pub file: String,
    /// The file's length.
    pub file_bytes: u64,
    /// How much of it is header and whole frames.
    pub valid_bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// Their entries.
    pub entries: u64,
    /// The index of its first entry, or of the next one to come.
    pub first_index: u64,
    /// The index of its last entry; one less than `first_index` without entries.
    pub last_index: u64,
    /// What stands behind its last whole frame.
    pub end: SegmentEnd,
}

/// A log as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInspection {
    /// Its segments, oldest first, but for those whose header can't be read.
    pub segments: Vec<SegmentInspection>,
    /// A header that is damaged, or a segment that is missing.
    pub damage: Option<Damage>,
}

impl LogInspection {
    /// All damage, in the log's order.
    pub fn damages(&self) -> impl Iterator<Item = &Damage> {
        let within = self.segments.iter().filter_map(|segment| match &segment.end {
            SegmentEnd::Damaged(damage) => Some(damage),
            _ => None,
        });
        within.chain(&self.damage)
    }
}

/// Reads the whole log of `node`; `visit` gets every entry that is legible.
/// Nothing on the disk is changed.
///
/// # Errors
///
/// What keeps the log from being read at all. Damage is none: it is reported.
pub fn inspect_log<D: Disk>(
    disk: &D,
    node: NodeUuid,
    visit: &mut dyn FnMut(RecoveredEntry<'_>) -> Result<(), VisitError>,
) -> Result<LogInspection, OpenError> {
    let (headers, mut damage) = read_headers(disk, node)?;
    let mut usable = headers.clone();
    let chain = usable_chain(&mut usable, &mut damage, true, None)?;
    let cut_off = damage.as_ref().map_or(u64::MAX, |(number, _)| *number);
    let behind = headers.range(cut_off..).map(|(number, _)| *number).filter(|number| !chain.contains(number));
    let order: Vec<&SegmentHeader> = chain.iter().copied().chain(behind).map(|n| &headers[&n]).collect();
    if order.is_empty() && damage.is_none() {
        return Err(OpenError::LogMissing);
    }
    let mut segments: Vec<SegmentInspection> = Vec::new();
    let mut scan: Option<Scan> = None;
    for (place, header) in order.iter().enumerate() {
        let next = order.get(place + 1).copied().filter(|next| next.predecessor == header.number);
        // What the segment before it lacked is told there: this one is judged by itself.
        let continued = scan.take().unwrap_or_else(|| Scan::new(header));
        let (inspection, after) = inspect_segment(disk, continued, header, next, visit)?;
        scan = after.filter(|_| next.is_some());
        segments.push(inspection);
    }
    Ok(LogInspection { segments, damage: damage.map(|(_, damage)| damage) })
}

/// Every entry that a frame holds, whether a later frame supersedes it or not.
struct AsItStands<'a> {
    visit: Visit<'a>,
    entries: u64,
    bytes: u64,
}

impl Replayer for AsItStands<'_> {
    fn objection(&self, _: &Frame<'_>) -> Option<&'static str> {
        None
    }

    fn take(&mut self, read: &ReadFrame<'_>) -> Result<(), OpenError> {
        for (index, entry) in (read.frame.header.first_index..).zip(read.frame.entries()) {
            self.entries += 1;
            self.bytes += entry.payload.len() as u64;
            let FrameEntry { kind, term, payload } = entry;
            (self.visit)(RecoveredEntry { index, term, kind, payload })
                .map_err(|source| OpenError::Visit { index, source })?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    fn visited(&self) -> (u64, u64) {
        (self.entries, self.bytes)
    }
}

/// Reads a segment; gives the scan back when the next segment can continue it.
fn inspect_segment<D: Disk>(
    disk: &D,
    mut scan: Scan,
    header: &SegmentHeader,
    next: Option<&SegmentHeader>,
    visit: Visit<'_>,
) -> Result<(SegmentInspection, Option<Scan>), OpenError> {
    let (frames, first_index) = (scan.frames, scan.position.next_index);
    let mut replayer = AsItStands { visit, entries: 0, bytes: 0 };
    let tail = scan_segment(disk, &mut scan, header, next, &mut replayer)?;
    let end = match tail {
        Tail::Clean => SegmentEnd::Clean,
        Tail::Torn { offset, end } => SegmentEnd::Torn { offset, bytes: end - offset },
        Tail::Damaged { offset, reason } => SegmentEnd::Damaged(scan.damage(header.number, offset, reason)),
    };
    let (valid_bytes, file_bytes) =
        scan.segments.last().map_or((0, 0), |segment| (segment.valid_bytes, segment.file_bytes));
    let inspection = SegmentInspection {
        file: segment_name(header.number),
        file_bytes,
        valid_bytes,
        frames: scan.frames - frames,
        entries: replayer.entries,
        first_index,
        last_index: scan.position.next_index - 1,
        end,
    };
    let whole = inspection.end == SegmentEnd::Clean;
    Ok((inspection, whole.then_some(scan)))
}
