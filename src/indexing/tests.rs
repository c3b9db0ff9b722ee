//! What the indexes do together; `query` tests them against a plain map.

mod build;
mod measure;
mod slices;

use super::*;
use crate::engine::Version;
use crate::messaging::Match;

fn entry(index: u64, key: &str, value: Option<&str>, vector: Option<&[f32]>) -> Entry {
    Entry::new(Version { index, ordinal: 0 }, key.as_bytes(), value.map(str::as_bytes), vector)
}

fn set(indexes: &mut Indexes, old: Option<&Entry>, new: Option<&Entry>) {
    indexes.apply(&Change { old: old.cloned(), new: new.cloned() });
}

fn search_text(
    indexes: &Indexes,
    terms: &[QueryTerm],
    matching: Match,
    statistics: &TextStatistics,
) -> TextPage {
    search_text_within(indexes, terms, matching, statistics, &Budget::unlimited()).unwrap()
}

/// A whole search, slice by slice.
fn search_text_within(
    indexes: &Indexes,
    terms: &[QueryTerm],
    matching: Match,
    statistics: &TextStatistics,
    budget: &Budget<'_>,
) -> Result<TextPage, GivenUp> {
    let asked = TextAsked { terms, matching, prefix: None, statistics, after: None, limit: 10 };
    let mut under_way = None;
    loop {
        match indexes.search_text(&asked, under_way, budget)? {
            TextStep::Done(page) => return Ok(page),
            TextStep::GoOn(search) => under_way = Some(search),
        }
    }
}

#[test]
fn kinds_are_read_as_they_are_written() {
    for text in ["none", "value", "text", "value,text", "value,text,vector,order", "vector,order"] {
        assert_eq!(Kinds::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Kinds::parse("all").unwrap(), Kinds::ALL);
    assert_eq!(Kinds::parse(" text , order ").unwrap().to_string(), "text,order");
    for text in ["", "values", "value,,text", "value,none", "Value"] {
        assert!(Kinds::parse(text).is_err(), "{text}");
    }
}

#[test]
fn an_index_that_is_switched_off_holds_nothing() {
    let mut indexes = Indexes::new(Kinds::NONE, (1, 2));
    set(&mut indexes, None, Some(&entry(1, "k", Some("\"word\""), Some(&[1.0]))));
    assert_eq!(indexes.sizes(), Sizes::default());
    assert_eq!(indexes.kinds(), Kinds::NONE);
    assert_eq!(indexes.count(b"", None, 10).count, 0);
    assert!(indexes.search_vector(&[1.0], 1, None, &Budget::unlimited()).unwrap().hits.is_empty());
}

#[test]
fn a_score_worked_out_by_hand() {
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    for (key, text) in [("a", "\"cat dog\""), ("b", "\"cat cat bird fish\""), ("c", "\"bird\""), ("d", "7")] {
        set(&mut indexes, None, Some(&entry(1, key, Some(text), None)));
    }
    let terms = terms_of_query("cat").unwrap();
    let statistics = indexes.text_statistics(&terms);
    assert_eq!(statistics, TextStatistics { documents: 3, tokens: 7, document_frequency: vec![2] });
    let page = search_text(&indexes, &terms, Match::All, &statistics);
    // ln(1 + 1.5 / 2.5) = 0.4700036292457356, the average length is 7/3.
    let rarity = 0.470_003_629_245_735_6;
    let two = rarity * 2.0 * 2.2 / (2.0 + 1.2 * (0.25 + 0.75 * 4.0 * 3.0 / 7.0));
    let one = rarity * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 2.0 * 3.0 / 7.0));
    assert_eq!(page.total, 2);
    assert_eq!(page.hits[0].entry.key(), b"b");
    assert!((page.hits[0].score - two).abs() < 1e-12 && (page.hits[1].score - one).abs() < 1e-12);
}

#[test]
fn statistics_from_before_the_first_document_are_no_harm() {
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    let terms = terms_of_query("cat dog").unwrap();
    let statistics = indexes.text_statistics(&terms);
    set(&mut indexes, None, Some(&entry(1, "a", Some("\"cat dog\""), None)));
    for matching in [Match::All, Match::Any] {
        let page = search_text(&indexes, &terms, matching, &statistics);
        assert!(page.hits[0].score.is_finite() && page.hits[0].score > 0.0);
        assert_eq!(search_text(&indexes, &[], matching, &statistics).total, 0);
    }
}

/// Numbers from a seed: the tests need many, and the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn vector(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| (self.next() % 2001) as f32 / 1000.0 - 1.0).collect()
    }
}

/// Nearly equal vectors, many exactly equal ones, and sizes at both ends of
/// what f32 holds: nothing that belongs to the best is lost to rounding.
#[test]
fn the_nearest_are_exact_among_near_ties_and_extreme_sizes() {
    let mut numbers = Numbers(88_172_645_463_325_252);
    for length in [1, 3, 16, 33, 100, 384] {
        let mut indexes = Indexes::new(Kinds { order: false, ..Kinds::ALL }, (1, 2));
        let base = numbers.vector(length);
        let mut entries = Vec::new();
        for row in 0..2_000u64 {
            let scale = [1.0f32, 1e-30, 1e30, 3e-42, 0.37][(row % 5) as usize];
            let mut vector: Vec<f32> = base.iter().map(|number| number * scale).collect();
            if row % 3 == 0 {
                let place = numbers.next() as usize % length;
                vector[place] *= 1.0 + (numbers.next() % 100) as f32 * 1e-7;
            } else if row % 7 == 0 {
                vector = numbers.vector(length);
            }
            if vector.iter().all(|number| *number == 0.0) {
                continue;
            }
            let entry = entry(row, &format!("{:05}", numbers.next() % 100_000), None, Some(&vector));
            if !entries.iter().any(|other: &Entry| other.key() == entry.key()) {
                set(&mut indexes, None, Some(&entry));
                entries.push(entry);
            }
        }
        for query in
            [base.clone(), base.iter().map(|number| number * 1e-25).collect(), numbers.vector(length)]
        {
            let scored = cosine::Query::new(&query);
            let mut expected: Vec<(f64, &[u8])> =
                entries.iter().map(|entry| (scored.cosine(entry.vector().unwrap()), entry.key())).collect();
            expected.sort_by(|left, right| by_rank(*left, *right));
            for top_k in [1, 10, 1_000] {
                let page = indexes.search_vector(&query, top_k, None, &Budget::unlimited()).unwrap();
                let found: Vec<(f64, &[u8])> =
                    page.hits.iter().map(|hit| (hit.score, hit.entry.key())).collect();
                assert_eq!(found, expected[..top_k.min(expected.len())], "{length} numbers, best {top_k}");
            }
        }
    }
}

/// Finds the vector's keys among those of other directions: the best must score exactly 1.
fn keys_that_score_one(indexes: &Indexes, query: &[f32], top_k: usize) -> Vec<String> {
    let page = indexes.search_vector(query, top_k, None, &Budget::unlimited()).unwrap();
    let ones = page.hits.iter().filter(|hit| hit.score == 1.0);
    ones.map(|hit| String::from_utf8_lossy(hit.entry.key()).into_owned()).collect()
}

#[test]
fn of_vectors_with_one_direction_the_first_key_is_found() {
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    for (key, vector) in [("b", [3.0, 3.0]), ("a", [1.0, 1.0]), ("c", [0.75, 0.75]), ("d", [1.0, 1.001])] {
        set(&mut indexes, None, Some(&entry(1, key, None, Some(&vector))));
    }
    for query in [[1.0, 1.0], [3.0, 3.0], [0.1, 0.1], [1e-40, 1e-40]] {
        assert_eq!(keys_that_score_one(&indexes, &query, 1), ["a"], "{query:?}");
        assert_eq!(keys_that_score_one(&indexes, &query, 4), ["a", "b", "c"], "{query:?}");
    }
}

/// Lengths of 1 to 4,096, each order of magnitude as often as the others.
#[test]
fn ten_thousand_vectors_find_themselves_and_their_multiples() {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    println!("seed {SEED:#x}");
    let mut numbers = Numbers(SEED);
    let mut indexes = Indexes::new(Kinds { order: false, ..Kinds::ALL }, (1, 2));
    let mut vectors = Vec::new();
    for row in 0..10_000u64 {
        let octave = 1 << (numbers.next() % 12);
        let length = (octave + numbers.next() % (octave + 1)) as usize;
        // Twenty-one digits leave room for those of the factors, so that the multiples are exact.
        let scale = 2f32.powi((numbers.next() % 100) as i32 - 50);
        let number = |numbers: &mut Numbers| {
            let size = scale * 2f32.powi(-((numbers.next() % 12) as i32));
            ((numbers.next() >> 20) as i32 >> 11) as f32 * size
        };
        let vector: Vec<f32> = (0..length).map(|_| number(&mut numbers)).collect();
        if vector.iter().all(|number| *number == 0.0) {
            continue;
        }
        // In an order of the keys that isn't the factors'.
        for (letter, factor) in [("b", 3.0), ("d", 1.0), ("a", 0.75), ("c", 5.0)] {
            let multiple: Vec<f32> = vector.iter().map(|number| number * factor).collect();
            set(&mut indexes, None, Some(&entry(row, &format!("{row:05}{letter}"), None, Some(&multiple))));
        }
        vectors.push((row, vector));
    }
    for (row, vector) in &vectors {
        let own: Vec<String> = ["a", "b", "c", "d"].map(|letter| format!("{row:05}{letter}")).into();
        if vector.len() > 4 {
            assert_eq!(keys_that_score_one(&indexes, vector, 1), own[..1]);
            assert_eq!(keys_that_score_one(&indexes, vector, 5), own);
        } else {
            // Others of so few numbers may have the same direction.
            let found = keys_that_score_one(&indexes, vector, 40_000);
            assert!(found.is_sorted() && own.iter().all(|key| found.contains(key)), "{row}");
            assert_eq!(keys_that_score_one(&indexes, vector, 1), found[..1]);
        }
    }
}

/// With the keys in order and without, few under the prefix and many, vectors or none.
#[test]
fn lengths_are_those_of_the_prefix_alone() {
    for kinds in [Kinds::ALL, Kinds { order: false, ..Kinds::ALL }] {
        let mut indexes = Indexes::new(kinds, (1, 2));
        for row in 0..600u64 {
            let (key, vector): (String, &[f32]) = match row % 4 {
                0 => (format!("many:{row}"), &[1.0, 2.0]),
                1 => (format!("other:{row}"), &[1.0, 2.0, 3.0, 4.0]),
                2 => (format!("many:{row}"), &[1.0, 2.0, 3.0]),
                _ => (format!("none:{row}"), &[]),
            };
            let vector = Some(vector).filter(|vector| !vector.is_empty());
            set(&mut indexes, None, Some(&entry(row, &key, Some("1"), vector)));
        }
        set(&mut indexes, None, Some(&entry(1, "few:1", None, Some(&[1.0; 5]))));
        let search = |length: usize, prefix: &str| {
            let budget = Budget::unlimited();
            let page =
                indexes.search_vector(&vec![1.0; length], 2, Some(prefix.as_bytes()), &budget).unwrap();
            assert_eq!(page.covered, !page.hits.is_empty());
            (page.hits.len(), page.lengths)
        };
        assert_eq!(search(2, "many:"), (2, vec![]));
        assert_eq!(search(3, "many:"), (2, vec![]));
        for length in [1, 4, 5] {
            assert_eq!(search(length, "many:"), (0, vec![2, 3]));
            assert_eq!(search(length, "none:"), (0, vec![]));
            assert_eq!(search(length, "nobody"), (0, vec![]));
        }
        assert_eq!(search(2, "few:"), (0, vec![5]));
        assert_eq!(search(5, "few:"), (1, vec![]));
        assert_eq!(search(5, "other:"), (0, vec![4]));
        assert_eq!(search(9, ""), (0, vec![2, 3, 4, 5]));
    }
}

/// Rows that can't be dropped from the candidates aren't gone over again for each that comes behind them.
#[test]
fn candidates_that_stay_do_not_make_a_search_slow() {
    let mut indexes = Indexes::new(Kinds { order: false, ..Kinds::ALL }, (1, 2));
    const ROWS: u64 = 4_000;
    for row in 0..ROWS {
        // So long that f32 can't hold its inverse; or nearer and nearer.
        let vector = if row < ROWS / 2 { [1e19, 0.0] } else { [1.0, (ROWS - row) as f32 * 1e-3] };
        set(&mut indexes, None, Some(&entry(row, &format!("{row:05}"), None, Some(&vector))));
    }
    let budget = Budget::unlimited();
    let page = indexes.search_vector(&[1.0, 0.0], 1, None, &budget).unwrap();
    assert_eq!(page.hits.len(), 1);
    assert!(budget.steps() < 12 * ROWS, "{} steps for {ROWS} rows", budget.steps());
}

/// Bytes are counted as things change; what is gone must not stay in the count.
#[test]
fn sizes_shrink_when_keys_go() {
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    let make = |row: u64| {
        let text = format!("\"w{} common w{} w{}\"", row % 50, row % 7, row);
        entry(row, &row.to_string(), Some(&text), Some(&[1.0, row as f32]))
    };
    let entries: Vec<Entry> = (0..5_000).map(make).collect();
    entries.iter().for_each(|entry| set(&mut indexes, None, Some(entry)));
    let full = indexes.sizes();
    assert_eq!(
        (full.value.entries, full.text.entries, full.vector.entries, full.order.entries),
        (5000, 5000, 5000, 5000)
    );
    for size in [full.value, full.text, full.vector, full.order] {
        assert!((5_000 * 10..5_000 * 200).contains(&size.bytes), "{full:?}");
    }
    entries.iter().for_each(|entry| set(&mut indexes, Some(entry), None));
    let empty = indexes.sizes();
    assert_eq!(
        (empty.value.entries, empty.text.entries, empty.vector.entries, empty.order.entries),
        (0, 0, 0, 0)
    );
    assert!(empty.order.bytes == 0 && empty.vector.bytes == 0, "{empty:?}");
    // Tables keep their room for the next keys.
    assert!(empty.text.bytes < full.text.bytes, "{empty:?}");
    assert!(entries.iter().all(|entry| {
        indexes
            .search_value(&canonical_hash((1, 2), entry.value().unwrap()), &KeyRange::default(), 1, 1)
            .total
            == 0
    }));
}

/// What was full once and is empty again must not count as full.
#[test]
fn deletes_give_memory_back() {
    const KEYS: u32 = 5_000;
    let entry = |number: u32| {
        let value = format!("[\"common only{number}a only{number}b\",{}]", number / 2);
        let vector = [number as f32, 1.0];
        let version = Version { index: u64::from(number) + 1, ordinal: 0 };
        Entry::new(version, format!("key-{number}").as_bytes(), Some(value.as_bytes()), Some(&vector))
    };
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    let empty = indexes.sizes().bytes();
    for _ in 0..2 {
        (0..KEYS).for_each(|number| indexes.apply(&Change { old: None, new: Some(entry(number)) }));
        let full = indexes.sizes().bytes();
        let kept = 100;
        (kept..KEYS).for_each(|number| indexes.apply(&Change { old: Some(entry(number)), new: None }));
        let few = indexes.sizes().bytes();
        assert!(few < full / 5, "{few} bytes for {kept} of {KEYS} keys, {full} for all");
        (0..kept).for_each(|number| indexes.apply(&Change { old: Some(entry(number)), new: None }));
        let none = indexes.sizes().bytes();
        assert!(none < empty + full / 5, "{none} bytes for no key, {empty} at first, {full} for all");
    }
}

/// Documents that all hold `the` and `and`; half of them hold `or`.
fn documents(count: u64) -> Indexes {
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    for row in 0..count {
        let text = format!("\"the and w{row} {}\"", if row % 2 == 0 { "or" } else { "nor" });
        set(
            &mut indexes,
            None,
            Some(&entry(row, &format!("{row:08}"), Some(&text), Some(&[1.0, row as f32]))),
        );
    }
    indexes
}

#[test]
fn a_word_that_comes_again_counts_again_and_costs_nothing() {
    let indexes = documents(3_000);
    let search = |query: &str, matching: Match| {
        let terms = terms_of_query(query).unwrap();
        let (budget, statistics) = (Budget::unlimited(), indexes.text_statistics(&terms));
        let page = search_text_within(&indexes, &terms, matching, &statistics, &budget).unwrap();
        (page.total, page.hits[0].score, budget.steps())
    };
    for (matching, query) in
        [(Match::All, "or"), (Match::Any, "or"), (Match::All, "the or"), (Match::Any, "the or")]
    {
        let (total, score, steps) = search(query, matching);
        let many = [query; 500].join(" ");
        let (total_of_many, score_of_many, steps_of_many) = search(&many, matching);
        assert_eq!((total, steps), (total_of_many, steps_of_many), "{query}");
        assert!((score * 500.0 - score_of_many).abs() < 1e-9, "{query}: {score} and {score_of_many}");
        assert!(steps >= total, "{query}: the steps count what is looked at");
    }
}

#[test]
fn a_search_is_given_up_when_nobody_wants_it_any_more() {
    const ASK: u64 = Budget::ASK_EVERY_STEPS;
    let indexes = documents(ASK * 3);
    let words = |query: &str| terms_of_query(query).unwrap();
    let text = |query: &str, matching: Match, budget: &Budget<'_>| {
        let terms = words(query);
        let statistics = indexes.text_statistics(&terms);
        search_text_within(&indexes, &terms, matching, &statistics, budget).map(|page| page.total)
    };
    let vector = |prefix: Option<&str>, budget: &Budget<'_>| {
        let prefix = prefix.map(str::as_bytes);
        indexes.search_vector(&[1.0, 2.0], 10, prefix, budget).map(|page| page.hits.len() as u64)
    };
    type Search<'a> = &'a dyn Fn(&Budget<'_>) -> Result<u64, GivenUp>;
    let searches: [Search<'_>; 7] = [
        &|budget| text("the", Match::All, budget),
        &|budget| text("the and", Match::All, budget),
        &|budget| text("the or", Match::Any, budget),
        &|budget| text("the and or", Match::Any, budget),
        &|budget| vector(None, budget),
        &|budget| vector(Some("0"), budget),
        &|budget| vector(Some("00000"), budget),
    ];
    for (number, search) in searches.into_iter().enumerate() {
        let unlimited = Budget::unlimited();
        assert!(search(&unlimited).is_ok());
        let unwanted = Budget::new(&|| false);
        if unlimited.steps() < ASK {
            continue; // it was done before anyone would ask
        }
        assert_eq!(search(&unwanted), Err(GivenUp), "search {number}");
        assert!(unwanted.steps() <= 2 * ASK && unlimited.steps() > 2 * ASK, "search {number}");
    }
}
