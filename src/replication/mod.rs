//! Replication: how several nodes come to hold the same log.
//!
//! [`raft`] is leader mode: one node takes the writes, a majority has them on
//! disk before they are acknowledged, and when the leader is gone another node
//! that has them all takes over. [`policy`] says which node should lead where
//! several could, [`reconfiguration`] how members change, and [`handshake`] who is
//! taken for a member of the same cluster.
//! Around the replica, [`office`] says when a node's writes count,
//! [`appends`] and [`group`] what becomes an entry of the log, and [`notices`]
//! what the shards are told of it, in which order. All of them decide and return
//! effects; they have no sockets, no threads, no clock and no randomness, so that
//! a simulation runs the same code as a node.

pub mod appends;
pub mod doubt;
pub mod dynamo;
pub mod group;
pub mod handshake;
pub mod health;
pub mod held_log;
pub mod message;
pub mod notices;
pub mod office;
pub mod policy;
pub mod protocol;
pub mod quorum;
pub mod raft;
pub mod reconfiguration;
pub mod recovered;
pub mod refusal;
#[cfg(test)]
mod simulation;
pub mod tolerance;
