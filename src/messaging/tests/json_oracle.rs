//! The scanner against serde_json: they agree on what JSON is, but for the two
//! documented differences (depth, and lone surrogates in text that isn't read).

use proptest::prelude::*;

use super::Random;
use crate::limits::JSON_DEPTH_MAX;
use crate::messaging::json::{self, JsonErrorKind};

/// Pieces that make JSON, nearly JSON and nonsense.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "0",
    "1",
    "9",
    "-",
    "+",
    ".",
    "e",
    "E",
    "true",
    "false",
    "null",
    "\"a\"",
    "\"key\":",
    "\\u",
    "\\n",
    "\\\"",
    "00e9",
    "d83d",
    "\\ude00",
    " ",
    "\t",
    "\r",
    "\n",
    "x",
    "é",
    "\u{1}",
    "\u{7f}",
    "/",
    "1.5e-3",
    "{}",
    "[]",
    "\"12345678\"",
    "12345678",
];

/// Both verdicts on one text must agree.
fn compare(text: &str) -> Result<(), TestCaseError> {
    let ours = json::validate(text.as_bytes());
    let theirs = serde_json::from_str::<serde_json::Value>(text);
    match (&ours, &theirs) {
        (Ok(()), Ok(_)) => {}
        // A number beyond an f64 is JSON all the same; serde_json only can't hold it.
        (Ok(()), Err(error)) if error.to_string().contains("number out of range") => {}
        (Err(error), _) if error.kind == JsonErrorKind::TooDeep => {
            let opened = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
            prop_assert!(opened > JSON_DEPTH_MAX);
            // serde_json goes 127 levels deep, and then gives up.
            if theirs.is_ok() {
                prop_assert_eq!(json::skip_deep_value(text.as_bytes(), 0), Ok(text.trim_end().len()));
            }
        }
        (Err(error), Err(_)) => {
            prop_assert!(error.offset <= text.len());
            let deep = json::skip_deep_value(text.as_bytes(), 0);
            prop_assert!(deep.is_err() || error.kind == JsonErrorKind::TrailingText);
        }
        _ => prop_assert!(false, "{text:?}: {ours:?}, but serde_json says {theirs:?}"),
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        any::<String>().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..6).prop_map(serde_json::Value::from_iter),
        ]
    })
}

/// A UTF-16 unit; every other one is a surrogate or just beside them.
fn unit() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), 0xd7fe..=0xe001u16, Just(0xdbffu16), Just(0xdc00u16)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_scanner_agrees_on_rows_of_pieces(pieces in proptest::collection::vec(0..PIECES.len(), 0..14)) {
        let text: String = pieces.iter().map(|&piece| PIECES[piece]).collect();
        compare(&text)?;
        // The same within a string and within containers, where the pieces mean other things.
        compare(&format!("\"{text}\""))?;
        compare(&format!("[{text}]"))?;
        compare(&format!("{{\"a\":{text}}}"))?;
    }

    #[test]
    fn the_scanner_agrees_on_json_with_one_byte_changed(
        value in any_json(), pretty: bool, place: prop::sample::Index, byte in 0u8..128,
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        prop_assert_eq!(json::validate(text.as_bytes()), Ok(()));
        let mut changed = text.into_bytes();
        let place = place.index(changed.len());
        changed[place] = byte;
        if let Ok(changed) = String::from_utf8(changed) {
            compare(&changed)?;
        }
    }

    #[test]
    fn a_string_ends_and_reads_as_it_was_written(text: String, behind: String) {
        let written = serde_json::to_string(&text).unwrap();
        let whole = format!("{written}{behind}");
        let scanned = json::skip_string(whole.as_bytes(), 0).unwrap();
        prop_assert_eq!(scanned.end, written.len());
        let inside = &whole.as_bytes()[1..scanned.end - 1];
        prop_assert_eq!(scanned.escaped, inside.contains(&b'\\'));
        let mut plain = Vec::new();
        json::unescape(inside, &mut plain).unwrap();
        prop_assert_eq!(String::from_utf8(plain).unwrap(), text);
    }

    #[test]
    fn every_escape_reads_as_serde_json_reads_it(units in proptest::collection::vec(unit(), 0..6)) {
        let inside: String = units.iter().map(|unit| format!("\\u{unit:04X}")).collect();
        let written = format!("\"{inside}\"");
        let mut plain = Vec::new();
        match (json::unescape(inside.as_bytes(), &mut plain), serde_json::from_str::<String>(&written)) {
            (Ok(()), Ok(theirs)) => prop_assert_eq!(String::from_utf8(plain).unwrap(), theirs),
            (Err(error), Err(_)) => prop_assert_eq!(error.kind, JsonErrorKind::LoneSurrogate),
            (ours, theirs) => prop_assert!(false, "{written}: {ours:?}, {theirs:?}"),
        }
        prop_assert_eq!(json::validate(written.as_bytes()).is_ok(), serde_json::from_str::<String>(&written).is_ok());
    }

    #[test]
    fn arbitrary_bytes_are_scanned_without_a_panic(bytes: Vec<u8>, start: prop::sample::Index) {
        let _ = json::validate(&bytes);
        if !bytes.is_empty() {
            let _ = json::skip_value(&bytes, start.index(bytes.len()), 1);
            let _ = json::skip_string(&bytes, start.index(bytes.len()));
            let _ = json::skip_deep_value(&bytes, start.index(bytes.len()));
        }
    }
}

#[test]
fn a_special_byte_is_found_at_every_place_beside_every_other_byte() {
    // Eight bytes are looked at together: neither place nor neighbours may matter.
    for length in 1..20 {
        for place in 0..length {
            for fill in (0x20..=0xffu8).filter(|byte| !matches!(byte, b'"' | b'\\')) {
                let mut text = vec![b'"'];
                text.resize(length + 1, fill);
                text[place + 1] = b'"';
                let end = json::skip_string(&text, 0).map(|scanned| scanned.end);
                assert_eq!(end, Ok(place + 2), "{length} {place} {fill:#x}");
                text[place + 1] = 0x1f;
                let kind = json::skip_string(&text, 0).map_err(|error| (error.kind, error.offset));
                assert_eq!(kind, Err((JsonErrorKind::ControlCharacter, place + 1)));
            }
        }
    }
}

#[test]
fn depth_counts_from_the_containers_around() {
    for depth in 0..3 {
        let fits = JSON_DEPTH_MAX - depth;
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
            assert!(json::skip_value(nested(fits).as_bytes(), 0, depth).is_ok());
            let error = json::skip_value(nested(fits + 1).as_bytes(), 0, depth).unwrap_err();
            assert_eq!((error.kind, error.offset), (JsonErrorKind::TooDeep, fits * open.len()));
        }
    }
}

#[test]
fn a_cut_text_ends_too_early_and_is_nothing_worse() {
    let text = br#"{"a":[true,false,null,"x\u00e9\n"],"b":{"c":"d"}}"#;
    for end in 0..text.len() {
        let error = json::validate(&text[..end]).unwrap_err();
        assert_eq!(error.kind, JsonErrorKind::UnexpectedEnd, "cut at {end}");
    }
}

#[test]
fn long_random_texts_of_pieces_agree() {
    let seed = 0x5eed_0001;
    let mut random = Random(seed);
    for round in 0..20_000 {
        let pieces = 1 + random.below(8);
        let text: String = (0..pieces).map(|_| PIECES[random.below(PIECES.len())]).collect();
        assert!(compare(&text).is_ok(), "seed {seed:#x}, round {round}: {text:?}");
    }
}
