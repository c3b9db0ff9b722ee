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

#[test]
fn a_member_starts_without_one_free_byte_and_serves_what_it_has() {
    let Some((mut cluster, disk)) = cluster_with_a_small_disk(3) else { return };
    (0..20).for_each(|number| assert_eq!(cluster.ok(&set(number))["ok"], true));
    cluster.converge();
    cluster.kill(1);
    let filler = disk.path().join("filler");
    fill(&filler);
    cluster.wait_for_leader_among(&[2, 3]);
    cluster.restart(1);
    cluster.wait_for_log(1, "THE DISK IS FULL");
    let read = json!({"op": "get", "key": "k7", "consistency": "local"});
    cluster.wait_until("it serves reads", |cluster| {
        cluster.call(1, &read).is_ok_and(|reply| reply["ok"] == true && reply["value"] == 7)
    });
    (20..40).for_each(|number| assert_eq!(cluster.ok_among(&[2, 3], &set(number))["ok"], true));
    std::fs::remove_file(&filler).expect("it is there");
    assert_eq!(cluster.converge().len(), 40);
}

/// Longer than a greeting may take.
const SLOW_FILE: Duration = Duration::from_millis(2_500);

/// Has a node of the cluster take its time for the file of the members.
fn with_a_slow_file(cluster: &mut Cluster, id: Id, takes: Duration) -> Option<SlowSync> {
    let slow = SlowSync::of(takes)?.only_of("cluster.new");
    slow.give_to(cluster, id);
    Some(slow)
}

#[test]
fn a_node_whose_disk_takes_long_to_note_that_it_is_a_member_is_one_when_it_has() {
    let mut cluster = Cluster::prepared(2, &[]);
    let Some(slow) = with_a_slow_file(&mut cluster, 2, SLOW_FILE) else { return };
    slow.begin();
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("both serve", |cluster| cluster.members_serving().len() == 2);
    cluster.ok(&set(0));
}

/// Three nodes of which the first was forced while the others were down.
fn forced_alone() -> Cluster {
    let mut cluster = Cluster::start(3);
    cluster.ok(&set(0));
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_until_alone(1);
    cluster.force(1);
    cluster.ok_among(&[1], &set(1));
    cluster
}

#[test]
fn a_node_that_was_left_behind_and_whose_disk_takes_long_begins_anew_all_the_same() {
    let mut cluster = forced_alone();
    let Some(slow) = with_a_slow_file(&mut cluster, 2, SLOW_FILE) else { return };
    slow.begin();
    cluster.restart(2);
    cluster.wait_until("it listens to the one that was forced", |cluster| {
        cluster.view(2).is_some_and(|view| view["epoch"] == 1 && member(&view, 2)["state"] == "serving")
    });
    cluster.restart(3);
    let contents = cluster.converge();
    assert!(contents.contains_key("k0") && contents.contains_key("k1"), "{contents:?}");
}

/// Two nodes find out that they were left behind, and their disks take long: they are a majority of what they know
/// meanwhile, and what they acknowledge is not thrown away.
#[test]
fn what_is_acknowledged_while_a_node_is_about_to_begin_anew_is_not_lost() {
    let mut cluster = forced_alone();
    let mut slow = Vec::new();
    for id in [2, 3] {
        let Some(file) = with_a_slow_file(&mut cluster, id, HANGS) else { return };
        file.begin();
        slow.push(file);
    }
    cluster.restart_all();
    let next = cluster.wait_for_leader_among(&[2, 3]);
    let is_acknowledged =
        |number: &u64| cluster.call(next, &set(*number)).is_ok_and(|reply| reply["ok"] == true);
    let acknowledged: Vec<u64> = (100..150).filter(is_acknowledged).collect();
    assert!(!acknowledged.is_empty());
    slow.iter().for_each(SlowSync::end);
    cluster.wait_until_refused(next, &set(1_000), "no_quorum");
    for number in acknowledged {
        let read = json!({"op": "get", "key": format!("k{number}"), "consistency": "local"});
        let reply = cluster.call(next, &read).expect("it answers");
        assert_eq!(reply["value"], number, "it was acknowledged here: {reply}");
    }
    assert_eq!(cluster.view(next).expect("it answers")["epoch"], 0, "it keeps what it has");
}

#[test]
fn force_is_given_up_when_a_majority_is_back_before_the_disk_has_it() {
    let mut cluster = Cluster::prepared(3, &[]);
    let Some(slow) = with_a_slow_file(&mut cluster, 1, HANGS) else { return };
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("all are members", |cluster| cluster.members_serving().len() == 3);
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_until_refused(1, &set(0), "no_quorum");
    slow.begin();
    let forced = send_later(&cluster, 1, json!({"op": "promote", "force": true}));
    cluster.restart_all();
    cluster.wait_until("all are there", |cluster| cluster.members_serving().len() == 3);
    let leader = cluster.wait_for_leader();
    (0..20).for_each(|number| assert_eq!(cluster.ok_among(&[leader], &set(number))["ok"], true));
    slow.end();
    let told = forced.join().expect("a reply");
    assert_eq!(told["error"]["outcome"], "not_applied", "{told}");
    assert_eq!(cluster.converge().len(), 20);
    assert!(cluster.ids().iter().all(|id| cluster.view(*id).expect("it answers")["epoch"] == 0));
}

#[test]
fn the_witness_s_host_whose_disk_is_full_keeps_its_room_and_says_so() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let mut cluster = Cluster::prepared(2, &["--segment-bytes", "262144"]);
    cluster.set_directory(2, &disk.path().join("data"));
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("both are members", |cluster| cluster.members_serving().len() == 2);
    assert_eq!(cluster.view(1).expect("it answers")["witness"], 2);
    cluster.call(2, &json!({"op": "promote"})).expect("it answers");
    cluster.wait_until_leads(2);
    let filler = disk.path().join("filler");
    fill(&filler);
    cluster.wait_until_refused(2, &set(0), "disk_full");
    for number in 0..200 {
        let reply = cluster.call(2, &set(number)).expect("it answers");
        assert_eq!(reply["error"]["code"], "disk_full", "{reply}");
    }
    std::fs::remove_file(&filler).expect("it is there");
    cluster.wait_until("it takes writes again", |cluster| {
        cluster.call(2, &set(0)).is_ok_and(|reply| reply["ok"] == true)
    });
    assert_eq!(cluster.converge().len(), 1);
}

#[test]
fn a_lone_node_that_gets_company_answers_others_while_its_disk_takes_long() {
    let Some(slow) = SlowSync::of(HANGS).map(|slow| slow.only_of("cluster.new")) else { return };
    let directory = common::temporary_directory();
    let mut options = common::Options::in_directory(directory.path());
    options.through = slow.through();
    let node = options.start();
    let (other, peers) =
        (common::temporary_directory(), json!([{"node_id": 1, "host": "127.0.0.1", "port": 1}]));
    let second = common::Options::in_directory(other.path())
        .with(&["--node-id", "2", "--role", "secondary", "--peers", &peers.to_string()])
        .start();
    slow.begin();
    let mut asking = node.client();
    let port = second.address.port();
    let request = json!({"op": "add_member", "node_id": 2, "host": "127.0.0.1", "port": port});
    asking.send_raw(format!("{request}\n").as_bytes());
    let mut others: Vec<_> = (0..8).map(|_| node.client()).collect();
    for round in 0..20 {
        for client in &mut others {
            client.ok(json!({"op": "set", "key": format!("k{round}"), "value": round}));
        }
    }
    assert_eq!(others[0].refused(request)["code"], "starting", "one is enough");
    slow.end();
    let told = asking.receive();
    assert_eq!(told["ok"], true, "{told}");
}

/// What isn't on the disk was acknowledged to nobody.
#[test]
fn a_node_that_is_told_to_stop_does_not_wait_for_a_disk_that_hangs() {
    let Some((mut cluster, slow)) = cluster_with_a_disk_that_hangs(3, 1) else { return };
    slow.begin();
    let write = send_later(&cluster, 1, set(0));
    cluster.wait_for_leader_among(&[2, 3]);
    write.join().expect("a reply");
    cluster.terminate(1);
    slow.end();
    cluster.restart(1);
    cluster.converge();
}
