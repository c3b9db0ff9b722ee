//! Full-text search: an inverted index that is changed at every write.
//!
//! A change carries the value before and after. Both are cut into tokens, and
//! only what differs between them is touched, so no list of each document's
//! terms is kept; a value that stays as it was costs no work at all. Every
//! string of the value counts ([`for_each_string`]).
//!
//! Ranking is BM25 (k1 1.2, b 0.75). How many documents there are, how long
//! they are and how many hold a term come from outside, summed over all shards,
//! or a document's score would depend on where its key happens to live. A score
//! is summed in the order of the query's terms, so that every way of evaluating
//! a query rounds alike.

use roaring::RoaringBitmap;

use super::documents::Documents;
use super::growth::Room;
use super::json::for_each_string;
use super::postings::{Dictionary, DocumentId, Postings, TermHash};
use super::tokens::for_each_token;
use super::top::{Hit, Top, by_rank};
use crate::engine::{Change, Entry};
use crate::messaging::Match;

/// What ranking needs to know about all documents of all shards.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextStatistics {
    /// Documents with at least one token.
    pub documents: u64,
    /// The tokens of all documents, those that occur again counted again.
    pub tokens: u64,
    /// For each term of the query, in its order, how many documents hold it.
    pub document_frequency: Vec<u64>,
}

impl TextStatistics {
    /// Adds another shard's statistics for the same terms.
    pub fn merge(&mut self, other: &TextStatistics) {
        self.documents += other.documents;
        self.tokens += other.tokens;
        self.document_frequency.resize(self.document_frequency.len().max(other.document_frequency.len()), 0);
        for (sum, frequency) in self.document_frequency.iter_mut().zip(&other.document_frequency) {
            *sum += frequency;
        }
    }
}

/// A shard's part of a page of `search_text`.
#[derive(Clone, Debug, Default)]
pub struct TextPage {
    /// The best ones behind the cursor: score descending, then key ascending.
    pub hits: Vec<Hit>,
    /// How many entries match, on this page or not.
    pub total: u64,
    /// Whether there are more behind these.
    pub more: bool,
}

/// The text index of a shard's slice.
pub(super) struct TextIndex {
    hash_key: (u64, u64),
    documents: Documents,
    dictionary: Dictionary,
    /// Kept between changes for their capacity: the terms before and after.
    before: Vec<TermHash>,
    after: Vec<TermHash>,
    changes: Vec<(TermHash, u32)>,
}

impl TextIndex {
    pub(super) fn new(hash_key: (u64, u64)) -> TextIndex {
        TextIndex {
            hash_key,
            documents: Documents::new(hash_key),
            dictionary: Dictionary::default(),
            before: Vec::new(),
            after: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        let Some(key) = change.old.as_ref().or(change.new.as_ref()).map(Entry::key) else { return };
        let old = change.old.as_ref().and_then(Entry::value);
        let new = change.new.as_ref().and_then(Entry::value);
        let known = if old.is_some() { self.documents.find(key) } else { None };
        if old == new {
            if let (Some(document), Some(entry)) = (known, &change.new) {
                self.documents.replace(document, entry, self.documents.length(document));
            }
            return;
        }
        let mut before = std::mem::take(&mut self.before);
        let mut after = std::mem::take(&mut self.after);
        collect_terms(self.hash_key, old.filter(|_| known.is_some()), &mut before);
        collect_terms(self.hash_key, new, &mut after);
        if let Some(document) = self.place(known, change.new.as_ref(), key, after.len()) {
            self.update(document, &before, &after);
        }
        // A huge document's capacity isn't kept for the small ones behind it.
        const KEPT_TERMS: usize = 1 << 16;
        before.shrink_to(KEPT_TERMS);
        after.shrink_to(KEPT_TERMS);
        self.changes.shrink_to(KEPT_TERMS);
        (self.before, self.after) = (before, after);
    }

    /// Brings the document table in line; gives the document whose terms change.
    fn place(
        &mut self,
        known: Option<DocumentId>,
        new: Option<&Entry>,
        key: &[u8],
        tokens: usize,
    ) -> Option<DocumentId> {
        let length = u32::try_from(tokens).unwrap_or(u32::MAX);
        match (known, new.filter(|_| tokens > 0)) {
            (Some(document), Some(entry)) => self.documents.replace(document, entry, length),
            (Some(document), None) => self.documents.remove(document, key),
            (None, Some(entry)) => return self.documents.add(entry, length),
            (None, None) => {}
        }
        known
    }

    /// Walks over the sorted terms before and after, and sets what differs.
    fn update(&mut self, document: DocumentId, mut before: &[TermHash], mut after: &[TermHash]) {
        self.changes.clear();
        while let Some(term) = before.first().into_iter().chain(after.first()).min().copied() {
            let was = take_equal(&mut before, term);
            let is = take_equal(&mut after, term);
            if was != is {
                self.changes.push((term, is));
            }
        }
        self.dictionary.set_all(document, &self.changes);
    }

    pub(super) fn statistics(&self, terms: &[String]) -> TextStatistics {
        TextStatistics {
            documents: self.documents.len(),
            tokens: self.documents.tokens(),
            document_frequency: terms.iter().map(|term| self.postings(term).len()).collect(),
        }
    }

    fn postings(&self, term: &str) -> Postings<'_> {
        self.dictionary.postings(TermHash::new(self.hash_key, term))
    }

    pub(super) fn search(
        &self,
        terms: &[String],
        matching: Match,
        statistics: &TextStatistics,
        after: Option<(f64, &[u8])>,
        limit: usize,
    ) -> TextPage {
        let lists: Vec<Postings<'_>> = terms.iter().map(|term| self.postings(term)).collect();
        let ranking = Ranking::new(statistics);
        let mut page = Collector { documents: &self.documents, after, top: Top::new(limit.max(1)), total: 0 };
        match (matching, &lists[..]) {
            (_, [only]) => only.for_each(0..self.documents.numbers(), |document, frequency| {
                page.offer(document, ranking.part(0, frequency, self.documents.length(document)));
            }),
            (Match::All, _) => self.search_all(&lists, &ranking, &mut page),
            (Match::Any, _) => self.search_any(&lists, &ranking, &mut page),
        }
        let total = page.total;
        let (hits, more) = page.top.finish();
        TextPage { hits, total, more }
    }

    fn search_all(&self, lists: &[Postings<'_>], ranking: &Ranking, page: &mut Collector<'_>) {
        let holders = intersection(lists);
        let mut scores = vec![0.0; holders.len()];
        for (index, list) in lists.iter().enumerate() {
            list.for_each_holder(&holders, |holder, frequency| {
                scores[holder] += ranking.part(index, frequency, self.documents.length(holders[holder]));
            });
        }
        for (document, score) in holders.into_iter().zip(scores) {
            page.offer(document, score);
        }
    }

    /// Adds the terms up, one after the other, over a window of documents whose
    /// scores stay in the processor's cache, then goes on to the next window.
    fn search_any(&self, lists: &[Postings<'_>], ranking: &Ranking, page: &mut Collector<'_>) {
        const WINDOW: DocumentId = 1 << 14;
        let mut scores = vec![0.0; WINDOW.min(self.documents.numbers()) as usize];
        let mut matched = vec![0u64; scores.len().div_ceil(64)];
        let mut start = 0;
        while start < self.documents.numbers() {
            for (index, list) in lists.iter().enumerate() {
                list.for_each(start..start + WINDOW, |document, frequency| {
                    let place = (document - start) as usize;
                    matched[place / 64] |= 1 << (place % 64);
                    scores[place] += ranking.part(index, frequency, self.documents.length(document));
                });
            }
            for (block, bits) in matched.iter_mut().enumerate() {
                while *bits != 0 {
                    let place = block * 64 + bits.trailing_zeros() as usize;
                    *bits &= *bits - 1;
                    page.offer(start + place as DocumentId, std::mem::take(&mut scores[place]));
                }
            }
            start += WINDOW;
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.documents.len()
    }

    /// Of words, and of documents.
    pub(super) fn rooms(&self) -> (Room, Room) {
        (self.dictionary.room(), self.documents.room())
    }

    pub(super) fn bytes(&self) -> u64 {
        let scratch = (self.before.capacity() + self.after.capacity()) * size_of::<TermHash>()
            + self.changes.capacity() * size_of::<(TermHash, u32)>();
        (self.documents.bytes() + self.dictionary.bytes() + scratch) as u64
    }
}

/// The terms of a value, sorted, those that occur again there again.
fn collect_terms(hash_key: (u64, u64), value: Option<&[u8]>, terms: &mut Vec<TermHash>) {
    terms.clear();
    let Some(value) = value else { return };
    for_each_string(value, |text| for_each_token(text, |token| terms.push(TermHash::new(hash_key, token))));
    terms.sort_unstable();
}

/// Takes every `term` off the front of `terms`; says how many there were.
fn take_equal(terms: &mut &[TermHash], term: TermHash) -> u32 {
    let count = terms.iter().take_while(|&&other| other == term).count();
    *terms = &terms[count..];
    u32::try_from(count).unwrap_or(u32::MAX - 1)
}

/// The documents that hold every term, ascending, found from the rarest term on.
fn intersection(lists: &[Postings<'_>]) -> Vec<DocumentId> {
    let mut lists: Vec<&Postings<'_>> = lists.iter().collect();
    lists.sort_by_key(|list| list.len());
    let Some((rarest, others)) = lists.split_first() else { return Vec::new() };
    let bitmaps: Option<Vec<&RoaringBitmap>> = lists.iter().map(|list| list.bitmap()).collect();
    if let Some([first, second, rest @ ..]) = bitmaps.as_deref() {
        let both = *first & *second;
        return rest.iter().fold(both, |all, &bitmap| all & bitmap).into_iter().collect();
    }
    let mut holders = Vec::with_capacity(rarest.len() as usize);
    rarest.for_each(0..DocumentId::MAX, |document, _| holders.push(document));
    for list in others {
        holders.retain(|&document| list.frequency(document) > 0);
    }
    holders
}

/// BM25 with what depends only on the query worked out beforehand.
struct Ranking {
    /// For each term: its inverse document frequency times (k1 + 1).
    weights: Vec<f64>,
    /// k1 · (1 − b)
    base: f64,
    /// k1 · b / the average length
    slope: f64,
}

impl Ranking {
    fn new(statistics: &TextStatistics) -> Ranking {
        const K1: f64 = 1.2;
        const B: f64 = 0.75;
        let documents = statistics.documents as f64;
        let weight = |&frequency: &u64| {
            let frequency = frequency as f64;
            (1.0 + (documents - frequency + 0.5).max(0.5) / (frequency + 0.5)).ln() * (K1 + 1.0)
        };
        // Statistics are from a moment before: they may say that there is nothing yet.
        let average_length = statistics.tokens.max(1) as f64 / documents.max(1.0);
        Ranking {
            weights: statistics.document_frequency.iter().map(weight).collect(),
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
    top: Top<'a>,
    total: u64,
}

impl Collector<'_> {
    fn offer(&mut self, document: DocumentId, score: f64) {
        self.total += 1;
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
