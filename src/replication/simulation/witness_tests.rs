//! Two nodes and their witness, when nothing else goes wrong.

use super::Cluster;
use super::node::Node;

/// Node 1 leads, node 2 hosts the witness.
fn two() -> Cluster {
    let mut cluster = Cluster::calm(1, 2, None);
    cluster.run_until(3_000);
    assert_eq!(cluster.leader(), Some(1));
    cluster
}

fn role_of(node: &Node) -> String {
    node.process.as_ref().map_or_else(String::new, |process| format!("{:?}", process.replica.status().role))
}

#[test]
fn the_primary_dies_and_the_secondary_serves_within_two_seconds() {
    let mut cluster = two();
    cluster.crash(0);
    assert!(cluster.go_on(2_000) > 0, "{}", role_of(&cluster.nodes[1]));
    assert_eq!(cluster.leader(), Some(2));
    // What was acknowledged the checker finds missing when either applies something else.
    cluster.start(0);
    assert!(cluster.go_on(5_000) > 0);
}

#[test]
fn parted_the_secondary_wins_and_the_primary_steps_down() {
    let mut cluster = two();
    cluster.part(0, true, true);
    assert!(cluster.go_on(4_000) > 0);
    assert_eq!(cluster.leader(), Some(2));
    assert!(!cluster.nodes[0].process.as_ref().is_some_and(|process| process.leads()));
    cluster.faults.heal();
    assert!(cluster.go_on(3_000) > 0);
    assert_eq!(cluster.leader(), Some(2), "who comes back takes nothing over at once");
}

#[test]
fn the_secondary_dies_and_nothing_is_acknowledged() {
    let mut cluster = two();
    cluster.crash(1);
    cluster.go_on(1_500);
    assert_eq!(cluster.go_on(10_000), 0);
    assert_eq!(cluster.leader(), None, "its host took the witness with it");
    cluster.start(1);
    assert!(cluster.go_on(3_000) > 0);
    assert_eq!(cluster.leader(), Some(1));
}

#[test]
fn a_primary_that_is_back_leads_again_after_a_while() {
    let mut cluster = two();
    cluster.crash(0);
    cluster.go_on(3_000);
    cluster.start(0);
    cluster.go_on(8_000);
    assert_eq!(cluster.leader(), Some(2), "only when it has been there for a while");
    cluster.go_on(6_000);
    assert_eq!(cluster.leader(), Some(1), "the witness stands by the other one");
    assert!(cluster.faults.figures.hand_backs > 0);
}

#[test]
fn while_the_secondary_leads_both_disks_have_what_is_acknowledged() {
    let mut cluster = two();
    cluster.crash(0);
    cluster.go_on(3_000);
    cluster.start(0);
    // Until it has caught up, and an election timeout more.
    cluster.go_on(3_000);
    cluster.all_disks = true;
    assert!(cluster.go_on(4_000) > 100);
    assert_eq!(cluster.leader(), Some(2));
}

#[test]
fn a_secondary_that_lost_its_disk_does_not_vote_and_nor_does_its_witness() {
    let mut cluster = two();
    cluster.wipe(1);
    cluster.start(1);
    cluster.go_on(1_500);
    assert_eq!(cluster.go_on(5_000), 0, "node 1 alone is no majority");
    assert_eq!(cluster.leader(), None);
    cluster.crash(0);
    assert_eq!(cluster.go_on(5_000), 0);
    assert_eq!(
        (cluster.leader(), cluster.nodes[1].process.is_none()),
        (None, true),
        "it waits to be adopted"
    );
}

#[test]
fn a_primary_that_lost_its_disk_is_replaced_and_leads_no_more() {
    let mut cluster = two();
    cluster.wipe(0);
    assert!(cluster.go_on(3_000) > 0);
    assert_eq!(cluster.leader(), Some(2));
    cluster.ask_to_remove(1);
    cluster.go_on(2_000);
    assert_eq!(cluster.checker.history.members().members.voters, [2]);
    cluster.ask_to_add(1);
    assert!(cluster.go_on(5_000) > 0);
    let members = &cluster.checker.history.members().members;
    assert_eq!(
        members.voters,
        [1, 2, crate::persistence::witness_in(1)],
        "the witness is with who doesn't lead"
    );
}
