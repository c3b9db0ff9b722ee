//! Directories that may be older copies of themselves: what a node in doubt may do.
//!
//! A node that was set back, by a restored backup for example, has forgotten promises: votes
//! that it gave, entries that it said were on its disk. What was decided by them stands, and
//! it would help to decide otherwise. So it is **in doubt**, and knows it from its
//! directory's mark, or from a leader's word that it had more than it has:
//!
//! ```text
//!   the directory is a copy ─┐                                    its leader says that it has ended
//!                            ├─► in doubt, on the disk ───────────────────────────────► as any other
//!   its leader knows it to ──┘     │ each answer of its carries the doubt's number
//!   have had more than it has      ▼
//!                              leader: a new doubt ─► looks anew where the logs agree
//!                                                  ─► appends an entry, the *proof*
//!                                                     committed by a quorum, and on that node's disk: ended
//! ```
//!
//! # What counts meanwhile
//!
//! In elections, commits, rounds of reads and a leader's check that it is heard, what
//! [`super::quorum`] says. The Raft crate counts majorities, which is less. So what a voter in
//! doubt says is held back until a quorum says it, and handed on then: its vote, its answer to
//! a round, its acknowledgement. Of that the part up to the commit index is free, since it
//! decides nothing.
//!
//! # Why the proof ends it
//!
//! What a node promised before it was set back, in a term after its leader's, could still come
//! to count: a candidate may hold its vote, a leader its acknowledgement. Neither decides by
//! itself, it needs a quorum; and each quorum has a voter that has put the proof on its disk,
//! in the leader's term, after the node was set back. That voter had not yet entered the later
//! term then, and from then on votes only for those that have the proof. But who asked before
//! the node was set back hasn't. What the node promised in earlier terms the leader's own
//! election is held to. And whatever was committed the leader has: so has the node, when the
//! proof is on its disk.
//!
//! A leader in doubt is no exception: the first entry of its term is its proof, and needs a
//! quorum without it, or all.
//!
//! # Numbers
//!
//! A doubt's number is drawn when it begins, and at each start that finds it on the disk. A
//! node that is set back again, or once more while it is in doubt, comes with another number,
//! and its leader begins anew. What comes *without* a number from a node whose doubt has not
//! ended was said before that began: only what is free of it counts.
//!
//! # Terms
//!
//! A leader that only the votes of all make one, or that is in doubt itself, takes its term from
//! far ahead ([`TERM_GAP`]). Where so many were set back that all are needed, terms may have
//! been led and forgotten; an entry of one, on a disk that wasn't asked, must not pass for
//! another one of the same place and term.
//!
//! # Earlier versions
//!
//! A peer that can't read the doubt would count what it is told. It is told only what counts
//! for nothing ([`for_earlier`]).

use super::message::{Message, MessageKind};

/// A term is taken from at least so far ahead, and less than twice that: more than there are
/// elections since any copy was made.
pub const TERM_GAP: u64 = 1 << 20;

/// How a node stands to its own log; each tells its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// As it should be.
    #[default]
    Well,
    /// It may be an older copy of itself.
    InDoubt,
    /// It has committed what its leader hasn't, and takes no part.
    Conflicting,
}

/// Whether a message promises something, or lets its receiver count the sender.
pub fn is_answer(kind: MessageKind) -> bool {
    matches!(
        kind,
        MessageKind::AppendResponse
            | MessageKind::HeartbeatResponse
            | MessageKind::RequestVoteResponse
            | MessageKind::RequestPreVoteResponse
    )
}

/// What of an answer counts for nothing, whoever gives it: that the sender is there, and has
/// what is committed up to `commit` anyway.
pub fn without_weight(message: Message, commit: u64) -> Message {
    let index = if message.reject { message.index } else { message.index.min(commit) };
    let context = if message.kind == MessageKind::HeartbeatResponse { "".into() } else { message.context };
    Message { index, context, doubt: 0, ..message }
}

/// The message for a peer that speaks a version before [`super::protocol::PROTOCOL_DOUBT`];
/// `None`: it is not for such a peer.
pub fn for_earlier(message: Message) -> Option<Message> {
    match message.kind {
        MessageKind::DoubtEnded | MessageKind::Conflict => None,
        _ if message.doubt == 0 => Some(message),
        MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse if !message.reject => None,
        _ => {
            let commit = message.commit;
            Some(without_weight(message, commit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: MessageKind, doubt: u64) -> Message {
        let context = "round".into();
        Message { doubt, index: 40, commit: 30, context, ..Message::new(kind, 2, 1, 5) }
    }

    #[test]
    fn an_earlier_version_hears_nothing_that_it_would_count() {
        for kind in [MessageKind::RequestVoteResponse, MessageKind::RequestPreVoteResponse] {
            assert_eq!(for_earlier(answer(kind, 7)), None);
            assert!(for_earlier(answer(kind, 0)).is_some());
            let refused = for_earlier(Message { reject: true, ..answer(kind, 7) }).unwrap();
            assert_eq!((refused.reject, refused.doubt), (true, 0));
        }
        let has = for_earlier(answer(MessageKind::AppendResponse, 7)).unwrap();
        assert_eq!((has.index, has.doubt), (30, 0), "what is committed it may say");
        let lacks = for_earlier(Message { reject: true, ..answer(MessageKind::AppendResponse, 7) }).unwrap();
        assert_eq!(lacks.index, 40, "where the logs part");
        let heard = for_earlier(answer(MessageKind::HeartbeatResponse, 7)).unwrap();
        assert!(heard.context.is_empty(), "no round counts it");
        for kind in [MessageKind::DoubtEnded, MessageKind::Conflict] {
            assert_eq!(for_earlier(answer(kind, 0)), None);
        }
        let plain = answer(MessageKind::HeartbeatResponse, 0);
        assert_eq!(for_earlier(plain.clone()), Some(plain));
    }
}
