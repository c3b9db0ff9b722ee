//! Promise: a disk that takes seconds for a sync is no reason for an election: the
//! node's heartbeats go on, whoever it is, and what it owes comes when the disk is done.
//!
//! The syncs of one node are held up by a small library that is loaded before the
//! system's own (`LD_PRELOAD`), for as long as a file exists. Without a C compiler, or
//! elsewhere than on Linux, the tests say so and skip.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cluster::Cluster;
use cluster::network::Id;
use serde_json::{Value, json};

/// Much longer than an election timeout.
const SYNC_SECONDS: u64 = 5;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *slow = getenv("DATASTORE_TEST_SLOW_SYNC");
    if (slow && access(slow, F_OK) == 0) sleep(SECONDS);
    return real(file);
}
"#;

/// Builds the library; `None` where that can't be done.
fn slow_sync_library(directory: &Path) -> Option<PathBuf> {
    let (source, library) = (directory.join("slow_sync.c"), directory.join("slow_sync.so"));
    std::fs::write(&source, SOURCE.replace("SECONDS", &SYNC_SECONDS.to_string())).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    (cfg!(target_os = "linux") && built.is_ok_and(|status| status.success())).then_some(library)
}

/// A cluster whose node `slow` has syncs of seconds while the file given back exists.
fn cluster_with_a_slow_disk(slow: Id) -> Option<(Cluster, tempfile::TempDir, PathBuf)> {
    let directory = common::temporary_directory();
    let Some(library) = slow_sync_library(directory.path()) else {
        println!("skipped: no C compiler, or not on Linux");
        return None;
    };
    let switch = directory.path().join("slow");
    let mut cluster = Cluster::prepared(3, &[]);
    let variables = [("LD_PRELOAD", library.as_path()), ("DATASTORE_TEST_SLOW_SYNC", switch.as_path())];
    cluster.set_environment(slow, &variables.map(|(name, path)| (name, path.to_str().unwrap())));
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("all have caught up", |cluster| cluster.members_serving().len() == 3);
    Some((cluster, directory, switch))
}

fn terms(cluster: &Cluster) -> Vec<Value> {
    cluster.ids().iter().map(|id| cluster.view(*id).expect("it answers")["term"].clone()).collect()
}

fn set(number: u64) -> Value {
    json!({"op": "set", "key": format!("k{number}"), "value": number})
}

#[test]
fn a_replica_whose_sync_takes_seconds_holds_nobody_up() {
    let Some((mut cluster, _directory, switch)) = cluster_with_a_slow_disk(3) else { return };
    let before = terms(&cluster);
    std::fs::write(&switch, "").unwrap();
    let began = Instant::now();
    let mut acknowledged = 0;
    while began.elapsed() < Duration::from_secs(SYNC_SECONDS + 1) {
        // The other two are a majority; a bound on each reply is the harness's.
        let reply = cluster.call(1, &set(acknowledged)).expect("it answers while a replica's disk is slow");
        assert_eq!(reply["ok"], true, "{reply}");
        acknowledged += 1;
        assert_eq!(terms(&cluster), before, "an election, for a slow disk");
    }
    std::fs::remove_file(&switch).unwrap();
    assert_eq!(cluster.converge().len() as u64, acknowledged);
    assert_eq!(terms(&cluster), before);
}

#[test]
fn a_primary_whose_sync_takes_seconds_stays_primary() {
    let Some((mut cluster, _directory, switch)) = cluster_with_a_slow_disk(1) else { return };
    let before = terms(&cluster);
    std::fs::write(&switch, "").unwrap();
    let began = Instant::now();
    // Its clients wait longer than the harness does; what they wrote must be there in the end.
    for number in 0..3 {
        let reply = cluster.call(1, &set(number));
        assert!(reply.is_err() || reply.is_ok_and(|reply| reply["ok"] == true));
        assert_eq!(terms(&cluster), before, "an election, for a slow disk");
    }
    assert!(began.elapsed() > Duration::from_secs(SYNC_SECONDS / 2), "the disk was slow");
    std::fs::remove_file(&switch).unwrap();
    cluster.wait_until("the writes are there", |cluster| {
        let reply = cluster.call(1, &json!({"op": "count"}));
        reply.is_ok_and(|reply| reply["count"] == 3)
    });
    assert_eq!(terms(&cluster), before);
    cluster.converge();
}
