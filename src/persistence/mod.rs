//! What is durable: the write-ahead log, the snapshots that let it be cut, and
//! the identity of the directory that holds them. See `log.rs` for how a write
//! becomes durable, `seal.rs` for how one is refused, `recovery.rs` for how both
//! are found again. A replicated log decides later what is final: `replayer.rs`
//! for what recovery makes of that, `places.rs` and `read.rs` for reading entries
//! back, `restart.rs` for beginning anew behind a snapshot.

mod aside;
mod configuration;
mod cut;
mod disk;
mod drop_rate;
mod file_disk;
pub mod frame;
mod full;
mod identity;
mod initialise;
mod inspection;
mod log;
mod log_report;
mod membership;
mod memory_disk;
mod memory_state;
mod mutant;
mod places;
mod read;
mod recovery;
mod recovery_report;
mod repair;
mod replayer;
mod restart;
mod rotation;
mod scan;
mod seal;
pub mod segment;
mod snapshot;
mod snapshot_line;
mod snapshot_reader;
mod snapshot_size;
mod snapshots_kept;
mod sync_times;
#[cfg(test)]
mod tests;

pub use aside::{put_aside, remove_older_aside};
pub use configuration::{Configuration, Members, WITNESS, host_of, is_witness, voters_of, witness_in};
pub use disk::{Disk, LOG_DIRECTORY, ROOT_DIRECTORY, SNAPSHOT_DIRECTORY, SyncPurpose};
pub use drop_rate::{DropFigures, FaultyDisk, FaultyFile, next_random};
pub use file_disk::{FILE_MODE, FileDisk, LOCK_FILE};
pub use frame::AppendEntry;
pub use full::{DiskGauge, Room, SnapshotForRoom};
pub use identity::{IDENTITY_FILE, IDENTITY_FORMAT, Identity, IdentityError, NodeUuid};
pub use initialise::initialise;
pub use inspection::{LogInspection, SegmentEnd, SegmentInspection, inspect_log};
pub use log::Log;
pub use log_report::{AppendError, Appended, CutReport, LogFigures, LogOptions};
pub use membership::{Forced, MEMBERSHIP_FILE, Member, Membership};
pub use memory_disk::{MemoryDisk, MemoryFile};
pub use memory_state::{CrashKind, FailedSync, Fault, Operation};
pub use places::{EntryPlaces, FrameRun, Place};
pub use read::{OwnedEntry, ReadError, Unreadable, read_entries, read_readable};
pub use recovery::first_retained_index;
pub use recovery_report::{
    Damage, OpenError, RecoveredEntry, RecoveryReport, Replay, ReplicatedRecovery, TailEntry, TornTail,
    VisitError,
};
pub use replayer::CommitOf;
pub use rotation::is_disk_full;
pub use segment::{SEGMENT_FORMAT, prepare_spare, ready_spares, segment_name};
pub use snapshot::{
    PassedOver, SNAPSHOT_FORMAT, SnapshotError, SnapshotFile, SnapshotHeader, SnapshotInfo, SnapshotReport,
    list_snapshots, load_newest_snapshot, newest_valid_snapshot, remove_unfinished_snapshot, verify_snapshot,
};
pub use snapshot_line::{LineError, SnapshotLine, parse_line};
pub use snapshot_reader::{SnapshotChunk, SnapshotReader, SnapshotTrailer};
pub use snapshot_size::{Contents, SnapshotTook};
pub use snapshots_kept::{keep_newest_snapshots, remove_all_but_newest_whole, remove_old_snapshots};
pub use sync_times::SyncTimes;
