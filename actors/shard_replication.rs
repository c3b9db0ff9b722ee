//! What a shard does for a replicated log: offices, entries that were decided
//! elsewhere, states that arrive whole, and the hash of its own.

use bytes::Bytes;
use datastore::engine::{Requests, Table};
use datastore::error::{Code, Error};

use crate::idle_memory::free_elsewhere;
use crate::index_manager::IndexMessage;
use crate::replication_messages::ReplicationMessage;
use crate::shard::Shard;
use crate::wal_writer::WalMessage;

/// A change of office: see `src/replication/office.rs`.
pub struct OfficeNotice {
    /// Stands on what is appended from now on.
    pub number: u64,
    /// What clients are told whose writes are in flight; `None`: an office begins.
    pub ended: Option<Error>,
}

/// Entries of the log that aren't this node's own writes.
pub struct Logged {
    /// Index and payload, in the log's order. Each shard takes what is its own.
    pub entries: Vec<(u64, Bytes)>,
    /// What to give back when they are indexed.
    pub permit_bytes: usize,
}

impl Shard {
    /// An office begins or ends. When one ends, all writes in flight are answered.
    pub(crate) fn office_changed(&mut self, office: OfficeNotice) {
        self.office = office.number;
        self.in_office = office.ended.is_none();
        if let Some(lost) = office.ended {
            let refused = Error::new(Code::NoLeader, "this node leads no more; the write was not made");
            self.slice.abandon(&lost, &refused);
        }
    }

    /// Why this shard takes no writes, if so.
    pub(crate) fn office_refusal(&self) -> Option<Error> {
        let cluster = self.node.cluster.as_ref().filter(|_| !self.in_office)?;
        Some(cluster.refusal())
    }

    /// Applies entries that were decided elsewhere.
    pub(crate) fn logged(&mut self, logged: Logged) {
        let placement = self.node.placement;
        for (index, payload) in &logged.entries {
            let effects = Requests::new(payload).map(|item| {
                // Checksums were right all the way: a payload that can't be read is a fault of a node's own.
                let (ordinal, effect) = item.unwrap_or_else(|error| panic!("entry {index}: {error}"));
                (ordinal, effect, placement.hash(effect.key()))
            });
            let own = effects.filter(|(_, _, hash)| placement.shard(*hash) == self.number);
            self.slice.apply_logged(*index, own);
        }
        self.finished_bytes += logged.permit_bytes;
    }

    /// A state that arrived whole takes the place of this one, and is indexed anew.
    pub(crate) fn install(&mut self, table: Table, index: u64) {
        free_elsewhere(self.slice.install(table, index));
        self.index_position = 0;
        self.index_manager.send(IndexMessage::Clear);
        self.index_next_buckets();
    }

    /// The hash of this slice, which is behind entry `index` now.
    pub(crate) fn state_hash(&self, index: u64) {
        let hash = self.slice.table().state_hash().unwrap_or_default().0;
        let message = ReplicationMessage::ShardStateHash { index, hash };
        self.wal_writer.send(WalMessage::Replication(message));
    }
}
