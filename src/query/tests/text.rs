//! Searches by words as a node does them, question by question: their pages while others write, and what
//! is said when nothing is found.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::HASH_KEY;
use crate::engine::{Change, Entry, Version};
use crate::error::{Code, Error};
use crate::indexing::{Budget, Hit, Indexes, Kinds};
use crate::messaging::Match;
use crate::query::text_gathering::TextGathering;
use crate::query::{Gathering, NextStage, Part, Progress, Query, TextQuery};

/// A page, as the reply has it, and how many questions the shards were asked for it.
#[derive(Debug)]
pub(super) struct Page {
    pub hits: Vec<Hit>,
    pub total: u64,
    pub total_any: Option<u64>,
    pub next: Option<String>,
    pub questions: usize,
}

pub(super) fn has_prefix(entry: &Entry, prefix: Option<&str>) -> bool {
    prefix.is_none_or(|prefix| entry.key().starts_with(prefix.as_bytes()))
}

/// A whole query to a shard, slice by slice.
pub(super) fn run(query: &Query, shard: &Indexes) -> Result<Part, Error> {
    let mut resume = None;
    loop {
        match query.run(shard, resume, &Budget::unlimited()).unwrap() {
            Progress::Done(part) => return part,
            Progress::GoOn(next) => resume = Some(next),
        }
    }
}

/// A page of a search.
pub(super) fn ask(
    shards: &[Indexes],
    words: &str,
    matching: Match,
    prefix: Option<&str>,
    limit: usize,
    after: Option<&str>,
) -> Result<Page, Error> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut query = TextQuery::new(bytes(words), matching, prefix.map(bytes), limit);
    if let Some(after) = after {
        query = query.behind(&bytes(after))?;
    }
    let mut gathering = TextGathering::new(query.clone());
    let mut next = Some(Query::text(query, shards.len()));
    let mut questions = 0;
    while let Some(query) = next {
        questions += 1;
        let mut parts =
            shards.iter().map(|shard| run(&query, shard)).collect::<Result<Vec<Part>, Error>>()?;
        next = gathering.next(&mut parts);
    }
    let hits = gathering.hits().to_vec();
    let mut line = Vec::new();
    gathering.encode(&mut line, b"");
    let reply: serde_json::Value = serde_json::from_slice(&line).unwrap();
    let next = reply["next"].as_str().map(str::to_owned);
    let (total, total_any) = (reply["total"].as_u64().unwrap(), reply["total_any"].as_u64());
    Ok(Page { hits, total, total_any, next, questions })
}

/// Shards of a node, and what they hold.
struct Node {
    shards: Vec<Indexes>,
    values: BTreeMap<String, String>,
    writes: u64,
}

impl Node {
    fn new(shards: usize) -> Node {
        let shards = (0..shards).map(|_| Indexes::new(Kinds::ALL, HASH_KEY)).collect();
        Node { shards, values: BTreeMap::new(), writes: 0 }
    }

    fn write(&mut self, key: &str, text: Option<&str>) {
        self.writes += 1;
        let entry = |index: u64, text: &str| {
            Entry::new(
                Version { index, ordinal: 0 },
                key.as_bytes(),
                Some(format!("{text:?}").as_bytes()),
                None,
            )
        };
        let old = match text {
            Some(text) => self.values.insert(key.into(), text.into()),
            None => self.values.remove(key),
        };
        let old = old.map(|text| entry(0, &text));
        let new = text.map(|text| entry(self.writes, text));
        let shard = key.bytes().map(usize::from).sum::<usize>() % self.shards.len();
        self.shards[shard].apply(&Change { old, new });
    }

    fn ask(&self, words: &str, matching: Match, limit: usize, after: Option<&str>) -> Page {
        ask(&self.shards, words, matching, None, limit, after).unwrap()
    }
}

fn keys(page: &Page) -> Vec<String> {
    page.hits.iter().map(|hit| String::from_utf8(hit.entry.key().to_vec()).unwrap()).collect()
}

#[test]
fn a_write_between_two_pages_takes_nothing_from_the_next() {
    for shards in [1, 2] {
        let mut node = Node::new(shards);
        ["a", "b", "c"].iter().for_each(|key| node.write(key, Some("shoe")));
        let mut page = node.ask("shoe", Match::All, 1, None);
        let mut found = keys(&page);
        while let Some(next) = page.next {
            node.write(&format!("other{}", found.len()), Some("something else"));
            page = node.ask("shoe", Match::All, 1, Some(&next));
            assert_eq!(page.total, 3);
            found.extend(keys(&page));
        }
        assert_eq!(found, ["a", "b", "c"]);
    }
}

#[test]
fn hits_that_are_deleted_page_by_page_come_once_each() {
    for shards in [1, 3] {
        let mut node = Node::new(shards);
        for number in 0..60 {
            node.write(&format!("k{number:02}"), Some(&format!("shoe {}", "blue ".repeat(number % 7))));
        }
        let (mut deleted, mut after) = (Vec::new(), None);
        loop {
            let page = node.ask("shoe", Match::All, 7, after.as_deref());
            for key in keys(&page) {
                node.write(&key, None);
                deleted.push(key);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        deleted.sort();
        let expected: Vec<String> = (0..60).map(|number| format!("k{number:02}")).collect();
        assert_eq!(deleted, expected);
    }
}

#[test]
fn a_cursor_goes_with_its_search() {
    let mut node = Node::new(2);
    (0..20).for_each(|number| node.write(&format!("k{number:02}"), Some("red shoe")));
    let next = node.ask("red shoe", Match::All, 3, None).next.unwrap();
    assert_eq!(node.ask("red shoe", Match::All, 7, Some(&next)).hits.len(), 7, "its limit may be another");
    let others =
        [("red", Match::All, None), ("red shoe", Match::Any, None), ("red shoe", Match::All, Some("k"))];
    for (words, matching, prefix) in others {
        let refused = ask(&node.shards, words, matching, prefix, 3, Some(&next)).unwrap_err();
        assert_eq!(refused.code, Code::BadRequest);
        assert!(refused.message.contains("another `search_text`"), "{refused:?}");
    }
    // Numbers that nobody has counted are no harm.
    let (fingerprint, _) = next.split_once('.').unwrap();
    for numbers in ["0.0.0.0,0", "4000000000000000.0.0.ffffffffffffffff,0", "0.ffffffffffffffff.0.1,2"] {
        let page = node.ask("red shoe", Match::All, 3, Some(&format!("{fingerprint}.{numbers}.k")));
        assert!(page.hits.iter().all(|hit| hit.score.is_finite()));
    }
    for numbers in ["0.1.1.1".to_string(), "0.1.1.1,1,1".into(), format!("0.1.1{}", ",1".repeat(1 << 20))] {
        let after = format!("{fingerprint}.{numbers}.k");
        let refused = ask(&node.shards, "red shoe", Match::All, None, 3, Some(&after)).unwrap_err();
        assert_eq!(refused.code, Code::BadRequest, "{numbers:.40}");
    }
}

#[test]
fn a_search_that_finds_nothing_says_what_any_word_would() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        (0..50).for_each(|number| node.write(&format!("r{number}"), Some("red")));
        (0..30).for_each(|number| node.write(&format!("g{number}"), Some("green")));
        let page = |words: &str, matching: Match, prefix: Option<&str>| {
            let page = ask(&node.shards, words, matching, prefix, 10, None).unwrap();
            (page.total, page.total_any)
        };
        assert_eq!(page("red green", Match::All, None), (0, Some(80)));
        assert_eq!(page("red green", Match::All, Some("g")), (0, Some(30)));
        assert_eq!(page("red red", Match::All, None), (50, None));
        assert_eq!(page("blue", Match::All, None), (0, Some(0)));
        assert_eq!(page("", Match::All, None), (0, Some(0)));
        assert_eq!(page("blue pink", Match::Any, None), (0, None));
    }
}

#[test]
fn what_else_would_be_good_to_know_takes_no_page_away() {
    let mut node = Node::new(2);
    (0..20).for_each(|number| node.write(&format!("r{number}"), Some("red")));
    (0..30).for_each(|number| node.write(&format!("g{number}"), Some("green")));
    let query = TextQuery::new(Bytes::from_static(b"red green"), Match::All, None, 3);
    let asked = Query::text(query, 2);
    let mut gathering = Gathering::search(&asked, 2);
    let mut next = Some(asked);
    while let Some(query) = next {
        for shard in &node.shards {
            gathering.found(match query {
                Query::TextAny(_) => Err(Error::new(Code::IndexNotReady, "it is built anew")),
                _ => run(&query, shard),
            });
        }
        next = match gathering.next_stage() {
            Some(NextStage::Query(query)) => Some(query),
            _ => None,
        };
    }
    let mut line = Vec::new();
    gathering.encode(&mut line, b"");
    let reply: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&reply["ok"], &reply["total"], reply.get("total_any")), (&true.into(), &0.into(), None));
}

#[test]
fn one_question_does_where_one_shard_has_all_or_few_match() {
    let mut node = Node::new(3);
    (0..100).for_each(|number| node.write(&format!("k{number:03}"), Some(&format!("common w{number}"))));
    let questions = |words: &str, matching: Match| node.ask(words, matching, 3, None).questions;
    assert_eq!(questions("w17", Match::All), 1);
    assert_eq!(questions("w17 common", Match::All), 1);
    assert_eq!(questions("w17 w18", Match::Any), 1);
    assert_eq!(questions("common", Match::All), 2);
    assert_eq!(questions("w17 common", Match::Any), 2);
    let next = node.ask("common", Match::All, 3, None).next;
    assert_eq!(node.ask("common", Match::All, 3, next.as_deref()).questions, 1);
    let mut alone = Node::new(1);
    (0..100).for_each(|number| alone.write(&format!("k{number:03}"), Some("common")));
    assert_eq!(alone.ask("common", Match::All, 3, None).questions, 1);
}

const TEXTS: [Option<&str>; 6] = [
    None,
    Some("red"),
    Some("red green"),
    Some("green pink pink"),
    Some("red red green blue"),
    Some("something else that is long and changes the average"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_key_that_stays_as_it_is_comes_exactly_once(
        texts in prop::collection::vec(0..TEXTS.len(), 1..60),
        steps in prop::collection::vec((0usize..70, 0..TEXTS.len()), 0..60),
        limit in 1usize..8,
        writes_per_page in 0usize..8,
        shards in 1usize..4,
        words in prop::sample::select(vec!["red", "red green", "green blue red"]),
        all in any::<bool>(),
        prefix in prop::sample::select(vec![None, Some("k"), Some("k1"), Some("k03")]),
    ) {
        let matching = if all { Match::All } else { Match::Any };
        let mut node = Node::new(shards);
        for (number, text) in texts.iter().enumerate() {
            node.write(&format!("k{number:02}"), TEXTS[*text]);
        }
        let before = node.values.clone();
        let (mut touched, mut steps, mut after, mut found) = (Vec::new(), steps.into_iter(), None, Vec::new());
        loop {
            let page = ask(&node.shards, words, matching, prefix, limit, after.as_deref()).unwrap();
            found.extend(keys(&page));
            for (number, text) in steps.by_ref().take(writes_per_page) {
                let key = format!("k{number:02}");
                node.write(&key, TEXTS[text]);
                touched.push(key);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let holds = |text: &str| {
            let mut words = words.split(' ').map(|word| text.split(' ').any(|other| other == word));
            if all { words.all(|held| held) } else { words.any(|held| held) }
        };
        for (key, text) in before.iter().filter(|(key, _)| !touched.contains(key)) {
            let times = found.iter().filter(|other| *other == key).count();
            let expected = holds(text) && key.starts_with(prefix.unwrap_or(""));
            prop_assert_eq!(times, usize::from(expected), "{} {}", key, text);
        }
    }
}
