//! A small file system of its own in memory, where the test may mount one.

#![allow(dead_code)] // each test file uses its part

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::temporary_directory;

/// A mounted file system; unmounted when the test drops it.
pub struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, and the reason printed, where the test may not mount.
    pub fn mount(size: &str) -> Option<SmallDisk> {
        let directory = temporary_directory();
        let options = format!("size={size},mode=0755");
        match run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"], directory.path()) {
            Ok(()) => Some(SmallDisk { directory }),
            Err(reason) => {
                println!("a file system can't be mounted here: {reason}");
                None
            }
        }
    }

    /// Lets nobody write any more.
    pub fn make_read_only(&self) {
        run("mount", &["-o", "remount,ro"], self.directory.path()).expect("it can be remounted");
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The node has ended by now; if not, the mount goes when it does.
        let _ = run("umount", &["-l"], self.directory.path());
    }
}

/// Takes all the room that there is.
pub fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    for chunk in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0; chunk]).is_ok() {}
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).arg(path).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
}
