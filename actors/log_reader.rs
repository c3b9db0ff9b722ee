//! Reads entries of the replicated log back, for followers that lag behind what
//! memory has: on a thread of its own, so that neither the disk's writer nor the
//! replica waits for it.

use std::time::Duration;

use crossbeam_channel::Sender;
use datastore::persistence::{FileDisk, FrameRun, OwnedEntry, read_readable};
use datastore::replication::message::{EntryKind, LogEntry};

use crate::mailbox::Mailbox;
use crate::replication_messages::ReplicationMessage;
use crate::start_error::StartError;
use crate::wal_writer::{WalMessage, WalWriter};

/// Whoever asked asks again at once: a process that has no file to open has to wait.
const PASSING_PAUSE: Duration = Duration::from_secs(1);

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
            wal_writer.send(WalMessage::Replication(read(&disk, &want)));
        }
    })?;
    Ok(sender)
}

/// What is there, up to the first that isn't; nothing if they are gone: the follower is sent a snapshot
/// then.
fn read(disk: &FileDisk, want: &Wanted) -> ReplicationMessage {
    let number = want.number;
    let (entries, unreadable) = read_readable(disk, &want.runs, want.low, want.high, want.bytes_max);
    match unreadable {
        Some(unreadable) if entries.is_empty() => {
            if unreadable.error.may_pass() {
                tracing::warn!(error = %unreadable.error, "entries can't be read back now; they are asked for again");
                std::thread::sleep(PASSING_PAUSE);
                return ReplicationMessage::Fetched { number, entries: Vec::new() };
            }
            ReplicationMessage::NotFound { number: Some(number), unreadable }
        }
        _ => {
            let entries = entries.into_iter().map_while(log_entry).collect();
            ReplicationMessage::Fetched { number, entries }
        }
    }
}

/// An entry as the replica knows it; `None` for a kind that this version doesn't know.
pub(crate) fn log_entry(entry: OwnedEntry) -> Option<LogEntry> {
    let kind = EntryKind::from_byte(entry.kind)?;
    Some(LogEntry { index: entry.index, term: entry.term, kind, payload: entry.payload })
}
