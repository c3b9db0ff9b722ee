//! Promise: what was acknowledged survives a kill, what was refused never
//! shows, a bulk is whole or absent, and the indexes agree with the keyspace.
//!
//! Rounds of load and SIGKILL on one directory, with segments and snapshots so
//! small that the kills fall into rotations, snapshots and cuts. A kill keeps
//! the page cache, so this can't find a missing sync; the tests of crash states
//! in `src/persistence` do that.
//!
//! `DATASTORE_KILL_ROUNDS` says how many rounds (5 unless given),
//! `DATASTORE_TEST_SEED` repeats the choices of a run.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;
#[path = "common/ledger.rs"]
mod ledger;
#[path = "common/load.rs"]
mod load;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::random::Random;
use common::{Client, Node, Options, temporary_directory};
use ledger::{Kind, Shown, State, Told, value_of, vector_of};
use load::{Book, SharedBook, start_writers};
use serde_json::{Value, json};

const ROUNDS_DEFAULT: usize = 5;
/// Rounds end after a number of acknowledged writes within this range.
const ACKNOWLEDGED_PER_ROUND: std::ops::Range<u64> = 50..1_500;
/// One in so many restarts is killed as soon as it serves.
const SECOND_KILL: u64 = 4;
/// Requests of one kind that a verification makes at most.
const SEARCHES_MAX: usize = 400;
/// Requests sent before their replies are read, and keys of one `bulk_get`.
const CHUNK: usize = 100;

#[test]
fn nothing_acknowledged_is_lost_over_kills() {
    kill_rounds("0");
}

#[test]
fn nothing_refused_ever_shows_over_kills_with_failing_syncs() {
    kill_rounds("0.3");
}

#[test]
fn snapshots_made_while_writes_go_on_hold_what_was_acknowledged() {
    let mut random = Random::seeded();
    let directory = temporary_directory();
    // No snapshot but those that are asked for.
    let mut node = Options::in_directory(directory.path()).start();
    let book = Arc::new(SharedBook::default());
    for round in 0..2 {
        let writers = start_writers(node.address, &book, &mut random);
        let mut client = node.client();
        for part in 1..=4 {
            book.wait_for(part * 200);
            client.ok(json!({"op": "snapshot"}));
        }
        let killed = node.kill();
        writers.into_iter().for_each(|writer| writer.join().expect("a writer ends with the node"));
        node = killed.start();
        let recovered: Value =
            serde_json::from_str(&node.wait_for_log("\"recovered\"")).expect("a JSON line");
        assert!(recovered["fields"]["snapshot_entries"].as_u64() > Some(0), "{recovered}");
        verify(&node, &mut book.lock(), round);
    }
}

fn rounds() -> usize {
    std::env::var("DATASTORE_KILL_ROUNDS").map_or(ROUNDS_DEFAULT, |rounds| rounds.parse().expect("a number"))
}

fn kill_rounds(drop_rate: &str) {
    let mut random = Random::seeded();
    let directory = temporary_directory();
    let flags = ["--drop-rate", drop_rate, "--segment-bytes", "65536", "--snapshot-every-bytes", "131072"];
    let mut node = Options::in_directory(directory.path()).with(&flags).start();
    let book = Arc::new(SharedBook::default());
    let mut recoveries = Vec::new();
    let mut kills = 0;
    for round in 0..rounds() {
        let writers = start_writers(node.address, &book, &mut random);
        book.wait_for(random.of(ACKNOWLEDGED_PER_ROUND));
        let mut killed = node.kill();
        kills += 1;
        writers.into_iter().for_each(|writer| writer.join().expect("a writer ends with the node"));
        if random.of(0..SECOND_KILL) == 0 {
            killed = killed.start().kill();
            kills += 1;
        }
        let began = Instant::now();
        node = killed.start();
        recoveries.push(began.elapsed());
        verify(&node, &mut book.lock(), round);
    }
    report(drop_rate, kills, &book.lock(), recoveries);
}

fn report(drop_rate: &str, kills: usize, book: &Book, mut recoveries: Vec<Duration>) {
    recoveries.sort();
    let percentile = |percent: usize| recoveries[(recoveries.len() - 1) * percent / 100];
    let figures = &book.ledger.figures;
    println!(
        "drop rate {drop_rate}: kills {kills}, writes acknowledged {} refused {} unknown {}, registers verified {}, \
         start to serving p50 {:?} p99 {:?}",
        figures.acknowledged,
        figures.refused,
        figures.unknown,
        figures.registers_verified,
        percentile(50),
        percentile(99),
    );
}

/// Holds the restarted node to the book.
fn verify(node: &Node, book: &mut Book, round: usize) {
    let mut client = node.client();
    client.when_ready(json!({"op": "search_text", "query": "ready"}));
    let state = scanned(&mut client);
    lookups_agree(&mut client, &state, book);
    searches_agree(&mut client, &state, book);
    dead_writes_are_not_found(&mut client, &state, book);
    let faults = book.ledger.settle(state);
    assert!(faults.is_empty(), "round {round}: {} faults\n{}", faults.len(), faults.join("\n"));
}

/// Every key, by the order index.
fn scanned(client: &mut Client) -> State {
    let mut state = State::new();
    let mut request = json!({"op": "scan", "vectors": true});
    loop {
        let page = client.ok(request.clone());
        for item in page["items"].as_array().expect("a page has items") {
            let key = item["key"].as_str().expect("an item has its key");
            assert!(state.insert(key.to_string(), Shown::of_item(item)).is_none(), "{key} is scanned twice");
        }
        if page["next"].is_null() {
            assert_eq!(client.ok(json!({"op": "count"}))["count"], state.len());
            return state;
        }
        request["after"] = page["next"].clone();
    }
}

/// `bulk_get` of every key that was ever written shows what the scan showed.
fn lookups_agree(client: &mut Client, state: &State, book: &Book) {
    let keys: Vec<String> = book.ledger.keys().into_iter().collect();
    for chunk in keys.chunks(CHUNK) {
        let reply = client.ok(json!({"op": "bulk_get", "keys": chunk}));
        for (key, got) in chunk.iter().zip(reply["values"].as_array().expect("a list of values")) {
            let value = state.get(key).and_then(|shown| shown.value);
            assert_eq!(got["value"], value.map_or(Value::Null, |number| value_of(number, key)), "{key}");
            let version = state.get(key).map(|shown| shown.version.as_str());
            assert_eq!(got["version"].as_str(), version, "{key}");
        }
    }
}

/// What the round's keys show is found by value, by text and by vector, at its key alone.
fn searches_agree(client: &mut Client, state: &State, book: &Book) {
    let touched = state.iter().filter(|(key, _)| book.ledger.touched(key));
    let mut searches = Vec::new();
    for (key, shown) in touched.take(SEARCHES_MAX) {
        if let Some(number) = shown.value {
            searches.push((json!({"op": "search_by_value", "value": value_of(number, key)}), json!([key])));
            let holders: Vec<&String> =
                state.iter().filter(|(_, other)| other.value == Some(number)).map(|(key, _)| key).collect();
            searches.push((json!({"op": "search_text", "query": format!("word{number}")}), json!(holders)));
        }
        if let Some(number) = shown.vector {
            let vector = vector_of(number);
            let query = json!({"op": "vector_search", "vector": vector, "prefix": key, "top_k": 2});
            searches.push((query, json!([key])));
        }
    }
    expect_found(client, &searches);
}

/// Neither what was refused nor what was overwritten is found by its word.
fn dead_writes_are_not_found(client: &mut Client, state: &State, book: &Book) {
    let alive = |number| state.values().any(|shown| shown.value == Some(number));
    let sets = book.ledger.writes().filter(|write| write.kind == Kind::SetValue && !alive(write.number));
    let mut dead: Vec<_> = sets.collect();
    dead.sort_by_key(|write| (write.told != Told::Refused, write.number));
    let search = |number| json!({"op": "search_text", "query": format!("word{number}")});
    let searches: Vec<(Value, Value)> =
        dead.iter().take(SEARCHES_MAX).map(|write| (search(write.number), json!([]))).collect();
    expect_found(client, &searches);
}

/// Sends searches in a pipeline and compares the keys that they find, whatever their order.
fn expect_found(client: &mut Client, searches: &[(Value, Value)]) {
    for chunk in searches.chunks(CHUNK) {
        chunk.iter().for_each(|(query, _)| client.send(query));
        for (query, expected) in chunk {
            let reply = client.receive();
            let mut found: Vec<Value> = match &reply["matches"] {
                Value::Array(matches) => matches.iter().map(|found| found["key"].clone()).collect(),
                _ => reply["keys"].as_array().unwrap_or_else(|| panic!("{query} → {reply}")).clone(),
            };
            found.sort_by_key(Value::to_string);
            assert_eq!(&Value::from(found), expected, "{query}");
        }
    }
}
