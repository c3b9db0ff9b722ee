//! Bodies of the frames that nodes of dynamo mode say to each other; see
//! [`super::peer_frame`] for what is around them.
//!
//! ```text
//!   entries      a list of payloads                        vector    again:u8 │ vector
//!   pulse        clock:u64 │ vector │ has root:u8 │ [vector │ hash:u128]
//!   key wanted   number │ key          key state   number │ states of the key, or nothing
//!   members      whom the sender takes for members, as JSON
//!   state wanted a list of hashes      state begins   vector and members as JSON │ buckets:u32 …   states   states of keys
//! ```
//!
//! Entries, vectors and states are laid out in `src/replication/dynamo`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame_reader::Reader;
use super::peer_frame::{put_bytes, put_length};
use crate::replication::dynamo::{Members, Message, Pulse, Root, SnapshotVector, VersionVector};

/// What nodes of dynamo mode say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Converging {
    /// From replica to replica.
    Message(Message),
    /// What do you have of this key?
    KeyWanted {
        /// The asker's name for the question.
        number: u64,
        /// The key's UTF-8.
        key: Bytes,
    },
    /// That.
    KeyState {
        /// The question.
        number: u64,
        /// The key's entry, as `entry::encode_state` has it; empty where there is none.
        state: Bytes,
    },
    /// Your whole state, please; or, with hashes of all buckets, where it is another one.
    StateWanted {
        /// Empty, or one of each bucket.
        hashes: Vec<u128>,
    },
    /// It comes, and has at least all of this.
    StateBegins {
        /// What the sender had when it began, and the members by then.
        state: SnapshotVector,
        /// Of a state that was asked for with hashes: the buckets that are other ones.
        buckets: Vec<u32>,
    },
    /// Some keys' states.
    States(Bytes),
}

pub(super) const ENTRIES: u8 = 12;
pub(super) const VECTOR: u8 = 13;
pub(super) const PULSE: u8 = 14;
pub(super) const TOO_FAR_BEHIND: u8 = 15;
pub(super) const KEY_WANTED: u8 = 16;
pub(super) const KEY_STATE: u8 = 17;
pub(super) const STATE_WANTED: u8 = 18;
pub(super) const STATE_BEGINS: u8 = 19;
pub(super) const STATES: u8 = 20;
pub(super) const MEMBERS: u8 = 21;

pub(super) fn put(out: &mut BytesMut, frame: &Converging) {
    match frame {
        Converging::Message(Message::Entries(entries)) => {
            out.put_u8(ENTRIES);
            put_length(out, entries.len());
            entries.iter().for_each(|entry| put_bytes(out, entry));
        }
        Converging::Message(Message::Vector { vector, again }) => {
            out.put_u8(VECTOR);
            out.put_u8(u8::from(*again));
            vector.encode(out);
        }
        Converging::Message(Message::Pulse(Pulse { vector, clock_ms, root })) => {
            out.put_u8(PULSE);
            out.put_u64_le(*clock_ms);
            vector.encode(out);
            out.put_u8(u8::from(root.is_some()));
            if let Some(Root { vector, hash }) = root {
                vector.encode(out);
                out.put_u128_le(*hash);
            }
        }
        Converging::Message(Message::TooFarBehind) => out.put_u8(TOO_FAR_BEHIND),
        Converging::Message(Message::Members(members)) => {
            out.put_u8(MEMBERS);
            put_bytes(out, &members.encode());
        }
        Converging::KeyWanted { number, key } => {
            out.put_u8(KEY_WANTED);
            out.put_u64_le(*number);
            put_bytes(out, key);
        }
        Converging::KeyState { number, state } => {
            out.put_u8(KEY_STATE);
            out.put_u64_le(*number);
            put_bytes(out, state);
        }
        Converging::StateWanted { hashes } => {
            out.put_u8(STATE_WANTED);
            put_length(out, hashes.len());
            hashes.iter().for_each(|hash| out.put_u128_le(*hash));
        }
        Converging::StateBegins { state, buckets } => {
            out.put_u8(STATE_BEGINS);
            put_bytes(out, &state.encode());
            put_length(out, buckets.len());
            buckets.iter().for_each(|bucket| out.put_u32_le(*bucket));
        }
        Converging::States(states) => {
            out.put_u8(STATES);
            put_bytes(out, states);
        }
    }
}

pub(super) fn read(kind: u8, reader: &mut Reader<'_>) -> Option<Converging> {
    Some(match kind {
        ENTRIES => Converging::Message(Message::Entries(reader.list(Reader::payload)?)),
        VECTOR => {
            let again = reader.bool()?;
            Converging::Message(Message::Vector { vector: VersionVector::decode(&mut reader.bytes)?, again })
        }
        PULSE => {
            let (clock_ms, vector) = (reader.u64()?, VersionVector::decode(&mut reader.bytes)?);
            let root = if reader.bool()? {
                let vector = VersionVector::decode(&mut reader.bytes)?;
                Some(Root { vector, hash: reader.bytes.try_get_u128_le().ok()? })
            } else {
                None
            };
            Converging::Message(Message::Pulse(Pulse { vector, clock_ms, root }))
        }
        TOO_FAR_BEHIND => Converging::Message(Message::TooFarBehind),
        MEMBERS => Converging::Message(Message::Members(Members::decode(reader.bytes()?)?)),
        KEY_WANTED => Converging::KeyWanted { number: reader.u64()?, key: reader.payload()? },
        KEY_STATE => Converging::KeyState { number: reader.u64()?, state: reader.payload()? },
        STATE_WANTED => {
            Converging::StateWanted { hashes: reader.list(|reader| reader.bytes.try_get_u128_le().ok())? }
        }
        STATE_BEGINS => Converging::StateBegins {
            state: SnapshotVector::decode(reader.bytes()?)?,
            buckets: reader.list(|reader| reader.bytes.try_get_u32_le().ok())?,
        },
        STATES => Converging::States(reader.payload()?),
        _ => return None,
    })
}
