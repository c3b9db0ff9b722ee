//! Streams that have forked: one place was given to two entries.
//!
//! That happens where a disk was set back as a whole and its node, which could reach nobody,
//! took writes in its old stream. Two nodes that have such a stream otherwise would take each
//! other's entries behind the fork and be the same by their vectors. So a node compares what a
//! peer says that it has with the times of its own entries in those places, before anything
//! is sent:
//!
//! ```text
//!   stream 7        1   2   3   4            here:          5   6      at 50, 60
//!                               └─ set back  at a peer:     5'         at 90
//!
//!   the stream is this directory's, or it has the later time here    this node takes over the peer's state,
//!                                                                    and what it had of the stream counts no more
//!   it has the earlier time here                                     the peer does; it is told so where it can't see it
//! ```
//!
//! Until then nothing of that stream goes from one to the other, no delete is forgotten, and
//! both say so. What only the one that takes over had of the stream may be lost; what had been
//! written before the disk was set back is not.

use std::collections::BTreeMap;

use super::entry::Dotted;
use super::history::History;
use super::message::{Effect, Message};
use super::peer::Peer;
use super::replica::Replica;
use super::stability::Stability;
use super::vector::{Origin, Row, VersionVector};
use crate::replication::message::NodeId;

/// Ticks between two words about the same stream.
const REPEAT_TICKS: u64 = 600;
/// Ticks between two attempts to end a fork.
const ATTEMPT_TICKS: u64 = 20;

/// A stream that this node and someone else, or two others, have otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Which.
    pub origin: Origin,
    /// Whose it is, if that is known: whose directory is a copy of itself.
    pub node_id: Option<NodeId>,
}

/// What another node has otherwise than this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contradiction {
    pub(super) origin: Origin,
    /// In one place the entry here is the later one.
    pub(super) is_later_here: bool,
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct Forks {
    /// With whom, and whether it is this node that takes the other one's state over.
    known: BTreeMap<(Origin, NodeId), bool>,
    /// Between two others.
    between: Vec<Origin>,
    /// When each was said last.
    said: BTreeMap<Origin, u64>,
    /// When it was last tried to end one.
    attempt_tick: Option<u64>,
    /// What this node had of a stream counts no more: when that is to be said once more.
    again_tick: Option<u64>,
}

impl Forks {
    fn with(&self, peer: NodeId) -> impl Iterator<Item = (Origin, bool)> {
        let known = self.known.iter().filter(move |((_, with), _)| *with == peer);
        known.map(|((origin, _), takes)| (*origin, *takes))
    }
}

/// Where a peer's vector and what is here can't both be of one stream.
pub(super) fn contradictions(history: &History, theirs: &VersionVector) -> Vec<Contradiction> {
    let of = |row: &Row| {
        let is_later_here = history.contradicts(row)?;
        Some(Contradiction { origin: row.origin, is_later_here })
    };
    theirs.rows().iter().filter_map(of).collect()
}

impl Replica {
    /// Streams that have forked, as far as this node knows, ascending by origin.
    pub fn forks(&self) -> Vec<Fork> {
        let known = self.forks.known.keys().map(|(origin, _)| *origin);
        let mut origins: Vec<Origin> = known.chain(self.forks.between.iter().copied()).collect();
        origins.sort_unstable();
        origins.dedup();
        let owner = |origin| self.history.members.stream(origin).map(|stream| stream.node_id);
        origins.into_iter().map(|origin| Fork { origin, node_id: owner(origin) }).collect()
    }

    /// A peer says what it has: what it has otherwise is noticed before anything is sent to it.
    pub(super) fn notice_forks(&mut self, from: NodeId, theirs: &VersionVector) {
        let found = if self.reuses_origins() { Vec::new() } else { contradictions(&self.history, theirs) };
        let is_there = |origin| found.iter().any(|fork: &Contradiction| fork.origin == origin);
        let ended: Vec<Origin> =
            self.forks.with(from).map(|(origin, _)| origin).filter(|origin| !is_there(*origin)).collect();
        if !ended.is_empty() {
            self.forks.known.retain(|(origin, with), _| *with != from || !ended.contains(origin));
            // What was held back is sent from now on, and what it had said before counts no more.
            self.peers.get_mut(&from).into_iter().for_each(Peer::cut_off);
        }
        for Contradiction { origin, is_later_here } in found {
            self.is_older_copy |= origin == self.origin;
            let takes = self.takes(origin, from, is_later_here);
            self.note_fork(origin, from, takes);
            let can_t_see_it = theirs.sequence(origin) < self.history.vector.sequence(origin);
            if !(takes || can_t_see_it) || !self.may_attempt() {
                continue;
            }
            if !takes {
                self.send(from, Message::TooFarBehind);
            } else if self.pulling.is_none() {
                self.pulling = Some((from, false));
                self.effects.push(Effect::Pull { from, repair: None });
            }
        }
    }

    /// Whether it is this node that takes over what the other one has.
    fn takes(&self, origin: Origin, from: NodeId, is_later_here: bool) -> bool {
        let is_its_own = self.history.members.stream(origin).is_some_and(|stream| stream.node_id == from);
        !self.is_foreign(&Row { origin, ..Row::default() }) || is_later_here && !is_its_own
    }

    fn note_fork(&mut self, origin: Origin, from: NodeId, takes: bool) {
        self.forks.known.insert((origin, from), takes);
        self.say_forked(origin, from);
    }

    fn say_forked(&mut self, origin: Origin, peer: NodeId) {
        let said = self.forks.said.get(&origin);
        if said.is_none_or(|at| self.tick >= at + REPEAT_TICKS) {
            self.forks.said.insert(origin, self.tick);
            let node_id = self.history.members.stream(origin).map(|stream| stream.node_id);
            self.effects.push(Effect::Forked { fork: Fork { origin, node_id }, peer });
        }
    }

    fn may_attempt(&mut self) -> bool {
        let may = self.forks.attempt_tick.is_none_or(|at| self.tick >= at + ATTEMPT_TICKS);
        if may {
            self.forks.attempt_tick = Some(self.tick);
        }
        may
    }

    /// Whether an entry that a peer has sent is of a stream that has forked; `has`: what is here
    /// or on its way to the disk. It is not taken then, and its peer is listened to for the rest.
    pub(super) fn is_forked(&mut self, from: NodeId, dotted: &Dotted, has: Row) -> bool {
        let row = dotted.row();
        let known = match row.sequence {
            sequence if sequence == has.sequence => Some(has.time),
            sequence if sequence < has.sequence => self.history.time(row.origin, sequence),
            _ => None,
        };
        let is_other = known.is_some_and(|time| time != row.time);
        let is_out_of_order = row.sequence == has.sequence + 1 && dotted.first <= has.time;
        if (is_other || is_out_of_order) && !self.reuses_origins() {
            self.is_older_copy |= row.origin == self.origin;
            let is_later_here = is_out_of_order || known.is_some_and(|time| time > row.time);
            let takes = self.takes(row.origin, from, is_later_here);
            self.note_fork(row.origin, from, takes);
        }
        self.forks.known.contains_key(&(row.origin, from))
    }

    /// Whether an entry of this log isn't sent to a peer.
    pub(super) fn withholds(&self, to: NodeId, index: u64, origin: Origin) -> bool {
        self.forks.known.contains_key(&(origin, to)) || self.history.is_dropped(index, origin)
    }

    /// Whether this node's state is one that is to be replaced: nobody else is to take it over.
    pub(super) fn takes_over(&self) -> bool {
        self.forks.known.values().any(|takes| *takes)
    }

    /// Whether a peer's state is one that is to be replaced.
    pub(super) fn is_replaced(&self, peer: NodeId) -> bool {
        self.forks.with(peer).any(|(_, takes)| !takes)
    }

    /// A peer's whole state was taken over: of which streams what was here counts no more.
    pub(super) fn dropped_for(&self, from: NodeId) -> Vec<Origin> {
        self.forks.with(from).filter(|(_, takes)| *takes).map(|(origin, _)| origin).collect()
    }

    /// What this node had of a stream counts no more, and that is on the disk: peers go by what it
    /// says now, even where that is less than it had said.
    pub(super) fn has_dropped(&mut self) {
        self.forks.again_tick = Some(self.tick + ATTEMPT_TICKS);
    }

    /// Says so once more: on another connection what it had said before may have come later.
    pub(super) fn watch_forks(&mut self) {
        if self.forks.again_tick.take_if(|at| self.tick >= *at).is_none() {
            return;
        }
        for to in self.peers.keys() {
            let message = Message::Vector { vector: self.history.vector.clone(), again: true };
            self.effects.push(Effect::Send { to: *to, message });
        }
    }

    /// A peer counts no more.
    pub(super) fn forget_forks(&mut self, gone: NodeId) {
        self.forks.known.retain(|(_, with), _| *with != gone);
    }

    /// Up to when deletes may be forgotten, where no stream has forked: what someone says that he has
    /// of one that has may be something else.
    pub(super) fn unless_forked(&mut self, stable: Stability) -> Stability {
        let fresh: Vec<(NodeId, &VersionVector)> =
            self.peers.iter().filter_map(|(id, peer)| Some((*id, peer.fresh_vector()?))).collect();
        let mut between: Vec<(Origin, NodeId)> = Vec::new();
        for (place, (_, one)) in fresh.iter().enumerate() {
            for (id, other) in &fresh[place + 1..] {
                between.extend(one.contradicts(other).map(|origin| (origin, *id)));
            }
        }
        self.forks.between = between.iter().map(|(origin, _)| *origin).collect();
        between.into_iter().for_each(|(origin, peer)| self.say_forked(origin, peer));
        let forks = self.forks();
        if forks.is_empty() {
            return stable;
        }
        let mut held_by: Vec<NodeId> = forks.iter().filter_map(|fork| fork.node_id).collect();
        held_by.sort_unstable();
        held_by.dedup();
        Stability { through: 0, held_by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Seen;
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::entry::{Content, Decoded, decode};
    use crate::replication::dynamo::replica::Start;
    use crate::replication::dynamo::{MemberChange, Place, SnapshotVector};

    /// The stream of node 3.
    const STREAM: Origin = 9;
    const NOW_MS: u64 = 1;

    fn place(node_id: NodeId) -> Place {
        Place { node_id, directory: Some(NodeUuid([node_id as u8; 16])), host: "h".into(), port: 1 }
    }

    fn entry(sequence: u64, first: u64) -> Dotted {
        let content = match sequence {
            1 => Content::Members(MemberChange::Begin { origin: STREAM, node: place(3) }.encode()),
            _ => Content::Watermark,
        };
        Dotted { origin: STREAM, sequence, first, requests: 1, context: Seen::default(), content }
    }

    fn has(sequence: u64, time: u64) -> VersionVector {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin: STREAM, sequence, time });
        vector
    }

    /// Node 1 of three, which has three entries of node 3's stream.
    fn replica() -> Replica {
        let mut history = History::new(0, SnapshotVector::default());
        for sequence in 1..=3 {
            history.take(sequence, &Decoded::Dotted(entry(sequence, sequence * 10)));
        }
        let mut replica = Replica::new(Start {
            place: place(1),
            history,
            named: vec![place(2), place(3)],
            begins_anew: false,
            origins: Box::new(|| 7),
        });
        replica.begin(NOW_MS);
        [2, 3].into_iter().for_each(|peer| replica.speaks(peer, 1, NOW_MS));
        replica.persisted(u64::MAX);
        replica.take_effects();
        replica
    }

    fn pulls_from(effects: &[Effect]) -> Vec<NodeId> {
        let of = |effect: &Effect| match effect {
            Effect::Pull { from, repair: None } => Some(*from),
            _ => None,
        };
        effects.iter().filter_map(of).collect()
    }

    fn is_told(effects: &[Effect], peer: NodeId) -> bool {
        effects.iter().any(
            |effect| matches!(effect, Effect::Send { to, message: Message::TooFarBehind } if *to == peer),
        )
    }

    fn is_sent(effects: &[Effect], peer: NodeId, origin: Origin) -> bool {
        let is_of =
            |payload| matches!(decode(payload), Some(Decoded::Dotted(dotted)) if dotted.origin == origin);
        effects.iter().any(|effect| match effect {
            Effect::Send { to, message: Message::Entries(entries) } => {
                *to == peer && entries.iter().any(is_of)
            }
            _ => false,
        })
    }

    fn said(effects: &[Effect]) -> usize {
        effects.iter().filter(|effect| matches!(effect, Effect::Forked { .. })).count()
    }

    #[test]
    fn the_one_with_the_later_entries_takes_over_what_the_other_one_has() {
        let fork = Fork { origin: STREAM, node_id: Some(3) };
        // What the peer says, whether it is told to take over, and whether this node does.
        for (theirs, tells, takes) in [
            (has(3, 35), false, false),
            (has(2, 25), true, false),
            (has(3, 29), false, true),
            (has(2, 15), false, true),
            (has(4, 30), false, true),
        ] {
            let mut replica = replica();
            replica.heard_vector(2, theirs.clone(), false, NOW_MS);
            let effects = replica.take_effects();
            assert_eq!((said(&effects), replica.forks()), (1, vec![fork]), "{theirs:?}");
            assert_eq!(
                (is_told(&effects, 2), !pulls_from(&effects).is_empty()),
                (tells, takes),
                "{theirs:?}"
            );
            assert!(!is_sent(&effects, 2, STREAM), "{theirs:?}");
        }
    }

    #[test]
    fn what_is_of_one_stream_is_no_fork() {
        for theirs in [has(3, 30), has(2, 20), has(4, 31), VersionVector::default()] {
            let mut replica = replica();
            replica.heard_vector(2, theirs.clone(), false, NOW_MS);
            assert_eq!((said(&replica.take_effects()), replica.forks()), (0, vec![]), "{theirs:?}");
        }
    }

    #[test]
    fn while_a_stream_is_forked_no_delete_goes_and_that_is_said_now_and_then() {
        let mut replica = replica();
        let mut times = 0;
        for _ in 0..REPEAT_TICKS + 10 {
            replica.heard_vector(2, has(3, 35), false, NOW_MS);
            replica.heard_vector(3, has(3, 30), false, NOW_MS);
            replica.tick(NOW_MS, 5);
            let effects = replica.take_effects();
            times += said(&effects);
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Collect { .. })));
        }
        assert_eq!((times, &replica.stability().held_by), (2, &vec![3]));
        for _ in 0..10 {
            replica.heard_vector(2, has(3, 30), false, NOW_MS);
            replica.tick(NOW_MS, 5);
        }
        assert_eq!(replica.forks(), [], "it has ended");
    }

    #[test]
    fn entries_in_a_place_that_has_another_one_are_not_taken_and_end_no_connection() {
        let mut replica = replica();
        for forked in [entry(3, 31), entry(4, 30)] {
            replica.received(2, vec![forked.encode()]).unwrap();
            assert_eq!(replica.ordered.row(STREAM), Row { origin: STREAM, sequence: 3, time: 30 });
        }
        assert_eq!(replica.forks().len(), 1);
        replica.received(2, vec![entry(4, 40).encode()]).unwrap();
        assert_eq!(replica.ordered.sequence(STREAM), 3, "it may be behind another entry");
        replica.received(3, vec![entry(4, 40).encode()]).unwrap();
        assert_eq!(replica.ordered.sequence(STREAM), 4);
    }

    #[test]
    fn what_two_others_have_otherwise_is_found_too() {
        let mut replica = replica();
        replica.heard_vector(2, has(5, 50), false, NOW_MS);
        replica.heard_vector(3, has(5, 51), false, NOW_MS);
        for _ in 0..20 {
            replica.tick(NOW_MS, 5);
        }
        assert_eq!(said(&replica.take_effects()), 1);
        assert_eq!(replica.stability().through, 0);
    }

    #[test]
    fn what_was_taken_over_counts_instead_over_a_restart_too() {
        let mut replica = replica();
        replica.heard_vector(2, has(2, 15), false, NOW_MS);
        assert_eq!(pulls_from(&replica.take_effects()), [2]);
        replica.pulled(SnapshotVector { vector: has(2, 15), ..SnapshotVector::default() });
        let effects = replica.take_effects();
        let [Effect::Persist { index, payload }] = &effects[..] else { panic!("{effects:?}") };
        let mut restarted = replica.history().clone();
        restarted.take(*index, &decode(payload).unwrap());
        replica.persisted(u64::MAX);
        for history in [replica.history(), &restarted] {
            assert_eq!(history.vector.row(STREAM).time, 15);
            assert!(history.is_dropped(3, STREAM) && !history.is_dropped(*index + 1, STREAM));
        }
        replica.heard_vector(2, has(2, 15), false, NOW_MS);
        assert_eq!(replica.forks(), []);
        assert!(!is_sent(&replica.take_effects(), 2, STREAM), "its third place is another one's");
    }
}
