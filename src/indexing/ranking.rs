//! BM25: what a word adds to the score of a document.
//!
//! A score depends on nothing but the document, the words and the statistics, to
//! the last bit and on every machine: a cursor says behind which score a page
//! begins, and a key that stays as it is must have that score again. So parts
//! are added up in the order of the query's terms by every way of evaluating
//! it, and the logarithm is not the system's, which rounds as it likes.

use libm::log;

use super::text::TextStatistics;
use super::tokens::QueryTerm;

/// BM25 with what depends only on the query worked out beforehand.
pub(super) struct Ranking {
    /// For each term: its inverse document frequency times (k1 + 1), times how often the query has it.
    weights: Vec<f64>,
    /// k1 · (1 − b)
    base: f64,
    /// k1 · b / the average length
    slope: f64,
}

impl Ranking {
    pub(super) fn new(terms: &[QueryTerm], statistics: &TextStatistics) -> Ranking {
        const K1: f64 = 1.2;
        const B: f64 = 0.75;
        let documents = statistics.documents as f64;
        let weight = |(term, &frequency): (&QueryTerm, &u64)| {
            let frequency = frequency as f64;
            let rarity = log(1.0 + (documents - frequency + 0.5).max(0.5) / (frequency + 0.5));
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
    pub(super) fn part(&self, term: usize, frequency: u32, length: u32) -> f64 {
        let frequency = f64::from(frequency);
        let weight = self.weights.get(term).copied().unwrap_or(0.0);
        weight * frequency / (frequency + self.base + self.slope * f64::from(length))
    }
}
