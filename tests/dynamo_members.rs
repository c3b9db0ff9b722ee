//! Promise: in dynamo mode nodes join without being named, by a state where no log reaches
//! back; a member that is down holds deletes back, says so, and is freed by `evict`; and
//! whoever has lost some or all of its data loses nothing that its peers have, brings
//! nothing back that was deleted, and is told what to do.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/log_files.rs"]
mod log_files;

use cluster::Cluster;
use cluster::directories::Back;
use cluster::members::members;
use cluster::network::Id;
use cluster::writers::Writers;
use common::random::Random;
use log_files::{flip, frames, segments};
use serde_json::{Value, json};

/// Logs are cut often: a few hundred writes leave nothing of the first ones.
const CUT_OFTEN: [&str; 4] = ["--segment-bytes", "65536", "--snapshot-every-bytes", "131072"];

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value, "w": "all"})
}

fn delete(key: &str) -> Value {
    json!({"op": "delete", "key": key})
}

fn get(key: &str) -> Value {
    json!({"op": "get", "key": key})
}

/// Writes until these nodes' logs have lost their beginning.
fn write_until_cut(cluster: &Cluster, by: Id, of: &[Id]) {
    let begins = |id: Id| segments(cluster.directory(id)).first().cloned();
    let before: Vec<_> = of.iter().map(|id| begins(*id)).collect();
    let filler = "x".repeat(16_000);
    let mut number = 0;
    cluster.wait_until(&format!("the logs of {of:?} are cut"), |cluster| {
        for _ in 0..20 {
            number += 1;
            cluster
                .ok_at(by, &json!({"op": "set", "key": format!("filler-{}", number % 10), "value": filler}));
        }
        of.iter().zip(&before).all(|(id, before)| begins(*id) != *before)
    });
}

fn wait_for_no_tombstones(cluster: &Cluster, ids: &[Id]) {
    cluster.wait_until(&format!("{ids:?} have forgotten all deletes"), |cluster| {
        ids.iter().all(|id| cluster.tombstones(*id) == 0)
    });
}

fn wait_until_held_by(cluster: &Cluster, id: Id, by: &[Id]) {
    cluster.wait_for_view(id, &format!("deletes are held back by {by:?}"), |view| {
        let tombstones = &view["dynamo"]["tombstones"];
        tombstones["kept"].as_u64() > Some(0) && tombstones["held_by"] == json!(by)
    });
}

#[test]
fn a_node_that_nobody_named_joins_and_takes_a_state_over_while_writes_go_on() {
    let mut random = Random::seeded();
    let mut cluster = Cluster::dynamo_with_room(3, 4, &CUT_OFTEN);
    cluster.ok_at(1, &set("first", "here"));
    cluster.ok_at(2, &set("gone", "soon"));
    cluster.ok_at(3, &delete("gone"));
    write_until_cut(&cluster, 1, &[1, 2, 3]);
    let mut writers = Writers::start(&cluster, &[1, 2, 3], 3, &mut random);
    writers.wait_for_more(&cluster, 50);
    cluster.join(4, &[2]);
    cluster.wait_for_view(4, "took a state over", |view| view["dynamo"]["states_taken"].as_u64() > Some(0));
    writers.wait_for_more(&cluster, 50);
    cluster.wait_for_contact(&[1, 2, 3, 4]);
    writers.wait_for_more(&cluster, 50);
    let (contents, _) = writers.settle_and_check(&mut cluster);
    assert_eq!(contents["first"]["value"], "here");
    assert!(!contents.contains_key("gone"));
    for id in 1..=4 {
        assert_eq!(Vec::from_iter(members(&cluster.view(id).unwrap())), [1, 2, 3, 4]);
    }
    writers.stop();
    // It is one like the others from now on.
    cluster.ok_at(4, &set("by the fourth", "here"));
    cluster.settle();
    cluster.wait_for_equal_states(&[1, 2, 3, 4]);
}

#[test]
fn a_member_that_is_down_holds_deletes_back_until_it_returns() {
    let mut cluster = Cluster::dynamo(3, &[]);
    cluster.ok_at(1, &set("k", "v"));
    cluster.kill(3);
    cluster.ok_at(1, &delete("k"));
    [1, 2].into_iter().for_each(|id| wait_until_held_by(&cluster, id, &[3]));
    assert_eq!(cluster.ok_at(2, &get("k"))["found"], false);
    cluster.restart(3);
    wait_for_no_tombstones(&cluster, &[1, 2, 3]);
    assert!(cluster.settle().is_empty(), "it stays deleted");
    for id in 1..=3 {
        assert_eq!(cluster.dynamo_view(id)["tombstones"]["held_by"], json!([]));
    }
}

#[test]
fn an_evicted_node_frees_deletes_takes_no_writes_and_returns_only_wiped() {
    let mut cluster = Cluster::dynamo(3, &[]);
    cluster.ok_at(1, &set("kept", "v"));
    cluster.ok_at(1, &set("k", "v"));
    cluster.kill(3);
    cluster.ok_at(1, &delete("k"));
    wait_until_held_by(&cluster, 2, &[3]);
    cluster.evict(1, 3);
    wait_for_no_tombstones(&cluster, &[1, 2]);

    // It has what all others have forgotten that it was deleted.
    cluster.restart(3);
    for id in [1, 3] {
        let said = cluster.wait_for_log(id, "node 3 was evicted");
        assert!(said.contains("empty"), "says how it returns: {said}");
    }
    cluster.wait_until_refused(3, &json!({"op": "set", "key": "late", "value": 1}), "read_only");
    let error = cluster.refused(3, &json!({"op": "set", "key": "late", "value": 1}));
    assert_eq!((&error["outcome"], &error["retryable"]), (&json!("not_applied"), &json!(false)), "{error}");
    assert_eq!(cluster.ok_at(3, &get("kept"))["value"], "v", "reads go on");
    cluster.ok_at(1, &set("k2", "v"));
    assert_eq!(cluster.ok_at(2, &get("k"))["found"], false);

    cluster.kill(3);
    cluster.wipe(3);
    cluster.restart(3);
    cluster.wait_for_contact(&[1, 2, 3]);
    let contents = cluster.settle();
    assert!(contents.contains_key("kept") && contents.contains_key("k2") && !contents.contains_key("k"));
    cluster.ok_at(3, &set("by the third", "v"));
    cluster.wait_for_equal_states(&[1, 2, 3]);
}

#[test]
fn a_node_that_is_evicted_while_it_runs_is_told() {
    let mut cluster = Cluster::dynamo(3, &[]);
    cluster.ok_at(3, &set("k", "v"));
    cluster.evict(2, 3);
    cluster.wait_until_refused(3, &json!({"op": "set", "key": "late", "value": 1}), "read_only");
    let error = cluster.refused(2, &json!({"op": "evict", "node_id": 2}));
    assert_eq!(error["code"], "bad_request", "{error}");
    let error = cluster.refused(2, &json!({"op": "evict", "node_id": 3}));
    assert_eq!(error["code"], "bad_request", "{error}");
    cluster.ok_at(1, &json!({"op": "set", "key": "after", "value": 1, "w": 2}));
    cluster.kill(3);
    cluster.wipe(3);
    cluster.restart(3);
    cluster.wait_for_contact(&[1, 2, 3]);
    assert_eq!(Vec::from_iter(cluster.settle().keys()), ["after", "k"]);
}

#[test]
fn a_node_that_lost_all_its_data_is_refused_until_it_is_evicted() {
    let mut cluster = Cluster::dynamo(3, &[]);
    cluster.ok_at(1, &set("k", "v"));
    cluster.kill(3);
    cluster.wipe(3);
    cluster.restart(3);
    for id in [1, 3] {
        let said = cluster.wait_for_log(id, "if its data is lost");
        assert!(said.contains("`evict` node 3"), "{said}");
    }
    assert!(cluster.contents(3).expect("it answers").is_empty(), "it is told nothing");
    let error = cluster.refused(3, &json!({"op": "set", "key": "reaches nobody", "value": 1}));
    assert_eq!((&error["code"], &error["outcome"]), (&json!("read_only"), &json!("not_applied")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("`evict` node 3"), "{error}");
    // It waits before the door, and may be in again before anyone has seen that it was out.
    cluster.ok_at(1, &json!({"op": "evict", "node_id": 3}));
    cluster.wait_for_contact(&[1, 2, 3]);
    assert_eq!(Vec::from_iter(cluster.settle().keys()), ["k"]);
    cluster.ok_at(3, &set("by the third", "v"));
}

/// A node goes on with an older copy of its directory; `cut`: no log reaches back to that.
fn goes_back(flags: &[&str], cut: bool, back: Back) {
    let mut cluster = Cluster::dynamo(3, flags);
    for id in 1..=3 {
        cluster.ok_at(id, &set(&format!("before-{id}"), "v"));
        cluster.ok_at(id, &set(&format!("gone-{id}"), "v"));
    }
    cluster.settle();
    cluster.terminate(3);
    let kept = cluster.backup(3);
    cluster.restart(3);
    cluster.wait_for_contact(&[1, 2, 3]);
    for id in 1..=3 {
        cluster.ok_at(id, &set(&format!("after-{id}"), "v"));
        cluster.ok_at(3, &set(&format!("before-{id}"), &format!("changed by 3, {id}")));
        cluster.ok_at(id, &delete(&format!("gone-{id}")));
    }
    wait_for_no_tombstones(&cluster, &[1, 2, 3]);
    if cut {
        write_until_cut(&cluster, 3, &[1, 2]);
    }
    let expected = cluster.settle();
    cluster.kill(3);
    cluster.put_back(3, kept.path(), back);
    cluster.restart(3);
    cluster.wait_for_log(3, "goes on as a new stream");
    assert_eq!(cluster.settle(), expected, "nothing is lost, and nothing comes back");
    if cut {
        assert!(cluster.dynamo_view(3)["states_taken"].as_u64() > Some(0));
    }
    cluster.ok_at(3, &set("by the third", "v"));
    cluster.ok_at(3, &delete("before-1"));
    wait_for_no_tombstones(&cluster, &[1, 2, 3]);
    cluster.wait_for_equal_states(&[1, 2, 3]);
    // Once more, with all of that behind it.
    cluster.kill(3);
    cluster.restart(3);
    let contents = cluster.settle();
    assert!(contents.contains_key("by the third") && !contents.contains_key("before-1"));
    assert_eq!(contents["before-2"], expected["before-2"]);
}

#[test]
fn an_older_copy_of_a_directory_goes_on_as_a_new_stream() {
    goes_back(&[], false, Back::Restored);
}

#[test]
fn a_disk_that_was_set_back_goes_on_as_a_new_stream() {
    goes_back(&[], false, Back::RolledBack);
}

#[test]
fn an_older_copy_to_which_no_log_reaches_back_takes_a_state_over() {
    goes_back(&CUT_OFTEN, true, Back::Restored);
}

#[test]
fn a_disk_that_was_set_back_beyond_all_logs_takes_a_state_over() {
    goes_back(&CUT_OFTEN, true, Back::RolledBack);
}

#[test]
fn a_damaged_log_that_was_cut_gets_back_what_peers_have() {
    let mut cluster = Cluster::dynamo(3, &[]);
    for number in 0..30 {
        cluster.ok_at(3, &set(&format!("k{number:02}"), "v"));
        if number % 3 == 0 {
            cluster.ok_at(3, &delete(&format!("k{:02}", number / 2)));
        }
    }
    wait_for_no_tombstones(&cluster, &[1, 2, 3]);
    let expected = cluster.settle();
    cluster.kill(3);
    let segment = segments(cluster.directory(3)).pop().expect("a log has a segment");
    let with_entries: Vec<_> = frames(&segment).into_iter().filter(|frame| frame.entries > 0).collect();
    let damaged = &with_entries[with_entries.len() / 2];
    flip(&segment, damaged.offset + damaged.bytes - 9);

    cluster.set_dynamo_flags(3, &["--truncate-damaged-log"]);
    cluster.restart(3);
    cluster.wait_for_log(3, "DAMAGED LOG CUT");
    assert_eq!(cluster.settle(), expected, "nothing is lost, and nothing comes back");
    cluster.set_dynamo_flags(3, &[]);
    cluster.kill(3);
    cluster.restart(3);
    // Its stream has only begun: it still takes writes only when it has heard someone.
    cluster.wait_for_contact(&[1, 2, 3]);
    cluster.ok_at(3, &set("by the third", "v"));
    cluster.wait_for_equal_states(&[1, 2, 3]);
}
