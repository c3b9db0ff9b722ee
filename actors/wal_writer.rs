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

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use crossbeam_channel::Sender;
use datastore::engine::{Append, PartAppend, encode_request_header};
use datastore::error::{Code, Error};
use datastore::limits;
use datastore::ordering::{Arrival, Meeting};

use crate::Cast;
use crate::acknowledgements::{self, Acknowledgement, Group};
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

/// A part and the shard that it came from.
struct ShardPart {
    shard: usize,
    part: PartAppend,
    office: u64,
}

/// The actor.
pub struct WalWriter {
    node: Arc<Node>,
    cast: Arc<Cast>,
    disk: Sender<DiskOrder>,
    /// `None` on a node that is on its own.
    replicated: Option<Box<ReplicatedLog>>,
    meeting: Meeting<ShardPart>,
    expecting: HashMap<u64, Mailbox<Connection>>,
    group: Group,
    /// Of a replicated log: groups that are as large as an entry should be, and wait for their turn.
    full_groups: VecDeque<Group>,
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
        WalWriter {
            node,
            cast,
            disk,
            replicated: replicated.map(Box::new),
            meeting: Meeting::default(),
            expecting: HashMap::new(),
            group: Group::default(),
            full_groups: VecDeque::new(),
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

    fn append(&mut self, shard: usize, append: Append, office: u64) {
        let Append { bytes, writes, parts } = append;
        // What was looked at in an earlier office was answered when that ended.
        if !writes.is_empty() && office == self.office() {
            self.group.requests += writes.len();
            self.group.push(bytes);
            self.group.acknowledgements.push(Acknowledgement::Singles { shard, writes });
            self.close_large_group();
        }
        for part in parts {
            self.part(ShardPart { shard, part, office });
        }
    }

    fn part(&mut self, mut part: ShardPart) {
        let (multi, parts, refusal) = (part.part.multi, part.part.parts, part.part.refusal.take());
        let arrival = self.meeting.arrive(multi, parts, part, refusal);
        if arrival == Arrival::Waiting {
            return;
        }
        if let Some(connection) = self.expecting.remove(&multi) {
            connection.send(ConnectionMessage::Met);
        }
        let office = self.office();
        match arrival {
            Arrival::Waiting => {}
            Arrival::Complete(parts) if parts.iter().all(|part| part.office == office) => self.met(parts),
            Arrival::Complete(parts) => {
                let changed = Error::new(Code::NoLeader, "leadership changed while the write's parts met");
                self.let_go(parts, &changed);
            }
            Arrival::Refused(parts, error) => self.let_go(parts, &error),
        }
    }

    /// All parts of a multi-key write are there: they are one request.
    fn met(&mut self, parts: Vec<ShardPart>) {
        let mut header = Vec::new();
        encode_request_header(&mut header, parts.iter().map(|part| part.part.effects).sum());
        self.group.requests += 1;
        self.group.push(header);
        let acknowledged = parts.iter().filter_map(|part| Some((part.shard, part.part.write?))).collect();
        self.group.acknowledgements.push(Acknowledgement::Multi { parts: acknowledged });
        parts.into_iter().for_each(|part| self.group.push(part.part.bytes));
        self.close_large_group();
    }

    /// Tells the shards that still wait for their parts.
    fn let_go(&self, parts: Vec<ShardPart>, error: &Error) {
        for part in parts {
            // The others have answered: they refused it, or their office has ended.
            if let Some(write) = part.part.write.filter(|_| part.office == self.office()) {
                let writes = vec![write];
                self.cast.shards[part.shard].send(ShardMessage::Refused { writes, error: error.clone() });
            }
        }
    }

    fn flush(&mut self) {
        if self.replicated.is_none() {
            let group = std::mem::take(&mut self.group);
            return self.order(DiskOrder::Group(group));
        }
        self.propose_what_may();
    }

    /// Hands groups to the replicated log as long as it takes some.
    fn propose_what_may(&mut self) {
        while let Some(replicated) = self.replicated.as_mut().filter(|replicated| !replicated.must_hold()) {
            let full = self.full_groups.pop_front();
            let Some(group) = full.or_else(|| take_group(&mut self.group)) else { return };
            replicated.propose(group);
            self.pump_once();
        }
    }

    /// Carries on with the replicated log after something was said to it.
    fn pump(&mut self) {
        self.pump_once();
        // What was held back: there may be room for it now. A group that a flush
        // is due for waits for that, and for company.
        if !self.flush_is_due || !self.full_groups.is_empty() {
            self.propose_what_may();
        }
    }

    fn pump_once(&mut self) {
        let Some(replicated) = &mut self.replicated else { return };
        let outcome = replicated.pump();
        if outcome.office_ended {
            // Their writes were answered when the office ended.
            self.group = Group::default();
            self.full_groups.clear();
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

    /// A large entry is long on its way, on threads that heartbeats share: one
    /// that is large enough takes no more requests.
    fn close_large_group(&mut self) {
        if self.replicated.is_some() && self.group.bytes >= limits::ENTRY_BYTES_WANTED {
            self.full_groups.extend(take_group(&mut self.group));
        }
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

/// The group, if there is something in it.
fn take_group(group: &mut Group) -> Option<Group> {
    (group.requests > 0).then(|| std::mem::take(group))
}

impl PartialEq for ShardPart {
    fn eq(&self, other: &Self) -> bool {
        (self.shard, self.part.write, self.office) == (other.shard, other.part.write, other.office)
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
                if self.replicated.is_none() && self.group.bytes >= limits::FRAME_BYTES_MAX {
                    self.flush();
                }
                if !self.flush_is_due && (self.group.requests > 0 || !self.full_groups.is_empty()) {
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
        if self.group.requests > 0 || !self.full_groups.is_empty() {
            self.flush();
        }
    }
}
