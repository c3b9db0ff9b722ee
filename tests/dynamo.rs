//! Promise: in dynamo mode every node takes writes, each reaches all nodes and is found there
//! by every search; `w`, `r` and `after_version` mean what they say; a race is lost visibly,
//! and to the same write everywhere; and nothing of the other mode is taken for this one's.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use cluster::Cluster;
use cluster::dynamo::version;
use cluster::network::Id;
use common::addresses::own_addresses;
use common::{Client, Options, temporary_directory};
use serde_json::{Value, json};

/// Enough for a busy machine to replicate, and soon over where it must be.
const SHORT: [&str; 2] = ["--request-timeout-ms", "2000"];

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

fn get(key: &str) -> Value {
    json!({"op": "get", "key": key})
}

fn with(mut request: Value, field: &str, value: Value) -> Value {
    request[field] = value;
    request
}

/// The keys that a search finds on a node.
fn keys(cluster: &Cluster, id: Id, request: &Value) -> Vec<String> {
    let reply = cluster.ok_at(id, request);
    let name = |item: &Value| item.as_str().or(item["key"].as_str()).unwrap_or_default().to_string();
    let lists = ["keys", "matches", "items"].into_iter();
    lists.filter_map(|list| reply[list].as_array()).flatten().map(name).collect()
}

fn has_code(error: &Value, code: &str, outcome: &str) {
    assert_eq!((&error["code"], &error["outcome"]), (&json!(code), &json!(outcome)), "{error}");
}

#[test]
fn two_nodes_that_name_each_other_take_writes_and_have_all_of_them() {
    let addresses = own_addresses::<2>();
    let directories = [(); 2].map(|()| temporary_directory());
    let nodes = [0, 1].map(|node| {
        let other = 1 - node;
        let peers =
            json!([{"node_id": other + 1, "host": addresses[other].ip(), "port": addresses[other].port()}]);
        let options = Options::in_directory(directories[node].path()).with(&[
            "--host",
            &addresses[node].ip().to_string(),
            "--port",
            &addresses[node].port().to_string(),
            "--node-id",
            &(node + 1).to_string(),
            "--mode",
            "dynamo",
            "--peers",
            &peers.to_string(),
        ]);
        options.start()
    });
    let mut clients = nodes.each_ref().map(|node| node.client());
    for (writer, key) in [(0, "username"), (1, "city")] {
        let version = clients[writer].ok(set(key, "alice"))["version"].clone();
        let read = clients[1 - writer].ok(with(get(key), "after_version", version.clone()));
        assert_eq!((&read["value"], &read["version"]), (&json!("alice"), &version));
    }
    for client in &mut clients {
        let hello = client.ok(json!({"op": "hello"}));
        assert_eq!(
            (&hello["mode"], &hello["role"], &hello["leader"]),
            (&json!("dynamo"), &json!("primary"), &Value::Null)
        );
        assert_eq!(client.ok(json!({"op": "count"}))["count"], 2);
    }
}

#[test]
fn what_any_of_five_nodes_takes_is_found_by_every_search_on_all() {
    let mut cluster = Cluster::dynamo(5, &[]);
    for id in 1..=5 {
        let key = |name: &str| format!("{name}-{id}");
        cluster.ok_at(id, &set(&key("set"), &format!("green tea {id}")));
        cluster.ok_at(id, &json!({"op": "add_vector", "key": key("vector"), "vector": [1.0, id as f64]}));
        let records: Vec<Value> = (0..3).map(|of| json!([format!("bulk-{id}-{of}"), {"of": id}])).collect();
        assert_eq!(cluster.ok_at(id, &json!({"op": "bulk_set", "records": records}))["count"], 3);
        cluster.ok_at(id, &set(&key("deleted"), "red wine"));
        assert_eq!(cluster.ok_at(id, &json!({"op": "delete", "key": key("deleted")}))["deleted"], true);
        let gone = [format!("bulk-{id}-2"), key("nothing")];
        assert_eq!(cluster.ok_at(id, &json!({"op": "bulk_delete", "keys": gone}))["count"], 1);
    }
    let contents = cluster.settle();
    // Of each node: one set, one vector, and two of a bulk.
    assert_eq!(contents.len(), 5 * 4);
    for (on, id) in (1..=5).flat_map(|on| (1..=5).map(move |id| (on, id))) {
        let value = json!({"op": "search_by_value", "value": format!("green tea {id}")});
        assert_eq!(keys(&cluster, on, &value), [format!("set-{id}")]);
        let bulk = json!({"op": "search_by_value", "value": {"of": id}});
        assert_eq!(keys(&cluster, on, &bulk), [format!("bulk-{id}-0"), format!("bulk-{id}-1")]);
        let nearest = json!({"op": "vector_search", "vector": [1.0, id as f64], "top_k": 1});
        assert_eq!(keys(&cluster, on, &nearest), [format!("vector-{id}")]);
    }
    for on in 1..=5 {
        assert_eq!(keys(&cluster, on, &json!({"op": "search_text", "query": "tea"})).len(), 5);
        assert!(keys(&cluster, on, &json!({"op": "search_text", "query": "wine"})).is_empty());
        assert!(keys(&cluster, on, &json!({"op": "search_by_value", "value": "red wine"})).is_empty());
        assert_eq!(keys(&cluster, on, &json!({"op": "scan", "prefix": "set-"})).len(), 5);
        assert_eq!(cluster.ok_at(on, &json!({"op": "count"}))["count"], 20);
    }
    cluster.wait_for_equal_states(&[1, 2, 3, 4, 5]);
}

#[test]
fn a_write_waits_for_as_many_disks_as_it_asks_for_and_stays_when_they_don_t_come() {
    let mut cluster = Cluster::dynamo(3, &SHORT);
    for w in [json!(1), json!(2), json!(3), json!("majority"), json!("all")] {
        cluster.ok_at(1, &with(set(&format!("all there {w}"), "x"), "w", w));
    }
    cluster.kill(3);
    for w in [json!(1), json!(2), json!("majority")] {
        let requests = [
            set(&format!("two there {w}"), "x"),
            json!({"op": "bulk_set", "records": [["a", 1], ["b", 2], ["c", 3]]}),
            json!({"op": "add_vector", "key": "v", "vector": [1, 2]}),
            json!({"op": "bulk_delete", "keys": ["a", "b", "c"]}),
            json!({"op": "delete", "key": "v"}),
        ];
        requests.into_iter().for_each(|request| drop(cluster.ok_at(1, &with(request, "w", w.clone()))));
    }
    for w in [json!(3), json!("all")] {
        let key = format!("one too few {w}");
        let error = cluster.refused(2, &with(set(&key, "x"), "w", w));
        has_code(&error, "replication_timeout", "applied");
        assert_eq!((&error["acknowledged"], &error["retryable"]), (&json!(2), &json!(false)), "{error}");
        assert_eq!(cluster.ok_at(2, &get(&key))["value"], "x", "it was applied");
    }
    let error = cluster.refused(2, &with(set("more than there are", "x"), "w", json!(4)));
    has_code(&error, "bad_request", "not_applied");
    assert!(error["message"].as_str().unwrap().contains('3'), "says how many members there are: {error}");
    let contents = cluster.settle();
    assert!(contents.contains_key("one too few 3") && contents.contains_key("one too few \"all\""));
    assert!(!contents.contains_key("more than there are"));
}

#[test]
fn a_read_of_a_majority_finds_what_a_majority_has() {
    let mut cluster = Cluster::dynamo(3, &SHORT);
    cluster.ok_at(1, &with(set("k", "old"), "w", json!("all")));
    cluster.kill(3);
    let new = cluster.ok_at(1, &with(set("k", "new"), "w", json!("majority")))["version"].clone();
    cluster.kill(1);
    cluster.restart(3);
    // Node 3 may not have it yet itself: one of two that answer does.
    cluster.wait_until("a majority answers", |cluster| {
        let reply = cluster.call(3, &with(get("k"), "r", json!("majority"))).expect("it answers");
        assert!(reply["ok"] == false || (reply["value"] == "new" && reply["version"] == new), "{reply}");
        reply["ok"] == true
    });
    let error = cluster.refused(3, &with(get("k"), "r", json!("all")));
    has_code(&error, "too_stale", "not_applied");
    assert_eq!(error["retryable"], true);
    has_code(&cluster.refused(3, &with(get("k"), "r", json!(4))), "bad_request", "not_applied");
    let absent = cluster.ok_at(3, &with(get("never written"), "r", json!(2)));
    assert_eq!((&absent["found"], &absent["value"]), (&json!(false), &Value::Null));
}

#[test]
fn a_read_waits_for_the_write_it_names_and_says_when_that_doesn_t_come() {
    let mut cluster = Cluster::dynamo(2, &SHORT);
    for number in 0..50 {
        let key = format!("k{}", number % 5);
        let written = cluster.ok_at(1, &set(&key, &format!("v{number}")))["version"].clone();
        let after = |request: Value| with(request, "after_version", written.clone());
        let value = format!("v{number}");
        assert_eq!(cluster.ok_at(2, &after(get(&key)))["value"], value);
        assert_eq!(keys(&cluster, 2, &after(json!({"op": "search_by_value", "value": value}))), [key]);
    }
    // It can't have come to a node that does nothing.
    cluster.pause(2);
    let written = cluster.ok_at(1, &set("late", "x"))["version"].clone();
    cluster.resume(2);
    assert_eq!(cluster.ok_at(2, &with(get("late"), "after_version", written.clone()))["value"], "x");
    // Nor to one that doesn't run while its writer does.
    cluster.kill(2);
    let written = cluster.ok_at(1, &set("later", "x"))["version"].clone();
    cluster.kill(1);
    cluster.restart(2);
    let read = with(get("later"), "after_version", written);
    let error = cluster.refused(2, &read);
    has_code(&error, "too_stale", "not_applied");
    assert_eq!(error["retryable"], true);
    cluster.settle();
    assert_eq!(cluster.ok_at(2, &read)["value"], "x");
}

#[test]
fn what_needs_one_node_that_decides_is_refused_and_what_needs_many_is_refused_without() {
    let cluster = Cluster::dynamo(2, &[]);
    cluster.ok_at(1, &set("k", "v"));
    let linearizable = |request: Value| with(request, "consistency", json!("linearizable"));
    for request in [
        with(set("k", "w"), "if_absent", json!(true)),
        with(set("k", "w"), "if_version", json!("1.1")),
        json!({"op": "delete", "key": "k", "if_version": "1.1"}),
        json!({"op": "add_vector", "key": "k", "vector": [1], "if_version": "1.1"}),
        linearizable(get("k")),
        linearizable(json!({"op": "scan"})),
        linearizable(json!({"op": "count"})),
        linearizable(json!({"op": "search_text", "query": "v"})),
        with(get("k"), "consistency", json!({"max_staleness_ms": 10})),
        json!({"op": "promote"}),
        json!({"op": "promote", "force": true}),
        json!({"op": "add_member", "node_id": 3, "host": "127.0.0.1", "port": 1}),
        json!({"op": "remove_member", "node_id": 2}),
    ] {
        has_code(&cluster.refused(1, &request), "unsupported_in_mode", "not_applied");
    }
    assert_eq!(cluster.ok_at(1, &with(get("k"), "consistency", json!("local")))["value"], "v");

    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    client.ok(set("k", "v"));
    for request in [
        with(set("k", "w"), "w", json!(1)),
        with(get("k"), "r", json!(1)),
        with(get("k"), "after_version", json!("1.1")),
        json!({"op": "conflicts"}),
        json!({"op": "evict", "node_id": 2}),
    ] {
        has_code(&client.refused(request), "unsupported_in_mode", "not_applied");
    }
    assert_eq!(client.ok(get("k"))["value"], "v", "nothing of it was done");
}

/// Two nodes that have each written these keys without hearing of the other.
fn raced(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::dynamo(2, &[]);
    cluster.settle();
    cluster.kill(2);
    names.iter().for_each(|key| drop(cluster.ok_at(1, &set(key, "of 1"))));
    cluster.kill(1);
    cluster.restart(2);
    names.iter().for_each(|key| drop(cluster.ok_at(2, &set(key, "of 2"))));
    cluster.settle();
    cluster
}

fn conflicts(cluster: &Cluster, id: Id, more: Value) -> Value {
    let mut request = json!({"op": "conflicts"});
    more.as_object().unwrap().iter().for_each(|(field, value)| request[field] = value.clone());
    cluster.ok_at(id, &request)
}

#[test]
fn of_two_writes_that_didn_t_know_of_each_other_one_wins_everywhere_and_the_other_can_be_read() {
    let names = ["a", "b", "c", "d", "e"];
    let cluster = raced(&names);
    let seen = [1, 2].map(|id| conflicts(&cluster, id, json!({}))["conflicts"].as_array().unwrap().clone());
    let seers: Vec<usize> = (0..2).filter(|node| !seen[*node].is_empty()).collect();
    assert!(!seers.is_empty(), "a race was lost, and nobody saw it");
    for key in names {
        let [one, other] = [1, 2].map(|id| cluster.ok_at(id, &get(key)));
        assert_eq!((&one["value"], &one["version"]), (&other["value"], &other["version"]));
        assert_eq!(one["value"], "of 2", "the later one wins");
        for node in &seers {
            let row =
                seen[*node].iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key}: {seen:?}"));
            assert_eq!(
                (&row["winner"]["value"], &row["winner"]["version"]),
                (&one["value"], &one["version"])
            );
            assert_eq!(row["loser"]["value"], "of 1");
            assert!(version(&row["loser"]["version"]) < version(&row["winner"]["version"]), "{row}");
            assert!(row["seen_at"].is_u64(), "{row}");
        }
    }
    for node in seers {
        let id = node as Id + 1;
        let stats = cluster.ok_at(id, &json!({"op": "stats", "section": "replication"}));
        assert_eq!(stats["replication"]["dynamo"]["conflicts"], 5, "{stats}");
        // Page by page it is the same.
        let (mut paged, mut after) = (Vec::new(), Value::Null);
        loop {
            let more =
                if after.is_null() { json!({"limit": 2}) } else { json!({"limit": 2, "after": after}) };
            let page = conflicts(&cluster, id, more);
            let rows = page["conflicts"].as_array().unwrap();
            assert!(rows.len() <= 2);
            paged.extend(rows.iter().cloned());
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
        assert_eq!(paged, seen[node]);
    }
    let error = cluster.refused(1, &json!({"op": "conflicts", "after": "not a cursor"}));
    has_code(&error, "bad_request", "not_applied");
}

#[test]
fn a_write_of_who_knew_the_other_one_is_no_conflict() {
    let mut cluster = Cluster::dynamo(2, &[]);
    for number in 0..20 {
        let (writer, next) = if number % 2 == 0 { (1, 2) } else { (2, 1) };
        let written = cluster.ok_at(writer, &set("k", &number.to_string()))["version"].clone();
        cluster.ok_at(next, &with(get("k"), "after_version", written));
    }
    let deleted = cluster.ok_at(1, &json!({"op": "delete", "key": "k", "w": 2}));
    assert_eq!(deleted["deleted"], true);
    assert!(cluster.settle().is_empty());
    for id in [1, 2] {
        assert_eq!(conflicts(&cluster, id, json!({})), json!({"ok": true, "conflicts": [], "next": null}));
        assert_eq!(cluster.dynamo_view(id)["conflicts"], 0);
    }
}

#[test]
fn a_directory_of_one_mode_refuses_the_other_and_says_how_to_move() {
    for (first, other) in [("leader", "dynamo"), ("dynamo", "leader")] {
        let directory = temporary_directory();
        let node = Options::in_directory(directory.path()).with(&["--mode", first]).start();
        node.client().ok(set("k", "v"));
        let options = node.kill().with(&["--mode", other]);
        let Err((status, said)) = options.try_start() else { panic!("{other} took a directory of {first}") };
        assert_eq!(status.code(), Some(1), "{said}");
        for word in [&format!("--mode {first}"), &format!("--mode {other}"), "export", "import"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let node = Options::in_directory(directory.path()).with(&["--mode", first]).start();
        assert_eq!(node.client().ok(get("k"))["value"], "v", "the refused start changed nothing");
    }
}

#[test]
fn nodes_of_different_modes_refuse_each_other_and_say_why() {
    let addresses = own_addresses::<2>();
    let directories = [(); 2].map(|()| temporary_directory());
    let mut nodes = [0, 1].map(|node| {
        let other = 1 - node;
        let peers =
            json!([{"node_id": other + 1, "host": addresses[other].ip(), "port": addresses[other].port()}]);
        let options = Options::in_directory(directories[node].path()).with(&[
            "--host",
            &addresses[node].ip().to_string(),
            "--port",
            &addresses[node].port().to_string(),
            "--node-id",
            &(node + 1).to_string(),
            "--mode",
            ["leader", "dynamo"][node],
            "--peers",
            &peers.to_string(),
        ]);
        options.start()
    });
    for node in &mut nodes {
        node.wait_for_log("--mode leader, the other one with --mode dynamo");
    }
    // What either took would reach nobody.
    let mut client: Client = nodes[1].client();
    has_code(&client.refused(set("k", "v")), "read_only", "not_applied");
}
