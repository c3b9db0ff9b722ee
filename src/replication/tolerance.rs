//! How many more failures a cluster survives as it stands.
//!
//! Nodes fail, not voters: with the witness' host two voters are gone. So it is
//! asked of each set of the nodes that are there whether a quorum is left without it.

use super::message::NodeId;
use super::quorum::is_quorum;
use crate::persistence::{Members, host_of};

/// What may fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// So many, whichever they are.
    pub any: usize,
    /// Any one of these.
    pub single: Vec<NodeId>,
}

/// Of the nodes that are there, some of them in doubt; none where they are no quorum already.
pub fn tolerance(members: &Members, there: &[NodeId], doubted: &[NodeId]) -> Tolerance {
    let goes_on_without = |failed: &[NodeId]| {
        let is_left = |voter| there.contains(&host_of(voter)) && !failed.contains(&host_of(voter));
        is_quorum(members, is_left, |voter| doubted.contains(&host_of(voter)))
    };
    if !goes_on_without(&[]) {
        return Tolerance::default();
    }
    let single = there.iter().copied().filter(|node| goes_on_without(&[*node])).collect();
    let any = (1..=there.len())
        .take_while(|count| sets(there, *count).iter().all(|failed| goes_on_without(failed)))
        .count();
    Tolerance { any, single }
}

/// All sets of so many of them. There are few nodes (`limits::MEMBERS_MAX`).
fn sets(of: &[NodeId], count: usize) -> Vec<Vec<NodeId>> {
    let chosen =
        |set: u32| (0..of.len()).filter(|place| set & (1 << place) != 0).map(|place| of[place]).collect();
    (0..1u32 << of.len()).filter(|set| set.count_ones() as usize == count).map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::witness_in;

    fn of(voters: &[NodeId], there: &[NodeId]) -> (usize, Vec<NodeId>) {
        with_doubt(voters, there, &[])
    }

    fn with_doubt(voters: &[NodeId], there: &[NodeId], doubted: &[NodeId]) -> (usize, Vec<NodeId>) {
        let members = Members { voters: voters.to_vec(), ..Members::default() };
        let Tolerance { any, single } = tolerance(&members, there, doubted);
        (any, single)
    }

    #[test]
    fn a_minority_may_fail_and_of_two_nodes_the_one_without_the_witness() {
        assert_eq!(of(&[1], &[1]), (0, vec![]));
        assert_eq!(of(&[1, 2, 3], &[1, 2, 3]), (1, vec![1, 2, 3]));
        assert_eq!(of(&[1, 2, 3], &[1, 3]), (0, vec![]));
        assert_eq!(of(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]), (2, vec![1, 2, 3, 4, 5]));
        assert_eq!(of(&[1, 2, witness_in(2)], &[1, 2]), (0, vec![1]));
        assert_eq!(of(&[1, 2, witness_in(2)], &[2]), (0, vec![]));
        assert_eq!(of(&[1, 2, witness_in(2)], &[1]), (0, vec![]), "no majority");
        assert_eq!(of(&[1, 2, 3], &[1, 2, 3, 4]), (1, vec![1, 2, 3, 4]), "who only listens may fail");
    }

    #[test]
    fn who_is_in_doubt_may_fail_and_nobody_else() {
        assert_eq!(with_doubt(&[1, 2, 3], &[1, 2, 3], &[2]), (0, vec![2]));
        assert_eq!(with_doubt(&[1, 2, 3], &[1, 2, 3], &[2, 3]), (0, vec![]), "all are needed");
        assert_eq!(with_doubt(&[1, 2, 3], &[1, 2], &[2]), (0, vec![]), "no quorum");
        assert_eq!(with_doubt(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5], &[5]), (1, vec![1, 2, 3, 4, 5]));
        assert_eq!(with_doubt(&[1, 2, witness_in(2)], &[1, 2], &[1]), (0, vec![1]));
        assert_eq!(with_doubt(&[1, 2, witness_in(2)], &[1, 2], &[2]), (0, vec![]));
    }
}
