//! `promote` with `force`, in clusters in which nothing else goes wrong.

use super::Cluster;

fn of(nodes: u64) -> Cluster {
    let mut cluster = Cluster::calm(1, nodes, None);
    cluster.run_until(3_000);
    cluster
}

fn voters(cluster: &Cluster) -> Vec<u64> {
    cluster.checker.history.members().members.voters.clone()
}

#[test]
fn a_primary_whose_secondary_is_lost_goes_on_alone_and_takes_a_new_one_in() {
    let mut cluster = of(2);
    cluster.wipe(1);
    cluster.go_on(2_000);
    cluster.force(0, true);
    assert!(cluster.go_on(3_000) > 0);
    cluster.go_on(3_000);
    assert_eq!(voters(&cluster), [1, 2, crate::persistence::witness_in(2)]);
}

#[test]
fn the_last_of_three_goes_on_and_the_others_come_back_with_what_they_have() {
    let mut cluster = of(3);
    cluster.crash(0);
    cluster.crash(1);
    cluster.go_on(2_000);
    cluster.force(2, true);
    assert!(cluster.go_on(2_000) > 0);
    cluster.start(0);
    cluster.start(1);
    assert!(cluster.go_on(10_000) > 0);
    assert_eq!(cluster.faults.figures.rejoined + cluster.faults.figures.adoptions, 2);
    assert_eq!(voters(&cluster), [1, 2, 3]);
}

#[test]
fn who_went_on_without_the_forced_one_is_refused_and_taken_in_when_wiped() {
    let mut cluster = of(3);
    cluster.part(0, true, true);
    cluster.go_on(5_000);
    cluster.force(0, true);
    cluster.go_on(2_000);
    cluster.faults.heal();
    assert!(cluster.go_on(5_000) > 0);
    assert_eq!((voters(&cluster), cluster.faults.figures.rejoined), (vec![1], 0), "they have applied more");
    cluster.wipe(1);
    cluster.wipe(2);
    assert!(cluster.go_on(10_000) > 0);
    assert_eq!(voters(&cluster), [1, 2, 3]);
}

#[test]
fn two_that_were_forced_apart_never_talk_until_one_is_wiped() {
    let mut cluster = of(2);
    cluster.part(0, true, true);
    cluster.go_on(3_000);
    cluster.force(0, true);
    cluster.force(1, false);
    cluster.go_on(3_000);
    cluster.faults.heal();
    assert!(cluster.go_on(5_000) > 0);
    assert_eq!(voters(&cluster), [1]);
    cluster.wipe(1);
    assert!(cluster.go_on(10_000) > 0);
    assert_eq!(voters(&cluster), [1, 2, crate::persistence::witness_in(2)]);
}

/// What a node had only appended on the other side must not pass for what the forced one
/// appended at the same place in a term of the same number.
#[test]
fn a_tail_of_the_other_side_is_replaced() {
    for seed in 0..20 {
        let mut cluster = Cluster::calm(seed, 3, None);
        cluster.run_until(3_000);
        cluster.crash(0);
        let term = |cluster: &Cluster| {
            let process = cluster.nodes[1].process.as_ref();
            process.map_or(0, |process| process.replica.status().role.term)
        };
        while term(&cluster) != 2 {
            cluster.go_on(1);
        }
        // Node 2 leads and commits nothing: node 3 has a tail that it hasn't applied.
        cluster.nodes[1].sync_ms = 5_000;
        cluster.go_on(50);
        cluster.crash(2);
        cluster.crash(1);
        cluster.force(0, true);
        cluster.go_on(2_000);
        // Begun anew, it looks for where the logs agree from the end on.
        cluster.crash(0);
        cluster.start(0);
        cluster.go_on(2_000);
        cluster.start(2);
        assert!(cluster.go_on(5_000) > 0, "seed {seed}");
    }
}
