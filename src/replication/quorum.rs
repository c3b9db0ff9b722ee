//! Which voters may decide: who leads, what is committed, whether a leader still leads.
//!
//! Two majorities of the voters have a voter in common, and what one of them was told is
//! known to the other one by that. A voter in doubt ([`super::doubt`]) may have forgotten
//! what it was told, so it is no such link:
//!
//! ```text
//!   a quorum   a majority of the voters, none of which is in doubt
//!              or all voters, whoever of them is in doubt
//! ```
//!
//! A majority without doubt meets every other majority in a voter that remembers. All
//! voters meet everyone: whatever any disk still has is there. While a change of the
//! members is under way this holds for the voters before it, and for those after it.
//!
//! Voters are asked by their own numbers: a witness is in doubt with its host.

use crate::persistence::Members;

/// Whether those that said yes are a quorum.
pub fn is_quorum(members: &Members, said_yes: impl Fn(u64) -> bool, in_doubt: impl Fn(u64) -> bool) -> bool {
    sets(members).all(|voters| {
        let sure = voters.iter().filter(|voter| said_yes(**voter) && !in_doubt(**voter));
        sure.count() > voters.len() / 2 || voters.iter().all(|voter| said_yes(*voter))
    })
}

/// Whether these voters are a majority.
pub fn is_majority(members: &Members, says_yes: impl Fn(u64) -> bool) -> bool {
    sets(members).all(|voters| voters.iter().filter(|voter| says_yes(**voter)).count() > voters.len() / 2)
}

/// The last entry that a quorum has; `has` says up to which one each voter has all.
pub fn index(members: &Members, has: impl Fn(u64) -> u64, in_doubt: impl Fn(u64) -> bool) -> u64 {
    let of_set = |voters: &[u64]| {
        let sure = |voter: &u64| if in_doubt(*voter) { 0 } else { has(*voter) };
        let mut indexes: Vec<u64> = voters.iter().map(sure).collect();
        indexes.sort_unstable();
        let of_majority = indexes[(voters.len() - 1) / 2];
        let of_all = voters.iter().map(|voter| has(*voter)).min().unwrap_or(0);
        of_majority.max(of_all)
    };
    sets(members).map(of_set).min().unwrap_or(0)
}

/// The voters, and those before the change that is under way.
fn sets(members: &Members) -> impl Iterator<Item = &[u64]> {
    [&members.voters[..], &members.voters_outgoing].into_iter().filter(|voters| !voters.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::{host_of, witness_in};

    fn of(voters: &[u64]) -> Members {
        Members { voters: voters.to_vec(), ..Members::default() }
    }

    /// Whether these say yes and are a quorum, while those are in doubt.
    fn decides(members: &Members, yes: &[u64], doubted: &[u64]) -> bool {
        let yes = |voter| yes.contains(&host_of(voter));
        is_quorum(members, yes, |voter| doubted.contains(&host_of(voter)))
    }

    #[test]
    fn who_is_in_doubt_counts_only_where_all_are_there() {
        let three = of(&[1, 2, 3]);
        assert!(decides(&three, &[1, 2], &[]) && !decides(&three, &[1], &[]));
        assert!(!decides(&three, &[1, 2], &[2]) && decides(&three, &[1, 3], &[2]));
        assert!(decides(&three, &[1, 2, 3], &[2, 3]) && decides(&three, &[1, 2, 3], &[1, 2, 3]));
        let five = of(&[1, 2, 3, 4, 5]);
        assert!(!decides(&five, &[1, 2, 3, 4], &[3, 4]) && decides(&five, &[1, 2, 5], &[3, 4]));
        assert!(decides(&of(&[1]), &[1], &[1]), "it is all voters");
    }

    #[test]
    fn a_witness_is_in_doubt_with_its_host() {
        let two = of(&[1, 2, witness_in(2)]);
        assert!(decides(&two, &[2], &[]) && !decides(&two, &[1], &[]));
        assert!(decides(&two, &[2], &[1]), "two votes without doubt");
        assert!(!decides(&two, &[2], &[2]) && decides(&two, &[1, 2], &[2]));
    }

    #[test]
    fn while_members_change_both_sets_decide() {
        let mut members = of(&[1, 2, 3]);
        assert!(decides(&members, &[1, 2], &[]) && !decides(&members, &[3], &[]));
        members.voters_outgoing = vec![1];
        assert!(members.is_joint() && decides(&members, &[1, 2], &[]) && !decides(&members, &[2, 3], &[]));
        assert!(!decides(&members, &[1, 2], &[1]), "of the new voters 1 and 2 are no quorum");
        assert!(decides(&members, &[1, 2, 3], &[1]), "the old voters are 1 alone, so all of them");
    }

    #[test]
    fn an_index_is_a_quorum_s_exactly_as_far_as_the_quorum_has_it() {
        let mut random = 7;
        for round in 0..20_000 {
            let mut draw = |bound: u64| crate::persistence::next_random(&mut random) % bound;
            let count = 1 + draw(5);
            let mut members = of(&(1..=count).collect::<Vec<_>>());
            if draw(2) == 0 {
                members.voters_outgoing = (1..=1 + draw(count)).collect();
            }
            let has: Vec<u64> = (0..count).map(|_| draw(6)).collect();
            let doubted: Vec<bool> = (0..count).map(|_| draw(3) == 0).collect();
            let (has, in_doubt) =
                (|voter: u64| has[voter as usize - 1], |voter: u64| doubted[voter as usize - 1]);
            let found = index(&members, has, in_doubt);
            let reaches = |index| is_quorum(&members, |voter| has(voter) >= index, in_doubt);
            assert!(found == 0 || reaches(found), "round {round}");
            assert!(!reaches(found + 1), "round {round}: {found}");
        }
    }
}
