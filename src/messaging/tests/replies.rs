//! Every encoder writes one line that a JSON parser reads back.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::engine::{Entry, Version};
use crate::error::{Code, Detail, Error, LeaderAddress, Outcome};
use crate::messaging::reply::{self, Shown};

const VERSION: Version = Version { index: 7, ordinal: 3 };

/// Runs an encoder behind other output and reads the one line it adds.
fn written(encode: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = b"earlier\n".to_vec();
    encode(&mut out);
    let line = out.strip_prefix(b"earlier\n").unwrap();
    assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1), "one line, with its end");
    serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
}

fn entries() -> [Entry; 3] {
    [
        Entry::new(VERSION, b"a", Some(b"{\"x\": 1.0}"), None),
        Entry::new(VERSION, "\"é\n".as_bytes(), None, Some(&[0.1, -2.0])),
        Entry::new(VERSION, b"c", Some(b"null"), Some(&[1.0])),
    ]
}

#[test]
fn an_id_is_echoed_as_it_came_or_left_out() {
    let mut out = Vec::new();
    for id in ["7", "-1", "null", "\"a\\u0041\\\"\"", ""] {
        reply::pong(&mut out, id.as_bytes());
    }
    let expected = "{\"id\":7,\"ok\":true,\"pong\":true}\n{\"id\":-1,\"ok\":true,\"pong\":true}\n\
        {\"id\":null,\"ok\":true,\"pong\":true}\n{\"id\":\"a\\u0041\\\"\",\"ok\":true,\"pong\":true}\n\
        {\"ok\":true,\"pong\":true}\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn replies_about_one_key() {
    let [value, vector, both] = &entries();
    for (got, expected) in [
        (written(|out| reply::version(out, b"1", VERSION)), json!({"id": 1, "ok": true, "version": "7.3"})),
        (
            written(|out| reply::get(out, b"", Some(value))),
            json!({"ok": true, "found": true, "value": {"x": 1.0}, "version": "7.3"}),
        ),
        (
            written(|out| reply::get(out, b"", Some(vector))),
            json!({"ok": true, "found": false, "value": null, "version": "7.3"}),
        ),
        (
            written(|out| reply::get(out, b"", Some(both))),
            json!({"ok": true, "found": true, "value": null, "version": "7.3"}),
        ),
        (
            written(|out| reply::get(out, b"", None)),
            json!({"ok": true, "found": false, "value": null, "version": null}),
        ),
        (
            written(|out| reply::get_vector(out, b"", Some(both))),
            json!({"ok": true, "found": true, "vector": [1.0], "version": "7.3"}),
        ),
        (
            written(|out| reply::get_vector(out, b"", Some(value))),
            json!({"ok": true, "found": false, "vector": null, "version": "7.3"}),
        ),
        (
            written(|out| reply::get_vector(out, b"", None)),
            json!({"ok": true, "found": false, "vector": null, "version": null}),
        ),
        (written(|out| reply::deleted(out, b"", true)), json!({"ok": true, "deleted": true})),
        (written(|out| reply::deleted(out, b"", false)), json!({"ok": true, "deleted": false})),
    ] {
        assert_eq!(got, expected);
    }
}

#[test]
fn a_value_is_given_back_byte_for_byte() {
    let mut out = Vec::new();
    reply::get(&mut out, b"", Some(&entries()[0]));
    assert!(out.windows(10).any(|window| window == b"{\"x\": 1.0}"));
}

#[test]
fn replies_about_many_keys() {
    let [value, vector, both] = &entries();
    let found = json!({"key": "a", "found": true, "value": {"x": 1.0}, "version": "7.3"});
    let absent = json!({"key": "\u{1}b", "found": false, "value": null, "version": null});
    let got = written(|out| {
        reply::bulk_get_begin(out, b"");
        reply::bulk_get_item(out, true, b"a", Some(value));
        reply::bulk_get_item(out, false, b"\x01b", None);
        reply::bulk_get_end(out);
    });
    assert_eq!(got, json!({"ok": true, "values": [found, absent]}));
    let got = written(|out| reply::bulk_set(out, b"", 2, Some(VERSION)));
    assert_eq!(got, json!({"ok": true, "count": 2, "version": "7.3"}));
    let got = written(|out| reply::bulk_set(out, b"", 0, None));
    assert_eq!(got, json!({"ok": true, "count": 0, "version": null}));
    let got = written(|out| reply::count(out, b"", u64::MAX));
    assert_eq!(got, json!({"ok": true, "count": u64::MAX}));
    let shown = Shown { values: true, vectors: false };
    let got = written(|out| reply::scan_page(out, b"", [value, vector], shown, Some(b"c\"")));
    let items = json!([
        {"key": "a", "value": {"x": 1.0}, "version": "7.3"}, {"key": "\"é\n", "value": null, "version": "7.3"}]);
    assert_eq!(got, json!({"ok": true, "items": items, "next": "c\""}));
    let shown = Shown { values: false, vectors: true };
    let got = written(|out| reply::scan_page(out, b"", [value, both], shown, None));
    let items = json!([{"key": "a", "version": "7.3"}, {"key": "c", "version": "7.3", "vector": [1.0]}]);
    assert_eq!(got, json!({"ok": true, "items": items, "next": null}));
}

#[test]
fn replies_of_searches_and_of_the_node() {
    let keys: [&[u8]; 2] = [b"a", b"b\\"];
    let got = written(|out| reply::keys_page(out, b"", keys, 9, Some(b"n")));
    assert_eq!(got, json!({"ok": true, "keys": ["a", "b\\"], "total": 9, "next": "n"}));
    let got = written(|out| reply::keys_page(out, b"", [], 0, None));
    assert_eq!(got, json!({"ok": true, "keys": [], "total": 0, "next": null}));
    let matches = [(&b"a"[..], 2.5), (&b"b"[..], 0.1)];
    let page = reply::TextPage { total: 2, total_any: None, next: None };
    let got = written(|out| reply::text_page(out, b"", matches, page));
    assert_eq!(got, json!({"ok": true, "keys": ["a", "b"], "scores": [2.5, 0.1], "total": 2, "next": null}));
    let page = reply::TextPage { total: 0, total_any: Some(7), next: None };
    let got = written(|out| reply::text_page(out, b"", [], page));
    assert_eq!(got, json!({"ok": true, "keys": [], "scores": [], "total": 0, "total_any": 7, "next": null}));
    let got = written(|out| reply::vector_matches(out, b"", matches));
    let expected = json!([{"key": "a", "score": 2.5}, {"key": "b", "score": 0.1}]);
    assert_eq!(got, json!({"ok": true, "matches": expected}));
    let got = written(|out| reply::snapshot(out, b"3", 10, 20, 30));
    assert_eq!(got, json!({"id": 3, "ok": true, "index": 10, "bytes": 20, "took_ms": 30}));
    let got = written(|out| reply::object(out, b"3", b" { \"mode\": \"leader\", \"term\": 2 } "));
    assert_eq!(got, json!({"id": 3, "ok": true, "mode": "leader", "term": 2}));
    assert_eq!(written(|out| reply::object(out, b"", b"{ }")), json!({"ok": true}));
}

#[test]
fn an_error_says_whether_it_happened_and_carries_its_details() {
    for (detail, field, expected) in [
        (Detail::Current(Some(VERSION)), "current", json!("7.3")),
        (Detail::Current(None), "current", Value::Null),
        (Detail::Leader(None), "leader", Value::Null),
        (
            Detail::Leader(Some(LeaderAddress { node_id: 2, host: "a\"b".into(), port: 9001 })),
            "leader",
            json!({ "node_id": 2, "host": "a\"b", "port": 9001 }),
        ),
        (Detail::RetryAfterMs(20), "retry_after_ms", json!(20)),
        (Detail::Progress(0.5), "progress", json!(0.5)),
        (Detail::Indexing(0.0, None), "progress", json!(0.0)),
        (Detail::Lengths(vec![2, 384]), "lengths", json!([2, 384])),
        (Detail::Acknowledged(1), "acknowledged", json!(1)),
    ] {
        let failure = Error::new(Code::Overloaded, "say \"when\"\n").with_detail(detail);
        let mut got = written(|out| reply::error(out, b"\"x\"", &failure));
        let error = got["error"].as_object_mut().unwrap();
        assert_eq!(error.remove(field), Some(expected));
        let rest = json!({"code": "overloaded", "message": "say \"when\"\n", "retryable": true, "outcome": "not_applied"});
        assert_eq!(got, json!({"id": "x", "ok": false, "error": rest}));
    }
    let indexing = Error::new(Code::IndexNotReady, "m").with_detail(Detail::Indexing(0.25, Some(1_500)));
    let got = written(|out| reply::error(out, b"", &indexing));
    assert_eq!((&got["error"]["progress"], &got["error"]["expected_ms"]), (&json!(0.25), &json!(1_500)));
    for code in Code::ALL {
        let failure = Error::new(*code, "m").with_outcome(Outcome::Unknown);
        let got = written(|out| reply::error(out, b"", &failure));
        let expected =
            json!({"code": code.rule().0, "message": "m", "retryable": false, "outcome": "unknown"});
        assert_eq!(got, json!({"ok": false, "error": expected}));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_escaped_so_that_it_reads_back(text: String, control in 0u8..0x80) {
        let text = format!("{text}{}{text}", control as char);
        let mut out = Vec::new();
        reply::write_string(&mut out, text.as_bytes());
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn any_vector_reads_back_bit_for_bit(
        vector in proptest::collection::vec(any::<f32>().prop_filter("finite", |number| number.is_finite()), 1..20),
    ) {
        let entry = Entry::new(VERSION, b"k", None, Some(&vector));
        let mut line = Vec::new();
        reply::get_vector(&mut line, b"", Some(&entry));
        let line = String::from_utf8(line).unwrap();
        let numbers = line.split_once('[').unwrap().1.split_once(']').unwrap().0;
        let read: Vec<u32> = numbers.split(',').map(|number| number.parse::<f32>().unwrap().to_bits()).collect();
        prop_assert_eq!(read, vector.iter().map(|number| number.to_bits()).collect::<Vec<_>>());
        // What one node shows another client may send.
        prop_assume!(vector.iter().any(|&number| number != 0.0));
        let (arena, operation) = super::accept(&format!(r#"{{"op":"add_vector","key":"k","vector":[{numbers}]}}"#));
        let crate::messaging::Operation::AddVector { vector: span, .. } = operation else { panic!() };
        prop_assert_eq!(super::numbers(span.of(&arena)), vector);
    }
}
