//! The log as Raft reads it: terms of all retained entries, payloads of the
//! latest ones, bounded by what they occupy. Older payloads are on the disk only; who needs them asks for
//! them and reads on when they have come.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use ::raft::eraftpb;
use ::raft::{Error, GetEntriesContext, RaftState, Result, StorageError};
use bytes::Bytes;

use super::convert;
use super::hard_state::HardState;
use crate::persistence::{Members, is_witness};
use crate::replication::message::{EntryKind, LogEntry, NodeId, SnapshotMark, payload_memory_bytes};

/// An entry whose payload is in memory.
#[derive(Clone, Debug)]
struct Kept {
    kind: EntryKind,
    payload: Bytes,
}

/// Payloads that a lagging follower needs and that memory no longer has.
#[derive(Debug)]
pub(super) struct Missing {
    pub low: u64,
    pub high: u64,
    pub bytes_max: u64,
    pub context: GetEntriesContext,
}

/// The log from behind the last cut to its end.
#[derive(Debug)]
pub(super) struct Storage {
    /// What the node began with: the crate asks once, and keeps its own from then on.
    hard_state: HardState,
    members: Members,
    /// The entry before the first one here.
    cut_index: u64,
    cut_term: u64,
    /// The last entry.
    last: u64,
    /// From which entry on which term. A log has few terms and very many entries.
    terms: VecDeque<(u64, u64)>,
    /// The first entry whose payload is here; those behind it are here too.
    payloads_from: u64,
    kept: VecDeque<Kept>,
    /// What the payloads in `kept` occupy.
    payload_bytes: usize,
    /// Read back from the disk for a follower, until they were taken.
    fetched: BTreeMap<u64, LogEntry>,
    missing: RefCell<Vec<Missing>>,
    /// The newest snapshot that may be sent, and its S: what the log must have behind it.
    pub snapshot: Option<(SnapshotMark, u64)>,
    /// Up to this entry nobody is sent any, since the disk doesn't give it back; 0: it gives all.
    unreadable: u64,
    /// Followers that need a snapshot and can't have one yet.
    snapshot_wanted: RefCell<Vec<NodeId>>,
}

impl Storage {
    /// A log that begins behind `cut`, whose members are `members`.
    pub fn new(hard_state: HardState, members: Members, cut: (u64, u64)) -> Storage {
        Storage {
            hard_state,
            members,
            cut_index: cut.0,
            cut_term: cut.1,
            last: cut.0,
            terms: VecDeque::new(),
            payloads_from: cut.0 + 1,
            kept: VecDeque::new(),
            payload_bytes: 0,
            fetched: BTreeMap::new(),
            missing: RefCell::default(),
            snapshot: None,
            unreadable: 0,
            snapshot_wanted: RefCell::default(),
        }
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// What it occupies, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.kept.capacity() * size_of::<Kept>()
            + self.payload_bytes
            + self.terms.capacity() * size_of::<(u64, u64)>()
    }

    fn has(&self, index: u64) -> bool {
        index > self.cut_index && index <= self.last
    }

    /// The term of an entry that is here.
    fn term_here(&self, index: u64) -> Option<u64> {
        let run = self.terms.partition_point(|(from, _)| *from <= index).checked_sub(1)?;
        self.has(index).then(|| self.terms[run].1)
    }

    fn push_term(&mut self, term: u64) {
        self.last += 1;
        if self.terms.back().is_none_or(|(_, last)| *last != term) {
            self.terms.push_back((self.last, term));
        }
    }

    /// Entries that only the disk has the payloads of: what recovery found.
    pub fn push_without_payload(&mut self, term: u64) {
        self.push_term(term);
        self.payloads_from = self.last + 1;
        self.kept.clear();
        self.payload_bytes = 0;
    }

    /// Appends; an entry that is there already is replaced with all behind it.
    pub fn append(&mut self, entries: &[LogEntry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.cut_index, "an entry that was cut is replaced");
        assert!(first.index <= self.last + 1, "a gap in the log");
        self.last = first.index - 1;
        while self.terms.back().is_some_and(|(from, _)| *from >= first.index) {
            self.terms.pop_back();
        }
        let keep = first.index.saturating_sub(self.payloads_from) as usize;
        for dropped in self.kept.drain(keep.min(self.kept.len())..) {
            self.payload_bytes -= payload_memory_bytes(&dropped.payload);
        }
        self.payloads_from = self.payloads_from.min(first.index);
        self.fetched.split_off(&first.index);
        for entry in entries {
            self.push_term(entry.term);
            self.payload_bytes += payload_memory_bytes(&entry.payload);
            self.kept.push_back(Kept { kind: entry.kind, payload: entry.payload.clone() });
        }
    }

    /// Lets payloads go from the oldest on, while they occupy more than `bytes_max`,
    /// and none above `through`, which is applied and durable.
    pub fn let_payloads_go(&mut self, through: u64, bytes_max: usize) {
        let occupied = |storage: &Storage| storage.payload_bytes + storage.kept.len() * size_of::<Kept>();
        while occupied(self) > bytes_max && self.payloads_from <= through {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.payload_bytes -= payload_memory_bytes(&oldest.payload);
            self.payloads_from += 1;
        }
    }

    /// Forgets the entries up to `index`, which a snapshot holds.
    pub fn cut(&mut self, index: u64) {
        let index = index.min(self.last);
        if index > self.cut_index {
            self.cut_term = self.term_here(index).unwrap_or(self.cut_term);
            self.cut_index = index;
        }
        while self.terms.get(1).is_some_and(|(from, _)| *from <= self.cut_index + 1) {
            self.terms.pop_front();
        }
        while self.payloads_from <= self.cut_index {
            let gone = self.kept.pop_front();
            self.payload_bytes -= gone.map_or(0, |gone| payload_memory_bytes(&gone.payload));
            self.payloads_from += 1;
        }
        self.fetched = self.fetched.split_off(&(self.cut_index + 1));
        if self.unreadable <= self.cut_index {
            self.unreadable = 0;
        }
    }

    /// The disk doesn't give this entry back.
    pub fn unreadable(&mut self, index: u64) {
        if self.has(index) {
            self.unreadable = self.unreadable.max(index);
        }
    }

    /// A snapshot that is ahead of the log takes its place.
    pub fn restart_at(&mut self, mark: &SnapshotMark) {
        self.terms.clear();
        self.kept = VecDeque::new();
        self.fetched.clear();
        self.payload_bytes = 0;
        self.cut_index = mark.index;
        self.cut_term = mark.term;
        self.last = mark.index;
        self.payloads_from = mark.index + 1;
        self.unreadable = 0;
        self.snapshot = Some((mark.clone(), mark.index));
    }

    /// What was asked for since the last call.
    pub fn take_missing(&mut self) -> Vec<Missing> {
        self.missing.take()
    }

    /// Who asked for a snapshot since the last call.
    pub fn take_snapshot_wanted(&mut self) -> Vec<NodeId> {
        let mut wanted = self.snapshot_wanted.take();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Payloads came from the disk. Only those are kept that are still in the log.
    pub fn fetched(&mut self, entries: Vec<LogEntry>) {
        for entry in entries {
            if self.term_here(entry.index) == Some(entry.term) {
                self.fetched.insert(entry.index, entry);
            }
        }
    }

    /// Nobody needs them any more.
    pub fn forget_fetched(&mut self) {
        self.fetched.clear();
    }

    /// Whether another one than this entry stands in its place and term, as far as memory knows.
    pub fn differs(&self, entry: &LogEntry) -> bool {
        let same_term = self.term_here(entry.index) == Some(entry.term);
        same_term && self.content(entry.index).is_some_and(|(_, payload)| payload != entry.payload)
    }

    /// Kind and payload. Of an entry that only the disk had, both are known when it is fetched.
    fn content(&self, index: u64) -> Option<(EntryKind, Bytes)> {
        let kept = index.checked_sub(self.payloads_from).and_then(|place| self.kept.get(place as usize));
        match kept {
            Some(Kept { kind, payload }) => Some((*kind, payload.clone())),
            None => self.fetched.get(&index).map(|entry| (entry.kind, entry.payload.clone())),
        }
    }
}

impl ::raft::Storage for Storage {
    fn initial_state(&self) -> Result<RaftState> {
        let mut hard_state = eraftpb::HardState::default();
        hard_state.term = self.hard_state.term;
        hard_state.vote = self.hard_state.vote;
        hard_state.commit = self.hard_state.commit;
        Ok(RaftState::new(hard_state, convert::conf_state(&self.members)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<eraftpb::Entry>> {
        // The crate then sends a snapshot.
        if low <= self.cut_index.max(self.unreadable) {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries behind the end of the log are asked for");
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut found = Vec::new();
        for index in low..high {
            let Some((term, (kind, payload))) = self.term_here(index).zip(self.content(index)) else { break };
            bytes += payload.len() as u64;
            if !found.is_empty() && bytes > bytes_max {
                break;
            }
            found.push(convert::raft_entry(index, term, kind, payload));
        }
        if found.is_empty() && low < high {
            // Only a follower that lags reads what memory has let go.
            assert!(context.can_async(), "an entry that isn't applied was let go");
            self.missing.borrow_mut().push(Missing { low, high, bytes_max, context });
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.cut_index {
            return Ok(self.cut_term);
        }
        if index < self.cut_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_here(index).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.cut_index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<eraftpb::Snapshot> {
        match &self.snapshot {
            // A node takes no snapshot whose members it isn't among.
            Some((mark, after))
                if mark.index >= request_index
                    && mark.index >= self.cut_index
                    && *after >= self.unreadable
                    && (mark.configuration.members.has(to) || is_witness(to)) =>
            {
                Ok(convert::raft_snapshot(mark))
            }
            _ => {
                self.snapshot_wanted.borrow_mut().push(to);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ::raft::Storage as _;

    use super::*;

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry { index, term, kind: EntryKind::Writes, payload: vec![7; 12].into() }
    }

    fn storage() -> Storage {
        Storage::new(HardState::default(), Members::default(), (10, 3))
    }

    #[test]
    fn small_payloads_count_as_what_they_occupy() {
        const BYTES_MAX: usize = 1 << 20;
        let mut storage = storage();
        for index in 11..=100_010 {
            storage.append(&[entry(index, 3)]);
            storage.let_payloads_go(index, BYTES_MAX);
        }
        assert_eq!(storage.last(), 100_010);
        assert!(storage.kept.len() * 100 < BYTES_MAX, "{} of at least 100 bytes each", storage.kept.len());
        assert!(storage.memory_bytes() <= 2 * BYTES_MAX, "{} bytes", storage.memory_bytes());
        storage.cut(100_000);
        assert_eq!((storage.kept.len(), storage.payloads_from), (10, 100_001));
    }

    #[test]
    fn terms_are_known_of_all_entries_whatever_became_of_their_payloads() {
        let mut storage = storage();
        let entries: Vec<LogEntry> = (11..=20).map(|index| entry(index, index / 5)).collect();
        storage.append(&entries);
        storage.let_payloads_go(17, 0);
        let terms =
            |storage: &Storage| (9..=21).filter_map(|index| storage.term(index).ok()).collect::<Vec<u64>>();
        assert_eq!(terms(&storage), [3, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4]);
        storage.append(&[entry(16, 9), entry(17, 9)]);
        assert_eq!(terms(&storage), [3, 2, 2, 2, 2, 3, 9, 9]);
        let context = GetEntriesContext::empty(false);
        assert_eq!(storage.entries(16, 18, None, context).map(|entries| entries.len()).ok(), Some(2));
        assert!(storage.content(15).is_none(), "it was let go");
        storage.cut(15);
        assert_eq!((storage.first_index().ok(), terms(&storage)), (Some(16), vec![3, 9, 9]));
        storage.cut(99);
        assert_eq!((storage.last(), terms(&storage)), (17, vec![9]));
        storage.append(&[entry(18, 9)]);
        assert_eq!(terms(&storage), [9, 9]);
    }
}
