//! Entries of a converging log, as bytes.
//!
//! ```text
//! kind:u8 │ origin:u32  sequence:u64  first:u64  requests:u32 │ rows:u16 (origin:u32 time:u64)* │ body
//!   1 writes       body = encoded requests (src/engine/effect.rs)
//!   2 watermark    no body: "nothing of mine is earlier than this any more"
//!   3 members      body = a change of the members, as JSON
//!
//! kind:u8 │ body
//!   8 states       vector, which of two copies stays:u8, keys' states
//!   9 forgotten    (key length:u16  key  version)*
//!  10 seen         what a snapshot says (history.rs): all of it is here, by the states before this entry
//! ```
//!
//! Numbers are little-endian. The first three kinds have a dot and travel to every
//! node as they are; the rows are what the writer had seen of other origins when it
//! framed the entry. The others are a node's own: what it took over from a peer's
//! state, not by entries.
//!
//! ```text
//! state = key length:u16  key  parts:u8  [version length:u32 bytes]  [version length:u32 bytes]  [version]
//!                              1 value │ 2 vector (little-endian f32s) │ 4 tombstone
//! version = index:u64  ordinal:u32
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::history::SnapshotVector;
use super::members::MemberChange;
use super::vector::{Origin, Row, VersionVector};
use crate::engine::{Effect, Entry, Requests, SameVersion, Seen, Stamp};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX, VECTOR_LENGTH_MAX};
use crate::version::Version;

const WRITES: u8 = 1;
const WATERMARK: u8 = 2;
const MEMBERS: u8 = 3;
const STATES: u8 = 8;
const FORGOTTEN: u8 = 9;
const SEEN: u8 = 10;

const PART_VALUE: u8 = 1;
const PART_VECTOR: u8 = 2;
const PART_TOMBSTONE: u8 = 4;

/// What an entry of an origin's stream begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dotted {
    /// Whose it is.
    pub origin: Origin,
    /// Its place in that stream.
    pub sequence: u64,
    /// The time of its first request.
    pub first: u64,
    /// How many times it takes.
    pub requests: u32,
    /// What its writer had seen of other origins.
    pub context: Seen,
    /// What it is.
    pub content: Content,
}

/// What an entry of an origin's stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Encoded requests.
    Writes(Bytes),
    /// Nothing but its time.
    Watermark,
    /// A change of the members.
    Members(Bytes),
}

/// What an entry costs beside its bytes and its handle while several share it.
const SHARED_OVERHEAD_BYTES: usize = 32;

/// An entry of a converging log.
#[derive(Clone, Debug)]
pub enum Decoded {
    /// Of an origin's stream.
    Dotted(Dotted),
    /// Keys' states, from a peer that had this vector, and which copy of one version stays.
    States {
        /// What the peer had.
        vector: VersionVector,
        /// Where both have a part of one version.
        same: SameVersion,
        /// Encoded states.
        states: Bytes,
    },
    /// Parts that a peer had seen and has no more.
    Forgotten(Bytes),
    /// All of this is here.
    Seen(SnapshotVector),
}

impl Decoded {
    /// What it occupies while it waits for those that share it, in bytes. Of most entries what they
    /// carry is the least.
    pub fn memory_bytes(&self) -> usize {
        let (body, rows) = match self {
            Decoded::Dotted(dotted) => (dotted.body(), dotted.context.rows().len()),
            Decoded::States { vector, states, .. } => (&states[..], vector.rows().len()),
            Decoded::Forgotten(rows) => (&rows[..], 0),
            Decoded::Seen(state) => (&[][..], state.vector.rows().len()),
        };
        size_of::<Decoded>() + SHARED_OVERHEAD_BYTES + body.len() + rows * size_of::<Row>()
    }
}

impl Dotted {
    fn body(&self) -> &[u8] {
        match &self.content {
            Content::Writes(body) | Content::Members(body) => body,
            Content::Watermark => &[],
        }
    }

    /// The stamp of its requests.
    pub fn stamp(&self) -> Stamp {
        Stamp { first: self.first, origin: self.origin }
    }

    /// Its row in the vector of who has it.
    pub fn row(&self) -> Row {
        let time = self.first + u64::from(self.requests.max(1)) - 1;
        Row { origin: self.origin, sequence: self.sequence, time }
    }

    /// Whether it can be applied: what is in the log is, at every start. A peer's entry is
    /// looked at before it goes there.
    pub fn is_sound(&self) -> bool {
        let body = match &self.content {
            Content::Writes(body) => body,
            Content::Members(body) => return MemberChange::decode(body).is_some(),
            Content::Watermark => return true,
        };
        Requests::new(body).all(|item| {
            let Ok((ordinal, effect)) = item else { return false };
            let fits = match effect {
                Effect::Set { value, .. } => (1..=VALUE_BYTES_MAX).contains(&value.len()),
                Effect::AddVector { vector, .. } => {
                    (1..=VECTOR_LENGTH_MAX * 4).contains(&vector.len()) && is_finite(vector)
                }
                Effect::Delete { .. } => true,
            };
            fits && ordinal < self.requests && (1..=KEY_BYTES_MAX).contains(&effect.key().len())
        })
    }

    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        let kind = match &self.content {
            Content::Writes(_) => WRITES,
            Content::Watermark => WATERMARK,
            Content::Members(_) => MEMBERS,
        };
        let body = self.body();
        let rows = self.context.rows();
        let mut out = BytesMut::with_capacity(32 + rows.len() * 12 + body.len());
        out.put_u8(kind);
        out.put_u32_le(self.origin);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.first);
        out.put_u32_le(self.requests);
        out.put_u16_le(rows.len() as u16);
        for (origin, time) in rows {
            out.put_u32_le(*origin);
            out.put_u64_le(*time);
        }
        out.put_slice(body);
        out.freeze()
    }
}

/// Keys' states, as an entry of the log.
pub fn encode_states(vector: &VersionVector, same: SameVersion, states: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(states.len() + 128);
    out.put_u8(STATES);
    vector.encode(&mut out);
    out.put_u8(match same {
        SameVersion::Ours => 0,
        SameVersion::Theirs => 1,
        SameVersion::Greater => 2,
    });
    out.put_slice(states);
    out.freeze()
}

/// Forgotten parts, as an entry of the log.
pub fn encode_forgotten<'a>(rows: impl Iterator<Item = (&'a [u8], Version)>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(FORGOTTEN);
    for (key, version) in rows {
        out.put_u16_le(key.len() as u16);
        out.put_slice(key);
        put_version(&mut out, version);
    }
    out.freeze()
}

/// That all of this is here, as an entry of the log.
pub fn encode_seen(state: &SnapshotVector) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(SEEN);
    out.put_slice(&state.encode());
    out.freeze()
}

/// Reads an entry; `None` if it is none.
pub fn decode(payload: &Bytes) -> Option<Decoded> {
    let mut bytes = payload.clone();
    Some(match bytes.try_get_u8().ok()? {
        kind @ (WRITES | WATERMARK | MEMBERS) => Decoded::Dotted(dotted(kind, bytes)?),
        STATES => {
            let vector = VersionVector::decode(&mut bytes)?;
            let same = match bytes.try_get_u8().ok()? {
                0 => SameVersion::Ours,
                1 => SameVersion::Theirs,
                2 => SameVersion::Greater,
                _ => return None,
            };
            Decoded::States { vector, same, states: bytes }
        }
        FORGOTTEN => Decoded::Forgotten(bytes),
        SEEN => Decoded::Seen(SnapshotVector::decode(&bytes)?),
        _ => return None,
    })
}

/// The last time of an entry of a stream, without reading the rest of it.
pub fn time_of(payload: &[u8]) -> Option<u64> {
    const FIRST_AT: usize = 1 + 4 + 8;
    let mut rest = payload.get(FIRST_AT..)?;
    let (first, requests) = (rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?);
    first.checked_add(u64::from(requests.max(1)) - 1)
}

fn dotted(kind: u8, mut bytes: Bytes) -> Option<Dotted> {
    let origin = bytes.try_get_u32_le().ok()?;
    let (sequence, first) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
    let (requests, rows) = (bytes.try_get_u32_le().ok()?, bytes.try_get_u16_le().ok()?);
    let mut context = Seen::default();
    for _ in 0..rows {
        let origin = bytes.try_get_u32_le().ok()?;
        context.raise(origin, bytes.try_get_u64_le().ok()?);
    }
    let content = match kind {
        WRITES => Content::Writes(bytes),
        WATERMARK => Content::Watermark,
        _ => Content::Members(bytes),
    };
    // Its last time must be one.
    let is_whole = sequence > 0 && first.checked_add(u64::from(requests)).is_some();
    is_whole.then_some(Dotted { origin, sequence, first, requests, context, content })
}

fn put_version(out: &mut BytesMut, version: Version) {
    out.put_u64_le(version.index);
    out.put_u32_le(version.ordinal);
}

fn take_version(bytes: &mut Bytes) -> Option<Version> {
    Some(Version { index: bytes.try_get_u64_le().ok()?, ordinal: bytes.try_get_u32_le().ok()? })
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// Whether these little-endian numbers are such as a snapshot's line can carry.
fn is_finite(vector: &[u8]) -> bool {
    vector.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite())
}

/// Appends a key's state: an entry or a tombstone.
pub fn encode_state(out: &mut BytesMut, entry: &Entry) {
    out.put_u16_le(entry.key().len() as u16);
    out.put_slice(entry.key());
    if entry.is_tombstone() {
        out.put_u8(PART_TOMBSTONE);
        return put_version(out, entry.version());
    }
    let (value, vector) = (entry.value_part(), entry.vector_part());
    let flag = |flag, is_set: bool| if is_set { flag } else { 0 };
    out.put_u8(flag(PART_VALUE, value.is_some()) | flag(PART_VECTOR, vector.is_some()));
    if let Some((version, bytes)) = value {
        put_version(out, version);
        out.put_u32_le(bytes.len() as u32);
        out.put_slice(bytes);
    }
    if let Some((version, _)) = vector {
        let numbers = entry.vector().unwrap_or_default();
        put_version(out, version);
        out.put_u32_le((numbers.len() * 4) as u32);
        numbers.iter().for_each(|number| out.put_f32_le(*number));
    }
}

/// Reads states one after the other; an item `None` is what is no state.
pub fn states(mut bytes: Bytes) -> impl Iterator<Item = Option<Entry>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let read = state(&mut bytes);
        if read.is_none() {
            bytes.clear();
        }
        Some(read)
    })
}

/// The versions of all parts among states.
pub fn versions_of(bytes: &Bytes) -> impl Iterator<Item = Version> {
    states(bytes.clone()).flatten().flat_map(|entry| {
        let parts = [entry.value_part(), entry.vector_part()].map(|part| part.map(|(version, _)| version));
        parts.into_iter().flatten().chain([entry.version()]).collect::<Vec<_>>()
    })
}

fn state(bytes: &mut Bytes) -> Option<Entry> {
    let length = usize::from(bytes.try_get_u16_le().ok()?);
    let key = take(bytes, length).filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))?;
    let parts = bytes.try_get_u8().ok()?;
    if parts == PART_TOMBSTONE {
        return Some(Entry::tombstone(take_version(bytes)?, &key));
    }
    if parts == 0 || parts & !(PART_VALUE | PART_VECTOR) != 0 {
        return None;
    }
    let mut part = |flag: u8, bytes_max: usize| {
        if parts & flag == 0 {
            return Some(None);
        }
        let version = take_version(bytes)?;
        let length = bytes.try_get_u32_le().ok()? as usize;
        let body = take(bytes, length).filter(|body| (1..=bytes_max).contains(&body.len()))?;
        Some(Some((version, body)))
    };
    let value = part(PART_VALUE, VALUE_BYTES_MAX)?;
    let vector = part(PART_VECTOR, VECTOR_LENGTH_MAX * 4)?;
    if vector.as_ref().is_some_and(|(_, body)| body.len() % 4 != 0 || !is_finite(body)) {
        return None;
    }
    let vector = vector.map(|(version, body)| {
        let numbers = body.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        (version, numbers.flat_map(f32::to_ne_bytes).collect::<Vec<u8>>())
    });
    let value = value.as_ref().map(|(version, body)| (*version, &body[..]));
    Entry::of_parts(&key, value, vector.as_ref().map(|(version, body)| (*version, &body[..])))
}

/// Reads forgotten parts: key and version; an item `None` is what is none.
pub fn forgotten(mut bytes: Bytes) -> impl Iterator<Item = Option<(Bytes, Version)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let mut read = || {
            let length = usize::from(bytes.try_get_u16_le().ok()?);
            Some((take(&mut bytes, length)?, take_version(&mut bytes)?))
        };
        let row = read();
        if row.is_none() {
            bytes.clear();
        }
        Some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{encode_effect, encode_request_header};

    const VERSION: Version = Version { index: 7, ordinal: 3 };

    #[test]
    fn an_entry_of_a_stream_comes_back_and_a_cut_one_is_none() {
        let context = Seen::of([(9, 4), (2, 6)]);
        let contents = [Content::Writes(Bytes::from_static(b"abc")), Content::Watermark];
        for content in contents {
            let dotted =
                Dotted { origin: 5, sequence: 6, first: 7, requests: 3, context: context.clone(), content };
            let bytes = dotted.encode();
            let Some(Decoded::Dotted(read)) = decode(&bytes) else { panic!("no entry") };
            assert_eq!(read, dotted);
            assert_eq!(read.row(), Row { origin: 5, sequence: 6, time: 9 });
            assert_eq!(time_of(&bytes), Some(9));
            for end in 0..bytes.len().min(31) {
                assert!(decode(&bytes.slice(..end)).is_none(), "cut at {end}");
            }
        }
    }

    #[test]
    fn writes_that_can_t_be_applied_are_not_sound() {
        let body = |effect: &Effect<'_>| {
            let mut body = Vec::new();
            encode_request_header(&mut body, 1);
            encode_effect(&mut body, effect);
            body
        };
        let of = |body: Vec<u8>, requests| {
            let (context, content) = (Seen::default(), Content::Writes(body.into()));
            Dotted { origin: 5, sequence: 6, first: 7, requests, context, content }.is_sound()
        };
        let set = body(&Effect::Set { key: b"k", value: b"1" });
        assert!(of(set.clone(), 1));
        assert!(!of(set.clone(), 0), "more requests than it has times for");
        assert!(!of(set[..set.len() - 1].to_vec(), 1), "cut");
        assert!(!of(body(&Effect::Set { key: b"", value: b"1" }), 1));
        assert!(!of(body(&Effect::Set { key: b"k", value: b"" }), 1));
        assert!(!of(body(&Effect::Delete { key: &[b'k'; KEY_BYTES_MAX + 1] }), 1));
        assert!(!of(body(&Effect::AddVector { key: b"k", vector: &[0; 4 * (VECTOR_LENGTH_MAX + 1)] }), 1));
    }

    #[test]
    fn states_and_forgotten_parts_come_back() {
        let later = Version { index: 8, ordinal: 1 };
        let vector: Vec<u8> = 1.5f32.to_ne_bytes().to_vec();
        let entries = [
            Entry::new(VERSION, b"a", Some(b"1"), None),
            Entry::of_parts(b"b", Some((VERSION, b"2")), Some((later, &vector))).unwrap(),
            Entry::tombstone(later, b"c"),
        ];
        let mut out = BytesMut::new();
        entries.iter().for_each(|entry| encode_state(&mut out, entry));
        let payload = encode_states(&VersionVector::default(), SameVersion::Theirs, &out);
        let Some(Decoded::States { same: SameVersion::Theirs, states: bytes, .. }) = decode(&payload) else {
            panic!("no states")
        };
        let read: Vec<Entry> = states(bytes).map(|entry| entry.unwrap()).collect();
        assert_eq!(format!("{read:?}"), format!("{entries:?}"));
        assert_eq!((read[1].value_part().unwrap().0, read[1].vector_part().unwrap().0), (VERSION, later));
        let payload = encode_forgotten([(&b"k"[..], VERSION), (b"l", later)].into_iter());
        let Some(Decoded::Forgotten(bytes)) = decode(&payload) else { panic!("nothing forgotten") };
        let rows: Vec<_> = forgotten(bytes).map(|row| row.unwrap()).collect();
        assert_eq!(rows, [(Bytes::from_static(b"k"), VERSION), (Bytes::from_static(b"l"), later)]);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let random: Vec<u8> = (0..40)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8 % 12
                })
                .collect();
            let bytes = Bytes::from(random);
            match decode(&bytes) {
                Some(Decoded::States { states: bytes, .. }) => drop(states(bytes).count()),
                Some(Decoded::Forgotten(bytes)) => drop(forgotten(bytes).count()),
                _ => {}
            }
        }
    }
}
