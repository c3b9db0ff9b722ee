//! Promise: a cluster is brought to this version node by node, while it works. As long as
//! a node of the version before is in it, nothing is done that this one can't read.
//!
//! `--peer-protocol` makes a node say only what versions before said to its peers: with 1 nothing of members
//! that change, with 2 nothing of nodes in doubt, with 3 nothing of their disks. In dynamo mode, with 1, nothing of whom a node takes for members
//! and of streams that have ended.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeSet;
use std::path::Path;

use cluster::Cluster;
use cluster::directories::Back;
use cluster::members::members;
use cluster::network::Id;
use cluster::under_load::UnderLoad;
use common::random;
use datastore_utilities::random::Random;
use serde_json::{Value, json};

/// What the version before there were changes of members speaks.
const BEFORE: [&str; 2] = ["--peer-protocol", "1"];
/// What the version before there was doubt speaks.
const BEFORE_DOUBT: [&str; 2] = ["--peer-protocol", "2"];
/// What the version before nodes said how their disks are speaks.
const BEFORE_HEALTH: [&str; 2] = ["--peer-protocol", "3"];
/// More than twice the longest time after which a follower campaigns.
const MISSED_FOR_MS: u64 = 4_000;
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
    // It may be refused by the other side first, which takes the whole connection for one of its own version.
    let said = cluster.wait_for_log(leader, "node 4 speaks a version");
    assert!(said.contains("upgrade it"), "{said}");
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
    let said = cluster.wait_for_log(1, "node 2 speaks a version");
    assert!(said.contains("upgrade it"), "{said}");
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

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

fn is_in_doubt(cluster: &Cluster, id: Id) -> bool {
    let view = cluster.view(id).unwrap_or_default();
    let mut members = view["members"].as_array().into_iter().flatten();
    members.any(|member| member["node_id"] == id && member["state"] == "in_doubt")
}

fn has(cluster: &Cluster, id: Id, key: &str) -> bool {
    let get = json!({"op": "get", "key": key, "consistency": "local"});
    cluster.call(id, &get).is_ok_and(|reply| reply["found"] == true)
}

/// Three nodes, the second of which can say that it is in doubt, is set back, and has caught up.
fn one_in_doubt_among_nodes_of_the_version_before() -> Cluster {
    let mut cluster = Cluster::prepared(3, &BEFORE_DOUBT);
    cluster.set_flags(2, &[]);
    cluster.restart_all();
    cluster.wait_until_leads(1);
    cluster.wait_for_members();
    cluster.terminate(2);
    let kept = cluster.backup(2);
    cluster.restart(2);
    cluster.wait_for_members();
    cluster.ok(&set("w", "here"));
    cluster.wait_until("all have it", |cluster| cluster.ids().iter().all(|id| has(cluster, *id, "w")));
    cluster.kill(2);
    cluster.put_back(2, kept.path(), Back::Restored);
    cluster.restart(2);
    // What it had its leader believes it to have, until there is something new.
    cluster.ok(&set("later", "here"));
    cluster.wait_until("it has caught up", |cluster| has(cluster, 2, "w") && has(cluster, 2, "later"));
    cluster
}

#[test]
fn a_node_in_doubt_counts_for_nothing_with_a_leader_that_can_t_read_it() {
    let mut cluster = one_in_doubt_among_nodes_of_the_version_before();
    assert!(is_in_doubt(&cluster, 2));
    cluster.kill(3);
    let reply = cluster.call(1, &set("with node 2 alone", "here"));
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply["ok"] == false), "nobody else has it");
    let read = json!({"op": "get", "key": "w", "consistency": "linearizable"});
    let reply = cluster.call(1, &read);
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply["ok"] == false), "nobody else has heard it");
    cluster.restart(3);
    cluster.ok(&set("with node 3", "here"));
    assert!(is_in_doubt(&cluster, 2));
    // Upgraded, a leader ends it.
    for id in [3, 1] {
        upgrade(&mut cluster, id);
        cluster.wait_for_leader();
    }
    cluster
        .wait_until("the doubt has ended", |cluster| !is_in_doubt(cluster, 2) && cluster.view(2).is_some());
    cluster.wait_for_members();
    let contents = cluster.converge();
    assert!(contents.contains_key("w") && contents.contains_key("with node 3"));
}

#[test]
fn a_node_in_doubt_gives_no_vote_to_a_node_that_can_t_read_it() {
    let mut cluster = one_in_doubt_among_nodes_of_the_version_before();
    cluster.kill(1);
    cluster.wait_until_alone(2);
    // Node 3 can't tell, and asks for votes: several times in so long.
    cluster.wait_until("node 3 has missed its leader for long", |cluster| {
        let view = cluster.view(3).unwrap_or_default();
        let of_leader = view["members"].as_array().and_then(|all| all.iter().find(|row| row["node_id"] == 1));
        of_leader.is_some_and(|row| row["last_seen_ms"].as_u64().is_some_and(|ms| ms > MISSED_FOR_MS))
    });
    assert_eq!(cluster.leader(), None);
    let refused = cluster.refused(3, &set("taken by a minority", "here"));
    assert_eq!(refused["outcome"], "not_applied", "{refused}");
    cluster.restart(1);
    cluster.wait_for_leader();
    cluster.ok(&set("after", "here"));
    assert!(is_in_doubt(&cluster, 2));
}

#[test]
fn nodes_that_know_no_doubt_are_upgraded_under_load_and_their_directories_are_no_copies() {
    let mut cluster = Cluster::start_with(3, &BEFORE_DOUBT);
    let clients = under_load(&cluster, "doubt");
    for id in [3, 2, 1] {
        clients.wait_for_answers(&cluster, ANSWERS);
        cluster.terminate(id);
        // The version before made no mark.
        std::fs::remove_file(cluster.directory(id).join("mark.json")).expect("it is there");
        cluster.set_flags(id, &[]);
        cluster.restart(id);
        cluster.wait_for_members();
        assert!(!cluster.log(id).contains("IS A COPY"));
        assert!(cluster.directory(id).join("mark.json").exists());
    }
    clients.wait_for_answers(&cluster, ANSWERS);
    // And back.
    for id in [3, 2, 1] {
        cluster.terminate(id);
        cluster.set_flags(id, &BEFORE_DOUBT);
        cluster.restart(id);
        cluster.wait_for_members();
        clients.wait_for_answers(&cluster, ANSWERS);
    }
    clients.finish(&mut cluster);
}

/// Nodes of the version before say nothing of their disks, and take part in everything.
#[test]
fn nodes_that_say_nothing_of_their_disks_are_upgraded_and_go_back_under_load() {
    let mut cluster = Cluster::start_with(3, &BEFORE_HEALTH);
    let clients = under_load(&cluster, "health");
    let mut newer = BTreeSet::new();
    for flags in [&[][..], &BEFORE_HEALTH] {
        for id in [3, 2, 1] {
            clients.wait_for_answers(&cluster, ANSWERS);
            cluster.terminate(id);
            cluster.set_flags(id, flags);
            cluster.restart(id);
            cluster.wait_for_members();
            if flags.is_empty() {
                newer.insert(id)
            } else {
                newer.remove(&id)
            };
            let says = |cluster: &Cluster, of: u64| {
                let members = cluster.view(1)?["members"].as_array().cloned()?;
                Some(members.into_iter().find(|row| row["node_id"] == of)?["oldest_sync_ms"].is_u64())
            };
            // What node 1 hears is what both can say.
            cluster.wait_until("each says what the other can read", |cluster| {
                let both = |of: &u64| Some(newer.contains(&1) && newer.contains(of));
                [2, 3].iter().all(|of| says(cluster, *of) == both(of))
            });
        }
    }
    clients.finish(&mut cluster);
}

#[test]
fn in_dynamo_mode_nobody_is_evicted_while_a_member_can_t_read_what_is_said_of_it() {
    let mut cluster = Cluster::prepared(3, &[]);
    [1, 3].into_iter().for_each(|id| cluster.set_dynamo_flags(id, &[]));
    cluster.set_dynamo_flags(2, &BEFORE);
    cluster.restart_all();
    cluster.wait_for_contact(&[1, 2, 3]);
    for id in [1, 2, 3] {
        cluster.ok_at(id, &json!({"op": "set", "key": format!("by-{id}"), "value": "v", "w": "all"}));
    }
    cluster.kill(3);
    cluster.ok_at(2, &json!({"op": "delete", "key": "by-3", "w": 2}));
    let evict = json!({"op": "evict", "node_id": 3});
    let error = cluster.refused(1, &evict);
    assert_eq!(
        (&error["code"], &error["outcome"]),
        (&json!("bad_request"), &json!("not_applied")),
        "{error}"
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("members [2] run an earlier version"), "{message}");
    for id in [1, 2] {
        assert!(members(&cluster.view(id).unwrap()).contains(&3), "it stays a member");
        cluster.ok_at(id, &json!({"op": "set", "key": format!("more-by-{id}"), "value": "v", "w": 2}));
        cluster.wait_for_view(id, "keeps the delete for it", |view| {
            let tombstones = &view["dynamo"]["tombstones"];
            tombstones["kept"] == 1 && tombstones["held_by"] == json!([3])
        });
    }

    cluster.terminate(2);
    cluster.set_dynamo_flags(2, &[]);
    cluster.restart(2);
    cluster.wait_for_contact(&[1, 2]);
    cluster.evict(1, 3);
    cluster.wait_until("both have said what they have of it, and forget deletes", |cluster| {
        [1, 2].iter().all(|id| cluster.tombstones(*id) == 0)
    });
    cluster.settled_among(&[1, 2]);

    // What was said it can't read any more.
    cluster.terminate(2);
    cluster.set_dynamo_flags(2, &BEFORE);
    cluster.restart(2);
    cluster.wait_until_refused(2, &set("reaches nobody", "v"), "read_only");
    let error = cluster.refused(2, &set("reaches nobody", "v"));
    assert!(error["message"].as_str().unwrap().contains("start node 2 with this version"), "{error}");
    cluster.ok_at(1, &set("after", "v"));
    cluster.terminate(2);
    cluster.set_dynamo_flags(2, &[]);
    cluster.restart(2);
    cluster.wait_for_contact(&[1, 2]);
    let contents = cluster.settled_among(&[1, 2]);
    assert!(contents.contains_key("after") && !contents.contains_key("by-3"));
}
