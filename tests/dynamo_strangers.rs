//! Promise: in dynamo mode no node admits more than nine members, and what parted nodes have
//! admitted beyond that is told.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use cluster::Cluster;
use cluster::members::members;
use cluster::network::Id;
use datastore::messaging::peer_greeting::greeting_line;
use datastore::persistence::NodeUuid;
use datastore::replication::dynamo::{Greeting, PROTOCOL, Place};
use datastore::replication::handshake::Lane;
use serde_json::{Value, json};

/// What a new node says that has this number, and is to be found nowhere.
fn newcomer(node_id: u8, to: Id) -> Vec<u8> {
    let directory = Some(NodeUuid([node_id; 16]));
    let from = Place { node_id: node_id.into(), directory, host: "127.0.0.1".into(), port: 1 };
    let (mode, protocol, lane) = ("dynamo".to_string(), PROTOCOL, Lane::Log);
    greeting_line(&Greeting { mode, protocol, lane, from, boot: 1, to, is_new: true })
}

/// The answers to so many newcomers' greetings in one go.
fn greet(cluster: &Cluster, at: Id, newcomers: impl Iterator<Item = u8>) -> Vec<Value> {
    cluster.lines_at(at, &newcomers.map(|id| newcomer(id, at)).collect::<Vec<_>>())
}

fn wait_for_members(cluster: &Cluster, ids: &[Id], wanted: usize) {
    cluster.wait_until(&format!("{ids:?} have {wanted} members"), |cluster| {
        ids.iter().all(|id| cluster.view(*id).is_some_and(|view| members(&view).len() == wanted))
    });
}

/// What the alarms of this code say, as `cluster` and `stats` have them.
fn alarms(cluster: &Cluster, id: Id, code: &str) -> Vec<Value> {
    let stats = cluster.ok_at(id, &json!({"op": "stats", "section": "replication"}));
    let shown = stats["replication"]["alarms"].as_array().expect("a list").clone();
    shown.into_iter().filter(|alarm| alarm["code"] == code).collect()
}

/// Waits until these nodes say it in `cluster`; `stats` says the same then.
fn wait_for_alarm(cluster: &Cluster, ids: &[Id], code: &str) -> Vec<Value> {
    let has = |view: &Value| view["alarms"].as_array().unwrap().iter().any(|alarm| alarm["code"] == code);
    ids.iter().for_each(|id| cluster.wait_for_view(*id, code, has));
    ids.iter().flat_map(|id| alarms(cluster, *id, code)).collect()
}

fn wait_for_no_alarms(cluster: &Cluster, ids: &[Id]) {
    ids.iter().for_each(|id| cluster.wait_for_view(*id, "no alarms", |view| view["alarms"] == json!([])));
}

#[test]
fn of_nine_that_greet_in_one_go_as_many_join_as_there_are_places() {
    let cluster = Cluster::dynamo(2, &[]);
    let answers = greet(&cluster, 1, 11..=19);
    assert!(answers.iter().all(|answer| answer["error"]["code"] == "starting"), "{answers:?}");
    wait_for_members(&cluster, &[1, 2], 9);
    // Who was admitted is let in when it comes again, and nobody else.
    let answers = greet(&cluster, 1, 11..=19);
    let (welcome, refused): (Vec<Value>, Vec<Value>) =
        answers.into_iter().partition(|answer| answer["ok"] == true);
    assert_eq!((welcome.len(), refused.len()), (7, 2), "{refused:?}");
    for refused in &refused {
        assert_eq!(refused["error"]["code"], "read_only", "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("`evict`"), "{refused}");
    }
    [1, 2].into_iter().for_each(|id| assert_eq!(members(&cluster.view(id).unwrap()).len(), 9));
    assert_eq!(alarms(&cluster, 1, "too_many_members"), [] as [Value; 0]);
}

#[test]
fn what_parted_nodes_have_admitted_beyond_nine_is_told_and_nobody_more_joins() {
    let cluster = Cluster::dynamo(2, &[]);
    cluster.part(&[1], &[2]);
    greet(&cluster, 1, 11..=15);
    greet(&cluster, 2, 21..=25);
    wait_for_members(&cluster, &[1, 2], 7);
    cluster.heal();
    wait_for_members(&cluster, &[1, 2], 12);
    for alarm in wait_for_alarm(&cluster, &[1, 2], "too_many_members") {
        assert!(alarm["message"].as_str().unwrap().contains("`evict` 3"), "{alarm}");
    }
    let is_refused = |at: Id| {
        let answer = greet(&cluster, at, 31..=31).remove(0);
        assert_eq!(answer["error"]["code"], "read_only", "{answer}");
    };
    [1, 2].into_iter().for_each(is_refused);
    [11, 12, 21]
        .into_iter()
        .for_each(|gone| drop(cluster.ok_at(1, &json!({"op": "evict", "node_id": gone}))));
    wait_for_members(&cluster, &[1, 2], 9);
    wait_for_no_alarms(&cluster, &[1, 2]);
    [1, 2].into_iter().for_each(is_refused);
    cluster.ok_at(1, &json!({"op": "evict", "node_id": 22}));
    wait_for_members(&cluster, &[1, 2], 8);
    greet(&cluster, 2, 31..=31);
    wait_for_members(&cluster, &[1, 2], 9);
}
