//! Promise: in dynamo mode what was deleted doesn't come back through a directory that was evicted,
//! whoever meets it; a node that knows that it was evicted lets nobody in; and deletes wait for
//! whoever the flags of any one node name.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use cluster::Cluster;
use cluster::members::members;
use cluster::network::Id;
use serde_json::{Value, json};

/// So many writes at each node go on beside what must not come back.
const ROUNDS: usize = 20;
/// Of 100 kB each: much more than is on its way at once.
const FILLERS: usize = 200;

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

/// On the disks of so many members, or it fails.
fn set_at(cluster: &Cluster, id: Id, key: &str, copies: usize) {
    cluster.ok_at(id, &json!({"op": "set", "key": key, "value": "v", "w": copies}));
}

fn delete(key: &str) -> Value {
    json!({"op": "delete", "key": key})
}

fn is_found(cluster: &Cluster, id: Id, key: &str) -> bool {
    cluster.ok_at(id, &json!({"op": "get", "key": key}))["found"] == true
}

/// What a node says of itself.
fn own_state(view: &Value, id: Id) -> Value {
    let mut members = view["members"].as_array().into_iter().flatten();
    members.find(|member| member["node_id"] == id).map_or(Value::Null, |member| member["state"].clone())
}

/// How much of its own streams a node has on its disk, by what it says.
fn own_entries(view: &Value, id: Id) -> u64 {
    let streams = view["dynamo"]["streams"].as_array().expect("a list").iter();
    streams.filter(|stream| stream["node_id"] == id).filter_map(|stream| stream["sequence"].as_u64()).sum()
}

fn wait_for_no_tombstones(cluster: &Cluster, ids: &[Id]) {
    cluster.wait_until(&format!("{ids:?} have forgotten all deletes"), |cluster| {
        ids.iter().all(|id| cluster.tombstones(*id) == 0)
    });
}

/// Whether a node keeps tombstones, and says that it keeps them for the sake of this one.
fn is_held_by(view: &Value, by: Id) -> bool {
    let tombstones = &view["dynamo"]["tombstones"];
    let held_by = tombstones["held_by"].as_array();
    tombstones["kept"].as_u64() > Some(0) && held_by.is_some_and(|held_by| held_by.contains(&json!(by)))
}

/// Node 1 has forgotten a delete that node 2, which was evicted, never heard of; node 3 names both, and joins.
fn joins_beside_evicted(mut cluster: Cluster) {
    cluster.join(3, &[1, 2]);
    cluster.wait_for_contact(&[1, 3]);
    for round in 0..ROUNDS {
        for id in [1, 3] {
            set_at(&cluster, id, &format!("by-{id}-{round}"), 2);
            assert!([1, 3].iter().all(|id| !is_found(&cluster, *id, "k")), "{}", cluster.describe());
        }
    }
    assert!(is_found(&cluster, 2, "k"), "it was there to come back");
    cluster.heal();
    cluster.wait_until_refused(2, &set("late", "v"), "read_only");
    let contents = cluster.settled_among(&[1, 3]);
    assert!((0..ROUNDS).all(|round| contents.contains_key(&format!("by-3-{round}"))));
    assert!(!contents.contains_key("k"));
    cluster.wait_for_equal_states(&[1, 3]);
}

#[test]
fn deleted_data_doesn_t_come_back_through_an_evicted_directory() {
    let mut cluster = Cluster::dynamo_with_room(2, 3, &[]);
    // Node 1 never hears of the write that it deletes.
    cluster.kill(1);
    cluster.ok_at(2, &set("k", "old"));
    cluster.kill(2);
    cluster.restart(1);
    cluster.ok_at(1, &delete("k"));
    cluster.evict(1, 2);
    wait_for_no_tombstones(&cluster, &[1]);
    cluster.restart(2);
    joins_beside_evicted(cluster);
}

#[test]
fn deleted_data_doesn_t_come_back_through_an_evicted_node_that_was_not_told() {
    let cluster = Cluster::dynamo_with_room(2, 3, &[]);
    cluster.part(&[1], &[2]);
    cluster.ok_at(2, &set("k", "old"));
    cluster.ok_at(1, &delete("k"));
    // Who joins hears of the eviction behind all of this, and could have heard all of node 2 until then.
    let filler = "x".repeat(100_000);
    for _ in 0..FILLERS {
        cluster.ok_at(1, &set("filler", &filler));
    }
    cluster.ok_at(1, &json!({"op": "evict", "node_id": 2}));
    wait_for_no_tombstones(&cluster, &[1]);
    joins_beside_evicted(cluster);
}

#[test]
fn an_evicted_node_that_knows_it_admits_nobody() {
    let mut cluster = Cluster::dynamo_with_room(2, 3, &[]);
    set_at(&cluster, 2, "k", 2);
    // The beginning of its stream, and the write: it shows that a moment after it is done.
    cluster.wait_for_view(2, "shows its write", |view| own_entries(view, 2) == 2);
    cluster.evict(1, 2);
    // It says it as soon as it was told, and has then to bring it to its disk.
    cluster.wait_for_view(2, "was evicted, and has that in its log", |view| {
        own_state(view, 2) == "evicted" && own_entries(view, 2) > 2
    });
    cluster.kill(1);
    cluster.kill(2);

    cluster.restart(2);
    assert_eq!(own_state(&cluster.view(2).unwrap(), 2), "evicted", "nobody is there who could say so");
    assert_eq!(cluster.refused(2, &set("late", "v"))["code"], "read_only");
    cluster.join(3, &[2]);
    cluster.wait_until_refused(3, &set("reaches nobody", "v"), "read_only");
    let error = cluster.refused(3, &set("reaches nobody", "v"));
    assert_eq!((&error["code"], &error["outcome"]), (&json!("read_only"), &json!("not_applied")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("evicted itself"), "{error}");
    assert!(!members(&cluster.view(2).unwrap()).contains(&3), "{}", cluster.describe());
    assert!(!is_found(&cluster, 3, "k"), "it is told nothing");

    // Whoever counts lets it in.
    cluster.restart(1);
    cluster.kill(3);
    cluster.join(3, &[1, 2]);
    cluster.wait_for_contact(&[1, 3]);
    set_at(&cluster, 3, "reaches node 1", 2);
    assert!(is_found(&cluster, 3, "k") && is_found(&cluster, 1, "reaches node 1"));
}

#[test]
fn one_sided_peers_hold_deletes_back_for_whoever_anyone_names() {
    let mut cluster = Cluster::prepared(3, &[]);
    (1..=3).for_each(|id| cluster.set_dynamo_flags(id, &[]));
    cluster.join(1, &[2]);
    cluster.join(2, &[1, 3]);
    cluster.wait_for_contact(&[1, 2]);
    set_at(&cluster, 1, "k", 2);
    cluster.ok_at(1, &delete("k"));
    for round in 0..ROUNDS {
        for id in [1, 2] {
            set_at(&cluster, id, &format!("by-{id}-{round}"), 2);
        }
    }
    // The flags of node 1 don't name it.
    for id in [1, 2] {
        cluster.wait_for_view(id, "deletes are held back by node 3", |view| is_held_by(view, 3));
    }
    cluster.join(3, &[2]);
    cluster.wait_for_contact(&[1, 2, 3]);
    wait_for_no_tombstones(&cluster, &[1, 2, 3]);
    let contents = cluster.settle();
    assert_eq!((contents.len(), contents.contains_key("k")), (2 * ROUNDS, false));
    cluster.wait_for_equal_states(&[1, 2, 3]);
}
