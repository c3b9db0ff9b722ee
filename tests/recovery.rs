//! Promise: a torn tail is cut and said, damage is refused with file, offset
//! and index named, and a start may change shards and indexes without losing
//! anything.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;
#[path = "common/log_files.rs"]
mod log_files;

use std::path::Path;
use std::time::Instant;

use common::{Client, Node, Options, PATIENCE, temporary_directory};
use log_files::{Frame, copies, flip, frames, overwrite, segments, snapshots};
use serde_json::{Value, json};

/// Writes that each take a frame of their own.
const WRITES: u64 = 20;

fn key(number: u64) -> String {
    format!("key-{number:03}")
}

fn write_one_by_one(client: &mut Client, numbers: std::ops::Range<u64>) {
    for number in numbers {
        client.ok(json!({"op": "set", "key": key(number), "value": format!("value {number}")}));
    }
}

/// The directory once more, to try something on.
fn copied(directory: &Path) -> tempfile::TempDir {
    let copy = temporary_directory();
    let from = format!("{}/.", directory.display());
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(copy.path()).status();
    assert!(status.expect("cp runs").success());
    copy
}

/// The keys that are there.
fn keys(node: &Node) -> Vec<String> {
    let mut client = node.client();
    let reply = client.when_ready(json!({"op": "scan", "limit": 10_000}));
    let items = reply["items"].as_array().unwrap_or_else(|| panic!("{reply}"));
    items.iter().map(|item| item["key"].as_str().unwrap().to_string()).collect()
}

fn first_keys(count: u64) -> Vec<String> {
    (0..count).map(key).collect()
}

/// A directory with a log of `WRITES` frames and an idle frame behind them, its node killed.
fn killed_when_idle(directory: &Path) -> Options {
    let node = Options::in_directory(directory).start();
    write_one_by_one(&mut node.client(), 0..WRITES);
    let deadline = Instant::now() + PATIENCE;
    while last_frame(directory).entries != 0 {
        assert!(Instant::now() < deadline, "an idle log never wrote its empty frame");
        std::thread::yield_now();
    }
    node.kill()
}

fn last_frame(directory: &Path) -> Frame {
    let segment = segments(directory).pop().expect("a log has a segment");
    frames(&segment).pop().expect("the log has a frame")
}

fn frame_of_entry(segment: &Path, index: u64) -> Frame {
    let frames = frames(segment);
    frames.into_iter().find(|frame| frame.entries > 0 && frame.first_index == index).expect("its frame")
}

#[test]
fn garbage_behind_the_last_frame_is_cut_and_said_once() {
    let directory = temporary_directory();
    let options = killed_when_idle(directory.path());
    let segment = segments(directory.path()).pop().unwrap();
    let last = last_frame(directory.path());
    overwrite(&segment, last.offset + last.bytes, b"a write that never came to its end");

    let mut node = options.start();
    let said = node.wait_for_log("was cut from the log");
    let segment_file = segment.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(segment_file), "names the segment: {said}");
    assert!(said.contains(&(last.offset + last.bytes).to_string()), "names the offset: {said}");
    assert_eq!(keys(&node), first_keys(WRITES));
    assert_eq!(copies(directory.path(), "torn-"), 1, "the tail is kept aside");

    write_one_by_one(&mut node.client(), WRITES..WRITES + 5);
    let mut node = node.kill().start();
    assert_eq!(keys(&node), first_keys(WRITES + 5));
    assert!(!node.log().contains("was cut from the log"), "said again, with nothing cut");
}

#[test]
fn a_last_frame_that_is_not_whole_is_cut_and_all_before_it_stays() {
    let directory = temporary_directory();
    let options = killed_when_idle(directory.path());
    let segment = segments(directory.path()).pop().unwrap();
    let idle = last_frame(directory.path());
    // Without the empty frame behind it, the last write can't be told from one cut short.
    overwrite(&segment, idle.offset, &vec![0; idle.bytes]);
    let torn = last_frame(directory.path());
    flip(&segment, torn.offset + torn.bytes - 9);

    let mut node = options.start();
    node.wait_for_log("was cut from the log");
    assert_eq!(keys(&node), first_keys(WRITES - 1));
}

#[test]
fn damage_in_the_middle_is_refused_and_cut_only_when_told_to() {
    let directory = temporary_directory();
    let options = killed_when_idle(directory.path());
    let segment = segments(directory.path()).pop().unwrap();
    let damaged = frame_of_entry(&segment, 8);
    flip(&segment, damaged.offset + damaged.bytes - 9);

    let Err((status, said)) = options.try_start() else { panic!("a damaged log was served") };
    assert_eq!(status.code(), Some(1), "{said}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    let expected = format!("log/{name} is damaged at byte {}, where entry 8 was expected", damaged.offset);
    assert!(said.contains(&expected), "{expected}\n{said}");

    // A refused start has changed nothing.
    let options = Options::in_directory(directory.path());
    let Err((_, again)) = options.try_start() else { panic!("a damaged log was served") };
    assert!(again.contains(&expected), "{again}");

    let options = Options::in_directory(directory.path()).with(&["--truncate-damaged-log"]);
    let mut node = options.start();
    node.wait_for_log("DAMAGED LOG CUT");
    assert_eq!(keys(&node), first_keys(7));
    write_one_by_one(&mut node.client(), 7..9);
    drop(node);
    assert_eq!(keys(&Options::in_directory(directory.path()).start()), first_keys(9));
}

#[test]
fn the_last_write_is_known_to_be_durable_once_the_log_was_idle() {
    let directory = temporary_directory();
    let options = killed_when_idle(directory.path());
    let segment = segments(directory.path()).pop().unwrap();
    let last = frame_of_entry(&segment, WRITES);
    flip(&segment, last.offset + last.bytes - 9);
    let Err((status, said)) = options.try_start() else { panic!("a damaged log was served") };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&format!("where entry {WRITES} was expected")), "{said}");
}

#[test]
fn a_segment_that_is_missing_or_has_a_bad_header_is_refused() {
    let directory = temporary_directory();
    let small = ["--segment-bytes", "65536"];
    let node = Options::in_directory(directory.path()).with(&small).start();
    let filler = "x".repeat(20_000);
    for number in 0..16 {
        node.client().ok(json!({"op": "set", "key": key(number), "value": filler}));
    }
    let options = node.kill();
    let segments = segments(directory.path());
    assert!(segments.len() > 3, "{segments:?}");

    let kept = std::fs::read(&segments[1]).unwrap();
    flip(&segments[1], 40);
    let Err((status, said)) = options.try_start() else { panic!("a damaged header was served") };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("00000002.wal is damaged at byte 0"), "{said}");

    drop(Options::in_directory(copied(directory.path()).path()).with(&["--truncate-damaged-log"]).start());

    std::fs::remove_file(&segments[1]).unwrap();
    let Err((status, said)) = Options::in_directory(directory.path()).try_start() else {
        panic!("a log with a hole was served")
    };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("00000002.wal") && said.contains("missing"), "{said}");

    std::fs::write(&segments[1], kept).unwrap();
    assert_eq!(keys(&Options::in_directory(directory.path()).start()), first_keys(16));
}

#[test]
fn a_log_or_an_identity_that_is_gone_never_starts_empty() {
    let directory = temporary_directory();
    drop(killed_when_idle(directory.path()));
    let identity = directory.path().join("identity.json");
    let kept = std::fs::read(&identity).unwrap();
    std::fs::remove_file(&identity).unwrap();
    let Err((status, said)) = Options::in_directory(directory.path()).try_start() else {
        panic!("a directory without its identity was served")
    };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("has no identity file"), "{said}");

    std::fs::write(&identity, kept).unwrap();
    segments(directory.path()).iter().for_each(|segment| std::fs::remove_file(segment).unwrap());
    let Err((status, said)) = Options::in_directory(directory.path()).try_start() else {
        panic!("a directory without its log was served")
    };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("has no segment"), "{said}");
}

#[test]
fn deletes_survive_snapshots_and_restarts() {
    let directory = temporary_directory();
    let mut node = Options::in_directory(directory.path()).start();
    for round in 0..3 {
        let mut client = node.client();
        write_one_by_one(&mut client, 0..WRITES);
        client.ok(json!({"op": "add_vector", "key": key(0), "vector": [1, 2]}));
        // One deleted before the snapshot, one behind it, and each once more over the log.
        assert_eq!(client.ok(json!({"op": "delete", "key": key(0)}))["deleted"], true);
        client.ok(json!({"op": "snapshot"}));
        assert_eq!(client.ok(json!({"op": "bulk_delete", "keys": [key(1), key(2), "absent"]}))["count"], 2);
        node = node.kill().start();
        assert_eq!(keys(&node), first_keys(WRITES)[3..], "round {round}");
        let mut client = node.client();
        assert_eq!(client.ok(json!({"op": "get_vector", "key": key(0)}))["found"], false);
        assert_eq!(client.ok(json!({"op": "search_by_value", "value": "value 1"}))["keys"], json!([]));
    }
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--segment-bytes", "65536"]).start();
    let mut client = node.client();
    for part in 0..4 {
        write_one_by_one(&mut client, part * WRITES..(part + 1) * WRITES);
        client.ok(json!({"op": "snapshot"}));
    }
    let options = node.kill();
    let kept = snapshots(directory.path());
    assert_eq!(kept.len(), 2, "two are kept");
    flip(&kept[1], std::fs::read(&kept[1]).unwrap().len() / 2);

    let mut node = options.start();
    let said = node.wait_for_log("a snapshot that can't be used was set aside");
    assert!(said.contains(kept[1].file_name().unwrap().to_str().unwrap()), "{said}");
    assert_eq!(keys(&node), first_keys(4 * WRITES));

    // It doesn't count as one of the two that are kept: the good one stays beside a new one.
    write_one_by_one(&mut node.client(), 4 * WRITES..4 * WRITES + 1);
    node.client().ok(json!({"op": "snapshot"}));
    let node = node.kill();
    assert!(kept[0].exists() && !kept[1].exists(), "{:?}", snapshots(directory.path()));
    assert_eq!(keys(&node.start()), first_keys(4 * WRITES + 1));
}

#[test]
fn damage_before_a_snapshot_is_cut_when_told_to_and_the_snapshot_with_it() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    write_one_by_one(&mut client, 0..10);
    client.ok(json!({"op": "snapshot"}));
    write_one_by_one(&mut client, 10..20);
    client.ok(json!({"op": "snapshot"}));
    write_one_by_one(&mut client, 20..30);
    drop(node);
    let segment = segments(directory.path()).pop().unwrap();
    // Damage before the second snapshot leaves the first one, damage before both the log alone.
    for (entry, left, snapshots_left) in [(15, 14, 1), (5, 4, 0)] {
        let copy = copied(directory.path());
        let segment = copy.path().join("log").join(segment.file_name().unwrap());
        let damaged = frame_of_entry(&segment, entry);
        flip(&segment, damaged.offset + damaged.bytes - 9);
        let Err((status, said)) = Options::in_directory(copy.path()).try_start() else {
            panic!("a damaged log was served")
        };
        assert_eq!(status.code(), Some(1));
        assert!(said.contains(&format!("where entry {entry} was expected")), "{said}");

        let mut node = Options::in_directory(copy.path()).with(&["--truncate-damaged-log"]).start();
        node.wait_for_log("DAMAGED LOG CUT");
        assert_eq!(keys(&node), first_keys(left));
        let usable = snapshots(copy.path()).into_iter();
        let usable = usable.filter(|path| !path.to_string_lossy().contains("damaged-")).count();
        assert_eq!(usable, snapshots_left);
        // New entries take the numbers of those that are lost: the snapshots must not mix with them.
        write_one_by_one(&mut node.client(), left..left + 3);
        drop(node);
        assert_eq!(keys(&Options::in_directory(copy.path()).start()), first_keys(left + 3));
    }
}

#[test]
fn shards_may_change_between_starts() {
    let directory = temporary_directory();
    let start = |shards| Options::in_directory(directory.path()).with(&["--shards", shards]).start();
    let node = start("1");
    fill(&mut node.client());
    let mut client = node.client();
    let before = picture(&mut client);
    drop(node);
    for (shards, take_snapshot) in [("4", true), ("2", false), ("1", true), ("4", false)] {
        let node = start(shards);
        let mut client = node.client();
        assert_eq!(picture(&mut client), before, "{shards} shards");
        if take_snapshot {
            client.ok(json!({"op": "snapshot"}));
        }
        drop(node.kill());
    }
}

/// Values, texts, vectors, bulks and deletes.
fn fill(client: &mut Client) {
    let records: Vec<Value> = (0..300).map(|n| json!([key(n), {"n": n % 7, "text": text(n)}])).collect();
    client.ok(json!({"op": "bulk_set", "records": records}));
    for number in (0..300).step_by(3) {
        let vector = json!([1, number % 10, number / 10]);
        client.ok(json!({"op": "add_vector", "key": key(number), "vector": vector}));
    }
    let gone: Vec<String> = (0..300).step_by(11).map(key).collect();
    client.ok(json!({"op": "bulk_delete", "keys": gone}));
}

fn text(number: u64) -> String {
    let colour = ["red", "green", "blue"][number as usize % 3];
    format!("{colour} fox {}", "jumps ".repeat(number as usize % 5))
}

/// What every kind of read answers.
fn picture(client: &mut Client) -> Vec<Value> {
    let questions = [
        json!({"op": "scan", "vectors": true, "limit": 10_000}),
        json!({"op": "count", "prefix": "key-1"}),
        json!({"op": "search_by_value", "value": {"text": text(12), "n": 5}}),
        json!({"op": "search_text", "query": "red jumps", "match": "any"}),
        json!({"op": "vector_search", "vector": [1, 5, 9], "top_k": 50}),
    ];
    let mut answer = |question: &Value| {
        let reply = client.when_ready(question.clone());
        assert_eq!(reply["ok"], true, "{question} → {reply}");
        reply
    };
    questions.iter().map(&mut answer).collect()
}

#[test]
fn indexes_may_change_between_starts() {
    let directory = temporary_directory();
    let start = |indexes| Options::in_directory(directory.path()).with(&["--indexes", indexes]).start();
    let node = start("none");
    let mut client = node.client();
    fill(&mut client);
    for question in [json!({"op": "scan"}), json!({"op": "search_text", "query": "fox"})] {
        assert_eq!(client.refused(question)["code"], "index_disabled");
    }
    drop(node);

    let node = start("value,text,vector,order");
    let all = picture(&mut node.client());
    assert!(all[3]["keys"].as_array().unwrap().len() > 100, "{}", all[3]);
    drop(node);

    let node = start("value");
    let mut client = node.client();
    client.when_ready(json!({"op": "search_by_value", "value": 1}));
    let error = client.refused(json!({"op": "search_text", "query": "fox"}));
    assert_eq!(error["code"], "index_disabled");
    client.ok(json!({"op": "set", "key": "late", "value": "a late red jumps"}));
    client.ok(json!({"op": "delete", "key": "late"}));
    drop(node);
    assert_eq!(picture(&mut start("value,text,vector,order").client()), all);
}

#[test]
fn a_search_during_the_rebuild_says_how_far_it_is_and_never_answers_half() {
    const DOCUMENTS: u64 = 200_000;
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    for part in 0..20 {
        let numbers = part * DOCUMENTS / 20..(part + 1) * DOCUMENTS / 20;
        let records: Vec<Value> =
            numbers.map(|n| json!([format!("document-{n:06}"), format!("fox {n} {}", n * 31)])).collect();
        client.ok(json!({"op": "bulk_set", "records": records}));
    }
    let node = node.kill().start();
    let mut client = node.client();
    let mut progress = Vec::new();
    let reply = loop {
        let reply = client.call(json!({"op": "search_text", "query": "fox", "limit": 1}));
        if reply["ok"] == true {
            break reply;
        }
        let error = &reply["error"];
        assert_eq!((&error["code"], &error["retryable"]), (&json!("index_not_ready"), &json!(true)));
        progress.push(error["progress"].as_f64().expect("progress is a number"));
    };
    assert_eq!(reply["total"], DOCUMENTS, "half an answer");
    assert!(!progress.is_empty(), "the indexes of {DOCUMENTS} documents were ready at once");
    assert!(progress.iter().all(|share| (0.0..1.0).contains(share)), "{progress:?}");
}
