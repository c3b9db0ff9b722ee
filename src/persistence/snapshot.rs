//! A snapshot: every entry at some moment between S and E, as lines of JSON,
//! plain or as one zstd stream.
//!
//! ```text
//! {"snapshot":1,"node":"…32 hex digits…","after":S}
//! {"key":…,"version":[…,…],"vector":[…],"value":…}            see snapshot_line.rs
//! …
//! {"entries":n,"bytes":b,"through":E,"state":"…hex…","crc32":c}
//! ```
//!
//! S is the lowest index that a shard had applied when its walk began, E the
//! highest when it ended: recovery replays (S, E] over the entries, and until it
//! has, the snapshot is no state that ever was. `bytes` counts what stands before
//! the last line; the CRC covers all before its own field. `state` is whatever
//! belongs to E beside the entries (a cluster's membership), opaque here.
//!
//! A snapshot is whole or absent:
//!
//! ```text
//! snapshots/unfinished ── written, synced every 1 MiB, trailer, synced, read back and verified
//!    ── rename ──► snapshots/<E>.jsonl[.zst] ── directory synced
//! ```
//!
//! and only then may the log be cut, up to S, and better only up to the S of the
//! one before: then the newest may turn out damaged and nothing is lost.

use std::fmt;
use std::io::{self, Write};

use super::disk::{Disk, SNAPSHOT_DIRECTORY, SyncPurpose, remove_if_present};
use super::identity::NodeUuid;
use super::rotation::is_disk_full;
use super::snapshot_line::{LineError, write_line};
use super::snapshot_reader::SnapshotReader;
use crate::engine::Entry;

/// The newest format of snapshots that this version reads, and the one it writes.
pub const SNAPSHOT_FORMAT: u32 = 1;
/// How much is written between two syncs: no sync then stalls the log's for long.
const STEP_BYTES: usize = 1024 * 1024;
const UNFINISHED: &str = "snapshots/unfinished";
const PLAIN_SUFFIX: &str = ".jsonl";
const COMPRESSED_SUFFIX: &str = ".jsonl.zst";
/// Wide enough for every E, so that names sort as numbers do.
const NAME_DIGITS: usize = 20;

/// A snapshot's first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Whose entries they are.
    pub node: NodeUuid,
    /// S.
    pub after: u64,
}

/// A snapshot that is there, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// `snapshots/<E>.jsonl[.zst]`
    pub name: String,
    /// E.
    pub through: u64,
}

/// What a snapshot holds, after it was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// The file.
    pub name: String,
    /// S.
    pub after: u64,
    /// E.
    pub through: u64,
    /// How many entries.
    pub entries: u64,
    /// Their lines' length, uncompressed.
    pub bytes: u64,
    /// The file's length.
    pub file_bytes: u64,
    /// What was given to [`SnapshotFile::finish`].
    pub state: Vec<u8>,
}

/// Why a snapshot can't be written or read.
#[derive(Debug)]
pub enum SnapshotError {
    /// The disk failed.
    Io {
        /// The file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The file is not what was written.
    Damaged {
        /// The file.
        file: String,
        /// Where in it, uncompressed.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A line is none.
    Line {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: LineError,
    },
    /// A newer version wrote it.
    NewerFormat {
        /// The file.
        file: String,
        /// Its format.
        found: u64,
        /// The newest that this version reads.
        supported: u32,
    },
    /// It belongs to another node.
    Foreign {
        /// The file.
        file: String,
        /// Whose it is.
        found: NodeUuid,
    },
    /// No snapshot is whole and reaches as far back as the log.
    NoneUsable {
        /// The newest.
        file: String,
        /// What is wrong with it.
        reason: String,
        /// The first index that the log has.
        log_begins: u64,
    },
}

impl SnapshotError {
    /// Whether it failed for want of room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, SnapshotError::Io { source, .. } if is_disk_full(source))
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Io { file, source } => write!(formatter, "{file}: {source}"),
            SnapshotError::Damaged { file, offset, reason } => {
                write!(formatter, "{file} is damaged at byte {offset} of its text: {reason}")
            }
            SnapshotError::Line { file, source } => write!(formatter, "{file} has a damaged line: {source}"),
            SnapshotError::NewerFormat { file, found, supported } => write!(
                formatter,
                "{file} has format {found}, this version reads up to {supported}: start the version that wrote it"
            ),
            SnapshotError::Foreign { file, found } => write!(formatter, "{file} belongs to node {found}"),
            SnapshotError::NoneUsable { file, reason, log_begins } => write!(
                formatter,
                "no snapshot can be used: the newest, {file}: {reason}; the log begins at entry {log_begins}, \
                 and no older snapshot reaches it"
            ),
        }
    }
}

impl std::error::Error for SnapshotError {}

pub(super) fn at(file: &str) -> impl FnOnce(io::Error) -> SnapshotError {
    let file = file.to_string();
    move |source| SnapshotError::Io { file, source }
}

/// The bytes on their way to the file: as they are, or compressed.
enum Output {
    Plain(Vec<u8>),
    Compressed(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Output {
    fn waiting(&mut self) -> &mut Vec<u8> {
        match self {
            Output::Plain(bytes) => bytes,
            Output::Compressed(encoder) => encoder.get_mut(),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Plain(waiting) => waiting.extend_from_slice(bytes),
            Output::Compressed(encoder) => encoder.write_all(bytes)?,
        }
        Ok(())
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Output::Plain(waiting) => Ok(waiting),
            Output::Compressed(encoder) => encoder.finish(),
        }
    }
}

/// A snapshot under way. One at a time: a new one replaces an unfinished one.
pub struct SnapshotFile<D: Disk> {
    disk: D,
    file: D::File,
    header: SnapshotHeader,
    output: Output,
    compressed: bool,
    lines: Vec<u8>,
    crc: crc32fast::Hasher,
    bytes: u64,
    entries: u64,
    written: u64,
}

impl<D: Disk> SnapshotFile<D> {
    /// Begins a snapshot; with a `zstd_level` it is compressed.
    pub fn create(
        disk: D,
        header: SnapshotHeader,
        zstd_level: Option<i32>,
    ) -> Result<SnapshotFile<D>, SnapshotError> {
        remove_unfinished_snapshot(&disk)?;
        let file = disk.create_new(UNFINISHED).map_err(at(UNFINISHED))?;
        let output = match zstd_level {
            None => Output::Plain(Vec::new()),
            Some(level) => Output::Compressed(
                zstd::stream::write::Encoder::new(Vec::new(), level).map_err(at(UNFINISHED))?,
            ),
        };
        let lines = format!(
            "{{\"snapshot\":{SNAPSHOT_FORMAT},\"node\":\"{}\",\"after\":{}}}\n",
            header.node, header.after
        )
        .into_bytes();
        Ok(SnapshotFile {
            disk,
            file,
            header,
            output,
            compressed: zstd_level.is_some(),
            lines,
            crc: crc32fast::Hasher::new(),
            bytes: 0,
            entries: 0,
            written: 0,
        })
    }

    /// Adds an entry.
    pub fn write_entry(&mut self, entry: &Entry) -> Result<(), SnapshotError> {
        write_line(&mut self.lines, entry);
        self.entries += 1;
        if self.lines.len() >= STEP_BYTES { self.hand_over() } else { Ok(()) }
    }

    /// How many entries it has.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether it is compressed.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// How many bytes are in the file so far.
    pub fn file_bytes(&self) -> u64 {
        self.written
    }

    fn hand_over(&mut self) -> Result<(), SnapshotError> {
        self.crc.update(&self.lines);
        self.bytes += self.lines.len() as u64;
        self.output.write_all(&self.lines).map_err(at(UNFINISHED))?;
        self.lines.clear();
        if self.output.waiting().len() >= STEP_BYTES {
            let waiting = std::mem::take(self.output.waiting());
            self.write_and_sync(&waiting)?;
        }
        Ok(())
    }

    fn write_and_sync(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        for step in bytes.chunks(STEP_BYTES) {
            self.disk.write_at(&mut self.file, self.written, step).map_err(at(UNFINISHED))?;
            self.disk.sync(&mut self.file, SyncPurpose::Other).map_err(at(UNFINISHED))?;
            self.written += step.len() as u64;
        }
        Ok(())
    }

    /// Completes it: every shard's walk has ended, the highest at `through` (E).
    /// When this returns `Ok`, the snapshot is durable and was read back whole.
    /// `state` comes back in the reader's trailer.
    pub fn finish(mut self, through: u64, state: &[u8]) -> Result<SnapshotReport, SnapshotError> {
        let finished = self.complete(through, state);
        if finished.is_err() {
            // Its room is given back at once; the next one would do it too.
            let _ = remove_unfinished_snapshot(&self.disk);
        }
        finished
    }

    fn complete(&mut self, through: u64, state: &[u8]) -> Result<SnapshotReport, SnapshotError> {
        self.hand_over()?;
        let trailer = trailer_without_crc(self.entries, self.bytes, through, state);
        self.crc.update(trailer.as_bytes());
        let crc = self.crc.clone().finalize();
        self.output.write_all(format!("{trailer},\"crc32\":{crc}}}\n").as_bytes()).map_err(at(UNFINISHED))?;
        let output = std::mem::replace(&mut self.output, Output::Plain(Vec::new()));
        let rest = output.finish().map_err(at(UNFINISHED))?;
        self.write_and_sync(&rest)?;
        // Before it has its name, which a good snapshot may have by now: whatever is wrong with this one, or
        // with reading it, leaves that.
        let verified = verify_as(&self.disk, UNFINISHED, self.header.node, through)?;
        let name = snapshot_name(through, self.compressed);
        self.disk.rename(UNFINISHED, &name).map_err(at(&name))?;
        self.disk.sync_directory(SNAPSHOT_DIRECTORY).map_err(at(SNAPSHOT_DIRECTORY))?;
        Ok(SnapshotReport { name, ..verified })
    }

    /// Gives it up.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        remove_unfinished_snapshot(&self.disk)
    }
}

/// The trailer up to where its CRC begins.
pub(super) fn trailer_without_crc(entries: u64, bytes: u64, through: u64, state: &[u8]) -> String {
    let state: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"entries\":{entries},\"bytes\":{bytes},\"through\":{through},\"state\":\"{state}\"")
}

fn snapshot_name(through: u64, compressed: bool) -> String {
    let suffix = if compressed { COMPRESSED_SUFFIX } else { PLAIN_SUFFIX };
    format!("{SNAPSHOT_DIRECTORY}/{through:0NAME_DIGITS$}{suffix}")
}

/// Whether a snapshot of this name is compressed.
pub(super) fn is_compressed(name: &str) -> bool {
    name.ends_with(COMPRESSED_SUFFIX)
}

/// The snapshots, oldest first. They may be damaged.
pub fn list_snapshots<D: Disk>(disk: &D) -> Result<Vec<SnapshotInfo>, SnapshotError> {
    let mut found: Vec<SnapshotInfo> = Vec::new();
    for name in disk.list(SNAPSHOT_DIRECTORY).map_err(at(SNAPSHOT_DIRECTORY))? {
        let digits = name.strip_suffix(COMPRESSED_SUFFIX).or_else(|| name.strip_suffix(PLAIN_SUFFIX));
        let through =
            digits.filter(|digits| digits.len() == NAME_DIGITS).and_then(|digits| digits.parse().ok());
        if let Some(through) = through {
            found.push(SnapshotInfo { name: format!("{SNAPSHOT_DIRECTORY}/{name}"), through });
        }
    }
    found.sort_by(|one, other| (one.through, &one.name).cmp(&(other.through, &other.name)));
    Ok(found)
}

/// Reads a snapshot from end to end and checks everything but its lines' form.
pub fn verify_snapshot<D: Disk>(
    disk: &D,
    info: &SnapshotInfo,
    node: NodeUuid,
) -> Result<SnapshotReport, SnapshotError> {
    verify_as(disk, &info.name, node, info.through)
}

fn verify_as<D: Disk>(
    disk: &D,
    name: &str,
    node: NodeUuid,
    through: u64,
) -> Result<SnapshotReport, SnapshotError> {
    let mut reader = SnapshotReader::open_named(disk, name, node, through)?;
    while reader.next_chunk()?.is_some() {}
    reader.report()
}

/// A snapshot that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The file.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// The newest snapshot that is whole, if it or an older one can be completed by
/// a log that begins at `log_begins`. `None` when there is no snapshot at all;
/// those that were passed over are named in the list.
pub fn newest_valid_snapshot<D: Disk>(
    disk: &D,
    node: NodeUuid,
    log_begins: u64,
) -> Result<(Option<SnapshotReport>, Vec<PassedOver>), SnapshotError> {
    let verify = |info: &SnapshotInfo| verify_snapshot(disk, info, node).map(|report| ((), report));
    let (found, passed_over) = load_newest_snapshot(disk, log_begins, u64::MAX, verify)?;
    Ok((found.map(|((), report)| report), passed_over))
}

/// A loaded snapshot with its report, and what was passed over on the way to it.
pub type LoadedSnapshot<T> = (Option<(T, SnapshotReport)>, Vec<PassedOver>);

/// As [`newest_valid_snapshot`], among those that show no entry beyond
/// `at_most`, with `load` to read a snapshot whole and to keep what it holds.
pub fn load_newest_snapshot<D: Disk, T>(
    disk: &D,
    log_begins: u64,
    at_most: u64,
    mut load: impl FnMut(&SnapshotInfo) -> Result<(T, SnapshotReport), SnapshotError>,
) -> Result<LoadedSnapshot<T>, SnapshotError> {
    let mut passed_over: Vec<PassedOver> = Vec::new();
    for info in list_snapshots(disk)?.into_iter().rev() {
        let reason = if info.through > at_most {
            format!("it shows writes up to entry {}, the log can be read up to entry {at_most}", info.through)
        } else {
            match load(&info) {
                Ok((loaded, report)) if log_begins <= report.after.saturating_add(1) => {
                    return Ok((Some((loaded, report)), passed_over));
                }
                Ok((_, report)) => format!("it needs the log from entry {} on", report.after + 1),
                // What the disk doesn't give now is no damage: it may be well the next time.
                Err(
                    error @ (SnapshotError::NewerFormat { .. }
                    | SnapshotError::Foreign { .. }
                    | SnapshotError::Io { .. }),
                ) => return Err(error),
                Err(error) => error.to_string(),
            }
        };
        passed_over.push(PassedOver { name: info.name, reason });
    }
    match passed_over.first().cloned() {
        // Without any snapshot a log from its beginning still has everything.
        Some(PassedOver { name: file, reason }) if log_begins > 1 => {
            Err(SnapshotError::NoneUsable { file, reason, log_begins })
        }
        _ => Ok((None, passed_over)),
    }
}

/// Removes what a crash has left of a snapshot under way.
pub fn remove_unfinished_snapshot<D: Disk>(disk: &D) -> Result<(), SnapshotError> {
    remove_if_present(disk, UNFINISHED).map_err(at(UNFINISHED))
}
