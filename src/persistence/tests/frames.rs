//! Frames alone.

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::super::frame::{self, AppendEntry, FramePlace};
use super::super::segment::SegmentHeader;

const PLACE: FramePlace = FramePlace {
    kind: frame::KIND_GROUP,
    salt: 5,
    predecessor_crc: 9,
    term: 3,
    number: 7,
    first_index: 20,
    durable_number: 6,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_frame_comes_back(
        entries in vec((any::<u8>(), any::<u64>(), vec(vec(any::<u8>(), 0..40), 0..3)), 0..6),
        hard_state in vec(any::<u8>(), 0..30),
        salt in any::<u64>(),
    ) {
        let pieces: Vec<Vec<&[u8]>> =
            entries.iter().map(|(_, _, payload)| payload.iter().map(Vec::as_slice).collect()).collect();
        let appended: Vec<AppendEntry<'_>> = entries
            .iter()
            .zip(&pieces)
            .map(|((kind, term, _), payload)| AppendEntry { kind: *kind, term: *term, payload })
            .collect();
        let mut bytes = vec![1, 2, 3];
        let place = FramePlace { salt, ..PLACE };
        let crc = frame::encode(&mut bytes, &place, &appended, &hard_state);
        prop_assert_eq!(bytes.len() % frame::ALIGNMENT_BYTES, 0);
        let read = frame::decode(&bytes, salt).unwrap();
        prop_assert_eq!(read.crc, crc);
        prop_assert_eq!(read.header.frame_bytes(), bytes.len());
        prop_assert_eq!(read.hard_state.unwrap_or(&[]), &hard_state[..]);
        let found: Vec<(u8, u64, Vec<u8>)> =
            read.entries().map(|entry| (entry.kind, entry.term, entry.payload.to_vec())).collect();
        let wanted: Vec<(u8, u64, Vec<u8>)> =
            entries.iter().map(|(kind, term, payload)| (*kind, *term, payload.concat())).collect();
        prop_assert_eq!(found, wanted);
        prop_assert!(frame::decode(&bytes, salt ^ 1).is_none(), "another segment's salt");
    }

    #[test]
    fn random_bytes_are_no_frame_and_no_panic(mut bytes in vec(any::<u8>(), 0..300), salt in any::<u64>()) {
        prop_assert!(frame::decode(&bytes, salt).is_none());
        let _ = SegmentHeader::decode(&bytes);
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(b"FRM1");
            prop_assert!(frame::decode(&bytes, salt).is_none());
        }
    }
}

#[test]
fn every_flipped_bit_of_a_frame_is_found() {
    let payload: [&[u8]; 1] = [b"thirteen byte"];
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, &PLACE, &[AppendEntry { kind: 1, term: 3, payload: &payload }], b"hs");
    assert!(frame::decode(&bytes, PLACE.salt).is_some());
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(frame::decode(&bytes, PLACE.salt).is_none(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_payload_that_no_frame_can_hold_is_told_before() {
    assert_eq!(frame::payload_bytes(&[], &[0; frame::HARD_STATE_BYTES_MAX + 1]), None);
    let piece = vec![0u8; 64 * 1024 * 1024];
    let many: Vec<&[u8]> = vec![&piece; 32];
    assert_eq!(frame::payload_bytes(&[AppendEntry { kind: 1, term: 1, payload: &many }], &[]), None);
}
