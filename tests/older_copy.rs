//! Promise: a member whose directory was set back to an older copy decides nothing by what it has
//! forgotten. What was acknowledged stays as long as some voter's disk has it; a restore or a move of all
//! starts by itself when all are there; and where a disk was set back so that nothing tells it, and what
//! only it and one other had is gone, that one says so, loudly, and what to do.
//!
//! `DATASTORE_FAULT_ROUNDS` says how often nodes are restored under load (3 times unless given),
//! `DATASTORE_TEST_SEED` repeats the choices of a run.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use cluster::Cluster;
use cluster::directories::Back;
use cluster::network::Id;
use cluster::under_load::{UnderLoad, rounds};
use common::{random, temporary_directory};
use datastore::persistence::LOCK_FILE;
use datastore_utilities::random::Random;
use serde_json::{Value, json};
use tempfile::TempDir;

const ROUNDS_DEFAULT: usize = 3;

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value})
}

/// What a node has under a key, as it says itself; null for nothing.
fn local(cluster: &Cluster, id: Id, key: &str) -> Value {
    let get = json!({"op": "get", "key": key, "consistency": "local"});
    cluster.call(id, &get).map_or(Value::Null, |reply| reply["value"].clone())
}

fn wait_until_they_have(cluster: &Cluster, ids: &[Id], key: &str) {
    cluster.wait_until(&format!("{ids:?} have {key}"), |cluster| {
        ids.iter().all(|id| local(cluster, *id, key) == "here")
    });
}

/// Whoever leads has it, by a read that sees all that was acknowledged.
fn is_there(cluster: &Cluster, key: &str) {
    let found = cluster.ok(&json!({"op": "get", "key": key, "consistency": "linearizable"}));
    assert_eq!(found["value"], "here", "{key}\n{}", cluster.describe());
}

/// The state of a member as a node shows it.
fn state(cluster: &Cluster, at: Id, of: Id) -> Value {
    let view = cluster.view(at).unwrap_or_default();
    let mut members = view["members"].as_array().into_iter().flatten();
    members.find(|member| member["node_id"] == of).map_or(Value::Null, |member| member["state"].clone())
}

fn wait_for_state(cluster: &Cluster, at: Id, of: Id, wanted: &str) {
    cluster.wait_until(&format!("node {at} shows node {of} as {wanted}"), |cluster| {
        state(cluster, at, of) == wanted
    });
}

fn nobody_is_in_doubt(cluster: &Cluster) {
    let ids = cluster.ids();
    cluster.wait_until("nobody is in doubt", |cluster| {
        ids.iter().all(|id| cluster.view(*id).is_some_and(|view| view["alarms"] == json!([])))
    });
}

/// Copies of the directories of nodes that are stopped for it, one after the other.
fn backups(cluster: &mut Cluster, ids: &[Id]) -> Vec<(Id, TempDir)> {
    let backup = |id: &Id| {
        cluster.terminate(*id);
        let kept = cluster.backup(*id);
        cluster.restart(*id);
        (*id, kept)
    };
    let kept = ids.iter().map(backup).collect();
    cluster.wait_for_members();
    kept
}

/// They run together, know each other, and answer no write.
fn are_no_quorum(cluster: &Cluster, ids: &[Id], doubted: Id) {
    for id in ids {
        wait_for_state(cluster, *id, doubted, "in_doubt");
        cluster.wait_until_alone(*id);
        let view = cluster.view(*id).expect("it answers");
        assert_eq!((&view["tolerates"], &view["may_fail"]), (&json!(0), &json!([])), "{view}");
    }
    let error = cluster.refused(ids[0], &set("refused", "here"));
    assert_eq!(error["code"], "no_quorum");
    assert!(error["message"].as_str().unwrap().contains("older copies"), "{error}");
}

/// A write is acknowledged while some are away. Of those that have it some are set back, and the others end.
/// Those that are left decide nothing, and when one returns that still has it, it is there.
fn a_write_is_not_forgotten(count: u64, away: &[Id], back: &[Id], has: &[Id]) {
    let mut cluster = Cluster::start(count);
    cluster.wait_until_leads(1);
    let kept = backups(&mut cluster, back);
    away.iter().for_each(|id| cluster.kill(*id));
    let holders: Vec<Id> = back.iter().chain(has).copied().collect();
    cluster.wait_for_leader_among(&holders);
    cluster.ok_among(&holders, &set("w", "here"));
    wait_until_they_have(&cluster, &holders, "w");
    holders.iter().for_each(|id| cluster.kill(*id));
    for (id, copy) in &kept {
        // A disk that was rolled back is known for a copy, too, where someone removes the lock's file.
        let how = if count == 2 { Back::RolledBack } else { Back::Restored };
        cluster.put_back(*id, copy.path(), how);
        if how == Back::RolledBack {
            std::fs::remove_file(cluster.directory(*id).join(LOCK_FILE)).expect("it is there");
        }
    }
    let left: Vec<Id> = back.iter().chain(away).copied().collect();
    left.iter().for_each(|id| cluster.restart(*id));
    if left.len() > 1 {
        are_no_quorum(&cluster, &left, back[0]);
    } else {
        cluster.wait_until_alone(back[0]);
    }
    assert!(cluster.log(back[0]).contains("THIS DIRECTORY IS A COPY"));
    has.iter().for_each(|id| cluster.restart(*id));
    cluster.wait_for_members();
    is_there(&cluster, "w");
    cluster.ok(&set("after", "here"));
    nobody_is_in_doubt(&cluster);
    let contents = cluster.converge();
    assert_eq!(contents["w"]["value"], "here");
    for id in back {
        cluster.wait_for_log(*id, "no older copy of itself any more");
        assert!(!cluster.log(*id).contains("LOST ENTRIES"));
    }
    // It is what it is from now on, over a restart, too.
    cluster.kill(back[0]);
    cluster.restart(back[0]);
    assert!(!cluster.log(back[0]).contains("IS A COPY"));
}

#[test]
fn of_three_nodes_what_one_has_forgotten_is_not_decided_without_the_other() {
    a_write_is_not_forgotten(3, &[3], &[2], &[1]);
}

#[test]
fn of_two_nodes_what_the_one_with_the_witness_has_forgotten_is_not_decided_by_it() {
    a_write_is_not_forgotten(2, &[], &[2], &[1]);
}

#[test]
fn of_five_nodes_what_two_have_forgotten_is_not_decided_without_the_third() {
    a_write_is_not_forgotten(5, &[4, 5], &[2, 3], &[1]);
}

#[test]
fn a_restore_of_all_starts_when_all_are_there_and_not_before() {
    for count in [2, 3, 5] {
        let mut cluster = Cluster::start(count);
        cluster.wait_until_leads(1);
        cluster.ok(&set("before", "here"));
        let ids = cluster.ids();
        wait_until_they_have(&cluster, &ids, "before");
        let kept = backups(&mut cluster, &ids);
        cluster.ok(&set("later", "here"));
        ids.iter().for_each(|id| cluster.kill(*id));
        kept.iter().for_each(|(id, copy)| cluster.put_back(*id, copy.path(), Back::Restored));
        let but_one: Vec<Id> = ids.iter().copied().filter(|id| *id != 1).collect();
        but_one.iter().for_each(|id| cluster.restart(*id));
        but_one.iter().for_each(|id| cluster.wait_until_alone(*id));
        if count > 2 {
            are_no_quorum(&cluster, &but_one, 2);
        }
        cluster.restart(1);
        cluster.wait_for_members();
        is_there(&cluster, "before");
        nobody_is_in_doubt(&cluster);
        // And it is a cluster as any other.
        cluster.kill(cluster.may_fail()[0]);
        cluster.wait_for_leader();
        cluster.ok(&set("since", "here"));
    }
}

#[test]
fn a_move_of_all_starts_by_itself() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    cluster.ok(&set("before", "here"));
    let ids = cluster.ids();
    wait_until_they_have(&cluster, &ids, "before");
    ids.iter().for_each(|id| cluster.terminate(*id));
    let elsewhere = temporary_directory();
    for id in ids {
        let moved = cluster.backup(id);
        let place = elsewhere.path().join(format!("node{id}"));
        std::fs::rename(moved.path(), &place).expect("on the same file system");
        cluster.set_directory(id, &place);
    }
    cluster.restart_all();
    cluster.wait_for_members();
    is_there(&cluster, "before");
    nobody_is_in_doubt(&cluster);
}

#[test]
fn after_a_power_failure_a_majority_is_enough() {
    for count in [3, 5] {
        let mut cluster = Cluster::start(count);
        cluster.wait_until_leads(1);
        cluster.ok(&set("before", "here"));
        let ids = cluster.ids();
        ids.iter().for_each(|id| cluster.kill(*id));
        let majority = &ids[ids.len() / 2..];
        majority.iter().for_each(|id| cluster.restart(*id));
        cluster.wait_for_leader_among(majority);
        is_there(&cluster, "before");
        majority.iter().for_each(|id| assert!(!cluster.log(*id).contains("IS A COPY")));
    }
}

#[test]
fn a_follower_that_is_restored_disturbs_nobody() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let kept = backups(&mut cluster, &[2]);
    cluster.ok(&set("w", "here"));
    wait_until_they_have(&cluster, &[2, 3], "w");
    let term = |cluster: &Cluster| cluster.view(1).expect("it answers")["term"].clone();
    let before = term(&cluster);
    cluster.kill(2);
    cluster.put_back(2, kept[0].1.path(), Back::Restored);
    cluster.restart(2);
    wait_until_they_have(&cluster, &[2], "w");
    nobody_is_in_doubt(&cluster);
    assert_eq!((term(&cluster), cluster.leader()), (before, Some(1)));
    cluster.wait_for_members();
}

/// Node 1 leads and is stopped; the others go on. Then one of them is restored, and the other one is stopped
/// when node 1 goes on: it doesn't know what was decided without it, and its follower has forgotten it.
#[test]
fn an_old_leader_that_goes_on_beside_a_restored_follower_decides_nothing() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let kept = backups(&mut cluster, &[3]);
    cluster.wait_until_leads(1);
    cluster.pause(1);
    cluster.wait_for_leader_among(&[2, 3]);
    cluster.ok_among(&[2, 3], &set("w", "here"));
    wait_until_they_have(&cluster, &[2, 3], "w");
    cluster.pause(2);
    cluster.kill(3);
    cluster.put_back(3, kept[0].1.path(), Back::Restored);
    cluster.restart(3);
    cluster.resume(1);
    wait_for_state(&cluster, 1, 3, "in_doubt");
    cluster.wait_until_alone(1);
    cluster.wait_until_alone(3);
    cluster.resume(2);
    cluster.wait_for_members();
    is_there(&cluster, "w");
    nobody_is_in_doubt(&cluster);
}

/// The copy is of a time when the node was the only one that votes: by what it knows it needs nobody.
#[test]
fn who_was_alone_once_is_told_of_the_others_before_it_goes_on_alone() {
    let mut cluster = Cluster::founded(2, 3, &[]);
    cluster.wait_until_leads(1);
    cluster.remove(2);
    let kept = backups(&mut cluster, &[1]);
    cluster.leave_out(3);
    cluster.add(2);
    cluster.add(3);
    cluster.ok(&set("w", "here"));
    wait_until_they_have(&cluster, &[2, 3], "w");
    cluster.kill(1);
    cluster.put_back(1, kept[0].1.path(), Back::Restored);
    cluster.wait_for_leader_among(&[2, 3]);
    cluster.ok_among(&[2, 3], &set("since", "here"));
    cluster.restart(1);
    cluster.wait_for_log(1, "begins anew with those that it was told");
    wait_until_they_have(&cluster, &[1], "since");
    assert!(!cluster.log(1).contains("serving as primary"));
    cluster.wait_for_members();
    nobody_is_in_doubt(&cluster);
    is_there(&cluster, "w");
}

#[test]
fn with_one_lost_and_one_in_doubt_a_person_decides() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let kept = backups(&mut cluster, &[2]);
    cluster.ok(&set("w", "here"));
    wait_until_they_have(&cluster, &[2, 3], "w");
    cluster.kill(2);
    cluster.put_back(2, kept[0].1.path(), Back::Restored);
    cluster.kill(1);
    cluster.restart(2);
    are_no_quorum(&cluster, &[2, 3], 2);
    // With node 1 there is a majority without doubt, and nothing to force.
    cluster.restart(1);
    cluster.wait_for_leader();
    nobody_is_in_doubt(&cluster);
    for id in [1, 2, 3] {
        let error = cluster.refused(id, &json!({"op": "promote", "force": true}));
        assert!(error["message"].as_str().unwrap().contains("in contact with a majority"), "{error}");
    }
    cluster.kill(2);
    cluster.put_back(2, kept[0].1.path(), Back::Restored);
    cluster.kill(1);
    cluster.restart(2);
    are_no_quorum(&cluster, &[2, 3], 2);
    cluster.force(3);
    cluster.ok_among(&[3], &set("since", "here"));
    cluster.wipe(1);
    cluster.restart(1);
    cluster.wait_for_members();
    is_there(&cluster, "w");
    nobody_is_in_doubt(&cluster);
}

/// One after the other they are restored, mostly the leader, some of them while all are down. Clients are at
/// work all the while, and what they were told is held to a model.
#[test]
fn nothing_acknowledged_is_lost_over_random_restores_under_load() {
    let mut random = Random::new(random::seed());
    for count in [2, 3] {
        let mut cluster =
            Cluster::start_with(count, &["--segment-bytes", "65536", "--snapshot-every-bytes", "131072"]);
        let mut load = cluster.load("restores");
        (load.keys, load.operations_per_key, load.pause) = (24, 30, std::time::Duration::from_millis(4));
        let clients = UnderLoad::start(load, &mut random);
        for _ in 0..rounds(ROUNDS_DEFAULT) {
            let ids = cluster.ids();
            let leader = cluster.leader().unwrap_or(1);
            let victim = if random.below(2) == 0 { leader } else { ids[random.below(count) as usize] };
            let kept = backups(&mut cluster, &[victim]);
            clients.wait_for_answers(&cluster, 200);
            let mut down = if random.below(3) == 0 { ids } else { vec![victim] };
            down.iter().for_each(|id| cluster.kill(*id));
            cluster.put_back(victim, kept[0].1.path(), Back::Restored);
            down.sort_by_key(|_| random.bits());
            down.iter().for_each(|id| cluster.restart(*id));
            clients.wait_for_answers(&cluster, 100);
            // What two had might be forgotten by both.
            nobody_is_in_doubt(&cluster);
        }
        clients.finish(&mut cluster);
    }
}

/// Its files are put back in place, and no mark tells it: its leader does.
#[test]
fn a_disk_that_was_set_back_is_in_doubt_when_its_leader_is_heard_and_goes_on() {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let kept = backups(&mut cluster, &[2]);
    for number in 0..50 {
        cluster.ok(&set(&format!("k{number}"), "here"));
    }
    wait_until_they_have(&cluster, &[2, 3], "k49");
    cluster.kill(2);
    cluster.put_back(2, kept[0].1.path(), Back::RolledBack);
    cluster.restart(2);
    cluster.wait_for_log(2, "THIS NODE HAS LOST ENTRIES");
    cluster.wait_for_log(2, "no older copy of itself any more");
    wait_until_they_have(&cluster, &[2], "k49");
    assert!(!cluster.log(2).contains("IS A COPY"), "the mark is right");
    cluster.wait_for_members();
    nobody_is_in_doubt(&cluster);
}

/// Three nodes, and who of them leads. What the first and the second had alone, the second has lost, unknown
/// to anyone, and decided otherwise with the third.
fn conflicting() -> (Cluster, Id) {
    let mut cluster = Cluster::start(3);
    cluster.wait_until_leads(1);
    let kept = backups(&mut cluster, &[2]);
    cluster.wait_until_leads(1);
    cluster.kill(3);
    cluster.ok_among(&[1, 2], &set("w", "here"));
    wait_until_they_have(&cluster, &[2], "w");
    cluster.terminate(1);
    cluster.kill(2);
    cluster.put_back(2, kept[0].1.path(), Back::RolledBack);
    cluster.restart(2);
    cluster.restart(3);
    let leader = cluster.wait_for_leader_among(&[2, 3]);
    cluster.ok_among(&[2, 3], &set("other", "here"));
    cluster.restart(1);
    (cluster, leader)
}

#[test]
fn a_node_whose_log_conflicts_may_be_the_one_that_is_kept() {
    let (mut cluster, _) = conflicting();
    wait_for_state(&cluster, 1, 1, "conflicting");
    [2, 3].into_iter().for_each(|id| cluster.kill(id));
    cluster.force(1);
    cluster.ok_among(&[1], &set("since", "here"));
    for id in [2, 3] {
        cluster.wipe(id);
        cluster.restart(id);
    }
    cluster.wait_for_members();
    let contents = cluster.converge();
    assert_eq!((&contents["w"]["value"], contents.get("other")), (&json!("here"), None));
}

/// When the one returns that still has it, it says so, and what to do, and so do the others.
#[test]
fn what_a_disk_that_was_set_back_has_lost_is_said_when_the_one_returns_that_has_it() {
    let (mut cluster, leader) = conflicting();
    let said = cluster.wait_for_log(1, "CONFLICTING LOGS");
    assert!(
        said.contains("export") && said.contains("remove_member") && said.contains("empty directory"),
        "{said}"
    );
    let said = cluster.wait_for_log(leader, "CONFLICTING LOGS: node 1");
    assert!(said.contains("remove_member"), "{said}");
    for at in [1, 2, 3] {
        wait_for_state(&cluster, at, 1, "conflicting");
    }
    for at in [1, leader] {
        let view = cluster.view(at).expect("it answers");
        let alarm = &view["alarms"][0];
        assert_eq!((&alarm["code"], &alarm["node_id"]), (&json!("conflicting"), &json!(1)), "{view}");
        assert!(alarm["message"].as_str().unwrap().contains("CONFLICTING LOGS"), "{view}");
        let stats = cluster.call(at, &json!({"op": "stats", "section": "replication"})).expect("it answers");
        assert_eq!(stats["replication"]["alarms"], view["alarms"]);
    }
    let error = cluster.refused(1, &set("refused", "here"));
    assert_eq!((&error["code"], &error["outcome"]), (&json!("no_quorum"), &json!("not_applied")));
    assert!(error["message"].as_str().unwrap().contains("CONFLICTING LOGS"), "{error}");
    assert_eq!((local(&cluster, 1, "w"), local(&cluster, 1, "other")), (json!("here"), Value::Null));
    // A restart changes nothing; what it says to do does.
    cluster.kill(1);
    cluster.restart(1);
    wait_for_state(&cluster, 1, 1, "conflicting");
    cluster.remove(1);
    cluster.add(1);
    nobody_is_in_doubt(&cluster);
    let contents = cluster.converge();
    assert_eq!((contents.get("w"), &contents["other"]["value"]), (None, &json!("here")));
}

/// All but the last are set back to the time before it was let in: none of them has heard of it. Nobody is left to
/// tell them, so it is said by who leads, and by the one that was forgotten.
#[test]
fn a_member_that_whoever_leads_has_never_heard_of_is_said() {
    let mut cluster = Cluster::founded(3, 4, &[]);
    cluster.ok(&set("before", "here"));
    wait_until_they_have(&cluster, &[1, 2, 3], "before");
    [1, 2, 3].into_iter().for_each(|id| cluster.terminate(id));
    let kept = [1, 2, 3].map(|id| cluster.backup(id));
    cluster.restart_all();
    cluster.add(4);
    // That an entry is committed is on a disk with the next one: alone, node 4 shows what it knows to be final.
    for key in ["w", "behind w"] {
        cluster.ok(&set(key, "here"));
        wait_until_they_have(&cluster, &[1, 2, 3, 4], key);
    }
    [1, 2, 3, 4].into_iter().for_each(|id| cluster.kill(id));
    for (id, kept) in (1..).zip(&kept) {
        cluster.put_back(id, kept.path(), Back::RolledBack);
        cluster.restart(id);
    }
    cluster.wait_for_leader_among(&[1, 2, 3]);
    cluster.ok_among(&[1, 2, 3], &set("since", "here"));
    cluster.restart(4);
    let says = |cluster: &Cluster, at: Id, code: &str| {
        let reply = cluster.call(at, &json!({"op": "stats", "section": "replication"})).expect("it answers");
        let view = cluster.view(at).expect("it answers");
        let is_it = |alarm: &Value| alarm["code"] == code && alarm["node_id"] == 4;
        let is_whole = |alarm: &Value| alarm["message"].to_string().contains("FORGOTTEN MEMBER");
        [&reply["replication"]["alarms"], &view["alarms"]].into_iter().all(|alarms| {
            alarms.as_array().expect("alarms").iter().any(|alarm| is_it(alarm) && is_whole(alarm))
        })
    };
    // Leadership may still move to the lowest of them.
    cluster.wait_until("whoever leads says so", |cluster| {
        cluster.leader_among(&[1, 2, 3]).is_some_and(|leader| says(cluster, leader, "forgotten_member"))
    });
    cluster.wait_until("the one that was forgotten says so", |cluster| says(cluster, 4, "not_let_in"));
    let said = [1, 2, 3].map(|id| cluster.log(id)).concat();
    let said = said.lines().find(|line| line.contains("FORGOTTEN MEMBER: node 4")).expect("it is logged");
    assert!(said.contains("add_member") && said.contains("empty directory"), "{said}");
    assert_eq!((local(&cluster, 4, "w"), local(&cluster, 2, "w")), (json!("here"), Value::Null));
    // What it says to do ends it.
    cluster.kill(4);
    cluster.wipe(4);
    cluster.restart(4);
    cluster.wait_for_members();
    nobody_is_in_doubt(&cluster);
    assert_eq!(local(&cluster, 4, "since"), json!("here"));
}
