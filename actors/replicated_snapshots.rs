//! Snapshots in the life of a member's log: its own, which may be sent to others
//! and let the log be cut, and the leader's, which take its state's place.
//!
//! ```text
//! SnapshotArrived ─► told to the replica ─► Persist: the log begins anew behind it
//!                                                  │ durable
//!                     shards, indexes ◄─ Install ──┤
//!                     SnapshotWriter ◄─ Installed ─┘
//! ```

use std::sync::atomic::Ordering;

use datastore::engine::Table;
use datastore::replication::held_log::HeldLog;
use datastore::replication::message::{Message, NodeId, SnapshotMark};
use datastore::replication::raft::Input;

use crate::disk_thread::DiskOrder;
use crate::idle_memory::free_elsewhere;
use crate::memory_figures::Share;
use crate::replicated_log::ReplicatedLog;
use crate::shard_messages::ShardMessage;
use crate::snapshot_writer::SnapshotMessage;

/// A snapshot of this node's own, and its S: what is behind that is in the log, too.
pub type OwnSnapshot = (SnapshotMark, u64);

/// What the log knows of snapshots.
#[derive(Default)]
pub(crate) struct Snapshots {
    /// The newest one.
    pub(crate) newest: Option<OwnSnapshot>,
    /// The last entry that the log has given up.
    pub(crate) cut_index: u64,
    /// What it keeps for followers that are sent one.
    pub(crate) held: HeldLog,
    /// A state of the leader's: the replica was told of it, and hasn't asked to install it yet.
    pub(crate) arrived: Option<HeldState>,
    /// The persist that installs it.
    pub(crate) installing: Option<(u64, SnapshotMark, HeldState)>,
}

/// A state that is not yet this node's: a table a shard, and what they occupy, for `stats`.
pub(crate) struct HeldState {
    tables: Vec<Table>,
    _kept: Share,
}

impl Snapshots {
    /// How far the log may be cut that needn't reach back beyond `through`, and for whom the rest is kept.
    pub(crate) fn may_cut(&self, through: u64) -> (u64, Vec<NodeId>) {
        let may = self.held.may_cut(through);
        (may, if may < through { self.held.followers() } else { Vec::new() })
    }
}

impl ReplicatedLog {
    /// The replica hears of a snapshot whose state is here. The SnapshotWriter
    /// brings one at a time, so that the state that is installed is this one.
    pub(crate) fn snapshot_arrived(&mut self, message: Box<Message>, tables: Vec<Table>) {
        let mut kept = self.node.memory.snapshots.share();
        kept.keeps(tables.iter().map(Table::memory_bytes).sum());
        self.snapshots.arrived = Some(HeldState { tables, _kept: kept });
        self.step(Input::Received(message));
    }

    /// Another state takes the place of all that was applied.
    pub(crate) fn install(&mut self, mark: &SnapshotMark, state: HeldState) {
        tracing::info!(index = mark.index, term = mark.term, "installed a snapshot of the leader's");
        self.notices.installed(mark.index);
        self.snapshots.cut_index = mark.index;
        self.snapshots.newest = Some((mark.clone(), mark.index));
        self.cluster.committed(mark.index, mark.term);
        self.hashes.forget();
        for (shard, table) in self.cast.shards.iter().zip(state.tables) {
            shard.send(ShardMessage::Install { table, index: mark.index });
        }
        self.cluster.applied_index.store(mark.index, Ordering::Relaxed);
        self.cast.snapshot_writer.send(SnapshotMessage::Installed { taken: true });
    }

    /// The replica had no use for it: it is as far already, or has another leader.
    pub(crate) fn give_up_unwanted_snapshot(&mut self) {
        if let Some(state) = self.snapshots.arrived.take() {
            free_elsewhere(state.tables);
            self.cast.snapshot_writer.send(SnapshotMessage::Installed { taken: false });
        }
    }

    /// A follower is sent the snapshot that the message names.
    pub(crate) fn send_snapshot(&mut self, message: Message) {
        let index = message.snapshot.as_ref().map_or(0, |mark| mark.index);
        // One that isn't the newest any more is none that can be sent.
        let after =
            self.snapshots.newest.as_ref().filter(|(mark, _)| mark.index == index).map(|(_, after)| *after);
        if let Some(after) = after {
            self.snapshots.held.snapshot_sent(message.to, after, index);
        }
        self.order(DiskOrder::StreamSnapshot(Box::new(message)));
    }

    pub(crate) fn snapshot_made(&mut self, index: u64, after: u64) {
        let Some(replica) = &self.replica else { return };
        let Some(term) = replica.term_of(index) else { return };
        let configuration = replica.configuration_at(index).clone();
        self.snapshots.newest = Some((SnapshotMark { index, term, configuration }, after));
        self.snapshot_moved();
    }

    pub(crate) fn snapshot_moved(&mut self) {
        if let (Some((mark, after)), Some(replica)) = (&self.snapshots.newest, &mut self.replica) {
            replica.snapshot_made(mark.clone(), *after, self.snapshots.cut_index);
        }
    }
}
