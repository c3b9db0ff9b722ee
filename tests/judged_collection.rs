//! Promise: people find what they look for by the words that they type, and the
//! best comes first: with one shard and with four, before and after a kill.
//!
//! The collection in `tests/collection` was written for this: short texts of many
//! kinds and languages (prose, names, addresses, log lines, code, products), what
//! somebody who looks for one of them types, and which texts he wants to see. The
//! judgements say what people want and not what the node gives, so that not
//! all is found. A rule about words that breaks costs a query or two, and the
//! wrong parameters of BM25 cost some: more than the tolerance each.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::path::Path;

use common::collection::{Collection, Quality};

/// What an independent BM25 gives on the same words.
const QUALITY: Quality = Quality { mean_average_precision: 0.9737, precision_at: 0.3904 };
/// A query that misses one of two texts is more than twice as much.
const TOLERANCE: f64 = 0.002;

#[test]
fn what_people_look_for_is_found_and_stands_first() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/collection");
    let collection = Collection::read(&directory);
    assert!(collection.documents.len() >= 120 && collection.queries.len() >= 60);
    collection.assert_ranked(QUALITY, 3, TOLERANCE);
}
