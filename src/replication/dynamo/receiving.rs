//! Taking entries from peers: in sequence, and of a stream that has ended no more than counts.

use bytes::Bytes;

use super::entry::{Content, Decoded, Dotted, decode};
use super::members::{MemberChange, Stream};
use super::message::Message;
use super::peer::Peer;
use super::replica::Replica;
use crate::replication::message::NodeId;

impl Replica {
    /// A peer's entries. `Err`: they are none, and the peer is not to be listened to.
    pub fn received(&mut self, from: NodeId, entries: Vec<Bytes>) -> Result<(), &'static str> {
        // Of what it has seen, the state that is being taken over says all: an older entry that came
        // between would stay where that has deleted it.
        let takes_over = matches!(self.pulling, Some((_, false)));
        let (mut gap, mut any) = (false, false);
        if takes_over || !self.listens || self.is_cut_off(from) {
            // Others may have forgotten already what its entries would meet.
            return Ok(());
        }
        for payload in entries {
            let Some(Decoded::Dotted(dotted)) = decode(&payload) else {
                return Err("an entry of no stream");
            };
            let row = dotted.row();
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.wrote(row);
            }
            let has = self.ordered.row(row.origin);
            if self.is_forked(from, &dotted, has) || row.sequence <= has.sequence {
                continue;
            }
            if self.is_beyond(&dotted) {
                continue;
            }
            if row.sequence != has.sequence + 1 {
                gap = true;
                continue;
            }
            if !dotted.is_sound() {
                return Err("an entry that can't be applied");
            }
            if dotted.first <= has.time {
                return Err("an entry that is earlier than the one before it");
            }
            // Written here, and lost here.
            self.is_older_copy |= row.origin == self.origin && !self.reuses_origins();
            if self.observes() {
                self.clock.observe(row.time);
            }
            self.order(Decoded::Dotted(dotted), payload, false);
            any = true;
        }
        if !gap && any {
            return Ok(());
        }
        // All that is on its way behind a gap has the same one: the sender goes back once.
        let tick = self.tick;
        let is_told = |peer: &mut Peer| peer.again_tick.replace(tick) == Some(tick);
        let again = gap && !self.peers.get_mut(&from).is_some_and(is_told);
        if again || !gap {
            // What was sent twice must be told, too: its sender waits to hear that it is here.
            self.send(from, Message::Vector { vector: self.history.vector.clone(), again });
        }
        Ok(())
    }

    /// How much of each stream that has ended counts now.
    pub(super) fn follow_ends(&mut self) {
        let limits = self.history.members.limits();
        self.may_owe_report = true;
        self.prune_heard_of();
        if self.limits != limits {
            self.limits = limits;
            // Cursors have passed over what didn't count.
            self.peers.values_mut().for_each(Peer::begin_again);
        }
    }

    /// Whether an entry is of a stream that has ended, and beyond what counts of it: its writer may have
    /// been evicted before anyone here has met it.
    fn is_beyond(&self, dotted: &Dotted) -> bool {
        let row = dotted.row();
        if row.sequence > 1 && self.ordered.sequence(row.origin) == 0 && self.ends_streams() {
            // Its beginning may not have been taken.
            let stream = self.history.members.stream(row.origin);
            if stream.is_none_or(|stream| !self.history.members.expects(stream)) {
                return true;
            }
        }
        let Content::Members(body) = &dotted.content else { return self.exceeds(&row) };
        match MemberChange::decode(body) {
            Some(MemberChange::Begin { origin, node }) if self.ends_streams() => {
                let Some(directory) = node.directory else { return self.exceeds(&row) };
                let began = (dotted.first, origin);
                let stream = Stream { origin, node_id: node.node_id, directory, began };
                let members = &self.history.members;
                !members.expects(&stream)
                    || members.through(&stream).is_some_and(|through| row.sequence > through)
            }
            _ => self.exceeds(&row),
        }
    }
}
