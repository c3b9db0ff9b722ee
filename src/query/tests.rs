//! One shard and four shards against a plain map, after random writes: every
//! kind of query, on one page and on pages of every size.

mod text;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Part, Progress, Query, TextQuery, ValueQuery, decode_key_cursor, merge_scan_pages, merge_value_pages,
    merge_vector_pages,
};
use crate::engine::{Change, Entry, Placement, Version};
use crate::error::{Code, Detail};
use crate::indexing::{
    Budget, Hit, Indexes, KeyRange, KeysCounted, Kinds, Parts, QueryTerm, Sizes, terms_of_query,
};
use crate::messaging::Match;

const HASH_KEY: (u64, u64) = (11, 12);

const KEYS: &[&str] =
    &["a", "a/", "a/b", "a/b/c", "a0", "ab", "b", "b/é", "é", "éa", "z", "zz", "日本", "k1", "k2"];

/// Texts of which some are the same data; queries are made of their words.
const VALUES: &[&str] = &[
    "1",
    "1.0",
    " 10e-1",
    "\"one\"",
    "\"\\u006fne\"",
    "\"red apple\"",
    "\"red red red apple pie\"",
    "{\"a\":\"red\",\"b\":[\"green apple\",{\"c\":\"blue\"}]}",
    "{\"b\":[\"green apple\",{\"c\":\"blue\"}],\"a\":\"red\"}",
    "[\"green\",\"green\",\"blue sky\",1]",
    "\"東京都の猫\"",
    "null",
    "[]",
    "\"!?\"",
];

const QUERIES: &[&str] = &[
    "red",
    "apple red",
    "red green blue",
    "one",
    "東京",
    "apple nothing",
    "?",
    "sky pie one red",
    "red sky red",
];

/// Small whole numbers, whose products any order of summing gets right.
const VECTORS: &[&[f32]] =
    &[&[1.0, 0.0], &[2.0, 0.0], &[0.0, -3.0], &[3.0, 4.0], &[-1.0, 1.0], &[1.0, 2.0, 2.0], &[-2.0, 1.0, 5.0]];

#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize),
    AddVector(usize, usize),
    Delete(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..KEYS.len();
    let step = prop_oneof![
        4 => (key.clone(), 0..VALUES.len()).prop_map(|(key, value)| Step::Set(key, value)),
        2 => (key.clone(), 0..VECTORS.len()).prop_map(|(key, vector)| Step::AddVector(key, vector)),
        2 => key.prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 0..60)
}

/// A node's shards, and the map that they should answer like.
struct Node {
    placement: Placement,
    shards: Vec<Indexes>,
}

impl Node {
    fn new(shards: usize) -> Node {
        Node {
            placement: Placement::new(HASH_KEY, shards),
            shards: (0..shards).map(|_| Indexes::new(Kinds::ALL, HASH_KEY)).collect(),
        }
    }

    fn apply(&mut self, change: &Change) {
        let key = change.new.as_ref().or(change.old.as_ref()).unwrap().key();
        let shard = self.placement.shard(self.placement.hash(key));
        self.shards[shard].apply(change);
    }

    fn scan(&self, range: &KeyRange<'_>, limit: usize, bytes_max: usize) -> Vec<Entry> {
        let parts = Parts { values: true, vectors: true };
        let mut found: Vec<Entry> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let after = cursor.as_ref().map(|cursor| decode_key_cursor(cursor.as_bytes()).unwrap());
            let range = KeyRange { after, ..*range };
            let pages = self.shards.iter().map(|shard| shard.scan(&range, parts, limit, bytes_max)).collect();
            let page = merge_scan_pages(pages, range.reverse, parts, limit, bytes_max);
            assert!(page.entries.len() <= limit);
            assert!(
                page.entries.len() <= 1
                    || page.entries.iter().map(|e| parts.item_bytes(e)).sum::<usize>() <= bytes_max
            );
            found.extend(page.entries);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return found,
            }
        }
    }

    fn search_value(
        &self,
        value: &str,
        prefix: Option<&str>,
        limit: usize,
        bytes_max: usize,
    ) -> (Vec<Entry>, u64) {
        let mut found: Vec<Entry> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let after = cursor.as_ref().map(|cursor| decode_key_cursor(cursor.as_bytes()).unwrap());
            let bytes = Bytes::copy_from_slice;
            let (prefix, after) = (prefix.map(|prefix| bytes(prefix.as_bytes())), after.map(bytes));
            let query =
                Query::Value(ValueQuery::new(HASH_KEY, bytes(value.as_bytes()), prefix, after, limit));
            let page_of = |shard| match text::run(&query, shard).unwrap() {
                Part::Value(page) => page,
                other => panic!("{other:?}"),
            };
            let page = merge_value_pages(self.shards.iter().map(page_of).collect(), limit, bytes_max);
            assert!(page.entries.len() <= limit);
            found.extend(page.entries);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return (found, page.total),
            }
        }
    }

    fn search_text(
        &self,
        query: &str,
        matching: Match,
        prefix: Option<&str>,
        limit: usize,
    ) -> (Vec<Hit>, u64) {
        let mut found: Vec<Hit> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = text::ask(&self.shards, query, matching, prefix, limit, cursor.as_deref()).unwrap();
            assert!(page.hits.len() <= limit);
            found.extend(page.hits);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return (found, page.total),
            }
        }
    }
}

type Model = BTreeMap<Vec<u8>, Entry>;

fn change_of(model: &mut Model, step: &Step, index: u64) -> Option<Change> {
    let version = Version { index, ordinal: 0 };
    let (Step::Set(key, _) | Step::AddVector(key, _) | Step::Delete(key)) = *step;
    let key = KEYS[key].as_bytes();
    let old = model.get(key).cloned();
    let new = match (step, &old) {
        (Step::Set(_, value), Some(old)) => Some(old.with_value(version, VALUES[*value].as_bytes())),
        (Step::Set(_, value), None) => Some(Entry::new(version, key, Some(VALUES[*value].as_bytes()), None)),
        (Step::AddVector(_, vector), Some(old)) => Some(old.with_vector(version, VECTORS[*vector])),
        (Step::AddVector(_, vector), None) => Some(Entry::new(version, key, None, Some(VECTORS[*vector]))),
        (Step::Delete(_), _) => None,
    };
    match &new {
        Some(entry) => drop(model.insert(key.to_vec(), entry.clone())),
        None => drop(model.remove(key)),
    }
    (old.is_some() || new.is_some()).then_some(Change { old, new })
}

/// The very same entries, not only the same keys: an index must not keep an old one.
fn assert_same(found: &[Entry], expected: &[&Entry]) {
    assert_eq!(found.len(), expected.len(), "{found:?} instead of {expected:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.is_same(expected), "{found:?} instead of {expected:?}");
    }
}

fn check_keys(node: &Node, model: &Model) {
    let bounds = [None, Some("a/"), Some("a/b"), Some("b"), Some("é"), Some("zz")];
    for (index, (start, end)) in bounds.iter().flat_map(|start| bounds.map(|end| (*start, end))).enumerate() {
        for prefix in [None, Some("a"), Some("é"), Some("zzz")] {
            for reverse in [false, true] {
                let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
                let range = KeyRange {
                    prefix: bytes(prefix),
                    start: bytes(start),
                    end: bytes(end),
                    after: None,
                    reverse,
                };
                let mut expected: Vec<&Entry> = model
                    .values()
                    .filter(|entry| prefix.is_none_or(|prefix| entry.key().starts_with(prefix.as_bytes())))
                    .filter(|entry| start.is_none_or(|start| entry.key() >= start.as_bytes()))
                    .filter(|entry| end.is_none_or(|end| entry.key() < end.as_bytes()))
                    .collect();
                if reverse {
                    expected.reverse();
                }
                assert_same(&node.scan(&range, 1 + index % 5, usize::MAX), &expected);
                assert_same(&node.scan(&range, 100, 10 + index * 3), &expected);
            }
        }
    }
    for prefix in ["a", "a/", "é", "q"] {
        let expected = model.keys().filter(|key| key.starts_with(prefix.as_bytes())).count() as u64;
        assert_eq!(node.shards.iter().map(|shard| count(shard, prefix)).sum::<u64>(), expected);
    }
    assert_eq!(node.shards.iter().map(|shard| count(shard, "")).sum::<u64>(), model.len() as u64);
}

/// As a count goes on, a few keys at a time.
fn count(shard: &Indexes, prefix: &str) -> u64 {
    let mut counted = shard.count(prefix.as_bytes(), None, 2);
    while let Some(last) = counted.last {
        let next = shard.count(prefix.as_bytes(), Some(last.key()), 2);
        counted = KeysCounted { count: counted.count + next.count, last: next.last };
    }
    counted.count
}

fn check_values(node: &Node, model: &Model) {
    // Which of the values are the same data, said by hand.
    let group = |value: &str| match VALUES.iter().position(|other| *other == value).unwrap() {
        0..=2 => 0,
        3..=4 => 3,
        7..=8 => 7,
        other => other,
    };
    for value in VALUES {
        let holds = |entry: &&Entry| {
            entry.value().is_some_and(|other| group(std::str::from_utf8(other).unwrap()) == group(value))
        };
        for prefix in [None, Some("a"), Some("a/b"), Some("é"), Some("q")] {
            let expected: Vec<&Entry> =
                model.values().filter(holds).filter(|entry| text::has_prefix(entry, prefix)).collect();
            for (limit, bytes_max) in [(1, usize::MAX), (2, usize::MAX), (3, 2), (100, 7), (100, usize::MAX)]
            {
                let (found, total) = node.search_value(value, prefix, limit, bytes_max);
                assert_same(&found, &expected);
                assert_eq!(total, expected.len() as u64);
            }
        }
    }
}

/// BM25 as the textbook has it, over the strings of each value.
fn ranked_by_hand<'a>(model: &'a Model, query: &str, matching: Match) -> Vec<(f64, &'a Entry)> {
    fn words(value: &serde_json::Value) -> Vec<String> {
        match value {
            // The words of these tests have no accents or apostrophes; pairs and characters stand for the Chinese ones.
            serde_json::Value::String(text) if text.is_ascii() => text
                .split(|c: char| !c.is_alphanumeric())
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect(),
            serde_json::Value::String(text) => {
                let characters: Vec<char> = text.chars().collect();
                characters.windows(2).chain(characters.chunks(1)).map(|part| part.iter().collect()).collect()
            }
            serde_json::Value::Array(items) => items.iter().flat_map(words).collect(),
            serde_json::Value::Object(members) => members.values().flat_map(words).collect(),
            _ => Vec::new(),
        }
    }
    let documents: Vec<(&Entry, Vec<String>)> = model
        .values()
        .filter_map(|entry| Some((entry, words(&serde_json::from_slice(entry.value()?).unwrap()))))
        .filter(|(_, words)| !words.is_empty())
        .collect();
    let count = documents.len() as f64;
    let average = documents.iter().map(|(_, words)| words.len()).sum::<usize>() as f64 / count;
    let terms = terms_of_query(query).unwrap();
    let mut ranked = Vec::new();
    for (entry, words) in &documents {
        let mut held = 0;
        let mut score = 0.0;
        for QueryTerm { word: term, count: times } in &terms {
            let frequency = words.iter().filter(|word| *word == term).count() as f64;
            let holders = documents.iter().filter(|(_, words)| words.contains(term)).count() as f64;
            held += usize::from(frequency > 0.0);
            let rarity = (1.0 + (count - holders + 0.5) / (holders + 0.5)).ln();
            score += f64::from(*times) * rarity * frequency * 2.2
                / (frequency + 1.2 * (0.25 + 0.75 * words.len() as f64 / average));
        }
        if held > 0 && (matching == Match::Any || held == terms.len()) {
            ranked.push((score, *entry));
        }
    }
    ranked
}

fn check_text(node: &Node, model: &Model) -> Vec<(f64, Vec<u8>)> {
    let mut all = Vec::new();
    let prefixes = [None, Some("a"), Some("é"), Some("q")];
    let queries = QUERIES.iter().flat_map(|query| prefixes.map(|prefix| (*query, prefix)));
    for (query, prefix) in queries {
        for matching in [Match::All, Match::Any] {
            let mut expected = ranked_by_hand(model, query, matching);
            expected.retain(|(_, entry)| text::has_prefix(entry, prefix));
            let (found, total) = node.search_text(query, matching, prefix, 100);
            assert_eq!(total, expected.len() as u64, "{query}");
            assert_eq!(found.len(), expected.len());
            for pair in found.windows(2) {
                let ordered = pair[0].score > pair[1].score
                    || pair[0].score == pair[1].score && pair[0].entry.key() < pair[1].entry.key();
                assert!(ordered, "{pair:?}");
            }
            for hit in &found {
                let (score, _) = expected.iter().find(|(_, entry)| entry.is_same(&hit.entry)).unwrap();
                assert!((score - hit.score).abs() < 1e-12, "{query}: {} instead of {score}", hit.score);
            }
            let keys: Vec<_> = found.iter().map(|hit| (hit.score, hit.entry.key().to_vec())).collect();
            for limit in [1, 2, 5] {
                let (paged, total) = node.search_text(query, matching, prefix, limit);
                let paged: Vec<_> = paged.iter().map(|hit| (hit.score, hit.entry.key().to_vec())).collect();
                assert_eq!(paged, keys);
                assert_eq!(total, expected.len() as u64);
            }
            all.extend(keys);
        }
    }
    all
}

fn check_vectors(node: &Node, model: &Model) {
    let dot =
        |left: &[f32], right: &[f32]| left.iter().zip(right).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    for query in [&[1.0f32, 0.0][..], &[1.0, 1.0], &[1.0, -1.0, 0.5], &[1.0; 5]] {
        for prefix in [None, Some("a"), Some("é"), Some("q")] {
            let mut expected: Vec<(f64, &Entry)> = model
                .values()
                .filter_map(|entry| {
                    Some((entry.vector().filter(|vector| vector.len() == query.len())?, entry))
                })
                .filter(|(_, entry)| prefix.is_none_or(|prefix| entry.key().starts_with(prefix.as_bytes())))
                .map(|(vector, entry)| {
                    (dot(query, vector) / (dot(query, query).sqrt() * dot(vector, vector).sqrt()), entry)
                })
                .collect();
            expected.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.key().cmp(right.1.key())));
            for top_k in [1, 3, 100] {
                let pages = node.shards.iter().map(|shard| {
                    shard
                        .search_vector(query, top_k, prefix.map(str::as_bytes), &Budget::unlimited())
                        .unwrap()
                });
                let merged =
                    merge_vector_pages(pages.collect(), query.len(), top_k, prefix.map(str::as_bytes));
                let under_prefix = model
                    .values()
                    .filter(|entry| prefix.is_none_or(|prefix| entry.key().starts_with(prefix.as_bytes())));
                let mut lengths: Vec<usize> =
                    under_prefix.filter_map(|entry| Some(entry.vector()?.len())).collect();
                lengths.sort_unstable();
                lengths.dedup();
                if !lengths.is_empty() && !lengths.contains(&query.len()) {
                    let error = merged.unwrap_err();
                    assert_eq!(
                        (error.code, error.detail),
                        (Code::DimensionMismatch, Detail::Lengths(lengths))
                    );
                    continue;
                }
                let found = merged.unwrap();
                let best = &expected[..top_k.min(expected.len())];
                assert_eq!(found.len(), best.len());
                for (hit, (score, entry)) in found.iter().zip(best) {
                    assert!(
                        hit.entry.is_same(entry) && (hit.score - score).abs() < 1e-15,
                        "{hit:?} is not {entry:?}"
                    );
                }
            }
        }
    }
}

fn check_sizes(node: &Node, model: &Model) {
    let entries = |of: fn(&Sizes) -> u64| node.shards.iter().map(|shard| of(&shard.sizes())).sum::<u64>();
    assert_eq!(
        entries(|sizes| sizes.value.entries),
        model.values().filter(|e| e.value().is_some()).count() as u64
    );
    assert_eq!(
        entries(|sizes| sizes.vector.entries),
        model.values().filter(|e| e.vector().is_some()).count() as u64
    );
    assert_eq!(entries(|sizes| sizes.order.entries), model.len() as u64);
    if model.is_empty() {
        assert_eq!(entries(|sizes| sizes.text.entries), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_query_answers_as_a_plain_map_would(steps in steps(), empty in any::<bool>()) {
        let mut model = Model::new();
        let mut nodes = [Node::new(1), Node::new(4)];
        let deletes = (0..if empty { KEYS.len() } else { 0 }).map(Step::Delete);
        for (index, step) in steps.iter().cloned().chain(deletes).enumerate() {
            let Some(change) = change_of(&mut model, &step, index as u64) else { continue };
            nodes.iter_mut().for_each(|node| node.apply(&change));
        }
        for node in &nodes {
            check_keys(node, &model);
            check_values(node, &model);
            check_vectors(node, &model);
            check_sizes(node, &model);
        }
        // The same keys, and scores that are the same to the last bit.
        prop_assert_eq!(check_text(&nodes[0], &model), check_text(&nodes[1], &model));
        // Nothing but the map and the indexes' live handles keeps an entry: all of it goes with them.
        for entry in model.values() {
            nodes.iter_mut().for_each(|node| node.apply(&Change { old: Some(entry.clone()), new: None }));
        }
        nodes.iter().for_each(|node| check_sizes(node, &Model::new()));
    }
}

/// Search quality on the Cranfield collection, whose folder the environment
/// variable `DATASTORE_CRANFIELD` names; without it there is nothing to check.
#[test]
fn cranfield_is_ranked_as_well_as_by_an_independent_bm25() {
    let Some(folder) = std::env::var_os("DATASTORE_CRANFIELD") else {
        println!("skipped: DATASTORE_CRANFIELD is not set");
        return;
    };
    let read = |name: &str| std::fs::read_to_string(std::path::Path::new(&folder).join(name)).unwrap();
    let mut node = Node::new(4);
    let mut text_bytes = 0;
    for line in read("documents.jsonl").lines() {
        let document: serde_json::Value = serde_json::from_str(line).unwrap();
        let value = document["value"].to_string();
        text_bytes += value.len();
        let key = document["key"].as_str().unwrap().as_bytes();
        let entry = Entry::new(Version { index: 1, ordinal: 0 }, key, Some(value.as_bytes()), None);
        node.apply(&Change { old: None, new: Some(entry) });
    }
    let mut relevant: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    for line in read("judgements.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        if let Ok(query) = fields[0].parse()
            && fields[2].trim() != "-1"
        {
            relevant.entry(query).or_default().push(fields[1].as_bytes().to_vec());
        }
    }
    let (mut precision_sum, mut top_ten_sum, mut queries) = (0.0, 0.0, 0.0);
    for line in read("queries.jsonl").lines() {
        let query: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(wanted) = relevant.get(&query["query"].as_u64().unwrap()) else { continue };
        let (found, _) = node.search_text(query["text"].as_str().unwrap(), Match::Any, None, 1000);
        let (mut hits, mut precision) = (0.0, 0.0);
        for (rank, hit) in found.iter().take(1000).enumerate() {
            if wanted.iter().any(|key| key == hit.entry.key()) {
                hits += 1.0;
                precision += hits / (rank + 1) as f64;
                top_ten_sum += if rank < 10 { 0.1 } else { 0.0 };
            }
        }
        precision_sum += precision / wanted.len() as f64;
        queries += 1.0;
    }
    let (map, top_ten) = (precision_sum / queries, top_ten_sum / queries);
    let index_bytes: u64 = node.shards.iter().map(|shard| shard.sizes().text.bytes).sum();
    println!(
        "{queries} queries: MAP {map:.4}, P@10 {top_ten:.4}; {index_bytes} bytes for {text_bytes} of JSON"
    );
    assert!((map - 0.2783).abs() < 0.01 && (top_ten - 0.2249).abs() < 0.01);
}

#[test]
fn a_count_goes_on_over_changes_and_counts_each_key_once() {
    let entry = |number: u64| {
        Entry::new(
            Version { index: number, ordinal: 0 },
            format!("k{number:04}").as_bytes(),
            Some(b"1"),
            None,
        )
    };
    let mut indexes = Indexes::new(Kinds::ALL, HASH_KEY);
    (0..1_000).for_each(|number| indexes.apply(&Change { old: None, new: Some(entry(number)) }));
    let query = Query::Count(Bytes::from_static(b"k0"));
    let budget = Budget::unlimited();
    let (mut slices, mut resume) = (0, None);
    loop {
        match query.run(&indexes, resume.take(), &budget).unwrap() {
            Progress::Done(part) => {
                assert!(matches!(part, Ok(Part::Count(1_000))), "{part:?}");
                break;
            }
            Progress::GoOn(next) => resume = Some(next),
        }
        slices += 1;
        // What it has counted goes and comes again; the key that it goes on behind is gone.
        let last = (slices * Query::COUNTED_AT_ONCE - 1) as u64;
        indexes.apply(&Change { old: Some(entry(last)), new: None });
        indexes.apply(&Change { old: Some(entry(0)), new: None });
        indexes.apply(&Change { old: None, new: Some(entry(0)) });
    }
    assert_eq!((slices, budget.steps()), (10, 1_000));
}

#[test]
fn a_querys_words_and_value_are_worked_out_once_for_all_shards_and_stages() {
    let indexes = Indexes::new(Kinds::ALL, HASH_KEY);
    let budget = Budget::unlimited();
    let text = "word ".repeat(2_000);
    let query = TextQuery::new(Bytes::from(text), Match::All, None, 10);
    let refused = Query::TextStatistics(query.clone()).run(&indexes, None, &budget);
    let Ok(Progress::Done(Err(error))) = refused else { panic!("{refused:?}") };
    assert_eq!(error.code, Code::BadRequest);
    // The other shards are told the same, and their stages share what came of it.
    let again = Query::Text(query).run(&indexes, None, &budget);
    assert!(matches!(again, Ok(Progress::Done(Err(again))) if again == error));
}
