//! Reads that wait for a round of heartbeats.

use std::collections::HashMap;

use super::effect::{Effect, Handle};
use super::replica::Replica;
use ::raft::StateRole;

/// Who waits.
#[derive(Default)]
pub(super) struct Reads {
    /// No round was begun for them yet.
    waiting: Vec<Handle>,
    /// Rounds under way, by their contexts.
    rounds: HashMap<Vec<u8>, Vec<Handle>>,
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
        let waiting = std::mem::take(&mut self.reads.waiting);
        self.reads.rounds.insert(context.clone(), waiting);
        self.node.read_index(context);
    }

    /// A majority has heard of this leader since the round began.
    pub(super) fn round_done(&mut self, context: &[u8], index: u64) {
        for handle in self.reads.rounds.remove(context).into_iter().flatten() {
            self.effects.push(Effect::ReadReady(handle, index));
        }
    }

    pub(super) fn lose_reads(&mut self) {
        let begun = self.reads.rounds.drain().flat_map(|(_, handles)| handles);
        let mut lost: Vec<Handle> = begun.chain(self.reads.waiting.drain(..)).collect();
        lost.sort_unstable();
        self.effects.extend(lost.into_iter().map(Effect::ReadLost));
    }
}
