//! Promise: `promote` with `force` makes one node the only voter, for a majority that is
//! lost, and never while there is one. Whoever comes back with nothing of its own joins by
//! itself; whoever has more is kept out, with what it has, until someone has chosen.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeMap;

use cluster::Cluster;
use cluster::members::voters;
use cluster::network::Id;
use serde_json::{Value, json};

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

fn force() -> Value {
    json!({"op": "promote", "force": true})
}

/// What a node has under a key, as it says itself.
fn local(cluster: &Cluster, id: Id, key: &str) -> Value {
    let get = json!({"op": "get", "key": key, "consistency": "local"});
    let reply = cluster.call(id, &get).expect("it answers");
    assert_eq!(reply["ok"], true, "{reply}");
    reply["value"].clone()
}

fn wait_until_all_have(cluster: &Cluster, key: &str, value: &str) {
    cluster.wait_until(&format!("all have {key}"), |cluster| {
        cluster.ids().into_iter().all(|id| {
            let item = cluster.contents(id).and_then(|contents| contents.get(key).cloned());
            item.is_some_and(|item| item["value"] == value)
        })
    });
}

/// All nodes hold these and nothing else.
fn holds(cluster: &mut Cluster, wanted: &[(&str, &str)]) {
    let contents = cluster.converge();
    let values: BTreeMap<&str, &Value> = contents
        .iter()
        .filter(|(key, _)| !is_probe(key))
        .map(|(key, item)| (key.as_str(), &item["value"]))
        .collect();
    let wanted: BTreeMap<&str, Value> = wanted.iter().map(|(key, value)| (*key, json!(value))).collect();
    assert_eq!(values, wanted.iter().map(|(key, value)| (*key, value)).collect());
}

/// What `wait_until_alone` tries to write.
fn is_probe(key: &str) -> bool {
    key == "is a majority there"
}

#[test]
fn while_there_is_a_majority_nobody_is_forced() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.kill(3);
    for id in [1, 2] {
        let error = cluster.refused(id, &force());
        assert_eq!((&error["code"], &error["outcome"]), (&json!("bad_request"), &json!("not_applied")));
        assert!(error["message"].as_str().unwrap().contains("in contact with a majority"), "{error}");
    }
    let error = cluster.refused(1, &json!({"op": "promote", "node_id": 2, "force": true}));
    assert!(error["message"].as_str().unwrap().contains("ask the other one"), "{error}");
    cluster.ok(&set("k", "v"));
    assert_eq!((cluster.epoch(1), cluster.epoch(2)), (Some(0), Some(0)));
}

#[test]
fn a_node_on_its_own_needs_no_force() {
    let cluster = Cluster::start(1);
    assert_eq!(cluster.refused(1, &force())["code"], "unsupported_in_mode");
    cluster.ok(&set("k", "v"));
}

#[test]
fn when_the_majority_is_lost_one_goes_on_and_the_others_join_it_as_they_come_back() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    wait_until_all_have(&cluster, "before", "here");
    cluster.kill(1);
    cluster.kill(2);
    cluster.wait_until_alone(3);
    cluster.force(3);
    let view = cluster.view(3).expect("it answers");
    assert_eq!(
        (&view["epoch"], &view["tolerates"], voters(&view)),
        (&json!(1), &json!(0), [3].into()),
        "{view}"
    );
    cluster.ok_among(&[3], &set("alone", "here"));
    // It is so from now on, also over a restart.
    cluster.kill(3);
    cluster.restart(3);
    cluster.ok_among(&[3], &set("again", "here"));
    cluster.restart_all();
    for id in [1, 2] {
        let said = cluster.wait_for_log(id, "the members have changed without this node");
        assert!(said.contains("begins anew") && said.contains(r#""epochs":1"#), "{said}");
    }
    cluster.wait_for_members();
    assert_eq!(cluster.ids().iter().map(|id| cluster.epoch(*id)).collect::<Vec<_>>(), [Some(1); 3]);
    holds(&mut cluster, &[("before", "here"), ("alone", "here"), ("again", "here")]);
    // And it is a cluster as any other: whoever leads may die.
    let leader = cluster.wait_for_leader();
    cluster.kill(leader);
    cluster.wait_for_leader();
    cluster.ok(&set("later", "here"));
}

#[test]
fn of_two_the_one_that_is_gone_for_good_is_replaced_by_another_one() {
    let mut cluster = Cluster::founded(2, 3, &[]);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    cluster.kill(2);
    cluster.wait_until_alone(1);
    cluster.force(1);
    cluster.leave_out(2);
    cluster.wait_for_members();
    cluster.add(3);
    assert_eq!(cluster.may_fail(), [1]);
    cluster.ok(&set("later", "here"));
    cluster.kill(1);
    cluster.wait_until_leads(3);
    holds(&mut cluster, &[("before", "here"), ("later", "here")]);
}

/// Three nodes, the third of which has been forced and has "mine", while "theirs" is with the others.
fn forced_beside_a_majority() -> Cluster {
    let cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    wait_until_all_have(&cluster, "before", "here");
    cluster.isolate(3);
    cluster.ok_among(&[1, 2], &set("theirs", "here"));
    cluster.wait_until("both have it", |cluster| {
        [1, 2].iter().all(|id| cluster.contents(*id).is_some_and(|contents| contents.contains_key("theirs")))
    });
    cluster.wait_until_alone(3);
    cluster.force(3);
    cluster.ok_among(&[3], &set("mine", "here"));
    cluster
}

#[test]
fn who_has_more_than_what_was_forced_is_kept_out_with_it_until_it_is_emptied() {
    let mut cluster = forced_beside_a_majority();
    cluster.heal();
    for id in [1, 2] {
        let said = cluster.wait_for_log(id, "LEFT BEHIND");
        assert!(said.contains("export") && said.contains("empty directory"), "{said}");
    }
    for id in [1, 2] {
        cluster.wait_until_alone(id);
        assert_eq!(
            (local(&cluster, id, "theirs"), local(&cluster, id, "mine")),
            (json!("here"), Value::Null)
        );
        let linearizable = json!({"op": "get", "key": "theirs", "consistency": "linearizable"});
        assert_eq!(cluster.refused(id, &linearizable)["code"], "no_quorum");
    }
    cluster.ok_among(&[3], &set("meanwhile", "here"));
    // A restart makes nothing of that undone.
    cluster.kill(1);
    cluster.restart(1);
    cluster.wait_for_log(1, "LEFT BEHIND");
    cluster.wait_until_alone(1);
    assert_eq!(local(&cluster, 1, "theirs"), "here");
    for id in [2, 1] {
        cluster.kill(id);
        cluster.wipe(id);
        cluster.restart(id);
    }
    cluster.wait_for_members();
    holds(&mut cluster, &[("before", "here"), ("mine", "here"), ("meanwhile", "here")]);
}

#[test]
fn a_pair_s_primary_that_is_forced_while_the_secondary_leads_keeps_that_out() {
    let mut cluster = Cluster::start(2);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    wait_until_all_have(&cluster, "before", "here");
    cluster.part(&[1], &[2]);
    cluster.wait_for_leader_among(&[2]);
    cluster.ok_among(&[2], &set("theirs", "here"));
    cluster.wait_until_alone(1);
    assert_eq!(cluster.refused(2, &force())["code"], "bad_request", "its witness and it are a majority");
    cluster.force(1);
    cluster.ok_among(&[1], &set("mine", "here"));
    cluster.heal();
    cluster.wait_for_log(2, "LEFT BEHIND");
    cluster.wait_until_alone(2);
    assert_eq!((local(&cluster, 2, "theirs"), local(&cluster, 2, "mine")), (json!("here"), Value::Null));
    cluster.kill(2);
    cluster.wipe(2);
    cluster.restart(2);
    cluster.wait_for_members();
    assert_eq!(cluster.may_fail(), [1]);
    holds(&mut cluster, &[("before", "here"), ("mine", "here")]);
}

#[test]
fn two_that_were_forced_apart_stay_apart_until_one_of_them_is_emptied() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    wait_until_all_have(&cluster, "before", "here");
    cluster.kill(3);
    cluster.part(&[1], &[2]);
    for (id, key) in [(1, "first"), (2, "second")] {
        cluster.wait_until_alone(id);
        cluster.force(id);
        cluster.ok_among(&[id], &set(key, "here"));
    }
    cluster.heal();
    for id in [1, 2] {
        let said = cluster.wait_for_log(id, "FORCED APART");
        assert!(said.contains("Choose"), "{said}");
    }
    // Each goes on as it is, and neither has anything of the other.
    for (id, key, other) in [(1, "first", "second"), (2, "second", "first")] {
        cluster.ok_among(&[id], &set(&format!("{key} goes on"), "here"));
        let view = cluster.view(id).expect("it answers");
        assert_eq!((&view["leader"]["node_id"], voters(&view)), (&json!(id), [id].into()), "{view}");
        assert_eq!((local(&cluster, id, key), local(&cluster, id, other)), (json!("here"), Value::Null));
    }
    cluster.kill(2);
    cluster.wipe(2);
    cluster.restart_all();
    cluster.wait_for_members();
    holds(&mut cluster, &[("before", "here"), ("first", "here"), ("first goes on", "here")]);
}
