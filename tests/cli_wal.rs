//! `wal verify` and `wal dump`: they say what a start would find, and change nothing.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cli.rs"]
mod cli;
mod common;
#[path = "common/log_files.rs"]
mod log_files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cli::{Ran, ok, run};
use common::{Options, PATIENCE, temporary_directory};
use log_files::{flip, frames, overwrite, segments, snapshots};
use serde_json::{Value, json};

/// Every file below a directory: its bytes, and when it was changed.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let changed = path.metadata().unwrap().modified().unwrap();
            found.insert(path.clone(), (std::fs::read(&path).unwrap(), changed));
        }
    }
    found
}

/// Runs a tool on a directory, which must stay as it is.
fn unchanged(directory: &Path, arguments: &[&str]) -> Ran {
    let before = contents(directory);
    let arguments = [&["wal", arguments[0], directory.to_str().unwrap()], &arguments[1..]].concat();
    let ran = run(([127, 0, 0, 1], 1).into(), &arguments);
    assert!(contents(directory) == before, "{arguments:?} changed the directory");
    ran
}

/// A directory whose node was killed, with several segments: 16 sets of 20 kB,
/// a vector and a delete, and an idle frame behind them.
fn killed(directory: &Path) {
    let node = Options::in_directory(directory).with(&["--segment-bytes", "65536"]).start();
    let mut client = node.client();
    let filler = "x".repeat(20_000);
    for number in 0..16 {
        client.ok(json!({"op": "set", "key": format!("key-{number:02}"), "value": filler}));
    }
    client.ok(json!({"op": "add_vector", "key": "key-00", "vector": [1, -0.5]}));
    client.ok(json!({"op": "delete", "key": "key-01"}));
    let deadline = Instant::now() + PATIENCE;
    while frames(segments(directory).last().unwrap()).last().is_none_or(|frame| frame.entries > 0) {
        assert!(Instant::now() < deadline, "an idle log never wrote its empty frame");
        std::thread::yield_now();
    }
    node.kill();
}

fn name_of(segment: &Path) -> String {
    format!("log/{}", segment.file_name().unwrap().to_str().unwrap())
}

#[test]
fn a_killed_nodes_log_is_whole_and_every_write_is_there() {
    let directory = temporary_directory();
    killed(directory.path());
    let verified = unchanged(directory.path(), &["verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_eq!(verified.stdout.lines().count(), segments(directory.path()).len());
    assert!(verified.stdout.lines().all(|line| line.ends_with("\tclean")), "{verified:?}");

    let lines = unchanged(directory.path(), &["verify", "--json"]).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, segments) = lines.split_last().unwrap();
    assert_eq!((&summary["last_index"], &summary["problems"]), (&json!(18), &json!([])));
    let entries: u64 = segments.iter().map(|segment| segment["entries"].as_u64().unwrap()).sum();
    assert_eq!(entries, 18);
    assert_eq!((&segments[0]["first_index"], &segments[0]["end"]), (&json!(1), &json!("clean")));

    let dumped = unchanged(directory.path(), &["dump"]);
    assert_eq!((dumped.code, dumped.stdout.lines().count()), (Some(0), 18), "{dumped:?}");
    let end = unchanged(directory.path(), &["dump", "--from", "17"]).stdout;
    assert_eq!(end, "17\t1\t17.0\tadd_vector\tkey-00\t[1.0,-0.5]\n18\t1\t18.0\tdelete\tkey-01\t\n");
    let one = unchanged(directory.path(), &["dump", "--key", "key-00", "--to", "17", "--json"]).stdout;
    let one: Vec<Value> = one.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(one.len(), 2);
    assert_eq!((&one[0]["op"], &one[0]["value"]), (&json!("set"), &json!("x".repeat(20_000))));
    assert_eq!(
        one[1],
        json!({"index": 17, "term": 1, "version": "17.0", "op": "add_vector", "key": "key-00", "vector": [1.0, -0.5]})
    );
}

/// What stands in lines of a dump, as a pipe gets it.
fn rows(dumped: &str) -> Vec<Vec<&str>> {
    dumped.lines().map(|line| line.split('\t').collect()).collect()
}

#[test]
fn a_log_of_dynamo_mode_is_read_with_its_streams_and_the_versions_that_were_answered() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--mode", "dynamo", "--shards", "1"]).start();
    let mut client = node.client();
    let set = client.ok(json!({"op": "set", "key": "k", "value": "x"}));
    let vector = client.ok(json!({"op": "add_vector", "key": "k", "vector": [1, -0.5]}));
    let bulk = client.ok(json!({"op": "bulk_set", "records": [["k", 1], ["l", 2]]}));
    client.ok(json!({"op": "delete", "key": "l"}));
    node.kill();
    let version = |reply: &Value| reply["version"].as_str().unwrap().to_string();
    let (set, vector, bulk) = (version(&set), version(&vector), version(&bulk));

    assert_eq!(unchanged(directory.path(), &["verify"]).code, Some(0));
    let dumped = unchanged(directory.path(), &["dump"]);
    assert_eq!(dumped.code, Some(0), "{dumped:?}");
    let lines = rows(&dumped.stdout);
    assert!(lines.iter().all(|line| line.len() == 7 && line[1] == lines[0][1]), "one stream: {lines:?}");
    assert_eq!((lines[0][2], lines[0][4]), ("1", "members"), "it begins with whose it is");
    assert!(lines[0][6].starts_with(r#"{"begin":{"#), "{lines:?}");
    let of_keys = lines.iter().filter(|line| !["members", "watermark"].contains(&line[4]));
    let writes: Vec<[&str; 4]> = of_keys.map(|line| [line[3], line[4], line[5], line[6]]).collect();
    let (delete, rest) = writes.split_last().unwrap();
    let expected = [
        [&set, "set", "k", r#""x""#],
        [&vector, "add_vector", "k", "[1.0,-0.5]"],
        [&bulk, "set", "k", "1"],
        [&bulk, "set", "l", "2"],
    ];
    assert_eq!((rest, &delete[1..]), (&expected[..], &["delete", "l", ""][..]));

    let one = unchanged(directory.path(), &["dump", "--key", "k", "--json"]).stdout;
    let one: Vec<Value> = one.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(one.len(), 3, "{one:?}");
    let place = lines.iter().find(|line| line[3] == set).unwrap();
    let number = |text: &str| text.parse::<u64>().unwrap();
    assert_eq!(
        one[0],
        json!({"index": number(place[0]), "origin": number(place[1]), "sequence": number(place[2]),
            "version": set, "op": "set", "key": "k", "value": "x"})
    );
}

#[test]
fn a_flipped_byte_is_damage_and_what_lies_behind_it_is_still_read() {
    let directory = temporary_directory();
    killed(directory.path());
    let damaged = segments(directory.path())[1].clone();
    let frame = frames(&damaged).into_iter().find(|frame| frame.entries > 0).unwrap();
    flip(&damaged, frame.offset + 100);
    let said = format!(
        "{} is damaged at byte {}, where entry {} was expected",
        name_of(&damaged),
        frame.offset,
        frame.first_index
    );
    let verified = unchanged(directory.path(), &["verify"]);
    assert_eq!(verified.code, Some(7), "{verified:?}");
    assert!(verified.stderr.starts_with("damaged: ") && verified.stderr.contains(&said), "{verified:?}");
    let ends: Vec<&str> = verified.stdout.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
    assert!(ends[1].starts_with(&format!("damaged at byte {}", frame.offset)), "{ends:?}");
    assert!(ends.iter().enumerate().all(|(place, end)| place == 1 || *end == "clean"), "{ends:?}");

    let dumped = unchanged(directory.path(), &["dump"]);
    assert_eq!(dumped.code, Some(7));
    assert!(dumped.stdout.contains("\n18\t1\t18.0\tdelete\tkey-01\t\n"), "the last write is legible");
    assert!(!dumped.stdout.contains(&format!("\n{}\t1\t", frame.first_index)), "the damaged one is not");

    // A start says the same.
    let Err((_, log)) = Options::in_directory(directory.path()).try_start() else { panic!("it was served") };
    assert!(log.contains(&said), "{said}\n{log}");
}

#[test]
fn a_damaged_header_and_a_missing_segment_are_damage() {
    let directory = temporary_directory();
    killed(directory.path());
    let second = segments(directory.path())[1].clone();
    flip(&second, 40);
    let verified = unchanged(directory.path(), &["verify"]);
    assert_eq!(verified.code, Some(7), "{verified:?}");
    assert!(verified.stderr.contains("00000002.wal is damaged at byte 0"), "{verified:?}");
    std::fs::remove_file(second).unwrap();
    let verified = unchanged(directory.path(), &["verify"]);
    assert_eq!(verified.code, Some(7), "{verified:?}");
    assert!(verified.stderr.contains("00000002.wal") && verified.stderr.contains("missing"), "{verified:?}");
}

#[test]
fn a_torn_tail_is_said_and_is_no_damage() {
    let directory = temporary_directory();
    killed(directory.path());
    let segment = segments(directory.path()).pop().unwrap();
    let last = frames(&segment).pop().unwrap();
    let end = last.offset + last.bytes;
    overwrite(&segment, end, b"a write that never came to its end");
    let verified = unchanged(directory.path(), &["verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.stdout.contains(&format!("\ttorn at byte {end}: 34 bytes")), "{verified:?}");
    assert!(verified.stdout.contains("no damage"), "{verified:?}");
    assert_eq!(unchanged(directory.path(), &["dump"]).code, Some(0));
}

#[test]
fn a_damaged_snapshot_is_named() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    ok(node.address, &["set", "k", "1"]);
    ok(node.address, &["snapshot"]);
    node.kill();
    let verified = unchanged(directory.path(), &["verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.stdout.lines().last().unwrap().ends_with("\twhole"), "{verified:?}");
    let snapshot = snapshots(directory.path()).pop().unwrap();
    flip(&snapshot, std::fs::metadata(&snapshot).unwrap().len() as usize / 2);
    let verified = unchanged(directory.path(), &["verify"]);
    assert_eq!(verified.code, Some(7), "{verified:?}");
    assert!(verified.stderr.contains(snapshot.file_name().unwrap().to_str().unwrap()), "{verified:?}");
}

#[test]
fn a_directory_that_is_in_use_or_is_none_is_refused_politely() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let path = directory.path().to_str().unwrap();
    for tool in ["verify", "dump"] {
        let refused = run(node.address, &["wal", tool, path]);
        assert_eq!(refused.code, Some(6), "{refused:?}");
        assert!(refused.stderr.contains("a node uses this directory"), "{refused:?}");
    }
    ok(node.address, &["ping"]);
    let empty = temporary_directory();
    let refused = unchanged(empty.path(), &["verify"]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(refused.stderr.contains("no identity.json"), "{refused:?}");
    assert_eq!(run(node.address, &["wal", "verify", "/nowhere/at/all"]).code, Some(6));
}
