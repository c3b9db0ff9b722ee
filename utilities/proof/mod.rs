//! The proof that a store keeps its word over crashes.
//!
//! ```text
//! Writers ── writes of every kind ──► node      (killed under them)
//!    │ what each one was told
//!    ▼
//!  Ledger ◄── all that the restarted node shows ── verify
//!    │
//!    ▼
//!  Faults   lost, resurrected, half of a bulk, reads that disagree
//! ```
//!
//! The ledger and the explanation of a state are pure; the writers and the
//! verification hold the sockets. `chaos_test` is this with processes to kill,
//! and the durability tests are this with a node of theirs.
//!
//! A cluster is one store: its writers follow the leader, the leader is held to the
//! ledger, and before that all nodes to each other (`converge`).

mod book;
mod client;
mod cluster;
mod explanation;
mod fault;
mod ledger;
mod names;
mod route;
#[cfg(test)]
mod tests;
mod verification;
mod writers;

pub use book::Book;
pub use client::Client;
pub use cluster::{converge, is_whole, leader};
pub use fault::{Fault, FaultKind};
pub use ledger::{Figures, Kind, Ledger, Number, Shown, State, Told, Write};
pub use names::Names;
pub use verification::verify;
pub use writers::Writers;

pub use crate::linearizability::Place;
