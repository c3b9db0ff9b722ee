//! Searches by text that go on over changes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{entry, search_text, set};
use crate::indexing::{Budget, Indexes, Kinds, TextAsked, TextPage, TextSearch, TextStep, terms_of_query};
use crate::messaging::Match;

const TEXTS: [Option<&str>; 5] =
    [None, Some("\"red\""), Some("\"red green\""), Some("\"green\""), Some("\"red red green blue\"")];

fn matches(text: Option<&str>, words: &[&str], matching: Match) -> bool {
    let holds = |word: &&str| text.is_some_and(|text| text.contains(*word));
    match matching {
        Match::All => words.iter().all(holds),
        Match::Any => words.iter().any(holds),
    }
}

/// Goes on with a search, or begins it; gives how many slices that took, and the page.
fn to_the_end(
    indexes: &Indexes,
    asked: &TextAsked<'_>,
    mut under_way: Option<TextSearch>,
) -> (usize, TextPage) {
    let mut slices = 0;
    loop {
        slices += 1;
        match indexes.search_text(asked, under_way, &Budget::unlimited()).unwrap() {
            TextStep::Done(page) => return (slices, page),
            TextStep::GoOn(search) => under_way = Some(search),
        }
    }
}

#[test]
fn searches_without_end_do_not_use_up_the_numbers_of_documents() {
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    let of = |number: u64, key: u64| entry(number, &format!("{key:03}"), Some("\"red\""), None);
    (0..100).for_each(|key| set(&mut indexes, None, Some(&of(0, key))));
    let terms = terms_of_query("red").unwrap();
    let statistics = indexes.text_statistics(&terms);
    let asked = TextAsked {
        terms: &terms,
        matching: Match::All,
        prefix: None,
        statistics: &statistics,
        after: None,
        limit: 1_000,
    };
    let slices = |indexes: &Indexes, under_way| {
        let (slices, page) = to_the_end(indexes, &asked, under_way);
        (slices, page.total)
    };
    indexes.searches_under_way(true);
    let before = slices(&indexes, None);
    assert!(before.0 > 3 && before.1 == 100, "{before:?}");
    for number in 0..6_000 {
        set(&mut indexes, Some(&of(number, 7)), None);
        set(&mut indexes, None, Some(&of(number + 1, 7)));
    }
    assert_eq!(slices(&indexes, None), (1, 100), "it is done in one go, so that the numbers come free");
    indexes.searches_under_way(false);
    assert!(slices(&indexes, None).0 > 3);
}

#[test]
fn a_document_that_goes_and_comes_elsewhere_is_not_met_again() {
    let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
    let of = |key: u64| entry(1, &format!("{key:03}"), Some("\"red\""), None);
    (0..100).for_each(|key| set(&mut indexes, None, Some(&of(key))));
    let terms = terms_of_query("red").unwrap();
    let statistics = indexes.text_statistics(&terms);
    let asked = TextAsked {
        terms: &terms,
        matching: Match::All,
        prefix: None,
        statistics: &statistics,
        after: None,
        limit: 1_000,
    };
    let begun = indexes.search_text(&asked, None, &Budget::unlimited()).unwrap();
    let TextStep::GoOn(begun) = begun else { panic!("it was to be long") };
    indexes.searches_under_way(true);
    // The first is met. The last, whose number is free next, is still to come.
    set(&mut indexes, Some(&of(0)), None);
    set(&mut indexes, Some(&of(99)), None);
    set(&mut indexes, None, Some(&of(0)));
    let (_, page) = to_the_end(&indexes, &asked, Some(begun));
    assert_eq!((page.hits.len(), page.total), (99, 99));
}

#[test]
fn a_search_of_many_words_rests_as_soon_as_one_of_few() {
    const WORDS: usize = 60;
    let words: Vec<String> = (0..WORDS).map(|number| format!("w{number}")).collect();
    let text = format!("{:?}", words.join(" "));
    // More than a list of words has, so that they are bitmaps, and fewer.
    for (documents, matching, prefix) in [
        (600, Match::All, None),
        (100, Match::All, None),
        (100, Match::Any, None),
        (100, Match::Any, Some(&b"00"[..])),
    ] {
        let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
        for key in 0..documents {
            set(&mut indexes, None, Some(&entry(1, &format!("{key:04}"), Some(&text), None)));
        }
        let terms = terms_of_query(&words.join(" ")).unwrap();
        let statistics = indexes.text_statistics(&terms);
        let asked =
            TextAsked { terms: &terms, matching, prefix, statistics: &statistics, after: None, limit: 1_000 };
        let (mut under_way, mut slices) = (None, 0);
        loop {
            let budget = Budget::unlimited();
            let step = indexes.search_text(&asked, under_way, &budget).unwrap();
            // The first one looks up the words, and the keys of a prefix.
            let most = if slices == 0 { 8_000 } else { 1_600 };
            assert!(budget.steps() <= most, "{} steps of {matching:?} in slice {slices}", budget.steps());
            slices += 1;
            match step {
                TextStep::Done(page) => break assert_eq!(page.total, documents),
                TextStep::GoOn(search) => under_way = Some(search),
            }
        }
        assert!(slices > 20, "{slices} slices of {matching:?}");
    }
}

proptest! {
    #[test]
    fn what_no_change_touches_is_found_once_and_nothing_twice(
        texts in prop::collection::vec(0..TEXTS.len(), 40..120),
        steps in prop::collection::vec((0usize..130, 0..TEXTS.len()), 0..120),
        changes_per_slice in 1usize..6,
        query in prop::sample::select(vec!["red", "red green", "green blue red"]),
        all in any::<bool>(),
    ) {
        let matching = if all { Match::All } else { Match::Any };
        let (mut indexes, mut model) = (Indexes::new(Kinds::ALL, (1, 2)), BTreeMap::new());
        let mut number = 0;
        let mut write = |indexes: &mut Indexes, model: &mut BTreeMap<String, usize>, place: usize, text: usize| {
            number += 1;
            let key = format!("{place:03}");
            let of = |number, text: usize| TEXTS[text].map(|text| entry(number, &key, Some(text), None));
            let old = model.insert(key.clone(), text).and_then(|before| of(0, before));
            set(indexes, old.as_ref(), of(number, text).as_ref());
            key
        };
        for (place, text) in texts.iter().enumerate() {
            write(&mut indexes, &mut model, place, *text);
        }
        let before = model.clone();
        let terms = terms_of_query(query).unwrap();
        let statistics = indexes.text_statistics(&terms);
        let asked = TextAsked { terms: &terms, matching, prefix: None, statistics: &statistics, after: None, limit: 1_000 };
        let (mut touched, mut steps, mut under_way) = (BTreeSet::new(), steps.into_iter(), None);
        let page = loop {
            match indexes.search_text(&asked, under_way, &Budget::unlimited()).unwrap() {
                TextStep::Done(page) => break page,
                TextStep::GoOn(search) => under_way = Some(search),
            }
            indexes.searches_under_way(true);
            for (place, text) in steps.by_ref().take(changes_per_slice) {
                touched.insert(write(&mut indexes, &mut model, place, text));
            }
        };
        let found: BTreeSet<&[u8]> = page.hits.iter().map(|hit| hit.entry.key()).collect();
        prop_assert_eq!(found.len(), page.hits.len(), "a key is there twice");
        prop_assert_eq!(page.total, page.hits.len() as u64);
        let words: Vec<&str> = query.split(' ').collect();
        for (key, text) in before.iter().filter(|(key, _)| !touched.contains(*key)) {
            prop_assert_eq!(found.contains(key.as_bytes()), matches(TEXTS[*text], &words, matching), "{}", key);
        }
        // What changed, and what is given a number now, is found as ever.
        indexes.searches_under_way(false);
        for place in 130..140 {
            write(&mut indexes, &mut model, place, 2);
        }
        let count = model.values().filter(|text| matches(TEXTS[**text], &words, matching)).count();
        let statistics = indexes.text_statistics(&terms);
        prop_assert_eq!(search_text(&indexes, &terms, matching, &statistics).total, count as u64);
    }
}
