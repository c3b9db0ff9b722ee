//! What a shard does in dynamo mode beside its own writes: it merges what other nodes
//! wrote, forgets tombstones, and shows its state to those who compare or take it over.

use bytes::{Bytes, BytesMut};
use crossbeam_channel::Sender;
use datastore::engine::{Entry, WriteKind, absent_refusal};
use datastore::error::Error;
use datastore::messaging::Span;
use datastore::replication::dynamo::{apply, entry::encode_state};
use datastore::replication::message::NodeId;
use std::sync::atomic::Ordering;

use crate::converging_messages::{Converge, ConvergingMessage, WalkStep};
use crate::shard::{Shard, Token, WALK_ENTRIES};
use crate::shard_messages::ShardOperation;
use crate::standing_dynamo::tombstones_held_by;
use crate::wal_writer::WalMessage;

impl Shard {
    /// A single-key write that its connection answers itself, when others have it, too.
    pub(crate) fn awaited(
        &mut self,
        token: Token,
        arena: &Bytes,
        operation: ShardOperation,
        (refusal, office_refusal): (Option<&Error>, Option<&Error>),
    ) {
        let (key, kind, condition, refusal) = match operation {
            ShardOperation::Set { key, hash, value, condition } => {
                ((key, hash), WriteKind::Set(value.slice(arena)), condition, refusal)
            }
            ShardOperation::AddVector { key, hash, vector, condition } => {
                ((key, hash), WriteKind::AddVector(vector.slice(arena)), condition, refusal)
            }
            ShardOperation::Delete { key, hash, condition } => {
                ((key, hash), WriteKind::Delete, condition, office_refusal)
            }
            _ => unreachable!("only single-key writes wait for copies"),
        };
        self.write(token, arena, key, kind, condition, refusal);
    }

    /// Whether the tombstones of a part's deletes have room.
    pub(crate) fn has_room_for_part(&self, arena: &Bytes, writes: &[(Span, u64, Option<Span>)]) -> bool {
        let mut keys: Vec<(&[u8], u64)> =
            writes.iter().map(|(key, hash, _)| (key.of(arena), *hash)).collect();
        keys.sort_unstable();
        keys.dedup();
        self.slice.has_room_to_delete(keys.into_iter())
    }

    /// Why deletes of keys that aren't there are refused.
    pub(crate) fn absent_refusal(&self, is_bulk: bool) -> Error {
        let held_by =
            self.node.dynamo.as_ref().map(|cluster| tombstones_held_by(&self.node, &cluster.view()));
        let most = self.node.settings.memory_bytes_max.unwrap_or(u64::MAX);
        absent_refusal(is_bulk, most, held_by.unwrap_or_default())
    }

    /// Merges entries that this node didn't write itself.
    pub(crate) fn merge(&mut self, converge: &Converge) {
        for (index, entry) in &converge.entries {
            apply(&mut self.slice, self.number, *index, entry);
            self.report_conflicts();
        }
        self.finished_bytes += converge.permit_bytes;
    }

    /// Hands on what was lost by merging.
    pub(crate) fn report_conflicts(&mut self) {
        let output = self.slice.output();
        if let (false, Some(cluster)) = (output.conflicts.is_empty(), &self.node.dynamo) {
            cluster
                .lost(std::mem::take(&mut output.conflicts), std::mem::take(&mut output.conflicts_omitted));
        }
    }

    /// Everyone is behind all writes up to this time.
    pub(crate) fn collect_tombstones(&mut self, through: u64) {
        let gone = self.slice.collect_tombstones(through);
        if let Some(cluster) = &self.node.dynamo {
            cluster.tombstones_collected.fetch_add(gone as u64, Ordering::Relaxed);
        }
    }

    /// What there is of a key, for this node or for a peer.
    pub(crate) fn key_wanted(&self, key: &Bytes, hash: u64, number: u64, from: Option<NodeId>) {
        let table = self.slice.table();
        let entry = table.get(key, hash);
        // It may wait for a peer's socket: it gets no more room than it needs.
        let mut state = BytesMut::with_capacity(entry.map_or(0, Entry::memory_bytes) + key.len() + 64);
        if let Some(entry) = entry {
            encode_state(&mut state, entry);
        }
        if let Some(version) = table.tombstone(key, hash) {
            encode_state(&mut state, &Entry::tombstone(version, key));
        }
        let state = state.freeze();
        let message = match from {
            None => ConvergingMessage::KeyState { from: self.node.settings.node_id, number, state },
            Some(to) => ConvergingMessage::TellKeyState { to, number, state },
        };
        self.wal_writer.send(WalMessage::Converging(message));
    }

    /// The next step of a walk over everything, tombstones among it.
    pub(crate) fn walk_for(&self, position: usize, reply: &Sender<WalkStep>) {
        let table = self.slice.table();
        let (entries, next) = table.walk_step_whole(position, WALK_ENTRIES);
        let next = (next < table.walk_length()).then_some(next);
        // The thread may have given up.
        let _ = reply.send(WalkStep { entries, next });
    }
}
