//! What a replica begins with, from what a recovery of its disk found.
//!
//! ```text
//!           snapshot's E          final              end of the log
//!   cut ─────────┼──────────────────┼──────────────────┤
//!    └─ terms of applied entries ───┘└─ the tail: may still be replaced
//! ```

use serde::{Deserialize, Serialize};

use super::message::{LogEntry, SnapshotMark};
use super::raft::{HardState, Start, StartMembers};
use crate::persistence::{Configuration, EntryPlaces, Membership};

/// What a member's snapshot says of its last entry, beside the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// The term of the last entry that it holds.
    pub term: u64,
    /// It came from a leader, and the log may not have begun anew behind it yet.
    pub installed: bool,
    /// The members as of that entry; `None`: those that the cluster was founded with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
}

impl SnapshotState {
    /// Of this entry, where these are the members.
    pub fn new(term: u64, installed: bool, configuration: &Configuration) -> SnapshotState {
        let configuration = Some(configuration).filter(|made| made.index > 0).cloned();
        SnapshotState { term, installed, configuration }
    }

    /// The bytes for a snapshot's trailer.
    pub fn encode(&self) -> Vec<u8> {
        // Writing plain fields into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
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

/// The members as of `applied`: as the last entry up to there says that names
/// any, or the snapshot before it, or as the cluster was founded, or forced.
/// `entries`: those that name members, behind the snapshot's S.
pub fn configuration(
    membership: &Membership,
    mark: &SnapshotMark,
    entries: &[Configuration],
    applied: u64,
) -> Configuration {
    let by_entry = entries.iter().filter(|entry| entry.index > mark.index && entry.index <= applied);
    let by_snapshot = Some(&mark.configuration).filter(|made| made.index > 0);
    let made = by_entry.chain(by_snapshot).filter(|made| !membership.is_forced_past(made.index));
    made.max_by_key(|made| made.index).unwrap_or(&membership.base).clone()
}

/// More terms than a cluster ever has between two times that its voters are set by force.
pub const EPOCH_TERMS: u64 = 1 << 32;

/// Whom the replica begins with, where `configuration` is what its log says of it.
/// The membership may know better: a node that is taken in again reads in the log
/// what it was before, and must not be that once more.
///
/// Each time the voters are set by force the terms begin anew, far ahead: the other side
/// may go on for a while, and an entry that a node has of it must not pass for one of the
/// same place and term of the side that was kept.
pub fn members(membership: &Membership, configuration: Configuration) -> StartMembers {
    let told = &membership.configuration;
    let is_later = told.index > configuration.index && !membership.is_forced_past(told.index);
    let configuration = if is_later { told.clone() } else { configuration };
    let forced_through = membership.forced.as_ref().and_then(|forced| forced.through).unwrap_or(0);
    let term_least = membership.epochs.len() as u64 * EPOCH_TERMS;
    StartMembers { configuration, base: membership.base.clone(), forced_through, term_least }
}

/// Whether this node has applied what a log that was forced hasn't: it can't go on with
/// that log. `term` is that of the entry `applied`.
pub fn has_diverged(membership: &Membership, applied: u64, term: u64) -> bool {
    let Some(forced) = membership.forced.as_ref().filter(|_| !membership.epochs.is_empty()) else {
        return false;
    };
    let is_of_before = term < membership.epochs.len() as u64 * EPOCH_TERMS;
    applied > 0 && is_of_before && !forced.has(applied, term)
}

/// What the replica begins with: `applied` is the last entry in the state,
/// `tail` all behind it.
pub fn start(
    places: &EntryPlaces,
    mark: &SnapshotMark,
    hard_state: HardState,
    members: StartMembers,
    applied: u64,
    tail: Vec<LogEntry>,
) -> Start {
    let cut = cut_of(places, mark);
    let terms = (cut.0 + 1..=applied).map(|index| places.term(index).unwrap_or(mark.term)).collect();
    Start { hard_state, members, cut, applied: terms, tail, in_doubt: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_s_state_comes_back_and_that_of_a_node_on_its_own_is_none() {
        for installed in [false, true] {
            let state = SnapshotState { term: u64::MAX, installed, configuration: None };
            assert_eq!(
                state.encode(),
                format!(r#"{{"term":{},"installed":{installed}}}"#, u64::MAX).as_bytes()
            );
            assert_eq!(SnapshotState::decode(&state.encode()), Some(state));
        }
        assert_eq!(SnapshotState::decode(b""), None);
    }

    #[test]
    fn a_log_that_ends_before_an_installed_snapshot_must_begin_anew() {
        let mark = |index| SnapshotMark { index, term: 3, ..SnapshotMark::default() };
        let places = EntryPlaces::new(11, Some(3));
        assert!(!must_restart(&places, &mark(10)));
        assert!(must_restart(&places, &mark(11)));
        assert!(must_restart(&EntryPlaces::new(11, Some(2)), &mark(10)), "another entry stands there");
        assert_eq!(cut_of(&places, &mark(4)), (10, 3));
        assert_eq!(cut_of(&EntryPlaces::new(11, None), &mark(10)), (10, 3));
        assert_eq!(cut_of(&EntryPlaces::new(1, None), &mark(0)), (0, 0));
    }

    #[test]
    fn who_was_taken_in_again_is_what_it_was_told_and_not_what_its_log_says() {
        let of = |index| Configuration { index, ..Configuration::default() };
        let mut membership = Membership::new("c".into(), 1, vec![]);
        membership.configuration.index = 9;
        assert_eq!(members(&membership, of(5)).configuration.index, 9);
        assert_eq!(members(&membership, of(12)).configuration.index, 12, "the file lags");
        assert_eq!(members(&membership, of(12)).term_least, 0);
        membership.epochs.push("f".into());
        assert_eq!(
            members(&membership, of(12)).term_least,
            1 << 32,
            "terms of a side that was left are none of these"
        );
    }

    #[test]
    fn entries_of_before_a_force_must_be_in_the_log_that_was_kept() {
        let mut membership = Membership::new("c".into(), 1, vec![]);
        membership.forced =
            Some(crate::persistence::Forced { through: Some(70), committed: 30, terms: vec![(31, 3)] });
        assert!(!has_diverged(&membership, 99, 3), "a node that was on its own");
        membership.epochs.push("f".into());
        assert!(!has_diverged(&membership, 30, 2) && !has_diverged(&membership, 70, 3));
        assert!(has_diverged(&membership, 71, 3) && has_diverged(&membership, 40, 2));
        assert!(!has_diverged(&membership, 90, EPOCH_TERMS + 4), "written since");
    }

    #[test]
    fn the_last_word_on_the_members_counts_and_force_overrules_what_was_before_it() {
        let of = |index, voters: &[u64]| {
            let members = crate::persistence::Members { voters: voters.to_vec(), ..Default::default() };
            Configuration { index, members, ..Configuration::default() }
        };
        let mut membership = Membership::new("c".into(), 1, vec![]);
        membership.base = of(0, &[1]);
        let mark = SnapshotMark { index: 20, term: 3, configuration: of(10, &[1, 2]) };
        let entries = [of(15, &[9]), of(30, &[1, 2, 3]), of(40, &[1, 2, 3, 4])];
        let voters = |membership: &Membership, mark: &SnapshotMark, applied| {
            configuration(membership, mark, &entries, applied).members.voters
        };
        assert_eq!(voters(&membership, &mark, 25), [1, 2], "what is in the snapshot was before it");
        assert_eq!(voters(&membership, &mark, 39), [1, 2, 3], "entry 40 isn't committed");
        assert_eq!(voters(&membership, &SnapshotMark::default(), 5), [1]);
        membership.forced =
            Some(crate::persistence::Forced { through: Some(39), committed: 0, terms: vec![] });
        assert_eq!(voters(&membership, &mark, 39), [1]);
        assert_eq!(voters(&membership, &mark, 40), [1, 2, 3, 4], "decided since");
    }
}
