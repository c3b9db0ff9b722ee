//! Promise: text search ranks a public test collection as BM25 should, the
//! same with one shard and with four, before and after a kill; and what was
//! acknowledged of a load that a kill cut short is there and found.
//!
//! The collection is the Cranfield one: 1,400 abstracts, 225 queries and their
//! judgements as JSON lines, in the directory that `DATASTORE_CRANFIELD` names
//! or in `../shared/data/cranfield` beside the repository. Where it is absent,
//! the tests say so and check nothing.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use common::{Client, Node, Options, temporary_directory};
use serde_json::{Value, json};

const BATCH: usize = 100;
/// What an independent BM25 gives on the same words, and how near this must come.
const MEAN_AVERAGE_PRECISION: f64 = 0.28;
const PRECISION_AT_TEN: f64 = 0.225;
const TOLERANCE: f64 = 0.01;

struct Collection {
    documents: Vec<Value>,
    queries: Vec<Value>,
    /// By query: the keys that answer it.
    relevant: HashMap<u64, HashSet<String>>,
}

fn collection() -> Option<Collection> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cranfield");
    let directory = std::env::var_os("DATASTORE_CRANFIELD").map_or(beside, PathBuf::from);
    if !directory.join("documents.jsonl").is_file() {
        println!(
            "SKIPPED: no collection in {} (DATASTORE_CRANFIELD names another place)",
            directory.display()
        );
        return None;
    }
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a file of the collection");
    let lines = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    };
    let mut relevant: HashMap<u64, HashSet<String>> = HashMap::new();
    for line in read("judgements.tsv").lines() {
        let mut columns = line.split('\t');
        let mut column = || columns.next().expect("query, key, code");
        let (query, key, code) = (column().parse(), column().to_string(), column().parse::<i32>());
        if code.is_ok_and(|code| code > 0) {
            relevant.entry(query.expect("a query's number")).or_default().insert(key);
        }
    }
    let (documents, queries) = (lines(&read("documents.jsonl")), lines(&read("queries.jsonl")));
    assert_eq!((documents.len(), queries.len()), (1_400, 225));
    Some(Collection { documents, queries, relevant })
}

impl Collection {
    /// The documents as request lines of 100 each.
    fn batches(&self) -> Vec<Value> {
        let records = |batch: &[Value]| -> Vec<Value> {
            batch.iter().map(|document| json!([document["key"], document["value"]])).collect()
        };
        self.documents
            .chunks(BATCH)
            .map(|batch| json!({"op": "bulk_set", "records": records(batch)}))
            .collect()
    }

    /// What every query answers, in their order.
    fn answers(&self, client: &mut Client) -> Vec<Value> {
        client.when_ready(json!({"op": "search_text", "query": "ready"}));
        let ask = |query: &Value| json!({"op": "search_text", "query": query["text"], "match": "any", "limit": 1_000});
        self.queries.iter().map(|query| client.ok(ask(query))).collect()
    }

    /// Mean average precision, and mean precision of the first ten.
    fn quality(&self, answers: &[Value]) -> (f64, f64) {
        let (mut average_precisions, mut firsts) = (0.0, 0.0);
        for (query, answer) in self.queries.iter().zip(answers) {
            let relevant = &self.relevant[&query["query"].as_u64().expect("a query's number")];
            let (mut found, mut precisions, mut among_ten) = (0, 0.0, 0);
            for (place, key) in answer["keys"].as_array().expect("keys").iter().enumerate() {
                if relevant.contains(key.as_str().expect("a key")) {
                    found += 1;
                    precisions += f64::from(found) / (place + 1) as f64;
                    among_ten += i32::from(place < 10);
                }
            }
            average_precisions += precisions / relevant.len() as f64;
            firsts += f64::from(among_ten) / 10.0;
        }
        (average_precisions / self.queries.len() as f64, firsts / self.queries.len() as f64)
    }
}

fn start(directory: &Path, shards: &str) -> Node {
    Options::in_directory(directory).with(&["--shards", shards]).start()
}

#[test]
fn the_collection_is_ranked_well_and_alike_by_any_shards_and_after_a_kill() {
    let Some(collection) = collection() else { return };
    let mut pictures = Vec::new();
    for shards in ["1", "4"] {
        let directory = temporary_directory();
        let node = start(directory.path(), shards);
        let mut client = node.client();
        for batch in collection.batches() {
            assert_eq!(client.ok(batch)["count"], BATCH);
        }
        let answers = collection.answers(&mut client);
        let (mean_average_precision, precision_at_ten) = collection.quality(&answers);
        println!("{shards} shards: MAP {mean_average_precision:.4}, P@10 {precision_at_ten:.4}");
        assert!((mean_average_precision - MEAN_AVERAGE_PRECISION).abs() <= TOLERANCE);
        assert!((precision_at_ten - PRECISION_AT_TEN).abs() <= TOLERANCE);
        let node = node.kill().start();
        assert!(collection.answers(&mut node.client()) == answers, "{shards} shards: changed by a kill");
        pictures.push(answers);
    }
    assert!(pictures[0] == pictures[1], "one shard and four answer differently");
}

#[test]
fn a_load_that_a_kill_cuts_short_keeps_what_was_acknowledged() {
    const ACKNOWLEDGED: usize = 5;
    let Some(collection) = collection() else { return };
    let directory = temporary_directory();
    let node = start(directory.path(), "4");
    let mut client = node.client();
    let batches = collection.batches();
    batches.iter().for_each(|batch| client.send(batch));
    (0..ACKNOWLEDGED).for_each(|_| assert_eq!(client.receive()["count"], BATCH));
    let node = node.kill().start();

    let mut client = node.client();
    client.when_ready(json!({"op": "search_text", "query": "ready"}));
    let mut present = 0;
    for (place, batch) in collection.documents.chunks(BATCH).enumerate() {
        let keys: Vec<&Value> = batch.iter().map(|document| &document["key"]).collect();
        let reply = client.ok(json!({"op": "bulk_get", "keys": keys}));
        let values = reply["values"].as_array().expect("values");
        let there =
            values.iter().zip(batch).filter(|(got, document)| got["value"] == document["value"]).count();
        assert!(there == BATCH || (there == 0 && place >= ACKNOWLEDGED), "batch {place}: {there} documents");
        for document in &batch[..there] {
            let found = client.ok(json!({"op": "search_by_value", "value": document["value"]}));
            assert!(found["keys"].as_array().expect("keys").contains(&document["key"]), "{document}");
        }
        present += there;
    }
    assert_eq!(client.ok(json!({"op": "count"}))["count"], present);
    println!("{present} of {} documents were durable at the kill", collection.documents.len());
    // The rest follows as if nothing had been.
    batches.into_iter().for_each(|batch| drop(client.ok(batch)));
    let (mean_average_precision, _) = collection.quality(&collection.answers(&mut client));
    assert!((mean_average_precision - MEAN_AVERAGE_PRECISION).abs() <= TOLERANCE);
}
