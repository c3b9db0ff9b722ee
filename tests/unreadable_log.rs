//! The promise: one bad block in a segment of a running node's log is said once, costs nobody its
//! place in the cluster, and goes: the peer that needs just that segment is brought up by the node's
//! state, `cluster` shows an alarm until snapshots have let the segment go, and the node starts again.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/log_files.rs"]
mod log_files;

use std::os::unix::fs::FileExt;
use std::path::Path;

use cluster::Cluster;
use cluster::network::Id;
use log_files::{Frame, frames, segments, snapshots};
use serde_json::{Value, json};

/// Small segments, and no snapshot that isn't asked for.
const FLAGS: [&str; 2] = ["--segment-bytes", "65536"];
/// Enough for a dozen segments.
const WRITES: usize = 400;
const VALUE_BYTES: usize = 2_000;
/// What a node may say of it in all, at `WARN` or above; it used to be hundreds a second.
const COMPLAINTS_MAX: usize = 12;
const SAID: &str = "A PART OF THE LOG CAN'T BE READ BACK";

fn write(cluster: &Cluster, id: Id, prefix: &str, count: usize) {
    let mut client = cluster.client(id);
    for number in 0..count {
        let value = format!("{number:0VALUE_BYTES$}");
        let request = json!({"op": "set", "key": format!("{prefix}:{number}"), "value": value});
        assert_eq!(client.call(&request).expect("it answers")["ok"], true);
    }
}

/// Turns a bit in the middle of a segment that lies in the middle of those behind entry `behind`; the
/// node runs meanwhile.
fn spoil(directory: &Path, behind: u64) {
    let with_entries = |segment: &Path| frames(segment).into_iter().filter(|frame| frame.entries > 0);
    let later = |path: &Path| with_entries(path).next().is_some_and(|frame| frame.first_index > behind);
    let later: Vec<_> = segments(directory).into_iter().filter(|path| later(path)).collect();
    assert!(later.len() >= 5, "only {} segments", later.len());
    let segment = &later[later.len() / 2];
    let in_it: Vec<Frame> = with_entries(segment).collect();
    let frame = &in_it[in_it.len() / 2];
    turn_a_bit(segment, (frame.offset + frame.bytes / 2) as u64);
}

/// In place: the node has the file open.
fn turn_a_bit(file: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn applied(cluster: &Cluster, id: Id) -> u64 {
    cluster.view(id).and_then(|view| view["applied_index"].as_u64()).expect("it answers")
}

fn alarms(cluster: &Cluster, id: Id) -> Vec<Value> {
    cluster.view(id).and_then(|view| view["alarms"].as_array().cloned()).expect("it answers")
}

/// A node that has a bad block says so while it can't make a snapshot, and lets it go when it can.
fn says_so_and_lets_it_go(cluster: &mut Cluster, id: Id, obstacle: &Path) {
    cluster.wait_until("it has an alarm", |cluster| {
        cluster.view(id).is_some_and(|view| view["alarms"][0]["code"] == "unreadable_log")
    });
    let shown = alarms(cluster, id);
    assert_eq!((shown.len(), &shown[0]["node_id"]), (1, &json!(id)));
    assert!(shown[0]["message"].as_str().unwrap().contains("can't be read back"), "{shown:?}");
    std::fs::remove_dir(obstacle).unwrap();
    // It tries again by itself, too, but not at once.
    let made = cluster.call(id, &json!({"op": "snapshot"})).expect("it answers");
    assert_eq!(made["ok"], true, "{made}");
    cluster.wait_until("the alarm is gone", |cluster| {
        cluster.view(id).is_some_and(|view| view["alarms"] == json!([]))
    });
}

/// What a node has said of it.
fn said(cluster: &mut Cluster, id: Id) {
    let log = cluster.log(id);
    let lines = log.lines().filter(|line| line.contains(SAID)).count();
    assert_eq!(lines, 1, "{log}");
    let complaints = log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
    let complaints: Vec<&str> = complaints.collect();
    assert!(complaints.len() <= COMPLAINTS_MAX, "{} lines: {complaints:#?}", complaints.len());
}

/// Where a snapshot is to be written there is something that can't be written over.
fn obstacle(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("snapshots/unfinished");
    std::fs::create_dir(&path).unwrap();
    path
}

#[test]
fn in_leader_mode_a_follower_that_needs_a_bad_block_is_sent_a_snapshot() {
    let mut cluster = Cluster::start_with(3, &FLAGS);
    let leader = cluster.wait_for_leader();
    write(&cluster, leader, "all", 20);
    let away = cluster.others(leader)[1];
    let behind = applied(&cluster, leader);
    cluster.kill(away);
    write(&cluster, leader, "two", WRITES);
    // A node that has just started has its log on the disk alone.
    let there = cluster.others(away);
    there.iter().for_each(|id| cluster.kill(*id));
    there.iter().for_each(|id| cluster.restart(*id));
    let leader = cluster.wait_for_leader_among(&there);
    assert!(alarms(&cluster, leader).is_empty());
    let in_the_way = obstacle(cluster.directory(leader));
    spoil(cluster.directory(leader), behind);
    cluster.restart(away);
    says_so_and_lets_it_go(&mut cluster, leader, &in_the_way);
    let contents = cluster.converge();
    assert_eq!(contents.len(), 20 + WRITES);
    said(&mut cluster, leader);
    cluster.kill(leader);
    cluster.restart(leader);
    assert_eq!(cluster.converge(), contents, "nothing bad is left in its log");
}

#[test]
fn in_dynamo_mode_a_peer_that_needs_a_bad_block_takes_over_the_state() {
    let mut cluster = Cluster::dynamo(2, &FLAGS);
    write(&cluster, 1, "both", 20);
    cluster.settle();
    let behind = applied(&cluster, 1);
    cluster.kill(2);
    write(&cluster, 1, "one", WRITES);
    cluster.kill(1);
    cluster.restart(1);
    let in_the_way = obstacle(cluster.directory(1));
    spoil(cluster.directory(1), behind);
    cluster.restart(2);
    let contents = cluster.settled_among(&[1, 2]);
    assert_eq!(contents.len(), 20 + WRITES);
    says_so_and_lets_it_go(&mut cluster, 1, &in_the_way);
    said(&mut cluster, 1);
    cluster.kill(1);
    cluster.restart(1);
    assert_eq!(cluster.settle(), contents, "nothing bad is left in its log");
}

#[test]
fn a_follower_that_needs_a_bad_snapshot_is_sent_another_one() {
    let mut cluster = Cluster::start_with(3, &["--segment-bytes", "65536", "--snapshot-compression", "none"]);
    for round in ["in the middle of its keys", "in its first line"] {
        let leader = cluster.wait_for_leader();
        let away = cluster.others(leader)[0];
        cluster.kill(away);
        // Behind the second snapshot the log is cut: what the follower lacks is in a snapshot alone.
        for half in ["first", "second"] {
            write(&cluster, leader, half, WRITES / 2);
            let made = cluster.call(leader, &json!({"op": "snapshot"})).expect("it answers");
            assert_eq!(made["ok"], true, "{made}");
        }
        let newest = snapshots(cluster.directory(leader)).pop().unwrap();
        let length = std::fs::metadata(&newest).unwrap().len();
        turn_a_bit(&newest, if round.contains("keys") { length / 2 } else { 3 });
        cluster.restart(away);
        assert_eq!(cluster.converge().len(), WRITES, "a bit has turned {round}");
    }
}
