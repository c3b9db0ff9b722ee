//! Promise: when the primary dies, the lowest id that is left takes over by itself,
//! with every acknowledged write; nothing else moves the leadership but `promote`.
//!
//! `DATASTORE_FAULT_ROUNDS` says how many kills the test under load makes (6 unless
//! given), `DATASTORE_TEST_SEED` repeats its choices. A long run:
//!
//! ```text
//! DATASTORE_FAULT_ROUNDS=500 cargo test --release -p datastore-node --test failover under_load -- --nocapture
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::Cluster;
use cluster::network::Id;
use cluster::under_load::{UnderLoad, rounds};
use common::random;
use datastore_utilities::random::Random;
use serde_json::{Value, json};

const ROUNDS_DEFAULT: usize = 6;
const WRITES: usize = 50;

/// What was acknowledged: by key, the value and its version.
#[derive(Default)]
struct Acknowledged(BTreeMap<String, (Value, Value)>);

impl Acknowledged {
    /// Writes some keys, each to whoever leads.
    fn write(&mut self, cluster: &Cluster, name: &str) {
        for number in 0..WRITES {
            let (key, value) = (format!("{name}-{number}"), json!(number));
            let reply = cluster.ok(&json!({"op": "set", "key": key, "value": value}));
            self.0.insert(key, (value, reply["version"].clone()));
        }
        let records: Vec<Value> =
            (0..WRITES).map(|number| json!([format!("{name}-bulk-{number}"), name])).collect();
        let reply = cluster.ok(&json!({"op": "bulk_set", "records": records}));
        for record in records {
            let key = record[0].as_str().expect("a key").to_string();
            self.0.insert(key, (record[1].clone(), reply["version"].clone()));
        }
    }

    /// Holds whoever leads to it.
    fn is_all_there(&self, cluster: &Cluster) {
        let keys: Vec<&String> = self.0.keys().collect();
        let reply = cluster.ok(&json!({"op": "bulk_get", "keys": keys}));
        for (item, (key, (value, version))) in reply["values"].as_array().expect("values").iter().zip(&self.0)
        {
            assert_eq!(item["key"], **key);
            assert_eq!((&item["value"], &item["version"]), (value, version), "{key} was acknowledged");
        }
    }

    /// Holds every node to it, when all have caught up.
    fn is_everywhere(&self, cluster: &mut Cluster) {
        let contents = cluster.converge();
        assert_eq!(contents.len(), self.0.len());
        for (key, (value, version)) in &self.0 {
            let item = &contents[key];
            assert_eq!((&item["value"], &item["version"]), (value, version), "{key} was acknowledged");
        }
    }
}

fn term(cluster: &Cluster, id: Id) -> Value {
    cluster.view(id).expect("it answers")["term"].clone()
}

#[test]
fn when_the_primary_is_killed_the_lowest_id_takes_over_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let mut acknowledged = Acknowledged::default();
    acknowledged.write(&cluster, "first");
    cluster.kill(1);
    cluster.wait_until_leads(2);
    acknowledged.is_all_there(&cluster);
    acknowledged.write(&cluster, "second");
    acknowledged.is_everywhere(&mut cluster);
}

#[test]
fn replicas_send_clients_to_the_leader_and_answer_local_reads() {
    let cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let version = cluster.ok(&json!({"op": "set", "key": "k", "value": "v"}))["version"].clone();
    for id in [2, 3] {
        for request in [json!({"op": "set", "key": "k", "value": "w"}), json!({"op": "get", "key": "k"})] {
            let error = cluster.refused(id, &request);
            assert_eq!((&error["code"], &error["outcome"]), (&json!("not_leader"), &json!("not_applied")));
            assert_eq!(error["leader"]["node_id"], 1, "{error}");
        }
        let local = json!({"op": "get", "key": "k", "consistency": "local"});
        cluster.wait_until(&format!("node {id} has the write"), |cluster| {
            cluster.call(id, &local).is_ok_and(|reply| reply["value"] == "v" && reply["version"] == version)
        });
    }
}

#[test]
fn of_five_the_lowest_that_is_left_takes_over_twice() {
    let mut cluster = Cluster::start(5);
    cluster.wait_until_leads(1);
    let mut acknowledged = Acknowledged::default();
    acknowledged.write(&cluster, "first");
    cluster.kill(1);
    cluster.wait_until_leads(2);
    acknowledged.write(&cluster, "second");
    cluster.kill(2);
    cluster.wait_until_leads(3);
    acknowledged.is_all_there(&cluster);
    acknowledged.is_everywhere(&mut cluster);
}

#[test]
fn a_killed_replica_changes_nothing_and_catches_up() {
    let mut cluster = Cluster::start(3);
    let mut acknowledged = Acknowledged::default();
    for replica in [2, 3] {
        cluster.wait_until_leads(1);
        let before = term(&cluster, 1);
        cluster.kill(replica);
        acknowledged.write(&cluster, &format!("without-{replica}"));
        cluster.restart(replica);
        acknowledged.write(&cluster, &format!("with-{replica}"));
        acknowledged.is_everywhere(&mut cluster);
        assert_eq!((cluster.leader(), term(&cluster, 1)), (Some(1), before), "the leadership stays");
    }
}

#[test]
fn an_old_leader_that_returns_changes_nothing() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let mut acknowledged = Acknowledged::default();
    acknowledged.write(&cluster, "first");
    cluster.kill(1);
    cluster.wait_until_leads(2);
    acknowledged.write(&cluster, "second");
    let before = term(&cluster, 2);
    cluster.wait_until_given_up(2, 1);
    cluster.restart(1);
    acknowledged.write(&cluster, "third");
    acknowledged.is_everywhere(&mut cluster);
    assert_eq!((cluster.leader(), term(&cluster, 2)), (Some(2), before), "the leadership stays");
    let error = cluster.refused(1, &json!({"op": "set", "key": "k", "value": 1}));
    assert_eq!((&error["code"], &error["leader"]["node_id"]), (&json!("not_leader"), &json!(2)));
}

#[test]
fn without_a_majority_nothing_is_answered_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3);
    let mut acknowledged = Acknowledged::default();
    acknowledged.write(&cluster, "first");
    cluster.kill(2);
    cluster.kill(3);
    for request in
        [json!({"op": "set", "key": "refused", "value": 1}), json!({"op": "get", "key": "first-1"})]
    {
        cluster.wait_until_refused(1, &request, "no_quorum");
    }
    let refused = json!({"op": "set", "key": "refused-for-good", "value": 1});
    let error = cluster.refused(1, &refused);
    assert_eq!((&error["code"], &error["outcome"]), (&json!("no_quorum"), &json!("not_applied")));
    cluster.restart(2);
    cluster.wait_for_leader();
    acknowledged.is_all_there(&cluster);
    let contents = cluster.converge();
    assert!(!contents.contains_key("refused-for-good"), "it was refused");
}

#[test]
fn all_may_be_killed_and_come_back_in_any_order() {
    let mut cluster = Cluster::start(3);
    let mut acknowledged = Acknowledged::default();
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        acknowledged.write(&cluster, &format!("{order:?}"));
        for id in order {
            cluster.kill(id);
        }
        for id in order {
            cluster.restart(id);
        }
        cluster.wait_for_leader();
        acknowledged.is_all_there(&cluster);
    }
    acknowledged.is_everywhere(&mut cluster);
}

#[test]
fn a_clean_stop_of_all_keeps_everything() {
    let mut cluster = Cluster::start(3);
    let mut acknowledged = Acknowledged::default();
    acknowledged.write(&cluster, "before");
    for id in cluster.ids() {
        cluster.terminate(id);
    }
    cluster.restart_all();
    acknowledged.is_everywhere(&mut cluster);
}

#[test]
fn promote_moves_the_leadership_and_loses_nothing() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let mut acknowledged = Acknowledged::default();
    acknowledged.write(&cluster, "first");
    cluster.ok(&json!({"op": "promote", "node_id": 3}));
    cluster.wait_until_leads(3);
    acknowledged.is_all_there(&cluster);
    acknowledged.write(&cluster, "second");
    let before = term(&cluster, 3);
    acknowledged.is_everywhere(&mut cluster);
    assert_eq!(
        (cluster.leader(), term(&cluster, 3)),
        (Some(3), before),
        "the leadership stays where it was put"
    );
    // And at the next failure the lowest id takes over again.
    cluster.kill(3);
    cluster.wait_until_leads(1);
    acknowledged.is_all_there(&cluster);
}

#[test]
fn nothing_acknowledged_is_lost_over_random_kills_under_load() {
    let mut random = Random::new(random::seed());
    let mut cluster =
        Cluster::start_with(3, &["--segment-bytes", "65536", "--snapshot-every-bytes", "131072"]);
    // Many keys, few operations on each: a fast load whose answers are still held to a model.
    let mut load = cluster.load("failover");
    (load.keys, load.operations_per_key, load.pause) = (24, 30, Duration::from_millis(4));
    let clients = UnderLoad::start(load, &mut random);
    let mut kills = 0;
    for _ in 0..rounds(ROUNDS_DEFAULT) {
        clients.wait_for_answers(&cluster, 300);
        // One, a majority, or all of them; mostly the leader is one of these.
        let mut victims = cluster.ids();
        let leader = cluster.leader().unwrap_or(1);
        victims.sort_by_key(|id| (*id != leader, random.bits()));
        victims.truncate(1 + [0, 0, 0, 0, 1, 2][random.below(6) as usize]);
        for id in &victims {
            cluster.kill(*id);
        }
        kills += victims.len();
        if victims.len() == 1 {
            clients.wait_for_answers(&cluster, 100);
        }
        for id in victims {
            cluster.restart(id);
        }
    }
    let report = clients.finish(&mut cluster);
    println!("kills {kills}, requests answered {}", report.counts.answered);
}
