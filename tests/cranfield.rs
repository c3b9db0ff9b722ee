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

use std::path::{Path, PathBuf};

use common::collection::{BATCH, Collection, Quality, start};
use common::temporary_directory;
use serde_json::{Value, json};

/// What an independent BM25 gives on the same words, and how near this must come.
const QUALITY: Quality = Quality { mean_average_precision: 0.28, precision_at: 0.225 };
const TOLERANCE: f64 = 0.01;

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
    let collection = Collection::read(&directory);
    assert_eq!((collection.documents.len(), collection.queries.len()), (1_400, 225));
    Some(collection)
}

#[test]
fn the_collection_is_ranked_well_and_alike_by_any_shards_and_after_a_kill() {
    let Some(collection) = collection() else { return };
    collection.assert_ranked(QUALITY, 10, TOLERANCE);
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
    assert!(collection.quality(&collection.answers(&mut client), 10).is_near(QUALITY, TOLERANCE));
}
