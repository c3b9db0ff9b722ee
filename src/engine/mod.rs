//! A shard's slice of the keyspace: entries, versions and writes in flight.

mod effect;
mod entry;
mod placement;

pub use effect::{DecodeError, Effect, Requests, encode_effect, encode_request_header};
pub use entry::{Change, ENTRY_OVERHEAD_BYTES, Entry, Version};
pub use placement::Placement;
