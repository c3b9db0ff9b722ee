//! Promise: what one client asks for makes no other wait longer than its own slice. Its
//! half lines don't keep others from sending theirs, its costly questions are answered a few
//! at a time, its writes come in no faster than they are indexed, and what is not begun
//! in time never is.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/slow_sync.rs"]
mod slow_sync;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Node, Options, temporary_directory};
use serde_json::{Value, json};
use slow_sync::SlowSync;

const MIB: usize = 1 << 20;
/// More halves than there is room for: of each a MiB has come, and twice as much is kept free for it.
const HALVES: usize = 140;

fn node(flags: &[&str]) -> (tempfile::TempDir, Node) {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--shards", "1"]).with(flags).start();
    (directory, node)
}

/// Sends as much of a line's beginning as the node takes.
fn half_line(node: &Node, value_bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let half = [&b"{\"op\":\"set\",\"key\":\"half\",\"value\":\""[..], &vec![b'x'; value_bytes]].concat();
    let (mut sent, mut last) = (0, Instant::now());
    while sent < half.len() && last.elapsed() < Duration::from_millis(50) {
        match stream.write(&half[sent..]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    stream
}

fn occupied_bytes(client: &mut Client) -> u64 {
    client.ok(json!({"op": "stats", "section": "memory"}))["memory"]["connections_bytes"].as_u64().unwrap()
}

/// All the room that there is for halves is taken. A node that others keep from the processor reads late, or
/// so late that a half stays short: then there are some more of them.
fn fill_the_room(node: &Node) -> Vec<TcpStream> {
    let mut halves: Vec<TcpStream> = (0..HALVES).map(|_| half_line(node, MIB)).collect();
    let mut client = node.client();
    let deadline = Instant::now() + common::PATIENCE;
    loop {
        let occupied = occupied_bytes(&mut client);
        if occupied > 250 * MIB as u64 {
            return halves;
        }
        assert!(Instant::now() < deadline, "{} halves occupy {occupied} bytes", halves.len());
        halves.push(half_line(node, MIB));
    }
}

#[test]
fn a_long_line_finds_room_whatever_halves_there_are() {
    let (_directory, node) = node(&[]);
    let halves = fill_the_room(&node);
    // While the others stay as they are, and while nobody is there but it.
    let long = json!({"op": "set", "key": "long", "value": "y".repeat(4 * MIB)});
    node.client().ok(long.clone());
    drop(halves);
    node.client().ok(long);
    let mut client = node.client();
    let deadline = Instant::now() + common::PATIENCE;
    while occupied_bytes(&mut client) > 10 * MIB as u64 {
        assert!(Instant::now() < deadline, "the halves of clients that are gone stay");
        std::thread::yield_now();
    }
}

#[test]
fn every_client_that_sends_its_line_gets_an_answer_when_there_are_too_many_at_once() {
    let (_directory, node) = node(&[]);
    let mut lines: Vec<(TcpStream, usize)> =
        fill_the_room(&node).into_iter().map(|stream| (stream, MIB)).collect();
    lines.extend((0..40).map(|_| (half_line(&node, 0), 2 * MIB)));
    let clients = lines.len();
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (stream, missing) in lines {
            let (answered, refused) = (&answered, &refused);
            scope.spawn(move || {
                let rest = [vec![b'x'; missing], b"\"}\n".to_vec()].concat();
                let mut client = Client::of(stream);
                client.send_raw(&rest);
                let reply = client.receive();
                if reply["ok"] == true {
                    answered.fetch_add(1, Ordering::Relaxed);
                } else {
                    assert_eq!(reply["error"]["code"], "overloaded", "{reply}");
                    assert_eq!(reply["error"]["outcome"], "not_applied", "{reply}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    assert_eq!(answered + refused, clients);
    assert!(answered > 0, "somebody always gets done");
}

#[test]
fn costly_questions_are_answered_a_few_at_a_time() {
    const ASKERS: usize = 4;
    const QUESTIONS: usize = 3_000;
    let (_directory, node) = node(&[]);
    let (done, together) = (AtomicUsize::new(0), Barrier::new(ASKERS));
    std::thread::scope(|scope| {
        for _ in 0..ASKERS {
            let mut client = node.client();
            let (done, together) = (&done, &together);
            scope.spawn(move || {
                together.wait();
                client.send_raw("{\"op\":\"stats\"}\n".repeat(QUESTIONS).as_bytes());
                for number in 0..QUESTIONS {
                    assert!(client.receive_line().starts_with("{\"ok\":true"));
                    if number == 0 {
                        assert_eq!(done.load(Ordering::Relaxed), 0, "one had all before another had any");
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
}

/// Pairs of characters that hardly ever come again are what costs an index most.
fn costly_text(number: usize) -> String {
    let mut random = number as u32;
    let characters = (0..600).map(|_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from_u32(0x4e00 + (random >> 8) % 20_000).expect("a Chinese character")
    });
    characters.collect()
}

#[test]
fn writes_come_in_no_faster_than_they_are_indexed() {
    const WRITERS: usize = 4;
    const WRITES: usize = 5_500;
    // Of some 40 MiB; no processor indexes as much of this in a quarter of a second.
    const IN_FLIGHT_BYTES_MAX: u64 = 20 << 20;
    let (_directory, node) = node(&[]);
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let mut client = node.client();
            let mut reader = Client::of(client.stream.try_clone().unwrap());
            let lines = (0..WRITES).map(|number| {
                let text = costly_text(writer * WRITES + number);
                format!("{}\n", json!({"op": "set", "key": format!("{writer}:{number}"), "value": text}))
            });
            let lines: String = lines.collect();
            scope.spawn(move || client.send_raw(lines.as_bytes()));
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                for number in 0..WRITES {
                    let reply = reader.receive();
                    // One that was let in too late is refused, and didn't happen.
                    let is_refused = reply["error"]["code"] == "overloaded";
                    assert!(reply["ok"] == true || is_refused, "{number}: {reply}");
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut other = node.client();
        let mut number = 0;
        while acknowledged.load(Ordering::Relaxed) < WRITERS * WRITES {
            number += 1;
            let word = format!("mine{number}");
            other.ok(json!({"op": "set", "key": "mine", "value": word}));
            let memory = other.ok(json!({"op": "stats", "section": "memory"}));
            let in_flight = memory["memory"]["in_flight_bytes"].as_u64().unwrap();
            assert!(in_flight < IN_FLIGHT_BYTES_MAX, "a search waits for {in_flight} bytes");
            let found = other.ok(json!({"op": "search_text", "query": word}));
            assert_eq!(found["keys"], json!(["mine"]), "what was acknowledged is found");
        }
        assert!(number > 1, "it searched while they wrote");
    });
}

#[test]
fn what_was_not_begun_in_time_did_not_happen_and_says_so() {
    let Some(slow) = SlowSync::of(Duration::from_secs(20)) else { return };
    let directory = temporary_directory();
    let mut options =
        Options::in_directory(directory.path()).with(&["--request-timeout-ms", "1000", "--shards", "2"]);
    options.through = slow.through();
    let node = options.start();
    let mut client = node.client();
    client.ok(json!({"op": "set", "key": "k", "value": 1}));
    slow.begin();
    client.send(&json!({"id": "write", "op": "set", "key": "k", "value": 2}));
    client.send(&json!({"id": "read", "op": "get", "key": "k"}));
    // They wait at the connection until the write before them is answered.
    client.send(&json!({"id": "search", "op": "search_by_value", "value": 2}));
    client.send(
        &json!({"id": "queued", "op": "bulk_set", "records": [["a", 1], ["b", 1], ["c", 1], ["d", 1]]}),
    );
    let told = |reply: Value| {
        let error = &reply["error"];
        (reply["id"].clone(), error["code"].clone(), error["outcome"].clone(), error["retryable"].clone())
    };
    let is = |id: &str, outcome: &str, retryable: bool| {
        (json!(id), json!("timeout"), json!(outcome), json!(retryable))
    };
    assert_eq!(told(client.receive()), is("write", "unknown", false));
    assert_eq!(told(client.receive()), is("read", "not_applied", true));
    assert_eq!(told(client.receive()), is("search", "not_applied", true));
    assert_eq!(told(client.receive()), is("queued", "not_applied", true));
    slow.end();
    // The first write happened. What was behind it never will.
    let mut other = node.client();
    other.ok(json!({"op": "set", "key": "z", "value": 1}));
    assert_eq!(other.ok(json!({"op": "get", "key": "k"}))["value"], 2);
    client.ok(json!({"op": "ping"}));
    assert_eq!(other.ok(json!({"op": "count"}))["count"], 2);
}

#[test]
fn a_snapshot_is_answered_however_long_it_takes() {
    let Some(slow) = SlowSync::of(Duration::from_secs(4)).map(|slow| slow.only_of("snapshot")) else {
        return;
    };
    let directory = temporary_directory();
    let mut options =
        Options::in_directory(directory.path()).with(&["--request-timeout-ms", "2000", "--shards", "1"]);
    options.through = slow.through();
    let node = options.start();
    let mut client = node.client();
    client.ok(json!({"op": "set", "key": "k", "value": 1}));
    slow.begin();
    let began = Instant::now();
    let made = client.ok(json!({"op": "snapshot"}));
    assert!(made["bytes"].as_u64().is_some(), "{made}");
    assert!(began.elapsed() > Duration::from_secs(3), "its sync was slow");
    let figures = node.client().ok(json!({"op": "stats", "section": "wal"}));
    assert_eq!(figures["wal"]["snapshot"]["progress"], Value::Null, "none is under way: {figures}");
}

#[test]
fn a_client_that_closes_half_its_connection_within_a_line_is_answered_when_room_is_short() {
    let (_directory, node) = node(&[]);
    let mut halves = fill_the_room(&node);
    let one = halves.pop().unwrap();
    one.shutdown(Shutdown::Write).unwrap();
    let reply = Client::of(one).receive();
    // Its line ended where it stopped; or it had waited for room for too long by then.
    assert!(["parse_error", "overloaded"].map(Value::from).contains(&reply["error"]["code"]), "{reply}");
}

#[test]
fn a_long_line_keeps_its_place_among_short_ones() {
    let (_directory, node) = node(&[]);
    let mut client = node.client();
    let long = format!("{{\"id\":2,\"op\":\"set\",\"key\":\"k\",\"value\":[{}0]}}\n", "1,".repeat(3 * MIB));
    let lines = [
        "{\"id\":1,\"op\":\"set\",\"key\":\"k\",\"value\":1}\n",
        &long,
        "{\"id\":3,\"op\":\"get\",\"key\":\"k\"}\n{\"id\":4,\"op\":\"set\",\"key\":\"k\",\"value\":4}\n",
        &long.replace("\"id\":2", "\"id\":5"),
        "{\"id\":6,\"op\":\"ping\"}",
    ];
    let mut sender = Client::of(client.stream.try_clone().unwrap());
    let lines = lines.concat();
    // It reads while it sends: the replies are long, too.
    std::thread::spawn(move || {
        sender.send_raw(lines.as_bytes());
        sender.finish();
    });
    let replies: Vec<Value> = (0..6).map(|_| client.receive()).collect();
    let ids: Vec<u64> = replies.iter().map(|reply| reply["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    assert_eq!(replies[2]["value"].as_array().map(Vec::len), Some(3 * MIB + 1));
    assert_eq!(client.receive_rest(), "");
}

#[test]
fn nothing_comes_between_the_parts_of_a_long_reply() {
    const KEYS: usize = 8;
    const WRITES: usize = 50;
    let (_directory, node) = node(&["--request-timeout-ms", "2000"]);
    let mut other = node.client();
    let value = "v".repeat(3 * MIB);
    for key in 0..KEYS {
        other.ok(json!({"op": "set", "key": format!("k{key}"), "value": value}));
    }
    let keys: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
    let mut client = node.client();
    let mut lines = format!("{}\n", json!({"op": "bulk_get", "keys": keys}));
    (0..WRITES)
        .for_each(|number| lines += &format!("{}\n", json!({"op": "set", "key": "last", "value": number})));
    client.send_raw(lines.as_bytes());
    // The writes are done, and their time is over, before the client has taken more than the socket holds.
    let deadline = Instant::now() + common::PATIENCE;
    while other.ok(json!({"op": "get", "key": "last"}))["value"] != json!(WRITES - 1) {
        assert!(Instant::now() < deadline, "the writes wait for the reader");
    }
    let values = client.receive();
    assert_eq!(values["values"].as_array().map(Vec::len), Some(KEYS));
    for _ in 0..WRITES {
        assert_eq!(client.receive()["ok"], true);
    }
}
