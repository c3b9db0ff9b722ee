//! Members that change while some don't answer, in clusters in which nothing else goes wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Cluster, Mutant};
use crate::replication::reconfiguration::nodes_that_vote;

fn voters(cluster: &Cluster) -> Vec<u64> {
    nodes_that_vote(cluster.checker.history.members())
}

fn is_asked_to_remove(cluster: &mut Cluster, id: u64) {
    for _ in 0..20 {
        cluster.ask_to_remove(id);
        cluster.go_on(100);
    }
}

/// Whoever is removed, those that answer go on.
fn nobody_is_removed_who_is_needed(mutant: Option<Mutant>) {
    for (nodes, dead) in [(3, vec![3]), (5, vec![4, 5])] {
        for needed in (1..=nodes).filter(|id| !dead.contains(id)) {
            let mut cluster = Cluster::calm(1, nodes, mutant);
            cluster.run_until(3_000);
            assert_eq!(cluster.leader(), Some(1));
            dead.iter().for_each(|id| cluster.crash(*id as usize - 1));
            assert!(cluster.go_on(3_000) > 0);
            is_asked_to_remove(&mut cluster, needed);
            assert!(cluster.go_on(3_000) > 0, "{nodes} nodes without {dead:?}, and {needed}");
            assert_eq!(voters(&cluster).len() as u64, nodes, "node {needed} is still there");
            for id in &dead {
                is_asked_to_remove(&mut cluster, *id);
                assert!(!voters(&cluster).contains(id) && cluster.go_on(3_000) > 0);
            }
            is_asked_to_remove(&mut cluster, needed);
            // A leader that hands over first is asked once more.
            is_asked_to_remove(&mut cluster, needed);
            assert!(!voters(&cluster).contains(&needed), "all that are left answer");
            assert!(cluster.go_on(3_000) > 0);
        }
    }
}

#[test]
fn a_change_of_members_ends_no_availability_that_was_there() {
    nobody_is_removed_who_is_needed(None);
    let blind = AssertUnwindSafe(|| nobody_is_removed_who_is_needed(Some(Mutant::ChangesBlindly)));
    assert!(catch_unwind(blind).is_err(), "who changes members blindly isn't caught");
}
