//! Leader mode: the log of every node is the leader's log.
//!
//! # The protocol
//!
//! Time is cut into terms. A term has at most one leader, chosen by a majority of
//! the voters' votes; a node votes once a term, remembers it on its disk before
//! it says so, and votes only for a log that has all that its own has. The leader
//! appends entries and sends them; each follower makes its log equal to the
//! leader's, replacing what differs, and says so when it is on its disk. What
//! lies on a majority's disks in the leader's own term is *committed*: every later
//! leader has it, since each majority meets each other one. Committed entries are
//! applied, in order, on every node.
//!
//! ```text
//!              no word of a leader: would a majority vote for me?
//!   follower ───────────────────────────────────────────────► pre-candidate
//!      ▲  ▲                                                      │ a majority would
//!      │  └──────────── a leader, or a higher term ───────┐      ▼
//!      │                                                  └─ candidate (term + 1)
//!      │  a higher term; or no majority heard for a while        │ a majority's votes
//!      └──────────────────────── leader ◄────────────────────────┘
//! ```
//!
//! The state machine of that is the `raft` crate, behind [`Replica`], whose
//! interface names none of the crate's types. What this module adds is the order
//! of things:
//!
//! # The pump
//!
//! ```text
//!   inputs ─► step … step ─► pump ─► Send        at once
//!                                    Persist     entries, hard state: one frame, one sync;
//!                                                then its messages, then Input::Persisted
//!                                    Commit      apply in order, answer whose it is
//!                                    ReadReady   answer reads when that index is applied
//! ```
//!
//! - A leader's messages leave while its own disk works; a follower's leave when
//!   what they promise is durable. One exception in each direction: a message of a
//!   term that isn't durable yet waits whoever sends it, and a heartbeat's answer,
//!   which promises nothing but its term, doesn't wait for entries (else a disk
//!   that stalls looks like a node that is dead).
//! - An entry is handed out for applying when it is committed *and* durable here.
//! - Reads wait for a round of heartbeats that began after they arrived, with a
//!   context that is never used twice, and not before the leader has committed an
//!   entry of its own term: before that it doesn't know what is committed.
//! - Requests are never forwarded from node to node: a proposal is taken by a
//!   leader or refused, so that a refusal is final.

mod acknowledgements;
mod configurations;
mod conflicts;
mod convert;
mod doubts;
mod effect;
mod elections;
mod fetches;
mod hard_state;
mod hosting;
mod members;
mod mistake;
mod reads;
mod receiving;
mod replica;
mod storage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_doubt;
#[cfg(test)]
mod tests_of_lost_entries;
#[cfg(test)]
mod wires;
mod witness;

pub use effect::{
    Effect, Handle, Input, Options, Persist, Role, RoleChange, Start, StartMembers, Status,
    election_timeout_ticks,
};
pub use hard_state::{HARD_STATE_BYTES, HardState};
#[cfg(test)]
pub use mistake::Mistake;
pub use replica::Replica;
