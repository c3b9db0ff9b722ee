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
//! see `replicated_log.rs`; in dynamo mode it becomes an entry of this node's stream:
//! see `converging_log.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use crossbeam_channel::Sender;
use datastore::engine::Append;
use datastore::error::Error;
use datastore::limits;
use datastore::replication::appends::{Appends, Met};

use crate::Cast;
use crate::acknowledgements::{self, Acknowledgement};
use crate::connection::{Connection, ConnectionMessage};
use crate::converging_log::ConvergingLog;
use crate::converging_messages::ConvergingMessage;
use crate::disk_thread::DiskOrder;
use crate::log_cut::LogCut;
use crate::mailbox::{Counted, Mailbox};
use crate::node::{Node, lock};
use crate::replicated_log::ReplicatedLog;
use crate::replication_messages::ReplicationMessage;
use crate::replication_options::TICK_MS;
use crate::shard_messages::ShardMessage;
use crate::snapshot_pace::SnapshotPace;
use crate::snapshot_writer::SnapshotMessage;
use crate::unreadable_log::{LettingGo, Step};

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
    /// From the disk thread: the disk's reserve is reached, or still is and a snapshot may fit by now. A
    /// snapshot is what lets the log give room back.
    DiskFull,
    /// From the disk thread, or a snapshot's sender: the newest snapshot can't be read, here or by those
    /// who were sent it.
    SnapshotDoubtful,
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
    /// About the log of dynamo mode.
    Converging(ConvergingMessage),
}

/// What the log is, beside a log.
pub enum Agreement {
    /// What is durable is final: a node on its own.
    Alone,
    /// A majority decides, by its leader.
    Led(Box<ReplicatedLog>),
    /// Every node decides, and all converge.
    Converging(Box<ConvergingLog>),
}

/// The actor.
pub struct WalWriter {
    node: Arc<Node>,
    cast: Arc<Cast>,
    disk: Sender<DiskOrder>,
    agreement: Agreement,
    appends: Appends,
    expecting: HashMap<u64, Mailbox<Connection>>,
    flush_is_due: bool,
    /// The last entry handed to the shards.
    handed_over: u64,
    snapshots: SnapshotPace,
    /// What of the log can't be read is to be cut.
    letting_go: LettingGo,
    cut: LogCut,
}

/// Sealed segments are small: many of them call for a snapshot as much as many bytes do.
const SEGMENTS_MAX: usize = 512;

impl WalWriter {
    /// A writer over a log that recovery found to end at `last_index`.
    pub fn new(
        node: Arc<Node>,
        cast: Arc<Cast>,
        disk: Sender<DiskOrder>,
        agreement: Agreement,
        last_index: u64,
    ) -> WalWriter {
        // A frame of a node on its own is one write; an entry has to be sent, too, by
        // threads that heartbeats share.
        let is_alone = matches!(agreement, Agreement::Alone);
        let group_bytes_wanted = if is_alone { limits::FRAME_BYTES_MAX } else { limits::ENTRY_BYTES_WANTED };
        WalWriter {
            node,
            cast,
            disk,
            agreement,
            appends: Appends::new(group_bytes_wanted),
            expecting: HashMap::new(),
            flush_is_due: false,
            handed_over: last_index,
            snapshots: SnapshotPace::default(),
            letting_go: LettingGo::default(),
            cut: LogCut::default(),
        }
    }

    /// The office in which what comes from the shards counts.
    fn office(&self) -> u64 {
        match &self.agreement {
            Agreement::Led(replicated) => replicated.office(),
            Agreement::Alone | Agreement::Converging(_) => 0,
        }
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
        if !matches!(self.agreement, Agreement::Alone) {
            return self.propose_what_may();
        }
        while let Some(group) = self.appends.take_group() {
            self.order(DiskOrder::Group(group));
        }
    }

    /// Hands groups to the replicated log as long as it takes some.
    fn propose_what_may(&mut self) {
        loop {
            match &mut self.agreement {
                Agreement::Led(replicated) if !replicated.must_hold() => {
                    let Some(group) = self.appends.take_group() else { return };
                    replicated.propose(group);
                }
                Agreement::Converging(log) if !log.must_hold() => {
                    let Some(group) = self.appends.take_group() else { return };
                    log.write(group);
                }
                _ => return,
            }
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
        if let Agreement::Converging(log) = &self.agreement {
            self.handed_over = log.handed_over();
        }
        let Agreement::Led(replicated) = &mut self.agreement else { return };
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
        match &message {
            ReplicationMessage::Persisted { log_bytes, segments, .. } => {
                self.snapshot_if_due(*log_bytes, *segments);
            }
            ReplicationMessage::Unreadable { index, reason }
                if self.node.unreadable_log.found(*index, reason) =>
            {
                self.letting_go.begin();
            }
            ReplicationMessage::LogCut { first_index } if self.node.unreadable_log.cut(*first_index) => {
                tracing::info!(first_index, "what could not be read of the log was let go");
                self.letting_go.end();
            }
            _ => {}
        }
        let is_tick = matches!(message, ReplicationMessage::Tick);
        match &mut self.agreement {
            Agreement::Led(replicated) => replicated.hear(message),
            Agreement::Converging(log) => log.hear_disk(message),
            Agreement::Alone => return,
        }
        self.pump();
        self.let_go();
        if is_tick {
            self.cut_what_may_go();
        }
    }

    /// Makes the snapshots behind which what can't be read is cut.
    fn let_go(&mut self) {
        if !self.snapshots.is_free() {
            return;
        }
        match self.letting_go.next(self.handed_over) {
            Step::Wait => return,
            Step::Snapshot => self.make_snapshot(),
            Step::GoOn => {
                let goes_on = match &mut self.agreement {
                    Agreement::Led(replicated) => replicated.go_on(),
                    Agreement::Converging(log) => log.go_on(),
                    Agreement::Alone => false,
                };
                self.letting_go.asked(goes_on);
            }
        }
        self.pump();
    }

    fn converging(&mut self, message: ConvergingMessage) {
        if let Agreement::Converging(log) = &mut self.agreement {
            log.hear(message);
        }
        self.pump();
    }

    fn tick(&mut self) {
        if let Agreement::Converging(log) = &mut self.agreement {
            log.tick();
        }
        self.pump();
        self.let_go();
        self.cut_what_may_go();
    }

    fn begin_walk(&mut self) {
        self.snapshots.begins();
        if let Agreement::Converging(log) = &mut self.agreement {
            log.walk_begins();
        }
        self.order(DiskOrder::SnapshotBegins);
        for shard in &self.cast.shards {
            shard.send(ShardMessage::BeginWalk { handed_over: self.handed_over });
        }
    }

    /// Cuts the log as far as nobody needs it who is being brought up to date.
    fn cut_what_may_go(&mut self) {
        let Some(wanted) = self.cut.waiting() else { return };
        let has_room = self.node.may_keep_more_of_the_log();
        let (through, held_for) = self.agreement.may_cut(wanted, has_room);
        lock(&self.node.log_figures).held_for = held_for;
        if let Some(through) = self.cut.may_go(through) {
            self.order(DiskOrder::Cut { through });
        }
    }

    fn order(&self, order: DiskOrder) {
        // The disk thread ends only with the process.
        if self.disk.send(order).is_err() {
            tracing::error!("the disk thread is gone; stopping");
            crate::logging::abort();
        }
    }

    fn snapshot_if_due(&mut self, log_bytes: u64, segments: usize) {
        // Where segments are kept for others another snapshot would let none go.
        let has_many = segments >= SEGMENTS_MAX && self.cut.waiting().is_none();
        if log_bytes >= self.node.settings.snapshot_every_bytes || has_many {
            self.make_snapshot();
        }
    }

    fn make_snapshot(&mut self) {
        if self.snapshots.is_free() {
            self.snapshots.begins();
            self.cast.snapshot_writer.send(SnapshotMessage::Make { asked_by: None });
        }
    }
}

impl Actor for WalWriter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Agreement::Converging(_) = self.agreement {
            context.run_interval(Duration::from_millis(TICK_MS), |this, _| this.tick());
        }
    }
}

impl Handler<Counted<WalMessage>> for WalWriter {
    type Result = ();

    fn handle(&mut self, counted: Counted<WalMessage>, context: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            WalMessage::Append { shard, append, office } => {
                self.append(shard, append, office);
                if matches!(self.agreement, Agreement::Alone) && self.appends.has_closed_group() {
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
                acknowledgements::committed(&self.cast.shards, index, None, acknowledgements);
                self.snapshot_if_due(log_bytes, segments);
            }
            WalMessage::Failed { acknowledgements, error, fatal } => {
                acknowledgements::refused(&self.cast.shards, acknowledgements, &error);
                if fatal {
                    match &mut self.agreement {
                        Agreement::Led(replicated) => {
                            replicated.disk_failed(&error);
                            self.appends.office_ended();
                        }
                        Agreement::Converging(log) => log.disk_failed(&error),
                        Agreement::Alone => {}
                    }
                    crate::start::stop_after_fatal_error(&error);
                }
            }
            WalMessage::SnapshotDoubtful => self.make_snapshot(),
            WalMessage::DiskFull => {
                // The disk thread asks only when one may have room, however the last one went.
                self.snapshots.forget_failure();
                self.make_snapshot();
            }
            WalMessage::BeginWalk => self.begin_walk(),
            WalMessage::Cut { through } => {
                self.cut.wants(through);
                self.cut_what_may_go();
            }
            WalMessage::SnapshotEnded { made } => {
                self.snapshots.ended(made);
                if let Agreement::Converging(log) = &mut self.agreement {
                    log.walk_ended();
                }
                if made {
                    self.letting_go.made(lock(&self.node.snapshots).last_index);
                }
            }
            WalMessage::Stop(done) => {
                if let Agreement::Led(replicated) = &mut self.agreement {
                    replicated.stop();
                }
                self.order(DiskOrder::Stop(done));
            }
            WalMessage::Replication(message) => self.replication(message),
            WalMessage::Converging(message) => self.converging(message),
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
