//! The promises about lines and connections: one reply per request, in the order
//! of the requests, whatever they are, however they are cut, and even when the
//! client has closed its half; and figures in `stats` that add up.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::random::{Random, seed};
use common::{Client, Node, Options, PATIENCE, temporary_directory};
use serde_json::{Value, json};

fn with_node(shards: &str, work: impl FnOnce(&Node)) {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--shards", shards]).start();
    node.client().when_ready(json!({ "op": "scan" }));
    work(&node);
}

/// Any request, good or bad, and the fields that its reply must have.
fn some_request(random: &mut Random, id: usize) -> (String, &'static [&'static str]) {
    let key = format!("key-{}", random.below(30));
    let (request, fields): (Value, &[&str]) = match random.below(12) {
        0 | 1 => (json!({ "op": "set", "key": key, "value": { "text": "word" } }), &["version"]),
        2 | 3 => (json!({ "op": "get", "key": key }), &["found", "value", "version"]),
        4 => (json!({ "op": "delete", "key": key }), &["deleted"]),
        5 => (json!({ "op": "bulk_set", "records": [[key, 1], ["other", 2]] }), &["count", "version"]),
        6 => (json!({ "op": "bulk_get", "keys": [key, "other"] }), &["values"]),
        7 => (json!({ "op": "search_text", "query": "word" }), &["keys", "scores", "total", "next"]),
        8 => (json!({ "op": "scan", "limit": 3 }), &["items", "next"]),
        9 => (json!({ "op": "nonsense" }), &["error"]),
        10 => (json!({ "op": "get" }), &["error"]),
        _ => (json!({ "op": "ping" }), &["pong"]),
    };
    let mut request = request;
    request["id"] = json!(id);
    (format!("{request}\n"), fields)
}

fn check_reply(line: &str, id: usize, fields: &[&str]) {
    let reply: Value = serde_json::from_str(line).expect("a JSON object");
    assert_eq!(reply["id"], id, "{reply}");
    for field in fields {
        assert!(reply.get(field).is_some(), "no {field} in {reply}");
    }
}

/// Sends thousands of requests without reading, cut anywhere, and reads beside.
fn pipeline(shards: &str) {
    const REQUESTS: usize = 5_000;
    let seed = seed();
    with_node(shards, |node| {
        let mut random = Random::new(seed, 0);
        let (lines, fields): (Vec<String>, Vec<_>) =
            (0..REQUESTS).map(|id| some_request(&mut random, id)).unzip();
        let bytes = lines.concat().into_bytes();
        let mut client = node.client();
        let mut socket = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (now, later) = rest.split_at((1 + random.below(5_000)).min(rest.len()));
                    socket.write_all(now).expect("the node reads");
                    rest = later;
                }
            });
            for (id, fields) in fields.iter().enumerate() {
                check_reply(&client.receive_line(), id, fields);
            }
        });
    });
}

#[test]
fn thousands_of_pipelined_requests_are_answered_in_order_by_four_shards() {
    pipeline("4");
}

#[test]
fn thousands_of_pipelined_requests_are_answered_in_order_by_one_shard() {
    pipeline("1");
}

#[test]
fn a_half_closed_connection_gets_every_reply_and_then_its_end() {
    const REQUESTS: usize = 500;
    let seed = seed();
    with_node("4", |node| {
        let mut random = Random::new(seed, 0);
        let mut client = node.client();
        let (lines, fields): (Vec<String>, Vec<_>) =
            (0..REQUESTS).map(|id| some_request(&mut random, id)).unzip();
        let lines = lines.concat();
        client.send_raw(lines.trim_end().as_bytes()); // the last line has no newline
        client.finish();
        let rest = client.receive_rest();
        assert_eq!(rest.lines().count(), REQUESTS);
        for (id, line) in rest.lines().enumerate() {
            check_reply(line, id, fields[id]);
        }
    });
}

#[test]
fn netcat_is_enough() {
    with_node("4", |node| {
        let (host, port) = (node.address.ip().to_string(), node.address.port().to_string());
        let mut nc = Command::new("nc");
        nc.args(["-N", &host, &port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut nc = match nc.spawn() {
            Ok(nc) => nc,
            Err(error) => return eprintln!("not tested: there is no nc ({error})"),
        };
        let requests = concat!(
            r#"{"op":"set","key":"username","value":"alice"}"#,
            "\n",
            r#"{"op":"get","key":"username","id":1}"#,
            "\n",
            r#"{"op":"search_by_value","value":"alice","id":2}"#,
            "\n"
        );
        nc.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
        let output = nc.wait_with_output().unwrap();
        let replies: Vec<Value> = output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter_map(|l| serde_json::from_slice(l).ok())
            .collect();
        assert_eq!(replies.len(), 3, "{replies:?}");
        assert_eq!((&replies[1]["id"], &replies[1]["value"]), (&json!(1), &json!("alice")));
        assert_eq!((&replies[2]["id"], &replies[2]["keys"]), (&json!(2), &json!(["username"])));
    });
}

#[test]
fn blank_lines_are_skipped_and_both_line_ends_are_taken() {
    with_node("4", |node| {
        let mut client = node.client();
        client.send_raw(
            b"\n\r\n   \n\t\r\n{\"op\":\"ping\",\"id\":1}\r\n\n  {\"op\":\"ping\",\"id\":2}  \n\r\n",
        );
        client.finish();
        let rest = client.receive_rest();
        assert_eq!(rest, "{\"id\":1,\"ok\":true,\"pong\":true}\n{\"id\":2,\"ok\":true,\"pong\":true}\n");
    });
}

#[test]
fn an_id_comes_back_as_it_came() {
    let ids = ["7", "-0", "123456789012345678901234567890", "\"\"", "\"a\\u0041\\n\"", "\"é\"", "null"];
    with_node("4", |node| {
        let mut client = node.client();
        for id in ids {
            for request in ["\"op\":\"ping\"", "\"op\":\"get\",\"key\":\"k\"", "\"op\":\"nonsense\""] {
                client.send_raw(format!("{{{request}, \"id\" : {id} }}\n").as_bytes());
                let line = client.receive_line();
                assert!(line.starts_with(&format!("{{\"id\":{id},\"ok\":")), "{id}: {line}");
            }
        }
        client.send_raw(b"{\"op\":\"ping\"}\n");
        assert_eq!(client.receive_line(), "{\"ok\":true,\"pong\":true}", "no id, none back");
        for id in ["1.5", "1e3", "true", "[1]", "{}"] {
            client.send_raw(format!("{{\"op\":\"ping\",\"id\":{id}}}\n").as_bytes());
            assert_eq!(client.receive()["error"]["code"], "bad_request", "{id}");
        }
    });
}

/// Each actor's row, once nothing is on its way any more.
fn quiet_rows(client: &mut Client) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = client.ok(json!({ "op": "stats", "section": "actors" }));
        let rows = stats["actors"].as_array().expect("a row per actor").clone();
        if rows.iter().all(|row| row["mailbox"]["depth"] == 0) {
            return rows;
        }
        assert!(Instant::now() < deadline, "never quiet: {stats}");
        std::thread::yield_now();
    }
}

fn figure(row: &Value, name: &str) -> u64 {
    row["mailbox"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {row}"))
}

#[test]
fn at_a_quiet_moment_every_mailbox_adds_up() {
    const LEAVERS: usize = 200;
    with_node("4", |node| {
        let mut client = node.client();
        let lines: String = (0..500)
            .map(|n| format!("{}\n", json!({ "op": "set", "key": format!("k{n}"), "value": n })))
            .collect();
        // Clients that leave with answers under way: those come too late.
        let mut rejected = 0;
        for _ in 0..LEAVERS {
            node.client().send_raw(lines.as_bytes());
            let rows = quiet_rows(&mut client);
            rejected = rows.iter().map(|row| figure(row, "rejected")).sum();
            if rejected > 0 {
                break;
            }
        }
        assert!(rejected > 0, "no answer came too late in {LEAVERS} attempts");
        let rows = quiet_rows(&mut client);
        for row in &rows {
            let (enqueued, processed) = (figure(row, "enqueued"), figure(row, "processed"));
            assert_eq!(enqueued, processed + figure(row, "depth"), "{row}");
            assert!(figure(row, "depth_max") <= figure(row, "capacity"), "{row}");
            assert_eq!(figure(row, "oldest_age_us"), 0, "{row}");
            if enqueued > 0 {
                assert!(figure(row, "depth_max") > 0, "{row}");
                assert!(row["wait_us"]["max"].as_u64() >= row["wait_us"]["p50"].as_u64(), "{row}");
                assert!(row["handle_us"]["max"].as_u64() >= row["handle_us"]["p99"].as_u64(), "{row}");
            }
        }
        let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        let shards = (0..4).flat_map(|n| [format!("shard-{n}"), format!("index-manager-{n}")]);
        for name in shards.chain(["wal-writer", "snapshot-writer", "connections"].map(String::from)) {
            assert!(names.contains(&&name[..]), "no {name} in {names:?}");
        }
        let busy = rows.iter().filter(|row| figure(row, "processed") > 0).count();
        assert!(busy >= 10, "shards, indexes, log and connections all had work: {rows:?}");
    });
}

#[test]
fn stats_has_the_section_asked_for_or_all() {
    with_node("4", |node| {
        let mut client = node.client();
        client.ok(json!({ "op": "bulk_set", "records": [["a", "x y"], ["b", "y"], ["c", 1]] }));
        client.ok(json!({ "op": "add_vector", "key": "c", "vector": [1, 2] }));
        // Its turn comes when the indexes have the vector.
        client.when_ready(json!({ "op": "vector_search", "vector": [1, 2] }));
        let all = client.ok(json!({ "op": "stats" }));
        for section in
            ["node", "actors", "connections", "wal", "keyspace", "indexes", "replication", "memory"]
        {
            let one = client.ok(json!({ "op": "stats", "section": section }));
            let fields: Vec<&String> = one.as_object().unwrap().keys().collect();
            assert!(fields == ["ok", section] || fields == [section, "ok"], "{fields:?}");
            assert!(all[section].is_object() || all[section].is_array(), "{section}: {all}");
        }
        assert_eq!(all["keyspace"]["keys"], 3);
        assert_eq!(all["indexes"]["vector"]["entries"], 1);
        assert!(all["wal"]["syncs"].as_u64() >= Some(2) && all["wal"]["sync_failures"] == 0, "{all}");
        assert!(all["wal"]["durable_index"].as_u64() >= Some(2), "{all}");
        assert_eq!(client.refused(json!({ "op": "stats", "section": "x" }))["code"], "bad_request");
    });
}
