//! Histories of a replicated log: entries replaced, commit indexes, cuts and
//! restarts behind snapshots, with a model that says what a recovery may show.

use std::io::ErrorKind;
use std::rc::Rc;

use super::super::drop_rate::next_random;
use super::super::mutant::Mutant;
use super::super::{
    AppendEntry, AppendError, CrashKind, EntryPlaces, FailedSync, Fault, Identity, Log, LogOptions,
    MemoryDisk, OpenError, Operation, Replay, ReplicatedRecovery, SyncPurpose, first_retained_index,
    initialise, prepare_spare, read_entries,
};
use super::history::draw_faults;
use super::{NODE, identity, salts};

const SEGMENT_BYTES: u64 = 8 * 1024;

/// An entry of the model or of a recovery: index, term, kind, payload.
pub(super) type Entry = (u64, u64, u8, Rc<Vec<u8>>);

/// A hard state that says which entries are committed.
pub(super) fn hard_state(vote: u64, commit: u64) -> Vec<u8> {
    [vote.to_le_bytes(), commit.to_le_bytes()].concat()
}

pub(super) fn commit_of(hard_state: &[u8]) -> u64 {
    u64::from_le_bytes(hard_state[8..16].try_into().unwrap())
}

/// A log as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    /// Entries up to it were discarded for a snapshot.
    base: u64,
    entries: Vec<Entry>,
    hard_state: Option<Vec<u8>>,
    commit: u64,
}

impl Model {
    fn next_index(&self) -> u64 {
        self.base + self.entries.len() as u64 + 1
    }

    fn append(&mut self, first_index: u64, entries: &[Entry], hard_state: Option<&[u8]>) {
        self.entries.truncate((first_index - self.base - 1) as usize);
        self.entries.extend_from_slice(entries);
        if let Some(hard_state) = hard_state {
            self.commit = commit_of(hard_state);
            self.hard_state = Some(hard_state.to_vec());
        }
    }

    fn restart(&mut self, index: u64, hard_state: &[u8]) {
        *self = Model {
            base: index,
            entries: Vec::new(),
            commit: commit_of(hard_state),
            hard_state: Some(hard_state.to_vec()),
        };
    }

    fn between(&self, low: u64, high: u64) -> Vec<Entry> {
        self.entries.iter().filter(|entry| (low..high).contains(&entry.0)).cloned().collect()
    }
}

/// What is promised at some moment.
#[derive(Clone, Debug, Default)]
struct Promise {
    durable: Model,
    /// What the log is if the call that has no answer yet was durable.
    in_flight: Option<Model>,
    /// A snapshot has the entries up to it.
    snapshot: u64,
}

/// A recovery's result, compared as a whole.
pub(super) struct Found {
    pub(super) log: Log<MemoryDisk>,
    pub(super) recovery: ReplicatedRecovery,
    pub(super) visited: Vec<Entry>,
}

pub(super) fn open_replicated(
    disk: &MemoryDisk,
    options: &LogOptions,
    after: u64,
    seed: u64,
) -> Result<Found, OpenError> {
    let mut visited = Vec::new();
    let mut visit = |entry: super::super::RecoveredEntry<'_>| {
        visited.push((entry.index, entry.term, entry.kind, Rc::new(entry.payload.to_vec())));
        Ok(())
    };
    let replay = Replay { after, ..Replay::default() };
    let (log, recovery) = Log::open_replicated(
        disk.clone(),
        options.clone(),
        &identity(),
        replay,
        commit_of,
        salts(seed),
        &mut visit,
    )?;
    Ok(Found { log, recovery, visited })
}

/// The entries that the places lead to.
pub(super) fn read(
    disk: &MemoryDisk,
    places: &EntryPlaces,
    low: u64,
    high: u64,
    bytes_max: u64,
) -> Result<Vec<Entry>, String> {
    let runs = places.between(low, high, bytes_max);
    let entries = read_entries(disk, &runs, low, high, bytes_max).map_err(|error| error.to_string())?;
    Ok(entries.into_iter().map(|e| (e.index, e.term, e.kind, Rc::new(e.payload.to_vec()))).collect())
}

/// A history: a disk, and what was promised from which step on.
pub(super) struct ReplicatedHistory {
    pub(super) disk: MemoryDisk,
    options: LogOptions,
    promises: Vec<(usize, Promise)>,
    places: EntryPlaces,
    random: u64,
    spares: u64,
    term: u64,
    stopped: bool,
    /// How often entries were replaced, and the log restarted.
    pub(super) replacements: u64,
    pub(super) restarts: u64,
}

impl ReplicatedHistory {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>) -> ReplicatedHistory {
        let held_bytes_max = [0, 400, 1 << 20][seed as usize % 3];
        let options =
            LogOptions { segment_bytes: SEGMENT_BYTES, held_bytes_max, mutant, ..LogOptions::default() };
        ReplicatedHistory {
            disk: MemoryDisk::new(),
            options,
            promises: vec![(0, Promise::default())],
            places: EntryPlaces::default(),
            random: seed,
            spares: 0,
            term: 1,
            stopped: false,
            replacements: 0,
            restarts: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        next_random(&mut self.random) % below
    }

    fn promised(&self) -> &Promise {
        &self.promises[self.promises.len() - 1].1
    }

    fn promise(&mut self, change: impl FnOnce(&mut Promise)) {
        let mut promise = self.promised().clone();
        change(&mut promise);
        self.promises.push((self.disk.steps(), promise));
    }

    fn promise_at(&self, step: usize) -> &Promise {
        let place = self.promises.partition_point(|(from, _)| *from <= step);
        &self.promises[place - 1].1
    }

    /// Runs `actions` random actions; an error is a promise broken without any crash.
    pub(super) fn run(&mut self, actions: usize) -> Result<(), String> {
        let seed = self.draw(u64::MAX);
        initialise(&self.disk, &self.options, &identity(), seed).map_err(|error| error.to_string())?;
        let mut log = self.reopen()?;
        for _ in 0..actions {
            match self.draw(24) {
                0 | 1 => self.cut(&mut log),
                2 => {
                    self.spares += 1;
                    let _ = prepare_spare(&self.disk, self.spares, SEGMENT_BYTES);
                }
                3 => {
                    drop(log);
                    log = self.reopen()?;
                }
                4 if log.needs_idle_frame() => {
                    draw_faults(&self.disk, &mut self.random);
                    let first_index = log.next_index();
                    self.append(&mut log, first_index, Vec::new(), None);
                }
                5 if self.draw(3) == 0 => self.restart(&mut log),
                6 => self.append_where_none_may(&mut log)?,
                _ => {
                    draw_faults(&self.disk, &mut self.random);
                    self.append_somewhere(&mut log);
                }
            }
            if self.stopped {
                break;
            }
            self.check_running(&log)?;
        }
        Ok(())
    }

    /// The process is killed and starts again: the page cache stays.
    fn reopen(&mut self) -> Result<Log<MemoryDisk>, String> {
        let promise = self.promised().clone();
        let seed = self.draw(u64::MAX);
        let found = open_replicated(&self.disk, &self.options, promise.snapshot, seed)
            .map_err(|error| error.to_string())?;
        judge(&self.disk, &promise, &found, seed)?;
        self.places = found.recovery.places;
        Ok(found.log)
    }

    fn cut(&mut self, log: &mut Log<MemoryDisk>) {
        let snapshot = self.promised().snapshot;
        let through = snapshot + self.draw(self.promised().durable.commit.saturating_sub(snapshot) + 1);
        self.promise(|promise| promise.snapshot = promise.snapshot.max(through));
        if self.draw(4) == 0 {
            let after = self.draw(2) as u32;
            self.disk.inject(Fault { operation: Operation::SyncDirectory, after, kind: ErrorKind::Other });
        }
        // One that fails may have removed some segments all the same.
        let _ = log.cut(through);
        self.places.cut(log.figures().first_index);
        self.disk.clear_faults();
    }

    fn append_somewhere(&mut self, log: &mut Log<MemoryDisk>) {
        let (from, next) = (log.replaceable_from(), log.next_index());
        let goes_back = self.draw(3) == 0;
        let first_index = if goes_back { from + self.draw(next - from + 1) } else { next };
        self.term += u64::from(goes_back);
        let count = if first_index == next && self.draw(8) == 0 { 0 } else { 1 + self.draw(4) };
        let entries: Vec<Entry> = (0..count)
            .map(|place| (first_index + place, self.term, self.draw(4) as u8, self.payload()))
            .collect();
        let commit = self.promised().durable.commit;
        let last_index = first_index + count - 1;
        let state = (count == 0 || self.draw(2) == 0).then(|| {
            let grown = commit + self.draw(last_index.saturating_sub(commit) + 1);
            hard_state(self.draw(u64::MAX), grown)
        });
        self.append(log, first_index, entries, state);
    }

    fn append(
        &mut self,
        log: &mut Log<MemoryDisk>,
        first_index: u64,
        entries: Vec<Entry>,
        state: Option<Vec<u8>>,
    ) {
        let mut next = self.promised().durable.clone();
        next.append(first_index, &entries, state.as_deref());
        self.promise(|promise| promise.in_flight = Some(next.clone()));
        let pieces: Vec<[&[u8]; 1]> = entries.iter().map(|entry| [entry.3.as_slice()]).collect();
        let appended: Vec<AppendEntry<'_>> = entries
            .iter()
            .zip(&pieces)
            .map(|(entry, payload)| AppendEntry { kind: entry.2, term: entry.1, payload })
            .collect();
        let replaces = first_index < log.next_index();
        let result = log.append_at(first_index, &appended, state.as_deref());
        self.disk.clear_faults();
        if let Ok(appended) = &result {
            self.replacements += u64::from(replaces);
            self.places.appended(appended, entries.iter().map(|entry| entry.1));
        }
        self.settle(result.map(drop), next);
    }

    fn settle(&mut self, result: Result<(), AppendError>, next: Model) {
        match result {
            Ok(()) => self.promise(|promise| {
                promise.durable = next;
                promise.in_flight = None;
            }),
            Err(AppendError::Unsealed { .. }) => self.stopped = true,
            // Definite: the log is as before, and what it replaced is still there.
            Err(_) => self.promise(|promise| promise.in_flight = None),
        }
    }

    /// A snapshot of entry E was installed; E may be in the log with another term.
    fn restart(&mut self, log: &mut Log<MemoryDisk>) {
        let from = log.replaceable_from() - 1;
        let index = from + self.draw(log.next_index() - from + 5);
        let state = hard_state(self.draw(u64::MAX), index);
        self.term += 1;
        let snapshot = self.promised().snapshot;
        let mut next = self.promised().durable.clone();
        next.restart(index, &state);
        self.promise(|promise| {
            promise.snapshot = promise.snapshot.max(index);
            promise.in_flight = Some(next.clone());
        });
        draw_faults(&self.disk, &mut self.random);
        let result = log.restart_at(index, self.term, &state);
        self.disk.clear_faults();
        if let Ok(restarted) = &result {
            self.restarts += 1;
            self.places.restarted(restarted, self.term);
        }
        let refused = result.is_err();
        self.settle(result.map(drop), next);
        if refused && !self.stopped {
            // The snapshot is given up, too.
            self.promise(|promise| promise.snapshot = snapshot);
        }
    }

    /// Gaps, entries that are final, and nothing in the place of something.
    fn append_where_none_may(&mut self, log: &mut Log<MemoryDisk>) -> Result<(), String> {
        let steps = self.disk.steps();
        let final_index = self.promised().durable.commit.max(self.promised().snapshot);
        let payload: [&[u8]; 1] = [b"never"];
        let entry = [AppendEntry { kind: 1, term: self.term, payload: &payload }];
        let mut refused = vec![log.append_at(log.next_index() + 1, &entry, None)];
        if final_index < log.next_index() {
            refused.push(log.append_at(final_index, &entry, None));
        }
        if log.next_index() > 1 {
            refused.push(log.append_at(log.next_index() - 1, &[], None));
        }
        let all = refused.iter().all(|result| matches!(result, Err(AppendError::NotReplaceable { .. })));
        if all && self.disk.steps() == steps { Ok(()) } else { Err(format!("not refused: {refused:?}")) }
    }

    /// What the log says of itself, and what can be read of it beside it.
    fn check_running(&mut self, log: &Log<MemoryDisk>) -> Result<(), String> {
        let promise = self.promised().clone();
        let durable = &promise.durable;
        if log.next_index() != durable.next_index() || log.figures().durable_index + 1 != log.next_index() {
            return Err(format!("the next index is {}, not {}", log.next_index(), durable.next_index()));
        }
        if log.hard_state() != durable.hard_state.as_deref() {
            return Err("the hard state is another one".to_string());
        }
        let seed = self.draw(u64::MAX);
        check_places(&self.disk, &self.places, durable, promise.snapshot, seed)
    }

    fn payload(&mut self) -> Rc<Vec<u8>> {
        let length = match self.draw(20) {
            0 => SEGMENT_BYTES + 1000,
            1..=5 => 1000,
            6 => 0,
            _ => 8 * (1 + self.draw(20)),
        };
        Rc::new((0..length / 8).flat_map(|_| next_random(&mut self.random).to_le_bytes()).collect())
    }

    /// Recovers `disk`, which crashed after `step` operations, and tries whether
    /// what the recovery has shown survives the next crash, and can be built on.
    pub(super) fn check(&self, disk: &MemoryDisk, step: usize, seed: u64) -> Result<(), String> {
        let promise = self.promise_at(step);
        let has_identity = Identity::load(disk).map_err(|error| error.to_string())?.is_some();
        if !has_identity {
            if promise.durable != Model::default() {
                return Err("the identity is gone".to_string());
            }
            initialise(disk, &self.options, &identity(), seed).map_err(|error| error.to_string())?;
        }
        let begins = first_retained_index(disk, NODE).map_err(|error| error.to_string())?;
        if begins > promise.snapshot + 1 {
            return Err(format!("the log begins at {begins}, the snapshot ends at {}", promise.snapshot));
        }
        self.check_interrupted(&disk.clone_state(), promise, seed)?;
        let open = |disk: &MemoryDisk| open_replicated(disk, &self.options, promise.snapshot, seed);
        let mut first = open(disk).map_err(|error| error.to_string())?;
        let mut settled = judge(disk, promise, &first, seed)?;
        let crashed = disk.crash(CrashKind::LoseAll);
        let second = open(&crashed).map_err(|error| format!("after that: {error}"))?;
        judge(&crashed, &only(settled.clone(), promise), &second, seed)
            .map_err(|problem| format!("the next recovery showed something else: {problem}"))?;
        let (from, next) = (first.log.replaceable_from(), first.log.next_index());
        let mut random = seed;
        let first_index = from + next_random(&mut random) % (next - from + 1);
        let payload: [&[u8]; 1] = [b"later"];
        let entry = AppendEntry { kind: 9, term: 1 << 40, payload: &payload };
        first.log.append_at(first_index, &[entry], None).map_err(|error| error.to_string())?;
        settled.append(first_index, &[(first_index, 1 << 40, 9, Rc::new(b"later".to_vec()))], None);
        let crashed = disk.crash(CrashKind::Random(seed));
        let third = open(&crashed).map_err(|error| format!("after an append: {error}"))?;
        judge(&crashed, &only(settled, promise), &third, seed)
            .map_err(|problem| format!("after an append: {problem}"))?;
        Ok(())
    }

    /// A recovery that fails half-way, and a crash on top of it.
    fn check_interrupted(&self, disk: &MemoryDisk, promise: &Promise, mut seed: u64) -> Result<(), String> {
        let how =
            [FailedSync::Kept, FailedSync::Lost, FailedSync::Limbo][next_random(&mut seed) as usize % 3];
        let operation = match next_random(&mut seed) % 4 {
            0 => Operation::Write,
            1 => Operation::Create,
            2 => Operation::SyncDirectory,
            _ => Operation::Sync(SyncPurpose::Other, how),
        };
        let after = next_random(&mut seed) as u32 % 2;
        disk.inject(Fault { operation, after, kind: ErrorKind::Other });
        let shown = open_replicated(disk, &self.options, promise.snapshot, seed).ok();
        disk.clear_faults();
        let shown = shown.map(|shown| judge(disk, promise, &shown, seed)).transpose()?;
        let crashed = disk.crash(CrashKind::Random(seed));
        let found = open_replicated(&crashed, &self.options, promise.snapshot, seed)
            .map_err(|error| format!("after an interrupted recovery: {error}"))?;
        let promise = shown.map_or_else(|| promise.clone(), |shown| only(shown, promise));
        judge(&crashed, &promise, &found, seed)
            .map(drop)
            .map_err(|problem| format!("after an interrupted recovery: {problem}"))
    }
}

fn only(durable: Model, promise: &Promise) -> Promise {
    Promise { durable, in_flight: None, snapshot: promise.snapshot }
}

/// The state that a recovery has shown, if it may show it: what was durable, or
/// that with what is in flight.
fn judge(disk: &MemoryDisk, promise: &Promise, found: &Found, seed: u64) -> Result<Model, String> {
    let mut problem = match differs(disk, &promise.durable, promise.snapshot, found, seed) {
        Ok(()) => return Ok(promise.durable.clone()),
        Err(problem) => problem,
    };
    if let Some(in_flight) = &promise.in_flight {
        match differs(disk, in_flight, promise.snapshot, found, seed) {
            Ok(()) => return Ok(in_flight.clone()),
            Err(other) => problem = format!("{problem}; with what was in flight: {other}"),
        }
    }
    Err(problem)
}

fn differs(disk: &MemoryDisk, model: &Model, snapshot: u64, found: &Found, seed: u64) -> Result<(), String> {
    let Found { log, recovery, visited } = found;
    let final_index = model.commit.max(snapshot);
    let indexes = |entries: &[Entry]| entries.iter().map(|entry| entry.0).collect::<Vec<u64>>();
    if log.next_index() != model.next_index() || recovery.report.last_index + 1 != log.next_index() {
        return Err(format!("the next index is {}, not {}", log.next_index(), model.next_index()));
    }
    if recovery.hard_state != model.hard_state || log.hard_state() != model.hard_state.as_deref() {
        return Err("the hard state is another one".to_string());
    }
    if recovery.final_index != final_index {
        return Err(format!("final up to {}, not {final_index}", recovery.final_index));
    }
    let wanted = model.between(snapshot + 1, final_index + 1);
    if *visited != wanted {
        return Err(format!("visited {:?}, not {:?}", indexes(visited), indexes(&wanted)));
    }
    let tail: Vec<_> = recovery.tail.iter().map(|entry| (entry.index, entry.term, entry.kind)).collect();
    let wanted = model.between(final_index + 1, u64::MAX);
    if tail != wanted.iter().map(|entry| (entry.0, entry.1, entry.2)).collect::<Vec<_>>() {
        return Err(format!("the tail is {tail:?}, not {:?}", indexes(&wanted)));
    }
    check_places(disk, &recovery.places, model, snapshot, seed)
}

/// Whether the places lead to the model's entries, all at once and in part.
fn check_places(
    disk: &MemoryDisk,
    places: &EntryPlaces,
    model: &Model,
    snapshot: u64,
    mut seed: u64,
) -> Result<(), String> {
    let (first, next) = (places.first_index(), places.next_index());
    if first > snapshot.max(model.base) + 1 || first <= model.base || next != model.next_index() {
        let log = (model.base, model.next_index());
        return Err(format!("places from {first} to {next}, the log is {log:?}, the snapshot {snapshot}"));
    }
    let wanted = model.between(first, next);
    if read(disk, places, first, next, u64::MAX)? != wanted {
        return Err("other entries are read back".to_string());
    }
    if wanted.iter().any(|entry| places.term(entry.0) != Some(entry.1)) || places.term(next).is_some() {
        return Err("the places have other terms".to_string());
    }
    if first < next {
        let low = first + next_random(&mut seed) % (next - first);
        let high = low + 1 + next_random(&mut seed) % (next - low);
        let part = read(disk, places, low, high, next_random(&mut seed) % 3000)?;
        let wanted = model.between(low, high);
        if part.is_empty() || part.len() > wanted.len() || part != wanted[..part.len()] {
            return Err(format!("{} entries of {low}..{high} are read back, others", part.len()));
        }
    }
    Ok(())
}
