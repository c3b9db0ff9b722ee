//! Loading a snapshot on all cores.
//!
//! ```text
//! file ─ chunks of lines ─► parsers (a thread per core) ─ entries by shard ─► builders
//!                                                       (a thread per shard, one table each)
//! ```

use crossbeam_channel::{Receiver, Sender, bounded};
use datastore::engine::{Entry, Placement, Table};
use datastore::persistence::{
    FileDisk, LineError, NodeUuid, SnapshotError, SnapshotInfo, SnapshotReader, SnapshotReport, parse_line,
};

use crate::progress::Progress;

/// Entries on their way to a shard's table, with their hashes.
type EntryBatch = Vec<(u64, Entry)>;

/// How many batches may wait for a builder, or chunks for a parser.
pub(crate) const BATCHES_WAITING: usize = 8;

/// Loads one snapshot into tables, on all cores.
pub(crate) fn load_snapshot(
    disk: &FileDisk,
    info: &SnapshotInfo,
    node: NodeUuid,
    placement: Placement,
    new_table: fn(Placement, usize) -> Table,
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
            .map(|(shard, batches)| scope.spawn(move || build(new_table(placement, shard), &batches)))
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

/// The results of threads that can't have panicked: a panic ends the process first.
pub(crate) fn join_all<T>(threads: Vec<std::thread::ScopedJoinHandle<'_, T>>) -> Vec<T> {
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
            batches[placement.shard(hash)].push((hash, parsed.entry()));
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
            if entry.is_tombstone() {
                table.bury(entry, hash);
            } else {
                table.insert(entry, hash);
            }
        }
    }
    table
}
