//! The files of a node's log as a test sees them from outside, to damage them
//! on purpose. The layout is the one at the top of `src/persistence/frame.rs`.

#![allow(dead_code)] // each test file uses its part

use std::path::{Path, PathBuf};

use datastore::persistence::frame::{ALIGNMENT_BYTES, FRAME_HEADER_BYTES};
use datastore::persistence::segment::SEGMENT_HEADER_BYTES;

const MAGIC: &[u8] = b"FRM1";

/// Where a frame lies and what its header says.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub offset: usize,
    pub bytes: usize,
    pub entries: u32,
    pub first_index: u64,
}

/// The segments, oldest first.
pub fn segments(directory: &Path) -> Vec<PathBuf> {
    files(&directory.join("log"), ".wal")
}

/// The snapshots, oldest first.
pub fn snapshots(directory: &Path) -> Vec<PathBuf> {
    files(&directory.join("snapshots"), "")
}

/// The copies of what recovery has cut, with their names' beginning.
pub fn copies(directory: &Path, beginning: &str) -> usize {
    let names = files(&directory.join("log"), "").into_iter();
    names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(beginning)).count()
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    paths.sort();
    paths
}

/// The frames of a segment.
pub fn frames(segment: &Path) -> Vec<Frame> {
    let bytes = std::fs::read(segment).expect("the segment is there");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut frames = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    while bytes[offset..].starts_with(MAGIC) {
        let length = FRAME_HEADER_BYTES + (number(offset + 8) as usize).next_multiple_of(ALIGNMENT_BYTES);
        let first_index = u64::from_le_bytes(bytes[offset + 40..offset + 48].try_into().unwrap());
        frames.push(Frame { offset, bytes: length, entries: number(offset + 12), first_index });
        offset += length;
    }
    frames
}

/// Writes over a part of a file.
pub fn overwrite(file: &Path, offset: usize, with: &[u8]) {
    let mut bytes = std::fs::read(file).expect("the file is there");
    bytes[offset..offset + with.len()].copy_from_slice(with);
    std::fs::write(file, bytes).expect("the file can be written");
}

/// Turns one bit of a file.
pub fn flip(file: &Path, offset: usize) {
    let byte = std::fs::read(file).expect("the file is there")[offset];
    overwrite(file, offset, &[byte ^ 0x10]);
}
