//! A frame: one group of entries, written and synced as one, judged alone.
//!
//! ```text
//!  0      4      5     6         8           12           16            20        24
//! ┌──────┬──────┬─────┬─────────┬───────────┬────────────┬─────────────┬─────────┐
//! │magic │ kind │ 0   │ hard    │ payload   │ entries    │ payload CRC │ pred.   │
//! │"FRM1"│1 or 2│     │ state   │ bytes     │            │             │ CRC     │
//! │      │      │     │ bytes   │           │            │             │         │
//! ├──────┴──────┴─────┼─────────┴───────────┼────────────┴─────────────┼─────────┤
//! │ 24 term           │ 32 frame number     │ 40 first entry index     │ 48 …    │
//! ├───────────────────┴─────────────────────┼──────────────────────────┼─────────┤
//! │ 48 highest frame number known durable   │ 56 reserved, zero        │ 60 CRC  │
//! └─────────────────────────────────────────┴──────────────────────────┴─────────┘
//!  64  payload, then zeroes up to a multiple of 8
//!
//! payload = hard state, entry*
//! entry   = length:u32  kind:u8  0:u8 ×3  term:u64  bytes (`length` of them)
//! ```
//!
//! All numbers are little-endian. The header's CRC covers its first 60 bytes,
//! the payload's CRC the payload with its padding; both begin with the salt of
//! the segment, so that bytes of another segment, or bytes that a client wrote
//! into a value to look like a frame, are no frame here. The predecessor's CRC
//! is the *header* CRC of the frame before, which covers its payload's CRC: so
//! each frame vouches for the whole chain before it.
//!
//! A frame is written only when the one before it is durable. So a later valid
//! header proves that the earlier frames were durable once, and that a bad one
//! among them is damage and not a write cut short (see `recovery.rs`).
//!
//! A frame holds 0 to n entries. One without entries takes a frame number and
//! no index: it carries a hard state, or says only that the frame before it is
//! durable.
//!
//! A frame of kind 1 goes on at the next index. One of kind 2 begins at an
//! earlier one, and its entries take the place of *all* entries from there on:
//!
//! ```text
//!   frame 1 (kind 1)    frame 2 (kind 1)   frame 3 (kind 2, first index 3)
//!   entries 1 2 3       entries 4 5        entries 3' 4'
//!   the log             1 2 3' 4'          3, 4 and 5 are superseded
//! ```
//!
//! Superseded entries stay in their frames, and their frames in the chain.

/// The first bytes of a frame's header.
const MAGIC: [u8; 4] = *b"FRM1";
/// A frame that continues at the next index.
pub const KIND_GROUP: u8 = 1;
/// A frame whose entries supersede all entries from its first index on.
pub const KIND_REPLACING: u8 = 2;
/// Where frames may begin, and the unit of their length.
pub const ALIGNMENT_BYTES: usize = 8;

const MAGIC_AT: usize = 0;
const KIND_AT: usize = MAGIC_AT + 4;
const RESERVED_AT: usize = KIND_AT + 1;
const HARD_STATE_BYTES_AT: usize = RESERVED_AT + 1;
const PAYLOAD_BYTES_AT: usize = HARD_STATE_BYTES_AT + 2;
const ENTRIES_AT: usize = PAYLOAD_BYTES_AT + 4;
const PAYLOAD_CRC_AT: usize = ENTRIES_AT + 4;
const PREDECESSOR_CRC_AT: usize = PAYLOAD_CRC_AT + 4;
const TERM_AT: usize = PREDECESSOR_CRC_AT + 4;
const NUMBER_AT: usize = TERM_AT + 8;
const FIRST_INDEX_AT: usize = NUMBER_AT + 8;
const DURABLE_NUMBER_AT: usize = FIRST_INDEX_AT + 8;
const RESERVED_LAST_AT: usize = DURABLE_NUMBER_AT + 8;
const HEADER_CRC_AT: usize = RESERVED_LAST_AT + 4;
/// A frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = HEADER_CRC_AT + 4;

const ENTRY_LENGTH_AT: usize = 0;
const ENTRY_KIND_AT: usize = ENTRY_LENGTH_AT + 4;
const ENTRY_RESERVED_AT: usize = ENTRY_KIND_AT + 1;
const ENTRY_TERM_AT: usize = ENTRY_RESERVED_AT + 3;
/// What stands before an entry's bytes.
pub const ENTRY_HEADER_BYTES: usize = ENTRY_TERM_AT + 8;

/// The longest payload of a frame: its length and every position fit 32 bits.
pub const PAYLOAD_BYTES_MAX: usize = i32::MAX as usize;
/// The longest hard state.
pub const HARD_STATE_BYTES_MAX: usize = u16::MAX as usize;

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(ALIGNMENT_BYTES));
const _: () = assert!(TERM_AT.is_multiple_of(8) && DURABLE_NUMBER_AT.is_multiple_of(8));

/// An entry on its way into the log. Its index is given to it there.
#[derive(Clone, Copy, Debug)]
pub struct AppendEntry<'a> {
    /// What the bytes are; the log doesn't look.
    pub kind: u8,
    /// The Raft term, 1 without Raft.
    pub term: u64,
    /// The entry's bytes in as many pieces as the caller has.
    pub payload: &'a [&'a [u8]],
}

impl AppendEntry<'_> {
    fn payload_bytes(&self) -> usize {
        self.payload.iter().map(|piece| piece.len()).sum()
    }
}

/// A frame's header, but for the CRCs of itself and of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// [`KIND_GROUP`] or [`KIND_REPLACING`].
    pub kind: u8,
    /// The length of the hard state that begins the payload; 0 when there is none.
    pub hard_state_bytes: u16,
    /// The payload without its padding.
    pub payload_bytes: u32,
    /// How many entries the payload holds.
    pub entries: u32,
    /// The header CRC of the frame before; 0 for the first one.
    pub predecessor_crc: u32,
    /// The term of the last entry, or of the one before the frame.
    pub term: u64,
    /// Counts the frames from 1. The number of a refused frame is used again.
    pub number: u64,
    /// The index of the first entry, or, without entries, of the next one.
    pub first_index: u64,
    /// All frames up to this one were durable when this one was written.
    pub durable_number: u64,
}

impl FrameHeader {
    /// The frame's length with header and padding.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + (self.payload_bytes as usize).next_multiple_of(ALIGNMENT_BYTES)
    }
}

fn salted_crc(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// What a frame says beside its entries.
#[derive(Clone, Copy, Debug)]
pub struct FramePlace {
    /// See [`FrameHeader::kind`].
    pub kind: u8,
    /// The segment's salt.
    pub salt: u64,
    /// See [`FrameHeader::predecessor_crc`].
    pub predecessor_crc: u32,
    /// See [`FrameHeader::term`].
    pub term: u64,
    /// See [`FrameHeader::number`].
    pub number: u64,
    /// See [`FrameHeader::first_index`].
    pub first_index: u64,
    /// See [`FrameHeader::durable_number`].
    pub durable_number: u64,
}

/// The payload's length, or `None` when a frame can't hold it.
pub fn payload_bytes(entries: &[AppendEntry<'_>], hard_state: &[u8]) -> Option<usize> {
    if hard_state.len() > HARD_STATE_BYTES_MAX || entries.len() > u32::MAX as usize {
        return None;
    }
    entries
        .iter()
        .try_fold(hard_state.len(), |sum, entry| sum.checked_add(ENTRY_HEADER_BYTES + entry.payload_bytes()))
        .filter(|&bytes| bytes <= PAYLOAD_BYTES_MAX)
}

/// Writes the frame into `out` (which is cleared) and gives its header's CRC.
/// The caller has checked the length by [`payload_bytes`].
pub fn encode(out: &mut Vec<u8>, place: &FramePlace, entries: &[AppendEntry<'_>], hard_state: &[u8]) -> u32 {
    out.clear();
    out.resize(FRAME_HEADER_BYTES, 0);
    out.extend_from_slice(hard_state);
    for entry in entries {
        out.extend_from_slice(&(entry.payload_bytes() as u32).to_le_bytes());
        out.extend_from_slice(&[entry.kind, 0, 0, 0]);
        out.extend_from_slice(&entry.term.to_le_bytes());
        entry.payload.iter().for_each(|piece| out.extend_from_slice(piece));
    }
    let header = FrameHeader {
        kind: place.kind,
        hard_state_bytes: hard_state.len() as u16,
        payload_bytes: (out.len() - FRAME_HEADER_BYTES) as u32,
        entries: entries.len() as u32,
        predecessor_crc: place.predecessor_crc,
        term: place.term,
        number: place.number,
        first_index: place.first_index,
        durable_number: place.durable_number,
    };
    out.resize(header.frame_bytes(), 0);
    let payload_crc = salted_crc(place.salt, &out[FRAME_HEADER_BYTES..]);
    encode_header(&mut out[..FRAME_HEADER_BYTES], &header, payload_crc, place.salt)
}

fn encode_header(out: &mut [u8], header: &FrameHeader, payload_crc: u32, salt: u64) -> u32 {
    out[MAGIC_AT..KIND_AT].copy_from_slice(&MAGIC);
    out[KIND_AT] = header.kind;
    out[HARD_STATE_BYTES_AT..PAYLOAD_BYTES_AT].copy_from_slice(&header.hard_state_bytes.to_le_bytes());
    out[PAYLOAD_BYTES_AT..ENTRIES_AT].copy_from_slice(&header.payload_bytes.to_le_bytes());
    out[ENTRIES_AT..PAYLOAD_CRC_AT].copy_from_slice(&header.entries.to_le_bytes());
    out[PAYLOAD_CRC_AT..PREDECESSOR_CRC_AT].copy_from_slice(&payload_crc.to_le_bytes());
    out[PREDECESSOR_CRC_AT..TERM_AT].copy_from_slice(&header.predecessor_crc.to_le_bytes());
    out[TERM_AT..NUMBER_AT].copy_from_slice(&header.term.to_le_bytes());
    out[NUMBER_AT..FIRST_INDEX_AT].copy_from_slice(&header.number.to_le_bytes());
    out[FIRST_INDEX_AT..DURABLE_NUMBER_AT].copy_from_slice(&header.first_index.to_le_bytes());
    out[DURABLE_NUMBER_AT..RESERVED_LAST_AT].copy_from_slice(&header.durable_number.to_le_bytes());
    let crc = salted_crc(salt, &out[..HEADER_CRC_AT]);
    out[HEADER_CRC_AT..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A frame that was read back whole.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What its header says.
    pub header: FrameHeader,
    /// Its header's CRC, which the next frame repeats.
    pub crc: u32,
    /// The hard state that it carries, if any.
    pub hard_state: Option<&'a [u8]>,
    entries: &'a [u8],
}

/// One entry of a frame that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry<'a> {
    /// See [`AppendEntry::kind`].
    pub kind: u8,
    /// See [`AppendEntry::term`].
    pub term: u64,
    /// The entry's bytes.
    pub payload: &'a [u8],
}

/// The header that begins `bytes`, if its CRC is right, and that CRC.
pub fn decode_header(bytes: &[u8], salt: u64) -> Option<(FrameHeader, u32)> {
    let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
    // Checked first only because it is quick: a search goes through whole segments.
    if bytes[MAGIC_AT..KIND_AT] != MAGIC {
        return None;
    }
    let crc = u32_at(bytes, HEADER_CRC_AT);
    if salted_crc(salt, &bytes[..HEADER_CRC_AT]) != crc {
        return None;
    }
    let header = FrameHeader {
        kind: bytes[KIND_AT],
        hard_state_bytes: u16::from_le_bytes([bytes[HARD_STATE_BYTES_AT], bytes[HARD_STATE_BYTES_AT + 1]]),
        payload_bytes: u32_at(bytes, PAYLOAD_BYTES_AT),
        entries: u32_at(bytes, ENTRIES_AT),
        predecessor_crc: u32_at(bytes, PREDECESSOR_CRC_AT),
        term: u64_at(bytes, TERM_AT),
        number: u64_at(bytes, NUMBER_AT),
        first_index: u64_at(bytes, FIRST_INDEX_AT),
        durable_number: u64_at(bytes, DURABLE_NUMBER_AT),
    };
    Some((header, crc))
}

/// The frame that begins `bytes`, if it is whole: both CRCs are right and its
/// entries fill its payload exactly. Any bytes may be given.
pub fn decode(bytes: &[u8], salt: u64) -> Option<Frame<'_>> {
    let (header, crc) = decode_header(bytes, salt)?;
    if !matches!(header.kind, KIND_GROUP | KIND_REPLACING) {
        return None;
    }
    let padded = bytes.get(FRAME_HEADER_BYTES..header.frame_bytes())?;
    if salted_crc(salt, padded) != u32_at(bytes, PAYLOAD_CRC_AT) {
        return None;
    }
    let payload = &padded[..header.payload_bytes as usize];
    let (hard_state, entries) = payload.split_at_checked(header.hard_state_bytes as usize)?;
    let hard_state = (!hard_state.is_empty()).then_some(hard_state);
    let frame = Frame { header, crc, hard_state, entries };
    let mut rest = entries;
    for _ in 0..header.entries {
        rest = split_entry(rest)?.1;
    }
    rest.is_empty().then_some(frame)
}

fn split_entry(bytes: &[u8]) -> Option<(FrameEntry<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(ENTRY_HEADER_BYTES)?;
    let (payload, rest) = rest.split_at_checked(u32_at(header, ENTRY_LENGTH_AT) as usize)?;
    Some((FrameEntry { kind: header[ENTRY_KIND_AT], term: u64_at(header, ENTRY_TERM_AT), payload }, rest))
}

impl<'a> Frame<'a> {
    /// The entries in order; the first one's index is the header's `first_index`.
    pub fn entries(&self) -> impl Iterator<Item = FrameEntry<'a>> {
        let mut rest = self.entries;
        std::iter::from_fn(move || {
            let (entry, after) = split_entry(rest)?;
            rest = after;
            Some(entry)
        })
    }
}
