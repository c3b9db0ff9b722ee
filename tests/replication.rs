//! Promise: a replica holds what the primary holds, in its indexes too, and says how
//! old what it shows may be; one that was away catches up, from the log or by a
//! snapshot; one that holds something else is found out.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::path::Path;

use cluster::Cluster;
use cluster::network::Id;
use serde_json::{Value, json};

/// So small that a few hundred writes are more than the log keeps.
const SMALL_LOG: [&str; 4] = ["--segment-bytes", "65536", "--snapshot-every-bytes", "65536"];

fn set(key: &str, value: &Value) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

fn get(key: &str, consistency: &Value) -> Value {
    json!({"op": "get", "key": key, "consistency": consistency})
}

/// The reply of a node to a read of its own, once it is ready for it.
fn local(cluster: &Cluster, id: Id, request: &Value) -> Value {
    let mut reply = Value::Null;
    cluster.wait_until(&format!("node {id} answers {request}"), |cluster| {
        reply = cluster.call(id, request).expect("it answers");
        reply["ok"] == true
    });
    reply
}

fn replication(cluster: &Cluster, id: Id) -> Value {
    let stats = json!({"op": "stats", "section": "replication"});
    cluster.call(id, &stats).expect("it answers")["replication"].clone()
}

#[test]
fn a_replica_has_every_kind_of_write_in_every_index_and_takes_none_itself() {
    let cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    cluster.ok(&set("text", &json!("a replica finds words")));
    let version = cluster.ok(&set("number", &json!(1)))["version"].clone();
    cluster.ok(&json!({"op": "set", "key": "number", "value": 2, "if_version": version}));
    cluster.ok(&json!({"op": "bulk_set", "records": [["a:1", "x"], ["a:2", "x"], ["a:3", "gone"]]}));
    cluster.ok(&json!({"op": "bulk_delete", "keys": ["a:3"]}));
    cluster.ok(&json!({"op": "add_vector", "key": "v", "vector": [1.0, 0.5]}));
    cluster.ok(&set("last", &json!(true)));
    let asked = [
        json!({"op": "get", "key": "number"}),
        json!({"op": "search_text", "query": "words"}),
        json!({"op": "search_by_value", "value": "x"}),
        json!({"op": "vector_search", "vector": [1.0, 0.5]}),
        json!({"op": "scan", "vectors": true}),
        json!({"op": "count"}),
        json!({"op": "count", "prefix": "a:"}),
    ];
    let at_the_leader: Vec<Value> =
        asked.iter().map(|request| cluster.call(leader, request).unwrap()).collect();
    for id in cluster.others(leader) {
        cluster.wait_until("the last write is there", |cluster| {
            cluster.call(id, &get("last", &json!("local"))).unwrap()["found"] == true
        });
        for (request, expected) in asked.iter().zip(&at_the_leader) {
            assert_eq!(local(&cluster, id, request), *expected, "{request} at node {id}");
        }
        let refused = [
            set("number", &json!(3)),
            json!({"op": "delete", "key": "number"}),
            json!({"op": "bulk_set", "records": [["a:1", "y"], ["a:2", "y"]]}),
            json!({"op": "set", "key": "number", "value": 3, "if_absent": true}),
            json!({"op": "add_vector", "key": "v", "vector": [2.0]}),
            get("number", &json!("linearizable")),
        ];
        for request in refused {
            let error = cluster.refused(id, &request);
            assert_eq!((&error["code"], &error["outcome"]), (&json!("not_leader"), &json!("not_applied")));
            assert_eq!(error["leader"]["node_id"], leader, "{error}");
        }
    }
    let peers = replication(&cluster, leader)["peers"].as_array().unwrap().len();
    assert_eq!(peers, 2);
    let stats = cluster.call(leader, &json!({"op": "stats", "section": "actors"})).unwrap();
    let kinds: Vec<&str> =
        stats["actors"].as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "ReplicatorPeer").count(), 2, "{kinds:?}");
    assert!(kinds.contains(&"ElectionCoordinator"), "{kinds:?}");
}

#[test]
fn a_bounded_staleness_sees_what_was_acknowledged_or_is_refused() {
    let cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let replica = cluster.others(leader)[0];
    for number in 0..200 {
        cluster.ok(&set("counter", &json!(number)));
        let reply = cluster.call(replica, &get("counter", &json!({"max_staleness_ms": 0}))).unwrap();
        assert_eq!(reply["value"], number, "{reply}");
    }
    cluster.isolate(replica);
    cluster.wait_until("the replica knows that it can't tell", |cluster| {
        let reply = cluster.call(replica, &get("counter", &json!({"max_staleness_ms": 0}))).unwrap();
        assert!(reply["ok"] == true || reply["error"]["code"] == "too_stale", "{reply}");
        reply["ok"] == false
    });
    let minority = cluster.ok_among(&cluster.others(replica), &set("counter", &json!("newer")));
    assert_eq!(minority["ok"], true);
    for _ in 0..5 {
        let error = cluster.refused(replica, &get("counter", &json!({"max_staleness_ms": 0})));
        assert_eq!((&error["code"], &error["retryable"]), (&json!("too_stale"), &json!(true)));
        let own = cluster.call(replica, &get("counter", &json!("local"))).unwrap();
        assert_eq!(own["value"], 199, "local asks for no more than what is there");
    }
    let old_enough = json!({"max_staleness_ms": 3_600_000});
    assert_eq!(cluster.call(replica, &get("counter", &old_enough)).unwrap()["value"], 199);
}

#[test]
fn nothing_is_answered_until_a_majority_has_joined() {
    let mut cluster = Cluster::prepared(3, &[]);
    cluster.restart(1);
    let read = json!({"op": "get", "key": "k"});
    for request in [set("k", &json!(1)), read.clone(), json!({"op": "count"})] {
        let error = cluster.refused(1, &request);
        assert_eq!((&error["code"], &error["outcome"]), (&json!("no_quorum"), &json!("not_applied")));
    }
    assert_eq!(cluster.view(1).unwrap()["tolerates"], 0);
    cluster.restart(3);
    cluster.ok(&set("k", &json!(1)));
    cluster.restart(2);
    cluster.converge();
}

#[test]
fn a_replica_that_was_away_catches_up_from_the_log() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let replica = cluster.others(leader)[0];
    cluster.ok(&set("before", &json!(0)));
    cluster.kill(replica);
    for number in 0..300 {
        cluster.ok(&set(&format!("k{}", number % 100), &json!(number)));
    }
    cluster.restart(replica);
    let contents = cluster.converge();
    assert_eq!(contents.len(), 101);
    assert!(!cluster.log(replica).contains("installed a snapshot"), "the log had it all");
}

/// Writes more than the log keeps.
fn outgrow_the_log(cluster: &Cluster, round: u64) {
    let filler = "x".repeat(4_096);
    for number in 0..150 {
        cluster.ok(&set(&format!("k{number}"), &json!(format!("{round} {filler}"))));
    }
}

fn first_segment(directory: &Path) -> String {
    let names = std::fs::read_dir(directory.join("log")).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".wal"))
        .collect();
    names.sort();
    names[0].clone()
}

#[test]
fn a_replica_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start_with(3, &SMALL_LOG);
    let leader = cluster.wait_for_leader();
    let replica = cluster.others(leader)[0];
    cluster.ok(&set("only in the old state", &json!("a word to find")));
    cluster.kill(replica);
    let first = first_segment(cluster.directory(leader));
    cluster.ok(&json!({"op": "delete", "key": "only in the old state"}));
    let mut round = 0;
    cluster.wait_until("the log was cut", |cluster| {
        round += 1;
        outgrow_the_log(cluster, round);
        round > 3 && first_segment(cluster.directory(leader)) != first
    });
    cluster.restart(replica);
    cluster.converge();
    assert!(cluster.log(replica).contains("installed a snapshot"), "{}", cluster.describe());
    let word = json!({"op": "search_text", "query": "word"});
    assert_eq!(local(&cluster, replica, &word)["total"], 0, "the old state's index is gone, too");
    // It goes on by itself: from its own disk, and from the log behind the snapshot.
    cluster.ok(&set("later", &json!("another word")));
    cluster.kill(replica);
    cluster.restart(replica);
    let contents = cluster.converge();
    assert_eq!(contents["later"]["value"], "another word");
    assert_eq!(local(&cluster, replica, &word)["keys"], json!(["later"]));
    assert_eq!(replication(&cluster, replica)["state_differences"], 0);
}

#[test]
fn the_log_that_is_kept_for_a_dead_replica_is_bounded() {
    let mut cluster = Cluster::start_with(3, &SMALL_LOG);
    let leader = cluster.wait_for_leader();
    cluster.kill(cluster.others(leader)[0]);
    let bytes = |cluster: &Cluster| {
        let stats = cluster.call(leader, &json!({"op": "stats", "section": "wal"})).unwrap();
        stats["wal"]["bytes"].as_u64().unwrap()
    };
    let mut most = 0;
    for round in 0..8 {
        outgrow_the_log(&cluster, round);
        most = most.max(bytes(&cluster));
    }
    let written = 8 * 150 * 4_096;
    assert!(most < written / 2, "of {written} bytes written the log once held {most}");
}

/// Changes a value in a stopped node's newest snapshot, checksum and all, as a fault
/// behind its back would that no checksum finds.
fn damage_a_value(directory: &Path, from: &str, to: &str) {
    let mut names: Vec<_> =
        std::fs::read_dir(directory.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let path = names.pop().expect("a snapshot");
    let text = std::fs::read_to_string(&path).unwrap();
    let (body, trailer) = text.trim_end().rsplit_once('\n').expect("a trailer");
    assert!(body.contains(from), "{path:?}");
    let changed = format!("{}\n", body.replace(from, to));
    let before_crc = trailer.split(",\"crc32\"").next().unwrap();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(changed.as_bytes());
    hasher.update(before_crc.as_bytes());
    std::fs::write(&path, format!("{changed}{before_crc},\"crc32\":{}}}\n", hasher.finalize())).unwrap();
}

#[test]
fn a_replica_that_holds_something_else_is_found_out() {
    let mut cluster = Cluster::start_with(3, &["--snapshot-compression", "none"]);
    let leader = cluster.wait_for_leader();
    let replica = cluster.others(leader)[0];
    cluster.ok(&set("account", &json!("1000 euro")));
    cluster.ok(&set("last", &json!(1)));
    cluster.wait_until("the replica has it", |cluster| {
        cluster.call(replica, &get("last", &json!("local"))).unwrap()["found"] == true
    });
    let checked =
        |cluster: &Cluster, id: Id| replication(cluster, id)["state_checked_index"].as_u64().unwrap();
    for number in 0..300 {
        cluster.ok(&set("filler", &json!(number)));
    }
    cluster.wait_until("all have compared their states, and found them equal", |cluster| {
        cluster.ids().iter().all(|id| checked(cluster, *id) > 0)
    });
    cluster.call(replica, &json!({"op": "snapshot"})).unwrap();
    cluster.terminate(replica);
    damage_a_value(cluster.directory(replica), "1000 euro", "9000 euro");
    cluster.restart(replica);
    cluster.wait_until("the difference is found", |cluster| {
        cluster.ok(&set("filler", &json!("more")));
        replication(cluster, replica)["state_differences"].as_u64() > Some(0)
            && replication(cluster, leader)["state_differences"].as_u64() > Some(0)
    });
    assert!(cluster.view(leader).unwrap()["state_differences"].as_u64() > Some(0));
    let others = cluster.others(replica);
    assert_eq!(cluster.call(replica, &get("account", &json!("local"))).unwrap()["value"], "9000 euro");
    assert_eq!(cluster.ok_among(&others, &get("account", &json!("linearizable")))["value"], "1000 euro");
    assert!(cluster.log(replica).contains("STATES DIFFER"));
}

#[test]
fn a_primary_that_is_stopped_hands_over_first() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let term = cluster.view(leader).unwrap()["term"].as_u64();
    cluster.terminate(leader);
    let successor = cluster.wait_for_leader();
    // One term on: nobody had to notice a silence first and try in a term of its own.
    assert_eq!(cluster.view(successor).unwrap()["term"].as_u64(), term.map(|term| term + 1));
    assert!(cluster.log(successor).contains("serving as primary"));
}
