//! A search by text that few documents match: one question instead of two.
//!
//! A score needs the statistics of all shards, so that a search asks twice: for
//! the statistics, and for the best documents. A shard in which a few match
//! tells these along with its statistics, with all that their scores depend on.
//! If every shard does, whoever adds the statistics up ranks them at once.

use super::postings::{DocumentId, Postings};
use super::ranking::Ranking;
use super::text::{TextIndex, TextPage, TextStatistics};
use super::tokens::QueryTerm;
use super::top::Top;
use crate::engine::Entry;
use crate::messaging::Match;

/// At most so many documents are looked at.
const DOCUMENTS_MAX: u64 = if cfg!(test) { 4 } else { 256 };
/// At most so many frequencies are told.
const FREQUENCIES_MAX: usize = 2_048;

/// All documents of a shard that match.
#[derive(Clone, Debug, Default)]
pub struct FewMatches {
    /// Each with its length.
    documents: Vec<(Entry, u32)>,
    /// Of each document those of all terms, in the query's order.
    frequencies: Vec<u32>,
}

impl TextIndex {
    /// `None` where it may be many.
    pub(super) fn few_matches(
        &self,
        terms: &[QueryTerm],
        matching: Match,
        prefix: Option<&[u8]>,
    ) -> Option<FewMatches> {
        let lists = self.lists(terms);
        let documents = few_documents(&lists, matching)?;
        let mut few = FewMatches::default();
        if documents.len() * lists.len() > FREQUENCIES_MAX {
            return None;
        }
        for document in documents {
            let before = few.frequencies.len();
            few.frequencies.extend(lists.iter().map(|list| list.frequency(document)));
            let is_match = matching == Match::Any || !few.frequencies[before..].contains(&0);
            let entry = self
                .documents
                .entry(document)
                .filter(|entry| is_match && prefix.is_none_or(|prefix| entry.key().starts_with(prefix)));
            match entry {
                Some(entry) => few.documents.push((entry.clone(), self.documents.length(document))),
                None => few.frequencies.truncate(before),
            }
        }
        Some(few)
    }
}

/// The documents that may match, each once.
fn few_documents(lists: &[Postings<'_>], matching: Match) -> Option<Vec<DocumentId>> {
    let rarest = lists.iter().min_by_key(|list| list.len());
    let taken: Vec<&Postings<'_>> = match matching {
        Match::All => rarest.into_iter().collect(),
        Match::Any => lists.iter().collect(),
    };
    if taken.iter().map(|list| list.len()).sum::<u64>() > DOCUMENTS_MAX {
        return None;
    }
    let mut documents = Vec::new();
    taken.iter().for_each(|list| list.for_each(0..DocumentId::MAX, |document, _| documents.push(document)));
    documents.sort_unstable();
    documents.dedup();
    Some(documents)
}

impl FewMatches {
    /// The first page of them.
    pub fn rank(&self, terms: &[QueryTerm], statistics: &TextStatistics, limit: usize) -> TextPage {
        if self.documents.is_empty() {
            return TextPage::default();
        }
        let ranking = Ranking::new(terms, statistics);
        let mut top = Top::new(limit.max(1));
        let frequencies = self.frequencies.chunks(terms.len().max(1));
        for ((entry, length), frequencies) in self.documents.iter().zip(frequencies) {
            let mut score = 0.0;
            for (term, frequency) in frequencies.iter().enumerate().filter(|(_, frequency)| **frequency > 0) {
                score += ranking.part(term, *frequency, *length);
            }
            top.offer(score, entry);
        }
        let (hits, more) = top.finish();
        TextPage { hits, total: self.documents.len() as u64, more }
    }

    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.documents.iter().map(|(entry, _)| entry)
    }
}
