//! A request's place in its connection's order of replies.

use std::time::Instant;

use bytes::Bytes;
use datastore::engine::Entry;
use datastore::error::{Code, Error};
use datastore::messaging::{Asks, Operation, reply};
use datastore::ordering::Class;
use datastore::query::Gathering;

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
    pub(crate) id: Bytes,
    pub(crate) class: Class,
    pub(crate) state: SlotState,
    /// What the gate counts for it: its line, then its answer.
    pub(crate) line_bytes: usize,
    pub(crate) arrived: Instant,
    /// What is asked for beside the operation.
    pub(crate) asks: Option<Box<Asks>>,
}

impl Slot {
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
