//! A real directory as a [`Disk`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::disk::{Disk, LOG_DIRECTORY, SNAPSHOT_DIRECTORY, SyncPurpose};

/// Who may do what with a new file: its owner alone, since the file holds data of others.
pub const FILE_MODE: u32 = 0o600;
/// The same of a new directory.
const DIRECTORY_MODE: u32 = 0o700;
/// What lets others than the owner and the group in.
const OTHERS_MAY_READ: u32 = 0o005;

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
            make_directory(&directory, &mut |parent| File::open(parent)?.sync_all())?;
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

    /// Those of its directories that others than the owner and the group may read: the log and the snapshots count
    /// by themselves where they are links to elsewhere.
    pub fn readable_by_others(&self) -> io::Result<Vec<PathBuf>> {
        let links = [LOG_DIRECTORY, SNAPSHOT_DIRECTORY].map(|name| self.root.join(name)).into_iter();
        let links = links.filter(|path| path.is_symlink());
        let mut readable = Vec::new();
        for path in std::iter::once(self.root.clone()).chain(links) {
            if fs::metadata(&path)?.permissions().mode() & OTHERS_MAY_READ != 0 {
                readable.push(path);
            }
        }
        Ok(readable)
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
        OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(self.changing(name)?)
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

    fn free_bytes(&self, directory: &str) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(self.path(directory))?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }

    fn shares_room(&self, one: &str, other: &str) -> io::Result<bool> {
        Ok(fs::metadata(self.path(one))?.dev() == fs::metadata(self.path(other))?.dev())
    }
}

/// Makes a directory and those above it that are missing. Each new name is made durable by a sync of the directory
/// that it stands in.
fn make_directory(path: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // A relative name of one part stands in the current directory, and says so by an empty parent.
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    make_directory(parent, sync)?;
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        // Another process was faster; the name must be durable all the same.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(path: &Path) -> Vec<PathBuf> {
        let mut synced = Vec::new();
        make_directory(path, &mut |parent| {
            assert!(parent.is_dir());
            synced.push(parent.to_path_buf());
            Ok(())
        })
        .unwrap();
        synced
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn each_new_level_is_synced_into_the_one_above_it() {
        let root = std::env::temp_dir().join(format!("datastore-levels-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let path = root.join("one/two/three");
        assert_eq!(made(&path), [root.clone(), root.join("one"), root.join("one/two")]);
        assert_eq!(made(&path), Vec::<PathBuf>::new(), "it is there");
        assert_eq!(mode(&path), 0o700);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_relative_name_stands_in_the_current_directory() {
        let name = format!("datastore-relative-{}", std::process::id());
        let synced = made(Path::new(&name));
        fs::remove_dir(&name).unwrap();
        assert_eq!(synced, [Path::new(".")]);
    }

    #[test]
    fn what_is_new_is_its_owners_alone_and_what_was_open_stays_so_and_is_said() {
        let root = std::env::temp_dir().join(format!("datastore-modes-{}", std::process::id()));
        let disk = FileDisk::open(&root).unwrap();
        disk.create_new("log/x").unwrap();
        for (path, expected) in
            [("", 0o700), (LOG_DIRECTORY, 0o700), (SNAPSHOT_DIRECTORY, 0o700), ("log/x", 0o600)]
        {
            assert_eq!(mode(&root.join(path)), expected, "{path}");
        }
        assert_eq!(disk.readable_by_others().unwrap(), Vec::<PathBuf>::new());
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let disk = FileDisk::open(&root).unwrap();
        assert_eq!((disk.readable_by_others().unwrap(), mode(&root)), (vec![root.clone()], 0o755));
        fs::remove_dir_all(root).unwrap();
    }
}
