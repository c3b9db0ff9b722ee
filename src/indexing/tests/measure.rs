//! The figures of docs/INDEXING.md:
//! `cargo test --release -p datastore --lib -- --ignored --nocapture --test-threads 1 index_speed`;
//! with `DATASTORE_TEXTS`, a directory of text files, each of their lines is a document, too.

#![allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]

use std::time::Instant;

use crate::engine::{Change, Entry, Version};
use crate::indexing::{Budget, Indexes, Kinds, TextAsked, TextStatistics, terms_of_query};
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
    let terms = terms_of_query(query).unwrap();
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let statistics: TextStatistics = indexes.text_statistics(&terms);
        let budget = Budget::unlimited();
        let (matching, after, limit) = (Match::All, None, 10);
        let asked =
            TextAsked { terms: &terms, matching, prefix: None, statistics: &statistics, after, limit };
        let page = indexes.search_text(&asked, None, &budget);
        assert!(std::hint::black_box(page).is_ok());
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
            let page = indexes.search_vector(&query, 10, None, &Budget::unlimited());
            assert!(std::hint::black_box(page).is_ok());
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

/// Texts of other kinds: each line of each file in the directory that `DATASTORE_TEXTS` names is a document. The median
/// of five, and the fastest and the slowest.
#[test]
#[ignore = "a measurement"]
fn index_speed_of_texts() {
    const ROUNDS: usize = 5;
    let Some(directory) = std::env::var_os("DATASTORE_TEXTS") else { return };
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<String> = text.lines().map(|line| serde_json::json!(line).to_string()).collect();
        let raw: usize = lines.iter().map(String::len).sum();
        let documents = entries(lines.len() as u64, |number| lines[number as usize].clone());
        let mut rounds: Vec<(f64, u64)> = (0..ROUNDS)
            .map(|_| {
                let (indexes, seconds) = fill(kinds("text"), &documents);
                (raw as f64 / 1e6 / seconds, indexes.sizes().text.bytes)
            })
            .collect();
        rounds.sort_by(|left, right| left.0.total_cmp(&right.0));
        println!(
            "{}: {:.1} / {:.1} / {:.1} MB/s, {:.3} index bytes per byte of JSON",
            path.file_name().unwrap().display(),
            rounds[0].0,
            rounds[ROUNDS / 2].0,
            rounds[ROUNDS - 1].0,
            rounds[0].1 as f64 / raw as f64
        );
    }
}

/// Values that ask for more work than their length suggests.
fn hard_values() -> Vec<(&'static str, String)> {
    const BYTES: usize = 4 << 20;
    let repeat = |text: &str| text.repeat(BYTES / text.len());
    let quoted = |text: &str| format!("\"{}\"", repeat(text));
    let mut state = 5;
    let mut words = String::new();
    while words.len() < BYTES {
        words.push_str(&format!("{:x} ", random(&mut state) >> 40));
    }
    let mut chinese = String::new();
    while chinese.len() < BYTES {
        chinese.extend(char::from_u32(0x4e00 + (random(&mut state) % 20_000) as u32));
    }
    let mut russian = String::new();
    while russian.len() < BYTES {
        for _ in 0..=random(&mut state) % 12 {
            russian.extend(char::from_u32(0x410 + (random(&mut state) % 64) as u32));
        }
        russian.push(' ');
    }
    let mut marks = String::from("a");
    while marks.len() < BYTES {
        marks.extend(char::from_u32(0x300 + (random(&mut state) % 70) as u32));
    }
    vec![
        ("prose", format!("{:?}", prose(&mut state, BYTES / 8, 100_000.0))),
        ("Russian words", format!("\"{russian}\"")),
        ("distinct words", format!("\"{words}\"")),
        ("random Chinese", format!("\"{chinese}\"")),
        ("one-letter words", quoted("a b c d e f g h i j k l m n o p q r s t u v w x y z ")),
        ("one-letter strings", format!("[{}\"\"]", repeat("\"a\","))),
        ("numbers", format!("[{}0]", repeat("1,22,3.5,"))),
        ("members", format!("{{{}\"\":0}}", repeat("\"a\":1,"))),
        ("deep arrays", format!("[{}0]", repeat(&format!("{}{},", "[".repeat(60), "]".repeat(60))))),
        ("one long word", quoted("abcdefgh")),
        ("one long Russian word", quoted("\u{416}")),
        ("\u{fdfa} x 50", quoted(&format!("{} ", "\u{fdfa}".repeat(50)))),
        ("\u{fdfa} alone", quoted("\u{fdfa} ")),
        ("a letter and marks", format!("\"{marks}\"")),
        ("a letter and one mark", quoted("a\u{300} ")),
        ("letters and 30 marks", quoted(&format!("a{} ", "\u{316}\u{300}".repeat(15)))),
        ("apostrophes and marks", quoted(&format!("a'{}", "\u{300}".repeat(50)))),
        ("letters and apostrophes", quoted("\u{e9}'")),
        ("Hangul jamo", quoted("\u{1112}\u{1161}\u{11ab}")),
        ("Hangul jamo words", quoted("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} ")),
        ("half-width Katakana", quoted("\u{ff76}\u{ff9e}")),
        ("square Katakana", quoted("\u{3300}")),
        ("emoji with joiners", quoted("\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467} ")),
        ("emoji joined without end", quoted("\u{1f469}\u{200d}")),
        ("flags", quoted("\u{1f1e9}\u{1f1ea}")),
        ("Hebrew and quotes", quoted("\u{5d0}\"\u{5d0}").replace('"', "'")),
        ("mathematical letters", quoted("\u{1d400}\u{1d401}\u{1d402} ")),
        ("capital sharp s", quoted("\u{1e9e}\u{1e9e}\u{1e9e} ")),
        ("iota subscripts", quoted("\u{1f82}\u{345} ")),
        ("Thai without spaces", quoted("ฉันมีแมวสองตัวและกินข้าวแล้ว")),
        ("one Thai letter", quoted("ก")),
        ("a Thai letter and marks", format!("\"ก{}\"", repeat("\u{e49}"))),
        ("Thai am taken apart", quoted("น\u{e49}\u{e4d}\u{e32}")),
        ("Lao without spaces", quoted("ຂ້ອຍມີແມວສອງໂຕ")),
        ("Khmer without spaces", quoted("ខ្ញុំមានឆ្មាពីរក្បាល")),
        ("Burmese without spaces", quoted("ကျွန်တော်မှာကြောင်နှစ်ကောင်ရှိတယ်")),
        ("letters and dots", quoted("a.")),
        ("letters, dots and underscores", quoted("a_b.")),
        ("digits and commas", quoted("1,")),
        ("letters and underscores", quoted("a_")),
        ("underscores", quoted("_")),
        ("capitals and small letters", quoted("aB")),
        ("Russian capitals and small letters", quoted("\u{436}\u{416}")),
        ("one word and plus signs", format!("\"c{}\"", repeat("+"))),
        ("letters and plus signs", quoted("c++")),
        ("letters and number signs", quoted("c# ")),
        ("dots and letters", quoted(" .n")),
        ("one letter and joiners", format!("\"a{}\"", repeat("\u{200d}"))),
        ("letters and joiners", quoted("a\u{200d}")),
        ("soft hyphens", quoted("\u{ad}")),
        ("keycaps", quoted("1\u{fe0f}\u{20e3}")),
        ("curly apostrophes", quoted("l\u{2019}a ")),
        ("full-width letters", quoted("\u{ff21}\u{ff22}\u{ff23} ")),
        ("Chinese and full-width punctuation", quoted("中文，标点。")),
        ("Hangul and particles", quoted("학교에서부터는 ")),
        ("Hangul without spaces", quoted("학교에서")),
    ]
}

#[test]
#[ignore = "a measurement"]
fn index_speed_of_hard_values() {
    for (name, value) in hard_values() {
        let value = if value.starts_with('\'') { format!("\"{}\"", value.trim_matches('\'')) } else { value };
        for names in ["text", "value"] {
            let entry = Entry::new(Version { index: 1, ordinal: 0 }, b"k", Some(value.as_bytes()), None);
            let mut indexes = Indexes::new(kinds(names), HASH_KEY);
            let began = Instant::now();
            indexes.apply(&Change { old: None, new: Some(entry.clone()) });
            let set = began.elapsed().as_secs_f64();
            let began = Instant::now();
            indexes.apply(&Change { old: Some(entry), new: None });
            let delete = began.elapsed().as_secs_f64();
            let per_byte = |seconds: f64| seconds * 1e9 / value.len() as f64;
            println!("{name}, {names}: set {:.1} ns a byte, delete {:.1}", per_byte(set), per_byte(delete));
        }
    }
}
