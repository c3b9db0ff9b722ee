//! A leader's snapshot becomes this node's own, before its replica hears of it.
//!
//! ```text
//! snapshots/received, entries (S, E] ─► tables: the state at E
//!   ─► a snapshot of this node's own with S = E, durable and verified
//!   ─► WalWriter: the replica installs it, the log begins anew behind E
//! ```
//!
//! All in it was committed, so that it is right from the moment when it is
//! durable: a crash before the log begins anew leaves a newer state beside an
//! older log, which the next start puts right.

use datastore::engine::{Effect, Placement, Requests, Table, Version, replay};
use datastore::persistence::{
    Disk, FileDisk, NodeUuid, SnapshotError, SnapshotFile, SnapshotHeader, SnapshotInfo, SnapshotReport,
};
use datastore::replication::message::{EntryKind, LogEntry, SnapshotMark};
use datastore::replication::recovered::SnapshotState;

use crate::replication_messages::ReceivedSnapshot;
use crate::snapshot_loader::load_snapshot;

/// Makes it durable as this directory's own; gives the state, one table per shard.
pub(crate) fn make_own(
    disk: &FileDisk,
    node: NodeUuid,
    placement: Placement,
    zstd_level: Option<i32>,
    received: &ReceivedSnapshot,
) -> Result<(Vec<Table>, SnapshotReport), SnapshotError> {
    let mark = received.message.snapshot.clone().unwrap_or_default();
    let info = SnapshotInfo { name: received.name.clone(), through: mark.index };
    let (mut tables, _) = load_snapshot(disk, &info, received.from, placement, Table::new)?;
    apply(&mut tables, placement, &received.entries, &received.name)?;
    let report = write(disk, node, zstd_level, &mark, &tables)?;
    // It has served; a later one makes its file anew.
    let _ = disk.remove(&received.name);
    Ok((tables.into_iter().map(Table::with_state_hash).collect(), report))
}

/// Over the entries of the walk, which saw some of these already.
fn apply(
    tables: &mut [Table],
    placement: Placement,
    entries: &[LogEntry],
    file: &str,
) -> Result<(), SnapshotError> {
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Writes) {
        for item in Requests::new(&entry.payload) {
            let reason = "an entry that came with it can't be read";
            let damaged = |_| SnapshotError::Damaged { file: file.to_string(), offset: 0, reason };
            let (ordinal, effect): (u32, Effect<'_>) = item.map_err(damaged)?;
            let hash = placement.hash(effect.key());
            let version = Version { index: entry.index, ordinal };
            replay(&mut tables[placement.shard(hash)], version, &effect, hash);
        }
    }
    Ok(())
}

fn write(
    disk: &FileDisk,
    node: NodeUuid,
    zstd_level: Option<i32>,
    mark: &SnapshotMark,
    tables: &[Table],
) -> Result<SnapshotReport, SnapshotError> {
    let header = SnapshotHeader { node, after: mark.index };
    let mut file = SnapshotFile::create(disk.clone(), header, zstd_level)?;
    for table in tables {
        for position in 0..table.walk_length() {
            for entry in table.walk(position) {
                file.write_entry(entry)?;
            }
        }
    }
    file.finish(mark.index, &SnapshotState::new(mark.term, true, &mark.configuration).encode())
}
