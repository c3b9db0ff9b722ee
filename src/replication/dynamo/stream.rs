//! This node's stream, and what this node says of the members.

use super::entry::{Content, Decoded, Dotted};
use super::history::History;
use super::members::MemberChange;
use super::message::Effect;
use super::replica::{Pending, Replica, SURE_TICKS};
use super::vector::{Origin, Row};
use crate::persistence::NodeUuid;
use crate::replication::message::NodeId;

/// Whether a directory has begun another stream and, as far as its log says, has heard nobody
/// since: it takes no writes before it has, however often it is started.
pub(super) fn has_only_begun_anew(history: &History, directory: NodeUuid) -> bool {
    let streams = history.members.streams().iter().filter(|stream| stream.directory == directory);
    let Some(last) = history.members.current_stream(directory).filter(|_| streams.count() > 1) else {
        return false;
    };
    // A stream begins above all that was here.
    let came_later = |row: &Row| row.origin != last.origin && row.time > last.began.0;
    history.vector.sequence(last.origin) == 1 && !history.vector.rows().iter().any(came_later)
}

impl Replica {
    /// Goes on as another stream, if this one has gone on without this directory.
    pub(super) fn leave_stream(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.is_older_copy) {
            self.effects.push(Effect::BeganAnew);
            self.begin_stream(now_ms);
        }
    }

    pub(super) fn begin_stream(&mut self, now_ms: u64) {
        let taken = |origin: Origin, history: &History| {
            origin == 0 || history.members.stream(origin).is_some() || history.vector.sequence(origin) > 0
        };
        let mut origin = (self.origins)();
        while taken(origin, &self.history) {
            origin = (self.origins)();
        }
        self.origin = origin;
        self.is_sure = true;
        // How a stream begins says where its node is, too.
        self.own.has_moved = false;
        let change = MemberChange::Begin { origin, node: self.place.clone() };
        self.order_own_change(&change, now_ms);
    }

    /// Whether nobody can have entries of this stream that this directory hasn't: it began
    /// here, or all have said what they have.
    pub(super) fn is_sure(&mut self) -> bool {
        self.is_sure |= self.has_heard_all() || self.reuses_origins();
        self.is_sure
    }

    /// Whether every other member has said what it has since this process began.
    pub(super) fn has_heard_all(&self) -> bool {
        // Who is only heard of may have what nobody else has.
        self.heard_of.is_empty() && self.peers.values().all(|peer| peer.heard_tick > 0 && peer.is_known())
    }

    /// Whether writes must wait until a peer was heard: they might be earlier than
    /// deletes that all others have forgotten.
    pub fn awaits_contact(&self) -> bool {
        self.lost_entries && !self.peers.is_empty()
    }

    /// Whether writes are to wait a moment behind a start: a peer may be about to say that
    /// this directory is an older copy, and its dots would be used again. Without peers
    /// that say anything they wait no longer.
    pub fn holds_writes(&self) -> bool {
        // A new directory may be about to join a cluster: what it has written by then keeps it out.
        let may_be_news = !self.is_sure || self.is_new();
        self.tick < SURE_TICKS && may_be_news && !self.has_heard_all()
    }

    /// Whether nothing is taken from this node: it is no member, or won't be one when
    /// what is ordered is durable.
    pub(super) fn is_cut_off(&self, from: NodeId) -> bool {
        let directory = self.history.members.member(from).and_then(|place| place.directory);
        let evicts = |pending: &Pending| match &pending.entry {
            Decoded::Dotted(Dotted { content: Content::Members(body), .. }) => {
                matches!(MemberChange::decode(body), Some(MemberChange::Evict { directory: evicted, .. })
                    if evicted.is_some() && evicted == directory)
            }
            _ => false,
        };
        !self.peers.contains_key(&from) || self.pending.iter().any(evicts)
    }

    pub(super) fn order_own_change(&mut self, change: &MemberChange, now_ms: u64) -> u64 {
        self.order_own(Content::Members(change.encode()), 1, now_ms)
    }

    /// Whether a node that nobody knows may be let in here: this one has heard all others at some time since it
    /// began. Else it may have been evicted itself, and what it would hand on may be what all others have deleted.
    pub fn may_admit(&mut self) -> bool {
        self.has_met_all |= self.has_heard_all();
        self.has_met_all && !self.was_evicted()
    }

    /// A peer says that this directory was evicted. That is kept in this node's own stream, which nobody
    /// takes anything of any more, so that it knows it whenever it is started.
    pub fn hear_eviction(&mut self, now_ms: u64) {
        if !self.was_evicted() {
            // Where its stream ends nobody will tell it any more.
            if !self.is_sure() {
                self.begin_stream(now_ms);
            }
            let (node_id, directory) = (self.place.node_id, Some(self.directory));
            self.order_own_change(&MemberChange::Evict { node_id, directory }, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::dynamo::members::Place;
    use crate::replication::dynamo::replica::Start;
    use crate::replication::dynamo::{SnapshotVector, VersionVector};

    /// A node with one peer, on what a log has led to; all that it begins with is durable.
    fn started(history: History, begins_anew: bool) -> Replica {
        let node = |node_id| Place { node_id, directory: None, host: String::new(), port: 1 };
        let mut next = if begins_anew { 8 } else { 7 };
        let mut replica = Replica::new(Start {
            place: Place { directory: Some(NodeUuid([1; 16])), ..node(1) },
            history,
            named: vec![node(2)],
            begins_anew,
            origins: Box::new(move || std::mem::replace(&mut next, 99)),
        });
        replica.begin(1_000);
        replica.persisted(u64::MAX);
        replica
    }

    #[test]
    fn a_directory_that_has_begun_anew_awaits_contact_however_often_it_is_started() {
        let first = started(History::new(0, SnapshotVector::default()), false);
        assert!(!first.awaits_contact());
        let anew = started(first.history().clone(), true);
        assert!(anew.awaits_contact());
        let mut again = started(anew.history().clone(), false);
        assert_eq!(again.origin, 8);
        assert!(again.awaits_contact(), "it has heard nobody since");
        // What it hears first is from ahead of its clock.
        let mut vector = VersionVector::default();
        vector.raise(Row { origin: 5, sequence: 1, time: 2_000 << 16 });
        again.heard_vector(2, vector.clone(), false, 1_000);
        assert!(again.awaits_contact());
        again.heard_vector(2, vector, false, 1_600);
        assert!(!again.awaits_contact());
        again.write(bytes::Bytes::new(), 1, 1_600);
        again.persisted(u64::MAX);
        let last = started(again.history().clone(), false);
        assert!(!last.awaits_contact(), "what it has written was behind contact");
    }
}
