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
//! A segment that the log begins anew with (`restart.rs`) ends the chain: what is
//! older counts no more, whether it is still there or not.
//!
//! Nothing is written before everything is read and the log is found to be good
//! enough to start with.

use std::collections::{BTreeMap, VecDeque};

use super::disk::{Disk, LOG_DIRECTORY, read_range, remove_durably, remove_if_present};
use super::frame;
use super::identity::NodeUuid;
use super::log::{Position, SegmentState};
use super::log_report::LogOptions;
use super::mutant::broken;
use super::recovery_report::{Damage, OpenError, RecoveryReport, Replay, at};
use super::repair;
use super::replayer::Replayer;
use super::scan::{Scan, Tail, scan_segment};
use super::segment::{
    FLAG_RESTARTS, FLAG_SEALS, HeaderFault, LogFile, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader,
    classify, in_log, segment_name,
};

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
pub(super) type Headers = BTreeMap<u64, SegmentHeader>;

pub(super) fn recover<D: Disk>(
    disk: &D,
    options: &LogOptions,
    node: NodeUuid,
    replay: Replay,
    replayer: &mut dyn Replayer,
) -> Result<Recovered<D::File>, OpenError> {
    let (mut headers, mut damage) = read_headers(disk, node)?;
    let last_number = segment_numbers(disk)?.last().copied().unwrap_or(0);
    if last_number == 0 {
        return Err(OpenError::LogMissing);
    }
    let covered = (!broken!(options, HalfCutIsDamage)).then_some(replay.after);
    let mut chain = usable_chain(&mut headers, &mut damage, replay.truncate_damaged, covered)?;
    let Some(&oldest) = chain.first() else {
        return Err(damage.map_or(OpenError::LogMissing, |(_, damage)| OpenError::Damaged(damage)));
    };
    let first_index = if broken!(options, OldestHeaderCounts) {
        headers[&oldest].first_index
    } else {
        first_index(&headers, &chain)
    };
    if first_index > replay.after.saturating_add(1) {
        return Err(OpenError::Gap { needed: replay.after + 1, first: first_index });
    }
    let mut scan = Scan::new(&headers[&oldest]);
    let mut truncated = damage.map(|(_, damage)| damage);
    let mut tail = Tail::Clean;
    for place in 0..chain.len() {
        let number = chain[place];
        let next = chain.get(place + 1).map(|next| headers[next]);
        tail = scan_segment(disk, &mut scan, &headers[&number], next.as_ref(), replayer)?;
        if let Tail::Damaged { offset, reason } = tail {
            let damage = scan.damage(number, offset, reason);
            if !replay.truncate_damaged {
                return Err(OpenError::Damaged(damage));
            }
            // A segment that can't stand where it stands goes whole: the next start would refuse it again.
            let goes_whole = offset == 0 || is_begun_anew_without_frame(&headers[&number], offset);
            chain.truncate(if goes_whole { place } else { place + 1 });
            if chain.is_empty() {
                return Err(OpenError::Damaged(damage));
            }
            truncated = Some(damage);
            break;
        }
    }
    let rest_of_cut = rest_of_cut(&headers, oldest);
    let last_index = scan.position.next_index - 1;
    if last_index < replay.must_reach {
        return Err(OpenError::EndsTooEarly { last: last_index, must_reach: replay.must_reach });
    }
    replayer.finish()?;
    let (entries, entry_bytes) = replayer.visited();
    let mut report = RecoveryReport {
        segments: chain.len(),
        bytes: scan.bytes,
        frames: scan.frames,
        entries,
        entry_bytes,
        first_index,
        last_index,
        truncated,
        rest_of_cut,
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
pub(super) fn read_headers<D: Disk>(
    disk: &D,
    node: NodeUuid,
) -> Result<(Headers, Option<(u64, Damage)>), OpenError> {
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
    let chain = usable_chain(&mut headers, &mut damage, true, None)?;
    let missing = || damage.map_or(OpenError::LogMissing, |(_, damage)| OpenError::Damaged(damage));
    if chain.is_empty() { Err(missing()) } else { Ok(first_index(&headers, &chain)) }
}

/// The lowest of the headers' first indexes: a later segment may begin below an
/// earlier one, which is then kept only because it is older (`cut.rs`).
fn first_index(headers: &Headers, chain: &[u64]) -> u64 {
    chain.iter().map(|number| headers[number].first_index).min().unwrap_or(0)
}

/// The chain, up to the first segment with a damaged header or without its
/// predecessor: that one and all behind it are given up, if that is allowed.
/// `covered`: a snapshot has all entries up to it. What is missing in front of
/// those behind it was cut, and a crash has left some of what was to go.
pub(super) fn usable_chain(
    headers: &mut Headers,
    damage: &mut Option<(u64, Damage)>,
    truncate_damaged: bool,
    covered: Option<u64>,
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
        let (chain, missing) = find_chain(headers);
        let is_covered =
            || covered.is_some_and(|index| first_index(headers, &chain) <= index.saturating_add(1));
        match missing {
            Some(missing) if !is_covered() => *damage = Some(missing),
            _ => return Ok(chain),
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

/// The chain from the oldest to the newest segment, as far back as each one's predecessor is
/// there; if one is missing in between, the number of the first one that it cuts off, and what to say of it.
fn find_chain(headers: &Headers) -> (Vec<u64>, Option<(u64, Damage)>) {
    let mut chain: Vec<u64> = Vec::new();
    let mut next = headers.keys().next_back().copied();
    while let Some(number) = next {
        chain.push(number);
        let header = &headers[&number];
        // A number that doesn't descend would be no predecessor.
        next = Some(header.predecessor)
            .filter(|before| *before < number && headers.contains_key(before))
            .filter(|_| header.flags & FLAG_RESTARTS == 0);
    }
    chain.reverse();
    let begins_anew = |number: &u64| headers[number].flags & FLAG_RESTARTS != 0;
    let discarded = chain.first().copied().filter(begins_anew).unwrap_or(0);
    for (number, header) in headers.range(discarded..) {
        let Some(&successor) = chain.iter().find(|&&member| member >= *number) else { continue };
        let named = &headers[&successor];
        if successor != *number && !is_attempt_at(named, header) {
            let file = segment_name(named.predecessor);
            let reason = "the segment is missing";
            let missing = Damage { file, offset: 0, expected_index: 0, reason };
            return (chain, Some((successor, missing)));
        }
    }
    (chain, None)
}

/// How many segments in front of the chain a cut has left that a crash cut short.
fn rest_of_cut(headers: &Headers, oldest: u64) -> usize {
    let first = &headers[&oldest];
    if first.flags & FLAG_RESTARTS != 0 {
        return 0;
    }
    headers.range(..oldest).filter(|(_, header)| !is_attempt_at(first, header)).count()
}

/// Whether `header` is that of an attempt at the segment which `named` is (see `seal.rs`).
fn is_attempt_at(named: &SegmentHeader, header: &SegmentHeader) -> bool {
    (named.predecessor, named.predecessor_length) == (header.predecessor, header.predecessor_length)
        && header.predecessor < header.number
}

/// Such a segment got its name when its first frame was durable.
fn is_begun_anew_without_frame(header: &SegmentHeader, valid_bytes: u64) -> bool {
    header.flags & FLAG_RESTARTS != 0 && valid_bytes <= SEGMENT_HEADER_BYTES as u64
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
