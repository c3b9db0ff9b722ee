//! Promise: a node knows how much room its snapshots will take and where that room is, and finds its way out of a full
//! disk by itself, when keys are deleted or room is given.
//!
//! On small file systems in memory. Where the test may not mount one it says so and checks nothing.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;
#[path = "common/log_files.rs"]
mod log_files;
#[path = "common/mount.rs"]
mod mount;

use std::path::Path;
use std::time::Instant;

use common::{Client, Node, Options, PATIENCE, temporary_directory};
use mount::SmallDisk;
use serde_json::{Value, json};

/// Numbers of a vector: as embeddings have them.
const LENGTH: usize = 1_536;

/// As models give them: of length 1, with all the digits that 32 bits have.
fn vector(number: usize) -> Vec<f32> {
    let mut state = number as u64 + 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f32 / (1_u64 << 31) as f32 * 2.0 - 1.0) * 0.044
    };
    (0..LENGTH).map(|_| draw()).collect()
}

fn add(number: usize) -> Value {
    json!({"op": "add_vector", "key": format!("vector-{number:05}"), "vector": vector(number)})
}

/// Adds vectors from `number` on until one is refused; gives the refused one's number.
fn add_until_full(client: &mut Client, mut number: usize) -> usize {
    loop {
        let reply = client.call(add(number));
        if reply["ok"] != true {
            let error = &reply["error"];
            assert_eq!((&error["code"], &error["outcome"]), (&json!("disk_full"), &json!("not_applied")));
            return number;
        }
        number += 1;
        assert!(number < 100_000, "more was acknowledged than the disk can hold");
    }
}

fn stats(client: &mut Client) -> Value {
    client.ok(json!({"op": "stats"}))
}

fn until(client: &mut Client, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = stats(client);
        if is_so(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "never: {what}\n{stats}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn start(directory: &Path, compression: &str) -> Node {
    let flags = ["--segment-bytes", "1048576", "--snapshot-compression", compression, "--indexes", "none"];
    Options::in_directory(directory).with(&flags).start()
}

/// A vector's text is three times what it is in memory and in the log.
#[test]
fn a_disk_full_of_vectors_has_room_for_their_snapshot() {
    for compression in ["none", "zstd"] {
        let Some(disk) = SmallDisk::mount("48m") else { return println!("SKIPPED") };
        let node = start(&disk.path().join("data"), compression);
        let mut client = node.client();
        let mut added = add_until_full(&mut client, 0);
        println!("{compression}: full after {added} vectors");
        assert!(added > 500, "{added}");
        // Full, it made one by itself: else the log couldn't be cut.
        let made =
            until(&mut client, "a snapshot", |stats| stats["wal"]["snapshot"]["made"].as_u64() > Some(0));
        assert_eq!(made["wal"]["snapshot"]["failed"], 0, "{made}");
        until(&mut client, "the log was cut", |stats| stats["wal"]["bytes"].as_u64() < Some(4 << 20));
        for _ in 0..3 {
            added = add_until_full(&mut client, added);
            let told = client.ok(json!({"op": "snapshot"}));
            println!("{compression}: {added} vectors, a snapshot of {} bytes", told["bytes"]);
        }
        drop(node);
        let node = start(&disk.path().join("data"), compression);
        assert_eq!(node.client().when_ready(json!({"op": "count"}))["count"], added);
    }
}

/// Others have taken what was kept free for a snapshot, so that the log can't be cut. Deletes go on, and when less is
/// to be kept, what is left gets its snapshot without anyone's asking.
#[test]
fn a_disk_without_room_for_a_snapshot_gets_one_when_keys_are_deleted_or_room_is_given() {
    for (compression, gives_room) in [("none", false), ("zstd", false), ("zstd", true)] {
        let Some(disk) = SmallDisk::mount("64m") else { return println!("SKIPPED") };
        let node = start(&disk.path().join("data"), compression);
        let mut client = node.client();
        let count = 2_000;
        (0..count).for_each(|number| drop(client.ok(add(number))));
        let filler = disk.path().join("filler");
        leave_free(&filler, &disk.path(), 3 << 20);
        let full = until(&mut client, "the disk is full", |stats| stats["node"]["disk_full"] == true);
        assert!(full["wal"]["bytes"].as_u64() > Some(10 << 20), "{full}");
        if gives_room {
            // Enough for a snapshot, and too little for the reserve.
            let room = std::fs::metadata(&filler).unwrap().len() - (18 << 20);
            std::fs::File::options().write(true).open(&filler).unwrap().set_len(room).unwrap();
        } else {
            (0..count - 40).for_each(|number| {
                let key = format!("vector-{number:05}");
                assert_eq!(client.ok(json!({"op": "delete", "key": key}))["deleted"], true);
            });
        }
        let out =
            until(&mut client, "the log was cut", |stats| stats["wal"]["bytes"].as_u64() < Some(4 << 20));
        println!("{compression}, room given {gives_room}: {}", out["wal"]["snapshot"]);
        drop(node);
        let left = if gives_room { count } else { 40 };
        let node = start(&disk.path().join("data"), compression);
        assert_eq!(node.client().when_ready(json!({"op": "count"}))["count"], left);
    }
}

/// Fills the disk but for so many bytes.
fn leave_free(filler: &Path, disk: &Path, bytes: u64) {
    let figures = rustix::fs::statvfs(disk).expect("a file system");
    let free = figures.f_bavail * figures.f_frsize;
    std::fs::write(filler, vec![1; (free - bytes) as usize]).expect("it fits");
}

/// The log's volume is small, that of the directory is not: what lets the log be cut is made in time, for ever.
#[test]
fn a_log_on_a_volume_of_its_own_is_measured_there() {
    let Some(disk) = SmallDisk::mount("12m") else { return println!("SKIPPED") };
    let directory = temporary_directory();
    std::os::unix::fs::symlink(disk.path(), directory.path().join("log")).expect("a link");
    let node = start(directory.path(), "zstd");
    let mut client = node.client();
    let value = "x".repeat(100_000);
    let deadline = Instant::now() + PATIENCE;
    let mut taken = 0;
    while taken < 400 {
        let reply = client.call(json!({"op": "set", "key": format!("key-{}", taken % 10), "value": value}));
        if reply["ok"] == true {
            taken += 1;
        } else {
            assert_eq!(reply["error"]["code"], "disk_full", "{reply}");
            assert!(Instant::now() < deadline, "the log's volume stays full after {taken} writes");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    let stats = stats(&mut client);
    assert_eq!(stats["wal"]["sync_failures"], 0, "no frame met a full disk: {stats}");
}

/// Two snapshots with nothing between them are one copy.
#[test]
fn of_snapshots_without_a_write_between_them_one_may_be_damaged() {
    let directory = temporary_directory();
    let options = || Options::in_directory(directory.path()).with(&["--segment-bytes", "65536"]);
    let node = options().start();
    let mut client = node.client();
    let filler = "x".repeat(20_000);
    for number in 0..16 {
        client.ok(json!({"op": "set", "key": format!("key-{number:02}"), "value": filler}));
    }
    for _ in 0..3 {
        client.ok(json!({"op": "snapshot"}));
    }
    drop(node);
    for snapshot in log_files::snapshots(directory.path()) {
        log_files::flip(&snapshot, std::fs::read(&snapshot).unwrap().len() / 2);
        let node = options().start();
        assert_eq!(node.client().when_ready(json!({"op": "count"}))["count"], 16);
        drop(node);
    }
}

/// What the disk doesn't give now is not damaged, and must not be taken for that.
#[test]
fn a_snapshot_that_can_t_be_read_stays_where_it_is_and_the_start_says_why() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    for number in 0..2 {
        client.ok(json!({"op": "set", "key": format!("key-{number}"), "value": number}));
        client.ok(json!({"op": "snapshot"}));
    }
    drop(node);
    let newest = log_files::snapshots(directory.path()).pop().expect("a snapshot");
    let elsewhere = directory.path().join("elsewhere");
    std::fs::rename(&newest, &elsewhere).expect("it can be moved");
    std::os::unix::fs::symlink(&newest, &newest).expect("a link to itself, which nobody can open");
    let Err((status, said)) = Options::in_directory(directory.path()).try_start() else {
        panic!("an older snapshot was taken")
    };
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(newest.file_name().unwrap().to_str().unwrap()), "{said}");
    assert!(said.contains("symbolic links"), "the system's own words: {said}");
    assert!(newest.is_symlink(), "it was renamed");
    std::fs::rename(&elsewhere, &newest).expect("it is back");
    let node = Options::in_directory(directory.path()).start();
    assert_eq!(node.client().when_ready(json!({"op": "count"}))["count"], 2);
    assert_eq!(log_files::snapshots(directory.path()).len(), 2);
}

/// Every file and directory beneath, with who may do what.
fn modes(path: &Path, found: &mut Vec<(String, u32)>) {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).expect("it is there");
    found.push((path.display().to_string(), metadata.permissions().mode() & 0o777));
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            modes(&entry.expect("an entry").path(), found);
        }
    }
}

#[test]
fn what_a_node_makes_is_its_owner_s_alone_and_a_directory_that_others_can_read_is_said() {
    let directory = temporary_directory();
    let data = directory.path().join("new").join("data");
    let mut node = Options::in_directory(&data).start();
    let mut client = node.client();
    client.ok(json!({"op": "set", "key": "k", "value": 1}));
    client.ok(json!({"op": "snapshot"}));
    assert!(!node.log().contains("OTHERS CAN READ"));
    drop(node);
    let mut found = Vec::new();
    modes(&directory.path().join("new"), &mut found);
    assert!(found.len() > 6, "{found:?}");
    for (path, mode) in found {
        let expected = if Path::new(&path).is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{path} has mode {mode:o}");
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut node = Options::in_directory(&data).start();
    let said = node.wait_for_log("OTHERS CAN READ");
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o755, "it is not changed");
}
