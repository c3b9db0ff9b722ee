//! What may overtake what.
//!
//! Two small machines: [`Barrier`] decides when a connection's next request may
//! be dispatched, so that every request sees the effect of those before it on
//! its connection; [`Meeting`] holds the parts of multi-shard writes until the
//! last one is there, so that such a write lies whole inside one log entry.

mod barrier;
mod meeting;
#[cfg(test)]
mod tests;

pub use barrier::{Barrier, Class};
pub use meeting::{Arrival, Meeting};
