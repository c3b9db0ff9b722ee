//! The log as Raft reads it: terms of all retained entries, payloads of the
//! latest ones. Older payloads are on the disk only; who needs them asks for
//! them and reads on when they have come.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use ::raft::eraftpb;
use ::raft::{Error, GetEntriesContext, RaftState, Result, StorageError};
use bytes::Bytes;

use super::convert;
use super::hard_state::HardState;
use crate::persistence::{Members, is_witness};
use crate::replication::message::{EntryKind, LogEntry, NodeId, SnapshotMark};

/// An entry whose payload may have been let go.
#[derive(Clone, Debug)]
struct Kept {
    term: u64,
    kind: EntryKind,
    payload: Option<Bytes>,
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
    entries: VecDeque<Kept>,
    /// The first entry whose payload is here; those behind it are here too.
    payloads_from: u64,
    payload_bytes: usize,
    /// Read back from the disk for a follower, until they were taken.
    fetched: BTreeMap<u64, LogEntry>,
    missing: RefCell<Vec<Missing>>,
    /// The newest snapshot that may be sent.
    pub snapshot: Option<SnapshotMark>,
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
            entries: VecDeque::new(),
            payloads_from: cut.0 + 1,
            payload_bytes: 0,
            fetched: BTreeMap::new(),
            missing: RefCell::default(),
            snapshot: None,
            snapshot_wanted: RefCell::default(),
        }
    }

    pub fn last(&self) -> u64 {
        self.cut_index + self.entries.len() as u64
    }

    fn place(&self, index: u64) -> Option<usize> {
        (index > self.cut_index && index <= self.last()).then(|| (index - self.cut_index - 1) as usize)
    }

    /// Entries that only the disk has the payloads of: what recovery found.
    pub fn push_without_payload(&mut self, term: u64) {
        self.entries.push_back(Kept { term, kind: EntryKind::Writes, payload: None });
        self.payloads_from = self.last() + 1;
        self.payload_bytes = 0;
    }

    /// Appends; an entry that is there already is replaced with all behind it.
    pub fn append(&mut self, entries: &[LogEntry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.cut_index, "an entry that was cut is replaced");
        assert!(first.index <= self.last() + 1, "a gap in the log");
        let keep = (first.index - self.cut_index - 1) as usize;
        for dropped in self.entries.drain(keep..) {
            self.payload_bytes -= dropped.payload.map_or(0, |payload| payload.len());
        }
        self.payloads_from = self.payloads_from.min(first.index);
        self.fetched.split_off(&first.index);
        for entry in entries {
            self.payload_bytes += entry.payload.len();
            let payload = Some(entry.payload.clone());
            self.entries.push_back(Kept { term: entry.term, kind: entry.kind, payload });
        }
    }

    /// Lets payloads go from the oldest on, while there are more than `bytes_max`
    /// and none above `through`, which is applied and durable.
    pub fn let_payloads_go(&mut self, through: u64, bytes_max: usize) {
        while self.payload_bytes > bytes_max && self.payloads_from <= through {
            let Some(place) = self.place(self.payloads_from) else { return };
            let payload = self.entries[place].payload.take();
            self.payload_bytes -= payload.map_or(0, |payload| payload.len());
            self.payloads_from += 1;
        }
    }

    /// Forgets the entries up to `index`, which a snapshot holds.
    pub fn cut(&mut self, index: u64) {
        while self.cut_index < index
            && let Some(entry) = self.entries.pop_front()
        {
            self.cut_index += 1;
            self.cut_term = entry.term;
            self.payload_bytes -= entry.payload.map_or(0, |payload| payload.len());
        }
        self.payloads_from = self.payloads_from.max(self.cut_index + 1);
        self.fetched = self.fetched.split_off(&(self.cut_index + 1));
    }

    /// A snapshot that is ahead of the log takes its place.
    pub fn restart_at(&mut self, mark: &SnapshotMark) {
        self.entries.clear();
        self.fetched.clear();
        self.payload_bytes = 0;
        self.cut_index = mark.index;
        self.cut_term = mark.term;
        self.payloads_from = mark.index + 1;
        self.snapshot = Some(mark.clone());
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
            let is_ours = self.place(entry.index).is_some_and(|place| self.entries[place].term == entry.term);
            if is_ours {
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
        let kept = self.place(entry.index).map(|place| &self.entries[place]);
        let same_term = kept.filter(|kept| kept.term == entry.term);
        same_term.and_then(|kept| kept.payload.as_ref()).is_some_and(|payload| *payload != entry.payload)
    }

    /// Kind and payload. Of an entry that only the disk had, both are known when it is fetched.
    fn content(&self, index: u64) -> Option<(EntryKind, Bytes)> {
        let kept = &self.entries[self.place(index)?];
        match &kept.payload {
            Some(payload) => Some((kept.kind, payload.clone())),
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
        if low <= self.cut_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries behind the end of the log are asked for");
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut found = Vec::new();
        for index in low..high {
            let Some((place, (kind, payload))) = self.place(index).zip(self.content(index)) else { break };
            bytes += payload.len() as u64;
            if !found.is_empty() && bytes > bytes_max {
                break;
            }
            found.push(convert::raft_entry(index, self.entries[place].term, kind, payload));
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
        let place = self.place(index).ok_or(Error::Store(StorageError::Unavailable))?;
        Ok(self.entries[place].term)
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
            Some(mark)
                if mark.index >= request_index
                    && mark.index >= self.cut_index
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
