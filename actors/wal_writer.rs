//! WalWriter: gathers what the shards append, lets the parts of multi-key
//! writes meet, and feeds the disk thread, which makes one frame and one sync
//! of all that arrived while the last sync ran. What comes back durable goes to
//! the shards that wait for it.
//!
//! ```text
//! shards ──Append──► WalWriter ──Group──► disk thread: one frame, one sync
//! shards ◄─Committed─ WalWriter ◄─Synced──────┘
//! ```
//!
//! On a member of a cluster the group is proposed to the replicated log instead:
//! see `replicated_log.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use crossbeam_channel::Sender;
use datastore::engine::Append;
use datastore::error::Error;
use datastore::limits;
use datastore::replication::appends::{Appends, Met};

use crate::Cast;
use crate::acknowledgements::{self, Acknowledgement};
use crate::connection::{Connection, ConnectionMessage};
use crate::disk_thread::DiskOrder;
use crate::mailbox::{Counted, Mailbox};
use crate::node::Node;
use crate::replicated_log::ReplicatedLog;
use crate::replication_messages::ReplicationMessage;
use crate::shard::ShardMessage;
use crate::snapshot_writer::SnapshotMessage;

/// What the WalWriter hears.
pub enum WalMessage {
    /// From a Shard: writes to log.
    Append {
        /// Which shard.
        shard: usize,
        /// Its writes.
        append: Append,
        /// The term of office in which the shard looked at their conditions; 0 without a cluster.
        office: u64,
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
    /// From the node: no more writes will come. Told when the log's end is certain.
    Stop(Sender<()>),
    /// About the replicated log; nobody says it on a node that is on its own.
    Replication(ReplicationMessage),
}

/// The actor.
pub struct WalWriter {
    node: Arc<Node>,
    cast: Arc<Cast>,
    disk: Sender<DiskOrder>,
    /// `None` on a node that is on its own.
    replicated: Option<Box<ReplicatedLog>>,
    appends: Appends,
    expecting: HashMap<u64, Mailbox<Connection>>,
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
        cast: Arc<Cast>,
        disk: Sender<DiskOrder>,
        replicated: Option<ReplicatedLog>,
        last_index: u64,
    ) -> WalWriter {
        // A frame of a node on its own is one write; an entry has to be sent, too, by
        // threads that heartbeats share.
        let group_bytes_wanted =
            if replicated.is_some() { limits::ENTRY_BYTES_WANTED } else { limits::FRAME_BYTES_MAX };
        WalWriter {
            node,
            cast,
            disk,
            replicated: replicated.map(Box::new),
            appends: Appends::new(group_bytes_wanted),
            expecting: HashMap::new(),
            flush_is_due: false,
            handed_over: last_index,
            snapshot_under_way: false,
            no_snapshot_before: None,
        }
    }

    /// The office in which what comes from the shards counts.
    fn office(&self) -> u64 {
        self.replicated.as_ref().map_or(0, |replicated| replicated.office())
    }

    fn append(&mut self, shard: usize, append: Append, looked_at: u64) {
        let office = self.office();
        for Met { multi, let_go } in self.appends.append(shard, append, looked_at, office) {
            if let Some(connection) = self.expecting.remove(&multi) {
                connection.send(ConnectionMessage::Met);
            }
            let Some((writes, error)) = let_go else { continue };
            for (shard, write) in writes {
                let (writes, error) = (vec![write], error.clone());
                self.cast.shards[shard].send(ShardMessage::Refused { writes, error });
            }
        }
    }

    fn flush(&mut self) {
        if self.replicated.is_some() {
            return self.propose_what_may();
        }
        while let Some(group) = self.appends.take_group() {
            self.order(DiskOrder::Group(group));
        }
    }

    /// Hands groups to the replicated log as long as it takes some.
    fn propose_what_may(&mut self) {
        while let Some(replicated) = self.replicated.as_mut().filter(|replicated| !replicated.must_hold()) {
            let Some(group) = self.appends.take_group() else { return };
            replicated.propose(group);
            self.pump_once();
        }
    }

    /// Carries on with the replicated log after something was said to it.
    fn pump(&mut self) {
        self.pump_once();
        // What was held back: there may be room for it now. A group that a flush
        // is due for waits for that, and for company.
        if !self.flush_is_due || self.appends.has_closed_group() {
            self.propose_what_may();
        }
    }

    fn pump_once(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let outcome = replicated.pump();
        if outcome.office_ended {
            // Their writes were answered when the office ended.
            self.appends.office_ended();
        }
        self.handed_over = replicated.handed_over();
        if outcome.snapshot_wanted {
            self.make_snapshot();
        }
    }

    fn replication(&mut self, message: ReplicationMessage) {
        if let ReplicationMessage::Persisted { log_bytes, segments, .. } = &message {
            self.snapshot_if_due(*log_bytes, *segments);
        }
        let Some(replicated) = &mut self.replicated else { return };
        replicated.hear(message);
        self.pump();
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
            self.cast.snapshot_writer.send(SnapshotMessage::Make { asked_by: None });
        }
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
            WalMessage::Append { shard, append, office } => {
                self.append(shard, append, office);
                if self.replicated.is_none() && self.appends.has_closed_group() {
                    self.flush();
                }
                if !self.flush_is_due && !self.appends.is_empty() {
                    self.flush_is_due = true;
                    // Runs when the mailbox is empty: what arrived meanwhile shares the frame.
                    context.notify(Flush);
                }
            }
            WalMessage::Expect { multi, reply_to } => {
                self.expecting.insert(multi, reply_to);
            }
            WalMessage::Synced { index, acknowledgements, log_bytes, segments } => {
                self.handed_over = index;
                acknowledgements::committed(&self.cast.shards, index, acknowledgements);
                self.snapshot_if_due(log_bytes, segments);
            }
            WalMessage::Failed { acknowledgements, error, fatal } => {
                acknowledgements::refused(&self.cast.shards, acknowledgements, &error);
                if fatal {
                    if let Some(replicated) = &mut self.replicated {
                        replicated.disk_failed(&error);
                        self.appends.office_ended();
                    }
                    crate::start::stop_after_fatal_error(&error);
                }
            }
            WalMessage::DiskFull => self.make_snapshot(),
            WalMessage::BeginWalk => {
                self.snapshot_under_way = true;
                self.order(DiskOrder::SnapshotBegins);
                for shard in &self.cast.shards {
                    shard.send(ShardMessage::BeginWalk { handed_over: self.handed_over });
                }
            }
            WalMessage::Cut { through } => self.order(DiskOrder::Cut { through }),
            WalMessage::SnapshotEnded { made } => {
                self.snapshot_under_way = false;
                self.no_snapshot_before = (!made).then(|| Instant::now() + SNAPSHOT_RETRY);
            }
            WalMessage::Stop(done) => {
                if let Some(replicated) = &mut self.replicated {
                    replicated.stop();
                }
                self.order(DiskOrder::Stop(done));
            }
            WalMessage::Replication(message) => self.replication(message),
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
        self.flush();
    }
}
