//! A search by text: ranking, a window of documents after the other.
//!
//! A long search is worked on in slices, between which others have their turn
//! and changes are applied. It goes through the numbers of documents that there
//! were when it began. While it is under way no number is given to another
//! document, so that none is met twice; one that changes counts as it is, or
//! was, when the search comes by, which is never older than what was there when
//! the search began.

use roaring::RoaringBitmap;

use super::budget::{Budget, GivenUp};
use super::documents::Documents;
use super::postings::{DocumentId, Postings};
use super::text::{TextIndex, TextPage, TextStatistics};
use super::tokens::QueryTerm;
use super::top::{Top, by_rank};
use crate::messaging::Match;

/// Tests have many windows and slices; measurements, which are made without assertions, have not.
const IN_TESTS: bool = cfg!(all(test, debug_assertions));

/// Documents whose scores are added up together.
const WINDOW: DocumentId = if IN_TESTS { 4 } else { 1 << 14 };

/// Steps after which others have their turn: some ten milliseconds.
const SLICE_STEPS: u64 = if IN_TESTS { 16 } else { 1 << 19 };

/// What a search by text is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TextAsked<'a> {
    /// The query's words ([`super::terms_of_query`]).
    pub terms: &'a [QueryTerm],
    /// Whether all must occur.
    pub matching: Match,
    /// Those of all shards, merged.
    pub statistics: &'a TextStatistics,
    /// The page begins behind this score and key.
    pub after: Option<(f64, &'a [u8])>,
    /// Hits in the page.
    pub limit: usize,
}

/// How far a search by text has come.
#[derive(Debug)]
pub enum TextStep {
    /// Its page.
    Done(TextPage),
    /// There is more to do, from here on.
    GoOn(TextSearch),
}

/// A search by text that is under way.
#[derive(Debug)]
pub struct TextSearch {
    /// Documents, or places in `holders`, that are still to come.
    next: DocumentId,
    end: DocumentId,
    /// The documents that held all words when the search began, where all are wanted.
    holders: Option<Vec<DocumentId>>,
    /// Changes that the index had had by then.
    changes: u64,
    top: Top,
    total: u64,
}

impl TextIndex {
    /// Goes on with a search, or begins it.
    pub(super) fn search(
        &self,
        asked: &TextAsked<'_>,
        under_way: Option<TextSearch>,
        budget: &Budget<'_>,
    ) -> Result<TextStep, GivenUp> {
        let lists: Vec<Postings<'_>> = asked.terms.iter().map(|term| self.postings(term)).collect();
        let ranking = Ranking::new(asked.terms, asked.statistics);
        let mut search = match under_way {
            Some(search) => search,
            None => self.begin(asked, &lists, budget)?,
        };
        let mut scores = Scores::new(WINDOW.min(search.end) as usize);
        while search.next < search.end {
            let window = search.next..search.next.saturating_add(WINDOW).min(search.end);
            search.next = window.end;
            let TextSearch { holders, changes, top, total, .. } = &mut search;
            let mut page = Collector { documents: &self.documents, after: asked.after, top, total };
            let places = window.start as usize..window.end as usize;
            match (holders, &lists[..]) {
                (Some(holders), _) => {
                    let holders = &holders[places];
                    let holders = match *changes == self.changes_applied {
                        true => holders,
                        // Some of them may hold less by now.
                        false => &still_holders(holders, &lists),
                    };
                    self.rank_holders(holders, &lists, &ranking, &mut scores, &mut page, budget)?;
                }
                (None, [only]) => {
                    let before = *page.total;
                    only.for_each(window, |document, frequency| {
                        page.offer(document, ranking.part(0, frequency, self.documents.length(document)));
                    });
                    budget.spend(*page.total - before)?;
                }
                (None, lists) => {
                    self.rank_any(window.start, window.end, lists, &ranking, &mut scores, &mut page, budget)?
                }
            }
            // Were searches under way without end, numbers would be used up.
            let may_rest = budget.steps() >= SLICE_STEPS && !self.documents.holds_many();
            if search.next < search.end && may_rest {
                return Ok(TextStep::GoOn(search));
            }
        }
        let total = search.total;
        let (hits, more) = search.top.finish();
        Ok(TextStep::Done(TextPage { hits, total, more }))
    }

    fn begin(
        &self,
        asked: &TextAsked<'_>,
        lists: &[Postings<'_>],
        budget: &Budget<'_>,
    ) -> Result<TextSearch, GivenUp> {
        let holders = match asked.matching {
            Match::All if lists.len() != 1 => Some(intersection(lists, budget)?),
            _ => None,
        };
        let end = holders.as_ref().map_or(self.documents.numbers(), |holders| holders.len() as DocumentId);
        let (top, changes) = (Top::new(asked.limit.max(1)), self.changes_applied);
        Ok(TextSearch { next: 0, end, holders, changes, top, total: 0 })
    }

    fn rank_holders(
        &self,
        holders: &[DocumentId],
        lists: &[Postings<'_>],
        ranking: &Ranking,
        scores: &mut Scores,
        page: &mut Collector<'_>,
        budget: &Budget<'_>,
    ) -> Result<(), GivenUp> {
        for (index, list) in lists.iter().enumerate() {
            list.for_each_holder(holders, |holder, frequency| {
                scores.sums[holder] += ranking.part(index, frequency, self.documents.length(holders[holder]));
            });
            budget.spend(holders.len() as u64)?;
        }
        for (&document, score) in holders.iter().zip(&mut scores.sums) {
            page.offer(document, std::mem::take(score));
        }
        Ok(())
    }

    /// Adds the terms up, one after the other, over a window of documents whose
    /// scores stay in the processor's cache.
    #[allow(clippy::too_many_arguments, reason = "it is one pass of a loop")]
    fn rank_any(
        &self,
        start: DocumentId,
        end: DocumentId,
        lists: &[Postings<'_>],
        ranking: &Ranking,
        scores: &mut Scores,
        page: &mut Collector<'_>,
        budget: &Budget<'_>,
    ) -> Result<(), GivenUp> {
        for (index, list) in lists.iter().enumerate() {
            let mut visited = 0;
            list.for_each(start..end, |document, frequency| {
                visited += 1;
                let place = (document - start) as usize;
                scores.matched[place / 64] |= 1 << (place % 64);
                scores.sums[place] += ranking.part(index, frequency, self.documents.length(document));
            });
            budget.spend(visited + 1)?;
        }
        for (block, bits) in scores.matched.iter_mut().enumerate() {
            while *bits != 0 {
                let place = block * 64 + bits.trailing_zeros() as usize;
                *bits &= *bits - 1;
                page.offer(start + place as DocumentId, std::mem::take(&mut scores.sums[place]));
            }
        }
        Ok(())
    }
}

/// A window's scores, all zero between two windows.
struct Scores {
    sums: Vec<f64>,
    /// A bit for each document that holds a term.
    matched: Vec<u64>,
}

impl Scores {
    fn new(window: usize) -> Scores {
        Scores { sums: vec![0.0; window], matched: vec![0; window.div_ceil(64)] }
    }
}

/// The documents that hold every term, ascending, found from the rarest term on.
fn intersection(lists: &[Postings<'_>], budget: &Budget<'_>) -> Result<Vec<DocumentId>, GivenUp> {
    /// About what one step is worth of combining bitmaps.
    const DOCUMENTS_PER_STEP: u64 = 256;
    let mut lists: Vec<&Postings<'_>> = lists.iter().collect();
    lists.sort_by_key(|list| list.len());
    let Some((rarest, others)) = lists.split_first() else { return Ok(Vec::new()) };
    let bitmaps: Option<Vec<&RoaringBitmap>> = lists.iter().map(|list| list.bitmap()).collect();
    if let Some([first, second, rest @ ..]) = bitmaps.as_deref() {
        let mut all = *first & *second;
        for bitmap in rest {
            budget.spend(1 + all.len() / DOCUMENTS_PER_STEP)?;
            all &= *bitmap;
        }
        return Ok(all.into_iter().collect());
    }
    let mut holders = Vec::with_capacity(rarest.len() as usize);
    rarest.for_each(0..DocumentId::MAX, |document, _| holders.push(document));
    for list in others {
        budget.spend(1 + holders.len() as u64)?;
        holders.retain(|&document| list.frequency(document) > 0);
    }
    Ok(holders)
}

fn still_holders(holders: &[DocumentId], lists: &[Postings<'_>]) -> Vec<DocumentId> {
    let holds = |document: &DocumentId| lists.iter().all(|list| list.frequency(*document) > 0);
    holders.iter().copied().filter(holds).collect()
}

/// BM25 with what depends only on the query worked out beforehand.
struct Ranking {
    /// For each term: its inverse document frequency times (k1 + 1), times how often the query has it.
    weights: Vec<f64>,
    /// k1 · (1 − b)
    base: f64,
    /// k1 · b / the average length
    slope: f64,
}

impl Ranking {
    fn new(terms: &[QueryTerm], statistics: &TextStatistics) -> Ranking {
        const K1: f64 = 1.2;
        const B: f64 = 0.75;
        let documents = statistics.documents as f64;
        let weight = |(term, &frequency): (&QueryTerm, &u64)| {
            let frequency = frequency as f64;
            let rarity = (1.0 + (documents - frequency + 0.5).max(0.5) / (frequency + 0.5)).ln();
            rarity * (K1 + 1.0) * f64::from(term.count)
        };
        // Statistics are from a moment before: they may say that there is nothing yet.
        let average_length = statistics.tokens.max(1) as f64 / documents.max(1.0);
        Ranking {
            weights: terms.iter().zip(&statistics.document_frequency).map(weight).collect(),
            base: K1 * (1.0 - B),
            slope: K1 * B / average_length,
        }
    }

    /// What the term adds to the score of a document of that length.
    fn part(&self, term: usize, frequency: u32, length: u32) -> f64 {
        let frequency = f64::from(frequency);
        let weight = self.weights.get(term).copied().unwrap_or(0.0);
        weight * frequency / (frequency + self.base + self.slope * f64::from(length))
    }
}

/// Counts the matches and keeps the best behind the cursor.
struct Collector<'a> {
    documents: &'a Documents,
    after: Option<(f64, &'a [u8])>,
    top: &'a mut Top,
    total: &'a mut u64,
}

impl Collector<'_> {
    fn offer(&mut self, document: DocumentId, score: f64) {
        *self.total += 1;
        if self.after.is_some_and(|(last, _)| score > last) {
            return;
        }
        if score < self.top.floor() {
            self.top.pass_over();
            return;
        }
        let Some(entry) = self.documents.entry(document) else { return };
        if self.after.is_some_and(|after| by_rank((score, entry.key()), after).is_le()) {
            return;
        }
        self.top.offer(score, entry);
    }
}
