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
    /// How many documents hold any of the words, where none holds all.
    total_any: Option<u64>,
}

impl TextGathering {
    pub(super) fn new(query: TextQuery) -> TextGathering {
        TextGathering { query, merged: None, total_any: None }
    }

    /// All shards have answered what was asked last; gives what to ask them next.
    pub(super) fn next(&mut self, parts: &mut Vec<Part>) -> Option<Query> {
        let mut pages: Vec<TextPage> = Vec::new();
        let mut counted: Vec<(TextStatistics, Option<FewMatches>)> = Vec::new();
        for part in parts.drain(..) {
            match part {
                Part::Text(page) => pages.push(page),
                Part::TextStatistics(statistics, few) => counted.push((statistics, few)),
                _ => {}
            }
        }
        if !counted.is_empty() {
            match self.few(counted) {
                Some(ranked) => pages = ranked,
                None => return Some(Query::Text(self.query.clone())),
            }
        }
        if self.merged.is_some() {
            self.total_any.get_or_insert_with(|| pages.iter().map(|page| page.total).sum());
            return None;
        }
        let merged = merge_text_pages(pages, self.query.limit, PAGE_BYTES_MAX);
        let is_empty = merged.total == 0 && self.query.matching == Match::All;
        self.merged = Some(merged);
        match self.query.terms() {
            Ok([_, _, ..]) if is_empty => Some(Query::Text(self.query.any())),
            _ => {
                self.total_any = is_empty.then_some(0);
                None
            }
        }
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

    pub(super) fn encode(self, line: &mut Vec<u8>, id: &[u8]) {
        let Some(merged) = self.merged else { return };
        let last = merged.hits.last().filter(|_| merged.more).zip(self.query.statistics());
        let next = last.map(|(hit, statistics)| {
            let (score, key) = (hit.score, hit.entry.key());
            TextCursor { statistics: statistics.clone(), score, key }.encode(self.query.fingerprint())
        });
        let page = reply::TextPage {
            total: merged.total,
            total_any: self.total_any,
            next: next.as_deref().map(str::as_bytes),
        };
        reply::text_page(line, id, merged.hits.iter().map(|hit| (hit.entry.key(), hit.score)), page);
    }
}
