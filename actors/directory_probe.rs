//! What a start finds out about its directory before it serves from it.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use datastore::persistence::{FILE_MODE, FileDisk, is_disk_full};

use crate::start_error::StartError;

/// Does once what the log will rely on, so that a read-only or broken directory
/// is found before anything is acknowledged. A full disk is neither: what is there can be read.
pub(crate) fn probe(path: &Path) -> Result<(), StartError> {
    let mut is_full = false;
    let mut done = |step, result: io::Result<()>| match result {
        Err(error) if is_disk_full(&error) => {
            is_full = true;
            Ok(())
        }
        result => result.map_err(|source| StartError::Probe { path: path.to_path_buf(), step, source }),
    };
    let (first, second) = (path.join("probe.new"), path.join("probe"));
    let file = File::options().create(true).truncate(true).write(true).mode(FILE_MODE).open(&first);
    match file {
        Ok(file) => {
            done("write a file", io::Write::write_all(&mut &file, b"probe"))?;
            done("sync a file", file.sync_all())?;
            done("rename a file", std::fs::rename(&first, &second))?;
            done("remove a file", std::fs::remove_file(&second))?;
        }
        Err(error) => done("create a file", Err(error))?,
    }
    done("sync the directory", File::open(path).and_then(|directory| directory.sync_all()))?;
    if is_full {
        tracing::warn!(
            "THE DISK IS FULL: this node serves reads, and deletes as far as the log has room already; free some room"
        );
    }
    Ok(())
}

/// A directory that others may read is their administrator's to change.
pub(crate) fn say_who_may_read(disk: &FileDisk) -> io::Result<()> {
    for path in disk.readable_by_others()? {
        tracing::warn!(
            path = %path.display(),
            "OTHERS CAN READ THE DATA: every user of this machine may enter the directory; its owner alone should (chmod 700)"
        );
    }
    Ok(())
}
