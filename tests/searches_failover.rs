//! Promise: when it says ok, it is in every index, and a failover changes none of that: as soon as the next primary
//! acknowledges a write, every document that was acknowledged before is found there by its words, its value and its
//! vector.
//!
//! `DATASTORE_FAULT_ROUNDS` says how many primaries are killed, of three nodes and of two (3 unless given). A long run:
//!
//! ```text
//! DATASTORE_FAULT_ROUNDS=100 cargo test --release -p datastore-node --test searches_failover -- --nocapture
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::Cluster;
use cluster::network::Id;
use cluster::under_load::rounds;
use datastore_utilities::linearizability::{Client, Dial, Place};
use datastore_utilities::random::Random;
use serde_json::{Value, json};

const WRITERS: usize = 4;
/// Documents that are looked for in each round: the newest, which a failover could lose.
const LOOKED_FOR: usize = 300;
/// Documents that are acknowledged before a primary is killed.
const DOCUMENTS: usize = 400;
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// The keys that a search's reply has.
type Found = fn(&Value) -> Vec<Value>;

/// A document by its number.
struct Document(u64);

impl Document {
    fn key(&self) -> String {
        format!("document-{}", self.0)
    }

    fn value(&self) -> String {
        format!("every document has words and one of its own, w{}", self.0)
    }

    /// No two of them point nearly the same way.
    fn vector(&self) -> Vec<f64> {
        let mut random = Random::new(self.0);
        (0..8).map(|_| random.below(2_001) as f64 - 1_000.5).collect()
    }

    fn writes(&self) -> [Value; 2] {
        [
            json!({"op": "set", "key": self.key(), "value": self.value()}),
            json!({"op": "add_vector", "key": self.key(), "vector": self.vector()}),
        ]
    }

    /// Searches that have to find it, and where its key stands in the reply.
    fn searches(&self) -> [(Value, Found); 3] {
        let keys = |reply: &Value| reply["keys"].as_array().cloned().unwrap_or_default();
        let hits = |reply: &Value| {
            let hits = reply["matches"].as_array().cloned().unwrap_or_default();
            hits.into_iter().map(|hit| hit["key"].clone()).collect()
        };
        [
            (json!({"op": "search_text", "query": format!("w{}", self.0)}), keys),
            (json!({"op": "search_by_value", "value": self.value()}), keys),
            (json!({"op": "vector_search", "vector": self.vector(), "top_k": 3}), hits),
        ]
    }
}

/// What the writers share.
struct Shared {
    dial: Dial,
    places: Vec<Place>,
    next: AtomicU64,
    /// Both writes of it were acknowledged, in the order of the acknowledgements.
    acknowledged: Mutex<Vec<u64>>,
    ends: AtomicBool,
}

/// Clients that write documents to whoever leads.
struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(cluster: &Cluster) -> Writers {
        let shared = Arc::new(Shared {
            dial: cluster.load("documents").dial,
            places: cluster.places(),
            next: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let start = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.write_documents())
        };
        Writers { threads: (0..WRITERS).map(start).collect(), shared }
    }

    fn acknowledged(&self) -> Vec<u64> {
        self.shared.acknowledged.lock().expect("no thread panicked").clone()
    }

    fn end(self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("it doesn't panic"));
    }
}

impl Shared {
    fn write_documents(&self) {
        let mut client = None;
        let mut place = 0;
        while !self.ends.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if client.is_none() {
                place = (place + 1) % self.places.len();
                client = Client::connect(&self.dial, self.places[place].address, REPLY_TIMEOUT).ok();
            }
            let Some(open) = &mut client else { continue };
            let mut is_taken = |request: &Value| open.call(request).is_ok_and(|reply| reply["ok"] == true);
            if Document(number).writes().iter().all(&mut is_taken) {
                self.acknowledged.lock().expect("no thread panicked").push(number);
            } else {
                client = None;
            }
        }
    }
}

/// Searches at a node that do not find what they should.
fn missing(cluster: &Cluster, at: Id, documents: &[u64]) -> Vec<String> {
    let mut client = cluster.client(at);
    let mut missing = Vec::new();
    for number in documents {
        let document = Document(*number);
        for (search, found) in document.searches() {
            let reply = client.call(&search).expect("it answers");
            if !found(&reply).contains(&json!(document.key())) {
                missing.push(format!("{search} → {reply}"));
            }
        }
    }
    missing
}

fn every_document_is_found_after_each_failover(mut cluster: Cluster, first: Option<Id>) {
    let writers = Writers::start(&cluster);
    let rounds = rounds(3);
    for round in 0..rounds {
        if let Some(first) = first {
            // Of two nodes only the one without the witness may fail.
            cluster.wait_until("the one without the witness leads", |cluster| {
                let promote = json!({"op": "promote", "node_id": first});
                cluster.leader() == Some(first) || cluster.call(first, &promote).is_err()
            });
        }
        let before = writers.acknowledged().len();
        cluster
            .wait_until("documents are acknowledged", |_| writers.acknowledged().len() >= before + DOCUMENTS);
        let leader = cluster.wait_for_leader();
        let others = cluster.others(leader);
        let acknowledged = writers.acknowledged();
        cluster.kill(leader);
        cluster.ok_among(&others, &json!({"op": "set", "key": "first of the next", "value": round}));
        let next = cluster.wait_for_leader_among(&others);
        let newest = &acknowledged[acknowledged.len().saturating_sub(LOOKED_FOR)..];
        let missing = missing(&cluster, next, newest);
        assert!(missing.is_empty(), "round {round}, node {next} after node {leader}: {missing:#?}");
        cluster.restart(leader);
        let count = cluster.ids().len();
        cluster.wait_until("it serves again", |cluster| cluster.members_serving().len() == count);
    }
    let acknowledged = writers.acknowledged();
    writers.end();
    println!(
        "{} documents, {rounds} failovers of {} nodes: 0 missing",
        acknowledged.len(),
        cluster.ids().len()
    );
    cluster.converge();
}

#[test]
fn of_three_nodes_the_next_primary_finds_every_document_by_every_index() {
    every_document_is_found_after_each_failover(Cluster::start(3), None);
}

#[test]
fn of_two_nodes_the_next_primary_finds_every_document_by_every_index() {
    every_document_is_found_after_each_failover(Cluster::start(2), Some(1));
}
