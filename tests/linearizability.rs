//! Promise: whatever happens to nodes, network and disks, what clients are told can
//! have come from one store that does one thing at a time: no stale read, no lost or
//! doubled write, nothing that was refused.
//!
//! Five clients work on a few hot keys with gets, sets, conditions, deletes and bulks
//! while nodes are killed, stopped, parted, and their disks refuse to sync; what they
//! were told is held to a model by `utilities/linearizability`. Each test prints
//! operations, violations and keys left undecided.
//!
//! `DATASTORE_FAULT_ROUNDS` says how many faults a test makes (4 unless given);
//! `DATASTORE_TEST_SEED` repeats the choices of a run, though not its timing;
//! `DATASTORE_PARTITIONS=proxy|namespaces` says how networks are parted (by kernel
//! namespaces where that's possible, unless given). An hour or so of it:
//!
//! ```text
//! DATASTORE_FAULT_ROUNDS=300 cargo test --release -p datastore-node --test linearizability -- --nocapture
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::thread::JoinHandle;

use cluster::Cluster;
use cluster::network::Id;
use cluster::under_load::{UnderLoad, rounds};
use common::{PATIENCE, random};
use datastore_utilities::linearizability::{Client, Dial};
use datastore_utilities::random::Random;
use serde_json::{Value, json};

const ROUNDS_DEFAULT: usize = 4;
/// Answers between two faults.
const ANSWERS: usize = 150;

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}

/// The leader twice as often as chance has it: that is where mistakes hurt.
fn victim(cluster: &Cluster, random: &mut Random) -> Id {
    let leader = if random.below(2) == 0 { cluster.leader() } else { None };
    leader.unwrap_or_else(|| pick(random, &cluster.running()))
}

/// A cluster under load while `fault` happens to it again and again.
fn through(name: &str, flags: &[&str], mut fault: impl FnMut(&mut Cluster, &UnderLoad, &mut Random)) {
    let mut random = Random::new(random::seed());
    let mut cluster = Cluster::start_with(3, flags);
    let clients = UnderLoad::start(cluster.load(name), &mut random);
    for _ in 0..rounds(ROUNDS_DEFAULT) {
        clients.wait_for_answers(&cluster, ANSWERS);
        fault(&mut cluster, &clients, &mut random);
    }
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}

fn kill(cluster: &mut Cluster, clients: &UnderLoad, random: &mut Random) {
    let killed = victim(cluster, random);
    cluster.kill(killed);
    if random.below(4) == 0 {
        // The majority is gone: nobody is answered until one of them is back.
        let other = pick(random, &cluster.running());
        cluster.kill(other);
        cluster.restart(other);
    }
    clients.wait_for_answers(cluster, ANSWERS);
    cluster.restart(killed);
}

fn pause(cluster: &mut Cluster, clients: &UnderLoad, random: &mut Random) {
    let paused = victim(cluster, random);
    let others = cluster.others(paused);
    cluster.pause(paused);
    // Longer than an election, if it led.
    cluster.wait_for_leader_among(&others);
    clients.wait_for_answers(cluster, ANSWERS);
    cluster.resume(paused);
}

fn partition(cluster: &mut Cluster, clients: &UnderLoad, random: &mut Random) {
    let one = victim(cluster, random);
    let others = cluster.others(one);
    match random.below(4) {
        0 | 1 => cluster.isolate(one),
        2 => others.iter().for_each(|other| cluster.cut(one, *other)),
        _ => others.iter().for_each(|other| cluster.cut(*other, one)),
    }
    clients.wait_for_answers(cluster, ANSWERS);
    if random.below(3) == 0 {
        // Straight from one partition into another one.
        cluster.heal();
        cluster.isolate(others[0]);
        clients.wait_for_answers(cluster, ANSWERS);
    }
    cluster.heal();
}

#[test]
fn over_kills() {
    through("kills", &["--segment-bytes", "65536", "--snapshot-every-bytes", "131072"], kill);
}

#[test]
fn over_partitions() {
    through("partitions", &[], partition);
}

#[test]
fn over_stopped_processes() {
    through("stopped", &[], pause);
}

#[test]
fn over_kills_partitions_and_stopped_processes_with_failing_syncs() {
    through("all", &["--drop-rate", "0.1"], |cluster, clients, random| match random.below(3) {
        0 => kill(cluster, clients, random),
        1 => partition(cluster, clients, random),
        _ => pause(cluster, clients, random),
    });
}

/// A cluster in which the syncs of some nodes fail, and whose leader changes once.
fn with_failing_syncs(name: &str, failing: &[Id]) {
    let mut random = Random::new(random::seed());
    let mut cluster = Cluster::start(3);
    for id in failing {
        cluster.terminate(*id);
        cluster.set_flags(*id, &["--drop-rate", "0.3"]);
        cluster.restart(*id);
        cluster.wait_for_leader();
    }
    let clients = UnderLoad::start(cluster.load(name), &mut random);
    clients.wait_for_answers(&cluster, 2 * ANSWERS);
    let leader = cluster.wait_for_leader();
    cluster.kill(leader);
    clients.wait_for_answers(&cluster, 2 * ANSWERS);
    cluster.restart(leader);
    clients.wait_for_answers(&cluster, 2 * ANSWERS);
    clients.finish(&mut cluster);
}

#[test]
fn with_failing_syncs_of_the_leader() {
    let mut random = Random::new(random::seed());
    let mut cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    cluster.terminate(leader);
    cluster.set_flags(leader, &["--drop-rate", "0.3"]);
    cluster.restart(leader);
    cluster.wait_for_leader();
    cluster.ok(&json!({"op": "promote", "node_id": leader}));
    cluster.wait_until_leads(leader);
    let clients = UnderLoad::start(cluster.load("leader-syncs"), &mut random);
    clients.wait_for_answers(&cluster, 4 * ANSWERS);
    clients.finish(&mut cluster);
}

#[test]
fn with_failing_syncs_of_a_follower() {
    with_failing_syncs("follower-syncs", &[3]);
}

#[test]
fn with_failing_syncs_everywhere() {
    with_failing_syncs("all-syncs", &[1, 2, 3]);
}

#[test]
fn a_node_alone_is_linearizable_over_kills_with_failing_syncs() {
    let mut random = Random::new(random::seed());
    let mut cluster = Cluster::start_with(1, &["--drop-rate", "0.3"]);
    let clients = UnderLoad::start(cluster.load("alone"), &mut random);
    for _ in 0..rounds(ROUNDS_DEFAULT) {
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.kill(1);
        cluster.restart(1);
    }
    let report = clients.finish(&mut cluster);
    assert!(report.counts.refused > 0, "no sync has failed: {report}");
}

/// Sends a request to a node that is stopped: it lies in the socket until the node goes on.
fn ask_in_advance(
    dial: &Dial,
    cluster: &Cluster,
    id: Id,
    request: Value,
) -> JoinHandle<std::io::Result<Value>> {
    let place = cluster.places().into_iter().find(|place| place.node_id == id).expect("a node");
    let mut client = Client::connect(dial, place.address, PATIENCE).expect("the kernel accepts for it");
    std::thread::spawn(move || client.call(&request))
}

#[test]
fn a_leader_that_was_stopped_serves_no_stale_read() {
    let mut cluster = Cluster::start(3);
    for round in 0..rounds(2) {
        let key = format!("stale-{round}");
        cluster.ok(&json!({"op": "set", "key": key, "value": "old"}));
        let old = cluster.wait_for_leader();
        cluster.pause(old);
        // It still believes that it leads, and finds these first when it goes on.
        let load = cluster.load("stale");
        let get = json!({"op": "get", "key": key, "consistency": "linearizable"});
        let condition = json!({"op": "set", "key": key, "value": "mine", "if_absent": true});
        let asked: Vec<_> = (0..8).map(|_| ask_in_advance(&load.dial, &cluster, old, get.clone())).collect();
        let tried = ask_in_advance(&load.dial, &cluster, old, condition);
        let others = cluster.others(old);
        cluster.wait_for_leader_among(&others);
        let new = cluster.ok_among(&others, &json!({"op": "set", "key": key, "value": "new"}));
        cluster.resume(old);
        for asked in asked {
            let reply = asked.join().expect("a client").expect("it answers when it goes on");
            let is_new = reply["value"] == "new" && reply["version"] == new["version"];
            assert!(reply["ok"] == false || is_new, "a stale read: {reply}");
        }
        let reply = tried.join().expect("a client").expect("it answers when it goes on");
        assert_eq!(reply["ok"], false, "{reply}");
        if reply["error"]["code"] == "already_exists" {
            assert_eq!(reply["error"]["current"], new["version"], "a refusal that rests on a stale read");
        }
        let contents = cluster.converge();
        assert_eq!(contents[&key]["value"], "new");
    }
}
