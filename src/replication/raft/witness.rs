//! The third voter of a cluster of two nodes: it has a term and a vote, and for a
//! log its host's.
//!
//! ```text
//!   leader ── append ──► host ── durable ──► host's answer ──► leader
//!          ── append ──► (dropped)      └──► the same in the witness' name
//!          ── heartbeat, votes ────────────► witness ──► its own answer
//! ```
//!
//! Whatever its host has on its disk, it has. It acknowledges what its host
//! acknowledges, and asks of a candidate that it have what its host has. That is
//! safe although the host follows an append that the witness, in a later term,
//! would not have taken: what the witness has acknowledged was on its host's disk
//! in that term or before, so that only a leader may replace it who may replace it
//! on every voter. Having more than it has acknowledged only makes it stricter.
//!
//! It never campaigns: a leader without data would be none. So `TimeoutNow` isn't
//! for it, and its clock only says whether it may vote against a leader that it
//! has heard of.

use super::hard_state::HardState;
use crate::replication::message::{Message, MessageKind, NodeId};

/// What a candidate says that its leader asked to campaign; the crate's word.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// A vote beside the host's own.
#[derive(Debug)]
pub(super) struct Witness {
    pub id: NodeId,
    election_ticks: usize,
    pub term: u64,
    pub vote: u64,
    /// The term that is on the disk.
    pub durable_term: u64,
    pub leader: Option<NodeId>,
    /// Ticks since it heard of a leader, or voted.
    elapsed: usize,
    /// Term or vote are not what was last ordered to be written.
    pub is_dirty: bool,
    /// The last entry that it has acknowledged to its host, in this term.
    pub acknowledged: u64,
}

impl Witness {
    /// As the disk has it.
    pub fn new(id: NodeId, election_ticks: usize, hard_state: &HardState) -> Witness {
        Witness {
            id,
            election_ticks,
            term: hard_state.witness_term,
            vote: hard_state.witness_vote,
            durable_term: hard_state.witness_term,
            leader: None,
            elapsed: 0,
            is_dirty: false,
            acknowledged: 0,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        self.elapsed = self.elapsed.saturating_add(1);
    }

    fn enter(&mut self, term: u64, leader: Option<NodeId>) {
        self.term = term;
        self.vote = 0;
        self.leader = leader;
        self.elapsed = 0;
        self.is_dirty = true;
        self.acknowledged = 0;
    }

    /// What it answers. `log_end`: term and index of its host's last entry.
    pub fn hear(&mut self, message: &Message, log_end: (u64, u64)) -> Option<Message> {
        use MessageKind::{Append, Heartbeat, RequestPreVote, RequestVote, Snapshot};
        let kind = message.kind;
        let is_vote = matches!(kind, RequestVote | RequestPreVote);
        let is_leader_s = matches!(kind, Append | Heartbeat | Snapshot);
        if message.term > self.term {
            let in_lease = self.leader.is_some() && self.elapsed < self.election_ticks;
            if is_vote && in_lease && message.context != CAMPAIGN_TRANSFER {
                return None;
            }
            if kind != RequestPreVote {
                self.enter(message.term, is_leader_s.then_some(message.from));
            }
        } else if message.term < self.term {
            // A leader, or who would be one, learns that it is late.
            return match kind {
                Append | Heartbeat => Some(self.answer(message, MessageKind::AppendResponse)),
                RequestPreVote => {
                    let refusal = self.answer(message, MessageKind::RequestPreVoteResponse);
                    Some(Message { reject: true, ..refusal })
                }
                _ => None,
            };
        }
        if is_vote {
            return Some(self.vote(message, log_end));
        }
        if !is_leader_s {
            return None;
        }
        self.leader = Some(message.from);
        self.elapsed = 0;
        (kind == Heartbeat).then(|| Message {
            context: message.context.clone(),
            ..self.answer(message, MessageKind::HeartbeatResponse)
        })
    }

    fn vote(&mut self, message: &Message, log_end: (u64, u64)) -> Message {
        let is_pre_vote = message.kind == MessageKind::RequestPreVote;
        let kind =
            if is_pre_vote { MessageKind::RequestPreVoteResponse } else { MessageKind::RequestVoteResponse };
        let may_vote = self.vote == message.from
            || (self.vote == 0 && self.leader.is_none())
            || (is_pre_vote && message.term > self.term);
        if !may_vote || (message.log_term, message.index) < log_end {
            return Message { reject: true, ..self.answer(message, kind) };
        }
        if !is_pre_vote {
            self.is_dirty |= self.vote != message.from;
            self.vote = message.from;
            self.elapsed = 0;
        }
        Message { term: message.term, ..self.answer(message, kind) }
    }

    fn answer(&self, message: &Message, kind: MessageKind) -> Message {
        Message::new(kind, self.id, message.from, self.term)
    }

    /// Its host acknowledges entries to a leader: so does the witness, unless it is
    /// in a later term.
    pub fn acknowledges(&mut self, host_s: &Message) -> Option<Message> {
        if host_s.kind != MessageKind::AppendResponse || host_s.reject || host_s.index == 0 {
            return None;
        }
        if host_s.term < self.term {
            return None;
        }
        if host_s.term > self.term {
            self.enter(host_s.term, Some(host_s.to));
        }
        Some(Message { from: self.id, ..host_s.clone() })
    }

    /// Acknowledges its host's own entries, up to `durable` of term `term`, once its
    /// own term is durable, too.
    pub fn acknowledges_host(&mut self, host: NodeId, term: u64, durable: u64) -> Option<Message> {
        let follows = self.leader == Some(host) && self.term == term && self.durable_term == term;
        if !follows || durable <= self.acknowledged {
            return None;
        }
        self.acknowledged = durable;
        let acknowledgement = Message::new(MessageKind::AppendResponse, self.id, host, term);
        Some(Message { index: durable, ..acknowledgement })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::witness_in;

    const LOG_END: (u64, u64) = (3, 40);

    fn witness() -> Witness {
        let hard_state = HardState { witness_term: 3, witness_vote: 1, ..HardState::default() };
        Witness::new(witness_in(2), 10, &hard_state)
    }

    fn from(kind: MessageKind, from: NodeId, term: u64) -> Message {
        Message::new(kind, from, witness_in(2), term)
    }

    fn asks(candidate: NodeId, term: u64, (log_term, index): (u64, u64)) -> Message {
        Message { log_term, index, ..from(MessageKind::RequestVote, candidate, term) }
    }

    #[test]
    fn it_votes_once_a_term_and_for_no_log_that_lacks_what_its_host_has() {
        let mut witness = witness();
        assert!(witness.hear(&asks(2, 3, LOG_END), LOG_END).unwrap().reject, "it voted for node 1");
        assert!(!witness.hear(&asks(1, 3, LOG_END), LOG_END).unwrap().reject, "asked again");
        assert!(!witness.is_dirty);
        for lacking in [(3, 39), (2, 90)] {
            assert!(witness.hear(&asks(2, 4, lacking), LOG_END).unwrap().reject);
        }
        let granted = witness.hear(&asks(2, 4, (3, 41)), LOG_END).unwrap();
        assert!(!granted.reject && witness.is_dirty && (witness.term, witness.vote) == (4, 2));
        assert!(witness.hear(&asks(1, 4, (3, 99)), LOG_END).unwrap().reject);
    }

    #[test]
    fn who_has_heard_of_a_leader_keeps_it() {
        let mut witness = witness();
        let answer = witness.hear(&from(MessageKind::Heartbeat, 1, 3), LOG_END).unwrap();
        assert_eq!((answer.kind, answer.to, answer.term), (MessageKind::HeartbeatResponse, 1, 3));
        assert_eq!(witness.hear(&asks(2, 4, LOG_END), LOG_END), None);
        let invited = Message { context: CAMPAIGN_TRANSFER.into(), ..asks(2, 4, LOG_END) };
        assert!(!witness.hear(&invited, LOG_END).unwrap().reject, "its leader wants it so");
        assert_eq!(witness.hear(&from(MessageKind::TimeoutNow, 1, 4), LOG_END), None);
        (0..10).for_each(|_| witness.tick());
        assert!(!witness.hear(&asks(1, 5, LOG_END), LOG_END).unwrap().reject);
    }

    #[test]
    fn a_pre_vote_changes_nothing() {
        let mut witness = witness();
        let asked = Message { kind: MessageKind::RequestPreVote, ..asks(2, 4, LOG_END) };
        let answer = witness.hear(&asked, LOG_END).unwrap();
        assert_eq!(
            (answer.kind, answer.reject, answer.term),
            (MessageKind::RequestPreVoteResponse, false, 4)
        );
        assert_eq!((witness.term, witness.vote, witness.is_dirty), (3, 1, false));
        let late = witness.hear(&Message { term: 2, ..asked }, LOG_END).unwrap();
        assert_eq!((late.reject, late.term), (true, 3));
    }

    #[test]
    fn it_acknowledges_what_its_host_does_and_never_for_an_earlier_term() {
        let mut witness = witness();
        let host_s = |term| Message { index: 41, ..Message::new(MessageKind::AppendResponse, 2, 1, term) };
        let copy = witness.acknowledges(&host_s(3)).unwrap();
        assert_eq!((copy.from, copy.to, copy.index), (witness_in(2), 1, 41));
        assert_eq!(witness.acknowledges(&host_s(2)), None);
        assert_eq!(witness.acknowledges(&Message { reject: true, ..host_s(3) }), None);
        assert!(witness.acknowledges(&host_s(5)).is_some() && witness.is_dirty && witness.term == 5);
    }

    #[test]
    fn its_host_s_own_entries_wait_for_its_term() {
        let mut witness = witness();
        witness.hear(&from(MessageKind::Append, 2, 4), LOG_END);
        assert_eq!(witness.acknowledges_host(2, 4, 50), None, "term 4 is not on the disk");
        witness.durable_term = 4;
        assert_eq!(witness.acknowledges_host(2, 4, 50).map(|message| message.index), Some(50));
        assert_eq!(witness.acknowledges_host(2, 4, 50), None, "once");
        assert_eq!(witness.acknowledges_host(2, 5, 51), None, "another term");
    }
}
