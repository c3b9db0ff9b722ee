//! Promise: deletes of keys that are not there take no more of the memory than their share, however
//! long a member is away. Beyond it they are refused, and say who holds their tombstones; sets, and
//! deletes of keys that are there, go on.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use cluster::Cluster;
use cluster::network::Id;
use serde_json::{Value, json};

/// Of which a sixteenth has room for some 1,400 tombstones of short keys.
const MAX_MEMORY: u64 = 1_600_000;
/// More than there is room for.
const MANY: u64 = 5_000;

fn set(key: &str) -> Value {
    json!({"op": "set", "key": key, "value": "x"})
}

fn delete(key: &str) -> Value {
    json!({"op": "delete", "key": key})
}

fn bulk_delete(keys: impl Iterator<Item = String>) -> Value {
    json!({"op": "bulk_delete", "keys": keys.collect::<Vec<_>>()})
}

fn of_absent(cluster: &Cluster, id: Id) -> Value {
    cluster.dynamo_view(id)["tombstones"]["of_absent_keys"].clone()
}

/// Deletes keys that are not there until one is refused; gives that key and the refusal.
fn fill(cluster: &Cluster, id: Id) -> (String, Value) {
    let keys = (0..MANY).map(|number| format!("single-{number}"));
    let refused = keys.into_iter().find_map(|key| {
        let reply = cluster.call(id, &delete(&key)).unwrap();
        if reply["ok"] == true {
            assert_eq!(reply["deleted"], false);
            return None;
        }
        Some((key, reply["error"].clone()))
    });
    refused.expect("deletes of absent keys have a bound")
}

fn is_refused(error: &Value, held_by: Id) {
    assert_eq!(
        (&error["code"], &error["outcome"], &error["held_by"]),
        (&json!("out_of_memory"), &json!("not_applied"), &json!([held_by])),
        "{error}"
    );
    let message = error["message"].as_str().unwrap();
    for part in
        ["nothing was changed", "1/16 of --max-memory, 100000 bytes", &format!("node {held_by} holds")]
    {
        assert!(message.contains(part), "{message}");
    }
}

fn wait_until_held_by(cluster: &Cluster, id: Id, by: Id) {
    cluster.wait_for_view(id, &format!("deletes are held back by {by}"), |view| {
        view["dynamo"]["tombstones"]["held_by"] == json!([by])
    });
}

#[test]
fn deletes_of_absent_keys_are_bounded_while_a_member_is_away_and_go_on_when_it_is_back() {
    let mut cluster = Cluster::dynamo(2, &["--max-memory", &MAX_MEMORY.to_string()]);
    for key in ["there", "there, too"] {
        cluster.ok_at(1, &json!({"op": "set", "key": key, "value": "x", "w": "all"}));
    }
    cluster.kill(2);
    assert_eq!(cluster.ok_at(1, &bulk_delete((0..400).map(|n| format!("bulk-{n}"))))["count"], 0);
    wait_until_held_by(&cluster, 1, 2);
    let kept = of_absent(&cluster, 1);
    assert_eq!((&kept["kept"], &kept["bytes_max"]), (&json!(400), &json!(MAX_MEMORY / 16)));
    cluster.ok_at(1, &json!({"op": "snapshot"}));

    let (refused, error) = fill(&cluster, 1);
    is_refused(&error, 2);
    let full = of_absent(&cluster, 1);
    assert!(
        full["kept"].as_u64() > Some(800) && full["bytes"].as_u64() <= full["bytes_max"].as_u64(),
        "{full}"
    );
    is_refused(&cluster.refused(1, &bulk_delete(["there".to_string(), refused.clone()].into_iter())), 2);
    is_refused(&cluster.refused(1, &json!({"op": "delete", "key": refused, "w": "all"})), 2);
    assert_eq!(of_absent(&cluster, 1), full, "a refused one leaves nothing");

    // What takes no room goes on.
    assert_eq!(cluster.ok_at(1, &delete("there"))["deleted"], true);
    assert_eq!(cluster.ok_at(1, &delete("there"))["deleted"], false);
    assert_eq!(cluster.ok_at(1, &delete("single-0"))["deleted"], false);
    cluster.ok_at(1, &set("new"));
    cluster.ok_at(1, &set(&refused));
    assert_eq!(cluster.ok_at(1, &delete(&refused))["deleted"], true);
    assert_eq!(of_absent(&cluster, 1), full);

    // It is known from the snapshot and from the log.
    cluster.kill(1);
    cluster.restart(1);
    wait_until_held_by(&cluster, 1, 2);
    assert_eq!(of_absent(&cluster, 1), full);
    is_refused(&fill(&cluster, 1).1, 2);

    cluster.restart(2);
    for id in [1, 2] {
        cluster.wait_for_view(id, "has forgotten all deletes", |view| {
            view["dynamo"]["tombstones"]["kept"] == 0
                && view["dynamo"]["tombstones"]["of_absent_keys"]["bytes"] == 0
        });
    }
    assert_eq!(cluster.ok_at(1, &bulk_delete((0..500).map(|n| format!("later-{n}"))))["count"], 0);
    let contents = cluster.settle();
    assert_eq!(contents.keys().collect::<Vec<_>>(), ["new", "there, too"]);
}
