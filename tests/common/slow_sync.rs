//! Disks that take their time for a sync.
//!
//! The syncs of a node are held up by a small library that is loaded before the
//! system's own (`LD_PRELOAD`), for as long as a file exists. It takes a C compiler,
//! and Linux.

#![allow(dead_code)] // each test file uses its part

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cluster::Cluster;
use super::cluster::network::Id;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int is_meant(int file) {
    const char *wanted = getenv("DATASTORE_TEST_SLOW_SYNC_OF");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return !wanted || strstr(path, wanted) != NULL;
}
int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *slow = getenv("DATASTORE_TEST_SLOW_SYNC");
    int meant = slow && is_meant(file);
    for (int i = 0; i < STEPS && meant && access(slow, F_OK) == 0; i++) usleep(10000);
    return real(file);
}
"#;

/// Between two looks whether the file still exists; as in the source.
const STEP: Duration = Duration::from_millis(10);

/// A disk that is slow when it is told to be.
pub struct SlowSync {
    directory: tempfile::TempDir,
    library: PathBuf,
    of: Option<String>,
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
            return Some(SlowSync { directory, library, of: None });
        }
        println!("skipped: no C compiler, or not on Linux");
        None
    }

    /// Only of files whose path has this in it.
    pub fn only_of(self, part: &str) -> SlowSync {
        SlowSync { of: Some(part.into()), ..self }
    }

    fn switch(&self) -> PathBuf {
        self.directory.path().join("slow")
    }

    /// Gives it to a node that doesn't run yet.
    pub fn give_to(&self, cluster: &mut Cluster, id: Id) {
        let variables = self.variables();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, text)| (*name, text.as_str())).collect();
        cluster.set_environment(id, &variables);
    }

    /// A command that becomes a node with it.
    pub fn through(&self) -> Vec<String> {
        let variables = self.variables().into_iter().map(|(name, text)| format!("{name}={text}"));
        ["env".to_string()].into_iter().chain(variables).collect()
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let switch = self.switch();
        let variables = [("LD_PRELOAD", self.library.as_path()), ("DATASTORE_TEST_SLOW_SYNC", &switch)];
        let text = |path: &Path| path.to_str().expect("a plain path").to_string();
        let mut variables = variables.map(|(name, path)| (name, text(path))).to_vec();
        variables.extend(self.of.iter().map(|part| ("DATASTORE_TEST_SLOW_SYNC_OF", part.clone())));
        variables
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
