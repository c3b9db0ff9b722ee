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
//! a query rounds alike. A term that the query has several times is evaluated
//! once, and what it adds is multiplied: the cost is that of the different terms.

use super::build::Words;
use super::documents::Documents;
use super::growth::Room;
use super::json::for_each_string;
use super::postings::{Dictionary, DocumentId, Postings};
use super::term_hash::TermHash;
use super::tokens::{QueryTerm, Tokenizer};
use super::top::Hit;
use crate::engine::{Change, Entry};

/// What ranking needs to know about all documents of all shards.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextStatistics {
    /// Documents with at least one word.
    pub documents: u64,
    /// The words that count of all documents, those that occur again counted again.
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
    pub(super) documents: Documents,
    dictionary: Dictionary,
    tokenizer: Tokenizer,
    /// How many there have been.
    pub(super) changes_applied: u64,
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
            tokenizer: Tokenizer::default(),
            changes_applied: 0,
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
        self.changes_applied += 1;
        let mut before = std::mem::take(&mut self.before);
        let mut after = std::mem::take(&mut self.after);
        self.collect_terms(old.filter(|_| known.is_some()), &mut before);
        let length = self.collect_terms(new, &mut after);
        if let Some(document) = self.place(known, change.new.as_ref(), key, length) {
            self.update(document, &before, &after);
        }
        // A huge document's capacity isn't kept for the small ones behind it.
        const KEPT_TERMS: usize = 1 << 16;
        before.shrink_to(KEPT_TERMS);
        after.shrink_to(KEPT_TERMS);
        self.changes.shrink_to(KEPT_TERMS);
        (self.before, self.after) = (before, after);
    }

    /// The terms of a value, sorted, those that occur again there again. Gives its length.
    fn collect_terms(&mut self, value: Option<&[u8]>, terms: &mut Vec<TermHash>) -> usize {
        terms.clear();
        let Some(value) = value else { return 0 };
        let length = terms_of(&mut self.tokenizer, self.hash_key, value, terms);
        terms.sort_unstable();
        length
    }

    /// Adds documents of keys that have none.
    pub(super) fn add_all(&mut self, words: &Words<'_>) {
        self.changes_applied += words.documents.len() as u64;
        let add = |&(entry, length): &(&Entry, usize)| self.place(None, Some(entry), entry.key(), length);
        let documents: Vec<Option<DocumentId>> = words.documents.iter().map(add).collect();
        let mut postings = Vec::with_capacity(words.terms.len());
        for same in words.terms.chunk_by(|left, right| left == right) {
            let (term, place) = same[0];
            let frequency = u32::try_from(same.len()).unwrap_or(u32::MAX - 1);
            postings.extend(documents[place as usize].map(|document| (term, document, frequency)));
        }
        self.dictionary.add_all(&postings);
    }

    /// Brings the document table in line; gives the document whose terms change.
    fn place(
        &mut self,
        known: Option<DocumentId>,
        new: Option<&Entry>,
        key: &[u8],
        length: usize,
    ) -> Option<DocumentId> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        match (known, new.filter(|_| length > 0)) {
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

    pub(super) fn statistics(&self, terms: &[QueryTerm]) -> TextStatistics {
        TextStatistics {
            documents: self.documents.len(),
            tokens: self.documents.tokens(),
            document_frequency: terms.iter().map(|term| self.postings(term).len()).collect(),
        }
    }

    pub(super) fn postings(&self, term: &QueryTerm) -> Postings<'_> {
        self.dictionary.postings(TermHash::new(self.hash_key, &term.word))
    }

    /// While searches are under way, documents that come have numbers of their own.
    pub(super) fn searches_under_way(&mut self, any: bool) {
        self.documents.hold_numbers(any);
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
            + self.changes.capacity() * size_of::<(TermHash, u32)>()
            + self.tokenizer.bytes();
        (self.documents.bytes() + self.dictionary.bytes() + scratch) as u64
    }
}

/// The terms of a value, in its order. Gives how many words it has, which is its length: there are more terms.
pub(super) fn terms_of(
    tokenizer: &mut Tokenizer,
    hash_key: (u64, u64),
    value: &[u8],
    terms: &mut Vec<TermHash>,
) -> usize {
    let mut length = 0;
    for_each_string(value, |text| {
        tokenizer.for_each_token(text, |token, counts| {
            terms.push(TermHash::new(hash_key, token));
            length += usize::from(counts);
        });
    });
    length
}

/// Takes every `term` off the front of `terms`; says how many there were.
fn take_equal(terms: &mut &[TermHash], term: TermHash) -> u32 {
    let count = terms.iter().take_while(|&&other| other == term).count();
    *terms = &terms[count..];
    u32::try_from(count).unwrap_or(u32::MAX - 1)
}
