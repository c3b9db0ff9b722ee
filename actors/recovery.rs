//! Recovery: lock the directory, load the newest snapshot, replay the log.
//!
//! ```text
//! snapshot ─ chunks ─► parsers (a thread per core) ─ entries by shard ─┐
//! log ─ frames checked, effects by shard ──────────────────────────────┴─► builders
//!                                                         (a thread per shard, one table each)
//! ```

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use datastore::engine::{Effect, Entry, Placement, Requests, Table, Version, replay};
use datastore::persistence::{
    Disk, FaultyDisk, FileDisk, Identity, IdentityError, LineError, Log, LogOptions, NodeUuid, OpenError,
    RecoveredEntry, RecoveryReport, Replay, SNAPSHOT_DIRECTORY, SnapshotError, SnapshotInfo, SnapshotReader,
    SnapshotReport, first_retained_index, initialise, list_snapshots, parse_line, remove_unfinished_snapshot,
};
use datastore::settings::Settings;

use crate::node::SnapshotFigures;
use crate::progress::Progress;

/// The log as the node uses it: a real directory, with `--drop-rate`'s faults above it.
pub type NodeLog = Log<FaultyDisk<FileDisk>>;

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
    /// Frames since the last snapshot, in bytes.
    pub log_bytes: u64,
    /// The S of each snapshot kept, oldest first.
    pub snapshots_kept: Vec<u64>,
    /// For `stats`.
    pub snapshot_figures: SnapshotFigures,
    /// Held as long as the process lives.
    pub lock: File,
}

/// Why a node can't start. Nothing was served.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are what their types say: a path, a name, the system's error
pub enum StartError {
    /// The data directory can't be used.
    Directory { path: PathBuf, source: io::Error },
    /// Another process has it.
    Locked { path: PathBuf },
    /// The start-up probe failed: the directory doesn't do what the log relies on.
    Probe { path: PathBuf, step: &'static str, source: io::Error },
    /// The identity file can't be read or written.
    Identity(IdentityError),
    /// The directory belongs to another mode of replication.
    OtherMode { found: String, wanted: &'static str },
    /// The log can't be opened.
    Log(OpenError),
    /// No snapshot can be used.
    Snapshot(SnapshotError),
    /// The system gave no random numbers.
    Random(io::Error),
    /// A thread could not be started.
    Thread { name: String, source: io::Error },
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Directory { path, source } => {
                write!(formatter, "the data directory {} can't be used: {source}", path.display())
            }
            StartError::Locked { path } => write!(
                formatter,
                "the data directory {} is in use by another process: stop it, or give another --data-dir",
                path.display()
            ),
            StartError::Probe { path, step, source } => write!(
                formatter,
                "the data directory {} failed the start-up probe: could not {step}: {source}",
                path.display()
            ),
            StartError::Identity(error) => error.fmt(formatter),
            StartError::OtherMode { found, wanted } => write!(
                formatter,
                "the data directory was made with --mode {found} and this start is --mode {wanted}: export its data \
                 and import it into a new directory to move"
            ),
            StartError::Log(error) => error.fmt(formatter),
            StartError::Snapshot(error) => error.fmt(formatter),
            StartError::Random(source) => write!(formatter, "the system gave no random numbers: {source}"),
            StartError::Thread { name, source } => {
                write!(formatter, "the thread {name} could not be started: {source}")
            }
        }
    }
}

impl std::error::Error for StartError {}

/// Brings back what the directory holds, or makes a new one.
pub fn recover(settings: &Settings) -> Result<Recovered, StartError> {
    let path = &settings.data_dir;
    let unusable = |source| StartError::Directory { path: path.clone(), source };
    let disk = FileDisk::open(path).map_err(unusable)?;
    let lock = lock_directory(path)?;
    probe(path)?;
    let options = LogOptions { segment_bytes: settings.segment_bytes, ..LogOptions::default() };
    let identity = identity(&disk, &options, settings)?;
    remove_unfinished_snapshot(&disk).map_err(StartError::Snapshot)?;

    let began = std::time::Instant::now();
    let placement = Placement::new(identity.placement_seed, settings.shards);
    let (loaded, log, report) = load_and_replay(&disk, options, &identity, settings, placement)?;
    let Loaded { tables, snapshot, passed_over } = loaded;
    set_aside(&disk, &passed_over).map_err(StartError::Snapshot)?;
    report_recovery(&report, snapshot.as_ref(), &tables, began.elapsed());

    let snapshots_kept = starts_of_snapshots(&disk, identity.node)?;
    let snapshot_figures = SnapshotFigures {
        last_index: snapshot.as_ref().map_or(0, |report| report.through),
        last_bytes: snapshot.as_ref().map_or(0, |report| report.file_bytes),
        ..SnapshotFigures::default()
    };
    let (last_index, log_bytes) = (report.last_index, report.bytes);
    Ok(Recovered {
        tables,
        log,
        identity,
        disk,
        last_index,
        log_bytes,
        snapshots_kept,
        snapshot_figures,
        lock,
    })
}

/// One process a directory. The file stays for ever: a lock on a file that was
/// unlinked would exclude nobody.
fn lock_directory(path: &Path) -> Result<File, StartError> {
    let unusable = |source| StartError::Directory { path: path.to_path_buf(), source };
    let file =
        File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked { path: path.to_path_buf() }),
        Err(std::fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// Does once what the log will rely on, so that a read-only or broken directory
/// is found before anything is acknowledged.
fn probe(path: &Path) -> Result<(), StartError> {
    let failed = |step| move |source| StartError::Probe { path: path.to_path_buf(), step, source };
    let (first, second) = (path.join("probe.new"), path.join("probe"));
    let file = File::create(&first).map_err(failed("create a file"))?;
    io::Write::write_all(&mut &file, b"probe").map_err(failed("write a file"))?;
    file.sync_all().map_err(failed("sync a file"))?;
    std::fs::rename(&first, &second).map_err(failed("rename a file"))?;
    std::fs::remove_file(&second).map_err(failed("remove a file"))?;
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync the directory"))
}

fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        Ok(_) => Err(StartError::Random(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(StartError::Random(error.into())),
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
    tables: Vec<Table>,
    snapshot: Option<SnapshotReport>,
    /// Newer ones that can't be used.
    passed_over: Vec<String>,
}

/// Loads a snapshot and replays the log over it. A log that is to be cut at its
/// damage may end before the newest snapshot does; then an older one is taken.
fn load_and_replay(
    disk: &FileDisk,
    options: LogOptions,
    identity: &Identity,
    settings: &Settings,
    placement: Placement,
) -> Result<(Loaded, NodeLog, RecoveryReport), StartError> {
    let mut at_most = u64::MAX;
    loop {
        let loaded = load_newest_snapshot(disk, identity.node, placement, at_most)?;
        let replay_range = Replay {
            after: loaded.snapshot.as_ref().map_or(0, |report| report.after),
            must_reach: loaded.snapshot.as_ref().map_or(0, |report| report.through),
            truncate_damaged: settings.truncate_damaged_log,
        };
        let faulty = FaultyDisk::new(disk.clone(), settings.drop_rate, random_u64()?);
        match replay_log(faulty, options.clone(), identity, replay_range, placement, loaded.tables) {
            Ok((tables, log, report)) => return Ok((Loaded { tables, ..loaded }, log, report)),
            Err(StartError::Log(OpenError::EndsTooEarly { last, .. })) if settings.truncate_damaged_log => {
                at_most = last;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Loads the newest snapshot that is whole, that the log can complete, and that
/// shows no entry beyond `at_most`.
fn load_newest_snapshot(
    disk: &FileDisk,
    node: NodeUuid,
    placement: Placement,
    at_most: u64,
) -> Result<Loaded, StartError> {
    let log_begins = first_retained_index(disk, node).map_err(StartError::Log)?;
    let mut first_reason = None;
    let mut passed_over = Vec::new();
    for info in list_snapshots(disk).map_err(StartError::Snapshot)?.into_iter().rev() {
        let reason = if info.through > at_most {
            format!("it shows writes up to entry {}, the log can be read up to entry {at_most}", info.through)
        } else {
            match load_snapshot(disk, &info, node, placement) {
                Ok((tables, report)) if log_begins <= report.after.saturating_add(1) => {
                    return Ok(Loaded { tables, snapshot: Some(report), passed_over });
                }
                Ok((_, report)) => format!("it needs the log from entry {} on", report.after + 1),
                Err(error @ (SnapshotError::NewerFormat { .. } | SnapshotError::Foreign { .. })) => {
                    return Err(StartError::Snapshot(error));
                }
                Err(error) => error.to_string(),
            }
        };
        tracing::warn!(file = info.name, reason, "snapshot passed over");
        first_reason.get_or_insert(reason);
        passed_over.push(info.name);
    }
    match (first_reason, passed_over.first()) {
        // Without any snapshot, a log from its beginning still has everything.
        (Some(reason), Some(file)) if log_begins > 1 => {
            Err(StartError::Snapshot(SnapshotError::NoneUsable { file: file.clone(), reason, log_begins }))
        }
        _ => Ok(Loaded { tables: empty_tables(placement), snapshot: None, passed_over }),
    }
}

/// Renames snapshots that can't be used to "snapshots/damaged-…": neither may
/// they count among those that are kept, nor may a later start take one for the
/// newest when the log has gone on from before it.
fn set_aside(disk: &FileDisk, passed_over: &[String]) -> Result<(), SnapshotError> {
    for name in passed_over {
        let failed = |source| SnapshotError::Io { file: name.clone(), source };
        let target = name.replacen('/', "/damaged-", 1);
        disk.rename(name, &target).map_err(failed)?;
        disk.sync_directory(SNAPSHOT_DIRECTORY).map_err(failed)?;
        tracing::warn!(file = name, renamed_to = target, "a snapshot that can't be used was set aside");
    }
    Ok(())
}

fn empty_tables(placement: Placement) -> Vec<Table> {
    (0..placement.shards()).map(|shard| Table::new(placement, shard)).collect()
}

/// Entries on their way to a shard's table, with their hashes.
type EntryBatch = Vec<(u64, Entry)>;

/// How many batches may wait for a builder, or chunks for a parser.
const BATCHES_WAITING: usize = 8;

fn load_snapshot(
    disk: &FileDisk,
    info: &SnapshotInfo,
    node: NodeUuid,
    placement: Placement,
) -> Result<(Vec<Table>, SnapshotReport), SnapshotError> {
    let mut reader = SnapshotReader::open(disk, info, node)?;
    let parsers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let (chunks, chunks_waiting) = bounded::<Vec<u8>>(BATCHES_WAITING);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..placement.shards()).map(|_| bounded::<EntryBatch>(BATCHES_WAITING)).unzip();
        let builders: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(shard, batches)| scope.spawn(move || build(Table::new(placement, shard), &batches)))
            .collect();
        let parsing: Vec<_> = (0..parsers)
            .map(|_| {
                let (chunks, senders) = (chunks_waiting.clone(), senders.clone());
                scope.spawn(move || parse_chunks(&chunks, &senders, placement))
            })
            .collect();
        drop((chunks_waiting, senders));

        let progress = Progress::new("loading the snapshot", reader.file_bytes());
        let read = read_chunks(&mut reader, &chunks, &progress);
        drop(chunks);
        let parsed = join_all(parsing).into_iter().find_map(Result::err);
        let tables = join_all(builders);
        read?;
        match parsed {
            Some(reason) => Err(reader.bad_line(reason)),
            None => Ok((tables, reader.report()?)),
        }
    })
}

fn join_all<T>(threads: Vec<std::thread::ScopedJoinHandle<'_, T>>) -> Vec<T> {
    // A panic ends the process before this could see it.
    threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
}

fn read_chunks(
    reader: &mut SnapshotReader<'_>,
    chunks: &Sender<Vec<u8>>,
    progress: &Progress,
) -> Result<(), SnapshotError> {
    while let Some(chunk) = reader.next_chunk()? {
        progress.at(reader.file_position());
        if chunks.send(chunk.bytes).is_err() {
            break; // every parser met a bad line and has gone: the caller hears it from them
        }
    }
    Ok(())
}

fn parse_chunks(
    chunks: &Receiver<Vec<u8>>,
    senders: &[Sender<EntryBatch>],
    placement: Placement,
) -> Result<(), LineError> {
    for chunk in chunks {
        let mut batches: Vec<EntryBatch> = senders.iter().map(|_| Vec::new()).collect();
        let lines = chunk.strip_suffix(b"\n").unwrap_or(&chunk);
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let parsed = parse_line(line)?;
            let hash = placement.hash(&parsed.key);
            let entry = Entry::new(parsed.version, &parsed.key, parsed.value, parsed.vector.as_deref());
            batches[placement.shard(hash)].push((hash, entry));
        }
        for (sender, batch) in senders.iter().zip(batches) {
            // A builder ends only when its senders do.
            let _ = sender.send(batch);
        }
    }
    Ok(())
}

fn build(mut table: Table, batches: &Receiver<EntryBatch>) -> Table {
    for batch in batches {
        for (hash, entry) in batch {
            table.insert(entry, hash);
        }
    }
    table
}

/// An effect of the log on its way to a shard's table.
struct Replayed {
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

fn replay_log(
    disk: FaultyDisk<FileDisk>,
    options: LogOptions,
    identity: &Identity,
    range: Replay,
    placement: Placement,
    tables: Vec<Table>,
) -> Result<(Vec<Table>, NodeLog, RecoveryReport), StartError> {
    let seed = random_u64()?;
    std::thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            tables.iter().map(|_| bounded::<Vec<Replayed>>(BATCHES_WAITING)).unzip();
        let builders: Vec<_> = tables
            .into_iter()
            .zip(receivers)
            .map(|(table, batches)| scope.spawn(move || replay_batches(table, &batches)))
            .collect();
        let mut router = Router { placement, batches: senders.iter().map(|_| Vec::new()).collect(), senders };
        let progress = Progress::new("replaying the log", 0);
        let mut bytes = 0;
        let mut visit = |entry: RecoveredEntry<'_>| {
            bytes += entry.payload.len() as u64;
            progress.at(bytes);
            router.route(&entry)
        };
        let opened = Log::open(disk, options, identity, range, salts(seed), &mut visit);
        router.flush();
        drop(router);
        let tables = join_all(builders);
        let (log, report) = opened.map_err(StartError::Log)?;
        Ok((tables, log, report))
    })
}

/// Salts tell a segment's frames from older ones in the same blocks; they need
/// to differ, not to be secret.
fn salts(seed: u64) -> impl FnMut() -> u64 + Send + 'static {
    let mut state = seed;
    move || {
        // SplitMix64: every state gives another output, for 2^64 of them.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

struct Router {
    placement: Placement,
    batches: Vec<Vec<Replayed>>,
    senders: Vec<Sender<Vec<Replayed>>>,
}

impl Router {
    fn route(&mut self, entry: &RecoveredEntry<'_>) -> Result<(), datastore::persistence::VisitError> {
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
            self.batches[shard].push(Replayed { version, hash, effect });
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

fn replay_batches(mut table: Table, batches: &Receiver<Vec<Replayed>>) -> Table {
    for batch in batches {
        for Replayed { version, hash, effect } in batch {
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

fn starts_of_snapshots(disk: &FileDisk, node: NodeUuid) -> Result<Vec<u64>, StartError> {
    let infos = list_snapshots(disk).map_err(StartError::Snapshot)?;
    // One that can't even be opened was passed over above and doesn't hold the log back.
    Ok(infos
        .iter()
        .filter_map(|info| SnapshotReader::open(disk, info, node).ok())
        .map(|r| r.header().after)
        .collect())
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
            copied_to = torn.copied_to,
            "a write that a crash cut short, and nobody was told of, was cut from the log"
        );
    }
    if let Some(damage) = &report.truncated {
        tracing::error!(%damage, set_aside = ?report.set_aside, "DAMAGED LOG CUT (--truncate-damaged-log): acknowledged writes behind the damage are lost");
    }
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
