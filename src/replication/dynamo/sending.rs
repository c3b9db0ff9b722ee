//! Sending a peer what it lacks, in the log's order.

use bytes::Bytes;

use super::entry::{Decoded, decode};
use super::message::{Effect, Message};
use super::peer::{Cursor, Peer, WINDOW_BYTES};
use super::replica::{FETCH_ENTRIES, Replica};
use super::vector::Row;
use crate::limits::ENTRY_BYTES_WANTED;
use crate::replication::message::NodeId;

/// What the cursor finds next.
enum Next {
    /// Nothing, or not now.
    Wait,
    /// An entry that the peer has, or that goes to nobody.
    Pass,
    /// An entry for the peer.
    Entry(Bytes, Row, bool),
    /// It must be read back.
    Fetch,
}

impl Replica {
    pub(super) fn pump_all(&mut self) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.pump(id);
        }
    }

    /// Sends a peer what it lacks, as far as it may be sent.
    pub(super) fn pump(&mut self, to: NodeId) {
        self.find_position(to);
        loop {
            let Some(peer) = self.peers.get(&to) else { return };
            let Cursor::At(mut index) = peer.cursor else { return };
            if peer.sent_bytes >= WINDOW_BYTES {
                return;
            }
            let (mut entries, mut bytes) = (Vec::new(), 0);
            let next = loop {
                match self.next(to, index) {
                    Next::Pass => index += 1,
                    Next::Entry(payload, row, is_foreign) if bytes < ENTRY_BYTES_WANTED => {
                        index += 1;
                        bytes += payload.len();
                        let tick = self.tick;
                        if let Some(peer) = self.peers.get_mut(&to) {
                            peer.sends(row, payload.len(), is_foreign, tick);
                        }
                        entries.push(payload);
                    }
                    other => break other,
                }
            };
            let Some(peer) = self.peers.get_mut(&to) else { return };
            peer.cursor = Cursor::At(index);
            let sends = !entries.is_empty();
            if sends {
                self.send(to, Message::Entries(entries));
            }
            match next {
                Next::Fetch => return self.fetch(to, index),
                Next::Entry(..) => {}
                Next::Wait | Next::Pass => return,
            }
        }
    }

    fn next(&self, to: NodeId, index: u64) -> Next {
        if index >= self.cache.next_index() {
            return Next::Wait;
        }
        let Some(cached) = self.cache.get(index) else { return Next::Fetch };
        let Some(row) = cached.row else { return Next::Pass };
        let Some(peer) = self.peers.get(&to) else { return Next::Wait };
        if peer.has(&row) || self.exceeds(&row) || self.withholds(to, index, row.origin) {
            return Next::Pass;
        }
        let is_foreign = self.is_foreign(&row);
        if is_foreign && !peer.relays(row.origin, cached.since, self.tick) {
            return Next::Wait;
        }
        Next::Entry(cached.payload.clone(), row, is_foreign)
    }

    /// Where a peer goes on that has said what it has.
    fn find_position(&mut self, to: NodeId) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if !matches!(peer.cursor, Cursor::Unknown | Cursor::Behind) {
            return;
        }
        let Some(vector) = peer.fresh_vector() else { return };
        match self.history.position(vector) {
            Some(index) => peer.cursor = Cursor::At(index),
            // It is told so if it still is when a while has passed: others may send it what it lacks.
            None => peer.cursor = Cursor::Behind,
        }
    }

    fn fetch(&mut self, to: NodeId, low: u64) {
        self.next_fetch += 1;
        let number = self.next_fetch;
        let high = self.cache.first_index().min(low + FETCH_ENTRIES);
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.cursor = Cursor::Fetching { number, index: low };
        }
        self.effects.push(Effect::Fetch { number, low, high });
    }

    /// This entry can't be read back from the disk, and never will: a peer that lacks it, or one before
    /// it, is sent nothing of this log, and takes over the state.
    pub fn unreadable(&mut self, index: u64) {
        self.history.cut(index + 1);
        let is_before = |cursor: Cursor| matches!(cursor, Cursor::At(at) | Cursor::Fetching { index: at, .. } if at <= index);
        self.peers.values_mut().filter(|peer| is_before(peer.cursor)).for_each(Peer::begin_again);
        self.pump_all();
    }

    /// Entries were read back, in order; none: the log doesn't have them any more.
    pub fn fetched(&mut self, number: u64, entries: Vec<(u64, Bytes)>) {
        let waits =
            |cursor: Cursor| matches!(cursor, Cursor::Fetching { number: asked, .. } if asked == number);
        let found = self.peers.iter().find(|(_, peer)| waits(peer.cursor)).map(|(id, _)| *id);
        let Some(to) = found else { return };
        let Some(last) = entries.last().map(|(index, _)| *index) else {
            if let Some(peer) = self.peers.get_mut(&to) {
                peer.begin_again();
            }
            // The log begins later than the marks say, if nothing else was said yet.
            return self.pump(to);
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (index, payload) in entries {
            let Some(Decoded::Dotted(dotted)) = decode(&payload) else { continue };
            let (row, tick) = (dotted.row(), self.tick);
            let is_foreign = self.is_foreign(&row);
            let is_withheld = self.exceeds(&row) || self.withholds(to, index, row.origin);
            let Some(peer) = self.peers.get_mut(&to) else { return };
            if is_withheld || peer.has(&row) {
                continue;
            }
            peer.sends(row, payload.len(), is_foreign, tick);
            bytes += payload.len();
            batch.push(payload);
            if bytes >= ENTRY_BYTES_WANTED {
                self.send(to, Message::Entries(std::mem::take(&mut batch)));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.send(to, Message::Entries(batch));
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.cursor = Cursor::At(last + 1);
        }
        self.pump(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Seen;
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::entry::{Content, Dotted};
    use crate::replication::dynamo::peer::BEHIND_TICKS;
    use crate::replication::dynamo::{History, Place, SnapshotVector, Start, VersionVector};

    const ORIGIN: u32 = 9;

    /// What a log of 600 entries has led to, which are all on the disk alone.
    fn replica() -> Replica {
        let mut history = History::new(0, SnapshotVector::default());
        for sequence in 1..=600 {
            let (first, context, content) = (sequence * 10, Seen::default(), Content::Watermark);
            let entry = Dotted { origin: ORIGIN, sequence, first, requests: 1, context, content };
            history.take(sequence, &Decoded::Dotted(entry));
        }
        let node = |node_id| Place { node_id, directory: None, host: String::new(), port: 1 };
        let mut replica = Replica::new(Start {
            place: Place { directory: Some(NodeUuid([1; 16])), ..node(1) },
            history,
            named: vec![node(2), node(3)],
            begins_anew: false,
            origins: Box::new(|| 7),
        });
        replica.begin(10_000);
        replica.persisted(u64::MAX);
        replica.take_effects();
        replica
    }

    fn has(sequence: u64) -> VersionVector {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin: ORIGIN, sequence, time: sequence * 10 });
        vector
    }

    fn fetches(effects: &[Effect]) -> Vec<(u64, u64)> {
        let of = |effect: &Effect| match effect {
            Effect::Fetch { number, low, .. } => Some((*number, *low)),
            _ => None,
        };
        effects.iter().filter_map(of).collect()
    }

    #[test]
    fn a_peer_that_lacks_what_can_t_be_read_takes_over_a_state_and_others_are_served() {
        let mut replica = replica();
        replica.heard_vector(2, has(10), false, 10_000);
        let [(number, 1)] = fetches(&replica.take_effects())[..] else { panic!("it is read back from 1 on") };
        replica.unreadable(100);
        replica.fetched(number, vec![]);
        assert_eq!(fetches(&replica.take_effects()), [], "it is not read a second time");
        replica.heard_vector(3, has(300), false, 10_000);
        assert!(matches!(fetches(&replica.take_effects())[..], [(_, 257)]), "behind it all is well");
        let mut told = Vec::new();
        for _ in 0..=2 * BEHIND_TICKS {
            replica.tick(10_000, 0);
            for effect in replica.take_effects() {
                assert!(!matches!(effect, Effect::Fetch { .. }), "{effect:?}");
                if let Effect::Send { to, message: Message::TooFarBehind } = effect {
                    told.push(to);
                }
            }
        }
        assert!(told.contains(&2) && !told.contains(&3), "{told:?}");
    }

    #[test]
    fn the_log_goes_on_by_an_entry_of_this_node_s_stream() {
        let mut replica = replica();
        for peer in [2, 3] {
            replica.heard_vector(peer, has(600), false, 10_000);
        }
        replica.take_effects();
        let next = replica.history().next_index();
        assert!(replica.go_on(10_000));
        let effects = replica.take_effects();
        assert!(matches!(effects[..], [Effect::Persist { index, .. }] if index == next), "{effects:?}");
    }
}
