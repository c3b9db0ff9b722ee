//! `search_text`: what the shards' answers come to, and what is asked next.

use super::cursor::TextCursor;
use super::merge::{TextMerged, merge_text_pages};
use super::plan::{Part, Query};
use super::text_query::TextQuery;
use crate::indexing::{FewMatches, Hit, TextPage, TextStatistics};
use crate::limits::PAGE_BYTES_MAX;
use crate::messaging::{Match, reply};

/// A search by text whose answers gather.
pub(super) struct TextGathering {
    query: TextQuery,
    /// The page, as soon as it is there.
    merged: Option<TextMerged>,
    /// How many documents hold any of the words, where none holds all and they were counted.
    total_any: Option<u64>,
    /// Where the next page begins.
    cursor: Option<String>,
}

impl TextGathering {
    pub(super) fn new(query: TextQuery) -> TextGathering {
        TextGathering { query, merged: None, total_any: None, cursor: None }
    }

    /// All shards have answered what was asked last; gives what to ask them next.
    pub(super) fn next(&mut self, parts: &mut Vec<Part>) -> Option<Query> {
        let mut pages: Vec<TextPage> = Vec::new();
        let mut counted: Vec<(TextStatistics, Option<FewMatches>)> = Vec::new();
        let mut totals: Vec<Option<u64>> = Vec::new();
        for part in parts.drain(..) {
            match part {
                Part::Text(page) => pages.push(page),
                Part::TextStatistics(statistics, few) => counted.push((statistics, few)),
                Part::TextTotal(total) => totals.push(total),
                _ => {}
            }
        }
        if self.is_merged() {
            self.total_any = totals.into_iter().sum();
            self.query.forget();
            return None;
        }
        if !counted.is_empty() {
            match self.few(counted) {
                Some(ranked) => pages = ranked,
                None => {
                    self.query.forget_many_terms();
                    return Some(Query::Text(self.query.clone()));
                }
            }
        }
        self.merge(pages)
    }

    /// The page is there; gives what else is to be asked.
    fn merge(&mut self, pages: Vec<TextPage>) -> Option<Query> {
        let merged = merge_text_pages(pages, self.query.limit, PAGE_BYTES_MAX);
        let last = merged.hits.last().filter(|_| merged.more).zip(self.query.statistics());
        self.cursor = last.map(|(hit, statistics)| {
            let (score, key) = (hit.score, hit.entry.key());
            TextCursor { statistics: statistics.clone(), score, key }.encode(self.query.fingerprint())
        });
        let is_empty = merged.total == 0 && self.query.matching == Match::All;
        self.merged = Some(merged);
        if is_empty && matches!(self.query.terms(), Ok([_, _, ..])) {
            return Some(Query::TextAny(self.query.any()));
        }
        self.total_any = is_empty.then_some(0);
        self.query.forget();
        None
    }

    pub(super) fn is_merged(&self) -> bool {
        self.merged.is_some()
    }

    /// Adds the statistics up. Ranks the matches, if all of them are there.
    fn few(&self, counted: Vec<(TextStatistics, Option<FewMatches>)>) -> Option<Vec<TextPage>> {
        let mut total = TextStatistics::default();
        counted.iter().for_each(|(statistics, _)| total.merge(statistics));
        let statistics = self.query.learn(total);
        let terms = self.query.terms().ok()?;
        let few: Option<Vec<FewMatches>> = counted.into_iter().map(|(_, few)| few).collect();
        Some(few?.iter().map(|few| few.rank(terms, statistics, self.query.limit)).collect())
    }

    /// The hits that it keeps.
    pub(super) fn hits(&self) -> &[Hit] {
        self.merged.as_ref().map_or(&[], |merged| &merged.hits)
    }

    pub(super) fn cursor_bytes(&self) -> usize {
        self.cursor.as_ref().map_or(0, String::len)
    }

    pub(super) fn encode(self, line: &mut Vec<u8>, id: &[u8]) {
        let Some(merged) = self.merged else { return };
        let page = reply::TextPage {
            total: merged.total,
            total_any: self.total_any,
            next: self.cursor.as_deref().map(str::as_bytes),
        };
        reply::text_page(line, id, merged.hits.iter().map(|hit| (hit.entry.key(), hit.score)), page);
    }
}
