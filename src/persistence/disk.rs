//! The few operations that the log and the snapshots need of a disk.
//!
//! A disk is one directory with two sub-directories, [`LOG_DIRECTORY`] and
//! [`SNAPSHOT_DIRECTORY`]; a name is relative to it ("log/00000001.wal"). What
//! an operation promises is what POSIX promises and no more:
//!
//! - bytes written are durable after a [`Disk::sync`] that succeeded, and before
//!   it any part of them may be;
//! - a name created, renamed or removed is durable after a
//!   [`Disk::sync_directory`] that succeeded, and before it may be or not;
//! - after a sync that failed, nothing is known about the bytes: the page cache
//!   may hold them and call them clean, so a second sync proves nothing.
//!
//! The crash tests are an implementation of this trait
//! ([`super::MemoryDisk`]), and so is `--drop-rate` ([`super::FaultyDisk`]).

use std::io;

/// Where segments live.
pub const LOG_DIRECTORY: &str = "log";
/// Where snapshots live.
pub const SNAPSHOT_DIRECTORY: &str = "snapshots";
/// The directory that holds the other two, and the identity file.
pub const ROOT_DIRECTORY: &str = "";

/// How much is zeroed or copied in one write.
const STEP_BYTES: usize = 1024 * 1024;

/// Why a file is synced. `--drop-rate` faults only [`SyncPurpose::Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPurpose {
    /// A frame of entries.
    Append,
    /// A new segment that cuts off a file whose sync failed.
    Seal,
    /// All else: prepared segments, snapshots, the identity, repairs.
    Other,
}

/// One directory of files.
pub trait Disk: Send {
    /// An open file.
    type File: Send;

    /// The names of the files in `directory`, without it, in no order. A
    /// directory that doesn't exist has no files.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Opens a file that exists for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Creates a file that must not exist.
    fn create_new(&self, name: &str) -> io::Result<Self::File>;
    /// Reads at most `into.len()` bytes; 0 means that the file ends at `offset`.
    fn read_at(&self, file: &Self::File, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`, or fails and may have written any part of them.
    fn write_at(&self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's bytes and its length durable.
    fn sync(&self, file: &mut Self::File, purpose: SyncPurpose) -> io::Result<()>;
    /// Cuts the file, or lengthens it with zeroes.
    fn set_length(&self, file: &mut Self::File, length: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&self, file: &Self::File) -> io::Result<u64>;
    /// Renames a file, in place of one that has the new name already.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names created, renamed and removed in `directory` durable.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
    /// How many bytes the file system of `directory` still has for this process.
    fn free_bytes(&self, directory: &str) -> io::Result<u64>;
    /// Whether what two directories hold takes the same room: they may lie on file systems of their own.
    fn shares_room(&self, one: &str, other: &str) -> io::Result<bool>;
}

/// Reads until `into` is full or the file ends; how much it was.
pub(super) fn read_up_to<D: Disk>(
    disk: &D,
    file: &D::File,
    offset: u64,
    into: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match disk.read_at(file, offset + filled as u64, &mut into[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The file's bytes from `from` to `to`, fewer if it ends before.
pub(super) fn read_range<D: Disk>(disk: &D, file: &D::File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    let filled = read_up_to(disk, file, from, &mut bytes)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// A small file's bytes.
pub(super) fn read_whole<D: Disk>(disk: &D, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    read_range(disk, &file, 0, disk.length(&file)?)
}

/// Writes zeroes from `from` to `to`: really written, so that the blocks are
/// allocated and a later write of them needs no more room and no metadata.
pub(super) fn write_zeroes<D: Disk>(disk: &D, file: &mut D::File, from: u64, to: u64) -> io::Result<()> {
    let zeroes = vec![0; STEP_BYTES.min(to.saturating_sub(from) as usize)];
    let mut offset = from;
    while offset < to {
        let step = zeroes.len().min((to - offset) as usize);
        disk.write_at(file, offset, &zeroes[..step])?;
        offset += step as u64;
    }
    Ok(())
}

/// Removes a file if there is one.
pub(super) fn remove_if_present<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a file durably: removals of several files must not overtake each other.
pub(super) fn remove_durably<D: Disk>(disk: &D, directory: &str, name: &str) -> io::Result<()> {
    disk.remove(name)?;
    disk.sync_directory(directory)
}
