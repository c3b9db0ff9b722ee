//! The promise: on one connection a request sees the effect of every request
//! before it, without waiting for a reply. Random requests are sent in bursts,
//! and every reply must be what a model of the keyspace says; other connections
//! do the same next to it, on keys of their own.
//!
//! Searches, scans and counts may also see what was sent behind them: only those
//! at the end of a burst are compared.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::random::{Random, seed};
use common::{Client, Node, Options, temporary_directory};
use serde_json::{Value, json};

const CONNECTIONS: u64 = 4;
const BURSTS: usize = 120;
/// Requests of a burst, at most, without the searches at its end.
const BURST_LENGTH: usize = 40;
/// Searches, scans and counts at the end of a burst.
const SEARCHES: usize = 3;
/// Few, so that requests meet on them.
const KEYS: usize = 7;
const COLOURS: [&str; 3] = ["red", "green", "blue"];

#[derive(Clone, Default)]
struct Entry {
    value: Option<Value>,
    has_vector: bool,
}

/// A request, and the essence of the reply that it must get; null: any that is ok.
type Exchange = (Value, Value);

/// What one connection's keys hold, and what it asks next.
struct Model {
    random: Random,
    /// Begins every key and every word of this connection.
    name: String,
    entries: BTreeMap<String, Entry>,
    writes: usize,
}

impl Model {
    fn key(&mut self) -> String {
        format!("{}/{}", self.name, self.random.below(KEYS))
    }

    fn some_keys(&mut self) -> Vec<String> {
        let keys: BTreeSet<String> = (0..1 + self.random.below(KEYS)).map(|_| self.key()).collect();
        keys.into_iter().collect()
    }

    fn colour(&mut self) -> String {
        format!("{}{}", self.name, self.random.pick(&COLOURS))
    }

    fn value(&mut self) -> Value {
        self.writes += 1;
        let (colour, number) = (self.colour(), self.writes);
        if self.random.below(2) == 0 { json!(colour) } else { json!({ "paint": colour, "number": number }) }
    }

    fn put(&mut self, key: &str, value: Value) {
        self.entries.entry(key.to_string()).or_default().value = Some(value);
    }

    /// The keys for which this holds, in order.
    fn keys_where(&self, holds: impl Fn(&Entry) -> bool) -> Vec<&String> {
        self.entries.iter().filter(|(_, entry)| holds(entry)).map(|(key, _)| key).collect()
    }

    fn burst(&mut self) -> Vec<Exchange> {
        let length = self.random.below(BURST_LENGTH + 1);
        let mut burst: Vec<Exchange> = (0..length).map(|_| self.next()).collect();
        burst.extend((0..SEARCHES).map(|_| self.wide_read()));
        burst
    }

    fn next(&mut self) -> Exchange {
        match self.random.below(12) {
            0..=2 => self.set(),
            3 => self.conditional_set(),
            4 => self.delete(),
            5 => self.add_vector(),
            6 => self.bulk_set(),
            7 => self.bulk_delete(),
            8 | 9 => self.get(),
            10 => self.bulk_get(),
            _ => (self.wide_read().0, Value::Null),
        }
    }

    fn wide_read(&mut self) -> Exchange {
        match self.random.below(5) {
            0 => self.scan(),
            1 => self.count(),
            _ => self.search(),
        }
    }

    fn set(&mut self) -> Exchange {
        let (key, value) = (self.key(), self.value());
        self.put(&key, value.clone());
        (json!({ "op": "set", "key": key, "value": value }), json!("written"))
    }

    fn conditional_set(&mut self) -> Exchange {
        let (key, value) = (self.key(), self.value());
        let exists = self.entries.contains_key(&key);
        let (field, wanted, refusal) = match self.random.below(3) {
            0 => ("if_absent", json!(true), exists.then_some("already_exists")),
            1 => ("if_version", Value::Null, exists.then_some("version_mismatch")),
            _ => ("if_version", json!("never"), Some("version_mismatch")),
        };
        let request = json!({ "op": "set", "key": key, "value": value, field: wanted });
        if let Some(refusal) = refusal {
            return (request, json!(refusal));
        }
        self.put(&key, value);
        (request, json!("written"))
    }

    fn delete(&mut self) -> Exchange {
        let key = self.key();
        let existed = self.entries.remove(&key).is_some();
        (json!({ "op": "delete", "key": key }), json!({ "deleted": existed }))
    }

    fn add_vector(&mut self) -> Exchange {
        let key = self.key();
        self.entries.entry(key.clone()).or_default().has_vector = true;
        (json!({ "op": "add_vector", "key": key, "vector": [1, 2, 3] }), json!("written"))
    }

    fn bulk_set(&mut self) -> Exchange {
        let mut records: Vec<(String, Value)> = Vec::new();
        for _ in 0..1 + self.random.below(KEYS) {
            records.push((self.key(), self.value())); // a key may come twice
        }
        records.iter().for_each(|(key, value)| self.put(key, value.clone()));
        (json!({ "op": "bulk_set", "records": records }), json!("written"))
    }

    fn bulk_delete(&mut self) -> Exchange {
        let keys = self.some_keys();
        let existed = keys.iter().filter(|&key| self.entries.remove(key).is_some()).count();
        (json!({ "op": "bulk_delete", "keys": keys }), json!({ "count": existed }))
    }

    fn get(&mut self) -> Exchange {
        let key = self.key();
        let value = self.entries.get(&key).and_then(|entry| entry.value.clone());
        (json!({ "op": "get", "key": key }), json!({ "value": value }))
    }

    fn bulk_get(&mut self) -> Exchange {
        let keys = self.some_keys();
        let values: Vec<_> =
            keys.iter().map(|key| self.entries.get(key).and_then(|entry| entry.value.clone())).collect();
        (json!({ "op": "bulk_get", "keys": keys }), json!({ "values": values }))
    }

    fn search(&mut self) -> Exchange {
        let colour = self.colour();
        let painted = |entry: &Entry| entry.value.as_ref().is_some_and(|value| value["paint"] == colour[..]);
        let is = |entry: &Entry| entry.value.as_ref().is_some_and(|value| *value == colour[..]);
        match self.random.below(3) {
            0 => {
                let request = json!({ "op": "search_by_value", "value": colour });
                (request, json!({ "keys": self.keys_where(is) }))
            }
            1 => {
                let keys = self.keys_where(|entry| is(entry) || painted(entry));
                (json!({ "op": "search_text", "query": colour }), json!({ "keys": keys }))
            }
            _ => {
                let (prefix, vector) = (format!("{}/", self.name), [1, 2, 3]);
                let request = json!({ "op": "vector_search", "vector": vector, "prefix": prefix });
                (request, json!({ "keys": self.keys_where(|entry| entry.has_vector) }))
            }
        }
    }

    fn scan(&mut self) -> Exchange {
        let request = json!({ "op": "scan", "prefix": format!("{}/", self.name) });
        let items: Vec<_> = self.entries.iter().map(|(key, entry)| json!([key, entry.value])).collect();
        (request, json!({ "items": items }))
    }

    fn count(&mut self) -> Exchange {
        let request = json!({ "op": "count", "prefix": format!("{}/", self.name) });
        (request, json!({ "count": self.entries.len() }))
    }
}

/// What of a reply the model foresees.
fn essence(operation: &str, reply: &Value) -> Value {
    if reply["ok"] != true {
        return reply["error"]["code"].clone();
    }
    let each = |field: &str, of: &dyn Fn(&Value) -> Value| -> Vec<Value> {
        reply[field].as_array().expect("a list").iter().map(of).collect()
    };
    let sorted = |mut keys: Vec<Value>| {
        keys.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        json!({ "keys": keys })
    };
    match operation {
        "get" => json!({ "value": reply["value"] }),
        "delete" => json!({ "deleted": reply["deleted"] }),
        "bulk_delete" | "count" => json!({ "count": reply["count"] }),
        "bulk_get" => json!({ "values": each("values", &|value| value["value"].clone()) }),
        "search_by_value" => json!({ "keys": reply["keys"] }),
        "search_text" => sorted(each("keys", &Value::clone)),
        "vector_search" => sorted(each("matches", &|found| found["key"].clone())),
        "scan" => json!({ "items": each("items", &|item| json!([item["key"], item["value"]])) }),
        _ => json!("written"),
    }
}

fn converse(mut client: Client, random: Random, name: String) {
    let mut model = Model { random, name, entries: BTreeMap::new(), writes: 0 };
    for _ in 0..BURSTS {
        let burst = model.burst();
        let lines: String = burst.iter().map(|(request, _)| format!("{request}\n")).collect();
        client.send_raw(lines.as_bytes());
        for (at, (request, expected)) in burst.iter().enumerate() {
            let reply = client.receive();
            let met = match expected {
                Value::Null => reply["ok"] == true,
                _ => essence(request["op"].as_str().unwrap(), &reply) == *expected,
            };
            let before = || lines.lines().take(at).collect::<Vec<_>>().join("\n");
            assert!(met, "{request} → {reply} instead of {expected}, behind\n{}", before());
        }
    }
}

fn all_converse(node: &Node, seed: u64) {
    node.client().when_ready(json!({ "op": "search_text", "query": "anything" }));
    std::thread::scope(|scope| {
        for stream in 0..CONNECTIONS {
            let (client, random) = (node.client(), Random::new(seed, stream));
            scope.spawn(move || converse(client, random, format!("c{stream}")));
        }
    });
}

#[test]
fn a_connection_sees_its_own_writes_over_four_shards() {
    let directory = temporary_directory();
    all_converse(&Options::in_directory(directory.path()).start(), seed());
}

#[test]
fn a_connection_sees_its_own_writes_over_one_shard() {
    let directory = temporary_directory();
    all_converse(&Options::in_directory(directory.path()).with(&["--shards", "1"]).start(), seed());
}
