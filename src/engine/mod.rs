//! A shard's slice of the keyspace: its entries, their versions, and the
//! writes in flight.
//!
//! [`Slice`] is a state machine without I/O. Requests go in; out come answers,
//! effects for the log and changes for the indexes ([`Output`]). A write is
//! applied, and shown to anyone, only when the log says that it is durable
//! ([`Slice::committed`]).

mod absent_deletes;
mod converge;
mod effect;
mod entry;
mod in_flight;
mod placement;
mod prefetch;
mod slice;
mod slice_converging;
mod slice_logged;
mod state_hash;
mod table;
#[cfg(test)]
mod tests;
mod tickets;

pub use absent_deletes::{absent_refusal, absent_tombstones_bytes_max};
#[cfg(test)]
pub(crate) use converge::mistake;
pub use converge::{Conflict, SameVersion, Seen, Side, Stamp, Written};
pub use effect::{DecodeError, Effect, Requests, encode_effect, encode_request_header};
pub use entry::{Change, ENTRY_OVERHEAD_BYTES, Entry, Part};
pub use in_flight::{Condition, WriteKind};
pub use placement::Placement;
pub(crate) use prefetch::prefetch;
pub use slice::{Answer, Append, Output, PREFETCH_WINDOW, PartAppend, Slice, replay};
pub use state_hash::{StateHash, entry_hash, key_hash};
pub use table::Table;

pub use crate::version::Version;
