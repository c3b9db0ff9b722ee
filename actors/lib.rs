//! The cast of `datastore-node`: actors that own threads, sockets, files and
//! time, and carry out what the pure core in `datastore` decides.
//!
//! [`start`] is the only place where they are wired.

mod acknowledgements;
mod cluster;
mod connection;
mod connection_output;
mod disk_thread;
mod dispatch;
mod dispatch_members;
mod election_coordinator;
pub mod flags;
mod founding;
mod freshness;
pub mod idle_memory;
mod index_manager;
mod log_reader;
mod log_replayer;
mod mailbox;
mod membership_changes;
mod node;
mod peer_greeting;
mod peer_lane;
mod peer_links;
mod peer_session;
mod peer_socket;
mod peer_thread;
mod peers;
mod progress;
mod random;
mod recovered_log;
mod recovery;
mod replicated_disk;
mod replicated_log;
mod replicated_reads;
mod replicated_snapshots;
mod replication_messages;
mod replication_options;
mod replicator_peer;
mod request_stream;
pub mod server;
mod shard;
mod shard_answers;
mod shard_messages;
mod shard_replication;
mod slot;
mod snapshot_installer;
mod snapshot_loader;
mod snapshot_receiver;
mod snapshot_sender;
mod snapshot_writer;
mod spare_maker;
mod standing;
mod start;
mod start_error;
mod state_hashes;
mod stats;
mod wal_writer;

use start::Cast;
pub use start::{Running, StartError, start};
