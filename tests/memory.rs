//! The promise: what a client sends, or doesn't read, costs bounded memory, and
//! the others are served meanwhile; a full node refuses what needs room, says
//! so, and takes writes again once there is room.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::io::Write;
use std::time::Instant;

use common::{Client, Node, Options, PATIENCE, temporary_directory};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
/// What one client may make a node grow by, at most.
const GROWTH_MAX: usize = 100 * MIB;

fn with_node(flags: &[&str], work: impl FnOnce(&Node)) {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(flags).start();
    node.client().when_ready(json!({ "op": "scan" }));
    work(&node);
}

/// A figure of the process in bytes: `VmRSS` now, `VmHWM` the highest that ever was.
fn process_bytes(node: &Node, figure: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(figure)).expect("the system says it");
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// How much `work` made the node grow at its peak.
fn peak_growth(node: &Node, work: impl FnOnce()) -> usize {
    let before = process_bytes(node, "VmRSS");
    work();
    let growth = process_bytes(node, "VmHWM").saturating_sub(before);
    eprintln!("grew by {} KiB", growth / 1024);
    growth
}

/// Others are served, writes included.
fn serves_others(node: &Node) {
    let mut client = node.client();
    for number in 0..50 {
        client.ok(json!({ "op": "set", "key": "other", "value": number }));
        assert_eq!(client.ok(json!({ "op": "get", "key": "other" }))["value"], number);
    }
}

#[test]
fn a_line_of_200_mib_is_refused_in_bounded_memory() {
    with_node(&[], |node| {
        let mut client = node.client();
        let growth = peak_growth(node, || {
            client.send_raw(br#"{"op":"set","id":9,"key":"k","value":""#);
            let piece = vec![b'x'; MIB];
            (0..200).for_each(|_| client.send_raw(&piece));
            serves_others(node);
            client.send_raw(b"\"}\n{\"op\":\"ping\"}\n");
            let reply = client.receive();
            assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(9), &json!("line_too_long")));
            assert_eq!(client.receive()["pong"], true, "the connection goes on");
        });
        assert!(growth < GROWTH_MAX);
    });
}

#[test]
fn many_half_sent_lines_stay_within_bounds_and_block_nobody() {
    with_node(&[], |node| {
        let growth = peak_growth(node, || {
            let mut clients: Vec<Client> = (0..5).map(|_| node.client()).collect();
            for client in &mut clients {
                client.send_raw(br#"{"op":"set","key":"half","value":""#);
                client.send_raw(&vec![b'x'; 6 * MIB]);
            }
            serves_others(node);
            for client in &mut clients {
                client.send_raw(b"\"}\n");
                assert_eq!(client.receive()["ok"], true);
            }
        });
        // A buffer of up to twice its content each, the value, its log record and its words.
        assert!(growth < 3 * GROWTH_MAX);
    });
}

/// Sends this for ever without reading; ends when the node has closed the connection.
fn never_reads(node: &Node, lines: &[u8]) {
    let mut client = node.client();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || while client.stream.write_all(lines).is_ok() {});
        serves_others(node);
        sender.join().expect("it only sends");
    });
    let stats = node.client().ok(json!({ "op": "stats", "section": "connections" }));
    assert_eq!(stats["connections"]["closed_not_reading"], 1, "{stats}");
    serves_others(node);
}

fn large_value(node: &Node) {
    node.client().ok(json!({ "op": "set", "key": "large", "value": "x".repeat(MIB) }));
}

#[test]
fn a_client_that_never_reads_large_values_costs_little_and_is_closed() {
    with_node(&[], |node| {
        large_value(node);
        let lines = "{\"op\":\"get\",\"key\":\"large\"}\n".repeat(1_000);
        let growth = peak_growth(node, || never_reads(node, lines.as_bytes()));
        assert!(growth < GROWTH_MAX);
    });
}

#[test]
fn a_client_that_never_reads_scans_costs_little_and_is_closed() {
    with_node(&[], |node| {
        large_value(node);
        let lines = "{\"op\":\"scan\"}\n{\"op\":\"bulk_get\",\"keys\":[\"large\",\"x\"]}\n".repeat(500);
        let growth = peak_growth(node, || never_reads(node, lines.as_bytes()));
        assert!(growth < GROWTH_MAX);
    });
}

#[test]
fn a_client_that_never_reads_its_errors_costs_little_and_is_closed() {
    with_node(&[], |node| {
        let lines = "x\n".repeat(100_000);
        let growth = peak_growth(node, || never_reads(node, lines.as_bytes()));
        assert!(growth < GROWTH_MAX);
    });
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    const REQUESTS: usize = 200;
    with_node(&[], |node| {
        large_value(node);
        let mut client = node.client();
        let growth = peak_growth(node, || {
            let lines: String = (0..REQUESTS)
                .map(|id| format!("{}\n", json!({ "op": "get", "key": "large", "id": id })))
                .collect();
            client.send_raw(lines.as_bytes());
            serves_others(node);
            for id in 0..REQUESTS {
                let line = client.receive_line();
                assert!(line.starts_with(&format!("{{\"id\":{id},\"ok\":true,\"found\":true")));
                assert!(line.len() > MIB, "{} bytes", line.len());
            }
        });
        assert!(growth < GROWTH_MAX);
    });
}

/// Texts of the same many words, and a search that has to look at each of them in all texts.
fn slow_search(client: &mut Client) -> Value {
    let words = (0..1_000).map(|word| format!("w{word} ")).collect::<String>();
    for bulk in 0..8 {
        let records: Vec<Value> = (0..500).map(|n| json!([format!("text-{bulk}-{n}"), words])).collect();
        client.ok(json!({ "op": "bulk_set", "records": records }));
    }
    json!({ "op": "search_text", "query": words, "match": "any", "limit": 1 })
}

#[test]
fn small_requests_a_packet_each_behind_slow_searches_cost_no_more_than_is_counted() {
    const SEARCHES: usize = 8;
    const REQUESTS: usize = 30_000;
    // What a connection may have under way, and the last read that passes its gate.
    const COUNTED_MAX: u64 = 2 << 20;
    // One thread serves all connections.
    with_node(&["--shards", "1"], |node| {
        let mut other = node.client();
        let search = slow_search(&mut other);
        other.ok(search.clone());
        let mut client = node.client();
        let mut sending = client.stream.try_clone().expect("a second handle");
        let mut pace = node.client();
        let growth = peak_growth(node, || {
            (0..SEARCHES).for_each(|_| client.send(&search));
            let sender = std::thread::spawn(move || {
                let counted = |id| {
                    // What is answered here was asked for behind the packet before it: that was read by
                    // then, if it may be read at all.
                    if id % 100 > 0 {
                        pace.ok(json!({ "op": "ping" }));
                        return 0;
                    }
                    let figures = memory(&mut pace);
                    let bytes = |name: &str| figures[name].as_u64().unwrap();
                    bytes("requests_bytes") + bytes("connections_bytes")
                };
                let send = |id: usize| {
                    // The `id` is what an answer that waits for its turn still needs of its line.
                    let line = format!("{}\n", json!({ "op": "get", "key": "nobody", "id": id }));
                    sending.write_all(line.as_bytes()).expect("the node reads");
                    id
                };
                (0..REQUESTS).map(send).map(counted).max()
            });
            for _ in 0..SEARCHES + REQUESTS {
                assert_eq!(client.receive()["ok"], true);
            }
            let most = sender.join().expect("it only sends");
            eprintln!("{most:?} bytes were counted");
            assert!(most > Some(COUNTED_MAX / 8), "they didn't wait: {most:?} bytes");
            assert!(most <= Some(COUNTED_MAX), "{most:?} bytes");
        });
        assert!(growth < GROWTH_MAX);
        let rest = memory(&mut other);
        assert!(rest["requests_bytes"].as_u64().unwrap() < 1_000, "{rest}");
        assert!(rest["connections_bytes"].as_u64().unwrap() < 32 << 10, "{rest}");
    });
}

fn memory(client: &mut Client) -> Value {
    client.ok(json!({ "op": "stats", "section": "memory" }))["memory"].clone()
}

/// Values of words of their own, shorter and shorter ones, until not even the least finds room.
fn fill(client: &mut Client) -> Vec<String> {
    let mut keys = Vec::new();
    let (mut words, mut digits) = (800, 8_192);
    loop {
        let number = keys.len();
        // Words first; then what has none, and the last ones are shorter than any other write of the test.
        let text: String = (0..words).map(|word| format!("w{number}x{word} ")).collect();
        let value = if words > 0 { json!(text) } else { json!(vec![1; digits]) };
        let key = format!("{number:x}");
        let reply = until_decided(client, &json!({ "op": "set", "key": key, "value": value }));
        if reply["ok"] == true {
            keys.push(key);
            assert!(keys.len() < 300_000, "never full");
            continue;
        }
        let error = &reply["error"];
        assert_eq!((&error["code"], &error["outcome"]), (&json!("out_of_memory"), &json!("not_applied")));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("(text index ") && message.contains("entries "), "{message}");
        match (words, digits) {
            (0, 1) => return keys,
            (0, _) => digits /= 2,
            _ => words /= 2,
        }
    }
}

/// Fills a node over several connections at once, without waiting for replies, until each of them was
/// refused for good.
fn fill_at_once(node: &Node, request: impl Fn(u64) -> Value + Sync) {
    const AT_ONCE: u64 = 100;
    let request = &request;
    std::thread::scope(|scope| {
        for connection in 0..4_u64 {
            let mut client = node.client();
            scope.spawn(move || {
                let mut next = connection << 20;
                loop {
                    let lines: String = (next..next + AT_ONCE).map(|n| format!("{}\n", request(n))).collect();
                    next += AT_ONCE;
                    client.send_raw(lines.as_bytes());
                    let replies: Vec<Value> = (0..AT_ONCE).map(|_| client.receive()).collect();
                    if replies.iter().any(|reply| reply["error"]["code"] == "out_of_memory") {
                        return;
                    }
                    let is_fair =
                        |reply: &Value| reply["ok"] == true || reply["error"]["code"] == "overloaded";
                    assert!(replies.iter().all(is_fair), "{replies:?}");
                }
            });
        }
    });
}

#[test]
fn what_is_refused_for_memory_is_refused_before_the_bound_is_passed() {
    // The table of words doubles from 9 to 18 MB on the way there.
    const MAX: u64 = 20 << 20;
    let words = |n: u64| (0..200).map(|word| format!("w{n:x}y{word} ")).collect::<String>();
    let vector = |n: u64| json!([n as f64 / 1e7, 1]);
    let kinds: [(&str, &(dyn Fn(u64) -> Value + Sync)); 4] = [
        ("small", &|n| json!({"op": "set", "key": format!("{n:x}"), "value": n})),
        ("words", &|n| json!({"op": "set", "key": format!("{n:x}"), "value": words(n)})),
        ("large", &|n| json!({"op": "set", "key": format!("{n:x}"), "value": [n, "x".repeat(20_000)]})),
        ("vectors", &|n| json!({"op": "add_vector", "key": format!("{n:x}"), "vector": vector(n)})),
    ];
    for (kind, request) in kinds {
        with_node(&["--max-memory", &MAX.to_string(), "--shards", "1"], |node| {
            fill_at_once(node, request);
            let mut client = node.client();
            // What is on its way is in the indexes when a search is answered.
            client.ok(json!({"op": "count", "prefix": "x"}));
            let memory = memory(&mut client);
            let used = memory["used_bytes"].as_u64().unwrap();
            eprintln!("{kind}: {:.3} of the bound", used as f64 / MAX as f64);
            assert!(used <= MAX + MAX / 20, "{kind}: {memory}");
            assert!(used >= MAX / 3, "{kind}: {memory}");
        });
    }
}

#[test]
fn a_bound_above_what_the_machine_has_is_said_at_the_start() {
    let directory = temporary_directory();
    let most = (1_u64 << 60).to_string();
    let mut node = Options::in_directory(directory.path()).with(&["--max-memory", &most]).start();
    node.wait_for_log("--max-memory 1152921504606846976 is more than there is");
    drop(node);
    let mut node = Options::in_directory(directory.path()).with(&["--max-memory", "16777216"]).start();
    assert!(!node.log().contains("is more than there is"));
}

/// The answer to a write when nothing else is on its way.
fn until_decided(client: &mut Client, request: &Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = client.call(request.clone());
        if reply["error"]["code"] != "overloaded" {
            return reply;
        }
        assert!(Instant::now() < deadline, "never decided: {reply}");
    }
}

/// A write repeated until its room is free: indexes forget behind the answer to a delete.
fn until_taken(client: &mut Client, request: &Value) {
    let deadline = Instant::now() + PATIENCE;
    while client.call(request.clone())["ok"] != true {
        let now = memory(client);
        assert!(Instant::now() < deadline, "never taken again: {now}");
    }
}

/// Deletes are answered before the indexes have let go of what they held.
fn until_used_is_below(client: &mut Client, bytes: u64) {
    let deadline = Instant::now() + PATIENCE;
    while memory(client)["used_bytes"].as_u64().unwrap() >= bytes {
        assert!(Instant::now() < deadline, "never below {bytes}: {}", memory(client));
    }
}

fn client_gone(node: &Node, keys: &[String]) -> usize {
    let gone = node.client().ok(json!({ "op": "bulk_delete", "keys": keys }));
    gone["count"].as_u64().unwrap() as usize
}

#[test]
fn a_full_node_refuses_what_needs_room_and_takes_it_again_after_deletes() {
    with_node(&["--max-memory", "16777216"], |node| {
        let mut client = node.client();
        client.ok(json!({ "op": "add_vector", "key": "vector", "vector": [1, 2] }));
        for round in 0..3 {
            until_used_is_below(&mut client, 4 << 20);
            let keys = fill(&mut client);
            assert!(keys.len() > 50, "round {round}: only {} fitted", keys.len());
            let bulk: Vec<Value> = (0..20).map(|number| json!([format!("bulk-{number}"), 1])).collect();
            let needs_room = [
                json!({ "op": "set", "key": "one more key", "value": 1 }),
                json!({ "op": "bulk_set", "records": bulk }),
                json!({ "op": "bulk_set", "records": [["one more key", 1]] }),
                json!({ "op": "add_vector", "key": "one more key", "vector": [1, 2] }),
            ];
            for request in &needs_room {
                assert_eq!(until_decided(&mut client, request)["error"]["code"], "out_of_memory");
            }
            assert_eq!(client.ok(json!({ "op": "count", "prefix": "bulk-" }))["count"], 0);
            assert_eq!(client.ok(json!({ "op": "get", "key": keys[0] }))["found"], true);
            assert_eq!(client.ok(json!({ "op": "search_text", "query": "w0x7" }))["keys"], json!([keys[0]]));
            assert_eq!(client.ok(json!({ "op": "delete", "key": keys[0] }))["deleted"], true);
            let gone = |keys: &[String]| client_gone(node, keys);
            assert_eq!(keys.chunks(10_000).map(gone).sum::<usize>(), keys.len() - 1);
            needs_room.iter().for_each(|request| until_taken(&mut client, request));
            assert_eq!(client.ok(json!({ "op": "get", "key": "one more key" }))["value"], 1);
            let bulk: Vec<String> = (0..20).map(|number| format!("bulk-{number}")).collect();
            assert_eq!(client.ok(json!({ "op": "bulk_delete", "keys": bulk }))["count"], 20);
        }
    });
}
