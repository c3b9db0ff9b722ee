//! The figures of docs/INDEXING.md:
//! `cargo test --release -p datastore --lib -- --ignored --nocapture --test-threads 1 index_speed`

#![allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]

use std::time::Instant;

use crate::engine::{Change, Entry, Version};
use crate::indexing::{Indexes, Kinds, TextStatistics, terms_of_query};
use crate::messaging::Match;

const HASH_KEY: (u64, u64) = (1, 2);

fn kinds(name: &str) -> Kinds {
    Kinds::parse(name).unwrap()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Words as frequent as in prose: the n-th one n times rarer than the first.
fn prose(state: &mut u64, words: usize, vocabulary: f64) -> String {
    let word = |state: &mut u64| {
        let place = random(state) as f64 / u64::MAX as f64;
        format!("word{}", vocabulary.powf(place) as u64)
    };
    (0..words).map(|_| word(state)).collect::<Vec<_>>().join(" ")
}

fn entries(count: u64, value: impl Fn(u64) -> String) -> Vec<Entry> {
    let entry = |number: u64| {
        let version = Version { index: number + 1, ordinal: 0 };
        Entry::new(version, format!("key:{number:08}").as_bytes(), Some(value(number).as_bytes()), None)
    };
    (0..count).map(entry).collect()
}

fn fill(kinds: Kinds, entries: &[Entry]) -> (Indexes, f64) {
    let began = Instant::now();
    let mut indexes = Indexes::new(kinds, HASH_KEY);
    for entry in entries {
        indexes.apply(&Change { old: None, new: Some(entry.clone()) });
    }
    (indexes, began.elapsed().as_secs_f64())
}

fn say_text(name: &str, entries: &[Entry]) -> Indexes {
    let (indexes, seconds) = fill(kinds("text"), entries);
    let raw: usize = entries.iter().map(|entry| entry.value().map_or(0, <[u8]>::len)).sum();
    println!(
        "{name}: {:.0} documents/s, {:.2} index bytes per byte of JSON",
        entries.len() as f64 / seconds,
        indexes.sizes().text.bytes as f64 / raw as f64
    );
    indexes
}

fn say_search(name: &str, indexes: &Indexes, query: &str) {
    const ROUNDS: u32 = 50;
    let terms = terms_of_query(query);
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let statistics: TextStatistics = indexes.text_statistics(&terms);
        std::hint::black_box(indexes.search_text(&terms, Match::All, &statistics, None, 10));
    }
    println!("{name}: {:.1} us", began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}

fn say_vectors(length: usize) {
    const BYTES: usize = 200 << 20;
    const ROUNDS: usize = 9;
    let rows = BYTES / (4 * length);
    let mut state = 7;
    let mut vector =
        || -> Vec<f32> { (0..length).map(|_| random(&mut state) as f32 / u64::MAX as f32 - 0.5).collect() };
    let mut indexes = Indexes::new(kinds("vector"), HASH_KEY);
    for row in 0..rows {
        let version = Version { index: row as u64 + 1, ordinal: 0 };
        let entry = Entry::new(version, format!("v{row}").as_bytes(), None, Some(&vector()));
        indexes.apply(&Change { old: None, new: Some(entry) });
    }
    let query = vector();
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            std::hint::black_box(indexes.search_vector(&query, 10, None));
            began.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let rate = |at: usize| (rows * length * 4) as f64 / 1e9 / seconds[at];
    println!(
        "{rows} vectors of {length}: {:.1} / {:.1} / {:.1} GB/s (min / median / max), {} bytes a row beside the entry",
        rate(ROUNDS - 1),
        rate(ROUNDS / 2),
        rate(0),
        indexes.sizes().vector.bytes / rows as u64
    );
}

#[test]
#[ignore = "a measurement"]
fn index_speed() {
    let mut state = 3;
    let texts: Vec<String> =
        (0..100_000).map(|_| format!("{:?}", prose(&mut state, 100, 100_000.0))).collect();
    let long = say_text("100 words", &entries(100_000, |number| texts[number as usize].clone()));
    say_search("a word of every other document", &long, "word2");
    say_search("a rare word", &long, "word99990");
    let texts: Vec<String> =
        (0..1_000_000).map(|_| format!("{:?}", prose(&mut state, 5, 100_000.0))).collect();
    say_text("5 words", &entries(1_000_000, |number| texts[number as usize].clone()));
    let unique = entries(1_000_000, |number| format!("\"{number:030}\""));
    for names in ["value", "text", "order", "value,text,vector,order"] {
        let (indexes, seconds) = fill(kinds(names), &unique);
        println!(
            "1 M values of 32 bytes, --indexes {names}: {:.2} M writes/s, {} bytes a key beside the entry",
            1.0 / seconds,
            indexes.sizes().bytes() / 1_000_000
        );
    }
    [64, 128, 384, 1536].into_iter().for_each(say_vectors);
}
