//! How often a frequent term occurs in the documents that hold it more than once.
//!
//! Sorted pairs in chunks of at most [`CHUNK_PAIRS`]: two levels, both plain
//! arrays. Ranking walks over all of them in order at the speed of memory,
//! which a B-tree's scattered nodes don't allow; a change moves one chunk's
//! pairs at most. Documents that come in ascending order fill chunks wholly.

use std::ops::Range;

use super::postings::DocumentId;

/// Small in tests, so that they split and merge.
const CHUNK_PAIRS: usize = if cfg!(test) { 16 } else { 512 };

type Pair = (DocumentId, u32);

/// A sorted map from documents to frequencies. No chunk is empty.
#[derive(Default)]
pub(super) struct Frequencies {
    chunks: Vec<Vec<Pair>>,
    length: usize,
}

impl Frequencies {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The chunk that holds the document, if any does: the last one that
    /// doesn't begin behind it.
    fn chunk_of(&self, document: DocumentId) -> usize {
        let behind = match self.chunks.last() {
            // Most documents are new and have the largest number yet.
            Some(last) if last[0].0 <= document => self.chunks.len(),
            _ => self.chunks.partition_point(|chunk| chunk[0].0 <= document),
        };
        behind.saturating_sub(1)
    }

    pub(super) fn get(&self, document: DocumentId) -> Option<u32> {
        let chunk = self.chunks.get(self.chunk_of(document))?;
        let place = chunk.binary_search_by_key(&document, |pair| pair.0).ok()?;
        Some(chunk[place].1)
    }

    pub(super) fn insert(&mut self, document: DocumentId, frequency: u32) {
        let index = self.chunk_of(document);
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(vec![(document, frequency)]);
            self.length = 1;
            return;
        };
        let place = match chunk.binary_search_by_key(&document, |pair| pair.0) {
            Ok(place) => {
                chunk[place].1 = frequency;
                return;
            }
            Err(place) => place,
        };
        self.length += 1;
        if chunk.len() < CHUNK_PAIRS {
            chunk.insert(place, (document, frequency));
            return;
        }
        // Behind a full chunk a new one begins, so that ascending documents leave full ones.
        let mut upper = chunk.split_off(if place == CHUNK_PAIRS { place } else { CHUNK_PAIRS / 2 });
        match place.checked_sub(chunk.len()) {
            Some(place) => upper.insert(place, (document, frequency)),
            None => chunk.insert(place, (document, frequency)),
        }
        self.chunks.insert(index + 1, upper);
    }

    pub(super) fn remove(&mut self, document: DocumentId) {
        let index = self.chunk_of(document);
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        let Ok(place) = chunk.binary_search_by_key(&document, |pair| pair.0) else { return };
        chunk.remove(place);
        self.length -= 1;
        let length = chunk.len();
        if length == 0 {
            self.chunks.remove(index);
        } else if let Some(next) = self.chunks.get_mut(index + 1)
            && length + next.len() <= CHUNK_PAIRS / 2
        {
            let moved = std::mem::take(next);
            self.chunks.remove(index + 1);
            self.chunks[index].extend(moved);
        }
    }

    /// All pairs whose document is at least `range.start`, ascending, up to `range.end`.
    pub(super) fn range(&self, range: Range<DocumentId>) -> impl Iterator<Item = Pair> {
        let first = self.chunk_of(range.start);
        let chunks = self.chunks.get(first..).unwrap_or_default();
        let skipped = chunks.first().map_or(0, |chunk| chunk.partition_point(|pair| pair.0 < range.start));
        chunks.iter().flatten().copied().skip(skipped).take_while(move |pair| pair.0 < range.end)
    }

    /// What the chunks take, in bytes, three quarters full on average.
    pub(super) fn bytes(&self) -> usize {
        self.length * size_of::<Pair>() * 4 / 3 + self.chunks.capacity() * size_of::<Vec<Pair>>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frequencies_are_a_sorted_map(
            ascending in 0u32..200, steps in prop::collection::vec((0u32..300, 0u32..3), 0..600), range in (0u32..300, 0u32..300),
        ) {
            let mut frequencies = Frequencies::default();
            let mut model = BTreeMap::new();
            let grow = (0..ascending).map(|document| (document, 1));
            for (document, frequency) in grow.chain(steps) {
                if frequency == 0 {
                    frequencies.remove(document);
                    model.remove(&document);
                } else {
                    frequencies.insert(document, frequency);
                    model.insert(document, frequency);
                }
            }
            prop_assert_eq!(frequencies.len(), model.len());
            prop_assert!(frequencies.chunks.iter().all(|chunk| (1..=CHUNK_PAIRS).contains(&chunk.len())));
            for document in 0..300 {
                prop_assert_eq!(frequencies.get(document), model.get(&document).copied());
            }
            let range = range.0.min(range.1)..range.0.max(range.1);
            let expected: Vec<Pair> = model.range(range.clone()).map(|(&a, &b)| (a, b)).collect();
            prop_assert_eq!(frequencies.range(range).collect::<Vec<_>>(), expected);
        }
    }
}
