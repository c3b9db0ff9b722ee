//! The dictionary: for each term the documents that hold it, and how often.
//!
//! A term is known by 96 bits of a keyed hash: nobody outside can aim two terms
//! at one hash, chance would need far more terms than fit in memory, and no
//! term costs an allocation. Most terms of a large vocabulary are held by one
//! document, and those are a slot of 20 bytes and nothing else:
//!
//! ```text
//! ┌ term's hash ┬ document ┬ frequency ┐      ┌ term's hash ┬ list ┬ IN_LIST ┐
//! │ 12          │ 4        │ 4         │  or  │ 12          │ 4    │ 4       │
//! └─────────────┴──────────┴───────────┘      └─────────────┴──────┴─────────┘
//! ```
//!
//! Other terms have a [`List`]: up to [`FEW_MAX`] documents as sorted words,
//! beyond that a Roaring bitmap with the frequencies that aren't 1 beside it.
//! A document that goes is taken out at once, so document frequencies are exact
//! and there is nothing to clean up later.

use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use roaring::RoaringBitmap;
use slab::Slab;
use smallvec::SmallVec;

use super::frequencies::Frequencies;
use super::growth::Room;
use super::shrink::shrink_table;
use super::term_hash::TermHash;
use crate::engine::prefetch;

/// A document's number within a shard's text index.
pub(super) type DocumentId = u32;

/// One past the largest document number: a bit of the word is needed for a flag.
pub(super) const DOCUMENTS_MAX: DocumentId = 1 << 31;

/// The largest list that is kept as words; above it bitmaps are smaller.
const FEW_MAX: usize = 512;

/// A list shrinks back to words well below the size at which it grew out of
/// them, so that a document that comes and goes doesn't rebuild it each time.
const MANY_MIN: u64 = 256;

/// Stands in a slot's last word when the postings are in a list.
const IN_LIST: u32 = u32::MAX;

/// So many terms are fetched together.
const BATCH: usize = 32;

#[derive(Clone, Copy)]
struct Term {
    hash: TermHash,
    head: u32,
    tail: u32,
}

/// The postings of one term.
#[derive(Clone, Copy)]
pub(super) enum Postings<'a> {
    None,
    One(DocumentId, u32),
    List(&'a List),
}

/// From terms to the documents that hold them.
#[derive(Default)]
pub(super) struct Dictionary {
    terms: HashTable<Term>,
    lists: Slab<List>,
    /// What the lists hold outside the slab, in bytes.
    lists_bytes: usize,
}

/// By how much a large table grows: doubling would leave half of it empty, and
/// moving it is a matter of page tables.
pub(super) fn growth(length: usize) -> usize {
    16 + length / 8
}

/// The terms of a document whose frequency changes, and what it becomes.
pub(super) type Changes = [(TermHash, u32)];

impl Dictionary {
    /// Makes each term's frequency in the document what the changes say.
    pub(super) fn set_all(&mut self, document: DocumentId, changes: &Changes) {
        for batch in changes.chunks(BATCH) {
            self.fetch(batch);
            for &(hash, frequency) in batch {
                self.set(hash, document, frequency);
            }
        }
    }

    /// Adds postings, sorted by their terms: of those that many documents hold each is fetched once.
    pub(super) fn add_all(&mut self, postings: &[(TermHash, DocumentId, u32)]) {
        let mut terms = Vec::with_capacity(BATCH);
        let mut batch_begins = 0;
        let mut groups = postings.chunk_by(|left, right| left.0 == right.0).peekable();
        let mut place = 0;
        while let Some(group) = groups.next() {
            terms.push((group[0].0, 0));
            place += group.len();
            if terms.len() == BATCH || groups.peek().is_none() {
                self.fetch(&terms);
                terms.clear();
                for &(term, document, frequency) in &postings[batch_begins..place] {
                    self.set(term, document, frequency);
                }
                batch_begins = place;
            }
        }
    }

    /// Brings what the changes will touch into the cache, one level of all of
    /// them after the other. They lie all over memory: waiting for each of them
    /// in turn takes several times as long.
    fn fetch(&self, changes: &Changes) {
        let listed = |(hash, _): &(TermHash, u32)| {
            let term = self.terms.find(hash.table_hash(), |term| term.hash == *hash)?;
            let list = self.lists.get(term.head as usize).filter(|_| term.tail == IN_LIST)?;
            prefetch(std::ptr::from_ref(list).cast(), size_of::<List>());
            Some(list)
        };
        let lists: SmallVec<[&List; BATCH]> = changes.iter().filter_map(listed).collect();
        for list in &lists {
            match list {
                List::Few { words, documents } => {
                    prefetch(words.as_ptr().wrapping_add(*documents as usize).wrapping_sub(1).cast(), 1);
                }
                List::Many(many) => prefetch(std::ptr::from_ref(&**many).cast(), size_of::<Many>()),
            }
        }
        for list in &lists {
            if let List::Many(many) = list {
                std::hint::black_box(many.documents.max());
            }
        }
    }

    /// Makes the term's frequency in the document `frequency`; zero takes the
    /// document out.
    fn set(&mut self, hash: TermHash, document: DocumentId, frequency: u32) {
        let found =
            self.terms.entry(hash.table_hash(), |term| term.hash == hash, |term| term.hash.table_hash());
        match found {
            Slot::Vacant(slot) => {
                if frequency > 0 {
                    slot.insert(Term { hash, head: document, tail: frequency });
                }
            }
            Slot::Occupied(mut slot) if slot.get().tail == IN_LIST => {
                let index = slot.get().head as usize;
                let Some(list) = self.lists.get_mut(index) else { return };
                let before = list.bytes();
                list.set(document, frequency);
                self.lists_bytes = self.lists_bytes + list.bytes() - before;
                if let Some((head, tail)) = list.only() {
                    self.lists_bytes -= list.bytes();
                    self.lists.remove(index);
                    (slot.get_mut().head, slot.get_mut().tail) = (head, tail);
                }
            }
            Slot::Occupied(mut slot) if slot.get().head == document => match frequency {
                0 => {
                    slot.remove();
                    shrink_table(&mut self.terms, |term| term.hash.table_hash());
                }
                _ => slot.get_mut().tail = frequency,
            },
            Slot::Occupied(mut slot) => {
                if frequency > 0 {
                    let term = slot.get_mut();
                    let mut list = List::Few { words: Vec::new(), documents: 0 };
                    list.set(term.head, term.tail);
                    list.set(document, frequency);
                    self.lists_bytes += list.bytes();
                    if self.lists.len() == self.lists.capacity() {
                        self.lists.reserve_exact(growth(self.lists.len()));
                    }
                    (term.head, term.tail) = (self.lists.insert(list) as u32, IN_LIST);
                }
            }
        }
    }

    pub(super) fn postings(&self, hash: TermHash) -> Postings<'_> {
        match self.terms.find(hash.table_hash(), |term| term.hash == hash) {
            None => Postings::None,
            Some(term) if term.tail == IN_LIST => {
                self.lists.get(term.head as usize).map_or(Postings::None, Postings::List)
            }
            Some(term) => Postings::One(term.head, term.tail),
        }
    }

    /// How many different terms there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.terms.len()
    }

    pub(super) fn room(&self) -> Room {
        Room::of(&self.terms)
    }

    /// Places of lists that are free again count as free: the next lists take them.
    pub(super) fn bytes(&self) -> usize {
        self.terms.allocation_size() + self.lists.len() * size_of::<(usize, List)>() + self.lists_bytes
    }
}

/// The documents of a term that more than one document holds.
pub(super) enum List {
    /// First a word for each document in ascending order, its lowest bit set
    /// when its frequency isn't 1; then, in the same order, those frequencies.
    Few {
        words: Vec<u32>,
        documents: u32,
    },
    Many(Box<Many>),
}

/// The documents of a frequent term.
pub(super) struct Many {
    documents: RoaringBitmap,
    /// The frequencies that aren't 1.
    frequent: Frequencies,
    bitmap_bytes: usize,
}

impl Many {
    /// Measuring the bitmap is a walk over its containers, so it is done now and then.
    const MEASURE_EVERY: u64 = 64;

    fn set(&mut self, document: DocumentId, frequency: u32) {
        let changed = match frequency {
            0 => self.documents.remove(document),
            // Most documents are new and have the largest number yet.
            _ => self.documents.try_push(document).is_ok() || self.documents.insert(document),
        };
        if frequency > 1 {
            self.frequent.insert(document, frequency);
        } else if !changed || frequency == 0 {
            self.frequent.remove(document);
        }
        if changed && self.documents.len().is_multiple_of(Many::MEASURE_EVERY) {
            self.measure();
        }
    }

    fn measure(&mut self) {
        const CONTAINER_BYTES: usize = 56;
        let statistics = self.documents.statistics();
        let bytes = statistics.n_bytes_array_containers
            + statistics.n_bytes_run_containers
            + statistics.n_bytes_bitset_containers;
        self.bitmap_bytes = bytes as usize + statistics.n_containers as usize * CONTAINER_BYTES;
    }

    fn bytes(&self) -> usize {
        size_of::<Many>() + self.bitmap_bytes + self.frequent.bytes()
    }
}

impl List {
    fn set(&mut self, document: DocumentId, frequency: u32) {
        match self {
            List::Few { words, documents } => {
                set_few(words, documents, document, frequency);
                if *documents as usize > FEW_MAX {
                    *self = List::Many(Box::new(to_many(words, *documents as usize)));
                }
            }
            List::Many(many) => {
                many.set(document, frequency);
                if many.documents.len() < MANY_MIN {
                    *self = to_few(many);
                }
            }
        }
    }

    /// The one document and its frequency when there is no other.
    fn only(&self) -> Option<(DocumentId, u32)> {
        match self {
            List::Few { words, documents: 1 } => few(words, 1, 0).next(),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            List::Few { words, .. } => words.capacity() * size_of::<u32>(),
            List::Many(many) => many.bytes(),
        }
    }
}

/// The documents and frequencies of a few, from the document at `from` on.
fn few(words: &[u32], documents: usize, from: usize) -> impl Iterator<Item = (DocumentId, u32)> {
    let (flagged, frequencies) = words.split_at(documents);
    let skipped = flagged[..from].iter().filter(|&&word| word & 1 == 1).count();
    let mut frequencies = frequencies[skipped..].iter();
    flagged[from..].iter().map(move |&word| {
        (word >> 1, if word & 1 == 1 { frequencies.next().copied().unwrap_or(1) } else { 1 })
    })
}

fn set_few(words: &mut Vec<u32>, documents: &mut u32, document: DocumentId, frequency: u32) {
    let count = *documents as usize;
    // Most documents are new and have the largest number yet: no search, which would touch the whole list.
    let position = match count.checked_sub(1).map(|last| words[last] >> 1) {
        Some(last) if last >= document => words[..count].partition_point(|&word| word >> 1 < document),
        _ => count,
    };
    // At the end there is nothing to count: every frequency there is lies before it.
    let behind = match position == count {
        true => words.len() - count,
        false => words[..position].iter().filter(|&&word| word & 1 == 1).count(),
    };
    if position < count && words[position] >> 1 == document {
        if words[position] & 1 == 1 {
            words.remove(count + behind);
        }
        words.remove(position);
        *documents -= 1;
    }
    if frequency > 0 {
        // A quarter at a time: doubling would waste a third of all lists.
        if words.len() + 2 > words.capacity() {
            words.reserve_exact(2 + words.len() / 4);
        }
        words.insert(position, document << 1 | u32::from(frequency > 1));
        *documents += 1;
        if frequency > 1 {
            words.insert(*documents as usize + behind, frequency);
        }
    } else if words.len() * 2 < words.capacity() {
        words.shrink_to(words.len() + words.len() / 4);
    }
}

fn to_many(words: &[u32], documents: usize) -> Many {
    let mut many =
        Many { documents: RoaringBitmap::new(), frequent: Frequencies::default(), bitmap_bytes: 0 };
    for (document, frequency) in few(words, documents, 0) {
        many.documents.insert(document);
        if frequency > 1 {
            many.frequent.insert(document, frequency);
        }
    }
    many.measure();
    many
}

fn to_few(many: &Many) -> List {
    let flag = |document| document << 1 | u32::from(many.frequent.get(document).is_some());
    let mut words: Vec<u32> = many.documents.iter().map(flag).collect();
    let documents = words.len() as u32;
    words.extend(many.frequent.range(0..DocumentId::MAX).map(|(_, frequency)| frequency));
    List::Few { words, documents }
}

impl<'a> Postings<'a> {
    /// How many documents hold the term.
    pub(super) fn len(&self) -> u64 {
        match self {
            Postings::None => 0,
            Postings::One(..) => 1,
            Postings::List(List::Few { documents, .. }) => u64::from(*documents),
            Postings::List(List::Many(many)) => many.documents.len(),
        }
    }

    /// The frequent terms' documents, when they are a bitmap.
    pub(super) fn bitmap(&self) -> Option<&'a RoaringBitmap> {
        match self {
            Postings::List(List::Many(many)) => Some(&many.documents),
            _ => None,
        }
    }

    /// The first document at or behind `from` that holds the term; `DocumentId::MAX`: none.
    pub(super) fn next_from(&self, from: DocumentId) -> DocumentId {
        let found = match self {
            Postings::One(document, _) => Some(*document).filter(|document| *document >= from),
            Postings::List(List::Few { words, documents }) => {
                let words = &words[..*documents as usize];
                words.get(words.partition_point(|&word| word >> 1 < from)).map(|word| word >> 1)
            }
            Postings::List(List::Many(many)) => many.documents.range(from..).next(),
            Postings::None => None,
        };
        found.unwrap_or(DocumentId::MAX)
    }

    /// The term's frequency in the document; zero when it doesn't hold it.
    pub(super) fn frequency(&self, document: DocumentId) -> u32 {
        match self {
            Postings::None => 0,
            Postings::One(only, frequency) => {
                if *only == document {
                    *frequency
                } else {
                    0
                }
            }
            Postings::List(List::Few { words, documents }) => {
                let count = *documents as usize;
                let position = words[..count].partition_point(|&word| word >> 1 < document);
                few(words, count, position)
                    .next()
                    .filter(|found| found.0 == document)
                    .map_or(0, |found| found.1)
            }
            Postings::List(List::Many(many)) => match many.documents.contains(document) {
                true => many.frequent.get(document).unwrap_or(1),
                false => 0,
            },
        }
    }

    /// Gives the documents within `range` and their frequencies to `visit`, ascending.
    pub(super) fn for_each(&self, range: Range<DocumentId>, mut visit: impl FnMut(DocumentId, u32)) {
        match self {
            Postings::None => {}
            Postings::One(document, frequency) => {
                if range.contains(document) {
                    visit(*document, *frequency);
                }
            }
            Postings::List(List::Few { words, documents }) => {
                let count = *documents as usize;
                let from = words[..count].partition_point(|&word| word >> 1 < range.start);
                few(words, count, from)
                    .take_while(|(document, _)| *document < range.end)
                    .for_each(|(document, frequency)| visit(document, frequency));
            }
            Postings::List(List::Many(many)) => {
                let mut frequent = many.frequent.range(range.clone());
                let mut next = frequent.next();
                for document in many.documents.range(range) {
                    match next {
                        Some((marked, frequency)) if marked == document => {
                            visit(document, frequency);
                            next = frequent.next();
                        }
                        _ => visit(document, 1),
                    }
                }
            }
        }
    }

    /// Gives each of `holders`' index and the term's frequency in it to
    /// `visit`. Every holder, ascending, must hold the term.
    pub(super) fn for_each_holder(&self, holders: &[DocumentId], mut visit: impl FnMut(usize, u32)) {
        let Postings::List(List::Many(many)) = self else {
            holders.iter().enumerate().for_each(|(index, &document)| visit(index, self.frequency(document)));
            return;
        };
        // Looking up costs about as much as walking over this many.
        const LOOK_UP_COSTS: usize = 16;
        if holders.len() * LOOK_UP_COSTS < many.frequent.len() {
            for (index, document) in holders.iter().enumerate() {
                visit(index, many.frequent.get(*document).unwrap_or(1));
            }
            return;
        }
        let from = holders.first().copied().unwrap_or(0);
        let mut frequent = many.frequent.range(from..DocumentId::MAX);
        let mut next = frequent.next();
        for (index, &document) in holders.iter().enumerate() {
            while next.is_some_and(|(marked, _)| marked < document) {
                next = frequent.next();
            }
            visit(
                index,
                next.filter(|(marked, _)| *marked == document).map_or(1, |(_, frequency)| frequency),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn term(name: u8) -> TermHash {
        TermHash::new((3, 4), &format!("term{name}"))
    }

    /// Compares everything a dictionary answers with a map of maps.
    fn check(dictionary: &Dictionary, model: &BTreeMap<u8, BTreeMap<u32, u32>>, documents: u32) {
        assert_eq!(dictionary.len(), model.values().filter(|held| !held.is_empty()).count());
        let empty = BTreeMap::new();
        for name in 0..4 {
            let held = model.get(&name).unwrap_or(&empty);
            let postings = dictionary.postings(term(name));
            assert_eq!(postings.len(), held.len() as u64);
            for from in [0, 1, documents / 3, documents, DOCUMENTS_MAX] {
                let next = held.range(from..).next().map_or(DocumentId::MAX, |(&document, _)| document);
                assert_eq!(postings.next_from(from), next);
            }
            for range in [0..DOCUMENTS_MAX, documents / 3..documents / 2] {
                let mut found = Vec::new();
                postings.for_each(range.clone(), |document, frequency| found.push((document, frequency)));
                assert_eq!(found, held.range(range).map(|(&a, &b)| (a, b)).collect::<Vec<_>>());
            }
            (0..documents).for_each(|document| {
                assert_eq!(postings.frequency(document), held.get(&document).copied().unwrap_or(0));
            });
            for step in [1, 7, 40] {
                let holders: Vec<u32> = held.keys().copied().step_by(step).collect();
                let mut found = Vec::new();
                postings
                    .for_each_holder(&holders, |index, frequency| found.push((holders[index], frequency)));
                assert_eq!(found, holders.iter().map(|id| (*id, held[id])).collect::<Vec<_>>());
            }
        }
        let counted: usize = dictionary.lists.iter().map(|(_, list)| list.bytes()).sum();
        assert_eq!(dictionary.lists_bytes, counted);
        assert!(dictionary.lists.iter().all(|(_, list)| list.only().is_none()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_dictionary_is_a_map_of_maps(
            steps in prop::collection::vec((0u8..4, 0u32..700, 0u32..4), 0..1500), shrinking in any::<bool>(),
        ) {
            let mut dictionary = Dictionary::default();
            let mut model: BTreeMap<u8, BTreeMap<u32, u32>> = BTreeMap::new();
            // Term 0 grows beyond what words hold and, half of the time, shrinks again.
            let grow = (0..700).map(|document| (0, document, 1 + document % 2));
            let shrink = (0..if shrinking { 690 } else { 0 }).map(|document| (0, document * 7 % 700, 0));
            let all = steps.iter().copied().chain(grow).chain(steps.iter().copied()).chain(shrink);
            for (name, document, frequency) in all {
                dictionary.set(term(name), document, frequency);
                let held = model.entry(name).or_default();
                if frequency == 0 { held.remove(&document); } else { held.insert(document, frequency); }
            }
            check(&dictionary, &model, 700);
        }
    }
}
