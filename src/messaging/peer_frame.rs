//! What nodes say to each other behind the handshake ([`super::peer_hello`]),
//! as bytes.
//!
//! ```text
//!   0        4        8         12       13
//!   │ length │ crc of │ crc of  │ kind   │ body …                    │
//!   │        │ the    │ the 8   │        │                           │
//!   │        │ frame  │ before  │        │                           │
//!   └────────┴────────┴─────────┴────────┴───────────────────────────┘
//!                               └──────── `length` bytes ────────────┘
//!
//!   message   kind, flags │ from, to, term, log term, index, commit, commit term,
//!             reject hint, request snapshot │ context │ [mark] │ [doubt] │ entries
//!   entry     kind │ index │ term │ payload
//!   mark      index │ term │ voters │ learners │ outgoing │ next │ auto leave
//! ```
//!
//! Numbers are little-endian: kinds and flags a byte, lengths and counts 4,
//! all else 8. Bytes and lists have their length before them. Flags: 1, it
//! rejects; 2, it has a snapshot's mark; 4, members as an entry of the log has
//! made them follow the mark, as bytes. Without that they are those that the
//! cluster was founded with, which the receiver knows. 8, the number of the sender's
//! doubt follows; versions before 3 don't know that, and never get it ([`super::peer_version`]).
//!
//! The header has a checksum of its own: a length that was damaged on its way
//! must not make the reader wait for bytes that never come. A frame that isn't
//! whole yet is no error. Anything else that isn't as above is one, and ends the
//! connection: behind it nothing can be trusted to be a frame. What is read out of
//! a frame is copied at its exact size: an entry stays in memory for long, and must
//! not keep the buffer that it came in, or its neighbours.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame_reader::Reader;
use super::peer_frame_converging::{self, Converging};
use super::peer_frame_health::{self, HEALTH};
use super::peer_version::{CONFLICTING, IN_DOUBT, PRESENCE, presence, present};
use crate::limits::{PEER_FRAME_BYTES_MAX, SOCKET_READ_BYTES};
use crate::persistence::frame::PAYLOAD_BYTES_MAX;
use crate::persistence::{Configuration, Members, NodeUuid};
use crate::replication::doubt::Condition;
use crate::replication::health::Health;
use crate::replication::message::{EntryKind, LogEntry, Message, MessageKind, SnapshotMark};

const HEADER_BYTES: usize = 12;
/// What is read ahead of need at most: a length alone must not cost its memory.
const RESERVE_BYTES_MAX: usize = 8 << 20;
/// Behind a longer frame the buffer's memory is given back, even if another frame has begun.
const KEPT_BUFFER_BYTES_MAX: usize = 4 * SOCKET_READ_BYTES;

// Whatever the log can hold can be sent.
const _: () = assert!(PAYLOAD_BYTES_MAX < PEER_FRAME_BYTES_MAX);

/// One thing that a node says to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFrame {
    /// From replica to replica.
    Message(Message),
    /// From which index on is my state fresh?
    ReadProbe {
        /// The asker's name for the question.
        number: u64,
    },
    /// From that one; or the node asked doesn't lead.
    ReadAnswer {
        /// The question.
        number: u64,
        /// The index that must be applied.
        index: Option<u64>,
    },
    /// I am here: replicas have nothing else to say to each other.
    Presence(Condition),
    /// I am here, and so it goes with me.
    Health(Health),
    /// The sender's state at an index.
    StateHash {
        /// When.
        index: u64,
        /// What.
        hash: u128,
    },
    /// A snapshot is to come.
    SnapshotBegin(SnapshotBegin),
    /// The receiver has the file's first bytes already: go on from there.
    SnapshotResume {
        /// How many.
        offset: u64,
    },
    /// A part of the file.
    SnapshotChunk {
        /// Where in it.
        offset: u64,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Entries behind the file's S, in order.
    SnapshotEntries(Vec<LogEntry>),
    /// That was all.
    SnapshotEnd,
    /// What became of it.
    SnapshotResult {
        /// The receiver's replica has it.
        taken: bool,
    },
    /// In dynamo mode.
    Converging(Converging),
}

/// Which snapshot is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotBegin {
    /// What goes into the receiver's replica when the state is there.
    pub message: Message,
    /// The directory that the file was made in.
    pub node: NodeUuid,
    /// The file's length.
    pub file_bytes: u64,
    /// S: the file holds all entries up to it, and perhaps something of later ones.
    pub after: u64,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The header's checksum is wrong: damage, or no frames at all.
    Header,
    /// Longer than a frame may be.
    TooLong {
        /// What its header says.
        bytes: u32,
    },
    /// The frame's checksum is wrong.
    Checksum,
    /// Whole, and yet not what a frame of its kind holds.
    Malformed {
        /// The kind's byte.
        kind: u8,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Header => write!(formatter, "a frame's header has a wrong checksum"),
            FrameError::TooLong { bytes } => {
                write!(formatter, "a frame of {bytes} bytes; it may have {PEER_FRAME_BYTES_MAX}")
            }
            FrameError::Checksum => write!(formatter, "a frame has a wrong checksum"),
            FrameError::Malformed { kind } => {
                write!(formatter, "a frame of kind {kind} is not laid out as one")
            }
        }
    }
}

impl std::error::Error for FrameError {}

const MESSAGE: u8 = 1;
const READ_PROBE: u8 = 2;
const READ_ANSWER: u8 = 3;
const STATE_HASH: u8 = 4;
const SNAPSHOT_BEGIN: u8 = 5;
const SNAPSHOT_RESUME: u8 = 6;
const SNAPSHOT_CHUNK: u8 = 7;
const SNAPSHOT_ENTRIES: u8 = 8;
const SNAPSHOT_END: u8 = 9;
const SNAPSHOT_RESULT: u8 = 10;

const FLAG_REJECT: u8 = 1;
const FLAG_SNAPSHOT: u8 = 2;
const FLAG_CONFIGURATION: u8 = 4;
const FLAG_DOUBT: u8 = 8;

/// Appends the frame to `out`.
pub fn encode(out: &mut BytesMut, frame: &PeerFrame) {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    match frame {
        PeerFrame::Message(message) => {
            out.put_u8(MESSAGE);
            put_message(out, message);
        }
        PeerFrame::ReadProbe { number } => {
            out.put_u8(READ_PROBE);
            out.put_u64_le(*number);
        }
        PeerFrame::ReadAnswer { number, index } => {
            out.put_u8(READ_ANSWER);
            out.put_u64_le(*number);
            out.put_u8(u8::from(index.is_some()));
            index.iter().for_each(|index| out.put_u64_le(*index));
        }
        PeerFrame::Presence(condition) => out.put_u8(presence(*condition)),
        PeerFrame::Health(health) => peer_frame_health::put(out, health),
        PeerFrame::StateHash { index, hash } => {
            out.put_u8(STATE_HASH);
            out.put_u64_le(*index);
            out.put_u128_le(*hash);
        }
        PeerFrame::SnapshotBegin(begin) => {
            out.put_u8(SNAPSHOT_BEGIN);
            out.put_slice(&begin.node.0);
            out.put_u64_le(begin.file_bytes);
            out.put_u64_le(begin.after);
            put_message(out, &begin.message);
        }
        PeerFrame::SnapshotResume { offset } => {
            out.put_u8(SNAPSHOT_RESUME);
            out.put_u64_le(*offset);
        }
        PeerFrame::SnapshotChunk { offset, bytes } => {
            out.put_u8(SNAPSHOT_CHUNK);
            out.put_u64_le(*offset);
            put_bytes(out, bytes);
        }
        PeerFrame::SnapshotEntries(entries) => {
            out.put_u8(SNAPSHOT_ENTRIES);
            put_entries(out, entries);
        }
        PeerFrame::SnapshotEnd => out.put_u8(SNAPSHOT_END),
        PeerFrame::SnapshotResult { taken } => {
            out.put_u8(SNAPSHOT_RESULT);
            out.put_u8(u8::from(*taken));
        }
        PeerFrame::Converging(frame) => peer_frame_converging::put(out, frame),
    }
    let body = start + HEADER_BYTES;
    let length = (out.len() - body) as u32;
    let crc = crc32fast::hash(&out[body..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    let header_crc = crc32fast::hash(&out[start..start + 8]);
    out[start + 8..body].copy_from_slice(&header_crc.to_le_bytes());
}

/// Takes the frame that begins the buffer out of it; `None` while it isn't
/// whole, and then the buffer has room for more of it. A buffer without a rest
/// keeps no memory.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<PeerFrame>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = &buffer[..HEADER_BYTES];
    if crc32fast::hash(&header[..8]) != (&header[8..]).get_u32_le() {
        return Err(FrameError::Header);
    }
    let (bytes, crc) = (header.get_u32_le(), header.get_u32_le());
    if bytes as usize > PEER_FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes });
    }
    let whole = HEADER_BYTES + bytes as usize;
    if buffer.len() < whole {
        buffer.reserve((whole - buffer.len()).min(RESERVE_BYTES_MAX));
        return Ok(None);
    }
    let body = &buffer[HEADER_BYTES..whole];
    if crc32fast::hash(body) != crc {
        return Err(FrameError::Checksum);
    }
    let kind = body.first().copied().unwrap_or(0);
    let mut reader = Reader { bytes: body };
    // Whatever is left over belongs to no field.
    let Some(frame) = frame(&mut reader).filter(|_| reader.bytes.is_empty()) else {
        return Err(FrameError::Malformed { kind });
    };
    take_out(buffer, whole);
    Ok(Some(frame))
}

/// Removes a frame of so many bytes, and gives back what the buffer has held for it.
fn take_out(buffer: &mut BytesMut, whole: usize) {
    buffer.advance(whole);
    let rest = buffer.len();
    if rest == 0 || (whole > KEPT_BUFFER_BYTES_MAX && rest <= SOCKET_READ_BYTES) {
        *buffer = BytesMut::from(&buffer[..]);
    }
}

pub(super) fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u32_le(length as u32);
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

fn put_message(out: &mut BytesMut, message: &Message) {
    out.put_u8(MessageKind::ALL.iter().position(|kind| *kind == message.kind).unwrap_or_default() as u8);
    let changed = message.snapshot.as_ref().map(|mark| &mark.configuration).filter(|made| made.index > 0);
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    out.put_u8(
        flag(FLAG_SNAPSHOT, message.snapshot.is_some())
            | flag(FLAG_REJECT, message.reject)
            | flag(FLAG_CONFIGURATION, changed.is_some())
            | flag(FLAG_DOUBT, message.doubt != 0),
    );
    for number in [
        message.from,
        message.to,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ] {
        out.put_u64_le(number);
    }
    put_bytes(out, &message.context);
    if let Some(mark) = &message.snapshot {
        out.put_u64_le(mark.index);
        out.put_u64_le(mark.term);
        let members = &mark.configuration.members;
        for ids in [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next] {
            put_length(out, ids.len());
            ids.iter().for_each(|id| out.put_u64_le(*id));
        }
        out.put_u8(u8::from(members.auto_leave));
        changed.iter().for_each(|configuration| put_bytes(out, &configuration.encode()));
    }
    if message.doubt != 0 {
        out.put_u64_le(message.doubt);
    }
    put_entries(out, &message.entries);
}

fn put_entries(out: &mut BytesMut, entries: &[LogEntry]) {
    put_length(out, entries.len());
    for entry in entries {
        out.put_u8(entry.kind.to_byte());
        out.put_u64_le(entry.index);
        out.put_u64_le(entry.term);
        put_bytes(out, &entry.payload);
    }
}

fn frame(reader: &mut Reader<'_>) -> Option<PeerFrame> {
    let kind = reader.u8()?;
    Some(match kind {
        MESSAGE => PeerFrame::Message(message(reader)?),
        READ_PROBE => PeerFrame::ReadProbe { number: reader.u64()? },
        READ_ANSWER => {
            let (number, leads) = (reader.u64()?, reader.bool()?);
            PeerFrame::ReadAnswer { number, index: if leads { Some(reader.u64()?) } else { None } }
        }
        STATE_HASH => {
            PeerFrame::StateHash { index: reader.u64()?, hash: reader.bytes.try_get_u128_le().ok()? }
        }
        SNAPSHOT_BEGIN => {
            let mut node = NodeUuid([0; 16]);
            node.0.copy_from_slice(reader.take(16)?);
            let (file_bytes, after) = (reader.u64()?, reader.u64()?);
            PeerFrame::SnapshotBegin(SnapshotBegin { message: message(reader)?, node, file_bytes, after })
        }
        SNAPSHOT_RESUME => PeerFrame::SnapshotResume { offset: reader.u64()? },
        SNAPSHOT_CHUNK => PeerFrame::SnapshotChunk { offset: reader.u64()?, bytes: reader.payload()? },
        SNAPSHOT_ENTRIES => PeerFrame::SnapshotEntries(reader.list(entry)?),
        SNAPSHOT_END => PeerFrame::SnapshotEnd,
        SNAPSHOT_RESULT => PeerFrame::SnapshotResult { taken: reader.bool()? },
        HEALTH => PeerFrame::Health(peer_frame_health::read(reader)?),
        PRESENCE | IN_DOUBT | CONFLICTING => PeerFrame::Presence(present(kind)?),
        _ => PeerFrame::Converging(peer_frame_converging::read(kind, reader)?),
    })
}

fn message(reader: &mut Reader<'_>) -> Option<Message> {
    let kind = *MessageKind::ALL.get(usize::from(reader.u8()?))?;
    let flags = reader.u8()?;
    let is_lone = flags & FLAG_CONFIGURATION != 0 && flags & FLAG_SNAPSHOT == 0;
    if flags & !(FLAG_REJECT | FLAG_SNAPSHOT | FLAG_CONFIGURATION | FLAG_DOUBT) != 0 || is_lone {
        return None;
    }
    Some(Message {
        kind,
        from: reader.u64()?,
        to: reader.u64()?,
        term: reader.u64()?,
        log_term: reader.u64()?,
        index: reader.u64()?,
        commit: reader.u64()?,
        commit_term: reader.u64()?,
        reject: flags & FLAG_REJECT != 0,
        reject_hint: reader.u64()?,
        request_snapshot: reader.u64()?,
        context: reader.payload()?,
        snapshot: if flags & FLAG_SNAPSHOT != 0 { Some(mark(reader, flags)?) } else { None },
        doubt: if flags & FLAG_DOUBT != 0 { reader.u64().filter(|number| *number != 0)? } else { 0 },
        entries: reader.list(entry)?,
    })
}

fn mark(reader: &mut Reader<'_>, flags: u8) -> Option<SnapshotMark> {
    let (index, term) = (reader.u64()?, reader.u64()?);
    let members = Members {
        voters: reader.ids()?,
        learners: reader.ids()?,
        voters_outgoing: reader.ids()?,
        learners_next: reader.ids()?,
        auto_leave: reader.bool()?,
    };
    let configuration = if flags & FLAG_CONFIGURATION != 0 {
        Configuration::decode(reader.bytes()?).filter(|decoded| decoded.members == members)?
    } else {
        Configuration { members, ..Configuration::default() }
    };
    Some(SnapshotMark { index, term, configuration })
}

fn entry(reader: &mut Reader<'_>) -> Option<LogEntry> {
    Some(LogEntry {
        kind: EntryKind::from_byte(reader.u8()?)?,
        index: reader.u64()?,
        term: reader.u64()?,
        payload: reader.payload()?,
    })
}
