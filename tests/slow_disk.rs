//! Promise: a disk that takes seconds for a sync is no reason for an election: the
//! node's heartbeats go on, whoever it is, and what it owes comes when the disk is done.
//!
//! How a disk is made slow: `common/slow_sync.rs`. Where that can't be done the tests
//! say so and skip.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/slow_sync.rs"]
mod slow_sync;

use std::time::{Duration, Instant};

use cluster::Cluster;
use cluster::network::Id;
use serde_json::{Value, json};
use slow_sync::SlowSync;

/// Much longer than an election timeout.
const SYNC_SECONDS: u64 = 5;

/// A cluster whose node `id` has syncs of seconds from when it is told to.
fn cluster_with_a_slow_disk(id: Id) -> Option<(Cluster, SlowSync)> {
    let slow = SlowSync::of(Duration::from_secs(SYNC_SECONDS))?;
    let mut cluster = Cluster::prepared(3, &[]);
    slow.give_to(&mut cluster, id);
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_until("all have caught up", |cluster| cluster.members_serving().len() == 3);
    Some((cluster, slow))
}

fn terms(cluster: &Cluster) -> Vec<Value> {
    cluster.ids().iter().map(|id| cluster.view(*id).expect("it answers")["term"].clone()).collect()
}

fn set(number: u64) -> Value {
    json!({"op": "set", "key": format!("k{number}"), "value": number})
}

#[test]
fn a_replica_whose_sync_takes_seconds_holds_nobody_up() {
    let Some((mut cluster, slow)) = cluster_with_a_slow_disk(3) else { return };
    let before = terms(&cluster);
    slow.begin();
    let began = Instant::now();
    let mut acknowledged = 0;
    while began.elapsed() < Duration::from_secs(SYNC_SECONDS + 1) {
        // The other two are a majority; a bound on each reply is the harness's.
        let reply = cluster.call(1, &set(acknowledged)).expect("it answers while a replica's disk is slow");
        assert_eq!(reply["ok"], true, "{reply}");
        acknowledged += 1;
        assert_eq!(terms(&cluster), before, "an election, for a slow disk");
    }
    slow.end();
    assert_eq!(cluster.converge().len() as u64, acknowledged);
    assert_eq!(terms(&cluster), before);
}

#[test]
fn a_primary_whose_sync_takes_seconds_stays_primary() {
    let Some((mut cluster, slow)) = cluster_with_a_slow_disk(1) else { return };
    let before = terms(&cluster);
    slow.begin();
    let began = Instant::now();
    // Its clients wait longer than the harness does; what they wrote must be there in the end.
    for number in 0..3 {
        let reply = cluster.call(1, &set(number));
        assert!(reply.is_err() || reply.is_ok_and(|reply| reply["ok"] == true));
        assert_eq!(terms(&cluster), before, "an election, for a slow disk");
    }
    assert!(began.elapsed() > Duration::from_secs(SYNC_SECONDS / 2), "the disk was slow");
    slow.end();
    cluster.wait_until("the writes are there", |cluster| {
        let reply = cluster.call(1, &json!({"op": "count"}));
        reply.is_ok_and(|reply| reply["count"] == 3)
    });
    assert_eq!(terms(&cluster), before);
    cluster.converge();
}
