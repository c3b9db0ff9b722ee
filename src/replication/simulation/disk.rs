//! One node's disk: the real log over a disk in memory, and what is on its way.

use std::collections::VecDeque;

use super::Mutant;
use super::force::settle;
use super::node::State;
use crate::persistence::{
    AppendEntry, AppendError, Configuration, CrashKind, EntryPlaces, FailedSync, Fault, Identity, Log,
    LogOptions, Membership, MemoryDisk, NodeUuid, Operation, OwnedEntry, Replay, SyncPurpose, initialise,
    next_random, read_entries,
};
use crate::replication::message::{EntryKind, LogEntry, SnapshotMark};
use crate::replication::raft::{HardState, Persist, Start};
use crate::replication::recovered::{self, cut_of, must_restart};

/// Small, so that logs go on from segment to segment.
const SEGMENT_BYTES: u64 = 16 * 1024;

/// A disk and the writes that it hasn't synced.
pub struct SimulatedDisk {
    disk: MemoryDisk,
    /// Open while a process runs.
    log: Option<Log<MemoryDisk>>,
    /// What is durable.
    places: EntryPlaces,
    hard_state: HardState,
    /// Snapshots are whole or absent; how that is done is tested with the snapshots.
    pub snapshot: Option<(SnapshotMark, State)>,
    /// The snapshot's S: from behind it the log is replayed over it. Its E is where it is marked.
    pub replay_after: u64,
    /// Oldest first.
    waiting: VecDeque<(Persist, Option<State>)>,
    /// When each of them was ordered.
    ordered_ms: VecDeque<u64>,
    random: u64,
    mutant: Option<Mutant>,
    pub failed_syncs: u64,
}

/// What a disk had when it was lost.
pub struct Held {
    places: EntryPlaces,
    snapshot: u64,
}

impl Held {
    pub fn has(&self, index: u64, term: u64) -> bool {
        holds(&self.places, self.snapshot, index, term)
    }
}

fn holds(places: &EntryPlaces, snapshot: u64, index: u64, term: u64) -> bool {
    index <= snapshot || (index < places.next_index() && places.term(index) == Some(term))
}

/// What a process finds.
pub struct Found {
    pub state: State,
    /// The committed entries behind it.
    pub committed: Vec<LogEntry>,
    pub start: Start,
}

impl SimulatedDisk {
    pub fn new(seed: u64, mutant: Option<Mutant>) -> SimulatedDisk {
        let disk = MemoryDisk::new();
        initialise(&disk, &options(), &identity(), seed).expect("an empty disk takes a log");
        SimulatedDisk {
            disk,
            log: None,
            places: EntryPlaces::new(1, Some(0)),
            hard_state: HardState::default(),
            snapshot: None,
            replay_after: 0,
            waiting: VecDeque::new(),
            ordered_ms: VecDeque::new(),
            random: seed,
            mutant,
            failed_syncs: 0,
        }
    }

    /// A write is ordered. `installed`: the state of its snapshot, if it has one.
    pub fn write(&mut self, now_ms: u64, persist: Persist, installed: Option<State>) {
        self.ordered_ms.push_back(now_ms);
        self.waiting.push_back((persist, installed));
    }

    /// For how long the oldest write has waited.
    pub fn oldest_write_ms(&self, now_ms: u64) -> u64 {
        self.ordered_ms.front().map_or(0, |ordered_ms| now_ms - ordered_ms)
    }

    /// The oldest write is written and synced. A sync that fails is sealed off and
    /// the same entries are written again: nothing is decided by a failure.
    pub fn sync(&mut self, fails: bool) -> Option<Persist> {
        let (persist, installed) = self.waiting.pop_front()?;
        self.ordered_ms.pop_front();
        if fails {
            self.failed_syncs += 1;
            let how = [FailedSync::Kept, FailedSync::Lost, FailedSync::Limbo][self.below(3) as usize];
            let operation = Operation::Sync(SyncPurpose::Append, how);
            self.disk.inject(Fault { operation, after: 0, kind: std::io::ErrorKind::Other });
        }
        if persist.snapshot.is_some() {
            self.installed(&persist, installed);
        }
        until_it_succeeds(|| self.restart(&persist));
        until_it_succeeds(|| self.append(&persist));
        self.disk.clear_faults();
        Some(persist)
    }

    /// A snapshot is durable before the log begins anew behind it.
    fn installed(&mut self, persist: &Persist, installed: Option<State>) {
        self.snapshot = persist.snapshot.clone().zip(installed);
        self.replay_after = persist.snapshot.as_ref().map_or(0, |mark| mark.index);
    }

    fn restart(&mut self, persist: &Persist) -> Result<(), AppendError> {
        let Some(mark) = &persist.snapshot else { return Ok(()) };
        let log = self.log.as_mut().expect("a process runs");
        let hard_state = persist.hard_state.unwrap_or(self.hard_state).at_restart(mark.index);
        let appended = log.restart_at(mark.index, mark.term, &hard_state.encode())?;
        self.places.restarted(&appended, mark.term);
        Ok(())
    }

    fn append(&mut self, persist: &Persist) -> Result<(), AppendError> {
        let log = self.log.as_mut().expect("a process runs");
        let hard_state = persist.hard_state.unwrap_or(self.hard_state);
        let mut entries = &persist.entries[..];
        if self.mutant == Some(Mutant::ForgottenTruncation) {
            let known = entries.iter().take_while(|entry| entry.index < self.places.next_index()).count();
            entries = &entries[known..];
        }
        if !entries.is_empty() || persist.hard_state.is_some() {
            let payloads: Vec<[&[u8]; 1]> = entries.iter().map(|entry| [&entry.payload[..]]).collect();
            let records: Vec<AppendEntry<'_>> = (entries.iter().zip(&payloads))
                .map(|(entry, payload)| AppendEntry { kind: entry.kind.to_byte(), term: entry.term, payload })
                .collect();
            let first_index = entries.first().map_or(log.next_index(), |entry| entry.index);
            let appended = log.append_at(first_index, &records, Some(&hard_state.encode()))?;
            self.places.appended(&appended, entries.iter().map(|entry| entry.term));
        }
        self.hard_state = hard_state;
        Ok(())
    }

    /// A snapshot of the node's own is durable; the log is cut behind it.
    pub fn snapshot(&mut self, mark: SnapshotMark, state: State, after: u64, cut_index: u64) {
        self.replay_after = after;
        self.snapshot = Some((mark, state));
        let log = self.log.as_mut().expect("a process runs");
        log.cut(cut_index).expect("a disk without faults takes it");
        self.places.cut(log.figures().first_index);
    }

    /// The process ends, with all that it had not written: as by SIGKILL, or, with
    /// the power, with what was written and not synced, in the middle of a write.
    pub fn crash(&mut self) {
        if self.below(2) == 0
            && let Some((persist, installed)) = self.waiting.pop_front()
        {
            let changes = self.below(8);
            self.disk.power_off_after(changes as usize);
            if persist.snapshot.is_some() {
                self.installed(&persist, installed);
            }
            let (places, hard_state) = (self.places.clone(), self.hard_state);
            let _ = self.restart(&persist).and_then(|()| self.append(&persist)); // nobody hears of it
            (self.places, self.hard_state) = (places, hard_state);
        }
        self.waiting.clear();
        self.ordered_ms.clear();
        self.log = None;
        let seed = next_random(&mut self.random);
        let kinds =
            [CrashKind::LoseAll, CrashKind::KeepAll, CrashKind::Random(seed), CrashKind::Random(seed)];
        let kind = kinds[self.below(4) as usize];
        self.disk = self.disk.crash(kind);
    }

    /// A new process reads what is there.
    pub fn open(&mut self, membership: &mut Membership) -> Found {
        let (state, mark) = match &self.snapshot {
            Some((mark, state)) => (state.clone(), mark.clone()),
            None => (State::default(), SnapshotMark::default()),
        };
        let mut committed = Vec::new();
        let mut salt = next_random(&mut self.random);
        // An installed snapshot may not have its log yet.
        if self.mutant == Some(Mutant::WalkNotReplayed) {
            self.replay_after = mark.index;
        }
        let must_reach = if self.replay_after < mark.index { mark.index } else { 0 };
        let replay = Replay { after: self.replay_after, must_reach, ..Replay::default() };
        let (mut log, recovery) = Log::open_replicated(
            self.disk.clone(),
            options(),
            &identity(),
            replay,
            |bytes| HardState::decode(bytes).map_or(0, |state| state.commit),
            move || next_random(&mut salt),
            &mut |entry| {
                let (index, term, payload) = (entry.index, entry.term, entry.payload.to_vec().into());
                let kind = EntryKind::from_byte(entry.kind).expect("a kind that was written");
                committed.push(LogEntry { index, term, kind, payload });
                Ok(())
            },
        )
        .expect("a log that only crashes have touched opens");
        let mut places = recovery.places;
        let mut hard_state = recovery.hard_state.map_or(first_hard_state(membership), |bytes| {
            HardState::decode(&bytes).expect("a hard state that was written")
        });
        settle(membership, &places, recovery.final_index);
        if must_restart(&places, &mark) {
            // Installed, and the log not restarted behind it yet.
            hard_state.commit = hard_state.commit.max(mark.index);
            let appended = log.restart_at(mark.index, mark.term, &hard_state.encode()).expect("no faults");
            places.restarted(&appended, mark.term);
            committed.clear();
        } else {
            self.expect_what_was_durable(&places, mark.index, hard_state);
        }
        let mut runs = read(
            &self.disk,
            &places,
            mark.index.max(recovery.final_index) + 1,
            places.next_index(),
            u64::MAX,
        );
        if self.mutant == Some(Mutant::TailAppliedAtRestart) {
            committed.append(&mut runs);
        }
        self.forget(&mut hard_state, &places);
        let applied = committed.last().map_or(mark.index, |entry| entry.index.max(mark.index));
        let entries: Vec<Configuration> = (committed.iter())
            .filter(|entry| entry.kind == EntryKind::Members)
            .filter_map(|entry| Configuration::of_entry(entry.index, &entry.payload))
            .collect();
        let configuration = recovered::configuration(membership, &mark, &entries, applied);
        let members = recovered::members(membership, configuration);
        let start = recovered::start(&places, &mark, hard_state, members, applied, runs);
        (self.places, self.hard_state, self.log) = (places, hard_state, Some(log));
        Found { state, committed, start }
    }

    /// What was synced is there after any crash.
    fn expect_what_was_durable(&self, places: &EntryPlaces, snapshot: u64, hard_state: HardState) {
        for index in self.places.first_index().max(snapshot + 1)..self.places.next_index() {
            let (was, is) = (self.places.term(index), places.term(index));
            // A write under way may have replaced it.
            assert!(is >= was || index >= places.next_index(), "durable entry {index} is another one");
        }
        assert!(hard_state.term >= self.hard_state.term, "the term went back");
    }

    /// What some mutants don't remember.
    fn forget(&self, hard_state: &mut HardState, places: &EntryPlaces) {
        match self.mutant {
            Some(Mutant::VoteNotPersisted) => hard_state.vote = 0,
            Some(Mutant::TermNotPersisted) => {
                let last = places.next_index() - 1;
                *hard_state = HardState { term: places.term(last).unwrap_or(0), vote: 0, ..*hard_state };
            }
            _ => {}
        }
    }

    /// Entries `low..high`, up to so many bytes but one at least; none if the first is gone.
    pub fn read(&self, low: u64, high: u64, bytes_max: u64) -> Vec<LogEntry> {
        if low < self.places.first_index() {
            return Vec::new();
        }
        read(&self.disk, &self.places, low, high, bytes_max)
    }

    /// The entry before the first one that is retained, and its term.
    pub fn cut(&self) -> (u64, u64) {
        let mark = self.snapshot.as_ref().map_or_else(SnapshotMark::default, |(mark, _)| mark.clone());
        cut_of(&self.places, &mark)
    }

    /// The last entry that is durable.
    pub fn last(&self) -> u64 {
        self.places.next_index() - 1
    }

    /// Whether the entry of this index and term is on the disk.
    pub fn has(&self, index: u64, term: u64) -> bool {
        let snapshot = self.snapshot.as_ref().map_or(0, |(mark, _)| mark.index);
        holds(&self.places, snapshot, index, term)
    }

    /// What is durable, for when the disk is lost.
    pub fn held(&self) -> Held {
        let snapshot = self.snapshot.as_ref().map_or(0, |(mark, _)| mark.index);
        Held { places: self.places.clone(), snapshot }
    }

    /// A copy as a backup is made, with what the process has written so far.
    pub fn copy(&mut self) -> SimulatedDisk {
        SimulatedDisk {
            disk: self.disk.clone_state().crash(CrashKind::KeepAll),
            log: None,
            places: self.places.clone(),
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            replay_after: self.replay_after,
            waiting: VecDeque::new(),
            ordered_ms: VecDeque::new(),
            random: self.seed_of_next(),
            mutant: self.mutant,
            failed_syncs: 0,
        }
    }

    /// For the disk that takes this one's place.
    pub fn seed_of_next(&mut self) -> u64 {
        next_random(&mut self.random)
    }

    fn below(&mut self, bound: u64) -> u64 {
        next_random(&mut self.random) % bound
    }
}

/// What a node begins with that was adopted: in the term of who did that it votes for nobody else.
fn first_hard_state(membership: &Membership) -> HardState {
    let (term, vote) = membership.first_vote;
    HardState { term, vote, witness_term: term, witness_vote: vote, ..HardState::default() }
}

/// Sealed and refused, a write is done again.
fn until_it_succeeds(mut write: impl FnMut() -> Result<(), AppendError>) {
    while let Err(error) = write() {
        assert!(matches!(error, AppendError::Refused { .. }), "the log gave up: {error}");
    }
}

fn read(disk: &MemoryDisk, places: &EntryPlaces, low: u64, high: u64, bytes_max: u64) -> Vec<LogEntry> {
    if low >= high {
        return Vec::new();
    }
    let runs = places.between(low, high, bytes_max);
    let entries = read_entries(disk, &runs, low, high, bytes_max).expect("places lead to frames");
    let entry = |entry: OwnedEntry| LogEntry {
        index: entry.index,
        term: entry.term,
        kind: EntryKind::from_byte(entry.kind).expect("a kind that was written"),
        payload: entry.payload,
    };
    entries.into_iter().map(entry).collect()
}

fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = SEGMENT_BYTES;
    options
}

fn identity() -> Identity {
    Identity {
        node: NodeUuid([9; 16]),
        cluster: None,
        mode: "leader".to_string(),
        placement_seed: (1, 2),
        created_by: "simulation".to_string(),
    }
}
