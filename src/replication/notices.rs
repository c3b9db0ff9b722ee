//! What a member's shards are told of the log, in which order.
//!
//! ```text
//! Commit ─┬─ own proposal of this office ─► Committed: the shards know the writes by number
//!         ├─ any other entry ─────────────► Logged: its payload, for every shard
//!         └─ first of the own term ───────► Office begins, behind all that was before it
//! Role ───── leads no more ───────────────► Office ended: all in flight is answered
//! ```
//!
//! Each shard hears its notices in this order, whoever else speaks to it in
//! between: that is what makes an entry's place in the log the order in which
//! every shard applies it, and the beginning of an office the first moment at
//! which a shard has all that earlier leaders committed.

use bytes::Bytes;

use super::group::{Acknowledgement, Group, numbered};
use super::message::{EntryKind, LogEntry};
use super::office::Office;
use super::raft::RoleChange;
use crate::engine::{Placement, Requests, Slice};
use crate::error::{Code, Error};

/// A change of office: see `office.rs`.
#[derive(Clone, Debug, PartialEq)]
pub struct OfficeNotice {
    /// Stands on what is appended from now on.
    pub number: u64,
    /// What clients are told whose writes are in flight; `None`: an office begins.
    pub ended: Option<Error>,
}

/// What one shard is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// These writes of its own are in the log.
    Committed {
        /// The entry.
        index: u64,
        /// Its number for each, and the ordinal of the request.
        writes: Vec<(u32, u32)>,
    },
    /// These writes of its own never will be, or (see the error's outcome) may not be.
    Refused {
        /// Its numbers for them.
        writes: Vec<u32>,
        /// What their clients are told.
        error: Error,
    },
    /// Entries that aren't this node's own writes: index and payload, in the log's order.
    Logged(Vec<(u64, Bytes)>),
    /// An office begins or ends.
    Office(OfficeNotice),
    /// Everything up to this entry was told: how does the state hash?
    StateHash(u64),
}

/// Proposals on their way, and what shards are to be told.
pub struct Notices {
    shards: usize,
    hash_is_due: fn(u64) -> bool,
    office: Office<Vec<Acknowledgement>>,
    /// Proposed, and not known to have a place yet.
    proposing: Option<(usize, Vec<Acknowledgement>)>,
    handed_over: u64,
    logged: Vec<(u64, Bytes)>,
    told: Vec<(usize, Notice)>,
}

impl Notices {
    /// For so many shards, which have everything up to `handed_over`. They are
    /// asked for their hashes behind each entry for which `hash_is_due`.
    pub fn new(shards: usize, handed_over: u64, hash_is_due: fn(u64) -> bool) -> Notices {
        Notices {
            shards,
            hash_is_due,
            office: Office::default(),
            proposing: None,
            handed_over,
            logged: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Takes what is to be told now: to which shard, and what.
    pub fn take(&mut self) -> Vec<(usize, Notice)> {
        std::mem::take(&mut self.told)
    }

    /// The office in which writes count now.
    pub fn office(&self) -> u64 {
        self.office.number()
    }

    /// Whether writes are taken.
    pub fn is_in_office(&self) -> bool {
        self.office.is_held()
    }

    /// Bytes proposed in this office and not committed yet.
    pub fn uncommitted_bytes(&self) -> usize {
        self.office.uncommitted_bytes()
    }

    /// The last entry of which the shards are told.
    pub fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// A group is proposed as one entry: gives its payload.
    pub fn proposing(&mut self, group: Group) -> Bytes {
        let payload = group.payload();
        self.proposing = Some((payload.len(), group.acknowledgements));
        payload.into()
    }

    /// It has its place in the log.
    pub fn proposed(&mut self, index: u64, term: u64) {
        if let Some((bytes, acknowledgements)) = self.proposing.take() {
            self.office.proposed(index, term, bytes, acknowledgements);
        }
    }

    /// It was not taken, and never happens.
    pub fn dropped(&mut self, error: &Error) {
        let Some((_, acknowledgements)) = self.proposing.take() else { return };
        for (shard, writes) in numbered(acknowledgements, self.shards).into_iter().enumerate() {
            self.refuse(shard, writes.into_iter().map(|(write, _)| write).collect(), error);
        }
    }

    /// These writes of a shard's are let go.
    pub fn refuse(&mut self, shard: usize, writes: Vec<u32>, error: &Error) {
        if !writes.is_empty() {
            self.told.push((shard, Notice::Refused { writes, error: error.clone() }));
        }
    }

    /// Entries are committed; `role` is where this node stands. Says whether an office began.
    pub fn committed(&mut self, entries: Vec<LogEntry>, role: &RoleChange) -> bool {
        let mut begun = false;
        for LogEntry { index, term, kind, payload } in entries {
            match self.office.committed(index, term) {
                Some(acknowledgements) => {
                    self.tell_logged();
                    let per_shard = numbered(acknowledgements, self.shards).into_iter().enumerate();
                    let concerned = per_shard.filter(|(_, writes)| !writes.is_empty());
                    self.told.extend(
                        concerned.map(|(shard, writes)| (shard, Notice::Committed { index, writes })),
                    );
                }
                None if kind == EntryKind::Writes => self.logged.push((index, payload)),
                None => {}
            }
            self.handed_over = index;
            if (self.hash_is_due)(index) {
                self.tell_all(&Notice::StateHash(index));
            }
            if self.office.handed_over(term, role) {
                begun = true;
                let number = self.office.number();
                self.tell_all(&Notice::Office(OfficeNotice { number, ended: None }));
            }
        }
        self.tell_logged();
        begun
    }

    /// Role, leader or term have changed. Says whether an office ended by it.
    pub fn role_changed(&mut self, change: &RoleChange) -> bool {
        let ended = self.office.role_changed(change);
        if ended {
            self.tell_end(&lost());
        }
        ended
    }

    /// No more writes: the log can't go on.
    pub fn end(&mut self, error: &Error) {
        self.office.end();
        self.tell_end(error);
    }

    /// A mistake that the simulation must find: a new leader doesn't know yet what is committed.
    #[cfg(test)]
    pub fn begin_at_election(&mut self, change: &RoleChange) {
        if self.office.handed_over(change.term, change) {
            let number = self.office.number();
            self.tell_all(&Notice::Office(OfficeNotice { number, ended: None }));
        }
    }

    /// A state that arrived whole took the place of all that was told before. The
    /// caller hands it to the shards, behind what they have been told.
    pub fn installed(&mut self, index: u64) {
        self.handed_over = index;
    }

    fn tell_end(&mut self, error: &Error) {
        let (number, ended) = (self.office.number(), Some(error.clone()));
        self.tell_all(&Notice::Office(OfficeNotice { number, ended }));
    }

    fn tell_all(&mut self, notice: &Notice) {
        self.tell_logged();
        self.told.extend((0..self.shards).map(|shard| (shard, notice.clone())));
    }

    /// Entries that gathered go first.
    fn tell_logged(&mut self) {
        if !self.logged.is_empty() {
            let logged = Notice::Logged(std::mem::take(&mut self.logged));
            self.told.extend((0..self.shards).map(|shard| (shard, logged.clone())));
        }
    }
}

/// What clients are told whose writes were under way when this node lost its office.
pub fn lost() -> Error {
    let message =
        "the leader lost its office while the request was under way; read to find out what became of it";
    Error::new(Code::LeadershipLost, message)
}

/// A shard's side: whether it takes writes, and in which office.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardOffice {
    number: u64,
    is_held: bool,
}

impl ShardOffice {
    /// Stands on what is appended now.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether writes are taken.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// An office begins or ends. When one ends, all writes in flight are answered.
    pub fn changed<T>(&mut self, notice: OfficeNotice, slice: &mut Slice<T>) {
        self.number = notice.number;
        self.is_held = notice.ended.is_none();
        if let Some(lost) = notice.ended {
            let refused = Error::new(Code::NoLeader, "this node leads no more; the write was not made");
            slice.abandon(&lost, &refused);
        }
    }
}

/// Applies an entry that was decided elsewhere, as far as it is of this shard.
///
/// # Panics
///
/// If the payload can't be read. Checksums were right all the way: it is a fault
/// of a node's own.
pub fn apply_logged<T>(slice: &mut Slice<T>, shard: usize, index: u64, payload: &[u8]) {
    let placement: Placement = *slice.table().placement();
    let effects = Requests::new(payload).map(|item| {
        let (ordinal, effect) = item.unwrap_or_else(|error| panic!("entry {index}: {error}"));
        (ordinal, effect, placement.hash(effect.key()))
    });
    slice.apply_logged(index, effects.filter(|(_, _, hash)| placement.shard(*hash) == shard));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Outcome;
    use crate::replication::raft::Role;

    const LEADS: RoleChange = RoleChange { role: Role::Leader, leader: Some(1), term: 5 };

    fn entry(index: u64, term: u64, kind: EntryKind) -> LogEntry {
        let payload = if kind == EntryKind::Writes { vec![0].into() } else { Bytes::new() };
        LogEntry { index, term, kind, payload }
    }

    fn in_office() -> Notices {
        let mut notices = Notices::new(2, 1, |_| false);
        assert!(notices.committed(vec![entry(2, 5, EntryKind::Empty)], &LEADS));
        notices.take();
        notices
    }

    fn propose(notices: &mut Notices, index: u64, shard: usize) {
        let mut group = Group::default();
        group.push_singles(shard, vec![0], vec![9]);
        notices.proposing(group);
        notices.proposed(index, 5);
    }

    #[test]
    fn an_office_begins_behind_what_earlier_leaders_committed_and_before_what_is_its_own() {
        let mut notices = Notices::new(1, 1, |_| false);
        let entries = vec![
            entry(2, 4, EntryKind::Writes),
            entry(3, 5, EntryKind::Empty),
            entry(4, 5, EntryKind::Writes),
        ];
        assert!(notices.committed(entries, &LEADS));
        let told: Vec<_> = notices.take().into_iter().map(|(_, notice)| notice).collect();
        assert!(matches!(&told[0], Notice::Logged(entries) if entries.len() == 1 && entries[0].0 == 2));
        assert_eq!(told[1], Notice::Office(OfficeNotice { number: 1, ended: None }));
        assert!(matches!(&told[2], Notice::Logged(entries) if entries[0].0 == 4));
        assert_eq!((notices.handed_over(), notices.is_in_office()), (4, true));
    }

    #[test]
    fn own_proposals_are_told_by_number_and_in_the_log_s_order() {
        let mut notices = in_office();
        propose(&mut notices, 4, 1);
        notices.committed(vec![entry(3, 5, EntryKind::Writes), entry(4, 5, EntryKind::Writes)], &LEADS);
        let told = notices.take();
        assert!(matches!(&told[0], (0, Notice::Logged(_))) && matches!(&told[1], (1, Notice::Logged(_))));
        assert_eq!(told[2], (1, Notice::Committed { index: 4, writes: vec![(9, 0)] }));
        assert_eq!(told.len(), 3, "shard 0 has nothing in entry 4");
    }

    #[test]
    fn a_lost_office_s_writes_are_unknown_and_come_back_as_anyone_s() {
        let mut notices = in_office();
        propose(&mut notices, 3, 0);
        let follows = RoleChange { role: Role::Follower, leader: Some(2), term: 6 };
        assert!(notices.role_changed(&follows));
        let told = notices.take();
        let [(0, Notice::Office(OfficeNotice { number: 2, ended: Some(error) })), (1, _)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(error.outcome, Outcome::Unknown);
        notices.committed(vec![entry(3, 5, EntryKind::Writes)], &follows);
        assert!(matches!(&notices.take()[..], [(0, Notice::Logged(_)), (1, Notice::Logged(_))]));
    }

    #[test]
    fn what_was_dropped_is_refused_and_forgotten() {
        let mut notices = in_office();
        let mut group = Group::default();
        group.push_singles(1, vec![0], vec![9]);
        notices.proposing(group);
        let error = Error::new(Code::NoLeader, "handed over");
        notices.dropped(&error);
        assert_eq!(notices.take(), [(1, Notice::Refused { writes: vec![9], error })]);
        assert_eq!(notices.uncommitted_bytes(), 0);
    }
}
