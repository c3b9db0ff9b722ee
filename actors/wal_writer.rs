//! WalWriter: gathers what the shards append, lets the parts of multi-key
//! writes meet, and feeds the disk thread, which makes one frame and one sync
//! of all that arrived while the last sync ran. What comes back durable goes to
//! the shards that wait for it.
//!
//! ```text
//! shards ──Append──► WalWriter ──Group──► disk thread: one frame, one sync
//! shards ◄─Committed─ WalWriter ◄─Synced──────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use crossbeam_channel::Sender;
use datastore::engine::{Append, PartAppend, encode_request_header};
use datastore::error::Error;
use datastore::limits;
use datastore::ordering::{Arrival, Meeting};

use crate::connection::{Connection, ConnectionMessage};
use crate::disk_thread::{Acknowledgement, DiskOrder, Group};
use crate::mailbox::{Counted, Mailbox};
use crate::node::Node;
use crate::replication_messages::ReplicationMessage;
use crate::shard::{Shard, ShardMessage};
use crate::shard_messages::Committed;
use crate::snapshot_writer::{SnapshotMessage, SnapshotWriter};

/// What the WalWriter hears.
pub enum WalMessage {
    /// From a Shard: writes to log.
    Append {
        /// Which shard.
        shard: usize,
        /// Its writes.
        append: Append,
    },
    /// From a Connection, before the parts set out: tell it when they have met.
    Expect {
        /// The multi-key write.
        multi: u64,
        /// Who waits.
        reply_to: Mailbox<Connection>,
    },
    /// From the disk thread: this entry is durable.
    Synced {
        /// The entry's index.
        index: u64,
        /// Whose writes it holds, in the order of their ordinals.
        acknowledgements: Vec<Acknowledgement>,
        /// The log's growth since the last snapshot began.
        log_bytes: u64,
        /// Its segments.
        segments: usize,
    },
    /// From the disk thread: these writes did not become durable, or may not have.
    Failed {
        /// Whose writes they are.
        acknowledgements: Vec<Acknowledgement>,
        /// What their clients are told.
        error: Error,
        /// The log can't go on: the node must stop once its clients know.
        fatal: bool,
    },
    /// From the disk thread: the disk's reserve is reached. A snapshot is what
    /// lets the log give room back.
    DiskFull,
    /// From the SnapshotWriter: begin a walk in every shard.
    BeginWalk,
    /// From the SnapshotWriter: a snapshot is verified; entries up to here may go.
    Cut {
        /// The last entry that is no longer needed.
        through: u64,
    },
    /// From the SnapshotWriter: no snapshot is under way any more.
    SnapshotEnded {
        /// Whether there is a new one.
        made: bool,
    },
    /// About the replicated log; nobody says it on a node that is on its own.
    Replication(ReplicationMessage),
}

/// A part and the shard that it came from.
struct ShardPart {
    shard: usize,
    part: PartAppend,
}

/// The actor.
pub struct WalWriter {
    node: Arc<Node>,
    shards: Vec<Mailbox<Shard>>,
    snapshot_writer: Mailbox<SnapshotWriter>,
    disk: Sender<DiskOrder>,
    meeting: Meeting<ShardPart>,
    expecting: HashMap<u64, Mailbox<Connection>>,
    group: Group,
    flush_is_due: bool,
    /// The last entry handed to the shards.
    handed_over: u64,
    snapshot_under_way: bool,
    /// Set when one failed.
    no_snapshot_before: Option<Instant>,
}

/// After a snapshot that failed, the log waits so long before it asks for another.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(30);
/// Sealed segments are small: many of them call for a snapshot as much as many bytes do.
const SEGMENTS_MAX: usize = 512;

impl WalWriter {
    /// A writer over a log that recovery found to end at `last_index`.
    pub fn new(
        node: Arc<Node>,
        shards: Vec<Mailbox<Shard>>,
        snapshot_writer: Mailbox<SnapshotWriter>,
        disk: Sender<DiskOrder>,
        last_index: u64,
    ) -> WalWriter {
        WalWriter {
            node,
            shards,
            snapshot_writer,
            disk,
            meeting: Meeting::default(),
            expecting: HashMap::new(),
            group: Group::default(),
            flush_is_due: false,
            handed_over: last_index,
            snapshot_under_way: false,
            no_snapshot_before: None,
        }
    }

    fn append(&mut self, shard: usize, append: Append) {
        let Append { bytes, writes, parts } = append;
        if !writes.is_empty() {
            self.group.requests += writes.len();
            self.group.push(bytes);
            self.group.acknowledgements.push(Acknowledgement::Singles { shard, writes });
        }
        for part in parts {
            self.part(shard, part);
        }
    }

    fn part(&mut self, shard: usize, mut part: PartAppend) {
        let (multi, parts, refusal) = (part.multi, part.parts, part.refusal.take());
        let arrival = self.meeting.arrive(multi, parts, ShardPart { shard, part }, refusal);
        if arrival == Arrival::Waiting {
            return;
        }
        if let Some(connection) = self.expecting.remove(&multi) {
            connection.send(ConnectionMessage::Met);
        }
        match arrival {
            Arrival::Waiting => {}
            Arrival::Complete(parts) => {
                let mut header = Vec::new();
                encode_request_header(&mut header, parts.iter().map(|part| part.part.effects).sum());
                self.group.requests += 1;
                self.group.push(header);
                let acknowledged = parts.iter().map(|part| (part.shard, part.part.write)).collect();
                self.group.acknowledgements.push(Acknowledgement::Multi { parts: acknowledged });
                parts.into_iter().for_each(|part| self.group.push(part.part.bytes));
            }
            Arrival::Refused(parts, error) => {
                for part in parts {
                    let writes = vec![part.part.write];
                    self.shards[part.shard].send(ShardMessage::Refused { writes, error: error.clone() });
                }
            }
        }
    }

    fn synced(&mut self, index: u64, acknowledgements: Vec<Acknowledgement>) {
        self.handed_over = index;
        let mut per_shard: Vec<Vec<(u32, u32)>> = vec![Vec::new(); self.shards.len()];
        let mut ordinal = 0;
        for acknowledgement in acknowledgements {
            match acknowledgement {
                Acknowledgement::Singles { shard, writes } => {
                    let numbered = writes.into_iter().zip(ordinal..);
                    per_shard[shard].extend(numbered);
                    ordinal = per_shard[shard].last().map_or(ordinal, |(_, last)| last + 1);
                }
                Acknowledgement::Multi { parts } => {
                    for (shard, write) in parts {
                        per_shard[shard].push((write, ordinal));
                    }
                    ordinal += 1;
                }
            }
        }
        for (shard, writes) in self.shards.iter().zip(per_shard) {
            if !writes.is_empty() {
                shard.send(ShardMessage::Committed(Committed { index, writes }));
            }
        }
    }

    fn failed(&mut self, acknowledgements: Vec<Acknowledgement>, error: &Error) {
        let mut per_shard: Vec<Vec<u32>> = vec![Vec::new(); self.shards.len()];
        for acknowledgement in acknowledgements {
            match acknowledgement {
                Acknowledgement::Singles { shard, writes } => per_shard[shard].extend(writes),
                Acknowledgement::Multi { parts } => {
                    parts.into_iter().for_each(|(shard, write)| per_shard[shard].push(write));
                }
            }
        }
        for (shard, writes) in self.shards.iter().zip(per_shard) {
            if !writes.is_empty() {
                shard.send(ShardMessage::Refused { writes, error: error.clone() });
            }
        }
    }

    fn flush(&mut self) {
        let group = std::mem::take(&mut self.group);
        self.order(DiskOrder::Group(group));
    }

    fn order(&self, order: DiskOrder) {
        // The disk thread ends only with the process.
        if self.disk.send(order).is_err() {
            tracing::error!("the disk thread is gone; stopping");
            std::process::abort();
        }
    }

    fn snapshot_if_due(&mut self, log_bytes: u64, segments: usize) {
        let is_due = log_bytes >= self.node.settings.snapshot_every_bytes || segments >= SEGMENTS_MAX;
        if is_due {
            self.make_snapshot();
        }
    }

    fn make_snapshot(&mut self) {
        let too_soon = self.no_snapshot_before.is_some_and(|until| Instant::now() < until);
        if !too_soon && !self.snapshot_under_way {
            self.snapshot_under_way = true;
            self.snapshot_writer.send(SnapshotMessage::Make { asked_by: None });
        }
    }
}

impl PartialEq for ShardPart {
    fn eq(&self, other: &Self) -> bool {
        (self.shard, self.part.write) == (other.shard, other.part.write)
    }
}

impl Actor for WalWriter {
    type Context = Context<Self>;
}

impl Handler<Counted<WalMessage>> for WalWriter {
    type Result = ();

    fn handle(&mut self, counted: Counted<WalMessage>, context: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            WalMessage::Append { shard, append } => {
                self.append(shard, append);
                if self.group.bytes >= limits::FRAME_BYTES_MAX {
                    self.flush();
                }
                if !self.flush_is_due && self.group.requests > 0 {
                    self.flush_is_due = true;
                    // Runs when the mailbox is empty: what arrived meanwhile shares the frame.
                    context.notify(Flush);
                }
            }
            WalMessage::Expect { multi, reply_to } => {
                self.expecting.insert(multi, reply_to);
            }
            WalMessage::Synced { index, acknowledgements, log_bytes, segments } => {
                self.synced(index, acknowledgements);
                self.snapshot_if_due(log_bytes, segments);
            }
            WalMessage::Failed { acknowledgements, error, fatal } => {
                self.failed(acknowledgements, &error);
                if fatal {
                    crate::start::stop_after_fatal_error(&error);
                }
            }
            WalMessage::DiskFull => self.make_snapshot(),
            WalMessage::BeginWalk => {
                self.snapshot_under_way = true;
                self.order(DiskOrder::SnapshotBegins);
                for shard in &self.shards {
                    shard.send(ShardMessage::BeginWalk { handed_over: self.handed_over });
                }
            }
            WalMessage::Cut { through } => self.order(DiskOrder::Cut { through }),
            WalMessage::SnapshotEnded { made } => {
                self.snapshot_under_way = false;
                self.no_snapshot_before = (!made).then(|| Instant::now() + SNAPSHOT_RETRY);
            }
            WalMessage::Replication(_) => {}
        }
    }
}

/// To itself: the mailbox is empty, hand what gathered to the disk.
struct Flush;

impl Message for Flush {
    type Result = ();
}

impl Handler<Flush> for WalWriter {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush_is_due = false;
        if self.group.requests > 0 {
            self.flush();
        }
    }
}
