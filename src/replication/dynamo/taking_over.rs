//! Taking over a peer's state, and giving this node's: where logs don't reach back, and for repairs.

use bytes::Bytes;

use super::entry::{Decoded, encode_forgotten, encode_seen, encode_states, versions_of};
use super::history::SnapshotVector;
use super::members::Members;
use super::message::Effect;
use super::peer::Cursor;
use super::replica::Replica;
use super::vector::VersionVector;
use crate::engine::SameVersion;
use crate::persistence::NodeUuid;
use crate::replication::message::NodeId;
use crate::version::Version;

/// A peer of which nothing was heard for so many ticks is away: nothing is kept for it.
const AWAY_TICKS_MAX: u64 = 200;

impl Replica {
    /// A peer says that its log doesn't reach back to what this node lacks.
    pub fn too_far_behind(&mut self, from: NodeId) {
        // The state of who has a forked stream otherwise, and is to take this one's over, would take away
        // what it lacks.
        if self.pulling.is_none() && self.listens && self.peers.contains_key(&from) && !self.is_replaced(from)
        {
            self.pulling = Some((from, false));
            self.effects.push(Effect::Pull { from, repair: None });
        }
    }

    /// Whether a state may be taken over that has all of this: not if it has more of a stream that has ended
    /// than counts, by all that either side knows.
    pub fn may_take(&self, state: &SnapshotVector) -> bool {
        let mut members = self.history.members.clone();
        members.merge(&state.members);
        !self.ends_streams() || !members.is_excessive(&state.vector) && !self.is_astray(state, &members)
    }

    /// Whether a state has writes of another directory of a member's number, though that member counts by all
    /// that either side knows: its node has let someone in that is none.
    fn is_astray(&self, state: &SnapshotVector, both: &Members) -> bool {
        let mut streams = state.vector.rows().iter().filter_map(|row| both.stream(row.origin));
        streams.any(|stream| {
            let known = self.history.members.member(stream.node_id).and_then(|place| place.directory);
            let is_another = |known: NodeUuid| known != stream.directory && !both.is_evicted(known);
            known.is_some_and(is_another) && both.ended(stream).is_none()
        })
    }

    /// States that a peer has sent, of a time when it had this vector: gives their entry's index.
    pub fn states(&mut self, vector: &VersionVector, same: SameVersion, states: Bytes) -> u64 {
        // They may be ahead of the vector: who reads them and writes must win.
        versions_of(&states).for_each(|version| self.clock.observe(version.index));
        let payload = encode_states(vector, same, &states);
        self.order(Decoded::States { vector: vector.clone(), same, states }, payload, false)
    }

    /// Parts of keys that a peer hasn't got. Those go that it had seen, of which it has `seen`
    /// all, and such as are ahead of their entries: they came from someone who is lost, and
    /// nobody will send them to the others.
    pub fn forget<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a [u8], Version)>,
        seen: &VersionVector,
    ) -> u64 {
        // An entry that is only on its way to the disk is before this one in the log: what is
        // ahead of it now is not when this is applied.
        let ordered = &self.ordered;
        let gone = rows.filter(|(_, version)| seen.has(*version) || !ordered.has(*version));
        let payload = encode_forgotten(gone);
        let body = payload.slice(1..);
        self.order(Decoded::Forgotten(body), payload, false)
    }

    /// All states have come: what the peer had is here now.
    pub fn pulled(&mut self, mut state: SnapshotVector) {
        if !self.may_take(&state) {
            // A stream has ended meanwhile, and the peer hasn't said yet how much of it counts.
            return self.pull_failed();
        }
        match self.pulling.take() {
            // Only what differs was taken over, and tombstones are in no hash: the rest may be missing.
            Some((_, true)) => state = SnapshotVector::default(),
            Some((from, false)) => state.dropped = self.dropped_for(from),
            None => state.dropped.clear(),
        }
        // It has entries of this stream that this directory hasn't.
        let has_more = state.vector.sequence(self.origin) > self.ordered.sequence(self.origin);
        self.is_older_copy |= has_more && !self.reuses_origins();
        self.roots.repaired();
        self.clock.observe(state.vector.latest());
        let payload = encode_seen(&state);
        self.order(Decoded::Seen(state), payload, false);
    }

    /// They have not, or not all.
    pub fn pull_failed(&mut self) {
        self.pulling = None;
        self.roots.repaired();
    }

    /// A peer takes over this node's state: gives the transfer's number and the vector that the
    /// peer has at least then, and keeps the log from there on.
    pub fn transfer_begins(&mut self, to: NodeId) -> (u64, SnapshotVector) {
        self.last_transfer += 1;
        self.transfers.insert(self.last_transfer, (to, self.history.next_index()));
        self.history.mark();
        (self.last_transfer, self.history.state())
    }

    /// It has it, or has given up.
    pub fn transfer_ended(&mut self, number: u64) {
        if let Some((to, from)) = self.transfers.remove(&number) {
            self.catching_up.insert(to, from);
        }
    }

    /// How far the log may be cut that needn't reach back beyond `through`: not beyond what a state that is being taken
    /// over lacks, and what its taker lacks then.
    pub fn may_cut(&mut self, through: u64) -> u64 {
        self.let_go_of_those_that_caught_up();
        let transfers = self.transfers.values().map(|(_, from)| *from);
        let needed = transfers.chain(self.catching_up.values().copied());
        needed.fold(through, |least, from| least.min(from.saturating_sub(1)))
    }

    /// Peers for which more of the log is kept than this node needs.
    pub fn held_for(&self) -> Vec<NodeId> {
        let mut peers: Vec<NodeId> = self.transfers.values().map(|(to, _)| *to).collect();
        peers.extend(self.catching_up.keys());
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// More than may be kept is kept for them.
    pub fn let_go_of_all(&mut self) {
        self.transfers.clear();
        self.catching_up.clear();
    }

    fn let_go_of_those_that_caught_up(&mut self) {
        let (tick, last) = (self.tick, self.history.next_index().saturating_sub(1));
        let peers = &self.peers;
        self.catching_up.retain(|node, from| {
            let Some(peer) = peers.get(node) else { return false };
            let is_away = tick.saturating_sub(peer.heard_tick) > AWAY_TICKS_MAX;
            match peer.cursor {
                _ if is_away => false,
                // It is to say first what it has.
                Cursor::Unknown => true,
                Cursor::Behind => false,
                Cursor::At(index) | Cursor::Fetching { index, .. } => {
                    *from = (*from).max(index);
                    index <= last
                }
            }
        });
    }

    /// The log was cut.
    pub fn cut(&mut self, first_index: u64) {
        self.history.cut(first_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Seen;
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::entry::{Content, Dotted, decode, forgotten};
    use crate::replication::dynamo::history::History;
    use crate::replication::dynamo::members::Place;
    use crate::replication::dynamo::replica::Start;

    fn replica() -> Replica {
        let node = |node_id| Place { node_id, directory: None, host: String::new(), port: 1 };
        let mut replica = Replica::new(Start {
            place: Place { directory: Some(NodeUuid([1; 16])), ..node(1) },
            history: History::new(0, SnapshotVector::default()),
            named: vec![node(2)],
            begins_anew: false,
            origins: Box::new(|| 7),
        });
        replica.begin(0);
        replica.speaks(2, 1, 0);
        replica
    }

    #[test]
    fn the_end_of_a_transfer_is_not_taken_for_that_of_a_later_one_to_the_same_peer() {
        let mut replica = replica();
        replica.persisted(u64::MAX);
        let (of_process_before, _) = replica.transfer_begins(2);
        let index = replica.history().next_index();
        let (number, _) = replica.transfer_begins(2);
        replica.transfer_ended(of_process_before);
        assert_eq!(replica.may_cut(index + 5), index - 1, "the log is still needed from here on");
        replica.transfer_ended(number);
        assert_eq!(replica.may_cut(index + 5), index - 1, "it lacks what came meanwhile");
        assert_eq!(replica.held_for(), [2]);
        (0..=AWAY_TICKS_MAX).for_each(|_| replica.tick(0, 0));
        assert_eq!((replica.may_cut(index + 5), replica.held_for()), (index + 5, vec![]), "it is away");
    }

    #[test]
    fn what_comes_as_an_entry_while_it_is_looked_for_is_not_forgotten() {
        let mut replica = replica();
        let (context, content) = (Seen::default(), Content::Watermark);
        let entry = Dotted { origin: 9, sequence: 1, first: 5, requests: 1, context, content };
        replica.received(2, vec![entry.encode()]).unwrap();
        replica.take_effects();
        // Its entry is not on the disk yet, but before that which forgets.
        let version = |index, ordinal| Version { index, ordinal };
        let rows = [version(5, 9), version(6, 9), version(3, 8), version(4, 8)];
        let mut seen = VersionVector::default();
        seen.raise(crate::replication::dynamo::Row { origin: 8, sequence: 1, time: 3 });
        replica.forget(rows.iter().map(|version| (&b"k"[..], *version)), &seen);
        let effects = replica.take_effects();
        let [Effect::Persist { payload, .. }] = &effects[..] else { panic!("{effects:?}") };
        let Some(Decoded::Forgotten(rows)) = decode(payload) else { panic!("{payload:?}") };
        let gone: Vec<_> = forgotten(rows).flatten().map(|(_, version)| version).collect();
        assert_eq!(gone, [version(6, 9), version(3, 8), version(4, 8)]);
    }
}
