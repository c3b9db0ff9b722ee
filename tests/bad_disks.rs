//! Promise: a leader whose disk hangs or is full hands over to a node whose disk takes writes, says what
//! is wrong, and lets nobody wait; and no heartbeat waits for a disk.
//!
//! How a disk is made to hang: `common/slow_sync.rs`; to be full: `common/mount.rs`. Where that can't be
//! done the tests say so and skip.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/mount.rs"]
mod mount;
#[path = "common/slow_sync.rs"]
mod slow_sync;

use std::time::Duration;

use cluster::Cluster;
use cluster::network::Id;
use datastore_utilities::linearizability::Client;
use mount::{SmallDisk, fill};
use serde_json::{Value, json};
use slow_sync::SlowSync;

/// Longer than any test runs.
const HANGS: Duration = Duration::from_secs(3_600);

/// A cluster whose node `id` has a disk that hangs from when it is told to.
fn cluster_with_a_disk_that_hangs(count: u64, id: Id) -> Option<(Cluster, SlowSync)> {
    let slow = SlowSync::of(HANGS)?;
    let mut cluster = Cluster::prepared(count, &[]);
    slow.give_to(&mut cluster, id);
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("all have caught up", |cluster| cluster.members_serving().len() as u64 == count);
    Some((cluster, slow))
}

fn set(number: u64) -> Value {
    json!({"op": "set", "key": format!("k{number}"), "value": number})
}

fn member(view: &Value, id: Id) -> &Value {
    let members = view["members"].as_array().expect("a list");
    members.iter().find(|member| member["node_id"] == id).expect("it is a member")
}

/// Sends without waiting for the reply.
fn send_later(cluster: &Cluster, id: Id, request: Value) -> std::thread::JoinHandle<Value> {
    let (dial, places) = (cluster.load("later").dial, cluster.places());
    let address = places.iter().find(|place| place.node_id == id).expect("a place").address;
    std::thread::spawn(move || {
        let mut client = Client::connect(&dial, address, common::PATIENCE).expect("it listens");
        client.call(&request).expect("it answers")
    })
}

#[test]
fn a_primary_whose_disk_hangs_hands_over_and_who_waits_there_is_told() {
    let Some((mut cluster, slow)) = cluster_with_a_disk_that_hangs(3, 1) else { return };
    cluster.ok(&set(0));
    slow.begin();
    let write = send_later(&cluster, 1, set(1));
    cluster.wait_until("the write is on the others' disks", |cluster| {
        cluster.view(1).is_some_and(|view| member(&view, 1)["oldest_sync_ms"].as_u64() > Some(100))
    });
    let read = send_later(&cluster, 1, json!({"op": "get", "key": "k1", "consistency": "linearizable"}));
    let next = cluster.wait_for_leader_among(&[2, 3]);
    for number in 2..50 {
        assert_eq!(cluster.ok_among(&[next], &set(number))["ok"], true);
    }
    // Neither waits for its own time-out.
    let told = write.join().expect("a reply");
    assert_eq!(told["error"]["code"], "leadership_lost", "{told}");
    let told = read.join().expect("a reply");
    let code = told["error"]["code"].as_str().unwrap_or_default();
    assert!(["not_leader", "no_leader"].contains(&code), "{told}");

    let log = cluster.log(1);
    assert!(log.contains("STALLED DISK"), "{log}");
    for id in [1, next] {
        cluster.wait_until("it says so", |cluster| {
            let Some(view) = cluster.view(id) else { return false };
            let stalled = member(&view, 1);
            let alarm =
                view["alarms"].as_array().is_some_and(|alarms| alarms.iter().any(|a| a["code"] == "stalled"));
            stalled["state"] == "stalled" && stalled["oldest_sync_ms"].as_u64() > Some(2_000) && alarm
        });
        let view = cluster.view(id).expect("it answers");
        assert_eq!((&view["tolerates"], &view["may_fail"]), (&json!(0), &json!([])), "{view}");
    }
    slow.end();
    cluster.wait_until("it serves again", |cluster| cluster.members_serving().len() == 3);
    assert_eq!(cluster.wait_for_leader(), next, "leadership stays where it is");
    assert!(cluster.converge().len() >= 49);
}

#[test]
fn of_two_nodes_the_one_whose_disk_hangs_leaves_writes_to_the_witness_s_host() {
    let Some((mut cluster, slow)) = cluster_with_a_disk_that_hangs(2, 1) else { return };
    slow.begin();
    let write = send_later(&cluster, 1, set(0));
    cluster.wait_until_leads(2);
    (1..50).for_each(|number| assert_eq!(cluster.ok_among(&[2], &set(number))["ok"], true));
    write.join().expect("a reply");
    slow.end();
    cluster.wait_until("it serves again", |cluster| cluster.members_serving().len() == 2);
    assert!(cluster.converge().len() >= 49);
}

/// A node whose disk lets nothing become durable can't say how fresh it is, and doesn't wait to find out.
#[test]
fn a_bounded_read_at_a_replica_whose_disk_hangs_is_too_stale_at_its_bound() {
    let Some((mut cluster, slow)) = cluster_with_a_disk_that_hangs(3, 3) else { return };
    let read = json!({"op": "get", "key": "k1", "consistency": {"max_staleness_ms": 300}});
    cluster
        .wait_until("it is fresh", |cluster| cluster.call(3, &read).is_ok_and(|reply| reply["ok"] == true));
    slow.begin();
    cluster.ok(&set(1));
    cluster.wait_until("it is too stale", |cluster| {
        let reply = cluster.call(3, &read).expect("within the harness' own bound");
        reply["error"]["code"] == "too_stale"
    });
    assert_eq!(
        cluster.call(3, &json!({"op": "get", "key": "k1", "consistency": "local"})).unwrap()["ok"],
        true
    );
    slow.end();
    cluster.converge();
}

/// The file of the members is written beside everything else.
#[test]
fn heartbeats_and_connections_don_t_wait_for_the_file_of_the_members() {
    let Some(slow) = SlowSync::of(HANGS).map(|slow| slow.only_of("cluster.new")) else { return };
    let mut cluster = Cluster::prepared(3, &[]);
    slow.give_to(&mut cluster, 1);
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("all have caught up", |cluster| cluster.members_serving().len() == 3);
    let term = cluster.view(1).expect("it answers")["term"].clone();
    slow.begin();
    // The others drop their sessions, and come back; one of them is removed.
    let removed = send_later(&cluster, 1, json!({"op": "remove_member", "node_id": 3}));
    cluster.wait_until("the log says so", |cluster| {
        cluster
            .view(1)
            .is_some_and(|view| view["members"].as_array().is_some_and(|members| members.len() == 2))
    });
    (0..100).for_each(|number| assert_eq!(cluster.ok_among(&[1], &set(number))["ok"], true));
    assert_eq!(cluster.view(1).expect("it answers")["term"], term, "an election, for a file");
    let told = removed.join().expect("a reply");
    assert_eq!(told["error"]["code"], "internal", "its file doesn't say so yet: {told}");
    slow.end();
    cluster.wait_until("the file says so, too", |cluster| {
        let reply = cluster.call(1, &json!({"op": "remove_member", "node_id": 3})).expect("it answers");
        reply["ok"] == true || reply["error"]["code"] == "bad_request"
    });
    cluster.leave_out(3);
    cluster.wait_for_members();
}

/// A cluster whose node 1 has a disk of its own.
fn cluster_with_a_small_disk(count: u64) -> Option<(Cluster, SmallDisk)> {
    let disk = SmallDisk::mount("32m")?;
    let mut cluster = Cluster::prepared(count, &["--segment-bytes", "262144"]);
    cluster.set_directory(1, &disk.path().join("data"));
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("all are members", |cluster| cluster.members_serving().len() as u64 == count);
    Some((cluster, disk))
}

#[test]
fn a_primary_without_room_hands_over_and_does_so_once() {
    for count in [2, 3] {
        let Some((mut cluster, disk)) = cluster_with_a_small_disk(count) else { return };
        cluster.ok(&set(0));
        let filler = disk.path().join("filler");
        fill(&filler);
        let next = cluster.wait_for_leader_among(&cluster.others(1));
        (1..50).for_each(|number| assert_eq!(cluster.ok_among(&[next], &set(number))["ok"], true));
        let term = cluster.view(next).expect("it answers")["term"].clone();
        cluster.wait_until("it says so", |cluster| {
            let alarms = cluster.view(next).map_or(Value::Null, |view| view["alarms"].clone());
            alarms.as_array().is_some_and(|alarms| alarms.iter().any(|alarm| alarm["code"] == "disk_full"))
        });
        (50..500).for_each(|number| assert_eq!(cluster.ok_among(&[next], &set(number))["ok"], true));
        assert_eq!(cluster.view(next).expect("it answers")["term"], term, "leadership goes to and fro");
        std::fs::remove_file(&filler).expect("it is there");
        assert_eq!(cluster.converge().len(), 500);
    }
}
