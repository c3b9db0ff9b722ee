//! The promise: no client's searches stop those of the others. They take turns,
//! and what nobody waits for any more is not done.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use common::{Client, Node, Options, PATIENCE, temporary_directory};
use serde_json::{Value, json};

const WORDS: usize = 500;
const DOCUMENTS: usize = 2_000;
/// As many as a connection may have under way.
const AT_ONCE: usize = 16;

/// A node of one shard whose documents all hold the same words.
fn node(directory: &std::path::Path, flags: &[&str]) -> Node {
    let node = Options::in_directory(directory).with(&["--shards", "1"]).with(flags).start();
    let mut client = node.client();
    client.when_ready(json!({ "op": "scan" }));
    let text = all_words();
    for first in (0..DOCUMENTS).step_by(100) {
        let records: Vec<Value> = (first..first + 100).map(|n| json!([format!("k{n}"), text])).collect();
        client.send(&json!({ "op": "bulk_set", "records": records }));
        // With a short time-out it may be over before the answer is there.
        client.receive();
    }
    node
}

fn all_words() -> String {
    (0..WORDS).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
}

/// Looks at a posting of every word in every document.
fn expensive() -> Value {
    json!({ "op": "search_text", "query": all_words(), "match": "any", "limit": 1 })
}

fn cheap() -> Value {
    json!({ "op": "search_text", "query": "nowhere" })
}

fn figure(client: &mut Client, name: &str) -> u64 {
    client.ok(json!({ "op": "stats", "section": "indexes" }))["indexes"][name].as_u64().expect(name)
}

/// Asks again until `holds`.
fn wait_until(client: &mut Client, name: &str, holds: impl Fn(u64) -> bool) -> u64 {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let value = figure(client, name);
        if holds(value) {
            return value;
        }
        assert!(std::time::Instant::now() < deadline, "{name} stays at {value}");
        std::thread::yield_now();
    }
}

#[test]
fn a_write_and_a_search_for_it_wait_for_one_of_another_clients_searches_and_not_for_all() {
    let directory = temporary_directory();
    let node = node(directory.path(), &[]);
    let (mut other, mut stats) = (node.client(), node.client());
    // On a busy machine a round may be over before the other client has its turn.
    let overtakes = (0..5).any(|round| {
        let mut many = node.client();
        (0..AT_ONCE).for_each(|_| many.send(&expensive()));
        wait_until(&mut stats, "searches_waiting", |waiting| waiting > 0);
        let word = format!("only{round}");
        other.ok(json!({ "op": "set", "key": word, "value": word }));
        assert_eq!(other.ok(json!({ "op": "search_text", "query": word }))["total"], 1);
        let waiting = figure(&mut stats, "searches_waiting");
        (0..AT_ONCE).for_each(|_| assert_eq!(many.receive()["total"], DOCUMENTS));
        waiting >= 4
    });
    assert!(overtakes, "each time it was answered behind all of the other client's");
}

#[test]
fn searches_whose_clients_have_left_are_not_done() {
    const CLIENTS: usize = 20;
    let directory = temporary_directory();
    let node = node(directory.path(), &[]);
    let mut stats = node.client();
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = node.client();
            (0..AT_ONCE).for_each(|_| client.send(&expensive()));
            client
        })
        .collect();
    wait_until(&mut stats, "searches_waiting", |waiting| waiting > 0);
    drop(clients);
    node.client().ok(cheap());
    wait_until(&mut stats, "searches_waiting", |waiting| waiting == 0);
    let (done, dropped) = (figure(&mut stats, "searches_done"), figure(&mut stats, "searches_dropped"));
    // Each connection is gone once a reply can't be sent; what it has left is not begun.
    assert!(dropped as usize > CLIENTS * AT_ONCE / 2, "{done} parts were done and {dropped} dropped");
}

#[test]
fn searches_whose_time_is_over_are_not_done_and_their_connection_goes_on() {
    let directory = temporary_directory();
    let node = node(directory.path(), &["--request-timeout-ms", "100"]);
    let mut stats = node.client();
    let mut clients = vec![node.client()];
    let (mut timed_out, mut dropped) = (0, 0);
    // More and more of them, until they take longer than one may wait before it is begun.
    while dropped == 0 && clients.len() <= 64 {
        clients.extend((0..clients.len()).map(|_| node.client()).collect::<Vec<_>>());
        for client in &mut clients {
            (0..AT_ONCE).for_each(|_| client.send(&expensive()));
        }
        for client in &mut clients {
            for _ in 0..AT_ONCE {
                let reply = client.receive();
                let late = reply["error"]["code"] == "timeout";
                assert!(late || reply["ok"] == true, "{reply}");
                timed_out += usize::from(late);
            }
        }
        // Behind all of them: it is done, or dropped, when they are.
        clients[0].call(cheap());
        wait_until(&mut stats, "searches_waiting", |waiting| waiting == 0);
        dropped = figure(&mut stats, "searches_dropped");
    }
    assert!(dropped > 0, "{timed_out} timed out");
    assert!(timed_out > 0, "the searches are too cheap to be late");
    let client = &mut clients[0];
    // What was dropped is answered to the connection, or it would wait for ever with what comes behind.
    let deadline = std::time::Instant::now() + PATIENCE;
    while client.call(json!({ "op": "bulk_set", "records": [["a", 1], ["b", 2]] }))["ok"] != true {
        assert!(std::time::Instant::now() < deadline, "the connection doesn't go on");
    }
}

#[test]
fn a_query_of_too_many_words_is_refused_however_long_it_is() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    client.when_ready(json!({ "op": "scan" }));
    let search = |query: String| json!({ "op": "search_text", "query": query });
    client.ok(search("a ".repeat(1_024)));
    for (query, bound) in [
        ("a ".repeat(1_025), "1024"),
        ("a".repeat(65_537), "65536"),
        ("a ".repeat(4 << 20), "65536"),
        ("\u{fdfa} ".repeat(2 << 20), "65536"),
    ] {
        let error = client.refused(search(query));
        assert_eq!(error["code"], "bad_request", "{error}");
        assert!(error["message"].as_str().unwrap().contains(bound), "{error}");
    }
    // One word that is as long as a query may be is one word, and so is a run of Chinese.
    for word in ["\u{fdfa}".repeat(65_536 / 3), "a".repeat(65_536), "\u{4e00}".repeat(65_536 / 3)] {
        assert_eq!(client.ok(search(word))["total"], 0);
    }
}
