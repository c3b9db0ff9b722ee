//! Building the indexes over many entries at once, as after a start.
//!
//! Key by key every index waits for memory: an entry touches a dozen terms and a
//! path through a tree that lie anywhere. Many entries together are sorted by
//! term and by key first, so that what they touch is fetched once, and the work
//! falls into pieces that don't know of each other. Whoever has threads runs them
//! side by side:
//!
//! ```text
//! slices ─► digest each (words, hashes) ─► Indexes::build: text │ value, vector, order
//! ```
//!
//! The indexes are then the same as after [`Indexes::apply`] of each entry, but for the
//! numbers of the text index's documents.

use super::canonical::{CanonicalHash, canonical_hash};
use super::term_hash::TermHash;
use super::text::terms_of;
use super::tokens::Tokenizer;
use super::{Indexes, Kinds};
use crate::engine::{Change, Entry};

/// A piece of work that can be done on any thread, and beside the others that it came with.
pub type Piece<'a> = Box<dyn FnOnce() + Send + 'a>;

/// How many entries are digested together: a word that several have is looked up once.
const SLICE_ENTRIES: usize = 1_024;

/// And how much of their values, unless one alone is larger. The words of a value take up to a
/// dozen times as much while they are sorted.
const SLICE_BYTES: usize = 1 << 20;

/// Cuts entries into slices of about the same work and bounded memory.
pub fn slices(mut entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.value().map_or(0, <[u8]>::len);
            bytes <= SLICE_BYTES
        };
        let count = entries.iter().take(SLICE_ENTRIES).take_while(fits).count();
        let (slice, rest) = entries.split_at(count.max(1).min(entries.len()));
        entries = rest;
        Some(slice).filter(|slice| !slice.is_empty())
    })
}

/// Works out what indexes need of entries, without them.
#[derive(Clone, Copy)]
pub struct Digester {
    kinds: Kinds,
    hash_key: (u64, u64),
}

/// Entries with what the indexes need of them.
pub struct Digest<'a> {
    entries: &'a [Entry],
    /// Of those that have a value, in their order.
    hashes: Vec<CanonicalHash>,
    pub(super) words: Words<'a>,
}

/// What the text index needs of entries.
#[derive(Default)]
pub(super) struct Words<'a> {
    /// Those with words, and how many.
    pub(super) documents: Vec<(&'a Entry, usize)>,
    /// Each term of each of them with its place in `documents`, sorted; those that
    /// occur again there again.
    pub(super) terms: Vec<(TermHash, u32)>,
}

impl Digester {
    pub(super) fn new(kinds: Kinds, hash_key: (u64, u64)) -> Digester {
        Digester { kinds, hash_key }
    }

    /// Reads the entries' values.
    pub fn digest(self, entries: &[Entry]) -> Digest<'_> {
        let values = || entries.iter().filter_map(|entry| Some((entry, entry.value()?)));
        let mut hashes = Vec::new();
        if self.kinds.value {
            hashes.extend(values().map(|(_, value)| canonical_hash(self.hash_key, value)));
        }
        let mut words = Words::default();
        if self.kinds.text {
            let (mut tokenizer, mut terms) = (Tokenizer::default(), Vec::new());
            for (entry, value) in values() {
                terms.clear();
                let length = terms_of(&mut tokenizer, self.hash_key, value, &mut terms);
                if length > 0 {
                    let place = words.documents.len() as u32;
                    words.documents.push((entry, length));
                    words.terms.extend(terms.iter().map(|&term| (term, place)));
                }
            }
            words.terms.sort_unstable();
        }
        Digest { entries, hashes, words }
    }
}

impl Indexes {
    /// What reads the values of entries for [`Indexes::build`].
    pub fn digester(&self) -> Digester {
        Digester::new(self.kinds(), self.hash_key)
    }

    /// Adds entries of keys that aren't indexed: when every piece is done. No search
    /// may be asked before the `last` ones of a build are; changes may come between.
    pub fn build<'a>(&'a mut self, digests: &'a [Digest<'a>], last: bool) -> Vec<Piece<'a>> {
        let Indexes { value, text, vector, order, .. } = self;
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        // The longest first.
        if let Some(text) = text {
            pieces.push(Box::new(move || digests.iter().for_each(|digest| text.add_all(&digest.words))));
        }
        pieces.push(Box::new(move || {
            for Digest { entries, hashes, .. } in digests {
                if let Some(order) = order.as_mut() {
                    order.add_all(entries);
                }
                if let Some(value) = value.as_mut() {
                    let holders = entries.iter().filter(|entry| entry.value().is_some());
                    hashes.iter().zip(holders).for_each(|(&hash, entry)| value.put(hash, entry));
                }
                if let Some(vector) = vector.as_mut() {
                    let with_vector = entries.iter().filter(|entry| entry.vector().is_some());
                    with_vector
                        .for_each(|entry| vector.apply(&Change { old: None, new: Some(entry.clone()) }));
                }
            }
            if let (Some(order), true) = (order, last) {
                order.settle();
            }
        }));
        pieces
    }
}
