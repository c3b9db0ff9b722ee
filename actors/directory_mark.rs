//! Whether a data directory is a copy of another one.
//!
//! A node of dynamo mode numbers its entries, and peers know them by number. A copy of
//! its directory, a restored backup for example, would give numbers again that the
//! original has given since. A member in leader mode has promised things to its peers that a
//! copy has forgotten (`src/replication/doubt.rs`). So the directory has a mark that copying
//! doesn't take along: which file its lock is, by inode and time of birth.
//!
//! A disk that is rolled back as a whole keeps both. That shows only when a peer says
//! that it has entries of this node that this node hasn't.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use datastore::persistence::{FILE_MODE, LOCK_FILE, is_disk_full};
use serde_json::{Value, json};

/// The file that keeps the mark.
const MARK_FILE: &str = "mark.json";
const TEMPORARY_FILE: &str = "mark.new";

/// Says whether the directory is a copy. It is for one until [`keep`] is called: that is
/// done when its new stream has begun on the disk; in leader mode when a leader has proved it.
pub(crate) fn is_copy(directory: &Path) -> io::Result<bool> {
    match std::fs::read(directory.join(MARK_FILE)) {
        Ok(bytes) => Ok(serde_json::from_slice::<Value>(&bytes).ok() != Some(mark_of(directory)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the mark away: whatever happens from here on, the directory is one that may have lost
/// entries, until [`keep`] is called.
pub(crate) fn doubt(directory: &Path) -> io::Result<()> {
    store(directory, &Value::Null)
}

/// Marks the directory as itself.
pub(crate) fn keep(directory: &Path) -> io::Result<()> {
    let mark = mark_of(directory)?;
    store(directory, &mark)
}

/// Marks a directory that has no mark: a new one, or one of a version that made none.
pub(crate) fn keep_if_unmarked(directory: &Path) -> io::Result<()> {
    if directory.join(MARK_FILE).exists() { Ok(()) } else { keep(directory) }
}

fn mark_of(directory: &Path) -> io::Result<Value> {
    let lock = std::fs::metadata(directory.join(LOCK_FILE))?;
    // Not every file system knows it; the inode alone tells most copies.
    let born = lock.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok(json!({ "inode": lock.ino(), "born_ns": born.map(|since| since.as_nanos() as u64) }))
}

fn store(directory: &Path, mark: &Value) -> io::Result<()> {
    let text = format!("{mark}\n");
    match replace(directory, &text) {
        // There was a mark: to write over it takes no room.
        Err(error) if is_disk_full(&error) => overwrite(directory, &text).map_err(|_| error),
        stored => stored,
    }
}

fn replace(directory: &Path, text: &str) -> io::Result<()> {
    let (temporary, file) = (directory.join(TEMPORARY_FILE), directory.join(MARK_FILE));
    let mut writing = new_file().create(true).truncate(true).open(&temporary)?;
    let written = writing.write_all(text.as_bytes()).and_then(|()| writing.sync_all());
    if written.is_err() {
        // It takes room.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    std::fs::rename(&temporary, &file)?;
    std::fs::File::open(directory)?.sync_all()
}

/// A crash half-way leaves what is no mark: the directory counts as a copy then, which is the safe side.
fn overwrite(directory: &Path, text: &str) -> io::Result<()> {
    let mut file = new_file().open(directory.join(MARK_FILE))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(FILE_MODE);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_for_one_once() {
        let original = tempfile::tempdir().unwrap();
        std::fs::write(original.path().join(LOCK_FILE), "").unwrap();
        assert!(!is_copy(original.path()).unwrap(), "new");
        keep(original.path()).unwrap();
        assert!(!is_copy(original.path()).unwrap(), "the same");
        let copy = tempfile::tempdir().unwrap();
        for name in [LOCK_FILE, MARK_FILE] {
            std::fs::copy(original.path().join(name), copy.path().join(name)).unwrap();
        }
        assert!(is_copy(copy.path()).unwrap());
        keep(copy.path()).unwrap();
        assert!(!is_copy(copy.path()).unwrap(), "it is a directory of its own by now");
        assert!(!is_copy(original.path()).unwrap());
        doubt(original.path()).unwrap();
        assert!(is_copy(original.path()).unwrap());
        keep_if_unmarked(original.path()).unwrap();
        assert!(is_copy(original.path()).unwrap(), "it has a mark");
        std::fs::remove_file(original.path().join(MARK_FILE)).unwrap();
        keep_if_unmarked(original.path()).unwrap();
        assert!(original.path().join(MARK_FILE).exists() && !is_copy(original.path()).unwrap());
    }

    #[test]
    fn without_room_a_mark_is_written_over_the_one_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(LOCK_FILE), "").unwrap();
        assert!(overwrite(directory.path(), "null\n").is_err(), "there is none");
        for _ in 0..2 {
            keep(directory.path()).unwrap();
            assert!(!is_copy(directory.path()).unwrap());
            overwrite(directory.path(), "null\n").unwrap();
            assert_eq!(std::fs::read(directory.path().join(MARK_FILE)).unwrap(), b"null\n");
            assert!(is_copy(directory.path()).unwrap());
            let mark = mark_of(directory.path()).unwrap();
            overwrite(directory.path(), &format!("{mark}\n")).unwrap();
            assert!(!is_copy(directory.path()).unwrap());
        }
    }
}
