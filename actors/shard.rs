//! Shard: owns one slice of the keyspace and the writes in flight in it.
//!
//! It answers reads, hands writes to the WalWriter, and applies them when they
//! come back durable: change to the IndexManager first, answer to the
//! Connection after, so that what is acknowledged is searchable.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::fut::wrap_future;
use actix::{Actor, AsyncContext, Context, Handler, Message};
use bytes::Bytes;
use datastore::engine::{
    Append, Change, Condition, Entry, Output, PREFETCH_WINDOW, Seen, Slice, Table, WriteKind,
    absent_tombstones_bytes_max,
};
use datastore::error::Error;
use datastore::messaging::Span;
use datastore::replication::notices::ShardOffice;
use slab::Slab;

use crate::admission::{Permit, PermitTotal};
use crate::connection::Connection;
use crate::index_manager::{BUILD_BYTES, BUILD_ENTRIES, IndexManager, IndexMessage};
use crate::mailbox::{Counted, Mailbox};
use crate::memory_bound::admit;
use crate::node::Node;
use crate::shard_messages::{Batch, Committed, ReplyItem, ShardMessage, ShardOperation, ShardRequest};
use crate::snapshot_writer::{SnapshotMessage, SnapshotWriter};
use crate::wal_writer::{WalMessage, WalWriter};

/// About so many entries are handed over at once to the SnapshotWriter: the shard serves between.
pub(crate) const WALK_ENTRIES: usize = 1_024;

/// A shard handles so many requests and writes before the others on its thread have their turn, and
/// the log gets what gathered meanwhile: without that a steady stream of reads would hold up both.
const TURN_REQUESTS: usize = 4_096;

/// What a request's answer needs: 32 bytes that travel with each write.
#[derive(Clone, Copy)]
pub(crate) struct Token {
    pub(crate) batch: u32,
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) id: Span,
    permit: Permit,
    /// Whether it counts as on its way into memory.
    is_admitted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Value,
    Vector,
    Write,
    Part,
    /// A single-key write that the connection answers itself.
    Awaited,
}

/// A batch of which answers are still to come.
pub(crate) struct OpenBatch {
    pub(crate) arena: Bytes,
    pub(crate) reply_to: Mailbox<Connection>,
    pub(crate) unanswered: usize,
    pub(crate) touched: bool,
    pub(crate) lines: Vec<u8>,
    pub(crate) items: Vec<ReplyItem>,
}

/// The actor.
pub struct Shard {
    pub(crate) number: usize,
    pub(crate) node: Arc<Node>,
    pub(crate) slice: Slice<Token>,
    /// Stands on what it appends.
    pub(crate) office: ShardOffice,
    /// Permits of entries that were decided elsewhere, to be given back when they are indexed.
    pub(crate) finished: PermitTotal,
    pub(crate) batches: Slab<OpenBatch>,
    /// Batches with answers not yet sent.
    pub(crate) touched: Vec<u32>,
    pub(crate) wal_writer: Mailbox<WalWriter>,
    pub(crate) index_manager: Mailbox<IndexManager>,
    snapshot_writer: Mailbox<SnapshotWriter>,
    flush_is_due: bool,
    /// Requests handled since the others on this thread had their turn.
    handled: usize,
    /// Buckets before this one are indexed, or on their way: changes in them are handed on.
    pub(crate) index_position: usize,
    /// Steps of a build that the IndexManager has or will get.
    build_steps: usize,
    published_memory: i64,
}

/// A slice; in dynamo mode it converges with others, and knows what it has `seen` of them.
fn slice(node: &Node, table: Table, seen: Option<Seen>, applied_index: u64) -> Slice<Token> {
    let mut slice = Slice::new(table, applied_index);
    if let Some(seen) = seen {
        slice.converge(seen);
    }
    if let Some(most) = node.settings.memory_bytes_max {
        slice.bound_absent_deletes(absent_tombstones_bytes_max(most) as usize / node.settings.shards);
    }
    slice
}

/// Who a shard talks to.
pub struct ShardNeighbours {
    /// The log.
    pub wal_writer: Mailbox<WalWriter>,
    /// This shard's indexes.
    pub index_manager: Mailbox<IndexManager>,
    /// The snapshots.
    pub snapshot_writer: Mailbox<SnapshotWriter>,
}

impl Shard {
    /// A shard over a recovered slice of the keyspace.
    pub fn new(
        number: usize,
        node: Arc<Node>,
        (table, seen): (Table, Option<Seen>),
        applied_index: u64,
        neighbours: ShardNeighbours,
    ) -> Shard {
        // Of an empty table there is nothing to index first.
        let index_position = if table.is_empty() { table.walk_length() } else { 0 };
        Shard {
            number,
            slice: slice(&node, table, seen, applied_index),
            node,
            office: ShardOffice::default(),
            finished: PermitTotal::default(),
            batches: Slab::new(),
            touched: Vec::new(),
            wal_writer: neighbours.wal_writer,
            index_manager: neighbours.index_manager,
            snapshot_writer: neighbours.snapshot_writer,
            flush_is_due: false,
            handled: 0,
            index_position,
            build_steps: 0,
            published_memory: 0,
        }
    }

    fn batch(&mut self, batch: Batch) {
        let Batch { arena, requests, reply_to } = batch;
        let open = OpenBatch {
            arena: arena.clone(),
            reply_to,
            unanswered: requests.len(),
            touched: false,
            lines: Vec::new(),
            items: Vec::new(),
        };
        let number = self.batches.insert(open) as u32;
        let office_refusal = self.office_refusal();
        let refusal = office_refusal.clone().or_else(|| self.node.permits.refusal());
        let mut waiting = requests.into_iter();
        while !waiting.as_slice().is_empty() {
            let window = waiting.as_slice().len().min(PREFETCH_WINDOW);
            waiting.as_slice()[..window].iter().for_each(|request| self.prefetch(request));
            for request in waiting.by_ref().take(window) {
                let refusals = (refusal.as_ref(), office_refusal.as_ref());
                self.request(number, &arena, request, refusals);
            }
        }
    }

    /// A read will look at its key's entry; a write only when it is applied.
    fn prefetch(&self, request: &ShardRequest) {
        match &request.operation {
            ShardOperation::Get { hash, .. } | ShardOperation::GetVector { hash, .. } => {
                self.slice.table().prefetch(*hash);
            }
            _ => {}
        }
    }

    /// Hands one request to the slice.
    /// `refusals`: why writes that need room are refused, and why all are.
    fn request(
        &mut self,
        batch: u32,
        arena: &Bytes,
        request: ShardRequest,
        (refusal, office_refusal): (Option<&Error>, Option<&Error>),
    ) {
        let ShardRequest { sequence, id, operation, permit } = request;
        let mut token = Token { batch, kind: Kind::Write, sequence, id, permit, is_admitted: false };
        match operation {
            ShardOperation::Get { key, hash } => {
                token.kind = Kind::Value;
                self.slice.get(token, key.of(arena), hash);
            }
            ShardOperation::GetVector { key, hash } => {
                token.kind = Kind::Vector;
                self.slice.get(token, key.of(arena), hash);
            }
            ShardOperation::BulkGet { keys } => {
                let keys = keys.iter().map(|(key, hash)| (key.of(arena), *hash));
                self.slice.bulk_get(token, keys);
            }
            ShardOperation::Set { key, hash, value, condition } => {
                let kind = WriteKind::Set(value.slice(arena));
                self.write(token, arena, (key, hash), kind, condition, refusal);
            }
            ShardOperation::AddVector { key, hash, vector, condition } => {
                let kind = WriteKind::AddVector(vector.slice(arena));
                self.write(token, arena, (key, hash), kind, condition, refusal);
            }
            ShardOperation::Delete { key, hash, condition } => {
                self.write(token, arena, (key, hash), WriteKind::Delete, condition, office_refusal);
            }
            ShardOperation::Part { multi, parts, writes, whole_bytes } => {
                token.kind = Kind::Part;
                self.part(token, arena, (multi, parts, whole_bytes), writes, (refusal, office_refusal));
            }
            ShardOperation::Awaited(operation) => {
                token.kind = Kind::Awaited;
                self.awaited(token, arena, *operation, (refusal, office_refusal));
            }
            ShardOperation::Count => {
                token.kind = Kind::Part;
                let outcome = Ok((self.slice.table().len(), None));
                self.answer_item(token, ReplyItem::Part { sequence, outcome });
            }
        }
    }

    pub(crate) fn write(
        &mut self,
        mut token: Token,
        arena: &Bytes,
        (key, hash): (Span, u64),
        kind: WriteKind,
        condition: Condition,
        refusal: Option<&Error>,
    ) {
        if let Some(refusal) = refusal {
            return self.slice.refuse(token, refusal.clone());
        }
        let bytes = token.permit.bytes as usize;
        if kind == WriteKind::Delete {
            if !self.slice.has_room_to_delete([(key.of(arena), hash)].into_iter()) {
                let refusal = self.absent_refusal(false);
                return self.slice.refuse(token, refusal);
            }
            self.node.permits.admit(bytes);
        } else if let Err(refusal) = admit(&self.node, bytes, bytes) {
            return self.slice.refuse(token, refusal);
        }
        token.is_admitted = true;
        self.slice.write(token, arena, key.of(arena), hash, kind, condition);
    }

    fn part(
        &mut self,
        mut token: Token,
        arena: &Bytes,
        (multi, parts, whole_bytes): (u64, u32, usize),
        writes: Vec<(Span, u64, Option<Span>)>,
        (refusal, office_refusal): (Option<&Error>, Option<&Error>),
    ) {
        let deletes_only = writes.iter().all(|(_, _, value)| value.is_none());
        if let Some(refusal) = if deletes_only { office_refusal } else { refusal } {
            return self.slice.refuse_part(token, multi, parts, refusal.clone());
        }
        if deletes_only && !self.has_room_for_part(arena, &writes) {
            let refusal = self.absent_refusal(true);
            return self.slice.refuse_part(token, multi, parts, refusal);
        }
        let writes = writes.into_iter().map(|(key, hash, value)| {
            let kind = value.map_or(WriteKind::Delete, |value| WriteKind::Set(value.slice(arena)));
            (key.slice(arena), hash, kind)
        });
        let bytes = token.permit.bytes as usize;
        if deletes_only {
            self.node.permits.admit(bytes);
        } else if let Err(refusal) = admit(&self.node, bytes, whole_bytes) {
            return self.slice.refuse_part(token, multi, parts, refusal);
        }
        token.is_admitted = true;
        self.slice.write_part(token, multi, parts, writes);
    }

    /// Carries out what the slice decided: changes first, then answers.
    fn carry_out(&mut self, context: &mut Context<Self>) {
        let Output { changes, answers, append, .. } = self.slice.output();
        let append_waits = !append.is_empty();
        let changes = std::mem::take(changes);
        let mut answers = std::mem::take(answers);
        let mut finished = std::mem::take(&mut self.finished);
        for (token, _) in &answers {
            finished += token.permit;
            finished.admitted_bytes += if token.is_admitted { token.permit.bytes.into() } else { 0 };
        }
        self.hand_to_indexes(changes, finished);
        for (token, answer) in answers.drain(..) {
            self.answer(token, answer);
        }
        self.slice.output().answers = answers; // its allocation is used again
        // Before the answers go: whoever has one finds it in `stats`.
        self.publish();
        self.send_answers();
        if append_waits && !self.flush_is_due {
            self.flush_is_due = true;
            // Runs when the mailbox is empty: what arrived meanwhile shares the append.
            context.notify(Flush);
        }
    }

    fn flush(&mut self) {
        let append: Append = std::mem::take(&mut self.slice.output().append);
        if !append.is_empty() {
            let (shard, office) = (self.number, self.office.number());
            self.wal_writer.send(WalMessage::Append { shard, append, office });
        }
    }

    fn hand_to_indexes(&mut self, mut changes: Vec<Change>, permits: PermitTotal) {
        let indexed = self.node.settings.indexes != datastore::indexing::Kinds::NONE;
        if indexed && self.index_position < self.slice.table().walk_length() {
            changes.retain(|change| self.is_indexed_already(change));
        }
        if indexed && !changes.is_empty() {
            self.index_manager.send(IndexMessage::Changes { changes, permits });
        } else if permits != PermitTotal::default() {
            self.node.permits.give_back(self.number, permits);
        }
    }

    /// While the indexes are rebuilt, a change in a bucket that is still to be
    /// walked is left out: the walk will bring what it led to.
    fn is_indexed_already(&self, change: &Change) -> bool {
        let key = change.new.as_ref().or(change.old.as_ref()).map_or(&b""[..], Entry::key);
        let table = self.slice.table();
        table.walk_position(table.placement().hash(key)) < self.index_position
    }

    fn publish(&mut self) {
        let table = self.slice.table();
        let figures = &self.node.shard_figures[self.number];
        let memory = table.memory_bytes() as i64;
        if memory != self.published_memory {
            self.node.permits.memory_changed(memory - self.published_memory);
            self.published_memory = memory;
            figures.memory_bytes.store(memory as u64, Ordering::Relaxed);
        }
        figures.vector_bytes.store(table.vector_bytes() as u64, Ordering::Relaxed);
        figures.spare_bytes.store(table.spare_bytes() as u64, Ordering::Relaxed);
        figures.keys.store(table.len() as u64, Ordering::Relaxed);
        let (tombstones, newest) = table.tombstones();
        let (of_absent, of_absent_bytes) = table.absent_tombstones();
        figures.tombstones.store(tombstones as u64, Ordering::Relaxed);
        figures.absent_tombstones.store(of_absent as u64, Ordering::Relaxed);
        figures.absent_tombstone_bytes.store(of_absent_bytes as u64, Ordering::Relaxed);
        figures.newest_tombstone.store(newest, Ordering::Relaxed);
    }

    /// Hands over what the IndexManager builds from, one step ahead, so that it never waits for the next.
    pub(crate) fn begin_build(&mut self) {
        self.index_next_buckets();
        self.index_next_buckets();
    }

    /// Hands the next buckets, if there are any, to the IndexManager, which asks for more when it has indexed them.
    fn index_next_buckets(&mut self) {
        const STEPS_ON_THEIR_WAY: usize = 2;
        let is_done = self.index_position == self.slice.table().walk_length();
        if is_done || self.build_steps == STEPS_ON_THEIR_WAY {
            return;
        }
        self.build_steps += 1;
        let table = self.slice.table();
        let (entries, next) = table.walk_step(self.index_position, BUILD_ENTRIES, BUILD_BYTES);
        let message = IndexMessage::Build { entries, buckets_done: next, buckets_total: table.walk_length() };
        self.index_position = next;
        self.index_manager.send(message);
    }

    fn walk(&self, position: usize) {
        let table = self.slice.table();
        let (entries, next) = table.walk_step_whole(position, WALK_ENTRIES);
        self.snapshot_writer.send(SnapshotMessage::Walked {
            shard: self.number,
            entries,
            next: (next < table.walk_length()).then_some(next),
            applied_index: self.slice.applied_index(),
        });
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, _context: &mut Self::Context) {
        self.publish();
        self.begin_build();
    }
}

impl Handler<Counted<ShardMessage>> for Shard {
    type Result = ();

    fn handle(&mut self, counted: Counted<ShardMessage>, context: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        self.handled += message.requests();
        match message {
            ShardMessage::Batch(batch) => self.batch(batch),
            ShardMessage::Committed(Committed { index, stamp, writes }) => match stamp {
                Some(stamp) => self.slice.committed_at(index, stamp, &writes),
                None => self.slice.committed(index, &writes),
            },
            ShardMessage::Refused { writes, error } => self.slice.refused(writes.into_iter(), &error),
            ShardMessage::BeginWalk { handed_over } => {
                self.snapshot_writer.send(SnapshotMessage::WalkBegun { handed_over });
            }
            ShardMessage::Walk { position } => self.walk(position),
            ShardMessage::BucketsIndexed => {
                self.build_steps = self.build_steps.saturating_sub(1);
                self.index_next_buckets();
            }
            ShardMessage::Search(search) => self.index_manager.send(IndexMessage::Search(search)),
            ShardMessage::Office(office) => self.office_changed(office),
            ShardMessage::Logged(logged) => self.logged(logged),
            ShardMessage::Install { table, index } => self.install(table, index),
            ShardMessage::StateHash { index } => self.state_hash(index),
            ShardMessage::Converge(converge) => self.merge(&converge),
            ShardMessage::CollectTombstones { through } => self.collect_tombstones(through),
            ShardMessage::KeyWanted { key, hash, number, from } => self.key_wanted(&key, hash, number, from),
            ShardMessage::WalkFor { position, reply } => self.walk_for(position, &reply),
        }
        self.carry_out(context);
        if self.handled >= TURN_REQUESTS {
            self.handled = 0;
            self.flush();
            // Until the others have had their turn nothing more is taken out of the mailbox.
            context.wait(wrap_future(tokio::task::yield_now()));
        }
    }
}

/// To itself: the mailbox is empty, hand what gathered to the log.
struct Flush;

impl Message for Flush {
    type Result = ();
}

impl Handler<Flush> for Shard {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush_is_due = false;
        self.flush();
    }
}
