//! Every operation decodes, with every field it knows.

use super::{accept, decode_line, portrait_of};
use crate::engine::Condition;
use crate::engine::Version;
use crate::error::Code;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::messaging::{Asks, Consistency, Copies, Operation};

/// A line and its portrait.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    (r#"{"op":"ping"}"#, "[] Ping"),
    (r#"{"op":"ping","id":null}"#, "[null] Ping"),
    (r#"{"id":"a\"b","op":"ping"}"#, r#"["a\"b"] Ping"#),
    (r#"{"id":-12,"op":"hello","protocol":1,"client":"x/1"}"#, "[-12] Hello"),
    (r#"{"op":"hello"}"#, "[] Hello"),
    (r#"{"op":"set","key":"username","value":"alice","id":7}"#, r#"[7] set "username" "\"alice\"" None"#),
    (
        r#" { "value" : { "b":1 , "a":[1.0,2e0] } , "key" : "k" , "op" : "set" } "#,
        r#"[] set "k" "{ \"b\":1 , \"a\":[1.0,2e0] }" None"#,
    ),
    (r#"{"op":"set","key":"k","value":null,"if_absent":true}"#, r#"[] set "k" "null" Absent"#),
    (r#"{"op":"set","key":"k","value":1,"if_absent":false}"#, r#"[] set "k" "1" None"#),
    (
        r#"{"op":"set","key":"k","value":1,"if_absent":false,"if_version":"7.3"}"#,
        r#"[] set "k" "1" Version(Some(Version { index: 7, ordinal: 3 }))"#,
    ),
    (r#"{"op":"set","key":"k","value":1,"if_version":null}"#, r#"[] set "k" "1" Version(None)"#),
    (r#"{"op":"set","key":"k","value":1,"if_version":"07.3"}"#, r#"[] set "k" "1" NeverMatches"#),
    (r#"{"\u006fp":"s\u0065t","k\u0065y":"\u00e9\ud83d\ude00\n","value":1}"#, r#"[] set "é😀\n" "1" None"#),
    (r#"{"op":"get","key":"k"}"#, r#"[] get "k" Default"#),
    (r#"{"op":"get","key":"k","consistency":"local"}"#, r#"[] get "k" Local"#),
    (r#"{"op":"get","key":"k","consistency":"line\u0061rizable"}"#, r#"[] get "k" Linearizable"#),
    (
        r#"{"op":"get","key":"k","consistency":{ "max_staleness_ms" : 250 }}"#,
        r#"[] get "k" MaxStalenessMs(250)"#,
    ),
    (
        r#"{"op":"delete","key":"k","if_version":"1.0"}"#,
        r#"[] delete "k" Version(Some(Version { index: 1, ordinal: 0 }))"#,
    ),
    (
        r#"{"op":"bulk_set","records":[["a",1], [ "b\t" , {"x":[]} ],["a","again"]]}"#,
        r#"[] bulk_set [("a", "1"), ("b\t", "{\"x\":[]}"), ("a", "\"again\"")]"#,
    ),
    (r#"{"op":"bulk_set","records":[]}"#, "[] bulk_set []"),
    (r#"{"op":"bulk_get","keys":["a","\u0062"],"consistency":"local"}"#, r#"[] bulk_get ["a", "b"] Local"#),
    (r#"{"op":"bulk_delete","keys":[ ]}"#, "[] bulk_delete []"),
    (
        r#"{"op":"search_by_value","value":{"a":1}}"#,
        r#"[] search_by_value "{\"a\":1}" 1000 None None Default"#,
    ),
    (
        r#"{"op":"search_by_value","value":0,"prefix":"p","limit":99999999999999999999999,"after":"c"}"#,
        r#"[] search_by_value "0" 10000 Some("p") Some("c") Default"#,
    ),
    (r#"{"op":"search_text","query":""}"#, r#"[] search_text "" All 1000 None None Default"#),
    (
        r#"{"op":"search_text","query":"red fox","match":"any","limit":5,"prefix":"a:","after":"x","consistency":"local"}"#,
        r#"[] search_text "red fox" Any 5 Some("a:") Some("x") Local"#,
    ),
    (
        r#"{"op":"add_vector","key":"v","vector":[1,-2.5, 3e2],"if_version":null}"#,
        r#"[] add_vector "v" [1.0, -2.5, 300.0] Version(None)"#,
    ),
    (r#"{"op":"get_vector","key":"v"}"#, r#"[] get_vector "v" Default"#),
    (r#"{"op":"vector_search","vector":[0.1]}"#, "[] vector_search [0.1] 10 None Default"),
    (
        r#"{"op":"vector_search","vector":[0,1],"top_k":20000,"prefix":"a\/"}"#,
        r#"[] vector_search [0.0, 1.0] 10000 Some("a/") Default"#,
    ),
    (r#"{"op":"scan"}"#, "[] scan None None None false 1000 None true false Default"),
    (
        r#"{"op":"scan","prefix":"p","start":"s","end":"","reverse":true,"limit":1,"after":"c","values":false,"vectors":true}"#,
        r#"[] scan Some("p") Some("s") Some("") true 1 Some("c") false true Default"#,
    ),
    (r#"{"op":"count"}"#, "[] count None Default"),
    (r#"{"op":"count","prefix":"user:"}"#, r#"[] count Some("user:") Default"#),
    (r#"{"op":"stats"}"#, "[] stats None"),
    (r#"{"op":"stats","section":"wal"}"#, r#"[] stats Some("wal")"#),
    (r#"{"op":"cluster"}"#, "[] Cluster"),
    (r#"{"op":"promote"}"#, "[] Promote { node_id: None, force: false }"),
    (r#"{"op":"promote","node_id":2,"force":true}"#, "[] Promote { node_id: Some(2), force: true }"),
    (r#"{"op":"add_member","node_id":4,"host":"10.0.0.4","port":9000}"#, "[] add_member 4 10.0.0.4 9000"),
    (r#"{"op":"remove_member","node_id":4}"#, "[] RemoveMember { node_id: 4 }"),
    (r#"{"op":"snapshot"}"#, "[] Snapshot"),
    (r#"{"op":"conflicts"}"#, "[] conflicts 1000 None"),
    (r#"{"op":"conflicts","limit":10,"after":"\u0063"}"#, r#"[] conflicts 10 Some("c")"#),
    (r#"{"op":"conflicts","limit":20000}"#, "[] conflicts 10000 None"),
    (r#"{"op":"evict","node_id":3}"#, "[] Evict { node_id: 3 }"),
    (
        r#"{"op":"set","key":"k","value":1,"w":2}"#,
        r#"[] set "k" "1" None Asks { copies: Some(Count(2)), read_copies: None, after_version: None }"#,
    ),
    (
        r#"{"w":"m\u0061jority","op":"delete","key":"k","if_version":null}"#,
        r#"[] delete "k" Version(None) Asks { copies: Some(Majority), read_copies: None, after_version: None }"#,
    ),
    (
        r#"{"op":"get","key":"k","consistency":"local","after_version":"7.3","r":"all"}"#,
        r#"[] get "k" Local Asks { copies: None, read_copies: Some(All), after_version: Some(Version { index: 7, ordinal: 3 }) }"#,
    ),
];

/// The fields that ask for something beyond the operation, and every operation that knows them.
const ASKING: &[(&str, &[&str])] = &[
    (r#""w":9"#, &["set", "delete", "add_vector", "bulk_set", "bulk_delete"]),
    (r#""r":1"#, &["get"]),
    (
        r#""after_version":"1.0""#,
        &[
            "get",
            "bulk_get",
            "get_vector",
            "search_by_value",
            "search_text",
            "vector_search",
            "scan",
            "count",
        ],
    ),
];

#[test]
fn every_operation_decodes() {
    for (line, expected) in EXAMPLES {
        assert_eq!(&portrait_of(line), expected, "{line}");
    }
}

#[test]
fn what_only_dynamo_mode_knows_is_known_to_these_operations_and_no_other() {
    for (line, portrait) in EXAMPLES.iter().filter(|(_, portrait)| !portrait.contains(" Asks {")) {
        // The operation's name, escaped in the line or not; of one that knows no such field it is no matter.
        let (_, shown) = portrait.split_once("] ").unwrap();
        let name = shown.split(' ').next().unwrap();
        let (_, plain) = decode_line(line);
        assert!(plain.asks.is_none(), "{line}");
        for (field, operations) in ASKING {
            let asking = line.replacen('{', &format!("{{{field},"), 1);
            let (_, request) = decode_line(&asking);
            let knows = operations.contains(&name);
            match request.operation {
                Ok(_) => assert!(knows && request.asks.is_some(), "{asking}"),
                Err(error) => assert!(!knows && error.code == Code::BadRequest, "{asking}: {error}"),
            }
        }
    }
}

#[test]
fn the_first_thing_asked_for_is_named() {
    let w = Asks { copies: Some(Copies::All), ..Asks::default() };
    let r = Asks { read_copies: Some(Copies::Count(1)), ..Asks::default() };
    let version = Asks { after_version: Version::parse("1.0"), ..r };
    let names = [w, r, version, Asks { read_copies: None, ..version }, Asks::default()];
    let expected = [Some("w"), Some("r"), Some("r"), Some("after_version"), None];
    assert_eq!(names.map(|asks| asks.first_field()), expected);
}

#[test]
fn every_operation_is_among_the_examples() {
    for shape in crate::messaging::decode::SHAPES {
        let name = format!("\"{}\"", shape.name);
        assert!(EXAMPLES.iter().any(|(line, _)| line.contains(&name)), "{name}");
    }
}

#[test]
fn the_largest_key_and_value_are_accepted() {
    let key = "é".repeat(KEY_BYTES_MAX / 2);
    let value = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 2));
    let (arena, operation) = accept(&format!(r#"{{"op":"set","key":"{key}","value":{value}}}"#));
    let Operation::Set { key: key_span, value: value_span, condition } = operation else { panic!() };
    assert_eq!(key_span.of(&arena), key.as_bytes());
    assert!(value_span.of(&arena) == value.as_bytes());
    assert_eq!(condition, Condition::None);
}

#[test]
fn a_key_is_measured_as_it_is_kept_and_not_as_it_was_sent() {
    let escaped = "\\u0041".repeat(KEY_BYTES_MAX);
    let (arena, operation) = accept(&format!(r#"{{"op":"get","key":"{escaped}"}}"#));
    let Operation::Get { key, consistency } = operation else { panic!() };
    assert_eq!(key.of(&arena), "A".repeat(KEY_BYTES_MAX).as_bytes());
    assert_eq!(consistency, Consistency::Default);
}

#[test]
fn a_version_written_in_a_reply_is_read_back_as_a_condition() {
    let version = Version { index: u64::MAX, ordinal: u32::MAX };
    let (_, operation) = accept(&format!(r#"{{"op":"delete","key":"k","if_version":"{version}"}}"#));
    let Operation::Delete { condition, .. } = operation else { panic!() };
    assert_eq!(condition, Condition::Version(Some(version)));
}
