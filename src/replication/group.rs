//! What becomes one entry of the log, and whose writes it holds.
//!
//! ```text
//!  entry     request 0 │ request 1 │ request 2            the group's pieces, joined
//!  whose     shard 0's write 7      shard 1's write 2     Singles: one request each
//!                        shards 0 and 1, writes 8 and 3   Multi: one request together
//! ```
//!
//! A request's place in the entry is the ordinal of its version, so that pieces
//! and acknowledgements must be in the same order.

use crate::engine::{PartAppend, encode_request_header};

/// Whose writes a group holds; each stands for one or more requests, in the
/// order of their ordinals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// One request each.
    Singles {
        /// The shard that knows them.
        shard: usize,
        /// By these numbers.
        writes: Vec<u32>,
    },
    /// One request together.
    Multi {
        /// Shard and number of each part.
        parts: Vec<(usize, u32)>,
    },
}

/// Requests to log, in order.
#[derive(Debug, Default)]
pub struct Group {
    /// Encoded requests, to be written one behind the other.
    pub pieces: Vec<Vec<u8>>,
    /// Whose they are.
    pub acknowledgements: Vec<Acknowledgement>,
    /// How many requests.
    pub requests: usize,
    /// How many bytes.
    pub bytes: usize,
}

impl Group {
    /// Adds encoded bytes.
    pub fn push(&mut self, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    /// Adds requests of one key each.
    pub fn push_singles(&mut self, shard: usize, bytes: Vec<u8>, writes: Vec<u32>) {
        self.requests += writes.len();
        self.push(bytes);
        self.acknowledgements.push(Acknowledgement::Singles { shard, writes });
    }

    /// Adds a multi-key write, all of whose parts are there: they are one request.
    pub fn push_multi(&mut self, parts: impl Iterator<Item = (usize, PartAppend)>) {
        let mut header = Vec::new();
        let (mut effects, mut acknowledged, mut pieces) = (0, Vec::new(), Vec::new());
        for (shard, part) in parts {
            effects += part.effects;
            acknowledged.extend(part.write.map(|write| (shard, write)));
            pieces.push(part.bytes);
        }
        encode_request_header(&mut header, effects);
        self.requests += 1;
        self.push(header);
        pieces.into_iter().for_each(|piece| self.push(piece));
        self.acknowledgements.push(Acknowledgement::Multi { parts: acknowledged });
    }

    /// Adds another group behind this one.
    pub fn merge(&mut self, mut other: Group) {
        self.pieces.append(&mut other.pieces);
        self.acknowledgements.append(&mut other.acknowledgements);
        self.requests += other.requests;
        self.bytes += other.bytes;
    }

    /// The entry's payload.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.bytes);
        self.pieces.iter().for_each(|piece| payload.extend_from_slice(piece));
        payload
    }
}

/// Each shard's writes of an entry, with the ordinals of their requests.
pub fn numbered(acknowledgements: Vec<Acknowledgement>, shards: usize) -> Vec<Vec<(u32, u32)>> {
    let mut per_shard: Vec<Vec<(u32, u32)>> = vec![Vec::new(); shards];
    let mut ordinal = 0;
    for acknowledgement in acknowledgements {
        match acknowledgement {
            Acknowledgement::Singles { shard, writes } => {
                let next = ordinal + writes.len() as u32;
                per_shard[shard].extend(writes.into_iter().zip(ordinal..next));
                ordinal = next;
            }
            Acknowledgement::Multi { parts } => {
                parts.into_iter().for_each(|(shard, write)| per_shard[shard].push((write, ordinal)));
                ordinal += 1;
            }
        }
    }
    per_shard
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Effect, Requests, encode_effect};

    fn effect(key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_effect(&mut bytes, &Effect::Delete { key });
        bytes
    }

    fn single(key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_request_header(&mut bytes, 1);
        bytes.extend(effect(key));
        bytes
    }

    fn part(key: &[u8], write: u32) -> PartAppend {
        PartAppend { write: Some(write), multi: 1, parts: 2, effects: 1, bytes: effect(key), refusal: None }
    }

    #[test]
    fn a_write_s_ordinal_is_its_request_s_place_in_the_payload() {
        let mut group = Group::default();
        group.push_singles(1, [single(b"a"), single(b"b")].concat(), vec![5, 3]);
        group.push_multi([(0, part(b"c", 9)), (1, part(b"d", 4))].into_iter());
        let mut behind = Group::default();
        behind.push_singles(0, single(b"e"), vec![0]);
        group.merge(behind);
        assert_eq!((group.requests, group.bytes), (4, group.payload().len()));
        let payload = group.payload();
        let read: Vec<_> = Requests::new(&payload).map(|item| item.unwrap()).collect();
        let keys: Vec<_> = read.iter().map(|(ordinal, effect)| (*ordinal, effect.key())).collect();
        assert_eq!(keys, [(0, &b"a"[..]), (1, b"b"), (2, b"c"), (2, b"d"), (3, b"e")]);
        let numbered = numbered(group.acknowledgements, 2);
        assert_eq!(numbered, [vec![(9, 2), (0, 3)], vec![(5, 0), (3, 1), (4, 2)]]);
    }
}
