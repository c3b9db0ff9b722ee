//! What a peer has, and what it is to be sent next.
//!
//! ```text
//!           nothing was heard ─► Unknown ── its vector ─► At(index) ◄──────────────┐
//!                                   ▲                       │ entries from memory   │
//!     connection lost, no progress ─┘                       ├ older: Fetching ──────┘
//!                                                           └ cut: Behind ── takes over a state
//! ```
//!
//! One cursor goes through this node's log, in its order; what the peer has already is
//! left out. An entry that another node wrote is normally sent by that node: it is
//! relayed only if the peer still lacks it after a while, and what is behind it waits,
//! so that a peer never has an entry before those that its writer had seen.

use std::collections::{BTreeMap, VecDeque};

use super::listing::PROTOCOL_LISTS;
use super::vector::{Origin, Row, VersionVector};

/// How long an entry of another node's stream is left to that node, in ticks.
pub(super) const RELAY_TICKS: u64 = 3;
/// Without progress for so long, what was sent counts as lost.
pub(super) const STALL_TICKS: u64 = 60;
/// For so long a peer that is behind is left to others, in ticks, as long as it gets something of all it lacks.
pub(super) const BEHIND_TICKS: u64 = 20;
/// Bytes that may be on their way to a peer, what is remembered of them included.
pub(super) const WINDOW_BYTES: usize = 8 << 20;
/// So many places stay for what is sent next.
const SENT_KEPT: usize = 1_024;

/// Where the cursor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    /// The peer is to say first what it has.
    Unknown,
    /// This entry is next.
    At(u64),
    /// This entry is next, and is being read back.
    Fetching { number: u64, index: u64 },
    /// The log doesn't reach back to what it lacks.
    Behind,
}

/// A peer as this node knows it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// What is on its disk, as far as it has said so; `None`: nothing was heard.
    pub(super) vector: Option<VersionVector>,
    /// It has said so since the way to it was cut. Until then its process may be another one,
    /// on an older copy of its directory.
    is_fresh: bool,
    pub(super) cursor: Cursor,
    /// What was sent and is not known to be there, and when.
    sent: VecDeque<(Row, usize, u64)>,
    pub(super) sent_bytes: usize,
    /// Streams whose owners don't reach it, and up to where they were sent from here.
    relayed: BTreeMap<Origin, u64>,
    /// When it last had something new.
    pub(super) progress_tick: u64,
    /// When something was last heard of it.
    pub(super) heard_tick: u64,
    /// When it was last told to go back.
    pub(super) again_tick: Option<u64>,
    /// It is behind: when that was last looked at, and what it had then.
    behind: Option<(u64, VersionVector)>,
    /// The version of the protocol that is spoken with it; 0: it was not reached yet.
    pub(super) protocol: u32,
    /// It has said whom it takes for members, since this process began.
    pub(super) is_listed: bool,
    /// This node is among them.
    pub(super) names_this: bool,
}

impl Peer {
    pub(super) fn new() -> Peer {
        Peer {
            vector: None,
            is_fresh: false,
            cursor: Cursor::Unknown,
            sent: VecDeque::new(),
            sent_bytes: 0,
            relayed: BTreeMap::new(),
            progress_tick: 0,
            heard_tick: 0,
            again_tick: None,
            behind: None,
            protocol: 0,
            is_listed: false,
            names_this: false,
        }
    }

    /// Whether its version says no lists of members, and reads no reports.
    pub(super) fn is_of_earlier_version(&self) -> bool {
        (1..PROTOCOL_LISTS).contains(&self.protocol)
    }

    /// Whether what it has says all that its members mean for tombstones.
    pub(super) fn is_known(&self) -> bool {
        self.is_listed || self.protocol < PROTOCOL_LISTS
    }

    /// What it has, if it has said so since the way to it was cut.
    pub(super) fn fresh_vector(&self) -> Option<&VersionVector> {
        self.vector.as_ref().filter(|_| self.is_fresh)
    }

    pub(super) fn has(&self, row: &Row) -> bool {
        self.vector.as_ref().is_some_and(|vector| vector.sequence(row.origin) >= row.sequence)
    }

    /// It has said what it has. What it says on two lanes may overtake itself, so that
    /// in one process it never has less than before.
    pub(super) fn said(&mut self, mut vector: VersionVector, tick: u64) {
        if let Some(before) = self.vector.take_if(|_| self.is_fresh) {
            vector.merge(&before);
            if vector != before {
                self.progress_tick = tick;
            }
        }
        self.is_fresh = true;
        self.relayed.retain(|origin, sent| vector.sequence(*origin) <= *sent);
        self.vector = Some(vector);
        self.settle();
    }

    /// The way to it was cut.
    pub(super) fn cut_off(&mut self) {
        self.is_fresh = false;
        self.begin_again();
    }

    /// It has sent this entry, and so it has it.
    pub(super) fn wrote(&mut self, row: Row) {
        let Some(vector) = self.vector.as_mut().filter(|_| self.is_fresh) else { return };
        if vector.sequence(row.origin) + 1 == row.sequence {
            vector.raise(row);
        }
    }

    fn settle(&mut self) {
        while let Some((row, bytes, _)) = self.sent.front().copied()
            && self.has(&row)
        {
            self.sent.pop_front();
            self.sent_bytes -= bytes;
        }
        if self.sent.is_empty() {
            self.sent_bytes = 0;
            self.sent.shrink_to(SENT_KEPT);
        }
    }

    /// What is remembered of it, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let vector = self.vector.as_ref().map_or(0, VersionVector::memory_bytes);
        self.sent.capacity() * size_of::<(Row, usize, u64)>() + vector
    }

    pub(super) fn sends(&mut self, row: Row, bytes: usize, is_foreign: bool, tick: u64) {
        if self.sent.is_empty() {
            self.progress_tick = tick;
        }
        // Small ones cost more to remember than to send.
        let bytes = bytes + size_of::<(Row, usize, u64)>();
        self.sent.push_back((row, bytes, tick));
        self.sent_bytes += bytes;
        if is_foreign {
            self.relayed.insert(row.origin, row.sequence);
        }
    }

    /// Whether an entry of another node's stream, durable here since `since`, is to be relayed now.
    pub(super) fn relays(&self, origin: Origin, since: u64, tick: u64) -> bool {
        self.relayed.contains_key(&origin) || tick >= since + RELAY_TICKS
    }

    /// Whether it must be told that it needs a state, being sent entries only if it has all of
    /// this: not while it gets what it lacks from others.
    pub(super) fn is_stuck_behind(&mut self, must_have: &VersionVector, tick: u64) -> bool {
        let Some(vector) = self.vector.as_ref().filter(|_| self.is_fresh && self.cursor == Cursor::Behind)
        else {
            self.behind = None;
            return false;
        };
        let had = match &self.behind {
            Some((since, _)) if tick < since + BEHIND_TICKS => return false,
            Some((_, had)) => Some(had),
            None => None,
        };
        let lacks = |row: &&Row| vector.sequence(row.origin) < row.sequence;
        let stands = |had: &VersionVector, row: &Row| vector.sequence(row.origin) <= had.sequence(row.origin);
        let is_stuck =
            had.is_some_and(|had| must_have.rows().iter().filter(lacks).any(|row| stands(had, row)));
        self.behind = Some((tick, vector.clone()));
        is_stuck
    }

    /// What is on its way counts as lost.
    pub(super) fn begin_again(&mut self) {
        self.cursor = Cursor::Unknown;
        self.sent.clear();
        self.sent.shrink_to(SENT_KEPT);
        self.sent_bytes = 0;
    }

    /// Since when it has lacked the oldest of what was sent.
    pub(super) fn oldest_sent(&self) -> Option<u64> {
        self.sent.front().map(|(.., tick)| *tick)
    }

    /// Nothing came of what was sent for too long.
    pub(super) fn is_stalled(&self, tick: u64) -> bool {
        !self.sent.is_empty() && tick >= self.progress_tick + STALL_TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(rows: &[(Origin, u64)]) -> VersionVector {
        let mut vector = VersionVector::default();
        rows.iter().for_each(|(origin, sequence)| {
            vector.raise(Row { origin: *origin, sequence: *sequence, time: 1 })
        });
        vector
    }

    #[test]
    fn a_peer_is_stuck_behind_if_nobody_sends_it_something_of_all_it_lacks() {
        let must_have = has(&[(1, 10), (2, 10), (3, 10)]);
        let mut peer = Peer::new();
        peer.cursor = Cursor::Behind;
        peer.said(has(&[(1, 10), (2, 1), (3, 1)]), 1);
        assert!(!peer.is_stuck_behind(&must_have, 1), "it has only begun to be");
        assert!(!peer.is_stuck_behind(&must_have, BEHIND_TICKS));
        peer.said(has(&[(1, 10), (2, 2), (3, 2)]), BEHIND_TICKS);
        assert!(!peer.is_stuck_behind(&must_have, BEHIND_TICKS + 1), "it gets both");
        peer.said(has(&[(1, 10), (2, 3), (3, 2)]), BEHIND_TICKS + 1);
        assert!(!peer.is_stuck_behind(&must_have, BEHIND_TICKS + 2), "it was asked lately");
        assert!(peer.is_stuck_behind(&must_have, BEHIND_TICKS * 2 + 1), "nobody sends it the third one's");
        peer.said(has(&[(1, 10), (2, 10), (3, 10)]), BEHIND_TICKS * 3);
        assert!(!peer.is_stuck_behind(&must_have, BEHIND_TICKS * 3 + 1), "it has all");
        peer.cut_off();
        peer.cursor = Cursor::Behind;
        assert!(!peer.is_stuck_behind(&must_have, BEHIND_TICKS * 9), "it has said nothing since");
    }
}
