//! Taking over a peer's state, and giving this node's: where logs don't reach back, and for repairs.

use bytes::Bytes;

use super::entry::{Decoded, encode_forgotten, encode_seen, encode_states, versions_of};
use super::history::SnapshotVector;
use super::message::Effect;
use super::replica::Replica;
use super::vector::VersionVector;
use crate::engine::SameVersion;
use crate::replication::message::NodeId;
use crate::version::Version;

impl Replica {
    /// A peer says that its log doesn't reach back to what this node lacks.
    pub fn too_far_behind(&mut self, from: NodeId) {
        if self.pulling.is_none() && self.peers.contains_key(&from) {
            self.pulling = Some((from, false));
            self.effects.push(Effect::Pull { from, repair: None });
        }
    }

    /// States that a peer has sent, of a time when it had this vector: gives their entry's index.
    pub fn states(&mut self, vector: &VersionVector, same: SameVersion, states: Bytes) -> u64 {
        // They may be ahead of the vector: who reads them and writes must win.
        versions_of(&states).for_each(|version| self.clock.observe(version.index));
        let payload = encode_states(vector, same, &states);
        self.order(Decoded::States { vector: vector.clone(), same, states }, payload, false)
    }

    /// Parts of keys that the peer had seen and has no more.
    pub fn forget<'a>(&mut self, rows: impl Iterator<Item = (&'a [u8], Version)>) -> u64 {
        let payload = encode_forgotten(rows);
        let body = payload.slice(1..);
        self.order(Decoded::Forgotten(body), payload, false)
    }

    /// All states have come: what the peer had is here now.
    pub fn pulled(&mut self, mut state: SnapshotVector) -> u64 {
        if self.pulling.take().is_some_and(|(_, repairs)| repairs) {
            // Only what differs was taken over, and tombstones are in no hash: the rest may be missing.
            state = SnapshotVector::default();
        }
        self.roots.repaired();
        self.clock.observe(state.vector.latest());
        let payload = encode_seen(&state);
        self.order(Decoded::Seen(state), payload, false)
    }

    /// They have not, or not all.
    pub fn pull_failed(&mut self) {
        self.pulling = None;
        self.roots.repaired();
    }

    /// A peer takes over this node's state: gives the vector that it has at least, and
    /// keeps the log from there on.
    pub fn transfer_begins(&mut self, to: NodeId) -> SnapshotVector {
        self.transfers.insert(to, self.history.next_index());
        self.history.mark();
        self.history.state()
    }

    /// It has it, or has given up.
    pub fn transfer_ended(&mut self, to: NodeId) {
        self.transfers.remove(&to);
    }

    /// How far the log may be cut that needn't reach back beyond `through`.
    pub fn may_cut(&self, through: u64) -> u64 {
        self.transfers.values().fold(through, |least, from| least.min(from.saturating_sub(1)))
    }

    /// The log was cut.
    pub fn cut(&mut self, first_index: u64) {
        self.history.cut(first_index);
    }
}
