//! Promise: of two nodes either one's data is enough. When the primary dies, or nobody
//! hears it, the secondary takes over by itself with every acknowledged write; when the
//! secondary is gone, the primary waits for the word of a person; and what is acknowledged
//! while both are there is on both disks.
//!
//! Five clients are at work all the while, and what they were told is held to a model.
//! `DATASTORE_FAULT_ROUNDS` says how often each thing happens (2 times unless given),
//! `DATASTORE_TEST_SEED` repeats the choices of a run. A longer run:
//!
//! ```text
//! DATASTORE_FAULT_ROUNDS=20 cargo test --release -p datastore-node --test two_nodes -- --nocapture
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/slow_sync.rs"]
mod slow_sync;

use std::time::{Duration, Instant};

use cluster::Cluster;
use cluster::network::Id;
use cluster::under_load::{UnderLoad, rounds};
use common::random;
use datastore_utilities::random::Random;
use serde_json::json;
use slow_sync::SlowSync;

const ROUNDS_DEFAULT: usize = 2;
/// Answers between two faults.
const ANSWERS: usize = 150;
/// More than all clients can have under way.
const UNDER_WAY: usize = 10;
/// What a slow disk takes for a sync: shorter than an election timeout, and long beside all else.
const SLOW: Duration = Duration::from_millis(250);

/// Two nodes, and clients at work on them.
fn pair(name: &str) -> (Cluster, UnderLoad, Random) {
    let cluster = Cluster::start(2);
    let (clients, random) = under_load(&cluster, name);
    (cluster, clients, random)
}

fn under_load(cluster: &Cluster, name: &str) -> (UnderLoad, Random) {
    let mut random = Random::new(random::seed());
    is_healthy(cluster);
    let clients = UnderLoad::start(cluster.load(name), &mut random);
    (clients, random)
}

/// The first leads, and hosts no witness: it may fail.
fn is_healthy(cluster: &Cluster) {
    cluster.wait_until_leads(1);
    cluster.wait_for_members();
    assert_eq!(cluster.may_fail(), [1]);
}

/// For how long nobody is answered from now on.
fn gap(cluster: &Cluster, clients: &UnderLoad) -> Duration {
    let begin = Instant::now();
    clients.wait_for_answers(cluster, UNDER_WAY);
    begin.elapsed()
}

/// The leader has heard that this node has all but the newest of its log.
fn wait_until_caught_up(cluster: &Cluster, leader: Id, id: Id) {
    cluster.wait_until(&format!("node {id} has caught up"), |cluster| {
        let view = cluster.view(leader).unwrap_or_default();
        let mut members = view["members"].as_array().into_iter().flatten();
        members.any(|member| {
            let is_close = member["lag_entries"].as_u64().is_some_and(|lag| lag < 10);
            member["node_id"] == id && member["state"] == "serving" && is_close
        })
    });
}

#[test]
fn when_the_primary_dies_the_secondary_takes_over_and_hands_back_later() {
    let (mut cluster, clients, _) = pair("primary-dies");
    let mut gaps = Vec::new();
    for _ in 0..rounds(ROUNDS_DEFAULT) {
        is_healthy(&cluster);
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.kill(1);
        gaps.push(gap(&cluster, &clients));
        assert_eq!(cluster.leader(), Some(2));
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.restart(1);
        // Without a word from anybody, when it has been there for a while.
        cluster.wait_until_leads(1);
    }
    println!("nobody was answered for {gaps:?}");
    clients.finish(&mut cluster);
}

#[test]
fn when_the_network_parts_them_the_secondary_goes_on_and_the_primary_says_that_it_can_t() {
    let (mut cluster, clients, _) = pair("parted");
    let mut gaps = Vec::new();
    for _ in 0..rounds(ROUNDS_DEFAULT) {
        is_healthy(&cluster);
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.part(&[1], &[2]);
        gaps.push(gap(&cluster, &clients));
        assert_eq!(cluster.wait_for_leader_among(&[2]), 2);
        cluster.wait_until_alone(1);
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.heal();
        cluster.wait_until_leads(1);
    }
    println!("nobody was answered for {gaps:?}");
    clients.finish(&mut cluster);
}

#[test]
fn when_the_secondary_is_gone_the_primary_goes_on_if_it_is_forced_to() {
    let (mut cluster, clients, _) = pair("secondary-gone");
    for round in 0..rounds(ROUNDS_DEFAULT) as u64 {
        is_healthy(&cluster);
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.kill(2);
        cluster.wait_until_alone(1);
        cluster.force(1);
        assert_eq!(cluster.epoch(1), Some(round + 1));
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.restart(2);
        cluster.wait_for_members();
        clients.wait_for_answers(&cluster, ANSWERS);
    }
    clients.finish(&mut cluster);
}

#[test]
fn what_is_acknowledged_while_both_are_there_is_on_both_disks() {
    let (mut cluster, clients, mut random) = pair("both-disks");
    for _ in 0..rounds(ROUNDS_DEFAULT) {
        is_healthy(&cluster);
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.kill(1);
        cluster.wait_until_leads(2);
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.restart(1);
        wait_until_caught_up(&cluster, 2, 1);
        // Its host could acknowledge with the witness alone; it must not.
        clients.wait_for_answers(&cluster, 50 + random.below(ANSWERS as u64) as usize);
        cluster.kill(2);
        cluster.wait_until_alone(1);
        cluster.force(1);
        clients.wait_for_answers(&cluster, ANSWERS);
        // Had it anything of its own, it would be kept out.
        cluster.restart(2);
        cluster.wait_for_members();
    }
    clients.finish(&mut cluster);
}

#[test]
fn what_is_acknowledged_while_the_other_disk_is_slow_is_on_that_one_too() {
    let Some(slow) = SlowSync::of(SLOW) else { return };
    let mut cluster = Cluster::prepared(2, &[]);
    slow.give_to(&mut cluster, 1);
    cluster.restart_all();
    let (clients, _) = under_load(&cluster, "slow-disk");
    for _ in 0..rounds(ROUNDS_DEFAULT) {
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.kill(1);
        cluster.wait_until_leads(2);
        cluster.restart(1);
        wait_until_caught_up(&cluster, 2, 1);
        slow.begin();
        clients.wait_for_answers(&cluster, ANSWERS / 2);
        // What has not reached the slow disk is lost, and the other one, too.
        cluster.kill(1);
        cluster.kill(2);
        slow.end();
        cluster.restart(1);
        cluster.wait_until_alone(1);
        cluster.force(1);
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.restart(2);
        cluster.wait_for_members();
        is_healthy(&cluster);
    }
    clients.finish(&mut cluster);
}

#[test]
fn a_secondary_that_was_emptied_has_no_vote_and_is_taken_in_after_force() {
    let (mut cluster, clients, _) = pair("emptied");
    clients.wait_for_answers(&cluster, ANSWERS);
    cluster.kill(2);
    cluster.wipe(2);
    cluster.restart(2);
    for id in [1, 2] {
        let said = cluster.wait_for_log(id, "lost its data");
        assert!(said.contains("node 2 had directory"), "{said}");
    }
    cluster.wait_until_alone(1);
    let view = cluster.view(1).expect("it answers");
    assert_eq!((&view["may_fail"], &view["tolerates"]), (&json!([]), &json!(0)), "{view}");
    cluster.force(1);
    cluster.wait_for_members();
    clients.wait_for_answers(&cluster, ANSWERS);
    is_healthy(&cluster);
    // What it got counts as if it had always been there.
    cluster.kill(1);
    cluster.wait_until_leads(2);
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}

#[test]
fn nothing_acknowledged_is_lost_over_kills_and_partitions_of_either_or_both() {
    let (mut cluster, clients, mut random) = pair("either");
    for _ in 0..rounds(4 * ROUNDS_DEFAULT) {
        clients.wait_for_answers(&cluster, 20 + random.below(ANSWERS as u64) as usize);
        let victims: &[Id] = [&[1][..], &[2], &[1, 2], &[]][random.below(4) as usize];
        victims.iter().for_each(|id| cluster.kill(*id));
        match victims {
            [1] => clients.wait_for_answers(&cluster, ANSWERS / 2),
            [] => {
                cluster.part(&[1], &[2]);
                cluster.wait_for_leader_among(&[2]);
                clients.wait_for_answers(&cluster, ANSWERS / 2);
                cluster.heal();
            }
            _ => {}
        }
        victims.iter().rev().for_each(|id| cluster.restart(*id));
    }
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}
