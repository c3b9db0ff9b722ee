//! What a replica hears from its peers, on its way to the crate.
//!
//! ```text
//!   Received ─┬─► to the witness
//!             ├─► would contradict what is committed: conflicts.rs
//!             ├─► heartbeat: is what it says is committed in this log?   below
//!             ├─► a vote: held until those that count are there          elections.rs
//!             ├─► an answer to a leader: of a node in doubt?             doubts.rs
//!             │     ├─ it has entries: held as far as they would decide  acknowledgements.rs
//!             │     └─ it has heard a round: held                        reads.rs
//!             └─► all else
//! ```

use ::raft::StateRole;

use super::convert;
use super::replica::Replica;
use crate::replication::message::{Message, MessageKind};

impl Replica {
    pub(super) fn receive(&mut self, mut message: Message) {
        self.hosting.heard(message.from);
        if self.hosting.is_witness(message.to) && message.from != self.options.node_id {
            return self.witness_hears(&message);
        }
        let is_ours = message.to == self.options.node_id && message.from != self.options.node_id;
        if !is_ours {
            return;
        }
        if let Some(mark) = &mut message.snapshot {
            self.configurations.comes_with_snapshot(mark);
        }
        self.hear(message);
        if self.node.raft.raft_log.unstable.snapshot.is_none() {
            self.configurations.no_snapshot_waits();
        }
    }

    /// What a voter says to this one, the witness in this node included.
    pub(super) fn hear(&mut self, message: Message) {
        if self.contradicts(&message) {
            return;
        }
        match message.kind {
            MessageKind::Heartbeat => self.hear_heartbeat(message),
            MessageKind::TimeoutNow => self.hear_that_it_shall_lead(message),
            MessageKind::DoubtEnded => self.doubt_ended(message.index),
            MessageKind::Conflict => {}
            MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse if !message.reject => {
                self.granted(message);
            }
            MessageKind::AppendResponse | MessageKind::HeartbeatResponse if self.leads_in(message.term) => {
                self.answered(message);
            }
            _ => self.hand_on(message),
        }
    }

    /// The crate hears it. It may have no use for it in this state, or not know the sender (any more).
    pub(super) fn hand_on(&mut self, message: Message) {
        let _ = self.node.step(convert::incoming(message));
    }

    pub(super) fn leads_in(&self, term: u64) -> bool {
        self.node.raft.state == StateRole::Leader && self.node.raft.term == term
    }

    /// What a leader says is committed it knows this node to have had. The crate would take its
    /// word for it, whatever stands there.
    fn hear_heartbeat(&mut self, mut message: Message) {
        let log = &self.node.raft.raft_log;
        let (committed, last) = (log.committed, log.last_index());
        let is_news = message.commit > committed && message.term >= self.node.raft.term;
        if !is_news {
            return self.hand_on(message);
        }
        let is_there = message.commit <= last
            && (message.commit_term == 0 || self.term_of(message.commit) == Some(message.commit_term));
        // An earlier version doesn't say which entry it means: in doubt that isn't enough.
        let is_sure = is_there && (message.commit_term != 0 || !self.is_in_doubt());
        if !is_there && self.installing.is_none() {
            self.begin_doubt(message.commit, last);
        }
        if !is_sure {
            message.commit = committed;
        }
        self.hand_on(message);
    }

    /// Its leader hands over.
    fn hear_that_it_shall_lead(&mut self, message: Message) {
        // While a snapshot is installed the log has no beginning; in doubt it leads only if all
        // others would have it so, which a hand-over doesn't ask.
        if self.installing.is_some() || self.is_in_doubt() {
            return;
        }
        if message.term == self.node.raft.term {
            self.invited_to = message.term + 1;
        }
        self.hand_on(message);
    }
}
