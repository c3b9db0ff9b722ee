//! Promise: in dynamo mode no node admits more than nine members, and what parted nodes have
//! admitted beyond that is told; a node that every peer it reaches refuses takes no writes; and a
//! node whose stamps are ahead of time is told on all nodes.

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

fn set(key: &str) -> Value {
    json!({"op": "set", "key": key, "value": "v"})
}

/// What a new node says that has this number, and is to be found nowhere.
fn newcomer(node_id: u8, to: Id) -> Vec<u8> {
    let directory = Some(NodeUuid([node_id; 16]));
    let from = Place { node_id: node_id.into(), directory, host: "127.0.0.1".into(), port: 1 };
    let (mode, protocol, lane) = ("dynamo".to_string(), PROTOCOL, Lane::Log);
    greeting_line(&Greeting { mode, protocol, lane, from, boot: 1, to, is_new: true, advertise: None })
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

fn wait_until_shut_out(cluster: &Cluster, id: Id) {
    let of_itself = |member: &&Value| member["node_id"] == id;
    cluster.wait_for_view(id, "says that it is shut out", |view| {
        view["members"].as_array().unwrap().iter().find(of_itself).unwrap()["state"] == "shut_out"
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
    // The last ones may be told already that there is no place.
    let answers = greet(&cluster, 1, 11..=19);
    assert!(answers.iter().all(|answer| answer["ok"] == false), "{answers:?}");
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

#[test]
fn those_that_find_no_place_take_no_writes_and_join_when_one_is_free() {
    let mut cluster = Cluster::dynamo_with_room(2, 11, &[]);
    cluster.join_all(&Vec::from_iter(3..=11), &[1]);
    wait_for_members(&cluster, &[1, 2], 9);
    let joined = members(&cluster.view(1).unwrap());
    let strangers: Vec<Id> = (3..=11).filter(|id| !joined.contains(id)).collect();
    assert_eq!(strangers.len(), 2);
    for id in &strangers {
        wait_until_shut_out(&cluster, *id);
        let error = cluster.refused(*id, &set("reaches nobody"));
        assert_eq!((&error["code"], &error["outcome"]), (&json!("read_only"), &json!("not_applied")));
        assert!(error["message"].as_str().unwrap().contains("`evict`"), "{error}");
    }
    let gone = *joined.last().unwrap();
    cluster.kill(gone);
    cluster.ok_at(2, &json!({"op": "evict", "node_id": gone}));
    let inside = |cluster: &Cluster| -> Vec<Id> {
        let takes = |id: &Id| cluster.call(*id, &set("joined")).is_ok_and(|reply| reply["ok"] == true);
        strangers.iter().copied().filter(takes).collect()
    };
    let mut joined = Vec::new();
    cluster.wait_until("one of them takes writes", |cluster| {
        joined = inside(cluster);
        !joined.is_empty()
    });
    let outside = strangers.iter().find(|id| !joined.contains(id)).expect("there is one place");
    wait_for_members(&cluster, &[1, 2, joined[0]], 9);
    cluster.ok_at(joined[0], &json!({"op": "set", "key": "k", "value": 1, "w": 3}));
    assert_eq!(cluster.refused(*outside, &set("reaches nobody"))["code"], "read_only");
}

#[test]
fn a_node_of_one_mode_among_nodes_of_the_other_takes_no_writes() {
    let mut cluster = Cluster::prepared(3, &["--mode", "leader"]);
    cluster.set_dynamo_flags(3, &[]);
    cluster.restart_all();
    cluster.ok_among(&[1, 2], &set("by two that lead"));
    wait_until_shut_out(&cluster, 3);
    let error = cluster.refused(3, &set("reaches nobody"));
    assert_eq!((&error["code"], &error["outcome"]), (&json!("read_only"), &json!("not_applied")), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("nodes [1, 2] say") && message.contains("--mode"), "{message}");
    assert_eq!(cluster.ok_at(3, &json!({"op": "get", "key": "reaches nobody"}))["found"], false);

    // Alone it may: nobody that it reaches refuses it.
    cluster.kill(1);
    cluster.kill(2);
    cluster.wait_until("node 3 takes writes where nobody refuses it", |cluster| {
        cluster.call(3, &set("alone")).is_ok_and(|reply| reply["ok"] == true)
    });
}

#[test]
fn a_node_of_leader_mode_among_nodes_of_dynamo_mode_takes_no_writes() {
    let mut cluster = Cluster::prepared(3, &["--mode", "leader"]);
    [1, 2].into_iter().for_each(|id| cluster.set_dynamo_flags(id, &[]));
    cluster.restart_all();
    cluster.wait_for_log(3, "--mode dynamo, the other one with --mode leader");
    cluster.wait_for_contact(&[1, 2]);
    for id in [1, 2] {
        cluster.ok_at(id, &json!({"op": "set", "key": "k", "value": id, "w": 2}));
    }
    let error = cluster.refused(3, &set("reaches nobody"));
    assert_eq!(error["outcome"], "not_applied", "{error}");
}

/// Node 3 has written with a clock that was so far ahead, and is back among the others with a right one.
fn with_stamps_ahead(offset_ms: &str) -> Cluster {
    let mut cluster = Cluster::dynamo(3, &[]);
    cluster.settle();
    (1..=3).for_each(|id| cluster.kill(id));
    cluster.set_dynamo_flags(3, &["--clock-offset-ms", offset_ms]);
    cluster.restart(3);
    cluster.ok_at(3, &set("by a wrong clock"));
    cluster.kill(3);
    cluster.set_dynamo_flags(3, &[]);
    cluster.restart_all();
    cluster.wait_for_contact(&[1, 2, 3]);
    cluster
}

#[test]
fn stamps_that_are_ahead_of_time_are_told_on_all_nodes_with_the_time() {
    let cluster = with_stamps_ahead("3600000");
    cluster.ok_at(3, &set("by a right clock"));
    let said = wait_for_alarm(&cluster, &[1, 2, 3], "clock_ahead");
    assert_eq!(said.len(), 3, "{said:?}");
    let until = |alarm: &Value| {
        let message = alarm["message"].as_str().unwrap().to_string();
        let (_, rest) = message.split_once("until ").unwrap_or_else(|| panic!("{message}"));
        rest.split_once('Z').unwrap_or_else(|| panic!("{message}")).0.to_string()
    };
    for alarm in &said {
        assert_eq!(alarm["node_id"], 3, "{alarm}");
        assert_eq!(until(alarm), until(&said[0]), "all name the same time");
    }
    for id in [1, 2] {
        assert_eq!(cluster.dynamo_view(id)["clock"]["is_wrong"], false);
        assert_eq!(cluster.ok_at(id, &json!({"op": "get", "key": "by a right clock"}))["found"], false);
    }
    // Nobody waits for it any more.
    cluster.ok_at(1, &json!({"op": "evict", "node_id": 3}));
    wait_for_no_alarms(&cluster, &[1, 2]);
}

#[test]
fn when_the_time_has_come_nothing_is_told_any_more() {
    let mut cluster = with_stamps_ahead("8000");
    wait_for_alarm(&cluster, &[1, 2, 3], "clock_ahead");
    cluster.ok_at(3, &set("by a right clock"));
    wait_for_no_alarms(&cluster, &[1, 2, 3]);
    let contents = cluster.settle();
    assert_eq!(Vec::from_iter(contents.keys()), ["by a right clock", "by a wrong clock"]);
}
