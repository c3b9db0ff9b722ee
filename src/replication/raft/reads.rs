//! Reads that wait for a round of heartbeats.
//!
//! A round is done when a quorum (`src/replication/quorum.rs`) has answered. The crate counts
//! a majority: so it hears those that answer in doubt only when they complete a quorum.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::effect::{Effect, Handle};
use super::mistake::Mistake;
use super::replica::Replica;
use crate::replication::message::Message;
use crate::replication::quorum::is_quorum;
use ::raft::StateRole;

/// A round under way.
#[derive(Default)]
struct Round {
    handles: Vec<Handle>,
    answered: BTreeSet<u64>,
    /// Answers of those in doubt.
    held: Vec<Message>,
}

/// Who waits.
#[derive(Default)]
pub(super) struct Reads {
    /// No round was begun for them yet.
    waiting: Vec<Handle>,
    /// By their contexts.
    rounds: HashMap<Vec<u8>, Round>,
    rounds_begun: u64,
}

impl Replica {
    pub(super) fn read(&mut self, handle: Handle) {
        if self.node.raft.state == StateRole::Leader {
            self.reads.waiting.push(handle);
        } else {
            self.effects.push(Effect::ReadLost(handle));
        }
    }

    /// One round of heartbeats for all reads that wait.
    pub(super) fn begin_read_round(&mut self) {
        let raft = &self.node.raft;
        let knows_what_is_committed =
            raft.raft_log.term(raft.raft_log.committed).is_ok_and(|term| term == raft.term);
        if self.reads.waiting.is_empty() || raft.state != StateRole::Leader || !knows_what_is_committed {
            return;
        }
        self.reads.rounds_begun += 1;
        // Never the same twice: not within this process, and not after it, since
        // a node doesn't lead the same term twice.
        let mut context = raft.term.to_le_bytes().to_vec();
        context.extend_from_slice(&self.reads.rounds_begun.to_le_bytes());
        let handles = std::mem::take(&mut self.reads.waiting);
        self.reads.rounds.insert(context.clone(), Round { handles, ..Round::default() });
        self.node.read_index(context);
    }

    /// A follower, or a witness, has heard a heartbeat, perhaps that of a round.
    pub(super) fn round_answered(&mut self, message: Message) {
        let is_doubted = self.is_doubted(message.from) && !self.makes(Mistake::DoubtIgnoredInRounds);
        let round = self.reads.rounds.get_mut(&message.context[..]);
        if let Some(round) = round {
            round.answered.insert(message.from);
            if is_doubted {
                round.held.push(message.clone());
            }
        }
        let context = if is_doubted { Bytes::new() } else { message.context.clone() };
        self.hand_on(Message { context, ..message });
        self.release_rounds();
    }

    /// The crate hears of those in doubt where they complete a quorum.
    pub(super) fn release_rounds(&mut self) {
        if self.reads.rounds.values().all(|round| round.held.is_empty()) {
            return;
        }
        let (me, members) = (self.options.node_id, &self.configuration().members);
        let is_done = |round: &Round| {
            let has_answered = |voter| voter == me || round.answered.contains(&voter);
            is_quorum(members, has_answered, |voter| self.is_doubted(voter))
        };
        let done: Vec<Vec<u8>> =
            self.reads.rounds.iter().filter(|(_, round)| is_done(round)).map(|(c, _)| c.clone()).collect();
        for context in done {
            let held = self.reads.rounds.get_mut(&context).map(|round| std::mem::take(&mut round.held));
            held.into_iter().flatten().for_each(|message| self.hand_on(message));
        }
    }

    /// A quorum has heard of this leader since the round began.
    pub(super) fn round_done(&mut self, context: &[u8], index: u64) {
        for handle in self.reads.rounds.remove(context).map(|round| round.handles).into_iter().flatten() {
            self.effects.push(Effect::ReadReady(handle, index));
        }
    }

    pub(super) fn lose_reads(&mut self) {
        let begun = self.reads.rounds.drain().flat_map(|(_, round)| round.handles);
        let mut lost: Vec<Handle> = begun.chain(self.reads.waiting.drain(..)).collect();
        lost.sort_unstable();
        self.effects.extend(lost.into_iter().map(Effect::ReadLost));
    }
}
