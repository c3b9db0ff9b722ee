//! The promises about who comes first: a condition is decided on what is really
//! there, a bulk write is all or nothing for everyone who comes after its `ok`,
//! writes of one connection to one key keep their order, and whatever meets on
//! the same keys, nobody waits for ever.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use common::random::{Random, seed};
use common::{Client, Node, Options, temporary_directory};
use serde_json::{Value, json};

/// Runs `work` with a node of so many shards.
fn with_node(shards: &str, work: impl FnOnce(&Node)) {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--shards", shards]).start();
    node.client().when_ready(json!({ "op": "scan" }));
    work(&node);
}

/// Runs one thread per connection at the same time.
fn at_once<T: Send>(node: &Node, connections: u64, work: impl Fn(u64, Client) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let client = node.client();
                scope.spawn(move || work(number, client))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).collect()
    })
}

/// Enough keys to lie on every shard.
fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key-{number}")).collect()
}

fn bulk(keys: &[String], value: &Value) -> Value {
    let records: Vec<Value> = keys.iter().map(|key| json!([key, value])).collect();
    json!({ "op": "bulk_set", "records": records })
}

fn all_of<'r>(reply: &'r Value, field: &str) -> Vec<&'r Value> {
    reply["values"].as_array().expect("a list of values").iter().map(|value| &value[field]).collect()
}

#[test]
fn no_increment_by_compare_and_set_is_lost_or_counted_twice() {
    const CONNECTIONS: u64 = 8;
    const INCREMENTS: u64 = 25;
    with_node("4", |node| {
        at_once(node, CONNECTIONS, |_, mut client| {
            for _ in 0..INCREMENTS {
                increment(&mut client);
            }
        });
        let counter = node.client().ok(json!({ "op": "get", "key": "counter" }));
        assert_eq!(counter["value"], CONNECTIONS * INCREMENTS);
    });
}

fn increment(client: &mut Client) {
    let mut read = client.ok(json!({ "op": "get", "key": "counter" }));
    loop {
        let next = read["value"].as_u64().unwrap_or(0) + 1;
        let version = &read["version"];
        let request = json!({ "op": "set", "key": "counter", "value": next, "if_version": version });
        let reply = client.call(request);
        if reply["ok"] == true {
            return;
        }
        assert_eq!(reply["error"]["code"], "version_mismatch", "{reply}");
        assert_ne!(reply["error"]["current"], *version, "{reply}");
        read = client.ok(json!({ "op": "get", "key": "counter" }));
    }
}

#[test]
fn of_many_that_set_an_absent_key_exactly_one_wins() {
    const CONNECTIONS: u64 = 6;
    const ROUNDS: usize = 40;
    with_node("4", |node| {
        let start = Barrier::new(CONNECTIONS as usize);
        let wins = at_once(node, CONNECTIONS, |number, mut client| {
            // Half of them say it as a version.
            let (field, wanted) =
                if number % 2 == 0 { ("if_absent", json!(true)) } else { ("if_version", Value::Null) };
            let round = |round| {
                start.wait();
                let key = format!("prize-{round}");
                let reply = client.call(json!({ "op": "set", "key": key, "value": number, field: wanted }));
                let code = reply["error"]["code"].as_str().unwrap_or("ok").to_string();
                assert!(["ok", "already_exists", "version_mismatch"].contains(&&code[..]), "{reply}");
                code == "ok"
            };
            (0..ROUNDS).map(round).collect::<Vec<bool>>()
        });
        for round in 0..ROUNDS {
            let winners: Vec<usize> = (0..wins.len()).filter(|&number| wins[number][round]).collect();
            let held = node.client().ok(json!({ "op": "get", "key": format!("prize-{round}") }));
            assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
            assert_eq!(held["value"], winners[0], "round {round}");
        }
    });
}

#[test]
fn bulks_and_conditions_on_the_same_keys_all_get_their_answers() {
    const CONNECTIONS: u64 = 6;
    const REQUESTS: usize = 250;
    let seed = seed();
    with_node("4", |node| {
        at_once(node, CONNECTIONS, |number, mut client| {
            let mut random = Random::new(seed, number);
            let requests: Vec<Value> = (0..REQUESTS).map(|_| contention(&mut random)).collect();
            let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
            client.send_raw(lines.as_bytes());
            for request in &requests {
                let reply = client.receive();
                let code = reply["error"]["code"].as_str().unwrap_or("ok");
                let expected = ["ok", "already_exists", "version_mismatch"];
                assert!(expected.contains(&code), "{request} → {reply}");
            }
        });
    });
}

/// Something that contends with everything like it.
fn contention(random: &mut Random) -> Value {
    let keys = keys(8);
    let key = random.pick(&keys).clone();
    let from = random.below(keys.len());
    let some = &keys[from..from + 1 + random.below(keys.len() - from)];
    match random.below(6) {
        0 => bulk(some, &json!(random.next())),
        1 => json!({ "op": "bulk_delete", "keys": some }),
        2 => json!({ "op": "set", "key": key, "value": 1, "if_absent": true }),
        3 => json!({ "op": "set", "key": key, "value": 2, "if_version": null }),
        4 => json!({ "op": "delete", "key": key, "if_version": null }),
        _ => json!({ "op": "bulk_get", "keys": some }),
    }
}

#[test]
fn whoever_reads_after_a_bulks_answer_sees_all_of_it() {
    const GENERATIONS: u64 = 120;
    let keys = keys(16);
    with_node("4", |node| {
        node.client().ok(bulk(&keys, &json!(0)));
        let answered = AtomicU64::new(0);
        at_once(node, 4, |number, mut client| {
            if number == 0 {
                for generation in 1..=GENERATIONS {
                    client.ok(bulk(&keys, &json!(generation)));
                    answered.store(generation, Ordering::SeqCst);
                }
                return;
            }
            while answered.load(Ordering::SeqCst) < GENERATIONS {
                let least = answered.load(Ordering::SeqCst);
                for generation in read_generations(&mut client, number, &keys) {
                    assert!(generation >= least, "{generation} was read after {least} was answered");
                }
            }
        });
    });
}

/// Reads the numbers that all keys hold, in one of three ways.
fn read_generations(client: &mut Client, way: u64, keys: &[String]) -> Vec<u64> {
    let numbers: Vec<u64> = match way {
        1 => {
            let reply = client.ok(json!({ "op": "bulk_get", "keys": keys }));
            all_of(&reply, "value").iter().filter_map(|value| value.as_u64()).collect()
        }
        2 => {
            let reply = client.ok(json!({ "op": "scan", "prefix": "key-" }));
            reply["items"].as_array().unwrap().iter().filter_map(|item| item["value"].as_u64()).collect()
        }
        _ => {
            let get = |key| client.ok(json!({ "op": "get", "key": key }))["value"].as_u64();
            keys.iter().filter_map(get).collect()
        }
    };
    assert_eq!(numbers.len(), keys.len(), "way {way}: a key was missing");
    numbers
}

#[test]
fn of_two_bulks_on_the_same_keys_one_is_wholly_there_in_the_end() {
    const ROUNDS: usize = 60;
    /// Sent in one go by each side.
    const BULKS: usize = 3;
    let keys = keys(24);
    with_node("4", |node| {
        let start = Barrier::new(2);
        at_once(node, 2, |number, mut client| {
            let mut random = Random::new(number, 0);
            for round in 0..ROUNDS {
                let mut turned = keys.clone();
                turned.rotate_left(random.below(keys.len()));
                let values: Vec<Value> = (0..BULKS).map(|at| json!([number, round, at])).collect();
                let lines: String =
                    values.iter().map(|value| format!("{}\n", bulk(&turned, value))).collect();
                start.wait();
                client.send_raw(lines.as_bytes());
                let written: Vec<Value> = values.iter().map(|_| client.receive()).collect();
                start.wait();
                let held = client.ok(json!({ "op": "bulk_get", "keys": keys }));
                check_one_won(&held, (number, &written));
            }
        });
    });
}

/// All keys hold what one bulk wrote; if it was `side`'s, its last.
fn check_one_won(held: &Value, (side, written): (u64, &[Value])) {
    let (values, versions) = (all_of(held, "value"), all_of(held, "version"));
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
    assert!(written.iter().all(|reply| reply["ok"] == true), "{written:?}");
    let last = &written.last().unwrap()["version"];
    assert_eq!(values[0][0] == side, versions[0] == last, "{held} after {written:?}");
}

#[test]
fn of_a_key_twice_in_a_bulk_the_last_one_counts() {
    with_node("4", |node| {
        let mut client = node.client();
        let records: Vec<Value> = (0..60).map(|at| json!([format!("twice-{}", at % 20), at])).collect();
        client.ok(json!({ "op": "bulk_set", "records": records }));
        for number in 0..20 {
            let held = client.ok(json!({ "op": "get", "key": format!("twice-{number}") }));
            assert_eq!(held["value"], 40 + number, "twice-{number}");
        }
        assert_eq!(client.ok(json!({ "op": "count", "prefix": "twice-" }))["count"], 20);
    });
}

/// Bulks of one key and of several, and single writes, to the same keys in one go.
fn order_is_kept(shards: &str) {
    with_node(shards, |node| {
        let mut client = node.client();
        for round in 0..60 {
            for size in [1, 2, 8] {
                let keys = keys(size);
                let value = |what: &str| json!([what, round, size]);
                let key = &keys[size - 1];
                let requests = [
                    json!({ "op": "set", "key": key, "value": value("before") }),
                    bulk(&keys, &value("bulk")),
                    json!({ "op": "get", "key": key }),
                    json!({ "op": "set", "key": key, "value": value("single") }),
                    json!({ "op": "get", "key": key }),
                    bulk(&keys, &value("another bulk")),
                    json!({ "op": "delete", "key": key }),
                    json!({ "op": "get", "key": key }),
                    json!({ "op": "bulk_delete", "keys": keys }),
                    json!({ "op": "set", "key": key, "value": value("last") }),
                    json!({ "op": "get", "key": key }),
                ];
                let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
                client.send_raw(lines.as_bytes());
                let replies: Vec<Value> = requests.iter().map(|_| client.receive()).collect();
                let read: Vec<&Value> = [2, 4, 7, 10].map(|at: usize| &replies[at]["value"]).to_vec();
                let expected = [value("bulk"), value("single"), Value::Null, value("last")];
                assert_eq!(read, expected.iter().collect::<Vec<_>>(), "{size} keys");
                assert_eq!(replies[6]["deleted"], true, "{size} keys");
                let held = client.ok(json!({ "op": "get", "key": key }));
                assert_eq!(held["value"], value("last"), "{size} keys, in the end");
            }
        }
    });
}

#[test]
fn one_connections_bulks_and_single_writes_keep_their_order_over_four_shards() {
    order_is_kept("4");
}

#[test]
fn one_connections_bulks_and_single_writes_keep_their_order_on_one_shard() {
    order_is_kept("1");
}
