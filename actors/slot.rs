//! A request's place in its connection's order of replies, and what it occupies there.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use datastore::engine::Entry;
use datastore::error::{Code, Error};
use datastore::messaging::{Asks, Operation, Span, reply};
use datastore::ordering::Class;
use datastore::query::Gathering;

use crate::request_stream::Gate;
use crate::shard_messages::ShardRequest;

/// What a request occupies beside its line and what it lists: its slot, its place in the queue, what
/// its shard is sent. Each stands in a list that may have room for twice as many.
const REQUEST_BYTES: usize = 2 * (size_of::<Slot>() + size_of::<Queued>() + size_of::<ShardRequest>());
/// What a record or a key of a bulk becomes for its shard and its reply.
const RECORD_BYTES: usize = 64;
/// What an answer occupies beside its bytes: its slot, in a list that may have room for twice as many,
/// and its handle.
const ANSWER_BYTES: usize = 2 * size_of::<Slot>() + 32;
/// What an arena costs beside its bytes: its handles, and a batch at each shard that it goes to.
const ARENA_OVERHEAD_BYTES: usize = 256;

/// The lines of one read. They stay as long as one of their requests has no answer, however few of
/// them that needs, so that the gate counts them as a whole until then.
pub(crate) struct Arena {
    pub(crate) bytes: Bytes,
    gate: Rc<Gate>,
}

impl Arena {
    /// Counts them from now on.
    pub(crate) fn new(bytes: Bytes, gate: Rc<Gate>) -> Rc<Arena> {
        gate.add_arena(bytes.len() + ARENA_OVERHEAD_BYTES);
        Rc::new(Arena { bytes, gate })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.gate.remove_arena(self.bytes.len() + ARENA_OVERHEAD_BYTES);
    }
}

/// A request that waits for the barrier.
pub(crate) struct Queued {
    pub(crate) arena: Bytes,
    pub(crate) sequence: u64,
    pub(crate) id: Span,
    pub(crate) operation: Operation,
    /// On a member: the round that it waits for.
    pub(crate) round: Option<u64>,
}

/// What the gate counts for a request while it has no answer, beside its arena.
pub(crate) fn request_bytes(operation: &Operation) -> usize {
    REQUEST_BYTES + operation.heap_bytes() + operation.records() * RECORD_BYTES
}

/// What the gate counts for an answer of so many bytes that waits for its turn.
pub(crate) fn answer_bytes(bytes: usize) -> usize {
    ANSWER_BYTES + bytes
}

/// Where a request stands.
pub(crate) enum SlotState {
    /// Waits for its turn to be dispatched.
    Queued,
    /// Dispatched; one answer is to come.
    Waiting,
    /// Dispatched to several; their answers gather here.
    Gathering(Box<Gathering>),
    /// The finished line.
    Line(Bytes),
    /// A large value or vector, to be written out when its turn has come.
    Large { entry: Entry, vector: bool },
    /// All answers are there, to be merged and written out when its turn has come.
    Gathered(Box<Gathering>),
}

/// A request that has no reply on its way out yet.
pub(crate) struct Slot {
    id: Span,
    /// What its request's places point into; let go when nothing needs it any more.
    arena: Option<Rc<Arena>>,
    pub(crate) class: Class,
    pub(crate) state: SlotState,
    /// What the gate counts for it beside its arena: its request, then its answer.
    pub(crate) counted_bytes: usize,
    pub(crate) arrived: Instant,
    /// What is asked for beside the operation.
    pub(crate) asks: Option<Box<Asks>>,
}

impl Slot {
    /// Of a request that has just come.
    pub(crate) fn new(arena: &Rc<Arena>, id: Span, asks: Option<Box<Asks>>, arrived: Instant) -> Slot {
        let (class, state) = (Class::Other, SlotState::Queued);
        Slot { id, arena: Some(arena.clone()), class, state, counted_bytes: 0, arrived, asks }
    }

    /// The `id` to echo, as JSON; empty when there is none, or when it is in the answer already.
    pub(crate) fn id(&self) -> &[u8] {
        self.arena.as_ref().map_or(&[], |arena| self.id.of(&arena.bytes))
    }

    /// What becomes of it. An answer that is a finished line needs the request no more.
    pub(crate) fn becomes(&mut self, state: SlotState) {
        let is_whole = match &state {
            SlotState::Line(_) => true,
            SlotState::Large { .. } => self.id.is_empty(),
            // What is put together may still be asked for by its keys.
            _ => false,
        };
        if is_whole {
            self.arena = None;
        }
        self.state = state;
    }

    /// Whether it is answered without its answer when that doesn't come in time. A snapshot takes as long as it takes.
    pub(crate) fn may_time_out(&self) -> bool {
        let is_snapshot = matches!(&self.state, SlotState::Gathering(gathering) if gathering.is_snapshot());
        self.is_unanswered() && !is_snapshot
    }

    /// Whether its answer is still to come.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self.state, SlotState::Queued | SlotState::Waiting | SlotState::Gathering(_))
    }
}

/// An error's line.
pub(crate) fn error_line(id: &[u8], error: &Error) -> Bytes {
    let mut line = Vec::new();
    reply::error(&mut line, id, error);
    Bytes::from(line)
}

/// Refuses what only dynamo mode knows.
#[cold]
pub(crate) fn not_in_mode(asks: &Asks) -> Error {
    let field = asks.first_field().unwrap_or_default();
    Error::new(Code::UnsupportedInMode, format!("`{field}` belongs to --mode dynamo"))
}

/// What matters to the barrier.
pub(crate) fn class(operation: &Operation) -> Class {
    match operation {
        Operation::Set { .. } | Operation::Delete { .. } | Operation::AddVector { .. } => Class::SingleWrite,
        Operation::BulkSet { .. } | Operation::BulkDelete { .. } => Class::MultiWrite,
        Operation::Get { .. } | Operation::GetVector { .. } | Operation::BulkGet { .. } => Class::KeyRead,
        Operation::SearchByValue { .. }
        | Operation::SearchText { .. }
        | Operation::VectorSearch { .. }
        | Operation::Scan { .. }
        | Operation::Count { .. }
        | Operation::Snapshot => Class::WideRead,
        _ => Class::Other,
    }
}

/// Whether the answer is put together from several.
pub(crate) fn gathers(operation: &Operation) -> bool {
    matches!(class(operation), Class::MultiWrite | Class::WideRead)
        || matches!(operation, Operation::BulkGet { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_counts_as_a_whole_until_the_last_of_its_requests_is_answered() {
        let gate = Rc::new(Gate::default());
        let bytes = Bytes::from(b"7".repeat(60_000));
        let arena = Arena::new(bytes, gate.clone());
        let id = Span { start: 5, length: 1 };
        let mut slots = [0, 1].map(|_| Slot::new(&arena, id, None, Instant::now()));
        drop(arena);
        slots[0].becomes(SlotState::Line(Bytes::from_static(b"done")));
        assert_eq!((slots[0].id(), slots[1].id()), (&b""[..], &b"7"[..]));
        assert!(gate.bytes() > 60_000, "the other one still needs its line: {}", gate.bytes());
        slots[1].becomes(SlotState::Line(Bytes::from_static(b"done")));
        assert_eq!((gate.bytes(), gate.bytes_beside_arenas()), (0, 0));
    }

    #[test]
    fn what_lists_many_records_counts_for_each_of_them() {
        let keys = vec![Span::default(); 10_000];
        let bulk = request_bytes(&Operation::BulkDelete { keys });
        let one = request_bytes(&Operation::Ping);
        assert!(bulk >= one + 10_000 * (size_of::<Span>() + RECORD_BYTES), "{bulk} and {one}");
        // The page of the protocol says about how much.
        assert!((500..900).contains(&(one + ARENA_OVERHEAD_BYTES)), "{}", one + ARENA_OVERHEAD_BYTES);
    }
}
