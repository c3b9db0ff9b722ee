//! Histories of a log on a disk that remembers, and what a recovery may say at
//! each moment of them.

use std::io::ErrorKind;

use super::super::drop_rate::next_random;
use super::super::frame::{self, FramePlace};
use super::super::mutant::Mutant;
use super::super::{
    AppendError, CrashKind, FailedSync, Fault, Identity, Log, LogOptions, MemoryDisk, Operation, Replay,
    SyncPurpose, initialise, prepare_spare,
};
use super::{append, identity, open};
use crate::limits::SEAL_ATTEMPTS_MAX;

const SEGMENT_BYTES: u64 = 8 * 1024;

/// Lets up to four operations of the next append fail.
pub(super) fn draw_faults(disk: &MemoryDisk, random: &mut u64) {
    let mut draw = |below: u64| next_random(random) % below;
    if draw(3) != 0 {
        return;
    }
    let elsewhere = draw(3) == 0;
    for round in 0..=draw(4) {
        let how = [FailedSync::Kept, FailedSync::Lost, FailedSync::Limbo][draw(3) as usize];
        let operation = match draw(8) {
            _ if round == 0 && !elsewhere => Operation::Sync(SyncPurpose::Append, how),
            0 => Operation::Write,
            1 => Operation::Create,
            2 => Operation::Rename,
            3 | 4 => Operation::SyncDirectory,
            5 => Operation::Sync(SyncPurpose::Other, how),
            _ => Operation::Sync(SyncPurpose::Seal, how),
        };
        let kind = if draw(6) == 0 { ErrorKind::StorageFull } else { ErrorKind::Other };
        let after = if round == 0 { 0 } else { draw(2) as u32 };
        disk.inject(Fault { operation, after, kind });
    }
    // Rarely no attempt at a seal succeeds.
    if draw(12) == 0 {
        for _ in 0..SEAL_ATTEMPTS_MAX {
            let operation = Operation::Sync(SyncPurpose::Seal, FailedSync::Lost);
            disk.inject(Fault { operation, after: 0, kind: ErrorKind::Other });
        }
    }
}

/// An append that has no answer yet.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight {
    payloads: Vec<Vec<u8>>,
    hard_state: Option<Vec<u8>>,
}

/// What is promised at some moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    /// How many entries were acknowledged.
    acknowledged: usize,
    hard_state: Option<Vec<u8>>,
    in_flight: Option<InFlight>,
    /// Entries up to here may be gone.
    cut_through: u64,
}

/// A history: a disk, and what was promised from which step on.
pub(super) struct History {
    pub(super) disk: MemoryDisk,
    pub(super) options: LogOptions,
    payloads: Vec<Vec<u8>>,
    promises: Vec<(usize, Promise)>,
    random: u64,
    spares: u64,
    stopped: bool,
}

impl History {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>) -> History {
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, mutant, ..LogOptions::default() };
        History {
            disk: MemoryDisk::new(),
            options,
            payloads: Vec::new(),
            promises: vec![(0, Promise::default())],
            random: seed,
            spares: 0,
            stopped: false,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        next_random(&mut self.random) % below
    }

    fn promise(&mut self, change: impl FnOnce(&mut Promise)) {
        let mut promise = self.promises[self.promises.len() - 1].1.clone();
        change(&mut promise);
        self.promises.push((self.disk.steps(), promise));
    }

    /// What is promised after the first `step` operations.
    pub(super) fn promise_at(&self, step: usize) -> &Promise {
        let place = self.promises.partition_point(|(from, _)| *from <= step);
        &self.promises[place - 1].1
    }

    /// Runs `actions` random actions; an error is a promise broken without any crash.
    pub(super) fn run(&mut self, actions: usize) -> Result<(), String> {
        let seed = self.draw(u64::MAX);
        initialise(&self.disk, &self.options, &identity(), seed).map_err(|error| error.to_string())?;
        let mut log = self.reopen()?;
        for _ in 0..actions {
            match self.draw(20) {
                0 => {
                    let through = self.draw(self.payloads.len() as u64 + 1);
                    self.promise(|promise| promise.cut_through = promise.cut_through.max(through));
                    if self.draw(4) == 0 {
                        self.inject(Operation::SyncDirectory);
                    }
                    let _ = log.cut(through);
                    self.disk.clear_faults();
                }
                1 => {
                    self.spares += 1;
                    let _ = prepare_spare(&self.disk, self.spares, SEGMENT_BYTES);
                }
                2 => {
                    drop(log);
                    log = self.reopen()?;
                }
                3 if log.needs_idle_frame() => {
                    draw_faults(&self.disk, &mut self.random);
                    self.append(&mut log, true);
                }
                _ => {
                    draw_faults(&self.disk, &mut self.random);
                    self.append(&mut log, false);
                }
            }
            if self.stopped {
                break;
            }
        }
        Ok(())
    }

    /// The process is killed and starts again: the page cache stays.
    fn reopen(&mut self) -> Result<Log<MemoryDisk>, String> {
        let promise = self.promise_at(usize::MAX).clone();
        let replay = Replay { after: promise.cut_through, ..Replay::default() };
        let seed = self.draw(u64::MAX);
        let (log, _, entries) =
            open(self.disk.clone(), &self.options, replay, seed).map_err(|error| error.to_string())?;
        self.judge(&promise, &entries, log.hard_state())?;
        Ok(log)
    }

    fn inject(&mut self, operation: Operation) {
        let after = self.draw(2) as u32;
        let kind = if self.draw(4) == 0 { ErrorKind::StorageFull } else { ErrorKind::Other };
        self.disk.inject(Fault { operation, after, kind });
    }

    fn append(&mut self, log: &mut Log<MemoryDisk>, idle: bool) {
        let count = if idle { 0 } else { 1 + self.draw(3) };
        let payloads: Vec<Vec<u8>> = (0..count).map(|_| self.payload(log)).collect();
        let hard_state = (!idle && self.draw(5) == 0).then(|| self.draw(u64::MAX).to_le_bytes().to_vec());
        let in_flight = InFlight { payloads, hard_state };
        self.promise(|promise| promise.in_flight = Some(in_flight.clone()));
        let pieces: Vec<&[u8]> = in_flight.payloads.iter().map(Vec::as_slice).collect();
        let result = append(log, &pieces, in_flight.hard_state.as_deref());
        self.disk.clear_faults();
        match result {
            Ok(_) => {
                self.payloads.extend(in_flight.payloads);
                let acknowledged = self.payloads.len();
                self.promise(|promise| {
                    promise.in_flight = None;
                    promise.acknowledged = acknowledged;
                    promise.hard_state = in_flight.hard_state.or_else(|| promise.hard_state.take());
                });
            }
            // Definite: from now on nobody may ever see it.
            Err(
                AppendError::Refused { .. }
                | AppendError::DiskFull { .. }
                | AppendError::TooLarge
                | AppendError::NotReplaceable { .. },
            ) => {
                self.promise(|promise| promise.in_flight = None);
            }
            Err(AppendError::Unsealed { .. }) => self.stopped = true,
        }
    }

    /// Bytes that no other entry has. Some end in what is a frame's header if
    /// frames were not salted: one that knows the frame that it lies in to be durable.
    fn payload(&mut self, log: &Log<MemoryDisk>) -> Vec<u8> {
        let length = match self.draw(16) {
            0 => SEGMENT_BYTES as usize + 1000,
            1..=4 => 1000,
            _ => 8 * (1 + self.draw(20) as usize),
        };
        let mut payload = vec![0; length];
        for place in payload.chunks_mut(8) {
            let random = next_random(&mut self.random).to_le_bytes();
            place.copy_from_slice(&random[..place.len()]);
        }
        if length == 1000 {
            let number = log.figures().frame_number + 2;
            let place = FramePlace {
                kind: frame::KIND_GROUP,
                salt: 0,
                predecessor_crc: 0,
                term: 1,
                number,
                first_index: 1,
                durable_number: number - 1,
            };
            let mut forged = Vec::new();
            frame::encode(&mut forged, &place, &[], &[]);
            payload[1000 - forged.len()..].copy_from_slice(&forged);
        }
        payload
    }

    /// Recovers `disk`, which crashed after `step` operations, and tries whether
    /// what the recovery has shown survives the next crash.
    pub(super) fn check(&self, disk: &MemoryDisk, step: usize, seed: u64) -> Result<(), String> {
        let promise = self.promise_at(step);
        let has_identity = Identity::load(disk).map_err(|error| error.to_string())?.is_some();
        if !has_identity {
            if promise.acknowledged > 0 {
                return Err("the identity is gone".to_string());
            }
            initialise(disk, &self.options, &identity(), seed).map_err(|error| error.to_string())?;
        }
        let replay = Replay { after: promise.cut_through, ..Replay::default() };
        self.check_interrupted(&disk.clone_state(), promise, replay, seed)?;
        let (mut log, _, first) =
            open(disk.clone(), &self.options, replay, seed).map_err(|error| error.to_string())?;
        self.judge(promise, &first, log.hard_state())?;
        let crashed = disk.crash(CrashKind::LoseAll);
        let (_, _, second) =
            open(crashed, &self.options, replay, seed).map_err(|error| format!("after that: {error}"))?;
        if first != second {
            return Err(format!("a recovery showed {} entries, the next {}", first.len(), second.len()));
        }
        let appended = append(&mut log, &[b"later"], None).map_err(|error| error.to_string())?;
        let crashed = disk.crash(CrashKind::Random(seed));
        let (_, report, third) = open(crashed, &self.options, replay, seed)
            .map_err(|error| format!("after an append: {error}"))?;
        if third.len() != first.len() + 1 || report.last_index != appended.last_index {
            return Err(format!("{} entries, then {} with another", first.len(), third.len()));
        }
        Ok(())
    }

    /// A recovery that fails half-way, and a crash on top of it: the next one
    /// shows what was promised, and what the first one showed if it did not fail.
    fn check_interrupted(
        &self,
        disk: &MemoryDisk,
        promise: &Promise,
        replay: Replay,
        mut seed: u64,
    ) -> Result<(), String> {
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
        let shown = open(disk.clone(), &self.options, replay, seed).ok().map(|(_, _, entries)| entries);
        let crashed = disk.crash(CrashKind::Random(seed));
        let (log, _, entries) = open(crashed, &self.options, replay, seed)
            .map_err(|error| format!("after an interrupted recovery: {error}"))?;
        if shown.is_some_and(|shown| shown != entries) {
            return Err("an interrupted recovery showed something else".to_string());
        }
        self.judge(promise, &entries, log.hard_state())
    }

    /// Whether a recovery shows what was promised: all that was acknowledged,
    /// nothing that was refused, what is in flight whole or not at all.
    fn judge(
        &self,
        promise: &Promise,
        entries: &[(u64, Vec<u8>)],
        hard_state: Option<&[u8]>,
    ) -> Result<(), String> {
        let from = promise.cut_through as usize;
        let mut expected: Vec<&Vec<u8>> =
            self.payloads[from..promise.acknowledged.max(from)].iter().collect();
        let settled = expected.len();
        let in_flight = promise.in_flight.clone().unwrap_or_default();
        if entries.len() > settled {
            expected.extend(&in_flight.payloads);
        }
        if entries.len() != expected.len() {
            return Err(format!(
                "{} entries acknowledged, {} in flight, {} recovered",
                settled,
                in_flight.payloads.len(),
                entries.len()
            ));
        }
        for (place, ((index, found), wanted)) in entries.iter().zip(&expected).enumerate() {
            if *index != (from + place) as u64 + 1 || found != *wanted {
                return Err(format!("entry {index} is another one"));
            }
        }
        let allowed = [promise.hard_state.as_deref(), in_flight.hard_state.as_deref()];
        if hard_state != allowed[0] && (hard_state.is_none() || hard_state != allowed[1]) {
            return Err("the hard state is another one".to_string());
        }
        Ok(())
    }
}
