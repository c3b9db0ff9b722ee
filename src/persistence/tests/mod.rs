//! Tests of the log and the snapshots as a whole.

mod crash_states;
mod damage;
mod disks;
mod frames;
mod history;
mod kept;
mod logs;
mod replicated;
mod replicated_history;
mod snapshots;

use super::{AppendEntry, AppendError, Appended, Disk, Identity, Log, LogOptions, NodeUuid, OpenError};
use super::{MemoryDisk, RecoveryReport, Replay, initialise};

const NODE: NodeUuid = NodeUuid([7; 16]);

fn identity() -> Identity {
    Identity {
        node: NODE,
        cluster: None,
        mode: "single".to_string(),
        placement_seed: (1, 2),
        created_by: "0.1.0".to_string(),
    }
}

fn options(segment_bytes: u64) -> LogOptions {
    LogOptions { segment_bytes, ..LogOptions::default() }
}

/// Salts that differ, from a seed.
fn salts(mut seed: u64) -> impl FnMut() -> u64 + Send + 'static {
    move || super::drop_rate::next_random(&mut seed)
}

/// What a recovery hands over: index and payload.
type Entries = Vec<(u64, Vec<u8>)>;

type Opened<D> = (Log<D>, RecoveryReport, Entries);

fn open<D: Disk>(disk: D, options: &LogOptions, replay: Replay, seed: u64) -> Result<Opened<D>, OpenError> {
    let mut entries = Vec::new();
    let mut visit = |entry: super::RecoveredEntry<'_>| {
        entries.push((entry.index, entry.payload.to_vec()));
        Ok(())
    };
    let (log, report) = Log::open(disk, options.clone(), &identity(), replay, salts(seed), &mut visit)?;
    Ok((log, report, entries))
}

/// A new log on a new disk.
fn fresh(segment_bytes: u64) -> (MemoryDisk, Log<MemoryDisk>) {
    let disk = MemoryDisk::new();
    initialise(&disk, &options(segment_bytes), &identity(), 11).unwrap();
    let (log, _, entries) = open(disk.clone(), &options(segment_bytes), Replay::default(), 1).unwrap();
    assert!(entries.is_empty());
    (disk, log)
}

fn append<D: Disk>(
    log: &mut Log<D>,
    payloads: &[&[u8]],
    hard_state: Option<&[u8]>,
) -> Result<Appended, AppendError> {
    let pieces: Vec<[&[u8]; 1]> = payloads.iter().map(|payload| [*payload]).collect();
    let entries: Vec<AppendEntry<'_>> =
        pieces.iter().map(|payload| AppendEntry { kind: 1, term: 1, payload }).collect();
    log.append(&entries, hard_state)
}
