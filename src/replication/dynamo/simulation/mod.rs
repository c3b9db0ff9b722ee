//! A cluster of dynamo mode in one thread: the real cores over a virtual clock,
//! network and disk.
//!
//! ```text
//!   clients ─► Slice ─► Appends ─► Replica ─► Log on a disk in memory ─► Apply ─► Slice, model
//!                                  ▲     ▲                                      ▲
//!              connections ────────┘     └── states that are taken over ────────┘
//! ```
//!
//! Real are the slices, the meeting of multi-key writes, the replica, greetings, the
//! log and recovery. Each node has a clock of its own, which drifts and jumps.
//!
//! All chance comes from one seed, so that a failure is replayed by its number:
//! `DATASTORE_SIMULATION_SEED=7 cargo test -p datastore --lib dynamo::simulation`.
//! For hours: `utilities/simulate.sh`.
//!
//! What can go wrong: connections are lost with what is on them, nodes are parted,
//! crash in the middle of a write, sync late or fail to; clocks are seconds wrong;
//! snapshots are made and logs cut, so that states are taken over; nodes are evicted
//! and return wiped; directories are replaced by older copies. What the product can't
//! know is assumed: a node on an older copy that no mark tells it of takes writes only when
//! it has heard all others; and when all else is well again an operator gives up a node
//! whose copy is so old that it knows none of the others' directories.
//!
//! What must hold: whenever a node has exactly what its vector says, its keys are
//! those of a fold over all these writes by version, in which nothing is ever
//! forgotten (`model.rs`). So no tombstone goes too early, nothing comes back, and
//! equal vectors are equal keys. What a node writes stands above all that it shows.
//! A dot names one entry for ever. When all is well again all have the same, with
//! every acknowledged write whose disks are not all gone, and no tombstone is left.

mod applying;
mod clients;
mod cluster;
mod disk;
mod endings;
mod faults;
mod model;
mod network;
mod node;
mod scenarios;
mod tests;
mod transfers;
