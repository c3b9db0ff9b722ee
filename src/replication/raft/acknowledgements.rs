//! What followers have, held back as far as it would commit what no quorum has: see
//! `src/replication/quorum.rs`.
//!
//! The crate commits what a majority has. To it each voter in doubt has no more than `limit`:
//! what a quorum has, or is committed already. Then its majority reaches exactly as far: those
//! beyond `limit` are voters without doubt, and no majority.
//!
//! A leader in doubt itself can't be held back so, since the crate asks nobody about the
//! leader's own disk: so to it nobody has more than `limit`.

use super::mistake::Mistake;
use super::replica::Replica;
use crate::replication::message::Message;
use crate::replication::quorum;

impl Replica {
    /// A follower, or a witness, has everything up to `message.index`.
    pub(super) fn acknowledged(&mut self, message: Message) {
        if !self.holds_back(message.from) && self.doubts.acknowledged.is_empty() {
            return self.hand_on(message);
        }
        // What is known of it anyway decides nothing either, but tells what to send next.
        let matched = self.node.raft.prs().get(message.from).map_or(0, |progress| progress.matched);
        let free = message.index.min(matched.max(self.node.raft.raft_log.committed));
        self.hand_on(Message { index: free, ..message.clone() });
        let known = self.doubts.acknowledged.get(&message.from).map_or(0, |known| known.index);
        if message.index > free.max(known) {
            self.doubts.acknowledged.insert(message.from, message);
        }
        self.release_acknowledgements();
    }

    fn holds_back(&self, voter: u64) -> bool {
        (self.is_doubted(voter) || self.is_in_doubt()) && !self.makes(Mistake::DoubtIgnoredInCommits)
    }

    /// The crate hears as much as it may.
    pub(super) fn release_acknowledgements(&mut self) {
        if self.doubts.acknowledged.is_empty() {
            return;
        }
        let limit = self.quorum_has().max(self.node.raft.raft_log.committed);
        let voters: Vec<u64> = self.doubts.acknowledged.keys().copied().collect();
        for voter in voters {
            let holds_back = self.holds_back(voter);
            let Some(message) = self.doubts.acknowledged.get(&voter).cloned() else { continue };
            let index = if holds_back { message.index.min(limit) } else { message.index };
            if index == message.index {
                self.doubts.acknowledged.remove(&voter);
            }
            if self.node.raft.prs().get(voter).is_some_and(|progress| progress.matched < index) {
                self.hand_on(Message { index, ..message });
            }
        }
    }

    fn quorum_has(&self) -> u64 {
        let has = |voter| {
            let heard = self.node.raft.prs().get(voter).map_or(0, |progress| progress.matched);
            heard.max(self.doubts.acknowledged.get(&voter).map_or(0, |message| message.index))
        };
        quorum::index(&self.configuration().members, has, |voter| self.is_doubted(voter))
    }
}
