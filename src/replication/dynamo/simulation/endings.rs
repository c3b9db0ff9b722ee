//! Small scenes of nodes that are evicted and go on, and of nodes that only one's flags name.

#![cfg(test)]

use super::clients::{KEYS, Write};
use super::cluster::Cluster;
use super::scenarios::{met, settle, shown, write};
use crate::replication::dynamo::mistake::Mistake;

/// A member is put back to what it was before another one was evicted, and hears that one first: what only
/// that one has must come back nowhere.
pub fn evicted_beside_an_older_copy(seed: u64, mistake: Option<Mistake>) {
    let mut cluster = Cluster::calm(seed, 3, mistake);
    settle(&mut cluster);
    write(&mut cluster, 2, 1, Write::Set);
    settle(&mut cluster);
    cluster.nodes[1].older = Some(cluster.nodes[1].disk.copy());
    cluster.part_off(&[2]);
    write(&mut cluster, 2, 0, Write::Set);
    cluster.run_until(cluster.now_ms + 200);
    cluster.evict_now(2, 0);
    write(&mut cluster, 0, 0, Write::Set);
    cluster.run_until(cluster.now_ms + 200);
    write(&mut cluster, 0, 0, Write::Delete);
    let kept = |cluster: &Cluster| (0..2).map(|place| tombstones(cluster, place)).max();
    cluster.run_while(20_000, "forget the delete", |cluster| kept(cluster) > Some(0));
    assert!(cluster.restore(1, seed.is_multiple_of(2), false));
    // It reaches the evicted node alone, and takes what that has.
    cluster.parted.clear();
    cluster.part(0, 1);
    cluster.part(0, 2);
    cluster.run_while(20_000, "meet", |cluster| shown(cluster, 1, KEYS[0]).is_none());
    cluster.parted.clear();
    cluster.part(0, 2);
    cluster.run_until(cluster.now_ms + 5_000);
    assert!(shown(&cluster, 0, KEYS[0]).is_none(), "what was deleted is back");
    let excess = cluster.nodes[1].process.as_ref().map(|process| process.replica.excess().len());
    assert_eq!(excess, Some(1), "it is to say that it has too much");
    assert!(!cluster.write(1, &[KEYS[2]], Write::Set), "what it takes would meet what all have forgotten");
    // An operator gives it up, and it begins anew.
    cluster.evict_now(1, 0);
    cluster.run_until(cluster.now_ms + 1_000);
    (1..3).for_each(|place| cluster.wipe(place));
    cluster.parted.clear();
    settle(&mut cluster);
    cluster.check_end();
}

fn tombstones(cluster: &Cluster, place: usize) -> usize {
    cluster.nodes[place].process.as_ref().map_or(0, |process| process.tombstones().0)
}

#[test]
fn an_older_copy_that_hears_an_evicted_node_first_brings_nothing_back() {
    (0..20).for_each(|seed| evicted_beside_an_older_copy(seed, None));
}

#[test]
fn an_evicted_node_knows_it_when_it_is_started_again_and_lets_nobody_in() {
    let mut cluster = met(1, 2);
    write(&mut cluster, 1, 0, Write::Set);
    settle(&mut cluster);
    cluster.evict_now(1, 0);
    cluster.run_until(cluster.now_ms + 2_000);
    cluster.crash(0);
    cluster.crash(1);
    cluster.start(1);
    cluster.run_until(cluster.now_ms + 2_000);
    let evicted = cluster.nodes[1].process.as_mut().expect("it runs");
    assert!(evicted.replica.was_evicted() && !evicted.replica.may_admit());
}

#[test]
fn what_a_living_member_has_of_an_evicted_node_stays_whoever_has_evicted_it() {
    for seed in 0..10 {
        let mut cluster = met(seed, 4);
        // Node 3 reaches node 2 alone.
        cluster.part(2, 0);
        cluster.part(2, 3);
        cluster.part(1, 0);
        cluster.part(1, 3);
        write(&mut cluster, 2, 0, Write::Set);
        cluster.run_until(cluster.now_ms + 300);
        assert!(shown(&cluster, 1, KEYS[0]).is_some());
        cluster.crash(2);
        cluster.evict_now(2, 0);
        cluster.run_until(cluster.now_ms + 1_000);
        cluster.parted.clear();
        cluster.run_until(cluster.now_ms + 5_000);
        for place in [0, 1, 3] {
            assert!(shown(&cluster, place, KEYS[0]).is_some(), "seed {seed}: node {} lacks it", place + 1);
        }
        cluster.wipe(2);
        settle(&mut cluster);
        cluster.check_end();
    }
}

#[test]
fn a_node_that_only_one_s_flags_name_holds_deletes_back_everywhere() {
    let mut cluster = Cluster::calm(3, 3, None);
    // Nodes 1 and 2 know each other; node 2 knows of node 3, too, which nobody has met.
    cluster.crash(0);
    cluster.crash(1);
    cluster.crash(2);
    cluster.nodes[0].named = vec![1, 2];
    (0..2).for_each(|place| cluster.wipe(place));
    (0..2).for_each(|place| cluster.nodes[place].must_be_admitted = false);
    cluster.run_until(cluster.now_ms + 3_000);
    write(&mut cluster, 0, 0, Write::Set);
    cluster.run_until(cluster.now_ms + 300);
    write(&mut cluster, 0, 0, Write::Delete);
    cluster.run_until(cluster.now_ms + 10_000);
    for place in 0..2 {
        let process = cluster.nodes[place].process.as_ref().expect("it runs");
        assert_eq!(process.tombstones().0, 1, "node {}", place + 1);
        assert_eq!(process.replica.stability().held_by, [3]);
    }
    cluster.start(2);
    settle(&mut cluster);
    cluster.check_end();
}
