//! Which snapshots stay, and how far the log may be cut behind them.
//!
//! ```text
//! snapshots/  │ E = 50, S = 48 │ E = 90, S = 88 │      the log is cut up to 48
//!             the newest is damaged: the one before and the log from 49 on have everything
//! ```
//!
//! Copies are counted as they lie on the disk. Two snapshots with no entry between them have one name, and so they are
//! one copy: the second takes the first one's place, and the log stays behind the one before both.

use super::disk::{Disk, SNAPSHOT_DIRECTORY, remove_durably};
use super::identity::NodeUuid;
use super::snapshot::{SnapshotError, SnapshotInfo, at, list_snapshots, verify_snapshot};
use super::snapshot_reader::SnapshotReader;

/// Removes all but the newest `keep` snapshots. Gives the last entry that the log need not have for any of those that
/// are there now; nothing if they are fewer than `keep`.
///
/// # Errors
///
/// One of them can't be read, so that nobody knows where it needs the log; or one can't be removed.
pub fn keep_newest_snapshots<D: Disk>(
    disk: &D,
    node: NodeUuid,
    keep: usize,
) -> Result<Option<u64>, SnapshotError> {
    remove_old_snapshots(disk, keep)?;
    let kept = list_snapshots(disk)?;
    let after = |info: &SnapshotInfo| Ok(SnapshotReader::open(disk, info, node)?.header().after);
    let starts = kept.iter().map(after).collect::<Result<Vec<u64>, SnapshotError>>()?;
    Ok(starts.into_iter().min().filter(|_| kept.len() >= keep))
}

/// As [`keep_newest_snapshots`] with one to keep, once that was read from end to end; nothing is done where there are
/// no others.
///
/// # Errors
///
/// It is not whole, or can't be read: then the others stay.
pub fn remove_all_but_newest_whole<D: Disk>(disk: &D, node: NodeUuid) -> Result<Option<u64>, SnapshotError> {
    let found = list_snapshots(disk)?;
    let [_, .., newest] = &found[..] else { return Ok(None) };
    verify_snapshot(disk, newest, node)?;
    keep_newest_snapshots(disk, node, 1)
}

/// Removes all but the newest `keep` snapshots, oldest first; how many it were.
pub fn remove_old_snapshots<D: Disk>(disk: &D, keep: usize) -> Result<usize, SnapshotError> {
    let found = list_snapshots(disk)?;
    let surplus = found.len().saturating_sub(keep);
    for info in &found[..surplus] {
        remove_durably(disk, SNAPSHOT_DIRECTORY, &info.name).map_err(at(&info.name))?;
    }
    Ok(surplus)
}
