//! Reading a snapshot: blocks of whole lines, so that several threads can parse
//! them, while the reader itself checks that the file is what was written.
//!
//! The last line is the trailer, and a line is known to be the last only at the
//! end of the file: so the reader holds the last line back. Nothing that it gave
//! out may be used before it has given `None`: until then the file may turn out
//! damaged.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::disk::Disk;
use super::identity::NodeUuid;
use super::snapshot::{
    SNAPSHOT_FORMAT, SnapshotError, SnapshotHeader, SnapshotInfo, SnapshotReport, at, is_compressed,
    trailer_without_crc,
};
use super::snapshot_line::LineError;

/// How much text a chunk has at least, unless it is the last one.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A block of whole lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The lines, each with its newline.
    pub bytes: Vec<u8>,
}

impl SnapshotChunk {
    /// The lines without their newlines, for [`super::parse_line`].
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// A snapshot's last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotTrailer {
    /// How many entries.
    pub entries: u64,
    /// The length of all before the trailer.
    pub bytes: u64,
    /// E.
    pub through: u64,
    /// What was given to [`super::SnapshotFile::finish`].
    pub state: Vec<u8>,
}

/// A file of a disk as a stream.
struct Stream<'d, D: Disk> {
    disk: &'d D,
    file: D::File,
    offset: u64,
    /// The same, for [`SnapshotReader::file_position`].
    position: Rc<Cell<u64>>,
    /// Set when the disk has failed, and not the stream in it.
    has_failed: Rc<Cell<bool>>,
}

impl<D: Disk> Read for Stream<'_, D> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.disk.read_at(&self.file, self.offset, into);
        let count = read.inspect_err(|_| self.has_failed.set(true))?;
        self.offset += count as u64;
        self.position.set(self.offset);
        Ok(count)
    }
}

/// Reads one snapshot.
pub struct SnapshotReader<'d> {
    name: String,
    through: u64,
    file_bytes: u64,
    position: Rc<Cell<u64>>,
    has_failed: Rc<Cell<bool>>,
    source: Box<dyn Read + 'd>,
    header: SnapshotHeader,
    /// Read and not given out yet.
    held: Vec<u8>,
    crc: crc32fast::Hasher,
    bytes: u64,
    lines: u64,
    trailer: Option<SnapshotTrailer>,
}

impl<'d> SnapshotReader<'d> {
    /// Opens a snapshot and reads its header.
    pub fn open<D: Disk>(
        disk: &'d D,
        info: &SnapshotInfo,
        node: NodeUuid,
    ) -> Result<SnapshotReader<'d>, SnapshotError> {
        SnapshotReader::open_named(disk, &info.name, node, info.through)
    }

    pub(super) fn open_named<D: Disk>(
        disk: &'d D,
        name: &str,
        node: NodeUuid,
        through: u64,
    ) -> Result<SnapshotReader<'d>, SnapshotError> {
        let file = disk.open(name).map_err(at(name))?;
        let file_bytes = disk.length(&file).map_err(at(name))?;
        let compressed = is_compressed(name) || begins_compressed(disk, &file).map_err(at(name))?;
        let (position, has_failed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let stream =
            Stream { disk, file, offset: 0, position: position.clone(), has_failed: has_failed.clone() };
        let source: Box<dyn Read + 'd> = if compressed {
            Box::new(zstd::stream::read::Decoder::new(stream).map_err(at(name))?)
        } else {
            Box::new(stream)
        };
        let mut reader = SnapshotReader {
            name: name.to_string(),
            through,
            file_bytes,
            position,
            has_failed,
            source,
            header: SnapshotHeader { node, after: 0 },
            held: Vec::new(),
            crc: crc32fast::Hasher::new(),
            bytes: 0,
            lines: 0,
            trailer: None,
        };
        reader.read_header(node)?;
        Ok(reader)
    }

    /// The first line.
    pub fn header(&self) -> SnapshotHeader {
        self.header
    }

    /// The file's length.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// How much of the file has been read.
    pub fn file_position(&self) -> u64 {
        self.position.get()
    }

    /// What to say of a line that [`super::parse_line`] refused although the
    /// file's checksum is right.
    pub fn bad_line(&self, source: LineError) -> SnapshotError {
        SnapshotError::Line { file: self.name.clone(), source }
    }

    /// The last line: there when [`SnapshotReader::next_chunk`] has given `None`.
    pub fn trailer(&self) -> Option<&SnapshotTrailer> {
        self.trailer.as_ref()
    }

    /// The next lines; `None` when all have been given out and the file is what was written.
    pub fn next_chunk(&mut self) -> Result<Option<SnapshotChunk>, SnapshotError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        loop {
            let ended = self.fill(CHUNK_BYTES)?;
            if let Some(end) = self.end_of_last_but_one() {
                let rest = self.held.split_off(end);
                let bytes = std::mem::replace(&mut self.held, rest);
                self.lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
                self.crc.update(&bytes);
                self.bytes += bytes.len() as u64;
                return Ok(Some(SnapshotChunk { bytes }));
            }
            if ended {
                self.read_trailer()?;
                return Ok(None);
            }
        }
    }

    /// What it holds, once it has been read whole.
    pub fn report(&self) -> Result<SnapshotReport, SnapshotError> {
        let Some(trailer) = &self.trailer else { return self.damaged("it was not read to its end") };
        Ok(SnapshotReport {
            name: self.name.clone(),
            after: self.header.after,
            through: trailer.through,
            entries: trailer.entries,
            bytes: trailer.bytes,
            file_bytes: self.file_bytes,
            state: trailer.state.clone(),
        })
    }

    fn damaged<T>(&self, reason: &'static str) -> Result<T, SnapshotError> {
        Err(SnapshotError::Damaged { file: self.name.clone(), offset: self.bytes, reason })
    }

    /// Reads `count` bytes more, if there are; whether the file has ended.
    fn fill(&mut self, count: usize) -> Result<bool, SnapshotError> {
        let read = self.source.by_ref().take(count as u64).read_to_end(&mut self.held);
        match read {
            Ok(read) => Ok(read < count),
            Err(source) if self.has_failed.get() => {
                Err(SnapshotError::Io { file: self.name.clone(), source })
            }
            // The bytes are there, and no stream.
            Err(_) => self.damaged("it can't be decompressed"),
        }
    }

    /// Where the last complete line but one ends.
    fn end_of_last_but_one(&self) -> Option<usize> {
        let newline = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte == b'\n');
        let last = newline(&self.held)?;
        newline(&self.held[..last]).map(|place| place + 1)
    }

    fn read_header(&mut self, node: NodeUuid) -> Result<(), SnapshotError> {
        const LINE_BYTES_MAX: usize = 4096;
        self.fill(LINE_BYTES_MAX)?;
        let Some(end) = self.held.iter().position(|&byte| byte == b'\n') else {
            return self.damaged("it has no first line");
        };
        let rest = self.held.split_off(end + 1);
        let line = std::mem::replace(&mut self.held, rest);
        let Ok(fields) = serde_json::from_slice::<serde_json::Value>(&line) else {
            return self.damaged("the first line is not JSON");
        };
        match fields["snapshot"].as_u64() {
            Some(found) if found > u64::from(SNAPSHOT_FORMAT) => {
                return Err(SnapshotError::NewerFormat {
                    file: self.name.clone(),
                    found,
                    supported: SNAPSHOT_FORMAT,
                });
            }
            Some(1) => {}
            _ => return self.damaged("the first line names no format"),
        }
        let found = fields["node"].as_str().and_then(|node| u128::from_str_radix(node, 16).ok());
        let (Some(found), Some(after)) = (found, fields["after"].as_u64()) else {
            return self.damaged("the first line lacks a field");
        };
        let found = NodeUuid(found.to_be_bytes());
        if found != node {
            return Err(SnapshotError::Foreign { file: self.name.clone(), found });
        }
        self.header = SnapshotHeader { node, after };
        self.crc.update(&line);
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn read_trailer(&mut self) -> Result<(), SnapshotError> {
        let line = std::mem::take(&mut self.held);
        let Some(trailer) = parse_trailer(&line) else {
            return self.damaged("the last line is no trailer");
        };
        let text = trailer_without_crc(trailer.entries, trailer.bytes, trailer.through, &trailer.state);
        self.crc.update(text.as_bytes());
        let crc = self.crc.clone().finalize();
        // Compared as text: there is one spelling, and every byte of it counts.
        if format!("{text},\"crc32\":{crc}}}\n").as_bytes() != line {
            return self.damaged("the checksum is not that of the lines");
        }
        if (trailer.entries, trailer.bytes) != (self.lines, self.bytes) {
            return self.damaged("the trailer counts other lines");
        }
        if trailer.through != self.through {
            return self.damaged("the file's name is not that of its trailer");
        }
        self.trailer = Some(trailer);
        Ok(())
    }
}

/// An unfinished file has no name to tell by.
fn begins_compressed<D: Disk>(disk: &D, file: &D::File) -> io::Result<bool> {
    let mut first = [0; 4];
    let count = disk.read_at(file, 0, &mut first)?;
    Ok(count == 4 && first == zstd::zstd_safe::MAGICNUMBER.to_le_bytes())
}

fn parse_trailer(line: &[u8]) -> Option<SnapshotTrailer> {
    let fields: serde_json::Value = serde_json::from_slice(line).ok()?;
    let number = |name: &str| fields[name].as_u64();
    let hex = fields["state"].as_str()?.as_bytes();
    let state: Option<Vec<u8>> =
        hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    Some(SnapshotTrailer {
        entries: number("entries")?,
        bytes: number("bytes")?,
        through: number("through")?,
        state: state?,
    })
}
