//! Which keys hold a given JSON value.
//!
//! A hash table from a value's canonical hash ([`canonical_hash`]) to the
//! entries that hold it. Most values are held by one key: those live in a table
//! of (hash, handle) pairs, 24 bytes each. A value held by several keys moves
//! to a second table whose slots are sets in key order, so that a page starts
//! anywhere without walking what came before; it moves back when one is left.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::canonical::{CanonicalHash, canonical_hash};
use super::growth::Room;
use super::order::{
    ByKey, KeyRange, KeysCounted, Parts, TREE_BYTES_PER_KEY, collect_page, count_keys, range_of,
};
use super::shrink::shrink_table;
use crate::engine::{Change, Entry};

/// A shard's part of a page of `search_by_value`.
#[derive(Clone, Debug, Default)]
pub struct ValuePage {
    /// The entries in ascending key order.
    pub entries: Vec<Entry>,
    /// How many entries hold the value, on this page or not; zero where a prefix is given, with which they
    /// have to be counted.
    pub total: u64,
    /// Whether there are more behind these.
    pub more: bool,
}

/// The value index of a shard's slice.
pub(super) struct ValueIndex {
    hash_key: (u64, u64),
    single: HashTable<(CanonicalHash, Entry)>,
    several: HashTable<(CanonicalHash, BTreeSet<ByKey>)>,
    /// How many entries the sets of `several` hold together.
    in_sets: u64,
}

impl ValueIndex {
    pub(super) fn new(hash_key: (u64, u64)) -> ValueIndex {
        ValueIndex { hash_key, single: HashTable::new(), several: HashTable::new(), in_sets: 0 }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        let old = change.old.as_ref().and_then(|entry| Some((entry, entry.value()?)));
        let new = change.new.as_ref().and_then(|entry| Some((entry, entry.value()?)));
        // The same text needs one hash and only the handle swapped.
        let old_hash = old.map(|(_, value)| canonical_hash(self.hash_key, value));
        let new_hash = match (old, new) {
            (Some((_, before)), Some((_, after))) if before == after => old_hash,
            _ => new.map(|(_, value)| canonical_hash(self.hash_key, value)),
        };
        if let (Some((entry, _)), Some(hash)) = (old, old_hash)
            && old_hash != new_hash
        {
            self.remove(hash, entry.key());
        }
        if let (Some((entry, _)), Some(hash)) = (new, new_hash) {
            self.put(hash, entry);
        }
    }

    /// Adds the entry, or swaps it for the one that has its key.
    pub(super) fn put(&mut self, hash: CanonicalHash, entry: &Entry) {
        if let Some((_, set)) = self.several.find_mut(hash.0, |slot| slot.0 == hash) {
            self.in_sets += u64::from(set.replace(ByKey(entry.clone())).is_none());
            return;
        }
        match self.single.find_entry(hash.0, |slot| slot.0 == hash) {
            Ok(mut slot) if slot.get().1.key() == entry.key() => slot.get_mut().1 = entry.clone(),
            Ok(slot) => {
                let ((_, other), _) = slot.remove();
                let set = BTreeSet::from([ByKey(other), ByKey(entry.clone())]);
                self.in_sets += 2;
                self.several.insert_unique(hash.0, (hash, set), |slot| slot.0.0);
            }
            Err(_) => drop(self.single.insert_unique(hash.0, (hash, entry.clone()), |slot| slot.0.0)),
        }
    }

    fn remove(&mut self, hash: CanonicalHash, key: &[u8]) {
        if let Ok(mut slot) = self.several.find_entry(hash.0, |slot| slot.0 == hash) {
            let set = &mut slot.get_mut().1;
            self.in_sets -= u64::from(set.remove(key));
            if set.len() == 1 {
                let last = set.pop_first();
                slot.remove();
                if let Some(ByKey(entry)) = last {
                    self.in_sets -= 1;
                    self.single.insert_unique(hash.0, (hash, entry), |slot| slot.0.0);
                }
                shrink_table(&mut self.several, |slot| slot.0.0);
            }
        } else if let Ok(slot) = self.single.find_entry(hash.0, |slot| slot.0 == hash && slot.1.key() == key)
        {
            slot.remove();
            shrink_table(&mut self.single, |slot| slot.0.0);
        }
    }

    /// The keys with this value within a range. How many there are is told where that costs nothing:
    /// without a prefix.
    pub(super) fn search(
        &self,
        query: &CanonicalHash,
        range: &KeyRange<'_>,
        limit: usize,
        bytes_max: usize,
    ) -> ValuePage {
        let total = |total: usize| if range.prefix.is_some() { 0 } else { total as u64 };
        if let Some((_, set)) = self.several.find(query.0, |slot| slot.0 == *query) {
            let entries = range_of(set, range).into_iter().flatten().map(|key| &key.0);
            let page = collect_page(entries, Parts::KEYS, limit, bytes_max);
            return ValuePage { entries: page.entries, total: total(set.len()), more: page.more };
        }
        match self.single.find(query.0, |slot| slot.0 == *query) {
            Some((_, entry)) => {
                let shown =
                    range.after.is_none_or(|after| entry.key() > after) && has_prefix(entry, range.prefix);
                let entries = if shown { vec![entry.clone()] } else { Vec::new() };
                ValuePage { entries, total: total(1), more: false }
            }
            None => ValuePage::default(),
        }
    }

    /// How many keys have this value and begin with `prefix`: `most` of those behind `after`, and
    /// where to go on.
    pub(super) fn count(
        &self,
        query: &CanonicalHash,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> KeysCounted {
        if let Some((_, set)) = self.several.find(query.0, |slot| slot.0 == *query) {
            return count_keys(set, prefix, after, most);
        }
        let single = self.single.find(query.0, |slot| slot.0 == *query);
        let counted = single.filter(|(_, entry)| {
            has_prefix(entry, Some(prefix)) && after.is_none_or(|after| entry.key() > after)
        });
        KeysCounted { count: u64::from(counted.is_some()), last: None }
    }

    pub(super) fn len(&self) -> u64 {
        self.single.len() as u64 + self.in_sets
    }

    /// Of values that one key has, and of those that several have.
    pub(super) fn rooms(&self) -> (Room, Room) {
        (Room::of(&self.single), Room::of(&self.several))
    }

    pub(super) fn bytes(&self) -> u64 {
        let tables = self.single.allocation_size() + self.several.allocation_size();
        // A set's smallest node holds eleven keys, however few there are.
        const NODE_BYTES: u64 = 112;
        tables as u64 + self.several.len() as u64 * NODE_BYTES + self.in_sets * TREE_BYTES_PER_KEY
    }
}

fn has_prefix(entry: &Entry, prefix: Option<&[u8]>) -> bool {
    prefix.is_none_or(|prefix| entry.key().starts_with(prefix))
}
