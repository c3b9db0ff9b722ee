//! Whose writes an entry of the log holds, and telling them what became of it.

use datastore::error::Error;

use crate::mailbox::Mailbox;
use crate::shard::{Shard, ShardMessage};
use crate::shard_messages::Committed;

/// Whose writes a group holds; each stands for one or more requests, in the
/// order of their ordinals.
#[derive(Debug)]
pub enum Acknowledgement {
    /// One request each.
    Singles {
        /// The shard that knows them.
        shard: usize,
        /// By these numbers.
        writes: Vec<u32>,
    },
    /// One request together.
    Multi {
        /// Shard and number of each part.
        parts: Vec<(usize, u32)>,
    },
}

/// Requests to log, in order.
#[derive(Debug, Default)]
pub struct Group {
    /// Encoded requests, to be written one behind the other.
    pub pieces: Vec<Vec<u8>>,
    /// Whose they are.
    pub acknowledgements: Vec<Acknowledgement>,
    /// How many requests.
    pub requests: usize,
    /// How many bytes.
    pub bytes: usize,
}

impl Group {
    /// Adds encoded bytes.
    pub fn push(&mut self, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    /// Adds another group behind this one.
    pub fn merge(&mut self, mut other: Group) {
        self.pieces.append(&mut other.pieces);
        self.acknowledgements.append(&mut other.acknowledgements);
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// Tells each shard that its writes are in the log, as entry `index`.
pub fn committed(shards: &[Mailbox<Shard>], index: u64, acknowledgements: Vec<Acknowledgement>) {
    let mut per_shard: Vec<Vec<(u32, u32)>> = vec![Vec::new(); shards.len()];
    let mut ordinal = 0;
    for acknowledgement in acknowledgements {
        match acknowledgement {
            Acknowledgement::Singles { shard, writes } => {
                let numbered = writes.into_iter().zip(ordinal..);
                per_shard[shard].extend(numbered);
                ordinal = per_shard[shard].last().map_or(ordinal, |(_, last)| last + 1);
            }
            Acknowledgement::Multi { parts } => {
                for (shard, write) in parts {
                    per_shard[shard].push((write, ordinal));
                }
                ordinal += 1;
            }
        }
    }
    for (shard, writes) in shards.iter().zip(per_shard) {
        if !writes.is_empty() {
            shard.send(ShardMessage::Committed(Committed { index, writes }));
        }
    }
}

/// Tells each shard that its writes did not become durable, or (as `error` says) may not have.
pub fn refused(shards: &[Mailbox<Shard>], acknowledgements: Vec<Acknowledgement>, error: &Error) {
    let mut per_shard: Vec<Vec<u32>> = vec![Vec::new(); shards.len()];
    for acknowledgement in acknowledgements {
        match acknowledgement {
            Acknowledgement::Singles { shard, writes } => per_shard[shard].extend(writes),
            Acknowledgement::Multi { parts } => {
                parts.into_iter().for_each(|(shard, write)| per_shard[shard].push(write));
            }
        }
    }
    for (shard, writes) in shards.iter().zip(per_shard) {
        if !writes.is_empty() {
            shard.send(ShardMessage::Refused { writes, error: error.clone() });
        }
    }
}
