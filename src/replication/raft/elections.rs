//! Votes, held back until those that grant one are a quorum: see `src/replication/quorum.rs`.
//!
//! The crate needs a majority, and counts the candidate's own vote when the election begins.
//! So it gets all the others at once, when they are enough whoever of them is in doubt.

use std::collections::{BTreeMap, BTreeSet};

use ::raft::StateRole;

use super::mistake::Mistake;
use super::replica::Replica;
use crate::persistence::next_random;
use crate::replication::doubt::TERM_GAP;
use crate::replication::message::{Message, MessageKind};
use crate::replication::quorum::{is_majority, is_quorum};
use crate::replication::recovered::EPOCH_TERMS;

/// What a candidate has got.
#[derive(Default)]
pub(super) struct Elections {
    /// The question that these answer: its kind of answer and its term.
    question: Option<(MessageKind, u64)>,
    grants: BTreeMap<u64, Message>,
    /// The doubts for which this node has taken its term from far ahead.
    gap_taken_for: BTreeSet<u64>,
    /// The last term for which all had to vote.
    of_all: Option<u64>,
}

impl Elections {
    /// Whether a leader of this term has, or needed, the votes of all.
    pub fn is_of_all(&self, term: u64) -> bool {
        self.of_all == Some(term)
    }

    /// The same question is asked again.
    pub fn begin_anew(&mut self) {
        self.grants.clear();
    }
}

impl Replica {
    /// A vote, or the promise of one.
    pub(super) fn granted(&mut self, message: Message) {
        use MessageKind::{RequestPreVoteResponse, RequestVoteResponse};
        let raft = &self.node.raft;
        let question = match raft.state {
            StateRole::PreCandidate => Some((RequestPreVoteResponse, raft.term + 1)),
            StateRole::Candidate => Some((RequestVoteResponse, raft.term)),
            StateRole::Follower | StateRole::Leader => None,
        };
        let answers = (message.kind, message.term);
        if question != Some(answers) {
            // The crate counts a promise whatever question it answers; of a vote it may learn a term.
            if message.kind == RequestVoteResponse {
                self.hand_on(message);
            }
            return;
        }
        if self.elections.question != question {
            (self.elections.question, self.elections.grants) = (question, BTreeMap::new());
        }
        // One without doubt stays what it is.
        let is_better = |known: &Message| known.doubt != 0;
        if self.elections.grants.get(&message.from).is_none_or(is_better) {
            self.elections.grants.insert(message.from, message);
        }
        self.count_grants();
    }

    fn count_grants(&mut self) {
        let (me, is_in_doubt) = (self.options.node_id, self.is_in_doubt());
        let grants = &self.elections.grants;
        let grants_it = |voter| voter == me || grants.contains_key(&voter);
        let doubted = |voter| match grants.get(&voter) {
            Some(grant) => grant.doubt != 0,
            None => is_in_doubt,
        };
        let is_doubted = |voter| doubted(voter) && !self.makes(Mistake::DoubtIgnoredInElections);
        let members = &self.configuration().members;
        if !is_quorum(members, grants_it, is_doubted) {
            return;
        }
        let needs_all = !is_majority(members, |voter| grants_it(voter) && !doubted(voter));
        let mut grants = std::mem::take(&mut self.elections.grants);
        if self.node.raft.state == StateRole::PreCandidate {
            if needs_all || is_in_doubt {
                let doubts = grants.values().map(|grant| grant.doubt).chain(self.doubts.own_number());
                self.take_gap(doubts.filter(|number| *number != 0).collect());
            }
            let term = self.node.raft.term + 1;
            self.elections.of_all = needs_all.then_some(term);
            grants.values_mut().for_each(|grant| grant.term = term);
        }
        grants.into_values().for_each(|grant| self.hand_on(grant));
    }

    /// The next term is one that nobody has been in: once for each doubt, and never beyond what
    /// belongs to this epoch.
    fn take_gap(&mut self, doubts: BTreeSet<u64>) {
        if doubts.is_subset(&self.elections.gap_taken_for) || self.makes(Mistake::NoGap) {
            return;
        }
        self.elections.gap_taken_for.extend(doubts);
        let term = self.node.raft.term + TERM_GAP + next_random(&mut self.doubts.seed) % TERM_GAP;
        if term % EPOCH_TERMS < EPOCH_TERMS / 2 {
            (self.node.raft.term, self.node.raft.vote) = (term, 0);
        }
    }

    /// The only voter asks nobody: its term is taken ahead before it campaigns.
    pub(super) fn take_gap_alone(&mut self) {
        if self.node.raft.state != StateRole::Leader && self.is_alone() {
            self.take_gap(self.doubts.own_number().into_iter().collect());
        }
    }

    /// Whether no other voter has a word, neither before a change under way nor behind it.
    pub(super) fn is_alone(&self) -> bool {
        let members = &self.configuration().members;
        let is_me = |voter: &u64| *voter == self.options.node_id;
        !members.voters.is_empty() && members.voters.iter().chain(&members.voters_outgoing).all(is_me)
    }
}
