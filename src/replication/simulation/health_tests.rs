//! Disks that hang: writes go on where a majority's disks take them.

use super::cluster::Cluster;

/// Never, as far as a test is concerned.
const HANGS_MS: u64 = 1_000_000_000;

fn leader(cluster: &Cluster) -> usize {
    cluster.leader().expect("someone leads") as usize - 1
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_and_writes_go_on() {
    for (seed, nodes) in [(1, 3), (2, 5), (3, 3), (4, 5)] {
        let mut cluster = Cluster::calm(seed, nodes, None);
        cluster.run_until(5_000);
        let place = leader(&cluster);
        cluster.hang(place, HANGS_MS);
        cluster.go_on(5_000);
        assert!(cluster.go_on(5_000) > 100, "seed {seed}: writes don't go on");
        assert_ne!(leader(&cluster), place, "seed {seed}");
        assert_eq!(cluster.faults.figures.left_bad_disks, 1, "seed {seed}");
    }
}

/// Of two nodes the one without the witness may have a disk that hangs.
#[test]
fn of_two_nodes_the_witness_s_host_goes_on_alone_and_hands_back_when_the_other_disk_works() {
    let mut cluster = Cluster::calm(7, 2, None);
    cluster.run_until(5_000);
    let place = leader(&cluster);
    cluster.hang(place, 20_000);
    cluster.go_on(5_000);
    assert!(cluster.go_on(5_000) > 100 && leader(&cluster) != place);
    cluster.go_on(90_000);
    assert_eq!(leader(&cluster), place, "it hands back when the pause is over");
    assert_eq!((cluster.faults.figures.left_bad_disks, cluster.faults.figures.hand_backs), (1, 1));
}

/// Two disks hang by turns, for seconds: leadership moves as seldom as the pauses say.
#[test]
fn two_disks_that_hang_by_turns_don_t_move_leadership_to_and_fro() {
    let mut cluster = Cluster::calm(9, 3, None);
    cluster.run_until(5_000);
    for _ in 0..120 {
        let place = leader(&cluster);
        if place < 2 {
            cluster.hang(place, 4_000);
        }
        cluster.go_on(5_000);
    }
    let moves = cluster.faults.figures.left_bad_disks;
    assert!((1..=5).contains(&moves), "{moves} hand-overs in 10 minutes");
}
