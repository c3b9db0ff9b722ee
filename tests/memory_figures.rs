//! The promise: whoever receives writes, and whoever receives entries, keeps no more of them than
//! what `stats` names: together with the entries and the indexes its figures explain the memory of
//! a process at rest, in every mode, however the writes came.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::time::{Duration, Instant};

use cluster::Cluster;
use cluster::network::Id;
use common::{Options, PATIENCE, temporary_directory};
use serde_json::{Value, json};

/// Small writes, each sent when its client's last one is answered: a client's each is in an entry and
/// a frame of its own, and reaches the other nodes in a packet of its own.
const WRITES: u64 = 50_000;
/// Of a cluster. At most so many share an entry.
const CLIENTS: u64 = 2;
/// Few enough to leave hardly anything behind.
const KEYS: u64 = 20;
/// By how much the figures may miss what the system says.
const ERROR_MAX: f64 = 0.25;
const POLL: Duration = Duration::from_millis(100);

/// What doesn't add up with the rest.
const NO_PARTS: [&str; 6] =
    ["used_bytes", "max_bytes", "used_by", "next_growth_bytes", "resident_bytes", "explained_bytes"];

fn memory(call: &mut dyn FnMut(&Value) -> Value) -> Value {
    let reply = call(&json!({"op": "stats", "section": "memory"}));
    assert_eq!(reply["ok"], true, "{reply}");
    reply["memory"].clone()
}

/// Waits until a node at rest is explained by its figures; shows them.
fn is_explained(who: &str, call: &mut dyn FnMut(&Value) -> Value) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let memory = memory(call);
        let bytes = |name: &str| memory[name].as_u64().unwrap_or_else(|| panic!("{name}: {memory}"));
        let fields = memory.as_object().unwrap().keys().map(String::as_str);
        let sum: u64 = fields.filter(|name| !NO_PARTS.contains(name)).map(bytes).sum();
        assert_eq!(sum, bytes("explained_bytes"), "{memory}");
        assert_eq!(bytes("table_bytes") + bytes("indexes_bytes"), bytes("used_bytes"), "{memory}");
        let ratio = bytes("explained_bytes") as f64 / bytes("resident_bytes") as f64;
        if (ratio - 1.0).abs() <= ERROR_MAX {
            eprintln!("{who}: {:.0} % of {} KiB explained", ratio * 100.0, bytes("resident_bytes") / 1024);
            return;
        }
        assert!(Instant::now() < deadline, "{who}: {:.0} % explained by {memory}", ratio * 100.0);
        std::thread::sleep(POLL);
    }
}

fn write_one_by_one(writes: u64, call: &mut dyn FnMut(&Value) -> Value) {
    for number in 0..writes {
        let request = json!({"op": "set", "key": format!("key:{}", number % KEYS), "value": number});
        assert_eq!(call(&request)["ok"], true);
    }
}

/// Writes to one node of a cluster, and holds each of them to what it says of itself.
fn all_are_explained(cluster: &Cluster, writer: Id, has_all: impl Fn(&Cluster, Id) -> bool) {
    std::thread::scope(|scope| {
        for mut client in (0..CLIENTS).map(|_| cluster.client(writer)) {
            let mut call = move |request: &Value| client.call(request).expect("it answers");
            scope.spawn(move || write_one_by_one(WRITES / CLIENTS, &mut call));
        }
    });
    cluster.wait_until("all have all", |cluster| cluster.ids().iter().all(|id| has_all(cluster, *id)));
    let entries = cluster.view(writer).and_then(|view| view["applied_index"].as_u64());
    assert!(entries >= Some(WRITES / CLIENTS), "{entries:?} entries");
    for id in cluster.ids() {
        let mut client = cluster.client(id);
        is_explained(&format!("node {id}"), &mut |request| client.call(request).expect("it answers"));
    }
}

#[test]
fn a_lone_node_s_memory_is_explained_after_small_writes_and_when_it_has_read_its_directory() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    write_one_by_one(WRITES, &mut |request| client.call(request.clone()));
    is_explained("after small writes", &mut |request| client.call(request.clone()));
    let node = node.kill().start();
    let mut client = node.client();
    client.when_ready(json!({"op": "scan"}));
    is_explained("after a start", &mut |request| client.call(request.clone()));
}

#[test]
fn in_leader_mode_the_memory_of_all_nodes_is_explained_after_small_writes() {
    let cluster = Cluster::start_with(3, &["--indexes", "none"]);
    let leader = cluster.wait_for_leader();
    all_are_explained(&cluster, leader, |cluster, id| {
        let index = |id| cluster.view(id).and_then(|view| view["applied_index"].as_u64());
        index(id).is_some() && index(id) == index(leader)
    });
}

#[test]
fn in_dynamo_mode_the_memory_of_all_nodes_is_explained_after_small_writes() {
    let cluster = Cluster::dynamo(3, &["--indexes", "none"]);
    all_are_explained(&cluster, 1, |cluster, id| {
        let streams = |id| cluster.view(id).map(|view| view["dynamo"]["streams"].clone());
        streams(id).is_some() && streams(id) == streams(1)
    });
}
