//! Promise: a full disk loses nothing. Writes are refused with `disk_full`
//! while reads, deletes and a snapshot go on; what was acknowledged survives a
//! kill; with room again, writes go on.
//!
//! On a real file system of 24 MiB in memory. Where the test may not mount one
//! it says so and checks nothing.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;
#[path = "common/mount.rs"]
mod mount;

use std::time::Instant;

use common::{Client, Node, Options, PATIENCE};
use mount::SmallDisk;
use serde_json::{Value, json};

const DISK: &str = "24m";
/// What the test lays on the disk beside the node, to take away later.
const FILLER_BYTES: usize = 8 * 1024 * 1024;
const VALUE_BYTES: usize = 10_000;

fn start(disk: &SmallDisk) -> Node {
    let flags = ["--segment-bytes", "262144", "--snapshot-every-bytes", "2097152"];
    Options::in_directory(&disk.path().join("data")).with(&flags).start()
}

fn set(number: usize) -> Value {
    // Hardly compressible, so that snapshots are about as long as what they hold.
    let mut state = number as u64 + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + ((state >> 33) % 90) as u8).to_string().replace(['"', '\\'], "x")
    };
    let value: String = (0..VALUE_BYTES).map(|_| letter()).collect();
    json!({"op": "set", "key": format!("key-{number:05}"), "value": value})
}

/// Sets keys from `number` on until one is refused; gives the refused one's number.
fn write_until_full(client: &mut Client, mut number: usize) -> usize {
    loop {
        let reply = client.call(set(number));
        if reply["ok"] != true {
            let error = &reply["error"];
            assert_eq!((&error["code"], &error["outcome"]), (&json!("disk_full"), &json!("not_applied")));
            return number;
        }
        number += 1;
        assert!(number * VALUE_BYTES < 64 * 1024 * 1024, "more was acknowledged than the disk can hold");
    }
}

/// Exactly the keys of these numbers are there, with their values.
fn expect_keys(client: &mut Client, numbers: std::ops::Range<usize>) {
    let count = client.when_ready(json!({"op": "count"}));
    assert_eq!(count["count"], numbers.len());
    for number in numbers {
        let request = set(number);
        let reply = client.ok(json!({"op": "get", "key": request["key"]}));
        assert!(reply["value"] == request["value"], "key {number} is not what was acknowledged");
    }
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(DISK) else { return println!("SKIPPED") };
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; FILLER_BYTES]).expect("there is room for the filler");
    let node = start(&disk);
    let mut client = node.client();
    let written = write_until_full(&mut client, 0);
    println!("{written} values of {VALUE_BYTES} bytes were acknowledged before the disk was full");
    assert!(written > 50, "full after {written} writes");

    // Reads and deletes go on, and so does what gives room back.
    expect_keys(&mut client, 0..written);
    assert_eq!(client.ok(json!({"op": "delete", "key": set(0)["key"]}))["deleted"], true);
    assert_eq!(client.ok(json!({"op": "bulk_delete", "keys": [set(1)["key"], set(2)["key"]]}))["count"], 2);
    client.ok(json!({"op": "snapshot"}));
    assert_eq!(client.ok(json!({"op": "stats"}))["wal"]["sync_failures"], 0);

    drop(node); // SIGKILL
    let node = start(&disk);
    let mut client = node.client();
    expect_keys(&mut client, 3..written);
    let written = write_until_full(&mut client, written);
    expect_keys(&mut client, 3..written);

    std::fs::remove_file(&filler).expect("the filler is the test's own");
    let deadline = Instant::now() + PATIENCE;
    while client.call(set(written))["ok"] != true {
        assert!(Instant::now() < deadline, "there is room again, and writes are still refused");
        std::thread::yield_now();
    }
    drop(node);
    expect_keys(&mut start(&disk).client(), 3..written + 1);
}

#[test]
fn a_disk_that_others_fill_to_the_last_byte_loses_nothing() {
    let Some(disk) = SmallDisk::mount(DISK) else { return println!("SKIPPED") };
    let node = start(&disk);
    let mut client = node.client();
    let before = 100;
    (0..before).for_each(|number| drop(client.ok(set(number))));
    let filler = disk.path().join("filler");
    fill_to_the_last_byte(&filler);
    let written = write_until_full(&mut client, before);
    println!("{} writes found room in what was prepared", written - before);
    expect_keys(&mut client, 0..written);
    // Whatever a delete is answered on a disk without a byte, it is true.
    let deleted = client.call(json!({"op": "delete", "key": set(0)["key"]}));
    assert!(deleted["ok"] == true || deleted["error"]["outcome"] == "not_applied", "{deleted}");
    let first = usize::from(deleted["ok"] == true);
    expect_keys(&mut client, first..written);

    // It starts, without one free byte: for reads, and for deletes as far as the log has room already.
    let options = node.kill();
    fill_to_the_last_byte(&disk.path().join("more"));
    let mut node = options.start();
    assert!(node.log().contains("THE DISK IS FULL"), "{}", node.log());
    let mut client = node.client();
    expect_keys(&mut client, first..written);
    // What the start gave back, of a spare, is taken as well.
    fill_to_the_last_byte(&disk.path().join("rest"));
    let written = write_until_full(&mut client, written);
    let mut deleted = first;
    while client.call(json!({"op": "delete", "key": set(deleted)["key"]}))["ok"] == true {
        deleted += 1;
        if deleted == written {
            break;
        }
    }
    println!("{} deletes found room in the log's last segment", deleted - first);
    assert!(deleted > first, "a delete is shorter than the write that found no room");
    expect_keys(&mut client, deleted..written);
    drop(node);

    std::fs::remove_file(&filler).expect("the filler is the test's own");
    let node = start(&disk);
    let mut client = node.client();
    expect_keys(&mut client, deleted..written);
    client.ok(set(written));
}

fn fill_to_the_last_byte(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file takes no room yet");
    for chunk in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; chunk]).is_ok() {}
    }
}
