//! Replaying the log over the tables.
//!
//! ```text
//! log ─ frames checked, effects by shard ─► builders (a thread per shard, one table each)
//! ```

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use datastore::engine::{Effect, Placement, Requests, Table, Version, replay};
use datastore::persistence::{
    Configuration, FaultyDisk, FileDisk, Identity, Log, LogOptions, RecoveredEntry, Replay,
    ReplicatedRecovery, next_random,
};
use datastore::replication::message::EntryKind;
use datastore::replication::raft::HardState;

use crate::progress::Progress;
use crate::random::random_u64;
use crate::snapshot_loader::{BATCHES_WAITING, join_all};
use crate::start_error::StartError;

/// The log as the node uses it: a real directory, with `--drop-rate`'s faults above it.
pub type NodeLog = Log<FaultyDisk<FileDisk>>;

/// An effect of the log on its way to a shard's table.
struct ReplayedEffect {
    version: Version,
    hash: u64,
    effect: OwnedEffect,
}

enum OwnedEffect {
    Delete(Bytes),
    Set(Bytes, Bytes),
    AddVector(Bytes, Bytes),
}

/// Effects sent to a builder at once.
const EFFECTS_PER_BATCH: usize = 4_096;

/// What a replay leaves.
pub(crate) struct Replayed {
    pub(crate) tables: Vec<Table>,
    pub(crate) log: NodeLog,
    pub(crate) recovery: ReplicatedRecovery,
    /// As the entries that were replayed name the members.
    pub(crate) members: Vec<Configuration>,
}

/// Opens the log and replays it over the tables: all of it, or of a replicated
/// log what is committed.
pub(crate) fn replay_log(
    disk: FaultyDisk<FileDisk>,
    options: LogOptions,
    identity: &Identity,
    (range, replicated): (Replay, bool),
    placement: Placement,
    tables: Vec<Table>,
) -> Result<Replayed, StartError> {
    let seed = random_u64()?;
    std::thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            tables.iter().map(|_| bounded::<Vec<ReplayedEffect>>(BATCHES_WAITING)).unzip();
        let builders: Vec<_> = tables
            .into_iter()
            .zip(receivers)
            .map(|(table, batches)| scope.spawn(move || replay_batches(table, &batches)))
            .collect();
        let batches = senders.iter().map(|_| Vec::new()).collect();
        let mut router = Router { placement, batches, senders, members: Vec::new() };
        let progress = Progress::new("replaying the log", 0);
        let mut bytes = 0;
        let mut visit = |entry: RecoveredEntry<'_>| {
            bytes += entry.payload.len() as u64;
            progress.at(bytes);
            router.route(&entry)
        };
        let opened = if replicated {
            Log::open_replicated(disk, options, identity, range, commit_of, salts(seed), &mut visit)
        } else {
            let opened = Log::open(disk, options, identity, range, salts(seed), &mut visit);
            opened.map(|(log, report)| (log, ReplicatedRecovery { report, ..ReplicatedRecovery::default() }))
        };
        router.flush();
        let members = std::mem::take(&mut router.members);
        drop(router);
        let tables = join_all(builders);
        let (log, recovery) = opened.map_err(StartError::Log)?;
        Ok(Replayed { tables, log, recovery, members })
    })
}

/// The commit index of a hard state. One that can't be read says nothing; the
/// start finds out when it reads the newest.
fn commit_of(hard_state: &[u8]) -> u64 {
    HardState::decode(hard_state).map_or(0, |state| state.commit)
}

/// Salts tell a segment's frames from older ones in the same blocks; they need
/// to differ, not to be secret.
pub(crate) fn salts(seed: u64) -> impl FnMut() -> u64 + Send + 'static {
    let mut state = seed;
    move || next_random(&mut state)
}

struct Router {
    placement: Placement,
    batches: Vec<Vec<ReplayedEffect>>,
    senders: Vec<Sender<Vec<ReplayedEffect>>>,
    members: Vec<Configuration>,
}

impl Router {
    fn route(&mut self, entry: &RecoveredEntry<'_>) -> Result<(), datastore::persistence::VisitError> {
        match EntryKind::from_byte(entry.kind) {
            Some(EntryKind::Writes) => {}
            Some(EntryKind::Members) => {
                let made = Configuration::of_entry(entry.index, entry.payload);
                self.members.push(made.ok_or("it names no members")?);
                return Ok(());
            }
            Some(EntryKind::Empty) => return Ok(()),
            Some(EntryKind::Converging) | None => {
                return Err("its kind is none of this version's: start the version that wrote it".into());
            }
        }
        let payload = Bytes::copy_from_slice(entry.payload);
        for item in Requests::new(&payload) {
            let (ordinal, effect) = item?;
            let hash = self.placement.hash(effect.key());
            let version = Version { index: entry.index, ordinal };
            let owned = |bytes: &[u8]| payload.slice_ref(bytes);
            let effect = match effect {
                Effect::Delete { key } => OwnedEffect::Delete(owned(key)),
                Effect::Set { key, value } => OwnedEffect::Set(owned(key), owned(value)),
                Effect::AddVector { key, vector } => OwnedEffect::AddVector(owned(key), owned(vector)),
            };
            let shard = self.placement.shard(hash);
            self.batches[shard].push(ReplayedEffect { version, hash, effect });
            if self.batches[shard].len() >= EFFECTS_PER_BATCH {
                self.send(shard);
            }
        }
        Ok(())
    }

    fn send(&mut self, shard: usize) {
        let batch = std::mem::take(&mut self.batches[shard]);
        // A builder ends only when its senders do.
        let _ = self.senders[shard].send(batch);
    }

    fn flush(&mut self) {
        (0..self.batches.len()).for_each(|shard| self.send(shard));
    }
}

fn replay_batches(mut table: Table, batches: &Receiver<Vec<ReplayedEffect>>) -> Table {
    for batch in batches {
        for ReplayedEffect { version, hash, effect } in batch {
            let effect = match &effect {
                OwnedEffect::Delete(key) => Effect::Delete { key },
                OwnedEffect::Set(key, value) => Effect::Set { key, value },
                OwnedEffect::AddVector(key, vector) => Effect::AddVector { key, vector },
            };
            replay(&mut table, version, &effect, hash);
        }
    }
    table
}
