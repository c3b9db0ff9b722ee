//! Recovery in dynamo mode: entries of the log are merged into the snapshot's tables,
//! each shard's by a thread of its own, and what they lead to is put together.
//!
//! ```text
//! log ─ frames checked, entries decoded ─┬─► History: vector, members, from where peers are served
//!                                        └─► builders: a slice a shard, each takes what is its own
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use datastore::engine::{Conflict, Placement, Seen, Slice, Table};
use datastore::limits::{CONFLICTS_KEPT_BYTES_MAX, CONFLICTS_KEPT_MAX};
use datastore::persistence::{
    EntryPlaces, FaultyDisk, FileDisk, Identity, Log, LogOptions, RecoveredEntry, Replay, ReplicatedRecovery,
};
use datastore::replication::dynamo::entry::{Decoded, decode};
use datastore::replication::dynamo::{History, PROTOCOL, Place, SnapshotVector, Start, apply, begin};
use datastore::replication::message::EntryKind;
use datastore::settings::Settings;

use crate::dynamo_cluster::DynamoCluster;
use crate::log_replayer::{NodeLog, salts};
use crate::progress::Progress;
use crate::random::random_u64;
use crate::snapshot_loader::{BATCHES_WAITING, join_all};
use crate::start_error::StartError;

/// What recovery leaves of a converging log.
pub struct RecoveredConverging {
    /// What the replica begins with.
    pub start: Start,
    /// Where each entry lies.
    pub places: EntryPlaces,
    /// What the slices have seen of each stream.
    pub seen: Seen,
}

/// What a replay leaves.
pub(crate) struct ReplayedConverging {
    pub(crate) tables: Vec<Table>,
    pub(crate) log: NodeLog,
    pub(crate) recovery: ReplicatedRecovery,
    pub(crate) history: History,
    /// The last ones, of each shard, and how many more there were.
    pub(crate) conflicts: Vec<Conflict>,
    pub(crate) conflicts_omitted: u64,
}

/// Tables that keep tombstones, and their own hash.
pub(crate) fn empty_table(placement: Placement, shard: usize) -> Table {
    Table::new(placement, shard).with_tombstones().with_state_hash()
}

/// Entries sent to a builder at once.
const ENTRIES_PER_BATCH: usize = 64;

type Batch = Arc<Vec<(u64, Decoded)>>;

/// Opens the log and merges it into the tables, which have everything up to `state`.
pub(crate) fn replay(
    disk: FaultyDisk<FileDisk>,
    options: LogOptions,
    identity: &Identity,
    range: Replay,
    state: SnapshotVector,
    tables: Vec<Table>,
) -> Result<ReplayedConverging, StartError> {
    let seed = random_u64()?;
    let mut history = History::new(range.after, state.clone());
    std::thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            tables.iter().map(|_| bounded::<Batch>(BATCHES_WAITING)).unzip();
        let builders: Vec<_> = (tables.into_iter().zip(receivers).enumerate())
            .map(|(shard, (table, batches))| {
                let state = state.clone();
                scope.spawn(move || build(shard, table, &state, &batches))
            })
            .collect();
        let progress = Progress::new("replaying the log", 0);
        let (mut bytes, mut batch) = (0, Vec::new());
        let send = |batch: &mut Vec<(u64, Decoded)>| {
            let batch: Batch = Arc::new(std::mem::take(batch));
            // A builder ends only when its senders do.
            senders.iter().for_each(|sender| drop(sender.send(batch.clone())));
        };
        let mut visit = |entry: RecoveredEntry<'_>| {
            bytes += entry.payload.len() as u64;
            progress.at(bytes);
            if EntryKind::from_byte(entry.kind) != Some(EntryKind::Converging) {
                return Err("its kind is none of dynamo mode's: start the version that wrote it".into());
            }
            let decoded =
                decode(&Bytes::copy_from_slice(entry.payload)).ok_or("it is no entry of dynamo mode")?;
            history.take(entry.index, &decoded);
            batch.push((entry.index, decoded));
            if batch.len() >= ENTRIES_PER_BATCH {
                send(&mut batch);
            }
            Ok(())
        };
        let opened = Log::open_converging(disk, options, identity, range, salts(seed), &mut visit);
        send(&mut batch);
        drop(senders);
        let (tables, found): (Vec<_>, Vec<_>) = join_all(builders).into_iter().unzip();
        let (log, recovery) = opened.map_err(StartError::Log)?;
        let conflicts_omitted = found.iter().map(|found: &Found| found.omitted).sum();
        let conflicts = found.into_iter().flat_map(|found| found.conflicts).collect();
        Ok(ReplayedConverging { tables, log, recovery, history, conflicts, conflicts_omitted })
    })
}

/// The last races that were lost by merging.
#[derive(Default)]
struct Found {
    conflicts: VecDeque<Conflict>,
    bytes: usize,
    omitted: u64,
}

impl Found {
    fn add(&mut self, conflicts: Vec<Conflict>, omitted: u64) {
        self.omitted += omitted;
        self.bytes += conflicts.iter().map(Conflict::memory_bytes).sum::<usize>();
        self.conflicts.extend(conflicts);
        while self.conflicts.len() > CONFLICTS_KEPT_MAX || self.bytes > CONFLICTS_KEPT_BYTES_MAX {
            let Some(oldest) = self.conflicts.pop_front() else { return };
            self.bytes -= oldest.memory_bytes();
            self.omitted += 1;
        }
    }
}

/// Gives the table and what was lost by merging.
fn build(shard: usize, table: Table, state: &SnapshotVector, batches: &Receiver<Batch>) -> (Table, Found) {
    let placement = *table.placement();
    let mut slice: Slice<()> = Slice::new(table, 0);
    begin(&mut slice, state);
    let mut found = Found::default();
    for batch in batches {
        for (index, entry) in batch.iter() {
            apply(&mut slice, shard, *index, entry);
            let output = slice.output();
            output.changes.clear();
            let conflicts = std::mem::take(&mut output.conflicts);
            found.add(conflicts, std::mem::take(&mut output.conflicts_omitted));
        }
    }
    let applied = slice.applied_index();
    (slice.install(Table::new(placement, shard), applied), found)
}

/// Puts together what the node goes on with. `has_lost_entries`: the log was cut at damage.
pub(crate) fn recovered(
    settings: &Settings,
    identity: &Identity,
    port: u16,
    (history, recovery): (History, ReplicatedRecovery),
    has_lost_entries: bool,
) -> Result<(RecoveredConverging, DynamoCluster), StartError> {
    let host = settings.host.to_string();
    let place = Place { node_id: settings.node_id, directory: Some(identity.node), host, port };
    let known = history.members.streams().iter().find(|stream| stream.directory == identity.node);
    if let Some(stream) = known.filter(|stream| stream.node_id != settings.node_id) {
        return Err(StartError::OtherNode { found: stream.node_id, wanted: settings.node_id });
    }
    let named = settings.peers.iter();
    let named = named.map(|peer| Place {
        node_id: peer.node_id,
        directory: None,
        host: peer.host.clone(),
        port: peer.port,
    });
    let seed = random_u64()?;
    let mut draw = salts(seed);
    let seen = history.vector.seen();
    let start = Start {
        place: place.clone(),
        named: named.collect(),
        begins_anew: has_lost_entries,
        origins: Box::new(move || draw() as u32),
        history,
    };
    let protocol = (PROTOCOL.0, PROTOCOL.1.min(settings.peer_protocol_max));
    let spoken = (random_u64()?, protocol);
    let named = (settings.peers.clone(), settings.advertise.clone());
    let cluster = DynamoCluster::new(place, spoken, named, settings.clock_offset_ms);
    Ok((RecoveredConverging { start, places: recovery.places, seen }, cluster))
}
