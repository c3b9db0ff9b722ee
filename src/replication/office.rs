//! When a node's writes count: terms of office, and what was proposed in one.
//!
//! ```text
//!  elected      own term's first entry handed over           leads no more, or in another term
//!     │                     │                                            │
//!  ───┴─────────────────────┼── office n ── writes, conditions ──────────┼─── office n + 1 ───
//!      earlier leaders'     │                                            │  in flight: unknown
//!      entries are applied  ▼ begins                                     ▼ ends
//! ```
//!
//! A leader that has handed over an entry of its own term has handed over all
//! that its predecessors committed: only then may a condition be looked at, or a
//! write be taken. Each change has a number, which stands on what is appended: a
//! write whose condition was looked at in one office is never proposed in
//! another, since entries of another leader may lie between.
//!
//! When an office ends, nobody knows what becomes of its proposals. They are
//! forgotten here, and whatever is committed comes back as an entry like any
//! other. An entry is known as one's own by index *and* term: another leader's
//! may stand at the same index.

use std::collections::BTreeMap;

use super::raft::{Role, RoleChange};

/// What was proposed, and what must happen when it is committed.
#[derive(Debug)]
struct Proposal<A> {
    term: u64,
    bytes: usize,
    acknowledgement: A,
}

/// A node's offices. `A` is what a proposal's commit lets happen.
#[derive(Debug)]
pub struct Office<A> {
    number: u64,
    /// Of the office under way.
    term: Option<u64>,
    /// By the entry's index.
    proposals: BTreeMap<u64, Proposal<A>>,
    uncommitted_bytes: usize,
}

impl<A> Default for Office<A> {
    fn default() -> Self {
        Office { number: 0, term: None, proposals: BTreeMap::new(), uncommitted_bytes: 0 }
    }
}

impl<A> Office<A> {
    /// Stands on what is appended now.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether writes are taken.
    pub fn is_held(&self) -> bool {
        self.term.is_some()
    }

    /// Bytes proposed in this office and not committed yet.
    pub fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Role, leader or term have changed. Says whether an office ended by it.
    pub fn role_changed(&mut self, change: &RoleChange) -> bool {
        let goes_on = change.role == Role::Leader && self.term == Some(change.term);
        let ends = self.term.is_some() && !goes_on;
        if ends {
            self.end();
        }
        ends
    }

    /// No more writes: all that was proposed is unknown from now on.
    pub fn end(&mut self) {
        self.number += 1;
        self.term = None;
        self.proposals.clear();
        self.uncommitted_bytes = 0;
    }

    /// A proposal has its place in the log.
    pub fn proposed(&mut self, index: u64, term: u64, bytes: usize, acknowledgement: A) {
        self.uncommitted_bytes += bytes;
        self.proposals.insert(index, Proposal { term, bytes, acknowledgement });
    }

    /// An entry is committed: what it lets happen, if it is a proposal of this office.
    ///
    /// # Panics
    ///
    /// If another leader's entry stands where this office proposed one: the
    /// office should have ended before.
    pub fn committed(&mut self, index: u64, term: u64) -> Option<A> {
        let Proposal { term: proposed, bytes, acknowledgement } = self.proposals.remove(&index)?;
        assert_eq!(proposed, term, "an office outlived its term at entry {index}");
        self.uncommitted_bytes -= bytes;
        Some(acknowledgement)
    }

    /// An entry of this term was handed over for applying. Says whether an office begins with it.
    pub fn handed_over(&mut self, entry_term: u64, role: &RoleChange) -> bool {
        let begins = self.term.is_none() && role.role == Role::Leader && role.term == entry_term;
        if begins {
            self.number += 1;
            self.term = Some(entry_term);
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(role: Role, term: u64) -> RoleChange {
        RoleChange { role, leader: None, term }
    }

    #[test]
    fn an_office_begins_with_an_entry_of_its_own_term_and_not_with_the_election() {
        let mut office: Office<()> = Office::default();
        let leads = role(Role::Leader, 5);
        assert!(!office.role_changed(&leads) && !office.is_held());
        assert!(!office.handed_over(4, &leads), "an entry of a predecessor's");
        assert!(office.handed_over(5, &leads) && office.is_held());
        assert!(!office.handed_over(5, &leads), "once");
        assert!(!Office::<()>::default().handed_over(5, &role(Role::Follower, 5)));
    }

    #[test]
    fn an_office_ends_with_its_term_and_forgets_its_proposals() {
        let mut office = Office::default();
        office.handed_over(5, &role(Role::Leader, 5));
        let first = office.number();
        office.proposed(10, 5, 100, "a");
        office.proposed(11, 5, 100, "b");
        assert_eq!((office.committed(10, 5), office.uncommitted_bytes()), (Some("a"), 100));
        assert!(!office.role_changed(&role(Role::Leader, 5)));
        assert!(office.role_changed(&role(Role::Leader, 7)), "elected anew: others may have led between");
        assert_eq!((office.committed(11, 7), office.uncommitted_bytes()), (None, 0));
        assert!(office.number() > first);
    }

    #[test]
    #[should_panic(expected = "outlived its term")]
    fn another_leader_s_entry_is_never_taken_for_one_s_own() {
        let mut office = Office::default();
        office.handed_over(5, &role(Role::Leader, 5));
        office.proposed(10, 5, 1, ());
        office.committed(10, 6);
    }
}
