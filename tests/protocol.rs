//! The promise: every operation of the protocol does what docs/PROTOCOL.md says
//! of it, however many shards the keys are spread over.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use common::{Client, Options, temporary_directory};
use serde_json::{Value, json};

/// Runs `work` on a connection to a fresh node, once with one shard and once with four.
fn with_client(work: impl Fn(&mut Client)) {
    for shards in ["1", "4"] {
        with_flags(&["--shards", shards], &work);
    }
}

fn with_flags(flags: &[&str], work: impl Fn(&mut Client)) {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(flags).start();
    let mut client = node.client();
    client.when_ready(json!({ "op": "scan" }));
    work(&mut client);
}

fn set(client: &mut Client, key: &str, value: Value) -> Value {
    client.ok(json!({ "op": "set", "key": key, "value": value }))["version"].clone()
}

fn get(client: &mut Client, key: &str) -> Value {
    client.ok(json!({ "op": "get", "key": key }))
}

/// The keys of a reply's list of objects.
fn keys_in(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|item| item["key"].as_str().unwrap()).collect()
}

#[test]
fn a_value_is_set_read_and_deleted() {
    with_client(|client| {
        let version = set(client, "username", json!("alice"));
        assert!(version.is_string());
        let read = get(client, "username");
        assert_eq!(read, json!({ "ok": true, "found": true, "value": "alice", "version": version }));
        let delete = json!({ "op": "delete", "key": "username" });
        assert_eq!(client.ok(delete.clone()), json!({ "ok": true, "deleted": true }));
        assert_eq!(client.ok(delete), json!({ "ok": true, "deleted": false }));
        let absent = json!({ "ok": true, "found": false, "value": null, "version": null });
        assert_eq!(get(client, "username"), absent);
    });
}

#[test]
fn several_values_are_set_read_and_deleted_together() {
    with_client(|client| {
        let records = json!([["user:1", { "name": "Alice" }], ["user:2", { "name": "Bob" }]]);
        let written = client.ok(json!({ "op": "bulk_set", "records": records }));
        assert_eq!(written["count"], 2);
        let version = &written["version"];
        let keys = ["user:2", "nobody", "user:1", "user:2"];
        let read = client.ok(json!({ "op": "bulk_get", "keys": keys }));
        let bob = json!({ "key": "user:2", "found": true, "value": { "name": "Bob" }, "version": version });
        let alice =
            json!({ "key": "user:1", "found": true, "value": { "name": "Alice" }, "version": version });
        let nobody = json!({ "key": "nobody", "found": false, "value": null, "version": null });
        assert_eq!(read["values"], json!([bob, nobody, alice, bob]));
        let gone = client.ok(json!({ "op": "bulk_delete", "keys": ["user:1", "nobody", "user:2"] }));
        assert_eq!(gone, json!({ "ok": true, "count": 2 }));
        assert_eq!(client.ok(json!({ "op": "bulk_set", "records": [] }))["count"], 0);
        assert_eq!(client.ok(json!({ "op": "bulk_get", "keys": [] }))["values"], json!([]));
        assert_eq!(client.ok(json!({ "op": "bulk_delete", "keys": [] }))["count"], 0);
    });
}

#[test]
fn values_are_found_by_what_they_are_and_by_their_words() {
    with_client(|client| {
        set(client, "bio", json!("Software engineer passionate about databases"));
        set(client, "status:alice", json!("active"));
        set(client, "status:bob", json!("active"));
        set(client, "post:1", json!("How a database keeps its promises"));
        set(client, "post:2", json!({ "text": "Which database is it?", "database": ["none"] }));
        set(client, "post:3", json!({ "database": 1, "deep": [[{ "x": "ACTIVE volcano" }]] }));
        let by_value = client.ok(json!({ "op": "search_by_value", "value": "active" }));
        let both = ["status:alice", "status:bob"];
        assert_eq!(by_value, json!({ "ok": true, "keys": both, "total": 2, "next": null }));
        let mut words = |request: Value| {
            let found = client.ok(request);
            let scores: Vec<f64> =
                found["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
            assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| *score > 0.0), "{found}");
            let mut keys: Vec<String> = serde_json::from_value(found["keys"].clone()).unwrap();
            assert_eq!((found["total"].as_u64(), scores.len()), (Some(keys.len() as u64), keys.len()));
            keys.sort();
            keys
        };
        assert_eq!(words(json!({ "op": "search_text", "query": "databases" })), ["bio"]);
        assert_eq!(words(json!({ "op": "search_text", "query": "Database" })), ["post:1", "post:2"]);
        assert_eq!(words(json!({ "op": "search_text", "query": "database promises" })), ["post:1"]);
        let any = json!({ "op": "search_text", "query": "volcano databases", "match": "any" });
        assert_eq!(words(any), ["bio", "post:3"]);
        let active = json!({ "op": "search_text", "query": "active" });
        assert_eq!(words(active), ["post:3", "status:alice", "status:bob"]);
        assert_eq!(words(json!({ "op": "search_text", "query": "nowhere" })), [""; 0]);
    });
}

#[test]
fn values_are_equal_when_they_are_the_same_data() {
    with_client(|client| {
        let spellings = [("a", "1"), ("b", "1.0"), ("c", "1e0"), ("d", "\"1\""), ("e", "9007199254740992")];
        for (key, value) in spellings {
            client.send_raw(format!("{{\"op\":\"set\",\"key\":\"{key}\",\"value\":{value}}}\n").as_bytes());
            client.receive();
        }
        set(client, "f", json!({ "x": [1, 2], "y": null }));
        let mut find = |value: &str| {
            client.send_raw(format!("{{\"op\":\"search_by_value\",\"value\":{value}}}\n").as_bytes());
            client.receive()["keys"].clone()
        };
        assert_eq!(find("10e-1"), json!(["a", "b", "c"]));
        assert_eq!(find("\"\\u0031\""), json!(["d"]));
        assert_eq!(find("9007199254740993"), json!([]));
        assert_eq!(find("9007199254740992.0"), json!(["e"]));
        assert_eq!(find("{ \"y\" : null , \"x\":[1.0,2] }"), json!(["f"]));
        assert_eq!(find("{\"x\":[2,1],\"y\":null}"), json!([]));
    });
}

#[test]
fn vectors_are_found_by_their_direction() {
    with_client(|client| {
        let vectors = [
            ("query_1", json!([0.1, 0.2, 0.3])),
            ("doc_1", json!([0.11, 0.19, 0.33])),
            ("doc_2", json!([0.3, -0.2, 0.1])),
            ("doc_3", json!([-0.1, -0.2, -0.3])),
        ];
        for (key, vector) in &vectors {
            client.ok(json!({ "op": "add_vector", "key": key, "vector": vector }));
        }
        let search = json!({ "op": "vector_search", "vector": [0.1, 0.2, 0.3], "top_k": 2 });
        let found = client.ok(search);
        assert_eq!(keys_in(&found["matches"]), ["query_1", "doc_1"]);
        let score = |at: usize| found["matches"][at]["score"].as_f64().unwrap();
        assert!((score(0) - 1.0).abs() < 1e-6 && score(1) < score(0) && score(1) > 0.98, "{found}");
        let all = client.ok(json!({ "op": "vector_search", "vector": [1, 2, 3] }));
        assert_eq!(keys_in(&all["matches"]), ["query_1", "doc_1", "doc_2", "doc_3"]);
        let docs = client.ok(json!({ "op": "vector_search", "vector": [1, 2, 3], "prefix": "doc_" }));
        assert_eq!(keys_in(&docs["matches"]), ["doc_1", "doc_2", "doc_3"]);
        let read = client.ok(json!({ "op": "get_vector", "key": "query_1" }));
        assert_eq!((&read["found"], &read["vector"]), (&json!(true), &json!([0.1, 0.2, 0.3])));
        client.ok(json!({ "op": "add_vector", "key": "short", "vector": [1, 0] }));
        let error = client.refused(json!({ "op": "vector_search", "vector": [1, 2, 3, 4] }));
        assert_eq!((&error["code"], &error["lengths"]), (&json!("dimension_mismatch"), &json!([2, 3])));
        let short = client.ok(json!({ "op": "vector_search", "vector": [5, 5] }));
        assert_eq!(keys_in(&short["matches"]), ["short"]);
    });
}

#[test]
fn without_vectors_a_vector_search_finds_nothing() {
    with_client(|client| {
        assert_eq!(client.ok(json!({ "op": "vector_search", "vector": [1, 2] }))["matches"], json!([]));
    });
}

#[test]
fn a_key_may_hold_a_vector_a_value_or_both() {
    with_client(|client| {
        let vector = json!({ "op": "add_vector", "key": "k", "vector": [1, 2] });
        let first = client.ok(vector.clone())["version"].clone();
        let read = get(client, "k");
        assert_eq!((&read["found"], &read["value"]), (&json!(false), &Value::Null));
        let second = set(client, "k", json!("v"));
        let third = client.ok(vector)["version"].clone();
        assert!(first != second && second != third && first != third);
        assert_eq!(get(client, "k")["value"], "v");
        let read = client.ok(json!({ "op": "get_vector", "key": "k" }));
        assert_eq!(read, json!({ "ok": true, "found": true, "vector": [1.0, 2.0], "version": third }));
        let shown = client.ok(json!({ "op": "scan", "vectors": true, "values": false }));
        assert_eq!(shown["items"], json!([{ "key": "k", "version": third, "vector": [1.0, 2.0] }]));
        client.ok(json!({ "op": "delete", "key": "k" }));
        assert_eq!(client.ok(json!({ "op": "get_vector", "key": "k" }))["found"], false);
        assert_eq!(client.ok(json!({ "op": "count" }))["count"], 0);
    });
}

#[test]
fn values_come_back_byte_for_byte() {
    let values = [
        "1.00",
        "-0",
        "1E+2",
        "12345678901234567890123456789.000000000000000000001",
        "{\"b\":1,\"a\":2,\"b\":3}",
        "{ \"b\" : [ 1 ,\t2 ] ,  \"a\" : null }",
        "\"\\u0041\\/\\ud83d\\ude00 é 😀\"",
        "[]",
        "false",
        "null",
    ];
    with_client(|client| {
        for (number, value) in values.iter().enumerate() {
            let line = format!("{{\"op\":\"set\", \"key\":\"v{number}\", \"value\": {value} }}\n");
            client.send_raw(line.as_bytes());
            assert_eq!(client.receive()["ok"], true, "{value}");
            let requests = [
                json!({ "op": "get", "key": format!("v{number}") }),
                json!({ "op": "bulk_get", "keys": [format!("v{number}")] }),
                json!({ "op": "scan", "prefix": format!("v{number}") }),
            ];
            for request in requests {
                client.send(&request);
                let reply = client.receive_line();
                assert!(reply.contains(&format!("\"value\":{value},\"version\":")), "{value}: {reply}");
            }
        }
    });
}

#[test]
fn a_condition_lets_a_write_pass_only_where_it_holds() {
    with_client(|client| {
        let write = |with: Value| {
            let mut request = json!({ "op": "set", "key": "k", "value": with });
            request.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
            request
        };
        let refusal = |error: &Value| (error["code"].clone(), error["current"].clone());
        let absent = client.refused(write(json!({ "if_version": "1.0" })));
        assert_eq!(refusal(&absent), (json!("version_mismatch"), Value::Null));
        let first = client.ok(write(json!({ "if_version": null })))["version"].clone();
        for if_version in [json!(null), json!("no version"), json!("999999.0")] {
            let error = client.refused(write(json!({ "if_version": if_version })));
            assert_eq!(refusal(&error), (json!("version_mismatch"), first.clone()));
        }
        let error = client.refused(write(json!({ "if_absent": true })));
        assert_eq!(refusal(&error), (json!("already_exists"), first.clone()));
        let second = client.ok(write(json!({ "if_version": first })))["version"].clone();
        let vector = json!({ "op": "add_vector", "key": "k", "vector": [1], "if_version": first });
        assert_eq!(client.refused(vector)["code"], "version_mismatch");
        let delete = |version: &Value| json!({ "op": "delete", "key": "k", "if_version": version });
        assert_eq!(client.refused(delete(&first))["code"], "version_mismatch");
        assert_eq!(get(client, "k")["version"], second, "what was refused left no trace");
        assert_eq!(client.ok(delete(&second))["deleted"], true);
        client.ok(write(json!({ "if_absent": true })));
    });
}

#[test]
fn an_index_that_is_not_kept_is_named() {
    let requests = [
        ("value", json!({ "op": "search_by_value", "value": 1 })),
        ("text", json!({ "op": "search_text", "query": "x" })),
        ("vector", json!({ "op": "vector_search", "vector": [1] })),
        ("order", json!({ "op": "scan" })),
        ("order", json!({ "op": "count", "prefix": "x" })),
    ];
    let refuses = |flag: &str, disabled: &dyn Fn(&str) -> bool| {
        with_flags(&["--indexes", flag], |client| {
            set(client, "x", json!("x"));
            client.ok(json!({ "op": "add_vector", "key": "x", "vector": [1] }));
            for (index, request) in &requests {
                let reply = client.when_ready(request.clone());
                let code = if disabled(index) { json!("index_disabled") } else { Value::Null };
                assert_eq!(reply["error"]["code"], code, "{flag}: {reply}");
            }
            assert_eq!(get(client, "x")["value"], "x");
            assert_eq!(client.ok(json!({ "op": "count" }))["count"], 1);
        });
    };
    refuses("none", &|_| true);
    for (missing, kept) in [
        ("value", "text,vector,order"),
        ("text", "value,vector,order"),
        ("vector", "value,text,order"),
        ("order", "value,text,vector"),
    ] {
        refuses(kept, &|index| index == missing);
    }
}

#[test]
fn a_node_on_its_own_says_who_it_is_and_refuses_what_needs_others() {
    with_client(|client| {
        assert_eq!(client.ok(json!({ "op": "ping" })), json!({ "ok": true, "pong": true }));
        let hello = client.ok(json!({ "op": "hello", "protocol": 1, "client": "test" }));
        assert_eq!((&hello["protocol"], &hello["role"]), (&json!(1), &json!("primary")));
        for field in ["server", "node_id", "mode", "leader", "limits", "features", "text_revision"] {
            assert!(!hello[field].is_null(), "{field}: {hello}");
        }
        let other = client.refused(json!({ "op": "hello", "protocol": 2 }));
        assert_eq!(other["code"], "unsupported_protocol");
        let cluster = client.ok(json!({ "op": "cluster" }));
        assert_eq!((&cluster["node_id"], &cluster["tolerates"]), (&json!(1), &json!(0)));
        assert_eq!(cluster["members"].as_array().unwrap().len(), 1);
        set(client, "k", json!(1));
        let snapshot = client.ok(json!({ "op": "snapshot" }));
        assert!(snapshot["index"].as_u64() > Some(0) && snapshot["bytes"].as_u64() > Some(0), "{snapshot}");
        for request in [
            json!({ "op": "promote" }),
            json!({ "op": "promote", "node_id": 2, "force": true }),
            json!({ "op": "remove_member", "node_id": 2 }),
            json!({ "op": "conflicts" }),
            json!({ "op": "evict", "node_id": 2 }),
            json!({ "op": "set", "key": "k", "value": 1, "w": 2 }),
            json!({ "op": "get", "key": "k", "consistency": "local", "after_version": "1.0" }),
            json!({ "op": "get", "key": "k", "r": "majority" }),
        ] {
            let error = client.refused(request);
            assert_eq!(error["code"], "unsupported_in_mode", "{error}");
            let promise = (&error["retryable"], &error["outcome"]);
            assert_eq!(promise, (&json!(false), &json!("not_applied")));
        }
        // What is asked for beyond an operation: the first is named, and a line that is wrong is so first.
        let both = client.refused(json!({ "op": "get", "key": "k", "after_version": "1.0", "r": 1 }));
        assert_eq!(both["message"], "`r` belongs to --mode dynamo");
        for wrong in [json!({ "op": "get", "key": "k", "r": 0 }), json!({ "op": "get", "r": 1 })] {
            assert_eq!(client.refused(wrong)["code"], "bad_request");
        }
        let itself = json!({ "op": "add_member", "node_id": 1, "host": "127.0.0.1", "port": 9001 });
        let error = client.refused(itself);
        assert_eq!(
            (&error["code"], &error["outcome"]),
            (&json!("bad_request"), &json!("not_applied")),
            "{error}"
        );
    });
}

#[test]
fn a_node_on_its_own_meets_every_consistency() {
    with_client(|client| {
        set(client, "k", json!(1));
        for consistency in [json!("linearizable"), json!("local"), json!({ "max_staleness_ms": 0 })] {
            let read = client.ok(json!({ "op": "get", "key": "k", "consistency": consistency }));
            assert_eq!(read["value"], 1);
        }
    });
}
