//! Texts, queries, and which texts answer which query: read from JSON lines,
//! put into a node, asked for and judged.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Value, json};

use super::{Client, Node, Options, temporary_directory};

/// Documents of one `bulk_set`.
pub const BATCH: usize = 100;

pub struct Collection {
    pub documents: Vec<Value>,
    pub queries: Vec<Value>,
    /// By query: the keys that answer it.
    relevant: HashMap<u64, HashSet<String>>,
}

/// How well a collection's queries are answered.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// The mean over the queries of their average precision.
    pub mean_average_precision: f64,
    /// The part of the first `k` that are relevant, its mean over the queries.
    pub precision_at: f64,
}

impl Quality {
    pub fn is_near(self, expected: Quality, tolerance: f64) -> bool {
        (self.mean_average_precision - expected.mean_average_precision).abs() <= tolerance
            && (self.precision_at - expected.precision_at).abs() <= tolerance
    }
}

impl Collection {
    /// `documents.jsonl`, `queries.jsonl` and `judgements.tsv` of a directory.
    pub fn read(directory: &Path) -> Collection {
        let read =
            |name: &str| std::fs::read_to_string(directory.join(name)).expect("a file of the collection");
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
        Collection {
            documents: lines(&read("documents.jsonl")),
            queries: lines(&read("queries.jsonl")),
            relevant,
        }
    }

    /// The documents as request lines of 100 each.
    pub fn batches(&self) -> Vec<Value> {
        let records = |batch: &[Value]| -> Vec<Value> {
            batch.iter().map(|document| json!([document["key"], document["value"]])).collect()
        };
        self.documents
            .chunks(BATCH)
            .map(|batch| json!({"op": "bulk_set", "records": records(batch)}))
            .collect()
    }

    /// What every query answers, in their order.
    pub fn answers(&self, client: &mut Client) -> Vec<Value> {
        client.when_ready(json!({"op": "search_text", "query": "ready"}));
        let ask = |query: &Value| json!({"op": "search_text", "query": query["text"], "match": "any", "limit": 1_000});
        self.queries.iter().map(|query| client.ok(ask(query))).collect()
    }

    /// The first `k` of each answer count for the precision.
    pub fn quality(&self, answers: &[Value], k: usize) -> Quality {
        let (mut average_precisions, mut precisions_at) = (0.0, 0.0);
        for (query, answer) in self.queries.iter().zip(answers) {
            let (average_precision, precision_at) = self.quality_of(query, answer, k);
            average_precisions += average_precision;
            precisions_at += precision_at;
        }
        let mean = |sum: f64| sum / self.queries.len() as f64;
        Quality { mean_average_precision: mean(average_precisions), precision_at: mean(precisions_at) }
    }

    fn quality_of(&self, query: &Value, answer: &Value, k: usize) -> (f64, f64) {
        let relevant = &self.relevant[&query["query"].as_u64().expect("a query's number")];
        let (mut found, mut precisions, mut among_first) = (0, 0.0, 0);
        for (place, key) in answer["keys"].as_array().expect("keys").iter().enumerate() {
            if relevant.contains(key.as_str().expect("a key")) {
                found += 1;
                precisions += f64::from(found) / (place + 1) as f64;
                among_first += i32::from(place < k);
            }
        }
        (precisions / relevant.len() as f64, f64::from(among_first) / k as f64)
    }

    /// Asserts that the answers have this quality, with one shard and with four, and that they are the same ones, also
    /// after a kill.
    pub fn assert_ranked(&self, expected: Quality, k: usize, tolerance: f64) {
        let mut pictures = Vec::new();
        for shards in ["1", "4"] {
            let directory = temporary_directory();
            let node = start(directory.path(), shards);
            let mut client = node.client();
            let written: u64 =
                self.batches().into_iter().filter_map(|batch| client.ok(batch)["count"].as_u64()).sum();
            assert_eq!(written, self.documents.len() as u64);
            let answers = self.answers(&mut client);
            let quality = self.quality(&answers, k);
            println!("{shards} shards: {quality:?}, the precision at {k}");
            assert!(
                quality.is_near(expected, tolerance),
                "{quality:?}, not {expected:?}\n{}",
                self.shortcomings(&answers, k)
            );
            let node = node.kill().start();
            assert!(self.answers(&mut node.client()) == answers, "{shards} shards: changed by a kill");
            pictures.push(answers);
        }
        assert!(pictures[0] == pictures[1], "one shard and four answer differently");
    }

    /// The queries that are not answered as they should be, for whoever has to find out why.
    fn shortcomings(&self, answers: &[Value], k: usize) -> String {
        let lines = self.queries.iter().zip(answers).filter_map(|(query, answer)| {
            let (average_precision, _) = self.quality_of(query, answer, k);
            (average_precision < 1.0).then(|| format!("{average_precision:.2} {}\n", query["text"]))
        });
        lines.take(40).collect()
    }
}

pub fn start(directory: &Path, shards: &str) -> Node {
    Options::in_directory(directory).with(&["--shards", shards]).start()
}
