//! Promise: a disk that takes its time for a sync is no reason for an election: the
//! node's heartbeats go on, whoever it is, and what it owes comes when the disk is done.
//! One that hangs is another matter: `bad_disks.rs`.
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
const REPLICA_SYNC: Duration = Duration::from_secs(5);
/// Longer than an election timeout, and shorter than a disk may hang before its leader leaves it.
const PRIMARY_SYNC: Duration = Duration::from_millis(900);

/// A cluster whose node `id` has syncs of this length from when it is told to.
fn cluster_with_a_slow_disk(id: Id, sync: Duration) -> Option<(Cluster, SlowSync)> {
    let slow = SlowSync::of(sync)?;
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
    let Some((mut cluster, slow)) = cluster_with_a_slow_disk(3, REPLICA_SYNC) else { return };
    let before = terms(&cluster);
    slow.begin();
    let began = Instant::now();
    let mut acknowledged = 0;
    while began.elapsed() < REPLICA_SYNC + Duration::from_secs(1) {
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
fn a_primary_whose_sync_takes_a_second_stays_primary() {
    let Some((mut cluster, slow)) = cluster_with_a_slow_disk(1, PRIMARY_SYNC) else { return };
    let before = terms(&cluster);
    slow.begin();
    let began = Instant::now();
    // Its clients wait longer than the harness does; what they wrote must be there in the end.
    for number in 0..3 {
        let reply = cluster.call(1, &set(number));
        assert!(reply.is_err() || reply.is_ok_and(|reply| reply["ok"] == true));
        assert_eq!(terms(&cluster), before, "an election, for a slow disk");
    }
    assert!(began.elapsed() > PRIMARY_SYNC, "the disk was slow");
    slow.end();
    cluster.wait_until("the writes are there", |cluster| {
        let reply = cluster.call(1, &json!({"op": "count"}));
        reply.is_ok_and(|reply| reply["count"] == 3)
    });
    assert_eq!(terms(&cluster), before);
    cluster.converge();
}
