//! Snapshots in the life of a member's log: its own, which may be sent to others
//! and let the log be cut, and the leader's, which take its state's place.
//!
//! ```text
//! SnapshotArrived ─► told to the replica ─► Persist: the log begins anew behind it
//!                                                  │ durable
//!                     shards, indexes ◄─ Install ──┘
//! ```

use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use datastore::engine::Table;
use datastore::replication::message::{Message, SnapshotMark};
use datastore::replication::raft::Input;

use crate::replicated_log::ReplicatedLog;
use crate::shard::ShardMessage;

/// A snapshot of the leader's on its way into this node.
pub(crate) struct Arrived {
    pub(crate) tables: Vec<Table>,
    pub(crate) done: Sender<bool>,
}

/// What the log knows of snapshots.
#[derive(Default)]
pub(crate) struct Snapshots {
    /// The newest snapshot of this node's own.
    pub(crate) newest: Option<SnapshotMark>,
    /// The last entry that the log has given up.
    pub(crate) cut_index: u64,
    /// Told to the replica, which hasn't asked to install it yet.
    pub(crate) arrived: Option<Arrived>,
    /// Came while another one was being installed, and waits for that.
    next_arrived: Option<(Box<Message>, Arrived)>,
    /// The persist that installs it.
    pub(crate) installing: Option<(u64, SnapshotMark, Arrived)>,
}

impl ReplicatedLog {
    /// The replica hears of a snapshot whose state is here; of one at a time, so
    /// that the state that it installs is the one that it was told of.
    pub(crate) fn snapshot_arrived(&mut self, message: Box<Message>, arrived: Arrived) {
        if self.snapshots.installing.is_none() {
            self.snapshots.arrived = Some(arrived);
            return self.step(Input::Received(message));
        }
        if let Some((_, Arrived { done, .. })) = self.snapshots.next_arrived.replace((message, arrived)) {
            // Whoever sent it may have gone.
            let _ = done.send(false);
        }
    }

    /// Another state takes the place of all that was applied.
    pub(crate) fn install(&mut self, mark: &SnapshotMark, arrived: Arrived) {
        let Arrived { tables, done } = arrived;
        tracing::info!(index = mark.index, term = mark.term, "installed a snapshot of the leader's");
        self.handed_over = mark.index;
        self.snapshots.cut_index = mark.index;
        self.snapshots.newest = Some(mark.clone());
        self.cluster.committed(mark.index, mark.term);
        self.hashes.forget();
        for (shard, table) in self.cast.shards.iter().zip(tables) {
            shard.send(ShardMessage::Install { table, index: mark.index });
        }
        self.cluster.applied_index.store(mark.index, Ordering::Relaxed);
        // Whoever sent it may have gone.
        let _ = done.send(true);
    }

    /// The replica had no use for it: it is as far already.
    pub(crate) fn give_up_unwanted_snapshot(&mut self) {
        if let Some(Arrived { done, .. }) = self.snapshots.arrived.take() {
            let _ = done.send(true);
        }
    }

    pub(crate) fn snapshot_made(&mut self, index: u64) {
        let Some(replica) = &self.replica else { return };
        let Some(term) = replica.term_of(index) else { return };
        self.snapshots.newest = Some(SnapshotMark { index, term, members: replica.members() });
        self.snapshot_moved();
    }

    pub(crate) fn snapshot_moved(&mut self) {
        if let (Some(mark), Some(replica)) = (&self.snapshots.newest, &mut self.replica) {
            replica.snapshot_made(mark.clone(), self.snapshots.cut_index);
        }
    }

    /// What came while another one was being installed has its turn.
    pub(crate) fn next_snapshot(&mut self) {
        if self.snapshots.installing.is_none()
            && let Some((message, arrived)) = self.snapshots.next_arrived.take()
        {
            self.snapshot_arrived(message, arrived);
        }
    }
}
