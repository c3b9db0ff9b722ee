//! What a connection may do at once, so that others on its thread and at its shards have
//! their turn: writes wait until they can be indexed in time ([`crate::admission`]), and
//! what costs the thread itself much goes a few at a time.

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{AsyncContext, Context};
use bytes::Bytes;
use datastore::messaging::{Operation, Span};

use crate::admission::{Permit, Turn, Work};
use crate::connection::Connection;
use crate::shard_messages::ShardOperation;

/// What a write occupies beside its key and body while it is in flight.
const WRITE_OVERHEAD_BYTES: usize = 256;
/// So many of the requests that this thread answers itself, at the cost of many others, go before it
/// looks at other connections.
const COSTLY_AT_ONCE: usize = 4;

/// What a connection waits for, or has for now.
#[derive(Default)]
pub(crate) struct Turns {
    /// Its turn at a shard.
    turn: Option<Turn>,
    /// It waits for one.
    waits_for_turn: bool,
    /// The first request of the queue, if it is a write, and the shards that it goes to.
    shards_of_front: Option<(u64, Vec<usize>)>,
    /// Costly requests answered since others had their turn.
    costly: usize,
    /// It goes on when others have had their turn.
    yields: bool,
}

impl Turns {
    /// Whether writes wait here until others are indexed.
    pub(crate) fn wait_for_indexes(&self) -> bool {
        self.waits_for_turn
    }

    /// A request leaves.
    pub(crate) fn dispatched(&mut self, operation: &Operation) {
        self.costly += usize::from(is_costly(operation));
    }
}

/// Whether answering it costs its own thread much more than handing it on.
fn is_costly(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Stats { .. } | Operation::Cluster | Operation::Hello | Operation::Conflicts { .. }
    )
}

/// Whether it waits while the indexes are behind. What frees memory never does.
fn waits_for_indexes(operation: &Operation) -> bool {
    matches!(operation, Operation::Set { .. } | Operation::AddVector { .. } | Operation::BulkSet { .. })
}

impl Connection {
    /// Whether a request may go as far as others are concerned; if not, it waits for its turn.
    pub(crate) fn has_turn(
        &mut self,
        arena: &Bytes,
        sequence: u64,
        operation: &Operation,
        context: &mut Context<Self>,
    ) -> bool {
        if is_costly(operation) {
            return self.has_costly_turn(context);
        }
        if !waits_for_indexes(operation) || self.node.permits.admission.is_calm() || self.refuses_writes() {
            return true;
        }
        let shards = self.shards_of(arena, sequence, operation);
        let admission = self.node.permits.admission.clone();
        // Who has a turn at one of several shards goes: at all of them it would hardly ever have one at once.
        let turn = self.turns.turn.as_ref();
        let has_turn = turn.is_some_and(|turn| shards.iter().any(|&shard| turn.lasts(shard)));
        let shards_behind = shards.iter().copied().filter(|&shard| !has_turn && !admission.is_open(shard));
        let behind = shards_behind.max_by_key(|&shard| admission.debt_us(shard));
        self.turns.shards_of_front = Some((sequence, shards));
        match behind {
            Some(shard) => self.wait_for_turn(shard, context),
            None => self.turns.shards_of_front = None,
        }
        behind.is_none()
    }

    /// Whether a write is refused whenever it comes: it is told so without waiting.
    fn refuses_writes(&self) -> bool {
        let is_replica = self.node.cluster.as_ref().is_some_and(|cluster| !cluster.serves_as_primary());
        let dynamo = self.node.dynamo.as_ref();
        is_replica
            || dynamo.is_some_and(|cluster| cluster.write_refusal().is_some())
            || self.node.permits.is_disk_full()
    }

    fn shards_of(&mut self, arena: &Bytes, sequence: u64, operation: &Operation) -> Vec<usize> {
        if let Some((_, shards)) = self.turns.shards_of_front.take().filter(|(of, _)| *of == sequence) {
            return shards;
        }
        let shard = |key: &Span| self.node.placement.shard(self.node.placement.hash(key.of(arena)));
        match operation {
            Operation::Set { key, .. } | Operation::AddVector { key, .. } => vec![shard(key)],
            Operation::BulkSet { records } => {
                let mut shards: Vec<usize> = records.iter().map(|(key, _)| shard(key)).collect();
                shards.sort_unstable();
                shards.dedup();
                shards
            }
            _ => Vec::new(),
        }
    }

    fn wait_for_turn(&mut self, shard: usize, context: &mut Context<Self>) {
        // A turn that is over, or at another shard, goes to the next one first.
        self.turns.turn = None;
        if std::mem::replace(&mut self.turns.waits_for_turn, true) {
            return;
        }
        // What it sends meanwhile waits in its socket: there its time doesn't run yet.
        self.gate.narrow(true);
        let turn = Turn::wait(self.node.permits.admission.clone(), shard);
        context.spawn(wrap_future(turn).map(|turn, this: &mut Connection, context| {
            this.turns.waits_for_turn = false;
            this.gate.narrow(false);
            this.turns.turn = Some(turn);
            this.go_on(context);
            this.turns.turn = None;
        }));
    }

    /// A request goes to this shard: what it holds until it is finished.
    pub(crate) fn let_in(&mut self, shard: usize, operation: &ShardOperation) -> Permit {
        let Some(work) = work(operation) else { return Permit::default() };
        let permits = &self.node.permits;
        let time_us = permits.admission.estimate_us(shard, work).min(u64::from(u32::MAX));
        let bytes = u32::try_from(permit_bytes(work)).unwrap_or(u32::MAX);
        let permit = Permit { bytes, time_us: time_us as u32 };
        permits.take(shard, permit.into());
        if let Some(turn) = &mut self.turns.turn {
            turn.left_us = turn.left_us.saturating_sub(time_us);
        }
        permit
    }

    fn has_costly_turn(&mut self, context: &mut Context<Self>) -> bool {
        if self.turns.costly < COSTLY_AT_ONCE {
            return true;
        }
        self.go_on_later(context);
        false
    }

    /// The others on this thread have their turn first.
    pub(crate) fn go_on_later(&mut self, context: &mut Context<Self>) {
        if !std::mem::replace(&mut self.turns.yields, true) {
            let others = tokio::task::yield_now();
            context.spawn(wrap_future(others).map(|(), this: &mut Connection, context| {
                this.turns.yields = false;
                this.turns.costly = 0;
                this.go_on(context);
            }));
        }
    }
}

/// What a write occupies in memory while it is in flight.
pub(crate) fn permit_bytes(work: Work) -> usize {
    (work.value_bytes + work.vector_bytes) as usize + work.writes as usize * WRITE_OVERHEAD_BYTES
}

/// What a shard's part of a multi-key write brings.
pub(crate) fn part_work(writes: &[(Span, u64, Option<Span>)]) -> Work {
    let mut work = Work { writes: writes.len() as u64, ..Work::default() };
    for (key, _, value) in writes {
        work.value_bytes += u64::from(key.length) + value.map_or(0, |value| u64::from(value.length));
    }
    work
}

/// What a write brings; nothing for a read.
fn work(operation: &ShardOperation) -> Option<Work> {
    let of = |value_bytes: u32, vector_bytes: u32| {
        Some(Work { writes: 1, value_bytes: value_bytes.into(), vector_bytes: vector_bytes.into() })
    };
    match operation {
        ShardOperation::Set { key, value, .. } => of(key.length + value.length, 0),
        ShardOperation::AddVector { key, vector, .. } => of(key.length, vector.length),
        ShardOperation::Delete { key, .. } => of(key.length, 0),
        ShardOperation::Part { writes, .. } => Some(part_work(writes)),
        ShardOperation::Awaited(operation) => work(operation),
        ShardOperation::Get { .. }
        | ShardOperation::GetVector { .. }
        | ShardOperation::BulkGet { .. }
        | ShardOperation::Count => None,
    }
}
