//! What a shard does for a replicated log: offices, entries that were decided
//! elsewhere, states that arrive whole, and the hash of its own.

use bytes::Bytes;
use datastore::engine::Table;
use datastore::error::Error;
pub use datastore::replication::notices::OfficeNotice;
use datastore::replication::notices::apply_logged;

use crate::admission::PermitTotal;
use crate::converging_messages::ConvergingMessage;
use crate::idle_memory::free_elsewhere;
use crate::index_manager::IndexMessage;
use crate::replication_messages::ReplicationMessage;
use crate::shard::Shard;
use crate::wal_writer::WalMessage;

/// Entries of the log that aren't this node's own writes.
pub struct Logged {
    /// Index and payload, in the log's order. Each shard takes what is its own.
    pub entries: Vec<(u64, Bytes)>,
    /// What to give back when they are indexed.
    pub permits: PermitTotal,
}

impl Shard {
    /// An office begins or ends. When one ends, all writes in flight are answered.
    pub(crate) fn office_changed(&mut self, office: OfficeNotice) {
        self.office.changed(office, &mut self.slice);
    }

    /// Why this shard takes no writes, if so.
    pub(crate) fn office_refusal(&self) -> Option<Error> {
        if let Some(cluster) = &self.node.dynamo {
            return cluster.write_refusal();
        }
        let cluster = self.node.cluster.as_ref().filter(|_| !self.office.is_held())?;
        Some(cluster.refusal())
    }

    /// Applies entries that were decided elsewhere.
    pub(crate) fn logged(&mut self, logged: Logged) {
        for (index, payload) in &logged.entries {
            apply_logged(&mut self.slice, self.number, *index, payload);
        }
        self.finished += logged.permits;
    }

    /// A state that arrived whole takes the place of this one, and is indexed anew.
    pub(crate) fn install(&mut self, table: Table, index: u64) {
        free_elsewhere(self.slice.install(table, index));
        self.index_position = 0;
        self.index_manager.send(IndexMessage::Clear);
        self.begin_build();
    }

    /// The hash of this slice, which is behind entry `index` now.
    pub(crate) fn state_hash(&self, index: u64) {
        let hash = self.slice.table().state_hash().unwrap_or_default().0;
        self.wal_writer.send(if self.node.dynamo.is_some() {
            WalMessage::Converging(ConvergingMessage::ShardHash(hash))
        } else {
            WalMessage::Replication(ReplicationMessage::ShardStateHash { index, hash })
        });
    }
}
