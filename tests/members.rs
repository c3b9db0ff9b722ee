//! Promise: nodes come and go while clients write and read, and nothing that was
//! acknowledged is lost by that, whoever is killed or cut off meanwhile.
//!
//! `DATASTORE_FAULT_ROUNDS` says how many changes the test of random ones makes (5 unless
//! given), `DATASTORE_TEST_SEED` repeats its choices. A hundred of them:
//!
//! ```text
//! DATASTORE_FAULT_ROUNDS=100 cargo test --release -p datastore-node --test members random -- --nocapture
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::time::Duration;

use cluster::Cluster;
use cluster::members::{members, voters};
use cluster::network::Id;
use cluster::under_load::{UnderLoad, rounds};
use common::random;
use datastore_utilities::random::Random;
use serde_json::{Value, json};

const ROUNDS_DEFAULT: usize = 5;
/// Answers between two changes.
const ANSWERS: usize = 100;
/// Members at once, and nodes of which they are chosen.
const MEMBERS_MAX: usize = 5;
const NODES: u64 = 7;
/// How long a change is waited for while a node is parted from the others.
const PARTED: Duration = Duration::from_millis(500);

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

fn pick(random: &mut Random, from: &[Id]) -> Option<Id> {
    (!from.is_empty()).then(|| from[random.below(from.len() as u64) as usize])
}

fn under_load(founders: u64, total: u64, name: &str) -> (Cluster, UnderLoad, Random) {
    let mut random = Random::new(random::seed());
    // Small enough that some newcomers get a snapshot.
    let flags = ["--segment-bytes", "65536", "--snapshot-every-bytes", "131072"];
    let cluster = Cluster::founded(founders, total, &flags);
    let clients = UnderLoad::start(cluster.load(name), &mut random);
    clients.wait_for_answers(&cluster, ANSWERS);
    (cluster, clients, random)
}

#[test]
fn a_node_alone_grows_to_five_and_shrinks_to_another_one_under_load() {
    let (mut cluster, clients, _) = under_load(1, 5, "grows");
    for id in 2..=5 {
        cluster.add(id);
        clients.wait_for_answers(&cluster, ANSWERS);
    }
    assert_eq!(cluster.may_fail(), [1, 2, 3, 4, 5]);
    // The leader twice, a replica, and one of two.
    for id in [1, 5, 2, 4] {
        cluster.remove(id);
        clients.wait_for_answers(&cluster, ANSWERS);
    }
    assert_eq!(cluster.ids(), [3]);
    clients.finish(&mut cluster);
}

/// What a round of random changes does.
#[derive(Debug)]
enum Change {
    Add(Id),
    Remove(Id),
    /// It is dead, and another number takes its place.
    Replace(Id, Id),
    /// It is dead, and comes again under its number.
    Renew(Id),
}

impl Change {
    /// One that can be made of what is there, and never leads to none.
    fn choose(cluster: &Cluster, random: &mut Random) -> Change {
        let ids = cluster.ids();
        let spare: Vec<Id> = (1..=NODES).filter(|id| !ids.contains(id)).collect();
        let new = pick(random, &spare).expect("there are more nodes than may be members");
        // Without its data the cluster goes on only if it says so.
        let mortal = pick(random, &cluster.may_fail());
        let (may_grow, may_shrink) = (ids.len() < MEMBERS_MAX, ids.len() > 1);
        match (random.below(6), mortal) {
            (0, _) if may_shrink => Change::Remove(pick(random, &ids).expect("there are some")),
            (1, Some(dead)) => Change::Replace(dead, new),
            (2, Some(dead)) => Change::Renew(dead),
            _ if may_grow => Change::Add(new),
            _ => Change::Remove(pick(random, &ids).expect("there are some")),
        }
    }

    /// Makes it, with faults while it is under way; gives how many changes and faults that were.
    fn make(&self, cluster: &mut Cluster, random: &mut Random) -> (usize, usize) {
        match *self {
            Change::Add(id) => {
                cluster.bring_in(id);
                (1, settle(cluster, random))
            }
            Change::Remove(id) => {
                cluster.leave_out(id);
                let faults = settle(cluster, random);
                cluster.retire(id);
                (1, faults)
            }
            Change::Replace(dead, new) => {
                cluster.kill(dead);
                cluster.leave_out(dead);
                let faults = settle(cluster, random);
                cluster.wipe(dead);
                cluster.bring_in(new);
                (2, 1 + faults + settle(cluster, random))
            }
            Change::Renew(id) => Change::Replace(id, id).make(cluster, random),
        }
    }
}

/// Lets what was asked for come about, mostly with faults while it does; gives how many.
fn settle(cluster: &mut Cluster, random: &mut Random) -> usize {
    let faults = random.below(3) as usize;
    for _ in 0..faults {
        // Asked, and not waited for: the fault falls before the change, within it, or behind it.
        cluster.ask_for_members(Duration::from_millis(1 + random.below(150)));
        let leader = cluster.leader().filter(|_| random.below(2) == 0);
        let victim = leader.or_else(|| pick(random, &cluster.running())).expect("some run");
        if random.below(3) > 0 {
            cluster.kill(victim);
            cluster.restart_unless_removed(victim);
            continue;
        }
        let others: Vec<Id> = cluster.running().into_iter().filter(|id| *id != victim).collect();
        cluster.part(&[victim], &others);
        // Time for an election, if there can be one, and for a change on either side.
        for _ in 0..4 {
            cluster.ask_for_members(PARTED);
            cluster.call(victim, &set("parted", "from the others")).ok();
        }
        cluster.heal();
    }
    cluster.wait_for_members();
    faults
}

#[test]
fn nothing_is_lost_over_random_changes_with_faults_while_they_are_under_way() {
    let (mut cluster, clients, mut random) = under_load(3, NODES, "random");
    let (mut changes, mut faults) = (0, 0);
    while changes < rounds(ROUNDS_DEFAULT) {
        let change = Change::choose(&cluster, &mut random);
        println!("{change:?} of {:?}", cluster.ids());
        let (more_changes, more_faults) = change.make(&mut cluster, &mut random);
        (changes, faults) = (changes + more_changes, faults + more_faults);
        clients.wait_for_answers(&cluster, ANSWERS);
    }
    let report = clients.finish(&mut cluster);
    println!(
        "membership changes: {changes}, faults: {faults}, operations: {}, violations: {}",
        report.counts.answered + report.counts.refused + report.counts.unknown,
        report.violations.len()
    );
}

#[test]
fn a_dead_node_is_replaced_by_another_one_under_load() {
    let (mut cluster, clients, _) = under_load(3, 4, "replaced");
    cluster.kill(1);
    clients.wait_for_answers(&cluster, ANSWERS);
    cluster.leave_out(1);
    cluster.wait_for_members();
    cluster.add(4);
    assert_eq!(cluster.may_fail(), [2, 3, 4]);
    // Two of the three are a majority, the new one among them.
    cluster.kill(2);
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}

#[test]
fn a_node_that_was_emptied_is_refused_until_it_is_removed_and_added_again() {
    let (mut cluster, clients, _) = under_load(3, 3, "emptied");
    cluster.kill(3);
    cluster.wipe(3);
    cluster.restart(3);
    for id in [1, 3] {
        let said = cluster.wait_for_log(id, "lost its data");
        assert!(said.contains("remove_member") && said.contains("add_member"), "{said}");
    }
    assert_eq!(cluster.contents(3).unwrap_or_default().len(), 0, "it is told nothing");
    cluster.wait_until("the leader counts on two", |cluster| {
        let view = cluster.leader().and_then(|leader| cluster.view(leader)).unwrap_or_default();
        view["tolerates"] == 0 && view["may_fail"] == json!([])
    });
    cluster.leave_out(3);
    cluster.wait_for_members();
    cluster.kill(3);
    cluster.wipe(3);
    cluster.add(3);
    assert_eq!(cluster.may_fail(), [1, 2, 3]);
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}

/// A node that was removed while it didn't run, and comes back with what it had.
fn returns_after_removal(cluster: &mut Cluster, id: Id) {
    cluster.kill(id);
    cluster.leave_out(id);
    cluster.wait_for_members();
    cluster.restart(id);
}

#[test]
fn a_node_that_was_removed_and_comes_back_does_no_harm_and_may_be_added_again() {
    let (mut cluster, clients, _) = under_load(4, 4, "returns");
    returns_after_removal(&mut cluster, 1);
    let leader = cluster.wait_for_leader();
    let term = cluster.view(leader).expect("it answers")["term"].clone();
    let said = cluster.wait_for_log(1, "is no member of this cluster");
    assert!(said.contains("add_member"), "{said}");
    cluster.wait_until_alone(1);
    clients.wait_for_answers(&cluster, 3 * ANSWERS);
    let view = cluster.view(leader).expect("it answers");
    assert_eq!((cluster.leader(), &view["term"]), (Some(leader), &term), "it unseats nobody");
    cluster.kill(1);
    cluster.wipe(1);
    cluster.add(1);
    clients.wait_for_answers(&cluster, ANSWERS);
    clients.finish(&mut cluster);
}

#[test]
fn a_node_that_runs_while_it_is_removed_answers_no_quorum_and_is_told_why() {
    let mut cluster = Cluster::start(4);
    cluster.ok(&set("k", "v"));
    cluster.converge();
    cluster.leave_out(4);
    cluster.wait_for_members();
    let said = cluster.wait_for_log(4, "is no member of this cluster");
    assert!(said.contains("[1, 2, 3]") && said.contains("add_member"), "{said}");
    cluster.wait_until_alone(4);
    cluster.ok(&set("k", "w"));
    let local = json!({"op": "get", "key": "k", "consistency": "local"});
    assert_eq!(cluster.call(4, &local).expect("it answers")["value"], "v", "it shows what it had");
}

#[test]
fn only_the_leader_changes_members_and_who_is_removed_hands_over_first() {
    let mut cluster = Cluster::founded(3, 4, &[]);
    cluster.wait_until_leads(1);
    let remove = |id: Id| json!({"op": "remove_member", "node_id": id});
    for request in [cluster.add_member(4), remove(3)] {
        let error = cluster.refused(2, &request);
        assert_eq!((&error["code"], &error["outcome"]), (&json!("not_leader"), &json!("not_applied")));
        assert_eq!(error["leader"]["node_id"], 1);
    }
    let error = cluster.refused(1, &remove(1));
    assert!(error["code"] == "not_leader" || error["code"] == "no_leader", "{error}");
    assert_eq!(error["outcome"], "not_applied", "{error}");
    let next = cluster.wait_for_leader_among(&[2, 3]);
    assert!(members(&cluster.view(next).expect("it answers")).contains(&1), "it is still there");
    cluster.leave_out(1);
    cluster.wait_for_members();
    cluster.wait_until_alone(1);
}

/// A request that the leader must refuse, and what it must say.
fn is_refused(cluster: &Cluster, request: &Value, code: &str, reason: &str) {
    let leader = cluster.wait_for_leader();
    let error = cluster.refused(leader, request);
    assert_eq!((&error["code"], &error["outcome"]), (&json!(code), &json!("not_applied")), "{request}");
    assert!(error["message"].as_str().unwrap().contains(reason), "{request} → {error}");
}

#[test]
fn what_can_t_be_is_refused_and_changes_nothing() {
    let cluster = Cluster::founded(3, 4, &[]);
    cluster.wait_until_leads(1);
    let with = |mut request: Value, field: &str, value: Value| {
        request[field] = value;
        request
    };
    // Where the founder was told that it is.
    let known = cluster.view(1).expect("it answers")["members"][2].clone();
    let third = json!({"op": "add_member", "node_id": 3, "host": known["host"], "port": known["port"]});
    let new = cluster.add_member(4);
    for (request, reason) in [
        (with(new.clone(), "node_id", json!(0)), "node_id"),
        (with(new.clone(), "node_id", json!(1_u64 << 53)), "node_id"),
        (with(new.clone(), "host", json!("")), "host"),
        (with(new.clone(), "port", json!(0)), "port"),
        (with(new, "port", json!(65_536)), "port"),
        (with(third.clone(), "port", json!(1)), "node 3 is a member already"),
        (with(third.clone(), "node_id", json!(4)), "is the address of node 3"),
        (json!({"op": "remove_member", "node_id": 9}), "node 9 is no member; the members are [1, 2, 3]"),
        (json!({"op": "remove_member"}), "node_id"),
    ] {
        is_refused(&cluster, &request, "bad_request", reason);
    }
    // It is there already: nothing is left to do.
    let view = cluster.ok(&third);
    assert_eq!(members(&view), voters(&view));
    cluster.wait_for_members();
}

#[test]
fn a_node_without_company_keeps_its_vote() {
    let mut cluster = Cluster::founded(1, 2, &[]);
    cluster.ok(&set("before", "here"));
    let remove = |id: Id| json!({"op": "remove_member", "node_id": id});
    is_refused(&cluster, &remove(1), "unsupported_in_mode", "on its own");
    // Its companion ends too early, and the first goes on without it.
    cluster.wipe(2);
    cluster.restart(2);
    let added = cluster.ok(&cluster.add_member(2));
    cluster.kill(2);
    assert_eq!((members(&added).len(), voters(&added).len()), (2, 1), "{added}");
    cluster.wait_until("it has begun anew", |cluster| {
        cluster.view(1).is_some_and(|view| members(&view).len() == 2 && view["leader"]["node_id"] == 1)
    });
    cluster.ok(&set("between", "here"));
    is_refused(&cluster, &remove(1), "bad_request", "nobody votes");
    cluster.ok(&remove(2));
    cluster.wait_for_members();
    cluster.wipe(2);
    cluster.add(2);
    let contents = cluster.converge();
    assert_eq!(contents.keys().collect::<Vec<_>>(), ["before", "between"]);
}

/// While some are dead, no member is removed whom the others need: writes go on, and it is said who can be removed.
#[test]
fn with_dead_members_no_living_one_is_removed_that_the_others_need() {
    for (count, dead) in [(3, &[3][..]), (5, &[4, 5][..])] {
        let mut cluster = Cluster::start(count);
        cluster.wait_until_leads(1);
        dead.iter().for_each(|id| cluster.kill(*id));
        cluster.ok(&set("before", "v"));
        for needed in (1..=count).filter(|id| !dead.contains(id)) {
            let reply =
                cluster.call(1, &json!({"op": "remove_member", "node_id": needed})).expect("it answers");
            let error = &reply["error"];
            assert_eq!((&error["code"], &error["outcome"]), (&json!("bad_request"), &json!("not_applied")));
            let message = error["message"].as_str().unwrap();
            let said = format!("remove one of {dead:?} instead");
            assert!(message.contains("nothing was changed") && message.contains(&said), "{message}");
            cluster.ok(&set("after", "v"));
        }
        assert_eq!(members(&cluster.view(1).expect("it answers")), (1..=count).collect());
        for id in dead {
            let reply = cluster.call(1, &json!({"op": "remove_member", "node_id": id})).expect("it answers");
            assert_eq!(reply["ok"], true, "{reply}");
            cluster.ok(&set("without", "v"));
        }
    }
}

/// By its file a node starts with the members from before: before that has the change, nobody may empty what was removed.
#[test]
fn a_removal_that_the_leader_can_t_store_is_not_answered_as_done() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let blocked = cluster.directory(1).join("cluster.new");
    std::fs::create_dir_all(blocked.join("in the way")).expect("its directory is there");
    let remove = json!({"op": "remove_member", "node_id": 3});
    for _ in 0..2 {
        let reply = cluster.call(1, &remove).expect("it answers");
        assert_eq!(reply["error"]["code"], "internal", "{reply}");
        let message = reply["error"]["message"].as_str().unwrap();
        assert!(message.contains("keep the removed node's directory"), "{message}");
    }
    std::fs::remove_dir_all(&blocked).expect("it is there");
    cluster.wait_until("it is stored", |cluster| {
        let reply = cluster.call(1, &remove).expect("it answers");
        reply["error"]["message"].to_string().contains("node 3 is no member")
    });
    cluster.kill(1);
    cluster.restart(1);
    cluster.ok_among(&[1, 2], &set("without the third", "v"));
}
