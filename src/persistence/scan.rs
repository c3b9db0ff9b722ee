//! Reading a segment frame by frame, and telling a torn tail from damage.

use std::io;

use super::disk::{Disk, read_range};
use super::frame::{self, Frame, KIND_REPLACING};
use super::log::{Position, SegmentState};
use super::places::Place;
use super::recovery_report::{Damage, OpenError, at};
use super::replayer::{ReadFrame, Replayer};
use super::segment::{FLAG_RESTARTS, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name};

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// With zeroes, or where its successor says.
    Clean,
    /// With a frame that was never whole, or is the very last one and damaged.
    Torn {
        offset: u64,
        /// Behind the last byte that is not zero.
        end: u64,
    },
    /// With bytes that were durable once and are not what they were.
    Damaged { offset: u64, reason: &'static str },
}

/// A frame's place, to write it again.
#[derive(Clone, Debug, Default)]
pub(super) struct LastFrame {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// What has been read so far.
pub(super) struct Scan {
    pub(super) position: Position,
    pub(super) segments: Vec<SegmentState>,
    pub(super) last_frame: LastFrame,
    pub(super) bytes: u64,
    pub(super) frames: u64,
}

impl Scan {
    /// Begins before the oldest retained segment.
    pub(super) fn new(oldest: &SegmentHeader) -> Scan {
        Scan {
            position: Position {
                next_index: oldest.first_index,
                next_frame: oldest.first_frame,
                crc: oldest.predecessor_crc,
                term: 0,
                hard_state: None,
                last_has_content: false,
            },
            segments: Vec::new(),
            last_frame: LastFrame::default(),
            bytes: 0,
            frames: 0,
        }
    }

    pub(super) fn damage(&self, segment: u64, offset: u64, reason: &'static str) -> Damage {
        Damage { file: segment_name(segment), offset, expected_index: self.position.next_index, reason }
    }

    fn continues(&self, frame: &Frame<'_>) -> bool {
        let header = &frame.header;
        header.number == self.position.next_frame
            && self.continues_index(frame)
            && header.predecessor_crc == self.position.crc
            && header.durable_number < header.number
    }

    /// It goes on at the next index, or puts entries in the place of others.
    fn continues_index(&self, frame: &Frame<'_>) -> bool {
        let (first, next) = (frame.header.first_index, self.position.next_index);
        if frame.header.kind == KIND_REPLACING {
            first > 0 && first < next && frame.header.entries > 0
        } else {
            first == next
        }
    }

    fn take(&mut self, frame: &Frame<'_>) {
        let header = &frame.header;
        self.position.next_frame += 1;
        self.position.next_index = header.first_index + u64::from(header.entries);
        self.position.crc = frame.crc;
        self.position.term = header.term;
        self.position.last_has_content = header.entries > 0 || frame.hard_state.is_some();
        if let Some(hard_state) = frame.hard_state {
            self.position.hard_state = Some(hard_state.to_vec());
        }
        self.frames += 1;
        self.bytes += header.frame_bytes() as u64;
    }
}

/// Reads one segment of the chain. `next` is the header of the one behind it.
pub(super) fn scan_segment<D: Disk>(
    disk: &D,
    scan: &mut Scan,
    header: &SegmentHeader,
    next: Option<&SegmentHeader>,
    replayer: &mut dyn Replayer,
) -> Result<Tail, OpenError> {
    let name = segment_name(header.number);
    let (bytes, file_bytes) = read_segment(disk, &name, next).map_err(at(&name))?;
    scan.segments.push(SegmentState {
        number: header.number,
        first_index: header.first_index,
        valid_bytes: SEGMENT_HEADER_BYTES as u64,
        file_bytes,
        has_hard_state: false,
        sealed: false,
    });
    let expected = (scan.position.next_frame, scan.position.next_index, scan.position.crc);
    if (header.first_frame, header.first_index, header.predecessor_crc) != expected {
        return Ok(Tail::Damaged { offset: 0, reason: "it doesn't continue the segment before it" });
    }
    let (offset, objection) = scan_frames(scan, header, &bytes, replayer)?;
    let place = scan.segments.len() - 1;
    scan.segments[place].valid_bytes = offset.max(SEGMENT_HEADER_BYTES) as u64;
    // A segment's first frame repeats the hard state, if there is one by then.
    scan.segments[place].has_hard_state =
        scan.position.hard_state.is_some() && scan.last_frame.segment == header.number;
    // Such a segment got its name when its first frame was durable.
    let lacks_first = header.flags & FLAG_RESTARTS != 0 && offset <= SEGMENT_HEADER_BYTES;
    let objection =
        objection.or(lacks_first.then_some("the frame that the log began anew with is not whole"));
    if let Some(reason) = objection {
        return Ok(Tail::Damaged { offset: offset as u64, reason });
    }
    let tail = match next {
        Some(next) if offset as u64 == next.predecessor_length => Tail::Clean,
        Some(_) => Tail::Damaged { offset: offset as u64, reason: "a frame that was durable is not whole" },
        None => judge_tail(&bytes, offset, header.salt, scan.position.next_frame),
    };
    Ok(tail)
}

/// Reads the segment's frames as far as they are whole and continue each other;
/// where that ends, and why if it is not for want of a frame.
fn scan_frames(
    scan: &mut Scan,
    header: &SegmentHeader,
    bytes: &[u8],
    replayer: &mut dyn Replayer,
) -> Result<(usize, Option<&'static str>), OpenError> {
    let mut offset = SEGMENT_HEADER_BYTES.min(bytes.len());
    let mut last = None;
    let mut objection = None;
    while let Some(frame) = frame::decode(&bytes[offset..], header.salt).filter(|frame| scan.continues(frame))
    {
        objection = replayer.objection(&frame);
        if objection.is_some() {
            break;
        }
        scan.take(&frame);
        let range = offset..offset + frame.header.frame_bytes();
        let length = (range.end - range.start) as u64;
        let place = Place { segment: header.number, salt: header.salt, offset: offset as u64, bytes: length };
        replayer.take(&ReadFrame { frame, bytes: &bytes[range.clone()], place })?;
        offset = range.end;
        last = Some(range);
    }
    if let Some(range) = last {
        let bytes = bytes[range.clone()].to_vec();
        scan.last_frame = LastFrame { segment: header.number, offset: range.start as u64, bytes };
    }
    Ok((offset, objection))
}

/// The segment's bytes up to its valid length, and the file's length.
fn read_segment<D: Disk>(disk: &D, name: &str, next: Option<&SegmentHeader>) -> io::Result<(Vec<u8>, u64)> {
    let file = disk.open(name)?;
    let file_bytes = disk.length(&file)?;
    let end = next.map_or(file_bytes, |next| next.predecessor_length.min(file_bytes));
    Ok((read_range(disk, &file, 0, end)?, file_bytes))
}

/// What stands behind the last segment's last whole frame, where frame
/// `expected` would be.
fn judge_tail(bytes: &[u8], offset: usize, salt: u64, expected: u64) -> Tail {
    let Some(last) = bytes[offset..].iter().rposition(|&byte| byte != 0) else {
        return Tail::Clean;
    };
    let end = offset + last + 1;
    // A header alone is proof, whether its payload is whole or not: it was
    // written after the sync of the frame before it.
    let mut place = offset;
    while place < end {
        if let Some((later, _)) = frame::decode_header(&bytes[place..], salt)
            && later.durable_number >= expected
        {
            let reason = "a frame is not whole although a later one proves that it was durable";
            return Tail::Damaged { offset: offset as u64, reason };
        }
        place += frame::ALIGNMENT_BYTES;
    }
    Tail::Torn { offset: offset as u64, end: end as u64 }
}
