//! How many documents hold any of some words, without their scores.

use roaring::RoaringBitmap;

use super::postings::DocumentId;
use super::text::TextIndex;
use super::tokens::QueryTerm;

/// So many steps a count may take, which is done in one go; a step takes a few hundredths of a microsecond.
const STEPS_MAX: u64 = 1 << 19;
/// So many documents of a bitmap are added in one step.
const DOCUMENTS_PER_STEP: u64 = 64;

impl TextIndex {
    /// How many documents hold any of the terms; `None` where that takes too long to be counted.
    pub(super) fn count_any(&self, terms: &[QueryTerm]) -> Option<u64> {
        let lists = self.lists(terms);
        let steps = lists.iter().map(|list| match list.bitmap() {
            Some(bitmap) => 1 + bitmap.len() / DOCUMENTS_PER_STEP,
            None => 1 + list.len(),
        });
        if steps.sum::<u64>() > STEPS_MAX {
            return None;
        }
        let mut union = RoaringBitmap::new();
        for list in lists {
            match list.bitmap() {
                Some(bitmap) => union |= bitmap,
                None => list.for_each(0..DocumentId::MAX, |document, _| {
                    union.insert(document);
                }),
            }
        }
        Some(union.len())
    }

    /// How many documents the terms' lists have together.
    pub(super) fn postings_of(&self, terms: &[QueryTerm]) -> u64 {
        self.lists(terms).iter().map(|list| list.len()).sum()
    }
}
