//! A segment: one file of the log, its header, and how a new one comes to be.
//!
//! ```text
//!  0           8         12    16           32          40
//! ┌───────────┬─────────┬─────┬────────────┬───────────┬──────────────────────┐
//! │ magic     │ format  │flags│ node UUID  │ number    │ salt                 │
//! ├───────────┴─────────┴─────┼────────────┴───────────┼──────────────────────┤
//! │ 48 predecessor's number   │ 56 its valid length    │ 64 first frame number│
//! ├───────────────────────────┼────────────────────────┼──────────┬───────────┤
//! │ 72 first entry index      │ 80 predecessor's CRC   │ 84 zero  │ 88 CRC    │
//! └───────────────────────────┴────────────────────────┴──────────┴───────────┘
//!  92 … 4096 not looked at; then frames, then zeroes
//! ```
//!
//! The header has its first 4 KiB for itself, so that no later write touches a
//! sector of it. It says where its predecessor ends: beyond that length nobody
//! ever looks again. That is how a refused frame is made to never have been.
//!
//! How a segment comes to be:
//!
//! ```text
//! log/preparing-N  zeroes, synced ── rename ──► log/spare-N            (ahead of need)
//! log/spare-N      ── rename, directory synced ──► log/new-N
//! log/new-N        + header, synced ── rename, directory synced ──► log/00000007.wal
//! ```
//!
//! A ".wal" name therefore belongs only to a file whose header was synced: one
//! with a bad header is damaged, not half made. All other names are leftovers
//! at a start and are removed. A file once used ("retired-N") is zeroed again
//! before it is a spare. A name is never used twice by one process: the number
//! of an attempt that failed is skipped.

use std::io;

use super::disk::{Disk, LOG_DIRECTORY, SyncPurpose, write_zeroes};
use super::identity::NodeUuid;

const MAGIC: [u8; 8] = *b"DSTRWAL\n";
/// The newest format of segments that this version reads, and the one it writes.
pub const SEGMENT_FORMAT: u32 = 1;
/// The flag of a segment that was made because a sync of its predecessor failed.
pub const FLAG_SEALS: u32 = 1;
/// The flag of a segment that the log begins anew with: see `restart.rs`.
pub const FLAG_RESTARTS: u32 = 2;

const MAGIC_AT: usize = 0;
const FORMAT_AT: usize = MAGIC_AT + 8;
const FLAGS_AT: usize = FORMAT_AT + 4;
const NODE_AT: usize = FLAGS_AT + 4;
const NUMBER_AT: usize = NODE_AT + 16;
const SALT_AT: usize = NUMBER_AT + 8;
const PREDECESSOR_AT: usize = SALT_AT + 8;
const PREDECESSOR_LENGTH_AT: usize = PREDECESSOR_AT + 8;
const FIRST_FRAME_AT: usize = PREDECESSOR_LENGTH_AT + 8;
const FIRST_INDEX_AT: usize = FIRST_FRAME_AT + 8;
const PREDECESSOR_CRC_AT: usize = FIRST_INDEX_AT + 8;
const RESERVED_AT: usize = PREDECESSOR_CRC_AT + 4;
const CRC_AT: usize = RESERVED_AT + 4;
const USED_BYTES: usize = CRC_AT + 4;
/// Where a segment's first frame begins.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

const _: () = assert!(USED_BYTES <= 512, "the header fits the sector that a disk writes whole");

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// [`FLAG_SEALS`], [`FLAG_RESTARTS`] or 0.
    pub flags: u32,
    /// Whose log it is.
    pub node: NodeUuid,
    /// Counts segments from 1, with gaps where an attempt failed.
    pub number: u64,
    /// Begins every CRC of the segment's frames; drawn at random for each segment.
    pub salt: u64,
    /// The segment before, 0 for the first one.
    pub predecessor: u64,
    /// Where the segment before ends.
    pub predecessor_length: u64,
    /// The number of the first frame.
    pub first_frame: u64,
    /// The index that was the next one when the segment began. Its first frame
    /// may begin earlier, if it replaces entries.
    pub first_index: u64,
    /// The header CRC of the last frame before, 0 when there is none.
    pub predecessor_crc: u32,
}

/// Why a segment's header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// No header, or one whose CRC is wrong.
    Damaged,
    /// A newer version wrote it.
    NewerFormat(u32),
}

impl SegmentHeader {
    /// The header as it stands in the file, padded to [`SEGMENT_HEADER_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.node.0);
        let numbers = [
            self.number,
            self.salt,
            self.predecessor,
            self.predecessor_length,
            self.first_frame,
            self.first_index,
        ];
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out.extend_from_slice(&self.predecessor_crc.to_le_bytes());
        out.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(SEGMENT_HEADER_BYTES, 0);
        out
    }

    /// Reads a header. Any bytes may be given.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let bytes = bytes.get(..USED_BYTES).ok_or(HeaderFault::Damaged)?;
        if bytes[MAGIC_AT..FORMAT_AT] != MAGIC {
            return Err(HeaderFault::Damaged);
        }
        // Looked at before the CRC: a newer format may have it elsewhere.
        let format = u32_at(bytes, FORMAT_AT);
        if format > SEGMENT_FORMAT {
            return Err(HeaderFault::NewerFormat(format));
        }
        if format == 0 || crc32fast::hash(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Err(HeaderFault::Damaged);
        }
        let mut node = [0; 16];
        node.copy_from_slice(&bytes[NODE_AT..NUMBER_AT]);
        Ok(SegmentHeader {
            flags: u32_at(bytes, FLAGS_AT),
            node: NodeUuid(node),
            number: u64_at(bytes, NUMBER_AT),
            salt: u64_at(bytes, SALT_AT),
            predecessor: u64_at(bytes, PREDECESSOR_AT),
            predecessor_length: u64_at(bytes, PREDECESSOR_LENGTH_AT),
            first_frame: u64_at(bytes, FIRST_FRAME_AT),
            first_index: u64_at(bytes, FIRST_INDEX_AT),
            predecessor_crc: u32_at(bytes, PREDECESSOR_CRC_AT),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// What a file in the log's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFile {
    Segment(u64),
    Spare,
    Retired,
    /// Half made: of no use after a crash.
    Unfinished,
    /// Not ours to touch: copies of cut tails, and whatever else lies there.
    Other,
}

const SPARE_PREFIX: &str = "spare-";
const RETIRED_PREFIX: &str = "retired-";
const PREPARING_PREFIX: &str = "preparing-";
const NEW_PREFIX: &str = "new-";

/// "log/00000007.wal"
pub fn segment_name(number: u64) -> String {
    format!("{LOG_DIRECTORY}/{number:08}.wal")
}

pub(super) fn in_log(name: &str) -> String {
    format!("{LOG_DIRECTORY}/{name}")
}

pub(super) fn retired_name(number: u64) -> String {
    format!("{LOG_DIRECTORY}/{RETIRED_PREFIX}{number}")
}

pub(super) fn classify(name: &str) -> LogFile {
    let number = name.strip_suffix(".wal").and_then(|digits| digits.parse().ok());
    if let Some(number) = number.filter(|&number| segment_name(number) == in_log(name)) {
        LogFile::Segment(number)
    } else if name.starts_with(SPARE_PREFIX) {
        LogFile::Spare
    } else if name.starts_with(RETIRED_PREFIX) {
        LogFile::Retired
    } else if name.starts_with(PREPARING_PREFIX) || name.starts_with(NEW_PREFIX) {
        LogFile::Unfinished
    } else {
        LogFile::Other
    }
}

fn files_of<D: Disk>(disk: &D, kind: LogFile) -> io::Result<Vec<String>> {
    let mut names: Vec<String> =
        disk.list(LOG_DIRECTORY)?.into_iter().filter(|name| classify(name) == kind).collect();
    names.sort();
    Ok(names)
}

/// How many spare segments are ready.
pub fn ready_spares<D: Disk>(disk: &D) -> io::Result<usize> {
    Ok(files_of(disk, LogFile::Spare)?.len())
}

/// Makes a spare of `bytes` zeroes ahead of need, of a retired segment if there
/// is one. It may run in another thread than the log, one call at a time;
/// `number` is one that no other call of this process has used.
pub fn prepare_spare<D: Disk>(disk: &D, number: u64, bytes: u64) -> io::Result<()> {
    let preparing = in_log(&format!("{PREPARING_PREFIX}{number}"));
    let retired = files_of(disk, LogFile::Retired)?;
    let mut file = match retired.first() {
        Some(name) => {
            disk.rename(&in_log(name), &preparing)?;
            disk.sync_directory(LOG_DIRECTORY)?;
            disk.open(&preparing)?
        }
        None => disk.create_new(&preparing)?,
    };
    let prepared = fill_spare(disk, &mut file, bytes)
        .and_then(|()| disk.rename(&preparing, &in_log(&format!("{SPARE_PREFIX}{number}"))))
        .and_then(|()| disk.sync_directory(LOG_DIRECTORY));
    if prepared.is_err() {
        // The next start would remove it too; here it gives its room back at once.
        let _ = disk.remove(&preparing);
    }
    prepared
}

fn fill_spare<D: Disk>(disk: &D, file: &mut D::File, bytes: u64) -> io::Result<()> {
    if disk.length(file)? > bytes {
        disk.set_length(file, bytes)?;
    }
    write_zeroes(disk, file, 0, bytes)?;
    disk.sync(file, SyncPurpose::Other)
}

/// How a new segment is to be made.
pub(super) struct Creation {
    pub(super) header: SegmentHeader,
    /// Frames that are to stand in it from the beginning: durable when the name is.
    pub(super) frames: Vec<u8>,
    /// At least this long.
    pub(super) bytes: u64,
    pub(super) purpose: SyncPurpose,
    pub(super) use_spare: bool,
    #[cfg(test)]
    pub(super) mutant: Option<super::mutant::Mutant>,
}

/// How far a creation came that failed.
#[derive(Debug)]
pub(super) struct CreationError {
    pub(super) source: io::Error,
    /// Whether the segment may be found by a recovery: its predecessor then
    /// ends where it says, and must not grow any more.
    pub(super) may_exist: bool,
}

/// Makes a segment, durably: when this returns a file, a recovery will find it.
pub(super) fn create_segment<D: Disk>(
    disk: &D,
    creation: &Creation,
) -> Result<(D::File, u64), CreationError> {
    let number = creation.header.number;
    let temporary = in_log(&format!("{NEW_PREFIX}{number}"));
    let made = write_segment(disk, creation, &temporary);
    let (file, length) = match made {
        Ok(made) => made,
        Err(source) => {
            let _ = disk.remove(&temporary);
            return Err(CreationError { source, may_exist: false });
        }
    };
    let published = disk.rename(&temporary, &segment_name(number)).and_then(|()| {
        if creation.skips_directory_sync() { Ok(()) } else { disk.sync_directory(LOG_DIRECTORY) }
    });
    match published {
        Ok(()) => Ok((file, length)),
        Err(source) => Err(CreationError { source, may_exist: true }),
    }
}

fn write_segment<D: Disk>(disk: &D, creation: &Creation, temporary: &str) -> io::Result<(D::File, u64)> {
    let (mut file, length) = match take_spare(disk, creation, temporary)? {
        Some(spare) => spare,
        None => {
            let mut file = disk.create_new(temporary)?;
            write_zeroes(disk, &mut file, SEGMENT_HEADER_BYTES as u64, creation.bytes)?;
            (file, creation.bytes)
        }
    };
    disk.write_at(&mut file, 0, &creation.header.encode())?;
    if !creation.frames.is_empty() {
        disk.write_at(&mut file, SEGMENT_HEADER_BYTES as u64, &creation.frames)?;
    }
    if !creation.skips_sync() {
        disk.sync(&mut file, creation.purpose)?;
    }
    Ok((file, length))
}

/// A ready spare that is long enough, renamed so that after a crash nobody
/// takes it for one that is still all zeroes.
fn take_spare<D: Disk>(disk: &D, creation: &Creation, temporary: &str) -> io::Result<Option<(D::File, u64)>> {
    if !creation.use_spare {
        return Ok(None);
    }
    for name in files_of(disk, LogFile::Spare)? {
        let name = in_log(&name);
        let file = disk.open(&name)?;
        let length = disk.length(&file)?;
        if length >= creation.bytes {
            disk.rename(&name, temporary)?;
            disk.sync_directory(LOG_DIRECTORY)?;
            return Ok(Some((file, length)));
        }
    }
    Ok(None)
}

impl Creation {
    fn skips_sync(&self) -> bool {
        #[cfg(test)]
        {
            self.mutant == Some(super::mutant::Mutant::SegmentNotSynced)
        }
        #[cfg(not(test))]
        {
            false
        }
    }

    fn skips_directory_sync(&self) -> bool {
        #[cfg(test)]
        {
            self.mutant == Some(super::mutant::Mutant::SegmentNameNotSynced)
        }
        #[cfg(not(test))]
        {
            false
        }
    }
}
