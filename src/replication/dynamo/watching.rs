//! What a replica looks at from time to time: clocks, roots, and tombstones that may go.

use std::collections::BTreeMap;

use super::entry::Content;
use super::message::Effect;
use super::replica::Replica;
use super::stability::{Stability, stability};
use super::vector::VersionVector;
use crate::replication::message::NodeId;

/// Ticks between two roots, and two looks for tombstones that may go.
const ROOT_TICKS: u64 = 10;
const COLLECT_TICKS: u64 = 10;
/// States that are so long ahead of their entries are taken to be astray.
const ASTRAY_TICKS: u64 = 300;

impl Replica {
    pub(super) fn watch_clock(&mut self) {
        let skew = self.clocks.skew(self.tick);
        if (skew.is_wrong, skew.is_doubtful) != (self.skew.is_wrong, self.skew.is_doubtful) {
            self.effects.push(Effect::Skew(skew));
        }
        self.skew = skew;
    }

    pub(super) fn watch_roots(&mut self) {
        let is_quiet = self.pending.is_empty() && self.hashing.is_none();
        let is_news = self.roots.own_vector() != Some(&self.history.vector);
        // A root beside a vector that doesn't have all of it would differ for no fault. But what
        // is astray for good must be found.
        if !self.history.is_ahead() {
            self.ahead_since = self.tick;
        }
        let is_exact = self.ahead_since == self.tick || self.tick >= self.ahead_since + ASTRAY_TICKS;
        if is_quiet && is_exact && is_news && self.pulling.is_none() && self.tick.is_multiple_of(ROOT_TICKS) {
            self.hashing = Some(self.history.vector.clone());
            self.effects.push(Effect::Hash);
        }
        let in_contact = self.in_contact();
        let Some(difference) = self.roots.compare(&in_contact, self.tick) else { return };
        if let (Some(same), None) = (difference.repair, self.pulling) {
            self.pulling = Some((difference.peer, true));
            self.effects.push(Effect::Pull { from: difference.peer, repair: Some(same) });
        }
        self.effects.push(Effect::Differs(difference));
    }

    /// The log is to go on by an entry, whatever is in it. Says whether it does: not before it is
    /// sure where this stream ends, and not where no write would be taken.
    pub fn go_on(&mut self, now_ms: u64) -> bool {
        self.leave_stream(now_ms);
        let may = self.is_sure() && !self.awaits_contact() && self.origin != 0;
        if may && self.pending.is_empty() {
            self.order_own(Content::Watermark, 1, now_ms);
        }
        may
    }

    pub(super) fn watch_tombstones(&mut self, now_ms: u64, tombstones: u64) {
        if !self.tick.is_multiple_of(COLLECT_TICKS) {
            return;
        }
        let own = self.ordered.row(self.origin).time;
        // Before all were heard it would help nobody.
        let is_sure = self.is_sure();
        // A stream that has only begun may be behind tombstones that this node never had.
        let is_behind = self.ordered.sequence(self.origin) == 1 && self.ordered.latest() > own;
        if (tombstones > own || is_behind) && is_sure && self.pending.is_empty() {
            self.order_own(Content::Watermark, 1, now_ms);
        }
        let mut vectors: BTreeMap<NodeId, VersionVector> = BTreeMap::new();
        for (id, peer) in &self.peers {
            // Before it has said whom it takes for members, some may be missing here.
            let vector = peer.vector.clone().filter(|_| peer.is_known());
            vectors.extend(vector.map(|vector| (*id, vector)));
        }
        vectors.insert(self.place.node_id, self.history.vector.clone());
        let stable = stability(&self.history.members, &self.limits, &vectors);
        self.stable = self.unless_forked(stable);
        if !self.heard_of.is_empty() {
            let held_by = self.heard_of.values().flatten().map(|(node_id, _)| *node_id).collect();
            self.stable = Stability { through: 0, held_by };
        }
        let through = self.stable_through(tombstones, now_ms);
        // Earlier ones may have come back from a peer that hadn't forgotten them yet.
        let is_news = through > self.collected || tombstones <= through;
        if tombstones > 0 && !self.walk_under_way && is_news {
            self.collected = through;
            self.effects.push(Effect::Collect { through });
        }
    }
}
