//! Frames between peers: what goes in comes out, and nothing else is taken for one.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::limits::SOCKET_READ_BYTES;
use crate::messaging::peer_frame::{FrameError, PeerFrame, SnapshotBegin, decode, encode};
use crate::messaging::peer_frame_converging::Converging;
use crate::messaging::peer_version::for_version;
use crate::persistence::NodeUuid;
use crate::persistence::{Configuration, Members};
use crate::replication::doubt::Condition;
use crate::replication::dynamo;
use crate::replication::health::{DiskHealth, Health};
use crate::replication::message::{EntryKind, LogEntry, Message, MessageKind, SnapshotMark};
use crate::replication::policy::DiskPause;
use crate::replication::protocol::{PROTOCOL_DOUBT, PROTOCOL_HEALTH};

fn payloads() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

fn entries() -> impl Strategy<Value = Vec<LogEntry>> {
    let kind = prop_oneof![Just(EntryKind::Writes), Just(EntryKind::Empty)];
    let entry = (any::<u64>(), any::<u64>(), kind, payloads());
    vec(entry.prop_map(|(index, term, kind, payload)| LogEntry { index, term, kind, payload }), 0..4)
}

fn marks() -> impl Strategy<Value = SnapshotMark> {
    let ids = || vec(any::<u64>(), 0..3);
    (any::<(u64, u64, bool)>(), ids(), ids(), ids(), ids()).prop_map(
        |((index, term, auto_leave), voters, learners, voters_outgoing, learners_next)| SnapshotMark {
            index,
            term,
            configuration: Configuration {
                index: 7,
                members: Members { voters, learners, voters_outgoing, learners_next, auto_leave },
                nodes: vec![],
            },
        },
    )
}

fn messages() -> impl Strategy<Value = Message> {
    let kind = proptest::sample::select(MessageKind::ALL.to_vec());
    let doubt = prop_oneof![3 => Just(0), 1 => any::<u64>()];
    let parts =
        (kind, any::<[u64; 9]>(), any::<bool>(), payloads(), entries(), proptest::option::of(marks()));
    (parts, doubt).prop_map(|((kind, numbers, reject, context, entries, snapshot), doubt)| Message {
        kind,
        from: numbers[0],
        to: numbers[1],
        term: numbers[2],
        log_term: numbers[3],
        index: numbers[4],
        commit: numbers[5],
        commit_term: numbers[6],
        reject,
        reject_hint: numbers[7],
        request_snapshot: numbers[8],
        context,
        entries,
        snapshot,
        doubt,
    })
}

fn conditions() -> impl Strategy<Value = Condition> {
    prop_oneof![Just(Condition::Well), Just(Condition::InDoubt), Just(Condition::Conflicting)]
}

fn healths() -> impl Strategy<Value = Health> {
    let numbers = any::<(u64, u64, u64, u64, u16)>();
    (conditions(), any::<(bool, bool)>(), numbers).prop_map(|(condition, (is_stalled, is_full), numbers)| {
        let (oldest_sync_ms, term, age_ms, length_ms, indexed_per_mille) = numbers;
        let disk = DiskHealth { oldest_sync_ms, is_stalled, is_full };
        Health { condition, disk, indexed_per_mille, pause: DiskPause { term, age_ms, length_ms } }
    })
}

fn frames() -> impl Strategy<Value = PeerFrame> {
    prop_oneof![
        4 => messages().prop_map(PeerFrame::Message),
        1 => any::<u64>().prop_map(|number| PeerFrame::ReadProbe { number }),
        1 => any::<(u64, Option<u64>)>().prop_map(|(number, index)| PeerFrame::ReadAnswer { number, index }),
        1 => any::<(u64, u128)>().prop_map(|(index, hash)| PeerFrame::StateHash { index, hash }),
        1 => (messages(), any::<([u8; 16], u64, u64)>()).prop_map(|(message, (node, file_bytes, after))| {
            PeerFrame::SnapshotBegin(SnapshotBegin { message, node: NodeUuid(node), file_bytes, after })
        }),
        1 => any::<u64>().prop_map(|offset| PeerFrame::SnapshotResume { offset }),
        1 => (any::<u64>(), payloads())
            .prop_map(|(offset, bytes)| PeerFrame::SnapshotChunk { offset, bytes }),
        1 => entries().prop_map(PeerFrame::SnapshotEntries),
        1 => conditions().prop_map(PeerFrame::Presence),
        1 => healths().prop_map(PeerFrame::Health),
        1 => Just(PeerFrame::SnapshotEnd),
        1 => any::<bool>().prop_map(|taken| PeerFrame::SnapshotResult { taken }),
    ]
}

fn encoded(frame: &PeerFrame) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(&mut bytes, frame);
    bytes
}

/// A frame with right checksums, whatever is in it.
fn sealed(body: &[u8]) -> BytesMut {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(body);
    BytesMut::from(&bytes[..])
}

proptest! {
    #[test]
    fn every_frame_comes_back_however_the_network_cuts_them(
        sent in vec(frames(), 1..4),
        cuts in vec(1..40_usize, 1..20),
    ) {
        let mut bytes = BytesMut::new();
        sent.iter().for_each(|frame| encode(&mut bytes, frame));
        let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
        let mut cuts = cuts.iter().cycle();
        while !bytes.is_empty() {
            let count = bytes.len().min(*cuts.next().unwrap());
            buffer.extend_from_slice(&bytes.split_to(count));
            while let Some(frame) = decode(&mut buffer).unwrap() {
                received.push(frame);
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn a_bit_that_turned_is_an_error_at_once(frame in frames(), place in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&frame);
        let bit = place.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = decode(&mut bytes).unwrap_err();
        let expected = if bit / 8 < 12 { FrameError::Header } else { FrameError::Checksum };
        prop_assert_eq!(error, expected);
    }

    #[test]
    fn a_frame_cut_short_waits_for_its_rest(frame in frames(), place in any::<prop::sample::Index>()) {
        let whole = encoded(&frame);
        let mut cut = BytesMut::from(&whole[..place.index(whole.len())]);
        prop_assert_eq!(decode(&mut cut), Ok(None));
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in vec(any::<u8>(), 0..200),
        kind in 0..12_u8,
    ) {
        let _ = decode(&mut BytesMut::from(&bytes[..]));
        let body = [&[kind], &bytes[..]].concat();
        match decode(&mut sealed(&body)) {
            // What is taken for a frame is exactly that frame's bytes.
            Ok(Some(frame)) => prop_assert_eq!(encoded(&frame), sealed(&body)),
            Ok(None) => prop_assert!(false, "it is whole"),
            Err(error) => prop_assert_eq!(error, FrameError::Malformed { kind }),
        }
    }

    #[test]
    fn a_field_cut_short_or_too_much_behind_the_last_is_malformed(
        frame in frames(),
        place in any::<prop::sample::Index>(),
    ) {
        let whole = encoded(&frame);
        let body = &whole[12..];
        let kind = body[0];
        if body.len() > 1 {
            let cut = &body[..1 + place.index(body.len() - 1)];
            prop_assert_eq!(decode(&mut sealed(cut)), Err(FrameError::Malformed { kind }));
        }
        let longer = [body, &[0]].concat();
        prop_assert_eq!(decode(&mut sealed(&longer)), Err(FrameError::Malformed { kind }));
    }
}

/// What the version before this one reads: a message's kind and its flags stand behind the header
/// and the frame's kind.
fn is_of_version_2(frame: &PeerFrame) -> bool {
    let bytes = encoded(frame);
    let (kind, rest) = (bytes[12], &bytes[13..]);
    match frame {
        PeerFrame::Message(_) => usize::from(rest[0]) < 11 && rest[1] & !7 == 0,
        _ => kind <= 20,
    }
}

proptest! {
    #[test]
    fn an_earlier_version_gets_only_what_it_can_read(frame in frames()) {
        prop_assert_eq!(for_version(frame.clone(), PROTOCOL_HEALTH), Some(frame.clone()));
        let is_health = matches!(frame, PeerFrame::Health(_));
        prop_assert_eq!(for_version(frame.clone(), PROTOCOL_DOUBT) == Some(frame.clone()), !is_health);
        for protocol in [1, 2] {
            if let Some(frame) = for_version(frame.clone(), protocol) {
                prop_assert!(is_of_version_2(&frame), "{:?}", frame);
            }
        }
    }
}

/// What it pins: of bytes that share an allocation with anything else, more than they are.
fn pinned_bytes(bytes: Bytes) -> usize {
    let length = bytes.len();
    bytes.try_into_mut().map_or(usize::MAX, |alone| alone.capacity().max(length))
}

#[test]
fn what_is_kept_of_a_frame_pins_its_own_bytes_and_no_others() {
    let payload = |length: usize| Bytes::from(vec![7; length]);
    let entry = |length| LogEntry { index: 1, term: 1, kind: EntryKind::Writes, payload: payload(length) };
    let append = Message {
        context: payload(9),
        entries: vec![entry(30), entry(1_000)],
        ..Message::new(MessageKind::Append, 1, 2, 3)
    };
    let frames = [
        PeerFrame::Message(append),
        PeerFrame::SnapshotEntries(vec![entry(30), entry(1_000)]),
        PeerFrame::SnapshotChunk { offset: 0, bytes: payload(500) },
        PeerFrame::Converging(Converging::Message(dynamo::Message::Entries(vec![payload(30), payload(40)]))),
        PeerFrame::Converging(Converging::KeyWanted { number: 1, key: payload(3) }),
        PeerFrame::Converging(Converging::KeyState { number: 1, state: payload(300) }),
        PeerFrame::Converging(Converging::States(payload(700))),
    ];
    // As a read of a socket brings them: all at once, in a buffer that has room for more.
    let mut buffer = BytesMut::with_capacity(SOCKET_READ_BYTES);
    frames.iter().for_each(|frame| encode(&mut buffer, frame));
    for sent in frames {
        let kept: Vec<Bytes> = match decode(&mut buffer).unwrap().unwrap() {
            PeerFrame::Message(message) => {
                message.entries.into_iter().map(|entry| entry.payload).chain([message.context]).collect()
            }
            PeerFrame::SnapshotEntries(entries) => entries.into_iter().map(|entry| entry.payload).collect(),
            PeerFrame::SnapshotChunk { bytes, .. } => vec![bytes],
            PeerFrame::Converging(Converging::Message(dynamo::Message::Entries(entries))) => entries,
            PeerFrame::Converging(
                Converging::KeyWanted { key: bytes, .. }
                | Converging::KeyState { state: bytes, .. }
                | Converging::States(bytes),
            ) => vec![bytes],
            other => panic!("{other:?}"),
        };
        for bytes in kept {
            let length = bytes.len();
            assert_eq!(pinned_bytes(bytes), length, "a part of {sent:?}");
        }
    }
}

#[test]
fn a_buffer_keeps_no_memory_for_frames_that_are_gone() {
    let long = PeerFrame::SnapshotChunk { offset: 0, bytes: vec![1; 3 << 20].into() };
    let mut buffer = encoded(&long);
    decode(&mut buffer).unwrap().unwrap();
    assert_eq!(buffer.capacity(), 0, "nothing is left of it");
    let mut buffer = encoded(&long);
    buffer.extend_from_slice(&encoded(&PeerFrame::Presence(Condition::Well))[..5]);
    decode(&mut buffer).unwrap().unwrap();
    assert_eq!(buffer.len(), 5);
    assert!(buffer.capacity() <= SOCKET_READ_BYTES, "{}", buffer.capacity());
}

#[test]
fn a_length_that_no_frame_has_is_refused_before_its_bytes_come() {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    assert_eq!(decode(&mut BytesMut::from(&bytes[..])), Err(FrameError::TooLong { bytes: u32::MAX }));
}
