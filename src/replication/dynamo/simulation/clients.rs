//! Clients, and what gathers of their writes until it is an entry.

use bytes::Bytes;

use super::cluster::{Cluster, Event};
use super::node::{Operation, SHARDS, placement};
use crate::engine::{Condition, WriteKind};

/// Few, so that writes meet.
pub const KEYS: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"];

/// How often writes that wait behind a start are looked at.
const HELD_MS: u64 = 10;

/// What a client does to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Set,
    AddVector,
    Delete,
}

impl Cluster {
    /// A client asks a node for something.
    pub fn client(&mut self) {
        let place = self.below(self.nodes.len() as u64) as usize;
        let key = KEYS[self.below(KEYS.len() as u64) as usize];
        let other = KEYS[self.below(KEYS.len() as u64) as usize];
        match self.below(20) {
            0..8 => self.write(place, &[key], Write::Set),
            8..12 => self.write(place, &[key], Write::Delete),
            12..15 => self.write(place, &[key], Write::AddVector),
            15 | 16 => self.write(place, &[key, other], Write::Set),
            17 => self.write(place, &[key, other], Write::Delete),
            _ => {
                self.next_operation += 1;
                let operation = self.next_operation;
                let Some(process) = &mut self.nodes[place].process else { return };
                let hash = placement().hash(key);
                process.slices[placement().shard(hash)].get(operation, key, hash);
                true
            }
        };
    }

    /// Whether a node takes writes.
    fn may_write(&mut self, place: usize) -> bool {
        let node = &mut self.nodes[place];
        let Some(process) = &node.process else { return false };
        let has = |row: &crate::replication::dynamo::Row| process.vector.sequence(row.origin) >= row.sequence;
        let directory = node.disk.directory;
        if self.admitted.iter().any(|(admitted, row)| *admitted == directory && has(row)) {
            node.must_be_admitted = false;
        }
        let waits = node.must_be_admitted || !node.must_hear.is_empty() || process.replica.awaits_contact();
        !waits && !process.replica.skew().is_wrong && process.replica.excess().is_empty()
    }

    /// One write of one or more keys. Says whether the node took it.
    pub fn write(&mut self, place: usize, keys: &[&'static [u8]], write: Write) -> bool {
        self.next_operation += 1;
        let operation = self.next_operation;
        if !self.may_write(place) {
            self.figures.refused += 1;
            return false;
        }
        let kind = match write {
            Write::Set => WriteKind::Set(Bytes::from(operation.to_string())),
            Write::AddVector => {
                WriteKind::AddVector(Bytes::copy_from_slice(&(operation as f32).to_le_bytes()))
            }
            Write::Delete => WriteKind::Delete,
        };
        let Some(process) = &mut self.nodes[place].process else { return false };
        match keys {
            [key] => {
                let (arena, hash) = (Bytes::from_static(key), placement().hash(key));
                let slice = &mut process.slices[placement().shard(hash)];
                slice.write(operation, &arena, &arena, hash, kind, Condition::None);
            }
            _ => (0..SHARDS).for_each(|shard| {
                let hashed = keys.iter().map(|key| (Bytes::from_static(key), placement().hash(key)));
                let own = hashed.filter(|(_, hash)| placement().shard(*hash) == shard);
                let writes = own.map(|(key, hash)| (key, hash, kind.clone()));
                process.slices[shard].write_part(operation, operation as Operation, SHARDS as u32, writes);
            }),
        }
        for shard in 0..SHARDS {
            let append = std::mem::take(&mut process.slices[shard].output().append);
            process.appends.append(shard, append, 0, 0);
        }
        self.frame_soon(place);
        true
    }

    fn frame_soon(&mut self, place: usize) {
        let incarnation = self.nodes[place].incarnation;
        let Some(process) = &mut self.nodes[place].process else { return };
        if !process.appends.is_empty() && !process.frame_is_due {
            process.frame_is_due = true;
            let delay = self.below(4);
            self.after(delay, Event::Frame(place, incarnation));
        }
    }

    /// What gathered becomes an entry.
    pub fn frame(&mut self, place: usize) {
        let (incarnation, now_ms) = (self.nodes[place].incarnation, self.nodes[place].clock_ms(self.now_ms));
        let Some(process) = &mut self.nodes[place].process else { return };
        if process.replica.holds_writes() {
            self.figures.waits += 1;
            return self.after(HELD_MS, Event::Frame(place, incarnation));
        }
        process.frame_is_due = false;
        let Some(group) = process.appends.take_group() else { return };
        let index = process.replica.write(Bytes::from(group.payload()), group.requests as u32, now_ms);
        process.acknowledgements.insert(index, group.acknowledgements);
        self.is_dirty.insert(place);
        self.frame_soon(place);
    }
}
