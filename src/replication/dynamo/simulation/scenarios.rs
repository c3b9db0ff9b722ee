//! Small scenes, each of one thing.

#![cfg(test)]

use super::clients::{KEYS, Write};
use super::cluster::Cluster;
use super::node::placement;
use crate::engine::{Entry, SameVersion, Seen, Written};
use crate::replication::dynamo::mistake::Mistake;

const SOON_MS: u64 = 20_000;

/// So many nodes that know each other.
pub fn met(seed: u64, nodes: u64) -> Cluster {
    let mut cluster = Cluster::calm(seed, nodes, None);
    settle(&mut cluster);
    cluster
}

pub fn settle(cluster: &mut Cluster) {
    // What was written is not an entry yet.
    cluster.run_until(cluster.now_ms + 100);
    cluster.run_while(SOON_MS, "settle", |cluster| !cluster.has_settled());
}

pub fn write(cluster: &mut Cluster, place: usize, key: usize, what: Write) {
    assert!(cluster.write(place, &[KEYS[key]], what), "node {} takes no writes", place + 1);
}

fn conflicts(cluster: &mut Cluster) -> Vec<usize> {
    let processes = cluster.nodes.iter_mut().filter_map(|node| node.process.as_mut());
    processes.map(|process| std::mem::take(&mut process.conflicts).len()).collect()
}

pub fn shown(cluster: &Cluster, place: usize, key: &[u8]) -> Option<Entry> {
    let process = cluster.nodes[place].process.as_ref()?;
    let hash = placement().hash(key);
    process.slices[placement().shard(hash)].table().get(key, hash).cloned()
}

#[test]
fn writes_that_knew_of_each_other_are_no_conflict_and_others_are_one_on_every_node() {
    for seed in 0..10 {
        let mut cluster = met(seed, 3);
        for (first, second) in
            [(Write::Set, Write::Set), (Write::Set, Write::Delete), (Write::Delete, Write::Set)]
        {
            write(&mut cluster, 0, 0, Write::Set);
            settle(&mut cluster);
            write(&mut cluster, 1, 0, second);
            settle(&mut cluster);
            assert_eq!(conflicts(&mut cluster), [0, 0, 0], "one after the other");
            write(&mut cluster, 0, 0, Write::Set);
            settle(&mut cluster);
            cluster.part_off(&[0]);
            write(&mut cluster, 0, 0, first);
            cluster.run_until(cluster.now_ms + 30);
            write(&mut cluster, 1, 0, second);
            cluster.run_until(cluster.now_ms + 300);
            cluster.parted.clear();
            settle(&mut cluster);
            let processes = cluster.processes();
            let told: Vec<_> = processes.map(|process| process.conflicts.clone()).collect();
            for conflicts in &told {
                assert_eq!(conflicts.len(), 1, "seed {seed}, {first:?} and {second:?}: {told:?}");
                assert_eq!(*conflicts, told[0]);
            }
            assert!(told[0][0].winner.version > told[0][0].loser.version);
            conflicts(&mut cluster);
            write(&mut cluster, 2, 0, Write::Set);
            settle(&mut cluster);
            assert_eq!(conflicts(&mut cluster), [0, 0, 0], "its writer had seen both");
        }
    }
}

#[test]
fn a_value_and_a_vector_that_meet_are_no_conflict_and_both_stay() {
    let mut cluster = met(1, 3);
    cluster.part_off(&[0]);
    write(&mut cluster, 0, 0, Write::Set);
    write(&mut cluster, 1, 0, Write::AddVector);
    cluster.run_until(cluster.now_ms + 300);
    cluster.parted.clear();
    settle(&mut cluster);
    assert_eq!(conflicts(&mut cluster), [0, 0, 0]);
    let entry = shown(&cluster, 2, KEYS[0]).expect("both");
    assert!(entry.value().is_some() && entry.vector().is_some());
}

#[test]
fn a_member_that_is_down_holds_tombstones_back_until_it_is_evicted_and_returns_wiped() {
    let mut cluster = met(2, 3);
    write(&mut cluster, 0, 0, Write::Set);
    settle(&mut cluster);
    cluster.crash(2);
    write(&mut cluster, 0, 0, Write::Delete);
    cluster.run_until(cluster.now_ms + 10_000);
    let kept =
        |cluster: &Cluster| cluster.processes().map(|process| process.tombstones().0).collect::<Vec<_>>();
    assert_eq!(kept(&cluster), [1, 1]);
    cluster.evict_now(2, 0);
    cluster.run_until(cluster.now_ms + 5_000);
    assert_eq!(kept(&cluster), [0, 0]);
    let directory = cluster.nodes[2].disk.directory;
    cluster.start(2);
    cluster.run_until(cluster.now_ms + 3_000);
    assert_eq!(cluster.nodes[2].process.as_ref().map(|process| process.replica.in_contact().len()), Some(0));
    // Their logs no longer reach back, so that it takes over a state.
    for place in [0, 1] {
        for key in 0..300 {
            write(&mut cluster, place, key % KEYS.len(), Write::Set);
            cluster.run_until(cluster.now_ms + 5);
        }
        cluster.snapshot(place);
    }
    cluster.run_until(cluster.now_ms + 3_000);
    cluster.wipe(2);
    assert_ne!(cluster.nodes[2].disk.directory, directory);
    settle(&mut cluster);
    assert!(cluster.figures.transfers > 0);
    write(&mut cluster, 2, 1, Write::Delete);
    settle(&mut cluster);
    cluster.check_end();
}

#[test]
fn an_eviction_that_was_on_its_way_to_the_disk_counts_if_a_restart_finds_it() {
    let mut evictions = 0;
    for seed in 0..20 {
        let mut cluster = met(seed, 3);
        cluster.evict_now(0, 2);
        cluster.crash(2);
        cluster.heal();
        settle(&mut cluster);
        evictions += cluster.figures.evictions;
    }
    assert!((1..20).contains(&evictions), "{evictions}");
}

#[test]
fn an_older_copy_that_knows_none_of_the_others_directories_is_alone_until_it_is_given_up() {
    for begins_anew in [false, true] {
        let mut cluster = met(10, 3);
        cluster.nodes[1].older = Some(cluster.nodes[1].disk.copy());
        for (victim, by) in [(0, 2), (2, 0)] {
            cluster.evict_now(victim, by);
            cluster.run_until(cluster.now_ms + 1_000);
            cluster.wipe(victim);
            settle(&mut cluster);
            write(&mut cluster, victim, 0, Write::Set);
            settle(&mut cluster);
        }
        cluster.restore(1, begins_anew, false);
        cluster.run_until(cluster.now_ms + 5_000);
        for crashes in [false, true] {
            if crashes {
                cluster.crash(1);
                cluster.start(1);
            }
            cluster.run_until(cluster.now_ms + 5_000);
            let process = cluster.nodes[1].process.as_ref().expect("it runs");
            assert!(process.replica.in_contact().is_empty());
            assert!(!cluster.write(1, &[KEYS[0]], Write::Set), "it has heard nobody");
        }
        cluster.give_up_stranded();
        cluster.run_until(cluster.now_ms + 1_000);
        assert_eq!((cluster.figures.stranded, cluster.figures.evictions), (1, 3));
        cluster.wipe(1);
        settle(&mut cluster);
        cluster.check_end();
    }
}

/// Puts another value in place of a key's, or takes it away: behind the node's back.
fn damage(cluster: &mut Cluster, place: usize, key: &[u8], value: Option<&[u8]>) {
    let entry = shown(cluster, place, key).expect("a key");
    cluster.nodes[place].is_damaged = true;
    let process = cluster.nodes[place].process.as_mut().expect("it runs");
    let hash = placement().hash(key);
    let (index, slice) = (process.applied, &mut process.slices[placement().shard(hash)]);
    match value {
        Some(value) => {
            let other = Entry::new(entry.version(), key, Some(value), None);
            slice.merge_states(index, [(other, hash)].into_iter(), SameVersion::Theirs, &Seen::default());
        }
        None => slice.forget(index, [(key, hash, entry.version())].into_iter()),
    }
}

#[test]
fn damage_behind_a_node_s_back_is_found_and_repaired() {
    for (seed, nodes, value) in
        [(3, 3, Some(&b"99"[..])), (4, 3, None), (5, 2, Some(b"99")), (6, 2, None), (7, 5, None)]
    {
        let mut cluster = met(seed, nodes);
        (0..KEYS.len()).for_each(|key| write(&mut cluster, 0, key, Write::Set));
        settle(&mut cluster);
        let before = shown(&cluster, 0, KEYS[0]);
        damage(&mut cluster, 1, KEYS[0], value);
        // Of two copies nobody can tell which is right.
        cluster.nodes[0].is_damaged = nodes == 2;
        assert_ne!(format!("{:?}", shown(&cluster, 1, KEYS[0])), format!("{before:?}"));
        write(&mut cluster, 0, 1, Write::Set);
        settle(&mut cluster);
        assert!(cluster.figures.differences > 0 && cluster.figures.repairs > 0, "{:?}", cluster.figures);
        if nodes > 2 || value.is_none() {
            (0..2).for_each(|place| cluster.nodes[place].is_damaged = false);
            assert_eq!(format!("{:?}", shown(&cluster, 1, KEYS[0])), format!("{before:?}"));
            cluster.check_end();
        }
    }
}

/// A node's directory is replaced by an older copy, and it writes as soon as it may.
pub fn older_copy(seed: u64, mistake: Option<Mistake>) -> Cluster {
    let mut cluster = Cluster::calm(seed, 3, mistake);
    settle(&mut cluster);
    write(&mut cluster, 1, 0, Write::Set);
    settle(&mut cluster);
    cluster.nodes[1].older = Some(cluster.nodes[1].disk.copy());
    (0..5).for_each(|key| write(&mut cluster, 1, key, Write::Set));
    settle(&mut cluster);
    cluster.restore(1, seed.is_multiple_of(2), seed % 4 > 1);
    while !cluster.write(1, &[KEYS[0]], Write::Delete) {
        cluster.run_until(cluster.now_ms + 1);
    }
    settle(&mut cluster);
    write(&mut cluster, 1, 1, Write::Delete);
    settle(&mut cluster);
    cluster.check_end();
    cluster
}

#[test]
fn an_older_copy_of_a_directory_goes_on_as_another_stream() {
    for seed in 0..20 {
        let cluster = older_copy(seed, None);
        let streams = cluster.processes().next().map(|process| process.replica.members().streams().len());
        assert_eq!(cluster.figures.restored, 1);
        assert_eq!(streams, Some(4), "seed {seed}");
    }
}

/// A disk is set back as a whole, so that nothing tells it, and moves to another port.
fn set_back(cluster: &mut Cluster, place: usize, copy: super::disk::SimulatedDisk) {
    cluster.registry.has_forks = true;
    cluster.crash(place);
    cluster.nodes[place].disk = copy;
    cluster.nodes[place].vector = Default::default();
    cluster.nodes[place].port += 1;
}

fn writes_alone(cluster: &mut Cluster, place: usize, count: usize) {
    cluster.run_until(cluster.now_ms + 1_000);
    for number in 0..count {
        write(cluster, place, 4 + number % 4, Write::Set);
        cluster.run_until(cluster.now_ms + 50);
    }
}

#[test]
fn a_stream_that_forked_while_its_node_was_alone_is_said_and_costs_the_others_nothing() {
    for (nodes, alone) in [2, 3].into_iter().flat_map(|nodes| (1..6).map(move |alone| (nodes, alone))) {
        let mut cluster = met(alone as u64, nodes);
        (0..4).for_each(|key| write(&mut cluster, 0, key, Write::Set));
        settle(&mut cluster);
        let copy = cluster.nodes[1].disk.copy();
        write(&mut cluster, 1, 0, Write::Set);
        settle(&mut cluster);
        write(&mut cluster, 1, 1, Write::Delete);
        cluster.run_until(cluster.now_ms + 100);
        write(&mut cluster, 0, 2, Write::Delete);
        settle(&mut cluster);
        let kept = shown(&cluster, 0, KEYS[0]);
        set_back(&mut cluster, 1, copy);
        (0..nodes as usize).filter(|place| *place != 1).for_each(|place| cluster.crash(place));
        cluster.start(1);
        writes_alone(&mut cluster, 1, alone);
        (0..nodes as usize).filter(|place| *place != 1).for_each(|place| cluster.start(place));
        settle(&mut cluster);
        let figures = cluster.figures;
        assert!(figures.began_anew > 0, "{nodes} nodes, {alone} alone: {figures:?}");
        for place in 0..nodes as usize {
            let shown = |key: usize| shown(&cluster, place, KEYS[key]);
            assert_eq!(format!("{:?}", shown(0)), format!("{kept:?}"), "{nodes} nodes, {alone} alone");
            assert!(
                shown(1).is_none() && shown(2).is_none(),
                "{nodes} nodes, {alone} alone: it stays deleted"
            );
        }
        assert!(cluster.processes().all(|process| process.replica.forks().is_empty()));
        // It is what it is from now on, over a restart, too.
        cluster.crash(1);
        cluster.start(1);
        write(&mut cluster, 0, 3, Write::Delete);
        settle(&mut cluster);
        assert_eq!(cluster.figures.forked, figures.forked);
    }
}

#[test]
fn a_fork_that_two_others_have_ends_with_what_was_written_first() {
    for alone in 1..5 {
        let mut cluster = met(alone as u64, 3);
        (0..4).for_each(|key| write(&mut cluster, 0, key, Write::Set));
        settle(&mut cluster);
        let copy = cluster.nodes[1].disk.copy();
        cluster.crash(2);
        for key in [0, 1] {
            write(&mut cluster, 1, key, if key == 0 { Write::Set } else { Write::Delete });
            cluster.run_until(cluster.now_ms + 200);
        }
        let kept = shown(&cluster, 0, KEYS[0]);
        set_back(&mut cluster, 1, copy);
        cluster.part_off(&[0]);
        cluster.start(1);
        cluster.start(2);
        writes_alone(&mut cluster, 1, alone);
        cluster.run_until(cluster.now_ms + 1_000);
        cluster.parted.clear();
        settle(&mut cluster);
        assert!(cluster.figures.forked > 0, "{alone} alone: {:?}", cluster.figures);
        for place in 0..3 {
            assert_eq!(
                format!("{:?}", shown(&cluster, place, KEYS[0])),
                format!("{kept:?}"),
                "{alone} alone"
            );
            assert!(shown(&cluster, place, KEYS[1]).is_none(), "{alone} alone: it stays deleted");
        }
        assert!(cluster.processes().all(|process| process.replica.forks().is_empty()));
    }
}

#[test]
fn a_node_whose_clock_is_wrong_refuses_writes_however_long_and_the_others_go_on() {
    for offset_ms in [10_000, -10_000] {
        let mut cluster = met(8, 3);
        cluster.nodes[0].offset_ms = offset_ms;
        // A clock that jumps ahead is known when what was heard before is forgotten.
        cluster.run_until(cluster.now_ms + 4_000);
        for round in 0..300 {
            write(&mut cluster, 1 + round % 2, round % KEYS.len(), Write::Set);
            cluster.run_until(cluster.now_ms + 50);
            assert!(!cluster.write(0, &[KEYS[0]], Write::Set), "its clock is wrong");
        }
        cluster.nodes[0].offset_ms = 0;
        settle(&mut cluster);
        cluster.run_until(cluster.now_ms + 4_000);
        write(&mut cluster, 0, 0, Write::Set);
        settle(&mut cluster);
        cluster.check_end();
    }
}

#[test]
fn what_a_conflict_says_was_lost_is_what_was_written() {
    let mut cluster = met(9, 3);
    write(&mut cluster, 0, 0, Write::Set);
    settle(&mut cluster);
    cluster.part_off(&[0]);
    write(&mut cluster, 0, 0, Write::AddVector);
    write(&mut cluster, 1, 0, Write::Delete);
    cluster.run_until(cluster.now_ms + 300);
    cluster.parted.clear();
    settle(&mut cluster);
    let told: Vec<_> = cluster.processes().flat_map(|process| process.conflicts.clone()).collect();
    assert!(!told.is_empty());
    for conflict in told {
        let both = [&conflict.winner.written, &conflict.loser.written];
        assert!(
            both.contains(&&Written::Deleted) && both.iter().any(|side| matches!(side, Written::Vector(_)))
        );
    }
}
