//! Disks that take their time for a sync.
//!
//! The syncs of a node are held up by a small library that is loaded before the
//! system's own (`LD_PRELOAD`), for as long as a file exists. It takes a C compiler,
//! and Linux.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cluster::Cluster;
use super::cluster::network::Id;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *slow = getenv("DATASTORE_TEST_SLOW_SYNC");
    for (int i = 0; i < STEPS && slow && access(slow, F_OK) == 0; i++) usleep(10000);
    return real(file);
}
"#;

/// Between two looks whether the file still exists; as in the source.
const STEP: Duration = Duration::from_millis(10);

/// A disk that is slow when it is told to be.
pub struct SlowSync {
    directory: tempfile::TempDir,
    library: PathBuf,
}

impl SlowSync {
    /// Of syncs that take so long; `None`, and says so, where that can't be had.
    pub fn of(duration: Duration) -> Option<SlowSync> {
        let directory = super::common::temporary_directory();
        let (source, library) = (directory.path().join("slow.c"), directory.path().join("slow.so"));
        let steps = duration.as_millis() / STEP.as_millis();
        std::fs::write(&source, SOURCE.replace("STEPS", &steps.to_string())).expect("a file");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        if cfg!(target_os = "linux") && compile.status().is_ok_and(|status| status.success()) {
            return Some(SlowSync { directory, library });
        }
        println!("skipped: no C compiler, or not on Linux");
        None
    }

    fn switch(&self) -> PathBuf {
        self.directory.path().join("slow")
    }

    /// Gives it to a node that doesn't run yet.
    pub fn give_to(&self, cluster: &mut Cluster, id: Id) {
        let switch = self.switch();
        let variables = [("LD_PRELOAD", self.library.as_path()), ("DATASTORE_TEST_SLOW_SYNC", &switch)];
        let text = |path: &Path| path.to_str().expect("a plain path").to_string();
        let variables = variables.map(|(name, path)| (name, text(path)));
        cluster.set_environment(id, &variables.each_ref().map(|(name, path)| (*name, path.as_str())));
    }

    /// Syncs take long from here on.
    pub fn begin(&self) {
        std::fs::write(self.switch(), "").expect("a file");
    }

    /// No longer.
    pub fn end(&self) {
        std::fs::remove_file(self.switch()).expect("it was begun");
    }
}
