//! What this node says of itself and of the members, in its own stream.
//!
//! A directory that was set back as a whole looks like any other. Where its stream really
//! ends only the others know: what it would say before it has heard them might get a place
//! that they hold another entry for, and nobody could tell the two apart. So all of this
//! waits until the node is sure (`stream.rs`):
//!
//! ```text
//!   it has moved               until it is sure
//!   a node joins               until it is sure; that node comes again meanwhile
//!   the log is to go on        until it is sure; it is asked for again meanwhile
//!   a watermark                until it is sure
//!   an operator evicts a node  until it is sure, or without the others' word for SURE_TICKS, as writes:
//!                              they may all be lost, and this is the way out of that
//! ```

use std::net::IpAddr;

use super::members::{MemberChange, Place};
use super::replica::{Replica, SURE_TICKS};
use crate::replication::message::NodeId;

/// What waits to be said.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// It is at another place than the others were told.
    pub(super) has_moved: bool,
    /// Members that an operator has given up.
    evictions: Vec<NodeId>,
}

impl Replica {
    /// Whether this node is at a place that leads to it, and the members have it at another one.
    pub(super) fn is_elsewhere(&self) -> bool {
        let is_somewhere = !self.place.host.parse::<IpAddr>().is_ok_and(|host| host.is_unspecified());
        let known = self.history.members.member(self.place.node_id);
        is_somewhere && known.is_some_and(|known| *known != self.place)
    }

    /// Says what has waited, as far as it may be said now.
    pub(super) fn do_what_waited(&mut self, now_ms: u64) {
        for node_id in std::mem::take(&mut self.own.evictions) {
            if self.history.members.member(node_id).is_some() {
                self.evict(node_id, now_ms);
            }
        }
        if self.own.has_moved && (self.is_sure() || self.speaks_unsure()) {
            self.own.has_moved = false;
            // The others are to find it. Where it was may have been said meanwhile.
            if self.is_elsewhere() {
                self.say(&MemberChange::Admit { node: self.place.clone() }, now_ms);
            }
        }
    }

    /// A node joins. Says whether it does: else it must come again.
    pub(super) fn admit(&mut self, node: Place, now_ms: u64) -> bool {
        let is_sure = self.is_sure();
        if is_sure {
            self.say(&MemberChange::Admit { node }, now_ms);
        }
        is_sure
    }

    /// A node is gone for good. That is said at once or in a moment.
    pub fn evict(&mut self, node_id: NodeId, now_ms: u64) {
        // Whoever goes needn't be heard.
        let has_heard_rest = self.peers.iter().all(|(id, peer)| *id == node_id || peer.heard_tick > 0);
        if !self.is_sure() && !has_heard_rest && self.tick < SURE_TICKS {
            if !self.own.evictions.contains(&node_id) {
                self.own.evictions.push(node_id);
            }
            return;
        }
        let directory = self.history.members.member(node_id).and_then(|place| place.directory);
        self.say(&MemberChange::Evict { node_id, directory }, now_ms);
    }

    fn say(&mut self, change: &MemberChange, now_ms: u64) {
        self.leave_stream(now_ms);
        self.order_own_change(change, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::entry::{Content, Decoded, decode};
    use crate::replication::dynamo::replica::Start;
    use crate::replication::dynamo::{Effect, History, Row, SnapshotVector, VersionVector};

    const NOW_MS: u64 = 1_000;

    fn place(node_id: NodeId, port: u16) -> Place {
        Place { node_id, directory: Some(NodeUuid([node_id as u8; 16])), host: "127.0.0.1".into(), port }
    }

    /// Node 1 of three, on what a log has led to, at this port.
    fn started(history: History, port: u16) -> Replica {
        let named = |node_id| Place { directory: None, ..place(node_id, 1) };
        let mut origins = 7..;
        let mut replica = Replica::new(Start {
            place: place(1, port),
            history,
            named: vec![named(2), named(3)],
            begins_anew: false,
            origins: Box::new(move || origins.next().unwrap_or_default()),
        });
        replica.begin(NOW_MS);
        replica
    }

    /// The directory of a node that has begun its stream, set back to that.
    fn set_back() -> History {
        let mut first = started(History::new(0, SnapshotVector::default()), 1);
        first.persisted(u64::MAX);
        first.history().clone()
    }

    /// What others have of the stream 7 or have taken for it.
    fn has(sequence: u64) -> VersionVector {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin: 7, sequence, time: (NOW_MS << 16) + sequence - 1 });
        vector
    }

    /// What was said of the members since the last time, with its place.
    fn said(replica: &mut Replica) -> Vec<(u32, u64, MemberChange)> {
        let of = |effect: Effect| {
            let Effect::Persist { payload, .. } = effect else { return None };
            let Some(Decoded::Dotted(dotted)) = decode(&payload) else { return None };
            let Content::Members(body) = &dotted.content else { return None };
            Some((dotted.origin, dotted.sequence, MemberChange::decode(body)?))
        };
        replica.take_effects().into_iter().filter_map(of).collect()
    }

    #[test]
    fn a_move_is_said_when_all_others_were_heard_and_not_before() {
        let mut replica = started(set_back(), 2);
        for _ in 0..2 * SURE_TICKS {
            replica.tick(NOW_MS, 0);
        }
        replica.heard_vector(2, has(1), false, NOW_MS);
        assert_eq!(said(&mut replica), [], "node 3 was not heard");
        replica.heard_vector(3, has(1), false, NOW_MS);
        assert_eq!(said(&mut replica), [(7, 2, MemberChange::Admit { node: place(1, 2) })]);
        replica.persisted(u64::MAX);
        replica.tick(NOW_MS, 0);
        assert_eq!(said(&mut replica), [], "once");
    }

    #[test]
    fn a_directory_that_was_set_back_says_that_it_has_moved_by_how_its_next_stream_begins() {
        let mut replica = started(set_back(), 2);
        replica.heard_vector(2, has(1), false, NOW_MS);
        replica.heard_vector(3, has(2), false, NOW_MS);
        let begin = MemberChange::Begin { origin: 8, node: place(1, 2) };
        assert!(matches!(&said(&mut replica)[..], [(8, 1, change)] if *change == begin));
        replica.persisted(u64::MAX);
        replica.tick(NOW_MS, 0);
        assert_eq!(said(&mut replica), []);
    }

    #[test]
    fn nobody_is_admitted_and_the_log_doesn_t_go_on_before_all_others_were_heard() {
        let mut replica = started(set_back(), 1);
        for _ in 0..2 * SURE_TICKS {
            replica.tick(NOW_MS, 0);
        }
        replica.heard_vector(2, has(1), false, NOW_MS);
        assert!(!replica.admit(place(4, 1), NOW_MS) && !replica.go_on(NOW_MS));
        assert_eq!(replica.ordered.sequence(7), 1);
        replica.heard_vector(3, has(1), false, NOW_MS);
        assert!(replica.admit(place(4, 1), NOW_MS));
        assert_eq!(said(&mut replica).len(), 1);
        replica.persisted(u64::MAX);
        assert!(replica.go_on(NOW_MS));
        assert_eq!(replica.ordered.sequence(7), 3);
    }

    #[test]
    fn an_eviction_waits_for_the_others_word_for_a_moment_and_gets_the_place_that_follows_on_it() {
        let evict =
            |origin, sequence| (origin, sequence, MemberChange::Evict { node_id: 2, directory: None });
        let mut alone = started(set_back(), 1);
        alone.evict(2, NOW_MS);
        for _ in 1..SURE_TICKS {
            alone.tick(NOW_MS, 0);
        }
        assert_eq!(said(&mut alone), [], "someone may still say something");
        alone.tick(NOW_MS, 0);
        assert_eq!(said(&mut alone), [evict(7, 2)], "all others may be lost");

        let mut told = started(set_back(), 1);
        told.evict(2, NOW_MS);
        told.heard_vector(3, has(5), false, NOW_MS);
        assert!(matches!(&said(&mut told)[..], [(8, 1, _), last] if *last == evict(8, 2)), "another stream");
    }
}
