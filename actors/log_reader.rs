//! Reads entries of the replicated log back, for followers that lag behind what
//! memory has: on a thread of its own, so that neither the disk's writer nor the
//! replica waits for it.

use crossbeam_channel::Sender;
use datastore::persistence::{FileDisk, FrameRun, OwnedEntry, read_entries};
use datastore::replication::message::{EntryKind, LogEntry};

use crate::mailbox::Mailbox;
use crate::replication_messages::ReplicationMessage;
use crate::start_error::StartError;
use crate::wal_writer::{WalMessage, WalWriter};

/// Entries `low..high`, which lie at `runs`; at most so many bytes, but one at least.
pub struct Wanted {
    /// The fetch's number.
    pub number: u64,
    /// Where they lie; empty if they are gone.
    pub runs: Vec<FrameRun>,
    /// The first index.
    pub low: u64,
    /// Behind the last index.
    pub high: u64,
    /// Bytes of payloads.
    pub bytes_max: u64,
}

/// Starts the thread.
pub(crate) fn start(disk: FileDisk, wal_writer: Mailbox<WalWriter>) -> Result<Sender<Wanted>, StartError> {
    let (sender, wanted) = crossbeam_channel::unbounded::<Wanted>();
    crate::start::spawn("log-reader", move || {
        for want in wanted {
            let number = want.number;
            let entries = read(&disk, &want);
            wal_writer.send(WalMessage::Replication(ReplicationMessage::Fetched { number, entries }));
        }
    })?;
    Ok(sender)
}

/// Nothing if they are gone: the follower is sent a snapshot then.
fn read(disk: &FileDisk, want: &Wanted) -> Vec<LogEntry> {
    match read_entries(disk, &want.runs, want.low, want.high, want.bytes_max) {
        Ok(entries) => entries.into_iter().map_while(log_entry).collect(),
        Err(error) => {
            tracing::warn!(%error, low = want.low, high = want.high, "entries can't be read back for a follower");
            Vec::new()
        }
    }
}

/// An entry as the replica knows it; `None` for a kind that this version doesn't know.
pub(crate) fn log_entry(entry: OwnedEntry) -> Option<LogEntry> {
    let kind = EntryKind::from_byte(entry.kind)?;
    Some(LogEntry { index: entry.index, term: entry.term, kind, payload: entry.payload })
}
