//! What a node does whose log may be an older copy, or contradicts its leader's.

use std::sync::atomic::Ordering;

use datastore::replication::doubt::Condition;
use datastore::replication::message::NodeId;

use crate::disk_thread::DiskOrder;
use crate::replicated_log::ReplicatedLog;

impl ReplicatedLog {
    /// The disk has lost what it had synced, or was set back, and nothing but a leader's word tells it.
    pub(crate) fn doubt_begins(&mut self, promised: u64, last: u64) {
        if self.cluster.conditions.own() == Condition::Well {
            tracing::error!(
                promised,
                last,
                "THIS NODE HAS LOST ENTRIES that it had said were on its disk: its disk was set back to an older state, \
                 or forgot what it had synced. It counts for no majority before its leader has brought it up to date"
            );
        }
        self.cluster.conditions.set_own(Condition::InDoubt);
        self.order(DiskOrder::NoteDoubt { begins: true });
    }

    pub(crate) fn doubt_ends(&mut self) {
        tracing::info!(
            "this node is no older copy of itself any more: it has what a majority has, and counts again"
        );
        self.cluster.conditions.set_own(Condition::Well);
        self.order(DiskOrder::NoteDoubt { begins: false });
    }

    /// What it has committed its leader hasn't.
    pub(crate) fn conflicts(&mut self, leader: NodeId, index: u64) {
        tracing::error!("{}", self.cluster.conditions.conflict(self.cluster.node_id, leader, index));
        self.cluster.has_quorum.store(false, Ordering::Relaxed);
        self.take_no_more_part();
    }
}
