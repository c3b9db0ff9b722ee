//! What recovery leaves of a replicated log: where its replica goes on.

use datastore::persistence::{
    Configuration, EntryPlaces, FileDisk, Membership, ReplicatedRecovery, SnapshotReport, read_entries,
};
use datastore::replication::message::{LogEntry, SnapshotMark};
use datastore::replication::raft::{HardState, Start};
use datastore::replication::recovered::{self, SnapshotState, must_restart};

use crate::log_reader::log_entry;
use crate::log_replayer::NodeLog;
use crate::replicated_snapshots::OwnSnapshot;
use crate::replication_options::first_hard_state;
use crate::start_error::StartError;

/// Where a member goes on.
pub struct RecoveredLog {
    /// What its replica begins with; `None`: it was never adopted.
    pub start: Option<Start>,
    /// The newest snapshot of its own.
    pub newest: Option<OwnSnapshot>,
    /// Where each entry lies.
    pub places: EntryPlaces,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The last entry in the tables.
    pub applied: u64,
    /// It has what the log that was kept by force hasn't, and takes no part.
    pub has_diverged: bool,
}

/// Puts together what the disk holds. `entries`: those that name members, behind the snapshot's S.
pub(crate) fn recovered_log(
    disk: &FileDisk,
    log: &mut NodeLog,
    recovery: ReplicatedRecovery,
    snapshot: Option<&SnapshotReport>,
    (membership, entries): (&mut Option<Membership>, &[Configuration]),
) -> Result<RecoveredLog, StartError> {
    let ReplicatedRecovery { hard_state, final_index, mut places, .. } = recovery;
    let mut hard_state = match hard_state {
        Some(bytes) => HardState::decode(&bytes).ok_or(StartError::HardState)?,
        None => first_hard_state(membership.as_ref().map_or((0, 0), |known| known.first_vote)),
    };
    // What a node on its own has written is of a term, too, and says so in no hard state.
    hard_state.term = hard_state.term.max(places.term(places.next_index().saturating_sub(1)).unwrap_or(0));
    let mark = snapshot.map_or(SnapshotMark::default(), |report| snapshot_mark(report, &places, None));
    let installed = snapshot.and_then(|report| SnapshotState::decode(&report.state));
    let mut applied = final_index.max(mark.index);
    if installed.is_some_and(|state| state.installed) && must_restart(&places, &mark) {
        // No more than that: what was behind it goes with the log.
        hard_state.commit = mark.index;
        let restarted = log.restart_at(mark.index, mark.term, &hard_state.encode());
        places.restarted(&restarted.map_err(StartError::Restart)?, mark.term);
        applied = mark.index;
        tracing::warn!(
            index = mark.index,
            "the log begins anew behind a snapshot whose installation was cut short"
        );
    }
    settle_force(disk, membership, &places, applied)?;
    let membership = membership.as_ref();
    let newest = snapshot.map(|report| (snapshot_mark(report, &places, membership), report.after));
    let mark = newest.clone().map_or(SnapshotMark::default(), |(mark, _)| mark);
    let tail = tail(disk, &places, applied)?;
    let term = places.term(applied).unwrap_or(mark.term);
    let has_diverged = membership.is_some_and(|known| recovered::has_diverged(known, applied, term));
    let start = membership.filter(|_| !has_diverged).map(|membership| {
        let configuration = recovered::configuration(membership, &mark, entries, applied);
        let members = recovered::members(membership, configuration);
        recovered::start(&places, &mark, hard_state, members, applied, tail)
    });
    Ok(RecoveredLog { start, newest, places, hard_state, applied, has_diverged })
}

/// The voters were set by force when the node ended: from here on the log says what
/// that was about. Noted before anything is appended.
fn settle_force(
    disk: &FileDisk,
    membership: &mut Option<Membership>,
    places: &EntryPlaces,
    final_index: u64,
) -> Result<(), StartError> {
    let Some(membership) = membership else { return Ok(()) };
    let Some(forced) = membership.forced.as_mut().filter(|forced| forced.through.is_none()) else {
        return Ok(());
    };
    forced.through = Some(places.next_index().saturating_sub(1));
    forced.committed = final_index;
    forced.terms = places.terms_from(final_index);
    tracing::warn!(?forced, voters = ?membership.base.members.voters, "this node begins anew with these voters");
    membership.store(disk).map_err(StartError::Identity)
}

/// A snapshot's place in the log, and who belonged to the cluster there.
fn snapshot_mark(
    report: &SnapshotReport,
    places: &EntryPlaces,
    membership: Option<&Membership>,
) -> SnapshotMark {
    let said = SnapshotState::decode(&report.state);
    let term = said.as_ref().map(|state| state.term).or_else(|| places.term(report.through));
    let configuration = said.and_then(|state| state.configuration).unwrap_or_default();
    let mut mark = SnapshotMark { index: report.through, term: term.unwrap_or_default(), configuration };
    if let Some(membership) = membership {
        mark.configuration = recovered::configuration(membership, &mark, &[], mark.index);
    }
    mark
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
