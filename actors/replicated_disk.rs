//! What the disk thread does for a replicated log.
//!
//! ```text
//! Persist, Persist, Persist ─► one frame, one sync ─► what they promise to peers ─► Persisted
//! ```
//!
//! A write that fails decides nothing here: peers may have the same entries, and
//! so they are framed again behind the seal, until the disk takes them or the log
//! can't be sealed (then the node stops).
//!
//! A persist that only raises the commit index needs no sync: it is written with
//! the next one that does, or when the log is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datastore::persistence::{
    AppendEntry, AppendError, Disk, EntryPlaces, FileDisk, NodeUuid, SnapshotError, SnapshotReader,
    Unreadable, host_of, list_snapshots,
};
use datastore::replication::message::{LogEntry, Message, MessageKind};
use datastore::replication::raft::{HardState, Persist};

use crate::Cast;
use crate::directory_mark;
use crate::disk_thread::{DiskOrder, DiskThread, told};
use crate::log_reader::Wanted;
use crate::peer_links::RarelySaid;
use crate::replication_messages::{PeerMessage, ReplicationMessage, SnapshotToSend};
use crate::wal_writer::WalMessage;

/// Between two attempts on a disk that refuses.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);
/// A disk that has refused for so long is said, and so often.
const STALLED_AFTER: Duration = Duration::from_secs(1);
const STALLED_EVERY: Duration = Duration::from_secs(5);
/// Between two attempts on a disk that is full.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// What the disk thread of a member has beside the log.
pub struct ReplicatedDisk {
    /// Where each entry of the log lies.
    pub places: EntryPlaces,
    /// The latest hard state that was ordered.
    pub hard_state: HardState,
    /// It says more than the log does.
    pub hard_state_waits: bool,
    /// Peers' and the WalWriter's mailboxes.
    pub cast: Arc<Cast>,
    /// Who reads entries back.
    pub reader: crossbeam_channel::Sender<Wanted>,
    /// The directory, for snapshots.
    pub directory: FileDisk,
    /// This node's directory.
    pub node: NodeUuid,
    /// Entries on their way to the disk, in bytes.
    pub persisting_bytes: Arc<AtomicUsize>,
    /// What was said of snapshots that can't be read.
    pub(crate) doubts: RarelySaid,
}

/// Persists that share a frame.
struct Batch {
    persists: Vec<Persist>,
    /// The index behind the last entry; `None` before there is one.
    next_index: Option<u64>,
    bytes: usize,
}

impl Batch {
    fn new(first: Persist) -> Batch {
        let mut batch = Batch { persists: Vec::new(), next_index: None, bytes: 0 };
        batch.push(first);
        batch
    }

    fn push(&mut self, persist: Persist) {
        if let Some(last) = persist.entries.last() {
            self.next_index = Some(last.index + 1);
            self.bytes += persist.entries.iter().map(LogEntry::memory_bytes).sum::<usize>();
        }
        self.persists.push(persist);
    }

    /// Whether this one's entries follow those that are there: one that replaces
    /// some of them gets a frame of its own, and so does a snapshot.
    fn may_take(&self, persist: &Persist) -> bool {
        let first = persist.entries.first().map(|entry| entry.index);
        persist.snapshot.is_none()
            && self.bytes < datastore::limits::ENTRY_BYTES_WANTED * 8
            && (first.is_none() || self.next_index.is_none() || first == self.next_index)
    }
}

impl<D: Disk> DiskThread<D> {
    /// Makes this durable, with what else is there; gives the first order that is something else.
    pub(crate) fn persist(&mut self, first: Persist) -> Option<DiskOrder> {
        let mut batch = Batch::new(first);
        let mut other = None;
        while let Some(order) = self.next_order() {
            match order {
                DiskOrder::Persist(persist) if batch.may_take(&persist) => batch.push(*persist),
                order => {
                    other = Some(order);
                    break;
                }
            }
        }
        self.check_room_sometimes();
        if self.write(&batch) {
            self.promise(batch);
        }
        other
    }

    /// Whether it is durable; if not, the node stops.
    fn write(&mut self, batch: &Batch) -> bool {
        let Some(replicated) = &mut self.replicated else { return false };
        if let Some(hard_state) = batch.persists.iter().rev().find_map(|persist| persist.hard_state) {
            replicated.hard_state = hard_state;
            replicated.hard_state_waits = true;
        }
        if let Some(mark) = batch.persists.first().and_then(|persist| persist.snapshot.clone()) {
            let restarted = self.until_it_succeeds(|this| {
                let Some(replicated) = &mut this.replicated else { return Ok(()) };
                let hard_state = replicated.hard_state.at_restart(mark.index);
                let appended = this.log.restart_at(mark.index, mark.term, &hard_state.encode())?;
                replicated.places.restarted(&appended, mark.term);
                // What is known of entries behind it is written with them.
                replicated.hard_state_waits = hard_state != replicated.hard_state;
                Ok(())
            });
            if !restarted {
                return false;
            }
        }
        let entries: Vec<&LogEntry> = batch.persists.iter().flat_map(|persist| &persist.entries).collect();
        let waits = self.replicated.as_ref().is_some_and(|replicated| replicated.hard_state_waits);
        let must_sync = waits && batch.persists.iter().any(|persist| persist.must_sync);
        if entries.is_empty() && !must_sync {
            return true;
        }
        self.append_entries(&entries)
    }

    fn append_entries(&mut self, entries: &[&LogEntry]) -> bool {
        let payloads: Vec<[&[u8]; 1]> = entries.iter().map(|entry| [&entry.payload[..]]).collect();
        let records: Vec<AppendEntry<'_>> = (entries.iter().zip(&payloads))
            .map(|(entry, payload)| AppendEntry { kind: entry.kind.to_byte(), term: entry.term, payload })
            .collect();
        self.until_it_succeeds(|this| {
            let Some(replicated) = &mut this.replicated else { return Ok(()) };
            let hard_state = replicated.hard_state.encode();
            let hard_state = replicated.hard_state_waits.then_some(&hard_state[..]);
            let first_index = entries.first().map_or(this.log.next_index(), |entry| entry.index);
            let began = Instant::now();
            let appended = this.log.append_at(first_index, &records, hard_state);
            this.node.record_sync(began.elapsed(), entries.len());
            let appended = appended?;
            replicated.places.appended(&appended, entries.iter().map(|entry| entry.term));
            replicated.hard_state_waits = false;
            this.growth_bytes += appended.bytes;
            this.room.unchecked_bytes += appended.bytes;
            Ok(())
        })
    }

    /// Whether the disk has taken it; if not, the node stops.
    fn until_it_succeeds(&mut self, mut write: impl FnMut(&mut Self) -> Result<(), AppendError>) -> bool {
        let began = Instant::now();
        let mut said: Option<Instant> = None;
        loop {
            let failure = match write(self) {
                Ok(()) => return true,
                Err(failure) => failure,
            };
            self.publish();
            if began.elapsed() >= STALLED_AFTER && said.is_none_or(|said| said.elapsed() >= STALLED_EVERY) {
                said = Some(Instant::now());
                tracing::warn!(%failure, for_ms = began.elapsed().as_millis() as u64, "the disk takes no log writes");
            }
            let pause = match &failure {
                AppendError::Refused { .. } => REFUSED_PAUSE,
                AppendError::DiskFull { .. } => {
                    self.refused_for_room();
                    FULL_PAUSE
                }
                AppendError::TooLarge | AppendError::NotReplaceable { .. } | AppendError::Unsealed { .. } => {
                    let (error, _) = told(&failure);
                    tracing::error!(%failure, "the replicated log can't be written");
                    let acknowledgements = Vec::new();
                    self.wal_writer.send(WalMessage::Failed { acknowledgements, error, fatal: true });
                    return false;
                }
            };
            tracing::debug!(%failure, "a log write failed; it is done again");
            if !self.wait_for_the_disk(pause) {
                return false;
            }
        }
    }

    /// Nothing else may be written before what was refused; but room may be given
    /// back, and the node may stop. Says whether to try again.
    fn wait_for_the_disk(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while let Ok(order) = self.orders.recv_deadline(until) {
            match order {
                DiskOrder::Cut { through } => self.cut(through),
                DiskOrder::Stop(done) => {
                    self.stopping = Some(done);
                    return false;
                }
                order => self.backlog.push_back(order),
            }
        }
        true
    }

    /// What waited for the disk leaves, and the replica hears of it.
    fn promise(&mut self, batch: Batch) {
        self.publish();
        let persists = batch.persists.len();
        if let Some(replicated) = &self.replicated {
            replicated.persisting_bytes.fetch_sub(batch.bytes, Ordering::Relaxed);
        }
        let number = batch.persists.last().map_or(0, |persist| persist.number);
        for message in batch.persists.into_iter().flat_map(|persist| persist.then_send) {
            if message.kind == MessageKind::Snapshot {
                self.stream_snapshot(message);
            } else if let Some(peer) = self.replicated.as_ref().and_then(|r| r.cast.peer(host_of(message.to)))
            {
                peer.send(PeerMessage::Send(message));
            }
        }
        let (log_bytes, segments) = (self.growth_bytes, self.segments_seen);
        self.say(ReplicationMessage::Persisted { number, persists, log_bytes, segments });
    }

    fn say(&self, message: ReplicationMessage) {
        self.wal_writer.send(WalMessage::Replication(message));
    }

    /// The commit index that no other write has taken along. It may be lost: a
    /// node that stops doesn't wait for a disk that refuses it.
    pub(crate) fn write_waiting_hard_state(&mut self) {
        if self.stopping.is_none()
            && self.replicated.as_ref().is_some_and(|replicated| replicated.hard_state_waits)
        {
            self.append_entries(&[]);
        }
    }

    /// The directory's mark says whether it may be an older copy. That it may be, the replica waits
    /// for, and asks for again; that it is none any more, the next start finds out anew.
    pub(crate) fn note_doubt(&self, begins: bool) {
        let directory = &self.node.settings.data_dir;
        let noted = if begins { directory_mark::doubt(directory) } else { directory_mark::keep(directory) };
        match noted {
            Ok(()) if begins => self.say(ReplicationMessage::DoubtStored),
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, begins, "the directory's mark can't be written; this node may go on in doubt");
            }
        }
    }

    /// Asks for entries to be read back.
    pub(crate) fn fetch(&self, number: u64, low: u64, high: u64, bytes_max: u64) {
        let Some(replicated) = &self.replicated else { return };
        let runs = replicated.places.between(low, high, bytes_max);
        // The reader ends only with the process.
        let _ = replicated.reader.send(Wanted { number, runs, low, high, bytes_max });
    }

    /// An entry was not found where it lay when it was asked for: what was cut or replaced meanwhile is
    /// gone, anything else can't be read. Nothing is cut here between the two.
    pub(crate) fn not_found(&mut self, number: Option<u64>, unreadable: &Unreadable) {
        let Some(replicated) = &self.replicated else { return };
        let Unreadable { index, run, error } = unreadable;
        if replicated.places.has_at(*index, &run.place) {
            // It can't be cut with its segment as long as that is appended to.
            if let Err(error) = self.log.leave_segment_of(*index) {
                tracing::debug!(%error, "the log goes on in the segment that can't be read");
            }
            self.publish();
            self.say(ReplicationMessage::Unreadable { index: *index, reason: error.to_string() });
        }
        if let Some(number) = number {
            self.say(ReplicationMessage::Fetched { number, entries: Vec::new() });
        }
    }

    /// The log was cut: what of it is left, and who must know.
    pub(crate) fn after_cut(&mut self) {
        let first_index = self.log.figures().first_index;
        let Some(replicated) = &mut self.replicated else { return };
        replicated.places.cut(first_index);
        self.say(ReplicationMessage::LogCut { first_index });
    }

    /// Hands the snapshot that the message names to the peer's actor.
    pub(crate) fn stream_snapshot(&mut self, message: Message) {
        let to = message.to;
        let Some(replicated) = &mut self.replicated else { return };
        let peer = replicated.cast.peer(to);
        let snapshot = snapshot_to_send(replicated, message).unwrap_or_else(|error| {
            if replicated.doubts.is_due(&error.to_string()) {
                tracing::warn!(%error, "a snapshot can't be sent, and another one is made");
            }
            self.wal_writer.send(WalMessage::SnapshotDoubtful);
            None
        });
        match snapshot.zip(peer) {
            Some((snapshot, peer)) => peer.send(PeerMessage::StreamSnapshot(Box::new(snapshot))),
            // A newer one has taken its place: the replica asks again.
            None => self.say(ReplicationMessage::SnapshotSent { to, arrived: false }),
        }
    }
}

/// `None`: it is there no more.
fn snapshot_to_send(
    replicated: &ReplicatedDisk,
    message: Message,
) -> Result<Option<SnapshotToSend>, SnapshotError> {
    let Some(index) = message.snapshot.as_ref().map(|mark| mark.index) else { return Ok(None) };
    let directory = &replicated.directory;
    let known = list_snapshots(directory)?.into_iter().rev().find(|info| info.through == index);
    let Some(info) = known else { return Ok(None) };
    let Ok(file) = directory.open(&info.name) else { return Ok(None) };
    let after = SnapshotReader::open(directory, &info, replicated.node)?.header().after;
    let runs = replicated.places.between(after + 1, index + 1, u64::MAX);
    Ok(Some(SnapshotToSend { message, name: info.name, file, after, runs }))
}
