//! Dynamo mode: every node takes writes through any partition, and all converge.
//!
//! ```text
//!   clock      versions: hybrid time and origin             vector     who has what
//!   entry      the log's entries                            members    who belongs to it
//!   history    what the log has led to                      peer       what a peer is sent next
//!   stability  when a tombstone may go                      roots      equal writes, equal keys?
//!   skew       whose clock is wrong                         replica    all of it: inputs in, effects out
//!   stream     what this node writes, and from where on     watching   what is looked at now and then
//!   sending    what a peer lacks                            taking_over  where no log reaches back
//!   ended      how much of an evicted node's writes counts  listing    whom others take for members
//!   receiving  what peers send
//!   write_waiters  who waits for copies of a write
//!   questions  whose answers a read counts                  own        what a node says of itself
//!   ahead      whose stamps are ahead of time
//!   greeting   who is let in                                admission  who may still join
//!   forks      streams that two have otherwise              times      by which a fork is found
//! ```
//!
//! What becomes of a key when writes meet is decided by the slices, in
//! `src/engine/converge.rs`. Clocks, randomness, disks and sockets are arguments: the
//! simulation in `simulation/` runs clusters of this over virtual ones.

mod admission;
mod ahead;
mod apply;
mod buckets;
mod cache;
pub mod clock;
mod ended;
pub mod entry;
mod forks;
mod greeting;
mod history;
mod listing;
mod members;
mod message;
mod mistake;
mod own;
mod peer;
mod questions;
mod receiving;
mod replica;
mod roots;
mod sending;
#[cfg(test)]
mod simulation;
mod skew;
mod stability;
mod stream;
mod taking_over;
#[cfg(test)]
mod tests;
mod times;
mod vector;
mod view;
mod watching;
mod write_waiters;

pub use admission::beyond_most;
pub use ahead::Ahead;
pub use apply::{apply, begin};
pub use buckets::{BucketHashes, bucket_of};
pub use forks::Fork;
pub use greeting::{Decision, Greeting, PROTOCOL, decide};
pub use history::{History, SnapshotVector};
pub use listing::PROTOCOL_LISTS;
pub use members::{MemberChange, Members, Place, Stream};
pub use message::{Applied, Effect, Message, Pulse};
pub use questions::{Question, Questions};
pub use replica::{Replica, Start};
pub use roots::{Difference, Root};
pub use skew::Skew;
pub use stability::{Stability, stability};
pub use vector::{Origin, Row, VersionVector};
pub use view::{MemberView, Memory};
pub use write_waiters::WriteWaiters;
