//! What is refused, with which code, and that the message names the fault.

use super::{decode_all, refuse};
use crate::error::Code::{
    self, BadRequest, BadVector, BatchTooLarge, KeyTooLarge, ParseError, UnknownOp, UnsupportedProtocol,
    ValueTooLarge,
};
use crate::limits::{
    BATCH_RECORDS_MAX, KEY_BYTES_MAX, LINE_BYTES_MAX_DEFAULT, VALUE_BYTES_MAX, VECTOR_LENGTH_MAX,
};

/// A line, its code, and a piece of its message.
pub(super) const REFUSALS: &[(&str, Code, &str)] = &[
    // Not JSON.
    (r#"{"op":"ping""#, ParseError, "too early at byte 12"),
    (r#"{"op":"ping"} x"#, ParseError, "behind the value"),
    (r#"{"op":"ping",}"#, ParseError, "field name"),
    (r#"{op:"ping"}"#, ParseError, "field name"),
    (r#"{"op" "ping"}"#, ParseError, "colon"),
    (r#"{"op":"get","key":"k" "id":1}"#, ParseError, "comma"),
    ("{\"op\":\"get\",\"key\":\"a\tb\"}", ParseError, "control character"),
    (r#"{"op":"get","key":"\x"}"#, ParseError, "escape"),
    (r#"{"op":"set","key":"k","value":01}"#, ParseError, "number"),
    (r#"{"op":"set","key":"k","value":NaN}"#, ParseError, "expected a value"),
    (r#"{"op":"set","key":"k","value":'x'}"#, ParseError, "expected a value"),
    (r#"{"op":"set","key":"k","value":"\ud800"}"#, ParseError, "surrogate"),
    (r#"{"op":"set","key":"\udc00","value":1}"#, ParseError, "surrogate"),
    (r#"{"op":"set","key":"k","value":"\ud800\ud800"}"#, ParseError, "surrogate"),
    ("hello", ParseError, "not JSON"),
    // Not a request.
    ("[1]", BadRequest, "object"),
    ("\"x\"", BadRequest, "object"),
    ("{}", BadRequest, "`op`"),
    (r#"{"key":"k"}"#, BadRequest, "`op`"),
    (r#"{"op":1}"#, BadRequest, "`op` must be a string, not `1`"),
    (r#"{"op":null}"#, BadRequest, "`op`"),
    (r#"{"op":"frobnicate","x":1}"#, UnknownOp, "`frobnicate`"),
    (r#"{"op":""}"#, UnknownOp, "there are set, get"),
    (r#"{"op":"GET","key":"k"}"#, UnknownOp, "`GET`"),
    (r#"{"op":"auth","token":"x"}"#, UnknownOp, "`auth`"),
    (r#"{"op":"txn"}"#, UnknownOp, "`txn`"),
    (r#"{"op":"watch","key":"k"}"#, UnknownOp, "`watch`"),
    // The envelope.
    (r#"{"op":"ping","id":1.5}"#, BadRequest, "`id`"),
    (r#"{"op":"ping","id":1e3}"#, BadRequest, "`id`"),
    (r#"{"op":"ping","id":true}"#, BadRequest, "`id`"),
    (r#"{"op":"ping","id":[1]}"#, BadRequest, "`id`"),
    (r#"{"op":"ping","id":{}}"#, BadRequest, "`id`"),
    (r#"{"op":"ping","op":"ping"}"#, BadRequest, "`op` is there twice"),
    (r#"{"op":"get","key":"a","k\u0065y":"b"}"#, BadRequest, "`key` is there twice"),
    (r#"{"id":1,"op":"ping","id":2}"#, BadRequest, "`id` is there twice"),
    (
        r#"{"op":"get","kee":"k"}"#,
        BadRequest,
        "no field `kee`; it knows op, id, key, consistency, r, after_version",
    ),
    (r#"{"op":"ping","key":"k"}"#, BadRequest, "`ping` has no field `key`; it knows op, id"),
    (r#"{"op":"delete","key":"k","if_absent":true}"#, BadRequest, "`if_absent`"),
    (r#"{"op":"set","key":"k","value":1,"ttl_ms":5}"#, BadRequest, "`ttl_ms`"),
    (r#"{"op":"set","key":"k","value":1,"request_id":"x"}"#, BadRequest, "`request_id`"),
    (r#"{"op":"set","key":"k","value":1,"txn":"x"}"#, BadRequest, "`txn`"),
    (r#"{"op":"ping","auth":"x"}"#, BadRequest, "`auth`"),
    (r#"{"op":"vector_search","vector":[1],"exact":true}"#, BadRequest, "`exact`"),
    // What only dynamo mode knows: where it isn't known at all, and what it must be.
    (r#"{"op":"get","key":"k","w":1}"#, BadRequest, "no field `w`"),
    (r#"{"op":"bulk_get","keys":[],"r":1}"#, BadRequest, "no field `r`"),
    (r#"{"op":"ping","r":1}"#, BadRequest, "no field `r`"),
    (r#"{"op":"conflicts","after_version":"1.0"}"#, BadRequest, "no field `after_version`"),
    (r#"{"op":"set","key":"k","value":1,"w":0}"#, BadRequest, "`w` must be an integer from 1 to 9"),
    (r#"{"op":"set","key":"k","value":1,"w":10}"#, BadRequest, "\"majority\" or \"all\", not `10`"),
    (r#"{"op":"bulk_delete","keys":[],"w":-1}"#, BadRequest, "`w`"),
    (r#"{"op":"bulk_delete","keys":[],"w":1.0}"#, BadRequest, "`w`"),
    (r#"{"op":"bulk_set","records":[],"w":99999999999999999999999}"#, BadRequest, "`w`"),
    (r#"{"op":"bulk_set","records":[],"w":null}"#, BadRequest, "`w`"),
    (r#"{"op":"delete","key":"k","w":"most"}"#, BadRequest, "`w`"),
    (r#"{"op":"delete","key":"k","w":"2"}"#, BadRequest, "`w`"),
    (r#"{"op":"get","key":"k","r":0}"#, BadRequest, "`r` must be an integer from 1 to 9"),
    (r#"{"op":"get","key":"k","r":["all"]}"#, BadRequest, "`r`"),
    (r#"{"op":"scan","after_version":1.0}"#, BadRequest, "`after_version` must be a version as a string"),
    (r#"{"op":"scan","after_version":null}"#, BadRequest, "`after_version`"),
    (r#"{"op":"scan","after_version":"01.0"}"#, BadRequest, "not `\"01.0\"`"),
    (r#"{"op":"scan","after_version":""}"#, BadRequest, "`after_version`"),
    // The operation's own fields come first.
    (r#"{"op":"get","key":"","r":0}"#, BadRequest, "`key`"),
    (r#"{"op":"get","key":"k","consistency":1,"after_version":1}"#, BadRequest, "`consistency`"),
    (r#"{"op":"set","key":"k","w":0}"#, BadRequest, "`value`"),
    // Missing fields.
    (r#"{"op":"get"}"#, BadRequest, "`get` wants `key`"),
    (r#"{"op":"set"}"#, BadRequest, "`key` (a string that is not empty) and `value` (any JSON)"),
    (r#"{"op":"bulk_set"}"#, BadRequest, "`records`"),
    (r#"{"op":"bulk_get"}"#, BadRequest, "`keys`"),
    (r#"{"op":"search_by_value"}"#, BadRequest, "`value`"),
    (r#"{"op":"search_text"}"#, BadRequest, "`query`"),
    (r#"{"op":"add_vector","key":"k"}"#, BadRequest, "`vector`"),
    (r#"{"op":"add_member","host":"h"}"#, BadRequest, "`node_id` (a positive integer) and `port`"),
    (r#"{"op":"evict"}"#, BadRequest, "`node_id`"),
    // Wrong types and bounds.
    (r#"{"op":"get","key":5}"#, BadRequest, "`key` must be a string"),
    (r#"{"op":"get","key":null}"#, BadRequest, "`key`"),
    (r#"{"op":"get","key":""}"#, BadRequest, "`key` must not be empty"),
    (r#"{"op":"get","key":"k","consistency":"strong"}"#, BadRequest, "`consistency` must be"),
    (r#"{"op":"get","key":"k","consistency":null}"#, BadRequest, "`consistency`"),
    (r#"{"op":"get","key":"k","consistency":{}}"#, BadRequest, "`consistency`"),
    (r#"{"op":"get","key":"k","consistency":{"max_staleness_ms":-1}}"#, BadRequest, "`consistency`"),
    (r#"{"op":"get","key":"k","consistency":{"max_staleness_ms":"1"}}"#, BadRequest, "`consistency`"),
    (r#"{"op":"get","key":"k","consistency":{"max_staleness_ms":1,"x":1}}"#, BadRequest, "`consistency`"),
    (
        r#"{"op":"get","key":"k","consistency":{"max_staleness_ms":1,"max_staleness_ms":1}}"#,
        BadRequest,
        "`consistency`",
    ),
    (r#"{"op":"set","key":"k","value":1,"if_version":3}"#, BadRequest, "`if_version`"),
    (r#"{"op":"set","key":"k","value":1,"if_absent":1}"#, BadRequest, "`if_absent`"),
    (r#"{"op":"set","key":"k","value":1,"if_absent":null}"#, BadRequest, "`if_absent`"),
    (r#"{"op":"set","key":"k","value":1,"if_absent":true,"if_version":"1.0"}"#, BadRequest, "exclude"),
    (r#"{"op":"bulk_set","records":{}}"#, BadRequest, "`records` must be an array"),
    (r#"{"op":"bulk_set","records":[["a",1],"b"]}"#, BadRequest, "`records`[1] must be a [key, value] pair"),
    (r#"{"op":"bulk_set","records":[[]]}"#, BadRequest, "`records`[0]"),
    (r#"{"op":"bulk_set","records":[["a"]]}"#, BadRequest, "`records`[0]"),
    (r#"{"op":"bulk_set","records":[["a",1],["b",2,3]]}"#, BadRequest, "`records`[1]"),
    (
        r#"{"op":"bulk_set","records":[["a",1],[5,2]]}"#,
        BadRequest,
        "the key of `records`[1] must be a string",
    ),
    (r#"{"op":"bulk_set","records":[["",2]]}"#, BadRequest, "the key of `records`[0] must not be empty"),
    (r#"{"op":"bulk_get","keys":"k"}"#, BadRequest, "`keys` must be an array"),
    (r#"{"op":"bulk_get","keys":["a",null]}"#, BadRequest, "`keys`[1]"),
    (r#"{"op":"bulk_delete","keys":["a",""]}"#, BadRequest, "`keys`[1]"),
    (
        r#"{"op":"search_by_value","value":1,"limit":0}"#,
        BadRequest,
        "`limit` must be a positive integer, not `0`",
    ),
    (r#"{"op":"search_by_value","value":1,"limit":-1}"#, BadRequest, "`limit`"),
    (r#"{"op":"search_by_value","value":1,"limit":1.0}"#, BadRequest, "`limit`"),
    (r#"{"op":"search_by_value","value":1,"limit":"1"}"#, BadRequest, "`limit`"),
    (r#"{"op":"search_by_value","value":1,"after":null}"#, BadRequest, "`after`"),
    (r#"{"op":"search_text","query":["x"]}"#, BadRequest, "`query`"),
    (r#"{"op":"search_text","query":"x","match":"some"}"#, BadRequest, "`match` must be \"all\" or \"any\""),
    (r#"{"op":"vector_search","vector":[1],"top_k":0}"#, BadRequest, "`top_k`"),
    (r#"{"op":"vector_search","vector":[1],"prefix":1}"#, BadRequest, "`prefix`"),
    (r#"{"op":"add_vector","key":"k","vector":1}"#, BadRequest, "`vector` must be an array"),
    (r#"{"op":"add_vector","key":"k","vector":[1,"2"]}"#, BadRequest, "`vector`[1] must be a number"),
    (r#"{"op":"add_vector","key":"k","vector":[[1]]}"#, BadRequest, "`vector`[0]"),
    (r#"{"op":"add_vector","key":"k","vector":[]}"#, BadVector, "empty"),
    (r#"{"op":"add_vector","key":"k","vector":[0,-0.0,1e-60]}"#, BadVector, "all zero"),
    (r#"{"op":"add_vector","key":"k","vector":[1,1e39]}"#, BadVector, "[1] is beyond a 32-bit float"),
    (r#"{"op":"vector_search","vector":[-1e999]}"#, BadVector, "[0]"),
    (r#"{"op":"scan","reverse":"yes"}"#, BadRequest, "`reverse`"),
    (r#"{"op":"scan","start":1}"#, BadRequest, "`start`"),
    (r#"{"op":"scan","values":0}"#, BadRequest, "`values`"),
    (r#"{"op":"count","prefix":null}"#, BadRequest, "`prefix`"),
    (r#"{"op":"stats","section":1}"#, BadRequest, "`section`"),
    (r#"{"op":"hello","protocol":2}"#, UnsupportedProtocol, "`protocol` 2"),
    (r#"{"op":"hello","protocol":"1"}"#, BadRequest, "`protocol`"),
    (r#"{"op":"hello","client":{}}"#, BadRequest, "`client`"),
    (r#"{"op":"promote","node_id":0}"#, BadRequest, "`node_id`"),
    (r#"{"op":"promote","force":"yes"}"#, BadRequest, "`force`"),
    (r#"{"op":"add_member","node_id":1,"host":"","port":1}"#, BadRequest, "`host`"),
    (r#"{"op":"add_member","node_id":1,"host":"h","port":65536}"#, BadRequest, "`port`"),
    (r#"{"op":"remove_member","node_id":"1"}"#, BadRequest, "`node_id`"),
    (r#"{"op":"conflicts","limit":0}"#, BadRequest, "`limit`"),
    (r#"{"op":"conflicts","after":1}"#, BadRequest, "`after`"),
    (r#"{"op":"evict","node_id":0}"#, BadRequest, "`node_id`"),
];

#[test]
fn a_bad_line_is_refused_with_its_code_and_the_field_named() {
    for (line, code, named) in REFUSALS {
        let error = refuse(line, *code);
        assert!(error.message.contains(named), "{line}: {} should say {named}", error.message);
    }
}

#[test]
fn what_is_too_large_is_refused_with_its_own_code() {
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    let value = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 1));
    let pairs = vec!["[\"k\",1]"; BATCH_RECORDS_MAX + 1].join(",");
    let keys = vec!["\"k\""; BATCH_RECORDS_MAX + 1].join(",");
    let vector = vec!["1"; VECTOR_LENGTH_MAX + 1].join(",");
    for (line, code) in [
        (format!(r#"{{"op":"get","key":"{key}"}}"#), KeyTooLarge),
        (format!(r#"{{"op":"bulk_get","keys":["{key}"]}}"#), KeyTooLarge),
        (format!(r#"{{"op":"bulk_set","records":[["{key}",1]]}}"#), KeyTooLarge),
        (format!(r#"{{"op":"set","key":"k","value":{value}}}"#), ValueTooLarge),
        (format!(r#"{{"op":"bulk_set","records":[["k",{value}]]}}"#), ValueTooLarge),
        (format!(r#"{{"op":"bulk_set","records":[{pairs}]}}"#), BatchTooLarge),
        (format!(r#"{{"op":"bulk_delete","keys":[{keys}]}}"#), BatchTooLarge),
        (format!(r#"{{"op":"add_vector","key":"k","vector":[{vector}]}}"#), BadVector),
    ] {
        assert!(refuse(&line, code).message.len() < 300);
    }
}

#[test]
fn the_request_itself_is_the_first_of_64_levels() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"op":"set","key":"k","value":{open}{close},"id":9}}"#)
    };
    super::accept(&nested(63));
    let error = refuse(&nested(64), BadRequest);
    assert!(error.message.contains("64 levels"), "{error}");
    // Without recursion depth costs nothing, however hostile.
    refuse(&nested(1_000_000), BadRequest);
    refuse(&"[".repeat(1_000_000), ParseError);
}

#[test]
fn what_is_no_json_is_told_before_what_is_too_deep_or_no_object() {
    let deep = |inside: &str| format!("{}{inside}{}", "[".repeat(70), "]".repeat(70));
    let objects = |inside: &str| format!("{}{inside}{}", r#"{"a":"#.repeat(70), "}".repeat(70));
    let set = |value: &str| format!(r#"{{"op":"set","key":"k","value":{value}}}"#);
    for value in [deep("1"), objects("1"), objects(&deep("\"]\"")), deep(&objects("{}"))] {
        let error = refuse(&set(&value), BadRequest);
        assert!(error.message.contains("64 levels"), "{value}: {error}");
        let error = refuse(&value, BadRequest);
        assert_eq!(error.message.contains("64 levels"), value.starts_with('{'), "{value}: {error}");
    }
    for value in
        [deep("1,"), deep("tru"), deep("[}"), objects("[}"), objects("1,"), deep("\"\\ud800\""), deep("01")]
    {
        refuse(&set(&value), ParseError);
        refuse(&value, ParseError);
    }
    for line in [set(&deep("1")) + "x", deep("1") + "]", set(&deep("1")).replace("\"key\"", "key")] {
        refuse(&line, ParseError);
    }
}

#[test]
fn a_refused_request_keeps_its_id_wherever_that_can_be_read() {
    let deep = "[".repeat(70);
    let deep_closed = format!("{deep}{}", "]".repeat(70));
    for (line, id) in [
        (r#"{"id":7,"op":"nope"}"#.to_string(), "7"),
        (r#"{"op":"nope","id":"x"}"#.to_string(), "\"x\""),
        (r#"{"op":"get","key":"k","zz":1,"id":7}"#.to_string(), "7"),
        (r#"{"op":"get","op":"get","id":7}"#.to_string(), "7"),
        (r#"{"id":1,"op":"ping","id":2}"#.to_string(), "1"),
        (r#"{"op":"get","id":12,"key":}"#.to_string(), "12"),
        (r#"{"id":12}x"#.to_string(), "12"),
        // In a number that may have gone on there is no id.
        (r#"{"id":12"#.to_string(), ""),
        (r#"{"id":12x,"op":"ping"}"#.to_string(), ""),
        (r#"{"op":}{"id":12}"#.to_string(), ""),
        (r#"{"op":"ping","id":1.5}"#.to_string(), ""),
        (format!(r#"{{"op":"set","value":{deep_closed},"id":3}}"#), "3"),
        (format!(r#"{{"id":3,"op":"set","value":{deep}}}"#), "3"),
        (format!(r#"{{"op":"set","value":{deep},"id":3}}"#), ""),
    ] {
        let (arena, request) = super::decode_line(&line);
        assert!(request.operation.is_err(), "{line}");
        assert_eq!(String::from_utf8_lossy(request.id.of(&arena)), id, "{line}");
    }
}

#[test]
fn what_is_not_utf8_is_refused_and_the_lines_around_it_are_not() {
    let input = b"{\"op\":\"ping\"}\n{\"id\":5,\"op\":\"get\",\"key\":\"\xff\"}\n{\"op\":\"count\"}\n{\"id\":\"\xc3\"}\n";
    let all = decode_all(input, LINE_BYTES_MAX_DEFAULT);
    let portraits: Vec<_> = all.iter().map(|(arena, request)| super::portrait(arena, request)).collect();
    assert_eq!(
        portraits,
        [
            "[] Ping",
            "[5] refused parse_error: not UTF-8 at byte 26 of the line",
            "[] count None Default",
            "[] refused parse_error: not UTF-8 at byte 7 of the line",
        ]
    );
}

#[test]
fn an_error_repeats_little_of_what_a_client_sent() {
    let name = "é".repeat(100_000);
    for line in [format!(r#"{{"op":"{name}"}}"#), format!(r#"{{"op":"ping","{name}":1}}"#)] {
        let (_, request) = super::decode_line(&line);
        let message = request.operation.unwrap_err().message;
        assert!(message.len() < 500 && message.contains("éé…`"), "{message}");
    }
}
