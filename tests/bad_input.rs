//! The promise: whatever a client sends, it gets a named error for it, and the
//! connection, the other clients and the data go on.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use common::{Client, Node, Options, temporary_directory};
use serde_json::{Value, json};

fn with_node(flags: &[&str], work: impl FnOnce(&Node)) {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(flags).start();
    node.client().when_ready(json!({ "op": "scan" }));
    work(&node);
}

/// Sends a line that must be refused with this code, and a good one behind it.
fn refused(client: &mut Client, line: &[u8], code: &str) -> Value {
    let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
    client.send_raw(&[line, b"\n{\"op\":\"ping\",\"id\":\"next\"}\n"].concat());
    let reply = client.receive();
    assert_eq!((&reply["ok"], &reply["error"]["code"]), (&json!(false), &json!(code)), "{shown} → {reply}");
    let promise = (&reply["error"]["retryable"], &reply["error"]["outcome"]);
    assert_eq!(promise, (&json!(false), &json!("not_applied")), "{shown} → {reply}");
    assert!(reply["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{reply}");
    assert_eq!(client.receive(), json!({ "id": "next", "ok": true, "pong": true }), "behind {shown}");
    reply
}

#[test]
fn what_is_not_json_or_not_utf8_is_a_parse_error() {
    let lines: [&[u8]; 18] = [
        b"nonsense",
        b"{",
        b"}",
        b"{\"op\":\"ping\"",
        b"{\"op\":\"ping\"}}",
        b"{\"op\":\"ping\"} {\"op\":\"ping\"}",
        b"{\"op\":\"ping\",}",
        b"{op:\"ping\"}",
        b"{'op':'ping'}",
        b"{\"op\":\"set\",\"key\":\"k\",\"value\":01}",
        b"{\"op\":\"set\",\"key\":\"k\",\"value\":NaN}",
        b"{\"op\":\"set\",\"key\":\"k\",\"value\":\"\x01\"}",
        b"{\"op\":\"set\",\"key\":\"k\",\"value\":\"\\x\"}",
        b"{\"op\":\"set\",\"key\":\"k\",\"value\":\"\\ud800\"}",
        b"{\"op\":\"set\",\"key\":\"\\udc00\",\"value\":1}",
        b"{\"op\":\"set\",\"key\":\"k\",\"value\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{\"op\":\"ping\"}",
        b"\x00",
    ];
    with_node(&[], |node| {
        let mut client = node.client();
        for line in lines {
            refused(&mut client, line, "parse_error");
        }
        let reply = refused(&mut client, b"{\"id\":7,\"op\":\"set\",\"value\":\"\xc3\"}", "parse_error");
        assert_eq!(reply["id"], 7, "the id in front of the damage comes back");
        assert_eq!(client.ok(json!({ "op": "count" }))["count"], 0);
    });
}

#[test]
fn what_no_operation_wants_is_a_bad_request_that_names_the_field() {
    let lines = [
        ("[]", "object"),
        ("null", "object"),
        ("{}", "op"),
        (r#"{"op":7}"#, "op"),
        (r#"{"op":"get"}"#, "key"),
        (r#"{"op":"get","key":""}"#, "key"),
        (r#"{"op":"get","key":7}"#, "key"),
        (r#"{"op":"get","key":"k","kye":1}"#, "kye"),
        (r#"{"op":"get","key":"k","value":1}"#, "value"),
        (r#"{"op":"get","key":"k","key":"k"}"#, "key"),
        (r#"{"op":"get","key":"k","consistency":"x"}"#, "consistency"),
        (r#"{"op":"get","key":"k","consistency":{}}"#, "consistency"),
        (r#"{"op":"set","key":"k"}"#, "value"),
        (r#"{"op":"set","key":"k","value":1,"if_version":1}"#, "if_version"),
        (r#"{"op":"set","key":"k","value":1,"if_absent":1}"#, "if_absent"),
        (r#"{"op":"set","key":"k","value":1,"if_absent":true,"if_version":"1.0"}"#, "if_absent"),
        (r#"{"op":"bulk_set","records":{}}"#, "records"),
        (r#"{"op":"bulk_set","records":[["k"]]}"#, "records"),
        (r#"{"op":"bulk_set","records":[["k",1,2]]}"#, "records"),
        (r#"{"op":"bulk_set","records":[["k",1],[2,1]]}"#, "records"),
        (r#"{"op":"bulk_get","keys":"k"}"#, "keys"),
        (r#"{"op":"bulk_delete","keys":["k",null]}"#, "keys"),
        (r#"{"op":"scan","limit":0}"#, "limit"),
        (r#"{"op":"scan","limit":-1}"#, "limit"),
        (r#"{"op":"scan","limit":1.5}"#, "limit"),
        (r#"{"op":"scan","reverse":"yes"}"#, "reverse"),
        (r#"{"op":"search_text","query":"x","match":"some"}"#, "match"),
        (r#"{"op":"vector_search","vector":[1],"top_k":0}"#, "top_k"),
        (r#"{"op":"add_vector","key":"k","vector":"x"}"#, "vector"),
        (r#"{"op":"add_vector","key":"k","vector":[1,"2"]}"#, "vector"),
        (r#"{"op":"add_member","node_id":2,"host":"h","port":70000}"#, "port"),
        (r#"{"op":"ping","id":1.5}"#, "id"),
        (r#"{"op":"set","key":"k","value":1,"ttl_ms":5}"#, "ttl_ms"),
    ];
    with_node(&[], |node| {
        let mut client = node.client();
        for (line, field) in lines {
            let reply = refused(&mut client, line.as_bytes(), "bad_request");
            let message = reply["error"]["message"].as_str().unwrap();
            assert!(message.contains(field), "{line}: {message}");
        }
        for name in ["nonsense", "", "SET", "auth", "txn", "watch", "exact"] {
            refused(&mut client, json!({ "op": name }).to_string().as_bytes(), "unknown_op");
        }
        assert_eq!(client.ok(json!({ "op": "count" }))["count"], 0);
    });
}

#[test]
fn what_is_too_large_is_refused_and_the_largest_passes() {
    let set = |key: &str, value: &str| format!(r#"{{"op":"set","key":"{key}","value":{value}}}"#);
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let vector = |count: usize| json!({ "op": "add_vector", "key": "v", "vector": vec![1; count] });
    let records = |count: usize| {
        let records: Vec<Value> = (0..count).map(|number| json!([format!("r{number}"), 1])).collect();
        json!({ "op": "bulk_set", "records": records })
    };
    with_node(&[], |node| {
        let mut client = node.client();
        let passes = |client: &mut Client, line: &str| {
            client.send_raw(format!("{line}\n").as_bytes());
            let reply = client.receive();
            assert_eq!(reply["ok"], true, "{reply}");
        };
        passes(&mut client, &set(&"k".repeat(4096), "1"));
        refused(&mut client, set(&"k".repeat(4097), "1").as_bytes(), "key_too_large");
        refused(&mut client, set(&"é".repeat(2049), "1").as_bytes(), "key_too_large");
        passes(&mut client, &set("large", &text(8 << 20)));
        refused(&mut client, set("larger", &text((8 << 20) + 1)).as_bytes(), "value_too_large");
        passes(&mut client, &vector(4096).to_string());
        refused(&mut client, vector(4097).to_string().as_bytes(), "bad_vector");
        for vector in ["[]", "[0,0]", "[1e39]", "[0,1e-60]"] {
            let line = format!(r#"{{"op":"vector_search","vector":{vector}}}"#);
            refused(&mut client, line.as_bytes(), "bad_vector");
        }
        passes(&mut client, &records(10_000).to_string());
        refused(&mut client, records(10_001).to_string().as_bytes(), "batch_too_large");
        for number in 0..4 {
            passes(&mut client, &set(&format!("b{number}"), &text(8 << 20)));
        }
        let keys = ["large", "b0", "b1", "b2", "b3"];
        let error = client.refused(json!({ "op": "bulk_get", "keys": keys }));
        assert_eq!(error["code"], "batch_too_large");
        assert_eq!(
            client.ok(json!({ "op": "get", "key": "large" }))["value"].as_str().unwrap().len(),
            (8 << 20) - 2
        );
    });
}

#[test]
fn nesting_is_bounded_and_its_bound_passes() {
    with_node(&[], |node| {
        let mut client = node.client();
        for open in ["[", "{\"a\":"] {
            let close = if open == "[" { "]" } else { "}" };
            let line = |depth: usize| {
                let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                format!(r#"{{"op":"set","id":5,"key":"k","value":{value}}}"#)
            };
            client.send_raw(format!("{}\n", line(63)).as_bytes()); // the request is a level, too
            assert_eq!(client.receive()["ok"], true);
            assert_eq!(refused(&mut client, line(64).as_bytes(), "bad_request")["id"], 5);
            refused(&mut client, line(100_000).as_bytes(), "bad_request");
        }
        // What is no JSON at all is told first.
        refused(&mut client, "[".repeat(1 << 20).as_bytes(), "parse_error");
        refused(
            &mut client,
            format!("{}{}", "[".repeat(1 << 19), "]".repeat(1 << 19)).as_bytes(),
            "bad_request",
        );
    });
}

#[test]
fn a_long_line_is_refused_once_and_drained() {
    with_node(&["--max-line-bytes", "8192"], |node| {
        let mut client = node.client();
        let line = |bytes: usize| {
            let frame = r#"{"op":"set","id":3,"key":"k","value":""}"#.len();
            format!(r#"{{"op":"set","id":3,"key":"k","value":"{}"}}"#, "x".repeat(bytes - frame))
        };
        for end in ["\n", "\r\n"] {
            client.send_raw(format!("{}{end}", line(8192)).as_bytes());
            assert_eq!(client.receive()["ok"], true, "a line of the longest length");
        }
        for bytes in [8193, 8194, 65_536, 1 << 20] {
            let reply = refused(&mut client, line(bytes).as_bytes(), "line_too_long");
            assert_eq!(reply["id"], 3);
        }
    });
}

#[test]
fn a_line_cut_off_by_the_end_of_the_connection_is_answered_and_not_done() {
    with_node(&[], |node| {
        for rest in [r#"{"op":"set","key":"k","value":12"#, r#"{"op":"set","key":"k","val"#, "{", "\u{e9}"] {
            let mut client = node.client();
            client.send_raw(format!("{{\"op\":\"ping\"}}\n{rest}").as_bytes());
            client.finish();
            let replies = client.receive_rest();
            let codes: Vec<Value> = replies.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!((codes.len(), &codes[1]["error"]["code"]), (2, &json!("parse_error")), "{replies}");
        }
        // A client that vanishes within a line leaves nothing behind.
        node.client().send_raw(br#"{"op":"set","key":"k","value":1"#);
        assert_eq!(node.client().ok(json!({ "op": "get", "key": "k" }))["found"], false);
    });
}

#[test]
fn one_connection_too_many_is_told_so_and_a_later_one_finds_room() {
    with_node(&["--max-connections", "3"], |node| {
        let mut clients: Vec<Client> = loop {
            // The connection of the preparations may still count for a moment.
            let mut clients: Vec<Client> = (0..3).map(|_| node.client()).collect();
            clients.iter_mut().for_each(|client| client.send(&json!({ "op": "ping" })));
            let replies: Vec<Value> = clients.iter_mut().map(Client::receive).collect();
            if replies.iter().all(|reply| reply["ok"] == true) {
                break clients;
            }
        };
        let mut fourth = node.client();
        let error = fourth.receive()["error"].clone();
        assert_eq!(error["code"], "too_many_connections");
        assert_eq!((&error["retryable"], &error["outcome"]), (&json!(true), &json!("not_applied")));
        assert_eq!(fourth.try_receive_line(), None, "the connection is closed");
        for client in &mut clients {
            client.ok(json!({ "op": "ping" }));
        }
        clients.pop();
        // Its place is free once the node has seen the end.
        while clients[0].ok(json!({ "op": "stats", "section": "connections" }))["connections"]["open"] != 2 {}
        node.client().ok(json!({ "op": "ping" }));
        let stats = clients[0].ok(json!({ "op": "stats", "section": "connections" }));
        assert!(stats["connections"]["refused"].as_u64() >= Some(1), "{stats}");
    });
}
