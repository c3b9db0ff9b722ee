//! The documents of a text index: a number for each key whose value has tokens.
//!
//! A document keeps its number while its key is overwritten, so that only the
//! words that changed are touched; a number that was freed is given out again,
//! so that the numbers stay dense and bitmaps small.

use hashbrown::HashTable;

use super::growth::Room;
use super::key_slot::{KeySlot, hash_of};
use super::postings::{DOCUMENTS_MAX, DocumentId, growth};
use super::shrink::shrink_table;
use crate::engine::Entry;

pub(super) struct Documents {
    hash_key: (u64, u64),
    entries: Vec<Option<Entry>>,
    /// How long each document is: its words that count, those that occur again counted again.
    lengths: Vec<u32>,
    free: Vec<DocumentId>,
    /// No number that is free is given out.
    held: bool,
    /// How many documents have got another number for that.
    passed_over: usize,
    by_key: HashTable<KeySlot>,
    /// The sum of all lengths.
    tokens: u64,
}

impl Documents {
    pub(super) fn new(hash_key: (u64, u64)) -> Documents {
        Documents {
            hash_key,
            entries: Vec::new(),
            lengths: Vec::new(),
            free: Vec::new(),
            held: false,
            passed_over: 0,
            by_key: HashTable::new(),
            tokens: 0,
        }
    }

    fn hash(&self, key: &[u8]) -> u32 {
        hash_of(self.hash_key, key)
    }

    /// How many documents there are.
    pub(super) fn len(&self) -> u64 {
        self.by_key.len() as u64
    }

    /// How long they are together.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// One past the largest number in use.
    pub(super) fn numbers(&self) -> DocumentId {
        self.entries.len() as DocumentId
    }

    pub(super) fn entry(&self, document: DocumentId) -> Option<&Entry> {
        self.entries.get(document as usize)?.as_ref()
    }

    pub(super) fn length(&self, document: DocumentId) -> u32 {
        self.lengths.get(document as usize).copied().unwrap_or(0)
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<DocumentId> {
        let hash = self.hash(key);
        let slot = self.by_key.find(KeySlot::table_hash(hash), |slot| self.is(slot, hash, key))?;
        Some(slot.place)
    }

    fn is(&self, slot: &KeySlot, hash: u32, key: &[u8]) -> bool {
        slot.hash == hash && self.entry(slot.place).is_some_and(|entry| entry.key() == key)
    }

    /// From now on numbers that are free stay so, or are given out again.
    pub(super) fn hold_numbers(&mut self, held: bool) {
        self.held = held;
        if !held {
            self.passed_over = 0;
        }
        self.begin_anew();
    }

    /// So many numbers that are free are held that it should end.
    pub(super) fn holds_many(&self) -> bool {
        self.passed_over > 4_096 + self.entries.len() / 8
    }

    /// When nobody holds a number any more, they begin anew.
    fn begin_anew(&mut self) {
        if self.by_key.is_empty() && !self.held {
            (self.entries, self.lengths, self.free) = Default::default();
        }
    }

    /// Gives a new document a number; `None` when there is none left.
    pub(super) fn add(&mut self, entry: &Entry, length: u32) -> Option<DocumentId> {
        let hash = self.hash(entry.key());
        self.passed_over += usize::from(self.held && !self.free.is_empty());
        let document = match self.free.pop_if(|_| !self.held) {
            Some(document) => {
                self.entries[document as usize] = Some(entry.clone());
                self.lengths[document as usize] = length;
                document
            }
            None if self.numbers() < DOCUMENTS_MAX => {
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(growth(self.entries.len()));
                    self.lengths.reserve_exact(growth(self.lengths.len()));
                }
                self.entries.push(Some(entry.clone()));
                self.lengths.push(length);
                self.numbers() - 1
            }
            None => return None,
        };
        self.tokens += u64::from(length);
        self.by_key.insert_unique(KeySlot::table_hash(hash), KeySlot { hash, place: document }, |slot| {
            KeySlot::table_hash(slot.hash)
        });
        Some(document)
    }

    /// Swaps the document's entry for a later one of the same key.
    pub(super) fn replace(&mut self, document: DocumentId, entry: &Entry, length: u32) {
        let place = document as usize;
        self.tokens = self.tokens - u64::from(self.lengths[place]) + u64::from(length);
        self.lengths[place] = length;
        self.entries[place] = Some(entry.clone());
    }

    pub(super) fn remove(&mut self, document: DocumentId, key: &[u8]) {
        let hash = self.hash(key);
        let table_hash = KeySlot::table_hash(hash);
        if let Ok(slot) = self.by_key.find_entry(table_hash, |slot| slot.place == document) {
            slot.remove();
            self.tokens -= u64::from(self.length(document));
            self.entries[document as usize] = None;
            self.lengths[document as usize] = 0;
            self.free.push(document);
            shrink_table(&mut self.by_key, |slot| KeySlot::table_hash(slot.hash));
        }
        self.begin_anew();
    }

    pub(super) fn room(&self) -> Room {
        Room::of(&self.by_key)
    }

    /// Numbers that are free again count as free: the next documents take them.
    pub(super) fn bytes(&self) -> usize {
        let live = self.entries.len() - self.free.len();
        live * (size_of::<Option<Entry>>() + size_of::<u32>()) + self.by_key.allocation_size()
    }
}
