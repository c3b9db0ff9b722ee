//! IndexManager: owns the indexes over one shard's slice, on a thread of its
//! own, so that a search never stops a shard. The order of its mailbox is the
//! promise that what was acknowledged is found: a shard sends the change before
//! it lets the answer go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, Context, Handler};
use datastore::engine::{Change, Entry};
use datastore::error::{Code, Detail, Error};
use datastore::indexing::Indexes;
use datastore::query::{Part, Query};

use crate::connection::{Connection, ConnectionMessage};
use crate::mailbox::{Counted, Mailbox};
use crate::node::{Node, lock};
use crate::shard::Shard;
use crate::shard_messages::ShardMessage;

/// What an IndexManager hears.
pub enum IndexMessage {
    /// From its Shard, in the order in which they were applied.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// What to give back when they are indexed.
        permit_bytes: usize,
    },
    /// From its Shard, after the start: entries of the next buckets.
    Build {
        /// Their entries.
        entries: Vec<Entry>,
        /// Buckets handed over, these included.
        buckets_done: usize,
        /// All of the shard's.
        buckets_total: usize,
    },
    /// From its Shard: another state takes the place of what is indexed; its entries follow.
    Clear,
    /// From a Connection, or by way of its Shard.
    Search {
        /// The request's place in its connection's order.
        sequence: u64,
        /// What to look for, shared by all IndexManagers.
        query: Arc<Query>,
        /// Who asked.
        reply_to: Mailbox<Connection>,
    },
}

/// The actor.
pub struct IndexManager {
    number: usize,
    node: Arc<Node>,
    indexes: Indexes,
    hash_key: (u64, u64),
    shard: Mailbox<Shard>,
    /// Buckets indexed of all, since the start.
    progress: (usize, usize),
    published_memory: i64,
}

impl IndexManager {
    /// Empty indexes of a shard of `buckets_total` buckets, all of them still
    /// `to_build`: the shard brings their entries when it starts.
    pub fn new(
        number: usize,
        node: Arc<Node>,
        shard: Mailbox<Shard>,
        hash_key: (u64, u64),
        (buckets_total, to_build): (usize, bool),
    ) -> IndexManager {
        let indexes = Indexes::new(node.settings.indexes, hash_key);
        let buckets_done = if to_build { 0 } else { buckets_total };
        node.shard_figures[number].buckets_indexed.store(buckets_done, Ordering::Relaxed);
        let progress = (buckets_done, buckets_total);
        IndexManager { number, node, indexes, hash_key, shard, progress, published_memory: 0 }
    }

    fn build(&mut self, entries: Vec<Entry>, buckets_done: usize, buckets_total: usize) {
        for entry in entries {
            self.indexes.apply(&Change { old: None, new: Some(entry) });
        }
        self.progress = (buckets_done, buckets_total);
        let figures = &self.node.shard_figures[self.number];
        figures.buckets_indexed.store(buckets_done, Ordering::Relaxed);
        self.shard.send(ShardMessage::BucketsIndexed);
    }

    fn search(&self, query: &Query) -> Result<Part, Error> {
        let (done, total) = self.progress;
        if done < total {
            let progress = done as f64 / total as f64;
            let percent = 100 * done / total;
            let message = format!("the indexes are being rebuilt after the start: {percent} % done");
            return Err(Error::new(Code::IndexNotReady, message).with_detail(Detail::Progress(progress)));
        }
        Ok(query.run(&self.indexes))
    }

    fn publish(&mut self) {
        let sizes = self.indexes.sizes();
        let memory = sizes.bytes() as i64;
        self.node.permits.memory_changed(memory - self.published_memory);
        self.published_memory = memory;
        *lock(&self.node.shard_figures[self.number].indexes) = (sizes, self.indexes.rooms());
    }
}

impl Actor for IndexManager {
    type Context = Context<Self>;
}

impl Handler<Counted<IndexMessage>> for IndexManager {
    type Result = ();

    fn handle(&mut self, counted: Counted<IndexMessage>, _: &mut Self::Context) {
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            IndexMessage::Changes { changes, permit_bytes } => {
                changes.iter().for_each(|change| self.indexes.apply(change));
                self.publish();
                self.node.permits.give_back(permit_bytes);
            }
            IndexMessage::Build { entries, buckets_done, buckets_total } => {
                self.build(entries, buckets_done, buckets_total);
                self.publish();
            }
            IndexMessage::Clear => {
                self.indexes = Indexes::new(self.node.settings.indexes, self.hash_key);
                self.progress.0 = 0;
                self.node.shard_figures[self.number].buckets_indexed.store(0, Ordering::Relaxed);
                self.publish();
            }
            IndexMessage::Search { sequence, query, reply_to } => {
                let part = self.search(&query);
                reply_to.send(ConnectionMessage::Found { sequence, part });
            }
        }
    }
}
