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
use super::ranking::Ranking;
use super::text::{TextIndex, TextPage, TextStatistics};
use super::tokens::QueryTerm;
use super::top::{Top, by_rank};
use crate::engine::Entry;
use crate::messaging::Match;

/// Tests have many windows and slices; measurements, which are made without assertions, have not.
const IN_TESTS: bool = cfg!(all(test, debug_assertions));

/// Documents whose scores are added up together, at most.
const WINDOW: DocumentId = if IN_TESTS { 4 } else { 1 << 14 };

/// At least, where each of them holds very many of the words.
const WINDOW_MIN: DocumentId = if IN_TESTS { 4 } else { 64 };

/// Steps after which others have their turn: some ten milliseconds.
const SLICE_STEPS: u64 = if IN_TESTS { 16 } else { 1 << 19 };

/// What it costs, in steps, to look whether a document's key has a prefix: the key lies in its entry,
/// anywhere in memory.
const PREFIX_STEPS: u64 = 4;

/// So many keys of a prefix are followed at most, in one go.
const FEW_KEYS_MAX: u64 = 1 << 15;

/// What a search by text is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TextAsked<'a> {
    /// The query's words ([`super::terms_of_query`]).
    pub terms: &'a [QueryTerm],
    /// Whether all must occur.
    pub matching: Match,
    /// Keys must begin with this.
    pub prefix: Option<&'a [u8]>,
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
    /// Documents, or places in the walk's list, that are still to come.
    next: DocumentId,
    end: DocumentId,
    walk: Walk,
    /// Changes that the index had had by then.
    changes: u64,
    top: Top,
    total: u64,
}

/// Which documents are looked at.
#[derive(Debug)]
enum Walk {
    /// Those of the words' lists.
    Lists,
    /// Those that held all words when the search began.
    Holders(Vec<DocumentId>),
    /// These, which hold some of the words or none: those of a prefix that few keys have.
    Candidates(Vec<DocumentId>),
}

impl TextIndex {
    /// Goes on with a search, or begins it: with all keys that have its prefix, where they are
    /// [so few](TextIndex::few_keys) that it is better to go through them.
    pub(super) fn search(
        &self,
        asked: &TextAsked<'_>,
        keys: Option<&[&Entry]>,
        under_way: Option<TextSearch>,
        budget: &Budget<'_>,
    ) -> Result<TextStep, GivenUp> {
        let lists = self.lists(asked.terms);
        let mut search = match under_way {
            Some(search) => search,
            None => self.begin(asked, keys, &lists, budget)?,
        };
        let TextSearch { walk, changes, top, total, next, end } = &mut search;
        let mut pass = Pass {
            index: self,
            lists: &lists,
            ranking: Ranking::new(asked.terms, asked.statistics),
            scores: Scores::new(WINDOW.min(*end) as usize),
            next_documents: Vec::new(),
            page: Collector {
                documents: &self.documents,
                prefix: asked.prefix,
                after: asked.after,
                top,
                total,
            },
            budget,
        };
        let window_documents = self.window(walk, &lists);
        while *next < *end {
            let window = *next..next.saturating_add(window_documents).min(*end);
            *next = window.end;
            let places = window.start as usize..window.end as usize;
            match (&*walk, &lists[..]) {
                (Walk::Holders(holders), _) if *changes == self.changes_applied => {
                    pass.holders(&holders[places])?;
                }
                // Some of them may hold less by now.
                (Walk::Holders(holders), _) => pass.candidates(&holders[places], asked.matching)?,
                (Walk::Candidates(candidates), _) => pass.candidates(&candidates[places], asked.matching)?,
                (Walk::Lists, [only]) => pass.one(window, only)?,
                (Walk::Lists, _) => pass.any(window.start, window.end)?,
            }
            // Were searches under way without end, numbers would be used up.
            let may_rest = budget.steps() >= SLICE_STEPS && !self.documents.holds_many();
            if *next < *end && may_rest {
                return Ok(TextStep::GoOn(search));
            }
        }
        let total = search.total;
        let (hits, more) = search.top.finish();
        Ok(TextStep::Done(TextPage { hits, total, more }))
    }

    pub(super) fn lists(&self, terms: &[QueryTerm]) -> Vec<Postings<'_>> {
        terms.iter().map(|term| self.postings(term)).collect()
    }

    /// With so many keys of a prefix it costs less to look each of them up in the words' lists than
    /// to go through the lists.
    pub(super) fn few_keys(&self, asked: &TextAsked<'_>) -> usize {
        // A look-up is a few places in memory for the key, and a few for each word.
        const POSTINGS_PER_LOOK_UP: u64 = 8;
        let lengths = asked.terms.iter().map(|term| self.postings(term).len());
        let postings = match asked.matching {
            Match::All => lengths.min().unwrap_or(0),
            Match::Any => lengths.sum(),
        };
        let few = postings / (POSTINGS_PER_LOOK_UP * (1 + asked.terms.len() as u64));
        few.min(FEW_KEYS_MAX) as usize
    }

    /// So many documents that a search can rest soon: each may hold very many of the words.
    fn window(&self, walk: &Walk, lists: &[Postings<'_>]) -> DocumentId {
        let (steps_each, least) = match walk {
            Walk::Lists => {
                let postings = lists.iter().map(Postings::len).sum::<u64>();
                (1 + postings / u64::from(self.documents.numbers()).max(1), WINDOW_MIN)
            }
            Walk::Holders(_) | Walk::Candidates(_) => (1 + lists.len() as u64, 1),
        };
        // A window is at most what a slice is.
        ((SLICE_STEPS / steps_each).min(u64::from(WINDOW)) as DocumentId).max(least)
    }

    fn begin(
        &self,
        asked: &TextAsked<'_>,
        keys: Option<&[&Entry]>,
        lists: &[Postings<'_>],
        budget: &Budget<'_>,
    ) -> Result<TextSearch, GivenUp> {
        let walk = match (keys, asked.matching) {
            (Some(keys), _) => {
                budget.spend(keys.len() as u64 * PREFIX_STEPS)?;
                let found = keys.iter().filter_map(|entry| self.documents.find(entry.key()));
                Walk::Candidates(found.collect())
            }
            (None, Match::All) if lists.len() != 1 => match intersection(lists, budget)? {
                Some(holders) => Walk::Holders(holders),
                None => Walk::Candidates(rarest(lists)),
            },
            (None, _) => Walk::Lists,
        };
        let end = match &walk {
            Walk::Lists => self.documents.numbers(),
            Walk::Holders(listed) | Walk::Candidates(listed) => listed.len() as DocumentId,
        };
        let (top, changes) = (Top::new(asked.limit.max(1)), self.changes_applied);
        Ok(TextSearch { next: 0, end, walk, changes, top, total: 0 })
    }
}

/// What is needed to rank the documents of a window.
struct Pass<'a> {
    index: &'a TextIndex,
    lists: &'a [Postings<'a>],
    ranking: Ranking,
    scores: Scores,
    /// Of each list the first document at or behind the window, or none: most lists have none in most windows,
    /// and aren't touched there.
    next_documents: Vec<DocumentId>,
    page: Collector<'a>,
    budget: &'a Budget<'a>,
}

impl Pass<'_> {
    /// Of a single word.
    fn one(&mut self, window: std::ops::Range<DocumentId>, list: &Postings<'_>) -> Result<(), GivenUp> {
        let mut visited = 0;
        list.for_each(window, |document, frequency| {
            visited += 1;
            self.page.offer(document, self.ranking.part(0, frequency, self.index.documents.length(document)));
        });
        self.budget.spend(visited * self.page.steps())
    }

    /// Documents that hold every word, ascending.
    fn holders(&mut self, holders: &[DocumentId]) -> Result<(), GivenUp> {
        let documents = &self.index.documents;
        for (index, list) in self.lists.iter().enumerate() {
            list.for_each_holder(holders, |holder, frequency| {
                self.scores.sums[holder] +=
                    self.ranking.part(index, frequency, documents.length(holders[holder]));
            });
            self.budget.spend(holders.len() as u64)?;
        }
        for (&document, score) in holders.iter().zip(&mut self.scores.sums) {
            self.page.offer(document, std::mem::take(score));
        }
        self.budget.spend(holders.len() as u64 * (self.page.steps() - 1))
    }

    /// Documents of which is not known which words they hold.
    fn candidates(&mut self, candidates: &[DocumentId], matching: Match) -> Result<(), GivenUp> {
        for &document in candidates {
            self.budget.spend(1 + self.lists.len() as u64)?;
            let length = self.index.documents.length(document);
            let (mut held, mut score) = (0, 0.0);
            for (index, list) in self.lists.iter().enumerate() {
                let frequency = list.frequency(document);
                if frequency > 0 {
                    held += 1;
                    score += self.ranking.part(index, frequency, length);
                } else if matching == Match::All {
                    held = 0;
                    break;
                }
            }
            if held > 0 {
                self.page.offer(document, score);
            }
        }
        Ok(())
    }

    /// Adds the terms up, one after the other, over a window of documents whose
    /// scores stay in the processor's cache.
    fn any(&mut self, start: DocumentId, end: DocumentId) -> Result<(), GivenUp> {
        let Pass { index, lists, ranking, scores, next_documents, page, budget } = self;
        const LISTS_PER_STEP: u64 = 16;
        if next_documents.is_empty() {
            budget.spend(lists.len() as u64)?;
            next_documents.extend(lists.iter().map(|list| list.next_from(start)));
        }
        budget.spend(1 + lists.len() as u64 / LISTS_PER_STEP)?;
        for ((term, list), next) in lists.iter().enumerate().zip(next_documents) {
            if *next >= end {
                continue;
            }
            *next = list.next_from(end);
            let mut visited = 0;
            list.for_each(start..end, |document, frequency| {
                visited += 1;
                let place = (document - start) as usize;
                scores.matched[place / 64] |= 1 << (place % 64);
                scores.sums[place] += ranking.part(term, frequency, index.documents.length(document));
            });
            budget.spend(visited * page.steps() + 1)?;
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

/// The documents that hold every term, ascending, where all have so many documents that these are bitmaps.
fn intersection(lists: &[Postings<'_>], budget: &Budget<'_>) -> Result<Option<Vec<DocumentId>>, GivenUp> {
    /// About what one step is worth of combining bitmaps.
    const DOCUMENTS_PER_STEP: u64 = 256;
    let mut lists: Vec<&Postings<'_>> = lists.iter().collect();
    lists.sort_by_key(|list| list.len());
    let bitmaps: Option<Vec<&RoaringBitmap>> = lists.iter().map(|list| list.bitmap()).collect();
    let Some([first, second, rest @ ..]) = bitmaps.as_deref() else { return Ok(None) };
    let mut all = *first & *second;
    for bitmap in rest {
        budget.spend(1 + all.len() / DOCUMENTS_PER_STEP)?;
        all &= *bitmap;
    }
    Ok(Some(all.into_iter().collect()))
}

/// The documents of the rarest term: a few hundred at most, where it is no bitmap.
fn rarest(lists: &[Postings<'_>]) -> Vec<DocumentId> {
    let mut documents = Vec::new();
    if let Some(rarest) = lists.iter().min_by_key(|list| list.len()) {
        rarest.for_each(0..DocumentId::MAX, |document, _| documents.push(document));
    }
    documents
}

/// Counts the matches and keeps the best behind the cursor.
struct Collector<'a> {
    documents: &'a Documents,
    prefix: Option<&'a [u8]>,
    after: Option<(f64, &'a [u8])>,
    top: &'a mut Top,
    total: &'a mut u64,
}

impl Collector<'_> {
    /// What a document costs that is offered.
    fn steps(&self) -> u64 {
        1 + if self.prefix.is_some() { PREFIX_STEPS } else { 0 }
    }

    fn offer(&mut self, document: DocumentId, score: f64) {
        if let Some(prefix) = self.prefix
            && !self.documents.entry(document).is_some_and(|entry| entry.key().starts_with(prefix))
        {
            return;
        }
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
