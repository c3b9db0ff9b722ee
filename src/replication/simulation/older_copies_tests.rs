//! Older copies, in clusters in which nothing else goes wrong.

use super::Cluster;

fn of(nodes: u64) -> Cluster {
    let mut cluster = Cluster::calm(1, nodes, None);
    cluster.run_until(3_000);
    assert_eq!(cluster.leader(), Some(1));
    cluster
}

fn are_in_doubt(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.iter().filter(|node| node.directory.in_doubt).map(|node| node.id).collect()
}

fn copy_all(cluster: &mut Cluster) {
    (0..cluster.nodes.len()).for_each(|place| cluster.keep_copy(place));
}

/// The only copy that was made of each.
fn set_back(cluster: &mut Cluster, place: usize, is_known: bool) {
    cluster.set_back_to(place, 0, is_known);
}

/// What is written while some are away, and who of those that have it is set back: with the others alone
/// nothing is decided; when all holders that are left are there, it goes on, and nothing is lost.
#[test]
fn what_a_restored_node_has_forgotten_is_not_decided_without_those_that_have_it() {
    // Nodes, who is away while it is written, who of the others is set back, and who is left to have it.
    for (nodes, away, back, has) in [
        (3, vec![2], vec![1], vec![0]),
        (5, vec![3, 4], vec![1, 2], vec![0]),
        (5, vec![4], vec![1], vec![0, 2, 3]),
    ] {
        let mut cluster = of(nodes);
        copy_all(&mut cluster);
        away.iter().for_each(|place| cluster.crash(*place));
        assert!(cluster.go_on(2_000) > 0);
        has.iter().for_each(|place| cluster.crash(*place));
        back.iter().for_each(|place| set_back(&mut cluster, *place, true));
        back.iter().chain(&away).for_each(|place| cluster.start(*place));
        cluster.go_on(2_000);
        assert_eq!(cluster.go_on(10_000), 0, "{nodes} nodes");
        has.iter().for_each(|place| cluster.start(*place));
        assert!(cluster.go_on(5_000) > 0, "{nodes} nodes");
        assert_eq!(are_in_doubt(&cluster), [0; 0], "{nodes} nodes");
    }
}

#[test]
fn a_restore_of_all_goes_on_when_all_are_there_and_not_before() {
    for nodes in [2, 3, 5] {
        let mut cluster = of(nodes);
        copy_all(&mut cluster);
        let last = cluster.checker.history.last();
        assert!(cluster.go_on(2_000) > 0);
        let all = 0..nodes as usize;
        all.clone().for_each(|place| set_back(&mut cluster, place, true));
        cluster.checker.restored(last);
        all.clone().skip(1).for_each(|place| cluster.start(place));
        assert_eq!(cluster.go_on(10_000), 0, "{nodes} nodes, one is missing");
        cluster.start(0);
        assert!(cluster.go_on(5_000) > 0, "{nodes} nodes");
        assert_eq!(are_in_doubt(&cluster), [0; 0], "{nodes} nodes");
        // And it is a cluster as any other.
        cluster.crash(0);
        assert!(cluster.go_on(5_000) > 0, "{nodes} nodes");
    }
}

#[test]
fn after_a_power_failure_a_majority_is_enough() {
    for nodes in [3, 5] {
        let mut cluster = of(nodes);
        (0..nodes as usize).for_each(|place| cluster.crash(place));
        let majority = 0..nodes as usize / 2 + 1;
        majority.for_each(|place| cluster.start(place));
        assert!(cluster.go_on(5_000) > 0);
    }
}

/// It is only one vote of several: nobody hears of an election.
#[test]
fn a_follower_that_is_restored_disturbs_nobody() {
    for nodes in [3, 5] {
        let mut cluster = of(nodes);
        copy_all(&mut cluster);
        cluster.go_on(2_000);
        let term = |cluster: &Cluster| {
            cluster.nodes[0].process.as_ref().map(|process| process.replica.status().role.term)
        };
        let before = term(&cluster);
        set_back(&mut cluster, 2, true);
        assert!(cluster.go_on(500) > 0);
        cluster.start(2);
        assert!(cluster.go_on(3_000) > 0);
        assert_eq!((term(&cluster), cluster.leader()), (before, Some(1)));
        assert_eq!(are_in_doubt(&cluster), [0; 0]);
    }
}

#[test]
fn a_leader_that_is_restored_is_one_of_the_others_followers() {
    for nodes in [2, 3, 5] {
        let mut cluster = of(nodes);
        copy_all(&mut cluster);
        cluster.go_on(2_000);
        set_back(&mut cluster, 0, true);
        assert!(cluster.go_on(3_000) > 0, "{nodes} nodes: the others go on");
        cluster.start(0);
        assert!(cluster.go_on(5_000) > 0);
        assert_eq!(are_in_doubt(&cluster), [0; 0], "{nodes} nodes");
    }
}

/// Stopped as by a debugger: it doesn't know that others have led since, and its follower has forgotten it.
#[test]
fn a_stopped_leader_that_goes_on_beside_a_restored_follower_decides_nothing() {
    let mut cluster = of(3);
    copy_all(&mut cluster);
    cluster.nodes[0].paused_until_ms = cluster.now_ms + 5_000;
    assert!(cluster.go_on(4_000) > 0);
    assert_eq!(cluster.leader(), Some(2));
    cluster.nodes[1].paused_until_ms = cluster.now_ms + 6_000;
    set_back(&mut cluster, 2, true);
    cluster.start(2);
    cluster.go_on(1_500);
    assert_eq!(cluster.go_on(3_000), 0, "node 2 has what was written since, and is stopped");
    assert!(cluster.go_on(6_000) > 0);
    assert_eq!(are_in_doubt(&cluster), [0; 0]);
}

/// Of two nodes, both are needed when the one with the witness was restored.
#[test]
fn a_restored_secondary_and_its_witness_decide_nothing_without_the_primary() {
    let mut cluster = of(2);
    copy_all(&mut cluster);
    assert!(cluster.go_on(1_000) > 0);
    cluster.crash(0);
    set_back(&mut cluster, 1, true);
    cluster.start(1);
    assert_eq!(cluster.go_on(10_000), 0);
    cluster.start(0);
    assert!(cluster.go_on(5_000) > 0);
    assert_eq!(are_in_doubt(&cluster), [0; 0]);
}

/// Nothing on the disk tells it, but its leader does.
#[test]
fn a_disk_that_was_set_back_is_in_doubt_as_soon_as_its_leader_is_heard() {
    let mut cluster = of(3);
    copy_all(&mut cluster);
    cluster.go_on(2_000);
    set_back(&mut cluster, 1, false);
    cluster.start(1);
    let mut begins = 0;
    for _ in 0..300 {
        cluster.go_on(10);
        begins += usize::from(are_in_doubt(&cluster) == [2]);
    }
    assert!(begins > 0 && are_in_doubt(&cluster).is_empty(), "it began and ended: {begins}");
    assert_eq!(cluster.faults.figures.doubts_ended, 1);
    assert!(cluster.go_on(2_000) > 0);
}

/// And if its leader isn't there? Then what only that one and it had is lost, and is shown where it is left.
#[test]
fn what_a_disk_that_was_set_back_has_lost_is_shown_by_who_still_has_it() {
    let mut cluster = of(3);
    copy_all(&mut cluster);
    let last = cluster.checker.history.last();
    cluster.crash(2);
    assert!(cluster.go_on(2_000) > 0);
    cluster.crash(0);
    set_back(&mut cluster, 1, false);
    cluster.checker.restored(last);
    cluster.start(1);
    cluster.start(2);
    assert!(cluster.go_on(5_000) > 0, "nothing tells them");
    cluster.may_conflict = true;
    cluster.nodes[0].is_beside = true;
    cluster.start(0);
    cluster.go_on(3_000);
    assert!(cluster.nodes[0].process.is_none(), "it takes no more part");
    assert!(cluster.go_on(2_000) > 0, "and the others go on");
}

/// A leader of the version before can't read a doubt: who is in doubt gets all from it, and counts for nothing.
#[test]
fn under_a_leader_of_the_version_before_a_doubt_lasts_until_that_is_upgraded() {
    let mut cluster = of(3);
    cluster.nodes[0].protocol = 2;
    copy_all(&mut cluster);
    cluster.go_on(2_000);
    set_back(&mut cluster, 1, true);
    cluster.start(1);
    assert!(cluster.go_on(3_000) > 0);
    assert_eq!((are_in_doubt(&cluster), cluster.leader()), (vec![2], Some(1)));
    cluster.crash(2);
    cluster.go_on(2_000);
    assert_eq!(cluster.go_on(5_000), 0, "nodes 1 and 2 are no quorum");
    cluster.start(2);
    assert!(cluster.go_on(3_000) > 0);
    cluster.crash(0);
    cluster.go_on(2_000);
    assert_eq!(cluster.go_on(2_000), 0, "and nodes 2 and 3 neither");
    cluster.nodes[0].protocol = crate::replication::protocol::PROTOCOL.1;
    cluster.start(0);
    assert!(cluster.go_on(5_000) > 0);
    assert_eq!(are_in_doubt(&cluster), [0; 0]);
}
