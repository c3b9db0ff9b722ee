//! What recovery leaves of a replicated log: where its replica goes on.

use datastore::persistence::{
    EntryPlaces, FileDisk, Membership, ReplicatedRecovery, SnapshotReport, read_entries,
};
use datastore::replication::message::{LogEntry, Members, SnapshotMark};
use datastore::replication::raft::{HardState, Start};
use datastore::replication::recovered::{self, SnapshotState, must_restart};

use crate::log_reader::log_entry;
use crate::log_replayer::NodeLog;
use crate::replication_options::members;
use crate::start_error::StartError;

/// Where a member goes on.
pub struct RecoveredLog {
    /// What its replica begins with; `None`: it was never adopted.
    pub start: Option<Start>,
    /// The newest snapshot of its own.
    pub newest: Option<SnapshotMark>,
    /// Where each entry lies.
    pub places: EntryPlaces,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The last entry in the tables.
    pub applied: u64,
}

/// Puts together what the disk holds.
pub(crate) fn recovered_log(
    disk: &FileDisk,
    log: &mut NodeLog,
    recovery: ReplicatedRecovery,
    snapshot: Option<&SnapshotReport>,
    membership: Option<&Membership>,
) -> Result<RecoveredLog, StartError> {
    let ReplicatedRecovery { hard_state, final_index, mut places, .. } = recovery;
    let mut hard_state = match hard_state {
        Some(bytes) => HardState::decode(&bytes).ok_or(StartError::HardState)?,
        None => HardState::default(),
    };
    let voters = membership.map_or(Members::default(), members);
    let newest = snapshot.map(|report| mark(report, &places, &voters));
    let mark = newest.clone().unwrap_or_default();
    let installed = snapshot.and_then(|report| SnapshotState::decode(&report.state));
    let mut applied = final_index.max(mark.index);
    if installed.is_some_and(|state| state.installed) && must_restart(&places, &mark) {
        hard_state.commit = hard_state.commit.max(mark.index);
        let restarted = log.restart_at(mark.index, mark.term, &hard_state.encode());
        places.restarted(&restarted.map_err(StartError::Restart)?, mark.term);
        applied = mark.index;
        tracing::warn!(
            index = mark.index,
            "the log begins anew behind a snapshot whose installation was cut short"
        );
    }
    let tail = tail(disk, &places, applied)?;
    let start =
        membership.is_some().then(|| recovered::start(&places, &mark, hard_state, voters, applied, tail));
    Ok(RecoveredLog { start, newest, places, hard_state, applied })
}

/// A snapshot's place in the log.
fn mark(report: &SnapshotReport, places: &EntryPlaces, voters: &Members) -> SnapshotMark {
    let said = SnapshotState::decode(&report.state).map(|state| state.term);
    let term = said.or_else(|| places.term(report.through)).unwrap_or_default();
    SnapshotMark { index: report.through, term, members: voters.clone() }
}

/// The entries that are not known to be committed.
fn tail(disk: &FileDisk, places: &EntryPlaces, applied: u64) -> Result<Vec<LogEntry>, StartError> {
    let (low, high) = (applied + 1, places.next_index());
    if low >= high {
        return Ok(Vec::new());
    }
    let runs = places.between(low, high, u64::MAX);
    let entries = read_entries(disk, &runs, low, high, u64::MAX).map_err(StartError::Tail)?;
    // An unknown kind is a newer version's; the entry may not be dropped, nor what follows it.
    entries.into_iter().map(|entry| log_entry(entry).ok_or(StartError::HardState)).collect()
}
