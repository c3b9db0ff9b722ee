//! Mistakes that the simulation must find: each can be switched on in a replica.

#[cfg(test)]
use super::replica::Replica;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub enum Mistake {
    /// A candidate counts votes, whoever gives them.
    DoubtIgnoredInElections,
    /// A leader counts disks, whoever's they are.
    DoubtIgnoredInCommits,
    /// A round of reads counts answers, whoever gives them.
    DoubtIgnoredInRounds,
    /// A leader goes on when it hears a majority, whoever is in it.
    DoubtIgnoredInCheck,
    /// A doubt ends when the node has what its leader had, committed or not.
    EndedWithoutProof,
    /// A leader is in doubt no more when it is elected.
    LeaderNeverInDoubt,
    /// What a follower has said before it was set back still counts.
    ProgressKept,
    /// A term is the next one, whoever may have led it.
    NoGap,
}

#[cfg(test)]
impl Replica {
    /// Switches mistakes on.
    pub fn mistaken(&mut self, mistakes: &[Mistake]) {
        self.mistakes = mistakes.to_vec();
    }

    pub(super) fn makes(&self, mistake: Mistake) -> bool {
        self.mistakes.contains(&mistake)
    }
}

#[cfg(not(test))]
impl super::replica::Replica {
    pub(super) fn makes(&self, _: Mistake) -> bool {
        false
    }
}
