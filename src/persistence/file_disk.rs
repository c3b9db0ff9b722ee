//! A real directory as a [`Disk`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::disk::{Disk, LOG_DIRECTORY, SNAPSHOT_DIRECTORY, SyncPurpose};

/// In a node's directory: locked by the process that uses it. Never removed,
/// since a lock on a file that was unlinked would exclude nobody.
pub const LOCK_FILE: &str = "lock";

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct FileDisk {
    root: PathBuf,
    read_only: bool,
}

impl FileDisk {
    /// Opens `root`, and makes it and its sub-directories if need be, durably.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<FileDisk> {
        let root = root.into();
        for directory in [root.clone(), root.join(LOG_DIRECTORY), root.join(SNAPSHOT_DIRECTORY)] {
            if directory.is_dir() {
                continue;
            }
            fs::create_dir_all(&directory)?;
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(FileDisk { root, read_only: false })
    }

    /// A directory to look at: nothing in it is made or changed, and whatever
    /// would do so fails with [`io::ErrorKind::ReadOnlyFilesystem`].
    pub fn read_only(root: impl Into<PathBuf>) -> FileDisk {
        FileDisk { root: root.into(), read_only: true }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn changing(&self, name: &str) -> io::Result<PathBuf> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(self.path(name)) }
    }
}

impl Disk for FileDisk {
    type File = File;

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(!self.read_only).open(self.path(name))
    }

    fn create_new(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.changing(name)?)
    }

    fn read_at(&self, file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match file.read_at(into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &mut File, _purpose: SyncPurpose) -> io::Result<()> {
        // The length counts as data, the time stamps don't: files are allocated
        // ahead, so that for a frame this is one write to the device.
        file.sync_data()
    }

    fn set_length(&self, file: &mut File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn length(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.changing(from)?, self.changing(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.changing(name)?)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::open(self.path(directory))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(&self.root)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}
