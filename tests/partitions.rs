//! Promise: the side with a majority goes on; the other side says `no_quorum` and
//! changes nothing; when the network is healed all are one again, and nobody who was
//! cut off disturbs those who were not.
//!
//! Networks are parted by kernel namespaces or by proxies in this process:
//! `DATASTORE_PARTITIONS=proxy|namespaces`, see `common/network.rs`.
//! `DATASTORE_FAULT_ROUNDS` says how often the flapping network flaps (12 unless given).

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeMap;

use cluster::Cluster;
use cluster::network::Id;
use cluster::under_load::{UnderLoad, rounds};
use common::random;
use datastore_utilities::random::Random;
use serde_json::{Value, json};

const FLAPS_DEFAULT: usize = 12;

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

fn get(key: &str) -> Value {
    json!({"op": "get", "key": key})
}

fn term(cluster: &Cluster, id: Id) -> Value {
    cluster.view(id).expect("it answers")["term"].clone()
}

/// Everything that a node is left without, on the minority's side, until all is healed.
fn is_a_minority(cluster: &Cluster, id: Id) {
    cluster.wait_until_refused(id, &set("minority", "refused"), "no_quorum");
    cluster.wait_until_refused(id, &get("before"), "no_quorum");
    let error = cluster.refused(id, &set("minority-for-good", "refused"));
    assert_eq!(
        (&error["code"], &error["outcome"], &error["retryable"]),
        (&json!("no_quorum"), &json!("not_applied"), &json!(true))
    );
    // Whoever asks for no more than it has is still answered.
    let local =
        cluster.call(id, &json!({"op": "get", "key": "before", "consistency": "local"})).expect("it answers");
    assert_eq!(local["value"], "here", "{local}");
}

fn values(contents: &BTreeMap<String, Value>) -> BTreeMap<&str, &Value> {
    contents.iter().map(|(key, item)| (key.as_str(), &item["value"])).collect()
}

/// All are one again, with what was acknowledged, and without what was refused.
fn all_is_well(cluster: &mut Cluster, acknowledged: &[&str]) {
    let contents = cluster.converge();
    let values = values(&contents);
    for key in acknowledged {
        assert_eq!(values.get(key), Some(&&json!("here")), "{key} was acknowledged");
    }
    assert!(!values.contains_key("minority-for-good"), "it was refused");
}

#[test]
fn a_leader_that_is_cut_off_steps_down_and_the_others_go_on() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    cluster.isolate(1);
    cluster.wait_for_leader_among(&[2, 3]);
    cluster.wait_until("node 2 leads", |cluster| cluster.leader_among(&[2, 3]) == Some(2));
    cluster.ok_among(&[2, 3], &set("during", "here"));
    is_a_minority(&cluster, 1);
    cluster.wait_until_given_up(2, 1);
    let before = term(&cluster, 2);
    cluster.heal();
    cluster.wait_until("node 1 follows", |cluster| {
        cluster.call(1, &get("before")).is_ok_and(|reply| reply["error"]["code"] == "not_leader")
    });
    all_is_well(&mut cluster, &["before", "during"]);
    assert_eq!((cluster.leader(), term(&cluster, 2)), (Some(2), before), "its return unseats nobody");
}

#[test]
fn a_write_under_way_when_the_leader_is_cut_off_is_not_refused_for_certain() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    cluster.isolate(1);
    // It may be answered before the leader knows that it is alone, but then never with
    // `ok`, and with `not_applied` only if it never shows.
    let reply = cluster.call(1, &set("under-way", "there"));
    let outcome = reply.as_ref().ok().map(|reply| reply["error"]["outcome"].clone());
    if let Ok(reply) = &reply {
        assert_eq!(reply["ok"], false, "nobody else has it: {reply}");
    }
    cluster.wait_for_leader_among(&[2, 3]);
    cluster.ok_among(&[2, 3], &set("during", "here"));
    let contents = cluster.converge();
    let is_there = contents.contains_key("under-way");
    assert!(!(is_there && outcome == Some(json!("not_applied"))), "it was refused, and is there");
    assert_eq!(contents["during"]["value"], "here");
}

#[test]
fn a_replica_that_is_cut_off_disturbs_nobody() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    cluster.wait_until("node 3 has it", |cluster| {
        let local = json!({"op": "get", "key": "before", "consistency": "local"});
        cluster.call(3, &local).is_ok_and(|reply| reply["value"] == "here")
    });
    let before = term(&cluster, 1);
    cluster.isolate(3);
    cluster.ok_among(&[1, 2], &set("during", "here"));
    is_a_minority(&cluster, 3);
    all_is_well(&mut cluster, &["before", "during"]);
    assert_eq!((cluster.leader(), term(&cluster, 1)), (Some(1), before), "its return unseats nobody");
}

#[test]
fn when_all_are_alone_nobody_answers_and_all_come_back() {
    let mut cluster = Cluster::start(3);
    cluster.ok(&set("before", "here"));
    cluster.converge();
    for id in cluster.ids() {
        cluster.isolate(id);
    }
    for id in cluster.ids() {
        is_a_minority(&cluster, id);
    }
    cluster.heal();
    cluster.wait_for_leader();
    cluster.ok(&set("behind", "here"));
    all_is_well(&mut cluster, &["before", "behind"]);
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    cluster.cut(1, 2);
    cluster.cut(1, 3);
    cluster.wait_for_leader_among(&[2, 3]);
    cluster.ok_among(&[2, 3], &set("during", "here"));
    all_is_well(&mut cluster, &["before", "during"]);
}

#[test]
fn a_leader_that_hears_nobody_makes_way() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    // Its heartbeats still arrive; if it went on with them, nobody would ever take over.
    cluster.cut(2, 1);
    cluster.cut(3, 1);
    cluster.wait_for_leader_among(&[2, 3]);
    cluster.ok_among(&[2, 3], &set("during", "here"));
    all_is_well(&mut cluster, &["before", "during"]);
}

#[test]
fn one_broken_way_between_leader_and_replica_moves_nothing() {
    // One way, the other way, both ways; the third node is in contact with both.
    for cuts in [&[(1, 3)][..], &[(3, 1)], &[(1, 3), (3, 1)]] {
        let mut cluster = Cluster::start(3);
        cluster.wait_until_leads(1);
        cluster.ok(&set("before", "here"));
        let before = term(&cluster, 1);
        for (from, to) in cuts {
            cluster.cut(*from, *to);
        }
        // The node behind the broken way has noticed, and tries what it can.
        cluster.wait_until("the broken way is noticed", |cluster| {
            let view = cluster.view(1).expect("it answers");
            let lost = view["members"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|member| member["node_id"] == 3 && member["state"] != "serving");
            let alone = cluster.view(3).is_some_and(|view| view["leader"].is_null());
            lost || alone
        });
        for number in 0..20 {
            cluster.ok_among(&[1, 2], &set(&format!("during-{number}"), "here"));
        }
        assert_eq!((cluster.leader(), term(&cluster, 1)), (Some(1), before.clone()), "{cuts:?}");
        all_is_well(&mut cluster, &["before", "during-0", "during-19"]);
        assert_eq!((cluster.leader(), term(&cluster, 1)), (Some(1), before), "{cuts:?}");
    }
}

#[test]
fn of_five_three_go_on_without_two() {
    let mut cluster = Cluster::start(5);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    cluster.converge();
    cluster.part(&[1, 2], &[3, 4, 5]);
    cluster.wait_until("node 3 leads", |cluster| cluster.leader_among(&[3, 4, 5]) == Some(3));
    cluster.ok_among(&[3, 4, 5], &set("during", "here"));
    is_a_minority(&cluster, 1);
    is_a_minority(&cluster, 2);
    all_is_well(&mut cluster, &["before", "during"]);
}

#[test]
fn a_flapping_network_loses_nothing() {
    let mut random = Random::new(random::seed());
    let mut cluster = Cluster::start(3);
    let clients = UnderLoad::start(cluster.load("flapping"), &mut random);
    for _ in 0..rounds(FLAPS_DEFAULT) {
        // Mostly too short for an election to end.
        clients.wait_for_answers(&cluster, 5 + random.below(60) as usize);
        cluster.heal();
        // Some of the ways around one node: the two others can always go on.
        let one = 1 + random.below(3);
        for other in cluster.others(one) {
            for (from, to) in [(one, other), (other, one)] {
                if random.below(3) > 0 {
                    cluster.cut(from, to);
                }
            }
        }
    }
    cluster.heal();
    clients.wait_for_answers(&cluster, 100);
    clients.finish(&mut cluster);
}
