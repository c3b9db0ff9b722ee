//! Promise: a key that was changed, lost or brought in behind a node's back is found in
//! dynamo mode, since nodes that had the same writes must hold the same: it is counted, said
//! and repaired, and nobody else's keys change by that.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/log_files.rs"]
mod log_files;

use std::path::Path;

use cluster::Cluster;
use cluster::dynamo::Contents;
use cluster::network::Id;
use log_files::snapshots;
use serde_json::{Value, json};

const PLAIN: [&str; 2] = ["--snapshot-compression", "none"];
const KEYS: u64 = 40;

/// Changes the lines of all of a node's snapshots, between the first line and the last one, so
/// that they still are whole.
fn edit_snapshots(directory: &Path, edit: impl Fn(&mut Vec<String>)) {
    let files = snapshots(directory);
    assert!(!files.is_empty(), "there is no snapshot");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it is plain");
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        let (header, trailer) = (lines.remove(0), lines.pop().expect("a trailer"));
        edit(&mut lines);
        let lengths = lines.iter().map(|line| line.len() + 1).sum::<usize>();
        let (entries, bytes) = (lines.len(), header.len() + 1 + lengths);
        let trailer: Value = serde_json::from_str(&trailer).expect("JSON");
        let end = format!(
            "{{\"entries\":{entries},\"bytes\":{bytes},\"through\":{},\"state\":{}",
            trailer["through"], trailer["state"]
        );
        let lines: String = lines.into_iter().map(|line| line + "\n").collect();
        let whole = format!("{header}\n{lines}{end}");
        let crc = crc32fast::hash(whole.as_bytes());
        std::fs::write(&file, format!("{whole},\"crc32\":{crc}}}\n")).expect("it can be written");
    }
}

fn place(lines: &[String], key: &str) -> usize {
    let begin = format!("{{\"key\":\"{key}\",");
    lines.iter().position(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("{key}: {lines:?}"))
}

/// Nodes that hold the same, and a snapshot of `damaged` that its log adds nothing to.
fn snapshotted(count: u64, damaged: Id) -> (Cluster, Contents) {
    let mut cluster = Cluster::dynamo(count, &PLAIN);
    for number in 0..KEYS {
        let write = json!({"op": "set", "key": format!("k{number:02}"), "value": format!("value {number}"), "w": "all"});
        cluster.ok_at(1 + number % count, &write);
    }
    let contents = cluster.settle();
    cluster.ok_at(damaged, &json!({"op": "snapshot"}));
    (cluster, contents)
}

/// Stops all, damages one, and lets that one show that it is. Then all run.
fn damage(cluster: &mut Cluster, damaged: Id, edit: impl Fn(&mut Vec<String>)) -> Contents {
    cluster.ids().into_iter().for_each(|id| cluster.terminate(id));
    edit_snapshots(cluster.directory(damaged), edit);
    cluster.restart(damaged);
    let shown = cluster.contents(damaged).expect("it answers");
    cluster.restart_all();
    cluster.wait_for_contact(&cluster.ids());
    shown
}

/// Waits until all have found that one differs, and until it doesn't.
fn repaired(cluster: &mut Cluster, damaged: Id, restored: impl Fn(&Contents) -> bool) -> Contents {
    cluster.wait_for_log(damaged, "STATES DIFFER");
    let (ids, mut contents) = (cluster.ids(), Contents::new());
    cluster.wait_until("it is repaired", |cluster| {
        contents = cluster.settled_among(&ids);
        restored(&contents)
    });
    assert!(cluster.differences(damaged) > 0);
    // Behind more writes it still is.
    for id in cluster.ids() {
        let before = cluster.dynamo_view(id)["states_equal"].as_u64();
        cluster.ok_at(id, &json!({"op": "set", "key": "compare", "value": id, "w": "all"}));
        cluster.wait_for_view(id, "is as the others are", |view| {
            view["dynamo"]["states_equal"].as_u64() > before
        });
    }
    contents
}

#[test]
fn of_three_the_one_with_a_changed_value_takes_the_one_that_the_others_have() {
    let (mut cluster, before) = snapshotted(3, 3);
    let shown = damage(&mut cluster, 3, |lines| {
        let at = place(lines, "k07");
        lines[at] = lines[at].replace("value 7", "valuE 7");
    });
    assert_eq!(shown["k07"]["value"], "valuE 7", "the damage is there");
    assert_eq!(repaired(&mut cluster, 3, |contents| contents["k07"]["value"] == "value 7"), before);
    // What it repaired stays so.
    cluster.kill(3);
    cluster.restart(3);
    assert_eq!(cluster.settle()["k07"], before["k07"]);
}

#[test]
fn of_three_the_one_with_a_greater_value_takes_the_one_that_the_others_have() {
    let (mut cluster, before) = snapshotted(3, 2);
    let shown = damage(&mut cluster, 2, |lines| {
        let at = place(lines, "k08");
        lines[at] = lines[at].replace("value 8", "valve 8 and more of it");
    });
    assert_eq!(shown["k08"]["value"], "valve 8 and more of it", "the damage is there");
    assert_eq!(repaired(&mut cluster, 2, |contents| contents["k08"]["value"] == "value 8"), before);
}

#[test]
fn of_three_the_one_that_lost_a_key_gets_it_back() {
    let (mut cluster, before) = snapshotted(3, 1);
    let shown = damage(&mut cluster, 1, |lines| drop(lines.remove(place(lines, "k11"))));
    assert!(!shown.contains_key("k11"), "the damage is there");
    assert_eq!(repaired(&mut cluster, 1, |contents| contents.contains_key("k11")), before);
}

#[test]
fn of_three_the_one_with_a_key_too_many_drops_it() {
    let (mut cluster, before) = snapshotted(3, 3);
    let shown = damage(&mut cluster, 3, |lines| {
        let twin = lines[place(lines, "k12")].replace("\"k12\"", "\"k12 again\"");
        lines.push(twin);
    });
    assert!(shown.contains_key("k12 again"), "the damage is there");
    assert_eq!(repaired(&mut cluster, 3, |contents| !contents.contains_key("k12 again")), before);
}

#[test]
fn of_two_nobody_knows_who_is_right_and_both_end_with_the_same() {
    let (mut cluster, before) = snapshotted(2, 2);
    let shown = damage(&mut cluster, 2, |lines| {
        let at = place(lines, "k13");
        lines[at] = lines[at].replace("value 13", "valuE 13");
    });
    assert_eq!(shown["k13"]["value"], "valuE 13", "the damage is there");
    let after = repaired(&mut cluster, 2, |_| true);
    let rest = |contents: &Contents| {
        let mut rest = contents.clone();
        rest.remove("k13");
        rest
    };
    assert_eq!(rest(&after), rest(&before), "nothing else changes");
    assert_eq!(after["k13"]["version"], before["k13"]["version"]);
    let value = &after["k13"]["value"];
    assert!(value == "value 13" || value == "valuE 13", "{value}");
}
