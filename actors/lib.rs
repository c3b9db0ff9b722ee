//! The cast of `datastore-node`: actors that own threads, sockets, files and
//! time, and carry out what the pure core in `datastore` decides.
//!
//! [`start`] is the only place where they are wired.

pub mod connection;
pub mod disk_thread;
mod dispatch;
pub mod flags;
pub mod index_manager;
pub mod mailbox;
pub mod node;
pub mod recovery;
pub mod request_stream;
pub mod server;
pub mod shard;
pub mod snapshot_writer;
mod spare_maker;
pub mod start;
pub mod stats;
pub mod wal_writer;

pub use start::{Cast, Running, StartError, start};
