//! What a replica begins with, from what a recovery of its disk found.
//!
//! ```text
//!           snapshot's E          final              end of the log
//!   cut ─────────┼──────────────────┼──────────────────┤
//!    └─ terms of applied entries ───┘└─ the tail: may still be replaced
//! ```

use serde::{Deserialize, Serialize};

use super::message::{LogEntry, Members, SnapshotMark};
use super::raft::{HardState, Start};
use crate::persistence::EntryPlaces;

/// What a member's snapshot says of its last entry, beside the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// The term of the last entry that it holds.
    pub term: u64,
    /// It came from a leader, and the log may not have begun anew behind it yet.
    pub installed: bool,
}

impl SnapshotState {
    /// The bytes for a snapshot's trailer.
    pub fn encode(&self) -> Vec<u8> {
        format!(r#"{{"term":{},"installed":{}}}"#, self.term, self.installed).into_bytes()
    }

    /// Reads what [`SnapshotState::encode`] wrote; `None` for that of a node on its own.
    pub fn decode(bytes: &[u8]) -> Option<SnapshotState> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Whether the log must begin anew behind an installed snapshot: a crash came
/// between the two. All that the snapshot holds was committed, so that it is
/// right whatever the log has.
pub fn must_restart(places: &EntryPlaces, mark: &SnapshotMark) -> bool {
    places.next_index() <= mark.index || places.term(mark.index).is_some_and(|term| term != mark.term)
}

/// Index and term of the entry before the first retained one, or of one that
/// may stand for it: Raft must know that term. `mark` is the newest snapshot's.
pub fn cut_of(places: &EntryPlaces, mark: &SnapshotMark) -> (u64, u64) {
    let before = places.first_index() - 1;
    if before == 0 {
        return (0, 0);
    }
    if before == mark.index {
        return (mark.index, mark.term);
    }
    match places.term(before) {
        Some(term) => (before, term),
        None => (before + 1, places.term(before + 1).unwrap_or(mark.term)),
    }
}

/// What the replica begins with: `applied` is the last entry in the state,
/// `tail` all behind it.
pub fn start(
    places: &EntryPlaces,
    mark: &SnapshotMark,
    hard_state: HardState,
    members: Members,
    applied: u64,
    tail: Vec<LogEntry>,
) -> Start {
    let cut = cut_of(places, mark);
    let terms = (cut.0 + 1..=applied).map(|index| places.term(index).unwrap_or(mark.term)).collect();
    Start { hard_state, members, cut, applied: terms, tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_s_state_comes_back_and_that_of_a_node_on_its_own_is_none() {
        for installed in [false, true] {
            let state = SnapshotState { term: u64::MAX, installed };
            assert_eq!(SnapshotState::decode(&state.encode()), Some(state));
        }
        assert_eq!(SnapshotState::decode(b""), None);
    }

    #[test]
    fn a_log_that_ends_before_an_installed_snapshot_must_begin_anew() {
        let mark = |index| SnapshotMark { index, term: 3, members: Members::default() };
        let places = EntryPlaces::new(11, Some(3));
        assert!(!must_restart(&places, &mark(10)));
        assert!(must_restart(&places, &mark(11)));
        assert!(must_restart(&EntryPlaces::new(11, Some(2)), &mark(10)), "another entry stands there");
        assert_eq!(cut_of(&places, &mark(4)), (10, 3));
        assert_eq!(cut_of(&EntryPlaces::new(11, None), &mark(10)), (10, 3));
        assert_eq!(cut_of(&EntryPlaces::new(1, None), &mark(0)), (0, 0));
    }
}
