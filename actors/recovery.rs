//! Recovery: lock the directory, load the newest snapshot, replay the log.
//!
//! ```text
//! lock, probe, identity
//!   ─► snapshot_loader: the newest snapshot that is whole, into a table per shard
//!   ─► log_replayer: the entries behind its S, over the tables
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datastore::engine::{Placement, Table};
use datastore::persistence::{
    FILE_MODE, FaultyDisk, FileDisk, Identity, LOCK_FILE, LOG_DIRECTORY, LogOptions, Membership, NodeUuid,
    OpenError, PassedOver, RecoveryReport, Replay, SNAPSHOT_DIRECTORY, SnapshotError, SnapshotInfo,
    SnapshotReport, first_retained_index, initialise, is_disk_full, list_snapshots, load_newest_snapshot,
    put_aside, remove_older_aside, remove_unfinished_snapshot,
};
use datastore::replication::doubt::Condition;
use datastore::replication::dynamo::SnapshotVector;
use datastore::replication::handshake::PROTOCOL;
use datastore::replication::recovered::SnapshotState;
use datastore::settings::{Mode, Settings};

use crate::cluster::Cluster;
use crate::converging_recovery::{self, RecoveredConverging, ReplayedConverging};
use crate::directory_mark;
use crate::directory_probe::{probe, say_who_may_read};
use crate::dynamo_cluster::DynamoCluster;
use crate::founding;
use crate::idle_memory::give_back;
use crate::log_replayer::{NodeLog, Replayed, replay_log};
use crate::memory_figures::Resident;
use crate::node::SnapshotFigures;
use crate::progress::directory_has;
use crate::random::random_u64;
use crate::recovered_log::{RecoveredLog, recovered_log};
use crate::snapshot_loader::load_snapshot;
use crate::start_error::StartError;

/// What recovery leaves.
pub struct Recovered {
    /// A table per shard.
    pub tables: Vec<Table>,
    /// The log, ready to be appended to.
    pub log: NodeLog,
    /// What the directory is.
    pub identity: Identity,
    /// The directory, for snapshots.
    pub disk: FileDisk,
    /// The last entry.
    pub last_index: u64,
    /// What the log has grown by since the snapshot's S, in bytes.
    pub log_bytes: u64,
    /// For `stats`.
    pub snapshot_figures: SnapshotFigures,
    /// Held as long as the process lives.
    pub lock: File,
    /// `None` on a node that is on its own.
    pub cluster: Option<Arc<Cluster>>,
    /// Of a replicated log.
    pub replicated: Option<RecoveredLog>,
    /// In dynamo mode.
    pub dynamo: Option<(Arc<DynamoCluster>, RecoveredConverging)>,
}

/// A node whose directory was read.
pub struct Read {
    pub(crate) recovered: Recovered,
    /// What the process occupied before that, and with it.
    pub(crate) before: Option<Resident>,
    pub(crate) with_data: Option<Resident>,
}

/// Recovers the data directory. `port` is the one that the caller's socket is bound to:
/// clients may connect already, and are told that the node is `starting`.
pub fn read_directory(settings: &Settings, port: u16) -> Result<Read, StartError> {
    let before = Resident::now();
    let recovered = recover(settings, port)?;
    // Recovery reads a log segment at a time, 64 MiB that a node at rest doesn't need.
    give_back();
    Ok(Read { recovered, before, with_data: Resident::now() })
}

/// Brings back what the directory holds, or makes a new one.
fn recover(settings: &Settings, port: u16) -> Result<Recovered, StartError> {
    let path = &settings.data_dir;
    let unusable = |source| StartError::Directory { path: path.clone(), source };
    let disk = FileDisk::open(path).map_err(unusable)?;
    let lock = lock_directory(path)?;
    probe(path)?;
    say_who_may_read(&disk).map_err(unusable)?;
    let options = LogOptions { segment_bytes: settings.segment_bytes, ..LogOptions::default() };
    let identity = identity(&disk, &options, settings)?;
    remove_unfinished_snapshot(&disk).map_err(StartError::Snapshot)?;
    directory_has(bytes_to_read(&disk, path));

    if settings.mode == Mode::Dynamo {
        return recover_converging(disk, lock, options, identity, settings, port);
    }
    let clustered =
        founding::is_clustered(settings, Membership::load(&disk).map_err(StartError::Identity)?.as_ref());
    if clustered && settings.truncate_damaged_log {
        return Err(StartError::TruncatedMember);
    }
    let in_doubt = clustered && is_in_doubt(path).map_err(unusable)?;
    let began = std::time::Instant::now();
    let placement = Placement::new(identity.placement_seed, settings.shards);
    let replay_over = |range: Replay, _: Option<&SnapshotReport>, tables: Vec<Table>| {
        let faulty = FaultyDisk::new(disk.clone(), settings.drop_rate, random_u64()?);
        replay_log(faulty, options.clone(), &identity, (range, clustered), placement, tables)
    };
    let (loaded, replayed) =
        load_and_replay(&disk, &identity, settings, (placement, Table::new), replay_over)?;
    let Replayed { mut tables, mut log, recovery, members } = replayed;
    let Loaded { snapshot, passed_over } = loaded;
    let report = recovery.report.clone();
    set_aside(&disk, &passed_over).map_err(StartError::Snapshot)?;
    report_recovery(&report, snapshot.as_ref(), &tables, began.elapsed());

    let snapshot_figures = figures(snapshot.as_ref());
    let (mut last_index, log_bytes) = (report.last_index, report.entry_bytes);
    let mut membership = founding::membership(&disk, &identity, settings, port, last_index > 0)?;
    let (mut replicated, mut cluster) = (None, None);
    if clustered {
        let mut recovered =
            recovered_log(&disk, &mut log, recovery, snapshot.as_ref(), (&mut membership, &members))?;
        last_index = recovered.applied;
        recovered.start.iter_mut().for_each(|start| start.in_doubt = in_doubt);
        let member = the_cluster(&disk, &identity, settings, membership)?;
        if in_doubt {
            member.conditions.set_own(Condition::InDoubt);
        }
        if recovered.has_diverged {
            member.applied_index.store(recovered.applied, Ordering::Relaxed);
            member.set_left_behind();
            tracing::error!("{}", member.refusal());
        }
        replicated = Some(recovered);
        cluster = Some(Arc::new(member));
        tables = tables.into_iter().map(Table::with_state_hash).collect();
    }
    Ok(Recovered {
        tables,
        log,
        identity,
        disk,
        last_index,
        log_bytes,
        snapshot_figures,
        lock,
        cluster,
        replicated,
        dynamo: None,
    })
}

/// Of the newest snapshot and of all segments of the log: what clients are told of the progress
/// rests on it, and nothing else, so that what can't be listed counts as nothing.
fn bytes_to_read(disk: &FileDisk, path: &Path) -> u64 {
    let bytes_of = |name: &Path| std::fs::metadata(name).map_or(0, |file| file.len());
    let newest = list_snapshots(disk).unwrap_or_default().into_iter().max_by_key(|info| info.through);
    let segments = std::fs::read_dir(path.join(LOG_DIRECTORY)).into_iter().flatten().flatten();
    newest.map_or(0, |info| bytes_of(&path.join(info.name)))
        + segments.map(|file| bytes_of(&file.path())).sum::<u64>()
}

/// Whether a member's directory may be an older copy, by its mark. That is stored, whatever
/// becomes of the directory.
fn is_in_doubt(path: &Path) -> io::Result<bool> {
    if !directory_mark::is_copy(path)? {
        match directory_mark::keep_if_unmarked(path) {
            // The next start does it; until then a copy of this directory is known for none.
            Err(error) if is_disk_full(&error) => tracing::warn!(%error, "the directory was not marked"),
            marked => marked?,
        }
        return Ok(false);
    }
    directory_mark::doubt(path)?;
    tracing::warn!(
        "THIS DIRECTORY IS A COPY, and may be older than what this node has promised to the others: it counts for no \
         majority before a leader has brought it up to date. That ends by itself once a majority of the others is \
         there, or else all nodes that vote are"
    );
    Ok(true)
}

/// As [`recover`], in dynamo mode.
fn recover_converging(
    disk: FileDisk,
    lock: File,
    options: LogOptions,
    identity: Identity,
    settings: &Settings,
    port: u16,
) -> Result<Recovered, StartError> {
    let began = std::time::Instant::now();
    let path = &settings.data_dir;
    let unusable = |source| StartError::Directory { path: path.clone(), source };
    let is_copy = directory_mark::is_copy(path).map_err(unusable)?;
    if settings.truncate_damaged_log && !is_copy {
        // The cut is durable before its new stream is.
        directory_mark::doubt(path).map_err(unusable)?;
    }
    let placement = Placement::new(identity.placement_seed, settings.shards);
    let replay_over = |range: Replay, snapshot: Option<&SnapshotReport>, tables: Vec<Table>| {
        let faulty = FaultyDisk::new(disk.clone(), settings.drop_rate, random_u64()?);
        let state = match snapshot {
            None => SnapshotVector::default(),
            Some(report) => SnapshotVector::decode(&report.state).ok_or(StartError::SnapshotState)?,
        };
        converging_recovery::replay(faulty, options.clone(), &identity, range, state, tables)
    };
    let (loaded, replayed) = load_and_replay(
        &disk,
        &identity,
        settings,
        (placement, converging_recovery::empty_table),
        replay_over,
    )?;
    let ReplayedConverging { tables, log, recovery, history, conflicts, conflicts_omitted } = replayed;
    let Loaded { snapshot, passed_over } = loaded;
    let report = recovery.report.clone();
    set_aside(&disk, &passed_over).map_err(StartError::Snapshot)?;
    report_recovery(&report, snapshot.as_ref(), &tables, began.elapsed());
    if is_copy {
        tracing::warn!("this directory is a copy of another one: it goes on as a new stream of entries");
    }
    let has_lost_entries = is_copy || report.truncated.is_some();
    if settings.truncate_damaged_log && !has_lost_entries {
        directory_mark::keep(path).map_err(unusable)?;
    }
    let (converging, cluster) =
        converging_recovery::recovered(settings, &identity, port, (history, recovery), has_lost_entries)?;
    cluster.lost(conflicts, conflicts_omitted);
    Ok(Recovered {
        tables,
        log,
        identity,
        disk,
        last_index: report.last_index,
        log_bytes: report.entry_bytes,
        snapshot_figures: figures(snapshot.as_ref()),
        lock,
        cluster: None,
        replicated: None,
        dynamo: Some((Arc::new(cluster), converging)),
    })
}

fn figures(snapshot: Option<&SnapshotReport>) -> SnapshotFigures {
    SnapshotFigures {
        last_index: snapshot.map_or(0, |report| report.through),
        last_bytes: snapshot.map_or(0, |report| report.file_bytes),
        ..SnapshotFigures::default()
    }
}

fn the_cluster(
    disk: &FileDisk,
    identity: &Identity,
    settings: &Settings,
    membership: Option<Membership>,
) -> Result<Cluster, StartError> {
    let boot = random_u64()?;
    let named = settings.peers.clone();
    let protocol = (PROTOCOL.0, settings.peer_protocol_max);
    let named = (named, settings.advertise.clone());
    Ok(Cluster::new(settings.node_id, identity.node, boot, membership, named, (disk.clone(), protocol)))
}

/// One process a directory. The file stays for ever: a lock on a file that was
/// unlinked would exclude nobody.
fn lock_directory(path: &Path) -> Result<File, StartError> {
    let unusable = |source| StartError::Directory { path: path.to_path_buf(), source };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path.join(LOCK_FILE))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked { path: path.to_path_buf() }),
        Err(std::fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}

fn identity(disk: &FileDisk, options: &LogOptions, settings: &Settings) -> Result<Identity, StartError> {
    let wanted = settings.mode.as_str();
    if let Some(identity) = Identity::load(disk).map_err(StartError::Identity)? {
        if identity.mode != wanted {
            return Err(StartError::OtherMode { found: identity.mode, wanted });
        }
        return Ok(identity);
    }
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&random_u64()?.to_ne_bytes());
    uuid[8..].copy_from_slice(&random_u64()?.to_ne_bytes());
    let identity = Identity {
        node: NodeUuid(uuid),
        cluster: None,
        mode: wanted.to_string(),
        placement_seed: (random_u64()?, random_u64()?),
        created_by: env!("CARGO_PKG_VERSION").to_string(),
    };
    initialise(disk, options, &identity, random_u64()?).map_err(StartError::Log)?;
    tracing::info!(node = %identity.node, "new data directory");
    Ok(identity)
}

/// What the newest usable snapshot holds.
struct Loaded {
    snapshot: Option<SnapshotReport>,
    /// Newer ones that can't be used.
    passed_over: Vec<PassedOver>,
}

/// Loads a snapshot and replays the log over it. A log that is to be cut at its
/// damage may end before the newest snapshot does; then an older one is taken.
fn load_and_replay<R>(
    disk: &FileDisk,
    identity: &Identity,
    settings: &Settings,
    (placement, new_table): (Placement, fn(Placement, usize) -> Table),
    replay_over: impl Fn(Replay, Option<&SnapshotReport>, Vec<Table>) -> Result<R, StartError>,
) -> Result<(Loaded, R), StartError> {
    let mut at_most = u64::MAX;
    loop {
        let log_begins = first_retained_index(disk, identity.node).map_err(StartError::Log)?;
        let load = |info: &SnapshotInfo| load_snapshot(disk, info, identity.node, placement, new_table);
        let (newest, passed_over) =
            load_newest_snapshot(disk, log_begins, at_most, load).map_err(StartError::Snapshot)?;
        let (tables, snapshot) = match newest {
            Some((tables, report)) => (tables, Some(report)),
            None => ((0..placement.shards()).map(|shard| new_table(placement, shard)).collect(), None),
        };
        let loaded = Loaded { snapshot, passed_over };
        let range = replay_range(loaded.snapshot.as_ref(), settings.truncate_damaged_log);
        match replay_over(range, loaded.snapshot.as_ref(), tables) {
            Ok(replayed) => return Ok((loaded, replayed)),
            Err(StartError::Log(OpenError::EndsTooEarly { last, .. })) if settings.truncate_damaged_log => {
                at_most = last;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the log has to bring. An installed snapshot is a whole state by itself,
/// and asks nothing of a log that may not have begun anew behind it.
fn replay_range(snapshot: Option<&SnapshotReport>, truncate_damaged: bool) -> Replay {
    let Some(report) = snapshot else { return Replay { truncate_damaged, ..Replay::default() } };
    let installed = SnapshotState::decode(&report.state).is_some_and(|state| state.installed);
    let must_reach = if installed { 0 } else { report.through };
    Replay { after: report.after, must_reach, truncate_damaged }
}

/// Renames snapshots that can't be used to "snapshots/damaged-…": neither may
/// they count among those that are kept, nor may a later start take one for the
/// newest when the log has gone on from before it.
fn set_aside(disk: &FileDisk, passed_over: &[PassedOver]) -> Result<(), SnapshotError> {
    let mut fresh = Vec::new();
    for PassedOver { name, reason } in passed_over {
        let failed = |source| SnapshotError::Io { file: name.clone(), source };
        let target = name.replacen('/', "/damaged-", 1);
        let renamed_to = put_aside(disk, SNAPSHOT_DIRECTORY, name, &target).map_err(failed)?;
        tracing::warn!(file = name, reason, renamed_to, "a snapshot that can't be used was set aside");
        fresh.push(renamed_to);
    }
    match remove_older_aside(disk, SNAPSHOT_DIRECTORY, DAMAGED, &fresh) {
        Ok(removed) => say_removed(&removed),
        Err(error) => tracing::warn!(%error, "snapshots that were set aside earlier could not be removed"),
    }
    Ok(())
}

/// How the names of snapshots begin that were set aside.
const DAMAGED: &str = "damaged-";

fn say_removed(removed: &[String]) {
    if !removed.is_empty() {
        tracing::info!(?removed, "what earlier starts had set aside was removed; the last few are kept");
    }
}

fn report_recovery(
    report: &RecoveryReport,
    snapshot: Option<&SnapshotReport>,
    tables: &[Table],
    took: std::time::Duration,
) {
    if let Some(torn) = &report.torn {
        tracing::warn!(
            file = torn.file,
            offset = torn.offset,
            bytes = torn.bytes,
            copied_to = torn.copied_to.as_deref().unwrap_or("nowhere: the disk has no room"),
            "a write that a crash cut short, and nobody was told of, was cut from the log"
        );
    }
    if let Some(damage) = &report.truncated {
        tracing::error!(%damage, set_aside = ?report.set_aside, "DAMAGED LOG CUT (--truncate-damaged-log): acknowledged writes behind the damage are lost");
    }
    if report.rest_of_cut > 0 {
        tracing::warn!(
            segments = report.rest_of_cut,
            "the log had a hole in front of what the snapshot needs of it: the rest of a cut that a crash cut short was removed"
        );
    }
    say_removed(&report.removed_aside);
    tracing::info!(
        keys = tables.iter().map(Table::len).sum::<usize>(),
        snapshot_entries = snapshot.map_or(0, |snapshot| snapshot.entries),
        log_entries = report.entries,
        log_bytes = report.bytes,
        last_index = report.last_index,
        took_ms = took.as_millis() as u64,
        "recovered"
    );
}
