//! Sending a peer what it lacks, in the log's order.

use bytes::Bytes;

use super::entry::{Decoded, decode};
use super::message::{Effect, Message};
use super::peer::{Cursor, WINDOW_BYTES};
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
        if peer.has(&row) {
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
        for (_, payload) in entries {
            let Some(Decoded::Dotted(dotted)) = decode(&payload) else { continue };
            let (row, tick) = (dotted.row(), self.tick);
            let is_foreign = self.is_foreign(&row);
            let Some(peer) = self.peers.get_mut(&to) else { return };
            if peer.has(&row) {
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
