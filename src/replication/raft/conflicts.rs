//! Logs that contradict each other in what is committed. It can't be, unless disks have lost what
//! they had synced, or so many directories were set back that nobody had it any more. Who is
//! right nobody can tell: it is the follower that takes no more part, and a person that decides.
//!
//! The crate would answer such a leader as if all were well, or panic.

use super::effect::Effect;
use super::replica::Replica;
use crate::persistence::host_of;
use crate::replication::message::{LogEntry, Message, MessageKind};

impl Replica {
    /// Whether a message can't be true beside what is committed here; then it is not to be heard.
    pub(super) fn contradicts(&mut self, message: &Message) -> bool {
        let term = self.node.raft.term;
        match message.kind {
            MessageKind::Append | MessageKind::Snapshot if message.term >= term => {
                let found = self.committed_otherwise(message);
                found.is_some_and(|index| self.conflict(message, index))
            }
            MessageKind::Conflict if message.term == term && self.node.raft.leader_id == message.from => {
                let index = message.index + 1;
                self.conflict(message, index)
            }
            MessageKind::AppendResponse | MessageKind::HeartbeatResponse if self.leads_in(message.term) => {
                self.follower_has_more(message)
            }
            _ => false,
        }
    }

    fn conflict(&mut self, message: &Message, index: u64) -> bool {
        self.has_conflict = true;
        self.effects.push(Effect::Conflicts { with: message.from, index });
        true
    }

    /// The first entry up to the commit index that the leader has another one for.
    fn committed_otherwise(&self, message: &Message) -> Option<u64> {
        let log = &self.node.raft.raft_log;
        if self.installing.is_some() || log.unstable.snapshot.is_some() {
            return None;
        }
        let is_other = |index: u64, term: u64| {
            index <= log.committed && self.term_of(index).is_some_and(|own| own != term)
        };
        let (index, term) = match &message.snapshot {
            Some(mark) => (mark.index, mark.term),
            None => (message.index, message.log_term),
        };
        if is_other(index, term) {
            return Some(index);
        }
        // Of one term and place there is one entry; but a term that was forgotten may come twice.
        let differs = |entry: &&LogEntry| {
            is_other(entry.index, entry.term) || (entry.index <= log.committed && log.store.differs(entry))
        };
        message.entries.iter().find(differs).map(|entry| entry.index)
    }

    /// A follower has committed what this leader hasn't got.
    fn follower_has_more(&mut self, message: &Message) -> bool {
        let has = if message.reject { 0 } else { message.index };
        let (index, last) = (has.max(message.commit), self.node.raft.raft_log.last_index());
        if index <= last || self.node.raft.prs().get(message.from).is_none() {
            return false;
        }
        let node = host_of(message.from);
        self.effects.push(Effect::FollowerConflicts { node, index, last });
        let (me, term) = (self.options.node_id, self.node.raft.term);
        self.send_at_once(Message { index: last, ..Message::new(MessageKind::Conflict, me, node, term) });
        true
    }
}
