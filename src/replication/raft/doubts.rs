//! Doubt in a replica: its own, and its followers' while it leads. What it is and why it
//! ends, says `src/replication/doubt.rs`.

use std::collections::{BTreeMap, BTreeSet};

use ::raft::{ProgressState, StateRole, eraftpb};

use super::effect::{Effect, Options};
use super::mistake::Mistake;
use super::replica::Replica;
use crate::persistence::{host_of, next_random, witness_in};
use crate::replication::doubt::{is_answer, without_weight};
use crate::replication::message::{Message, MessageKind, NodeId};
use crate::replication::quorum::{is_majority, is_quorum};

/// This node's own.
struct Own {
    number: u64,
    /// Before it is, nothing is said to anyone.
    is_stored: bool,
    /// Ticks since it was told to be stored.
    waiting_ticks: usize,
    /// While it leads: the entry of its own term that ends the doubt when it is committed.
    proof: Option<u64>,
}

/// A follower's, as its leader knows it.
struct Follower {
    number: u64,
    /// The entry that ends it; `None`: it is to be appended.
    proof: Option<u64>,
    /// What it has said to have, with this number.
    has: u64,
    has_ended: bool,
}

/// All that a replica knows of doubt.
pub(super) struct Doubts {
    pub(super) seed: u64,
    own: Option<Own>,
    /// The term that what follows is about: a leader begins with nothing.
    term: u64,
    followers: BTreeMap<NodeId, Follower>,
    /// What voters in doubt acknowledge, as far as the crate hasn't heard it.
    pub(super) acknowledged: BTreeMap<u64, Message>,
    /// Who has answered since a quorum was last looked for, and how many ticks ago that was.
    heard: BTreeSet<u64>,
    heard_ticks: usize,
}

impl Doubts {
    pub fn new(options: &Options, in_doubt: bool) -> Doubts {
        let mut doubts = Doubts {
            seed: options.doubt_seed,
            own: None,
            term: 0,
            followers: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            heard: BTreeSet::new(),
            heard_ticks: 0,
        };
        if in_doubt {
            doubts.own = Some(doubts.begun(true));
        }
        doubts
    }

    fn begun(&mut self, is_stored: bool) -> Own {
        // 0 stands for none.
        let number = next_random(&mut self.seed).max(1);
        Own { number, is_stored, waiting_ticks: 0, proof: None }
    }

    /// The number of this node's own.
    pub fn own_number(&self) -> Option<u64> {
        self.own.as_ref().map(|own| own.number)
    }

    /// It leads in this term, or follows: what was known as a leader is forgotten. `proof`: the
    /// first entry of its own term.
    pub fn enter(&mut self, term: u64, proof: Option<u64>) {
        self.term = term;
        self.followers.clear();
        self.acknowledged.clear();
        self.heard.clear();
        self.heard_ticks = 0;
        if let Some(own) = &mut self.own {
            own.proof = proof;
        }
    }

    /// Only members have doubts.
    pub fn keep(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.followers.retain(|node, _| is_member(*node));
        self.acknowledged.retain(|voter, _| is_member(host_of(*voter)));
    }
}

impl Replica {
    /// Whether this node may be an older copy of itself.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubts.own.is_some()
    }

    /// Whether a voter may be an older copy, as far as this leader knows.
    pub(super) fn is_doubted(&self, voter: u64) -> bool {
        let host = host_of(voter);
        if host == self.options.node_id {
            return self.is_in_doubt();
        }
        self.doubts.followers.get(&host).is_some_and(|follower| !follower.has_ended)
    }

    /// Its leader knows this node to have had what it hasn't.
    pub(super) fn begin_doubt(&mut self, promised: u64, last: u64) {
        if self.doubts.own.is_none() {
            self.doubts.own = Some(self.doubts.begun(false));
            self.effects.push(Effect::DoubtBegins { promised, last });
        }
    }

    pub(super) fn doubt_stored(&mut self) {
        if let Some(own) = &mut self.doubts.own {
            own.is_stored = true;
        }
    }

    /// Its leader says that the doubt has ended; an earlier one's end is nobody's.
    pub(super) fn doubt_ended(&mut self, number: u64) {
        if self.doubts.own_number() == Some(number) {
            self.doubts.own = None;
            self.effects.push(Effect::DoubtEnds);
        }
    }

    /// What a follower or its witness answers to this leader: noted whether it is in doubt.
    pub(super) fn answered(&mut self, message: Message) {
        if self.doubts.term != message.term {
            self.doubts.enter(message.term, None);
        }
        self.doubts.heard.insert(message.from);
        let message = self.note_doubt(message);
        if self.node.raft.state == StateRole::Leader && self.must_go() {
            return self.leads_no_more();
        }
        match message.kind {
            MessageKind::HeartbeatResponse => self.round_answered(message),
            _ if !message.reject => self.acknowledged(message),
            _ => self.hand_on(message),
        }
    }

    fn note_doubt(&mut self, message: Message) -> Message {
        let host = host_of(message.from);
        let is_host = message.from == host;
        if host == self.options.node_id {
            return message; // its own witness is in doubt with it
        }
        let committed = self.node.raft.raft_log.committed;
        match (message.doubt, self.doubts.followers.get_mut(&host)) {
            (0, None) => message,
            (0, Some(follower)) if follower.has_ended => message,
            // It was said before the doubt began.
            (0, Some(_)) => without_weight(message, committed),
            (number, Some(follower)) if follower.number == number => {
                if is_host && message.kind == MessageKind::AppendResponse && !message.reject {
                    follower.has = follower.has.max(message.index);
                }
                if follower.has_ended {
                    self.say_that_doubt_ended(host, number);
                }
                message
            }
            (number, _) => {
                self.doubts
                    .followers
                    .insert(host, Follower { number, proof: None, has: 0, has_ended: false });
                self.forget_progress(host);
                self.forget_progress(witness_in(host));
                message
            }
        }
    }

    /// Where its log and this one agree is to be found out anew: what it had said it has is gone.
    fn forget_progress(&mut self, voter: u64) {
        self.doubts.acknowledged.remove(&voter);
        if self.makes(Mistake::ProgressKept) {
            return;
        }
        let next_index = self.node.raft.raft_log.last_index() + 1;
        let Some(progress) = self.node.raft.mut_prs().get_mut(voter) else { return };
        progress.matched = 0;
        progress.pending_request_snapshot = 0;
        // Not from a snapshot: that leaves where it would have gone on.
        progress.state = ProgressState::Probe;
        progress.become_probe();
        progress.next_idx = next_index;
    }

    fn say_that_doubt_ended(&mut self, to: NodeId, number: u64) {
        let (me, term) = (self.options.node_id, self.node.raft.term);
        let ended = Message { index: number, ..Message::new(MessageKind::DoubtEnded, me, to, term) };
        self.send_at_once(ended);
    }

    /// What a leader does about doubts: proofs are appended, and what they end is said.
    pub(super) fn settle_doubts(&mut self) {
        if self.node.raft.state != StateRole::Leader {
            return;
        }
        let committed = self.node.raft.raft_log.committed;
        let is_proved = |proof: Option<u64>| proof.is_some_and(|proof| proof <= committed);
        let own_ends = |own: &&Own| is_proved(own.proof) || self.makes(Mistake::LeaderNeverInDoubt);
        if let Some(number) = self.doubts.own.as_ref().filter(own_ends).map(|own| own.number) {
            self.doubt_ended(number);
        }
        self.append_proofs();
        let needs_proof = !self.makes(Mistake::EndedWithoutProof);
        let has_ended = |follower: &Follower| {
            !follower.has_ended
                && follower.proof.is_some_and(|proof| follower.has >= proof)
                && (is_proved(follower.proof) || !needs_proof)
        };
        let mut ended = Vec::new();
        for (node, follower) in self.doubts.followers.iter_mut().filter(|(_, follower)| has_ended(follower)) {
            follower.has_ended = true;
            ended.push((*node, follower.number));
        }
        ended.into_iter().for_each(|(node, number)| self.say_that_doubt_ended(node, number));
        self.release_acknowledgements();
        self.release_rounds();
    }

    /// One for all doubts that have come since the last one.
    fn append_proofs(&mut self) {
        let is_wanted = self.doubts.followers.values().any(|follower| follower.proof.is_none());
        // While leadership is handed over nothing is appended, or the other one never has it all.
        if !is_wanted || self.node.raft.lead_transferee.is_some() {
            return;
        }
        if !self.makes(Mistake::EndedWithoutProof) {
            // Without content it is never refused.
            if !self.node.raft.append_entry(&mut [eraftpb::Entry::default()]) {
                return;
            }
            self.node.raft.bcast_append();
        }
        let proof = self.node.raft.raft_log.last_index();
        for follower in self.doubts.followers.values_mut().filter(|follower| follower.proof.is_none()) {
            follower.proof = Some(proof);
        }
    }

    /// Time has passed.
    pub(super) fn tick_doubts(&mut self) {
        let patience = self.options.election_ticks;
        let (committed, last) = (self.node.raft.raft_log.committed, self.node.raft.raft_log.last_index());
        if let Some(own) = self.doubts.own.as_mut().filter(|own| !own.is_stored) {
            own.waiting_ticks += 1;
            // The disk may have refused it.
            if own.waiting_ticks.is_multiple_of(patience) {
                self.effects.push(Effect::DoubtBegins { promised: committed, last });
            }
        }
        if self.node.raft.state == StateRole::Leader {
            self.check_quorum();
        }
    }

    /// A leader that has come to need all votes and was elected by fewer leads no more: in its term there may
    /// have been others.
    fn must_go(&self) -> bool {
        let members = &self.configuration().members;
        let needs_all = !is_majority(members, |voter| !self.is_doubted(voter)) && !self.is_alone();
        needs_all && !self.elections.is_of_all(self.node.raft.term)
    }

    fn leads_no_more(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
    }

    /// A leader that no quorum has answered for an election timeout leads no more.
    fn check_quorum(&mut self) {
        self.doubts.heard_ticks += 1;
        let members = &self.configuration().members;
        let me = self.options.node_id;
        let must_go = self.must_go();
        if self.doubts.heard_ticks < self.options.election_ticks && !must_go {
            return;
        }
        let has_answered = |voter| voter == me || self.doubts.heard.contains(&voter);
        let is_doubted = |voter| self.is_doubted(voter) && !self.makes(Mistake::DoubtIgnoredInCheck);
        let is_heard = is_quorum(members, has_answered, is_doubted);
        self.doubts.heard.clear();
        self.doubts.heard_ticks = 0;
        if must_go || !is_heard {
            self.leads_no_more();
        }
    }

    /// What leaves bears this node's doubt, or stays while that isn't durable.
    pub(super) fn speak(&mut self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.effects);
        let Some(own) = &self.doubts.own else { return effects };
        if !own.is_stored {
            effects.retain(|effect| !matches!(effect, Effect::Send(_)));
        }
        let number = own.number;
        let stamp = |message: &mut Message| {
            if is_answer(message.kind) {
                message.doubt = number;
            }
        };
        for effect in &mut effects {
            match effect {
                Effect::Send(message) => stamp(message),
                Effect::Persist(persist) if !own.is_stored => persist.then_send.clear(),
                Effect::Persist(persist) => persist.then_send.iter_mut().for_each(stamp),
                _ => {}
            }
        }
        effects
    }
}
