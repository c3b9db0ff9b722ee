//! Telling peers whom this node takes for members, and hearing it from them.
//!
//! A change of the members is an entry, and comes in its stream's order: who joins may hear the entries
//! of a node that was evicted before it hears of the eviction, and a node that only one's flags name is in
//! no entry at all. So each node says its list of members to each peer when a connection is opened, ahead
//! of everything else on it.
//!
//! ```text
//!   start ─► hears lists ─┬─ all peers have said theirs ───────────────────────┬─► reports on what has ended,
//!                         └─ two seconds are over, and one names this node ────┘   and takes entries
//! ```

use super::members::Members;
use super::message::{Effect, Message};
use super::replica::Replica;
use super::vector::{Origin, Row};
use crate::persistence::NodeUuid;
use crate::replication::message::NodeId;

/// From this version of the peers' protocol on nodes tell each other lists of members, and report on
/// streams that have ended.
pub const PROTOCOL_LISTS: u32 = 2;
/// So many ticks a node that has started waits for lists of peers that it doesn't reach.
const LISTS_TICKS: u64 = 40;
/// For so many ticks the entry that lets a node in may be on its way, behind a list that names it.
const UNKNOWN_TICKS: u64 = 100;

impl Members {
    /// As a frame's body.
    pub fn encode(&self) -> Vec<u8> {
        // Writing plain fields into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Members::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Members> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Replica {
    /// A connection to a peer or from it was opened, on which this version of the protocol is spoken.
    pub fn speaks(&mut self, peer: NodeId, protocol: u32, now_ms: u64) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.protocol = protocol;
        self.send_list(peer);
        // It may wait for a word from anyone before it takes writes.
        self.send(peer, Message::Vector { vector: self.history.vector.clone(), again: false });
        self.listen(now_ms);
    }

    /// Says to a peer whom this node takes for members, if its version reads that.
    pub(super) fn send_list(&mut self, to: NodeId) {
        if self.peers.get(&to).is_some_and(|peer| peer.protocol >= PROTOCOL_LISTS) {
            self.send(to, Message::Members(self.history.members.clone()));
        }
    }

    /// A peer's list of members.
    pub fn heard_list(&mut self, from: NodeId, list: &Members, now_ms: u64) {
        if self.is_cut_off(from) {
            return;
        }
        let own = list.member(self.place.node_id).map(|place| place.directory);
        let names_this = own.is_some_and(|known| known.is_none_or(|known| known == self.directory));
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.is_listed = true;
            peer.names_this = names_this;
        }
        let places = list.node_ids().into_iter().filter_map(|node_id| list.member(node_id));
        let named = places.filter(|place| place.node_id != from && place.node_id != self.place.node_id);
        let named = named.filter_map(|place| Some((place.node_id, place.directory?))).collect();
        let were_any = !self.heard_of.is_empty();
        // Whom only an earlier list has named is no longer waited for: it was evicted, or another directory has
        // its number, and members report on its stream.
        self.heard_of.insert(from, named);
        self.prune_heard_of();
        if !were_any {
            self.heard_of_tick = self.tick;
        }
        let mut merged = self.history.members.clone();
        merged.merge_list(list, from);
        if merged != self.history.members {
            self.history.members = merged;
            self.follow_members();
            self.effects.push(Effect::MembersChanged);
            // What flags say is in no entry: others may hear of it from here alone.
            for to in self.peers.keys().copied().filter(|to| *to != from).collect::<Vec<_>>() {
                self.send_list(to);
            }
        }
        self.listen(now_ms);
    }

    /// Whoever is let in or evicted by now is no longer only heard of.
    pub(super) fn prune_heard_of(&mut self) {
        let members = &self.history.members;
        let is_open = |(node_id, directory): &(NodeId, NodeUuid)| {
            let known = members.member(*node_id).and_then(|place| place.directory);
            known != Some(*directory) && !members.is_evicted(*directory)
        };
        self.heard_of.values_mut().for_each(|named| named.retain(is_open));
        self.heard_of.retain(|_, named| !named.is_empty());
    }

    /// Numbers and directories that a peer takes for members', and that nobody has let in here for so long that
    /// nobody will: its node met them by its flags alone.
    pub fn unknown_members(&self) -> Vec<(NodeId, NodeUuid)> {
        if self.tick < self.heard_of_tick + UNKNOWN_TICKS {
            return Vec::new();
        }
        let mut unknown: Vec<_> = self.heard_of.values().flatten().copied().collect();
        unknown.sort_by_key(|(node_id, directory)| (*node_id, directory.0));
        unknown.dedup();
        unknown
    }

    /// Takes entries from now on, if enough is known of who the members are.
    pub(super) fn listen(&mut self, now_ms: u64) {
        if self.listens {
            return;
        }
        let mut peers = self.peers.values();
        let all_have_said = self.peers.values().all(|peer| peer.is_listed || peer.is_of_earlier_version());
        let is_named = peers.len() == 0 || peers.any(|peer| peer.names_this || peer.is_of_earlier_version());
        if !is_named || !(all_have_said || self.tick >= LISTS_TICKS) {
            return;
        }
        self.listens = true;
        self.report_if_due(now_ms);
        for to in self.peers.keys().copied().collect::<Vec<_>>() {
            // What they have sent meanwhile was not taken.
            self.send(to, Message::Vector { vector: self.history.vector.clone(), again: true });
        }
    }

    /// Members in contact whose version can't read what is to be said of streams that have ended.
    pub fn earlier_versions(&self) -> Vec<NodeId> {
        let is_earlier = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.is_of_earlier_version());
        self.in_contact().into_iter().filter(is_earlier).collect()
    }

    /// Says what this node has of each stream that has ended, if it hasn't yet.
    pub(super) fn report_if_due(&mut self, now_ms: u64) {
        let is_on_its_way = self.report_index >= self.history.next_index();
        let takes_over = matches!(self.pulling, Some((_, false)));
        if !self.may_owe_report || is_on_its_way || self.origin == 0 {
            return;
        }
        let Some(report) = self.history.members.due_report(self.directory, &self.ordered) else {
            self.may_owe_report = false;
            return;
        };
        // An older copy may be about to hear what it has reported before.
        let may = self.listens && !takes_over && !self.lost_entries && self.is_sure();
        if may && self.earlier_versions().is_empty() && !self.was_evicted() {
            self.report_index = self.order_own_change(&report, now_ms);
        }
    }

    /// What this node's directory has beyond all that counts of streams that have ended.
    pub fn excess(&self) -> Vec<Row> {
        // What is to be reported first counts as soon as it is.
        if self.may_owe_report {
            return Vec::new();
        }
        let row = |origin: &Origin| self.history.vector.row(*origin);
        let exceeds = |row: &Row| self.limits.get(&row.origin).is_some_and(|limit| row.sequence > *limit);
        self.limits.keys().map(row).filter(exceeds).collect()
    }

    /// Whether this entry is of a stream that has ended, and beyond what counts of it.
    pub(super) fn exceeds(&self, row: &Row) -> bool {
        self.ends_streams() && self.limits.get(&row.origin).is_some_and(|limit| row.sequence > *limit)
    }

    /// Whether this directory was evicted.
    pub fn was_evicted(&self) -> bool {
        self.history.members.is_evicted(self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::dynamo::replica::Start;
    use crate::replication::dynamo::{History, MemberChange, Place, SnapshotVector, VersionVector};
    use crate::version::Version;

    const NOW_MS: u64 = 1_000;

    fn place(node_id: u8) -> Place {
        let directory = Some(NodeUuid([node_id; 16]));
        Place { node_id: node_id.into(), directory, host: "h".into(), port: 1 }
    }

    /// A list that says that node 3 has another directory than the one of `place`.
    fn list() -> Members {
        let mut list = Members::default();
        let stranger = Place { directory: Some(NodeUuid([33; 16])), ..place(3) };
        list.apply(&MemberChange::Begin { origin: 33, node: stranger }, Version { index: 9, ordinal: 33 });
        list
    }

    #[test]
    fn a_directory_that_only_a_peer_names_is_told_when_no_entry_has_let_it_in_for_a_while() {
        let mut history = History::new(0, SnapshotVector::default());
        history
            .members
            .apply(&MemberChange::Begin { origin: 3, node: place(3) }, Version { index: 1, ordinal: 3 });
        let named = |node_id| Place { directory: None, ..place(node_id) };
        let mut replica = Replica::new(Start {
            place: place(1),
            history,
            named: vec![named(2)],
            begins_anew: false,
            origins: Box::new(|| 7),
        });
        replica.begin(NOW_MS);
        replica.persisted(u64::MAX);
        // However long the node has run before.
        (0..2 * UNKNOWN_TICKS).for_each(|_| replica.tick(NOW_MS, 0));
        replica.heard_list(2, &list(), NOW_MS);
        assert_eq!(replica.unknown_members(), [], "its entry may be on its way");
        (0..UNKNOWN_TICKS).for_each(|_| replica.tick(NOW_MS, 0));
        assert_eq!(replica.unknown_members(), [(3, NodeUuid([33; 16]))]);
        assert!(!replica.has_heard_all());
        let mut known = Members::default();
        known.named(3, "h", 1);
        replica.heard_list(2, &known, NOW_MS);
        assert_eq!(replica.unknown_members(), [], "its peer no longer names it");
        replica.heard_vector(2, VersionVector::default(), false, NOW_MS);
        replica.heard_list(3, &known, NOW_MS);
        replica.heard_vector(3, VersionVector::default(), false, NOW_MS);
        assert!(replica.has_heard_all(), "it is no longer waited for");
    }

    #[test]
    fn whoever_is_let_in_is_said_to_all_peers() {
        let history = History::new(0, SnapshotVector::default());
        let named = vec![Place { directory: None, ..place(2) }];
        let start = Start { place: place(1), history, named, begins_anew: false, origins: Box::new(|| 7) };
        let mut replica = Replica::new(start);
        replica.begin(NOW_MS);
        replica.persisted(u64::MAX);
        replica.speaks(2, PROTOCOL_LISTS, NOW_MS);
        replica.take_effects();
        replica.order_own_change(&MemberChange::Admit { node: place(4) }, NOW_MS);
        replica.persisted(u64::MAX);
        let lists = replica.take_effects().into_iter().filter_map(|effect| match effect {
            Effect::Send { to: 2, message: Message::Members(list) } => Some(list),
            _ => None,
        });
        assert_eq!(lists.last().and_then(|list| list.member(4).cloned()), Some(place(4)));
    }
}
