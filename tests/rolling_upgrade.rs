//! Promise: a cluster is brought to this version node by node, while it works. As long as
//! a node of the version before is in it, nothing is done that this one can't read.
//!
//! `--peer-protocol 1` makes a node say only what the version before said to its peers.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::path::Path;

use cluster::Cluster;
use cluster::network::Id;
use cluster::under_load::UnderLoad;
use common::random;
use datastore_utilities::random::Random;
use serde_json::{Value, json};

/// What the version before speaks.
const BEFORE: [&str; 2] = ["--peer-protocol", "1"];
const ANSWERS: usize = 100;

fn under_load(cluster: &Cluster, name: &str) -> UnderLoad {
    UnderLoad::start(cluster.load(name), &mut Random::new(random::seed()))
}

/// A node starts again, without the flag.
fn upgrade(cluster: &mut Cluster, id: Id) {
    cluster.terminate(id);
    cluster.set_flags(id, &[]);
    cluster.restart(id);
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("it is JSON")
}

/// A membership as the version before wrote it, byte for byte.
fn in_format_1(cluster_name: &Value, members: &[Value]) -> String {
    let member = |member: &Value| {
        let [id, host, port, node] = ["node_id", "host", "port", "node"].map(|field| &member[field]);
        format!(r#"{{"node_id":{id},"host":{host},"port":{port},"node":{node}}}"#)
    };
    let members = members.iter().map(member).collect::<Vec<_>>().join(",");
    format!("{{\"format\":1,\"cluster\":{cluster_name},\"founder\":1,\"members\":[{members}]}}\n")
}

/// Whether a node's membership is one that the version before can read.
fn is_plain(cluster: &Cluster, id: Id) -> bool {
    let path = cluster.directory(id).join("cluster.json");
    let (text, stored) = (std::fs::read_to_string(&path).expect("it is there"), read(&path));
    let members = stored["members"].as_array();
    members.is_some_and(|members| text == in_format_1(&stored["cluster"], members))
}

#[test]
fn three_nodes_are_upgraded_one_by_one_under_load_and_then_a_fourth_is_added() {
    let mut cluster = Cluster::founded(3, 4, &BEFORE);
    let clients = under_load(&cluster, "upgraded");
    for id in [3, 2, 1] {
        clients.wait_for_answers(&cluster, ANSWERS);
        assert!(cluster.ids().into_iter().all(|id| is_plain(&cluster, id)));
        upgrade(&mut cluster, id);
        cluster.wait_for_members();
    }
    clients.wait_for_answers(&cluster, ANSWERS);
    assert!(cluster.ids().into_iter().all(|id| is_plain(&cluster, id)), "nothing has happened yet");
    cluster.set_flags(4, &[]);
    cluster.add(4);
    assert!(cluster.ids().into_iter().all(|id| !is_plain(&cluster, id)));
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}

#[test]
fn members_don_t_change_while_a_node_of_the_version_before_is_there() {
    // It leads; it follows.
    for earlier in [1, 3] {
        let mut cluster = Cluster::prepared(3, &[]);
        cluster.set_flags(earlier, &BEFORE);
        cluster.restart_all();
        cluster.wait_until_leads(1);
        cluster.wait_for_members();
        let clients = under_load(&cluster, "earlier");
        for request in [
            json!({"op": "add_member", "node_id": 4, "host": "127.0.0.1", "port": 9}),
            json!({"op": "remove_member", "node_id": 2}),
        ] {
            let error = cluster.refused(1, &request);
            assert_eq!((&error["code"], &error["outcome"]), (&json!("bad_request"), &json!("not_applied")));
            let message = error["message"].as_str().unwrap();
            let named = format!("node {earlier} speaks a version");
            assert!(message.contains(&named), "{message}");
        }
        assert!(cluster.ids().into_iter().all(|id| is_plain(&cluster, id)));
        upgrade(&mut cluster, earlier);
        cluster.wait_for_members();
        let leader = cluster.wait_for_leader();
        let removed = cluster.others(leader)[0];
        cluster.remove(removed);
        clients.wait_for_answers(&cluster, ANSWERS);
        clients.finish(&mut cluster);
    }
}

#[test]
fn a_node_of_the_version_before_is_refused_where_members_have_changed() {
    let mut cluster = Cluster::founded(3, 4, &[]);
    cluster.add(4);
    cluster.kill(4);
    cluster.set_flags(4, &BEFORE);
    cluster.restart(4);
    let leader = cluster.wait_for_leader();
    let said = cluster.wait_for_log(leader, "upgrade it");
    assert!(said.contains("node 4"), "{said}");
    cluster.ok(&json!({"op": "set", "key": "k", "value": "v"}));
    upgrade(&mut cluster, 4);
    cluster.wait_for_members();
    cluster.converge();
}

#[test]
fn a_new_pair_is_of_this_version_on_both_sides() {
    let mut cluster = Cluster::prepared(2, &[]);
    cluster.set_flags(2, &BEFORE);
    cluster.restart_all();
    let said = cluster.wait_for_log(1, "upgrade it");
    assert!(said.contains("node 2"), "{said}");
    cluster.wait_until_alone(1);
    upgrade(&mut cluster, 2);
    cluster.wait_until_leads(1);
    cluster.wait_for_members();
}

/// Two nodes that the version before has founded: both vote, and there is no witness.
fn pair_of_the_version_before() -> Cluster {
    let mut cluster = Cluster::prepared(2, &[]);
    // Each makes its directory, and they don't meet.
    for id in [1, 2] {
        cluster.restart(id);
        cluster.terminate(id);
    }
    let founded = read(&cluster.directory(1).join("cluster.json"));
    let mut members = founded["base"]["nodes"].as_array().expect("its nodes").clone();
    members[1]["node"] = read(&cluster.directory(2).join("identity.json"))["node"].clone();
    for id in [1, 2] {
        let text = in_format_1(&founded["cluster"], &members);
        std::fs::write(cluster.directory(id).join("cluster.json"), text).expect("it is written");
        cluster.set_flags(id, &BEFORE);
    }
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster
}

#[test]
fn a_pair_of_the_version_before_gets_a_witness_when_both_are_upgraded() {
    let mut cluster = pair_of_the_version_before();
    let clients = under_load(&cluster, "pair");
    clients.wait_for_answers(&cluster, ANSWERS);
    for id in [2, 1] {
        let leader = cluster.wait_for_leader();
        let view = cluster.view(leader).expect("it answers");
        assert_eq!(
            (&view["witness"], &view["may_fail"]),
            (&Value::Null, &json!([])),
            "each is needed: {view}"
        );
        assert!(is_plain(&cluster, 1) && is_plain(&cluster, 2));
        upgrade(&mut cluster, id);
        cluster.wait_for_leader();
        clients.wait_for_answers(&cluster, ANSWERS);
    }
    cluster.wait_for_members();
    let mortal = cluster.may_fail()[0];
    cluster.kill(mortal);
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}
