//! One node's disk: the real log over a disk in memory, what is on its way to it, and
//! the newest snapshot.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::engine::Entry;
use crate::persistence::{
    AppendEntry, AppendError, CrashKind, EntryPlaces, FailedSync, Fault, Identity, Log, LogOptions,
    MemoryDisk, NodeUuid, Operation, Replay, SyncPurpose, initialise, next_random, read_entries,
};
use crate::replication::dynamo::SnapshotVector;
use crate::replication::message::EntryKind;

/// Small, so that logs go on from segment to segment and are cut.
const SEGMENT_BYTES: u64 = 16 * 1024;

/// Whole or absent; how that is done is tested with the snapshots.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// S: behind it the log is replayed.
    pub after: u64,
    /// E: what is shown in part.
    pub through: u64,
    /// As of S.
    pub state: SnapshotVector,
    /// Entries and tombstones.
    pub entries: Vec<Entry>,
}

/// A disk and the entries that it hasn't synced.
pub struct SimulatedDisk {
    pub directory: NodeUuid,
    disk: MemoryDisk,
    /// Open while a process runs.
    log: Option<Log<MemoryDisk>>,
    /// What is durable.
    places: EntryPlaces,
    pub snapshot: Snapshot,
    /// Oldest first.
    waiting: VecDeque<(u64, Bytes)>,
    random: u64,
    pub failed_syncs: u64,
}

impl SimulatedDisk {
    pub fn new(directory: NodeUuid, seed: u64) -> SimulatedDisk {
        let disk = MemoryDisk::new();
        initialise(&disk, &options(), &identity(directory), seed).expect("an empty disk takes a log");
        SimulatedDisk {
            directory,
            disk,
            log: None,
            places: EntryPlaces::new(1, Some(0)),
            snapshot: Snapshot::default(),
            waiting: VecDeque::new(),
            random: seed,
            failed_syncs: 0,
        }
    }

    /// A copy of what a backup would take while the process runs.
    pub fn copy(&self) -> SimulatedDisk {
        SimulatedDisk {
            directory: self.directory,
            disk: self.disk.clone_state(),
            log: None,
            places: self.places.clone(),
            snapshot: self.snapshot.clone(),
            waiting: VecDeque::new(),
            random: self.random ^ 1,
            failed_syncs: self.failed_syncs,
        }
    }

    /// An entry is ordered.
    pub fn write(&mut self, index: u64, payload: Bytes) {
        self.waiting.push_back((index, payload));
    }

    /// So many of the oldest entries are written and synced, as one frame. A sync that
    /// fails is sealed off and the same entries are written again. Gives the last one.
    pub fn sync(&mut self, count: usize, fails: bool) -> Option<u64> {
        let count = count.min(self.waiting.len());
        let last = self.waiting.get(count.checked_sub(1)?)?.0;
        if fails {
            self.failed_syncs += 1;
            let how = [FailedSync::Kept, FailedSync::Lost, FailedSync::Limbo][self.below(3) as usize];
            let operation = Operation::Sync(SyncPurpose::Append, how);
            self.disk.inject(Fault { operation, after: 0, kind: std::io::ErrorKind::Other });
        }
        while let Err(error) = self.append(count) {
            assert!(matches!(error, AppendError::Refused { .. }), "the log gave up: {error}");
        }
        self.disk.clear_faults();
        self.waiting.drain(..count);
        Some(last)
    }

    fn append(&mut self, count: usize) -> Result<(), AppendError> {
        let log = self.log.as_mut().expect("a process runs");
        let payloads: Vec<[&[u8]; 1]> =
            self.waiting.iter().take(count).map(|(_, payload)| [&payload[..]]).collect();
        let records: Vec<AppendEntry<'_>> = payloads
            .iter()
            .map(|payload| AppendEntry { kind: EntryKind::Converging.to_byte(), term: 0, payload })
            .collect();
        assert_eq!(self.waiting.front().map(|(index, _)| *index), Some(log.next_index()));
        let appended = log.append(&records, None)?;
        self.places.appended(&appended, records.iter().map(|_| 0));
        Ok(())
    }

    /// A snapshot is durable; the log is cut where it may be. Gives its first index.
    pub fn snapshot(&mut self, snapshot: Snapshot, cut_index: u64) -> u64 {
        self.snapshot = snapshot;
        let log = self.log.as_mut().expect("a process runs");
        log.cut(cut_index).expect("a disk without faults takes it");
        let first_index = log.figures().first_index;
        self.places.cut(first_index);
        first_index
    }

    /// The process ends, with all that it had not written: as by SIGKILL, or, with
    /// the power, with what was written and not synced, in the middle of a write.
    pub fn crash(&mut self) {
        if self.log.is_some() && !self.waiting.is_empty() && self.below(2) == 0 {
            let changes = self.below(8);
            self.disk.power_off_after(changes as usize);
            let (places, count) = (self.places.clone(), self.waiting.len());
            let _ = self.append(count); // nobody hears of it
            self.places = places;
        }
        self.waiting.clear();
        self.log = None;
        let seed = next_random(&mut self.random);
        let kinds =
            [CrashKind::LoseAll, CrashKind::KeepAll, CrashKind::Random(seed), CrashKind::Random(seed)];
        let kind = kinds[self.below(4) as usize];
        self.disk = self.disk.crash(kind);
    }

    /// A new process reads what is there: every entry behind the snapshot's S.
    pub fn open(&mut self, visit: &mut dyn FnMut(u64, Bytes)) {
        let mut salt = next_random(&mut self.random);
        let replay =
            Replay { after: self.snapshot.after, must_reach: self.snapshot.through, ..Replay::default() };
        let (log, recovery) = Log::open_converging(
            self.disk.clone(),
            options(),
            &identity(self.directory),
            replay,
            move || next_random(&mut salt),
            &mut |entry| {
                visit(entry.index, Bytes::copy_from_slice(entry.payload));
                Ok(())
            },
        )
        .expect("a log that only crashes have touched opens");
        let was = self.places.next_index();
        self.places = recovery.places;
        assert!(self.places.next_index() >= was, "durable entries are gone");
        self.log = Some(log);
    }

    /// Entries `low..high`; none if the first is gone.
    pub fn read(&self, low: u64, high: u64) -> Vec<(u64, Bytes)> {
        if low < self.places.first_index() || low >= high {
            return Vec::new();
        }
        let runs = self.places.between(low, high, u64::MAX);
        let entries = read_entries(&self.disk, &runs, low, high, u64::MAX).expect("places lead to frames");
        entries.into_iter().map(|entry| (entry.index, entry.payload)).collect()
    }

    fn below(&mut self, bound: u64) -> u64 {
        next_random(&mut self.random) % bound
    }
}

fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = SEGMENT_BYTES;
    options
}

fn identity(node: NodeUuid) -> Identity {
    Identity {
        node,
        cluster: None,
        mode: "dynamo".to_string(),
        placement_seed: (1, 2),
        created_by: "simulation".to_string(),
    }
}
