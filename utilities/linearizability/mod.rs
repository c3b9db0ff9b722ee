//! Whether what clients were told by a cluster can have come from one register
//! per key that does one thing at a time: linearizability.
//!
//! ```text
//! Workload ── gets, sets, conditions, bulks ──► nodes   (killed, stopped, parted)
//!    │ each invocation and each return, with its time
//!    ▼
//! Recorder ──► History ──► check ──► Report   violations with what shows them,
//!                                             keys that no verdict was found for
//! ```
//!
//! - An answer that says `not_applied` is **refused**: it must never take effect,
//!   so nothing may be explained by it.
//! - A request without an answer, or with the outcome `unknown`, may take effect at
//!   any time behind its invocation, or never.
//! - A refused condition is a read of the version that it names.
//!
//! Linearizability is local: a history is linearizable when each object's part of
//! it is. The protocol lets a read at the same moment see a part of a bulk, so a
//! bulk is one write for each of its keys over the same interval, and every key is
//! checked alone. What ties the keys of a bulk together is checked beside that: they
//! have one version, and a bulk that was seen at one key is there at all of them
//! when all is quiet ([`History::quiet_at`]).
//!
//! The check is the search of Wing & Gong with Lowe's cache of what was tried. Every
//! written value is unique, so a read names its write; that is what keeps it short.

mod check;
mod client;
mod explanation;
mod facts;
mod history;
mod parts;
mod register;
mod search;
#[cfg(test)]
mod tests;
mod wire;
mod workload;

pub use check::{Report, STEPS_MAX, Violation, check};
pub use client::{Client, Dial, Place, dial};
pub use history::{
    Answer, ClientId, Condition, Counts, History, Number, Operation, Outcome, Record, Recorder, Ticket, Time,
    Version,
};
pub use workload::{Load, Workload, read_back};
