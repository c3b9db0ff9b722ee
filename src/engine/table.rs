//! The entries of a slice, in buckets.
//!
//! A bucket is a small hash table of its own, so that growing one never stops
//! the shard for long, and a walk (a snapshot, an index being built) can take
//! the slice bucket by bucket while writes go on between.

use hashbrown::HashTable;

use super::entry::{Entry, TOMBSTONE_OF_ABSENT_OVERHEAD_BYTES};
use super::placement::Placement;
use super::state_hash::{StateHash, entry_hash};
use crate::limits::BUCKETS;
use crate::version::Version;

/// What a table's slot costs beside the entry: a pointer and a control byte, at the usual load.
const SLOT_BYTES: usize = 13;

/// The entries of one shard.
pub struct Table {
    placement: Placement,
    /// The shard's buckets; bucket `b` of the keyspace stands at `b / shards`.
    buckets: Vec<HashTable<Entry>>,
    entries: usize,
    entry_bytes: usize,
    /// What vectors have of that.
    vector_bytes: usize,
    /// What the buckets' slots occupy, those of tombstones, too, taken or not.
    slot_bytes: usize,
    /// Kept up to date at every change, where someone compares it.
    state_hash: Option<StateHash>,
    /// In dynamo mode: a bucket of tombstones beside each bucket of entries. They are
    /// in no count, no index and no hash.
    tombstones: Tombstones,
}

/// The versions of deletes, until no earlier write can come any more.
#[derive(Default)]
struct Tombstones {
    /// Empty where nobody keeps any.
    buckets: Vec<HashTable<Entry>>,
    counts: Counts,
    /// The highest index of their versions.
    newest: u64,
}

/// Tombstones and what they occupy with their slots, in bytes.
#[derive(Default)]
struct Counts {
    count: usize,
    bytes: usize,
    /// Those among them of keys that were not there.
    of_absent: usize,
    of_absent_bytes: usize,
}

impl Counts {
    fn add(&mut self, tombstone: &Entry) {
        let bytes = tombstone.memory_bytes() + SLOT_BYTES;
        self.count += 1;
        self.bytes += bytes;
        if tombstone.is_tombstone_of_absent() {
            self.of_absent += 1;
            self.of_absent_bytes += bytes;
        }
    }

    fn remove(&mut self, tombstone: &Entry) {
        let bytes = tombstone.memory_bytes() + SLOT_BYTES;
        self.count -= 1;
        self.bytes -= bytes;
        if tombstone.is_tombstone_of_absent() {
            self.of_absent -= 1;
            self.of_absent_bytes -= bytes;
        }
    }
}

/// Puts an entry in that isn't there; gives by how much the bucket has grown, in bytes.
fn insert_unique(bucket: &mut HashTable<Entry>, hash: u64, entry: Entry, placement: &Placement) -> usize {
    let before = bucket.allocation_size();
    bucket.insert_unique(hash, entry, |entry| placement.hash(entry.key()));
    bucket.allocation_size() - before
}

impl Table {
    /// An empty table for shard `shard`.
    pub fn new(placement: Placement, shard: usize) -> Table {
        let owned = (0..BUCKETS).filter(|&bucket| placement.shard_of_bucket(bucket) == shard).count();
        Table {
            placement,
            buckets: (0..owned).map(|_| HashTable::new()).collect(),
            entries: 0,
            entry_bytes: 0,
            vector_bytes: 0,
            slot_bytes: 0,
            state_hash: None,
            tombstones: Tombstones::default(),
        }
    }

    /// The same table, and from now on it may keep tombstones.
    #[must_use]
    pub fn with_tombstones(mut self) -> Table {
        self.tombstones.buckets.resize_with(self.buckets.len(), HashTable::new);
        self
    }

    /// The version of the key's last delete, while it is kept.
    pub fn tombstone(&self, key: &[u8], hash: u64) -> Option<Version> {
        let bucket = self.tombstones.buckets.get(self.local(hash))?;
        bucket.find(hash, |entry| entry.key() == key).map(Entry::version)
    }

    /// Keeps the version of a delete, in place of an earlier one. Where that was the delete of a key
    /// which was there, the room is still that key's.
    pub fn bury(&mut self, mut tombstone: Entry, hash: u64) {
        let local = self.local(hash);
        let placement = self.placement;
        let kept = &mut self.tombstones;
        let Some(bucket) = kept.buckets.get_mut(local) else { return };
        kept.newest = kept.newest.max(tombstone.version().index);
        if let Some(slot) = bucket.find_mut(hash, |other| other.key() == tombstone.key()) {
            if !slot.is_tombstone_of_absent() {
                tombstone = Entry::tombstone(tombstone.version(), tombstone.key());
            }
            kept.counts.remove(slot);
            kept.counts.add(&tombstone);
            *slot = tombstone;
            return;
        }
        kept.counts.add(&tombstone);
        self.slot_bytes += insert_unique(bucket, hash, tombstone, &placement);
    }

    /// Forgets a key's tombstone.
    pub fn unbury(&mut self, key: &[u8], hash: u64) {
        let local = self.local(hash);
        let kept = &mut self.tombstones;
        let Some(bucket) = kept.buckets.get_mut(local) else { return };
        if let Ok(found) = bucket.find_entry(hash, |entry| entry.key() == key) {
            kept.counts.remove(&found.remove().0);
        }
    }

    /// Forgets the tombstones whose versions have an index up to `through`.
    pub fn collect_tombstones(&mut self, through: u64) -> usize {
        let kept = &mut self.tombstones;
        let before = kept.counts.count;
        for bucket in kept.buckets.iter_mut().filter(|bucket| !bucket.is_empty()) {
            bucket.retain(|entry| {
                let stays = entry.version().index > through;
                if !stays {
                    kept.counts.remove(entry);
                }
                stays
            });
        }
        before - kept.counts.count
    }

    /// How many tombstones there are, and the highest index of their versions.
    pub fn tombstones(&self) -> (usize, u64) {
        let count = self.tombstones.counts.count;
        (count, if count == 0 { 0 } else { self.tombstones.newest })
    }

    /// How many of them are of keys that were not there, and what those occupy, in bytes.
    pub fn absent_tombstones(&self) -> (usize, usize) {
        let counts = &self.tombstones.counts;
        (counts.of_absent, counts.of_absent_bytes)
    }

    /// What one of this key would occupy, in bytes.
    pub(super) fn absent_tombstone_bytes(key: &[u8]) -> usize {
        TOMBSTONE_OF_ABSENT_OVERHEAD_BYTES + key.len() + SLOT_BYTES
    }

    /// The same table, and from now on it knows the hash of its entries.
    #[must_use]
    pub fn with_state_hash(mut self) -> Table {
        let entries = self.buckets.iter().flatten();
        self.state_hash = Some(entries.fold(StateHash::default(), |sum, entry| sum.with(entry_hash(entry))));
        self
    }

    /// The hash of its entries: equal on every replica that has the same ones,
    /// however they are placed. `None` where nobody asked for it.
    pub fn state_hash(&self) -> Option<StateHash> {
        self.state_hash
    }

    fn hash_changed(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let Some(mut hash) = self.state_hash else { return };
        if let Some(old) = old {
            hash = hash.without(entry_hash(old));
        }
        if let Some(new) = new {
            hash = hash.with(entry_hash(new));
        }
        self.state_hash = Some(hash);
    }

    /// How keys are placed.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    fn local(&self, hash: u64) -> usize {
        Placement::bucket(hash) / self.placement.shards()
    }

    /// The place of a hash's bucket in a walk over this table.
    pub fn walk_position(&self, hash: u64) -> usize {
        self.local(hash)
    }

    /// The entry of a key.
    pub fn get(&self, key: &[u8], hash: u64) -> Option<&Entry> {
        self.buckets[self.local(hash)].find(hash, |entry| entry.key() == key)
    }

    /// Brings what [`Table::get`] will look at into the processor's cache. A
    /// lookup waits for memory three times; asked for in windows, the lookups of
    /// a window wait together.
    pub fn prefetch(&self, hash: u64) {
        self.buckets[self.local(hash)].find(hash, |entry| {
            entry.prefetch();
            false
        });
    }

    /// Replaces a key's entry by what `change` makes of it (`None`: nothing is
    /// left of it). Gives the old entry and the new one.
    pub fn update(
        &mut self,
        key: &[u8],
        hash: u64,
        change: impl FnOnce(Option<&Entry>) -> Option<Entry>,
    ) -> (Option<Entry>, Option<Entry>) {
        let local = self.local(hash);
        let Ok(mut found) = self.buckets[local].find_entry(hash, |entry| entry.key() == key) else {
            let new = change(None);
            if let Some(new) = &new {
                self.insert(new.clone(), hash);
            }
            return (None, new);
        };
        let new = change(Some(found.get()));
        let old = match &new {
            Some(new) => {
                self.entry_bytes += new.memory_bytes();
                self.vector_bytes += new.vector_bytes().len();
                std::mem::replace(found.get_mut(), new.clone())
            }
            None => {
                self.entries -= 1;
                found.remove().0
            }
        };
        self.entry_bytes -= old.memory_bytes();
        self.vector_bytes -= old.vector_bytes().len();
        self.hash_changed(Some(&old), new.as_ref());
        (Some(old), new)
    }

    /// Puts an entry in place of its key's old one, which is returned.
    pub fn insert(&mut self, entry: Entry, hash: u64) -> Option<Entry> {
        let local = self.local(hash);
        let placement = self.placement;
        self.entry_bytes += entry.memory_bytes();
        self.vector_bytes += entry.vector_bytes().len();
        let bucket = &mut self.buckets[local];
        if let Some(slot) = bucket.find_mut(hash, |other| other.key() == entry.key()) {
            let new = self.state_hash.map(|_| entry_hash(&entry));
            let old = std::mem::replace(slot, entry);
            self.entry_bytes -= old.memory_bytes();
            self.vector_bytes -= old.vector_bytes().len();
            if let (Some(hash), Some(new)) = (self.state_hash, new) {
                self.state_hash = Some(hash.without(entry_hash(&old)).with(new));
            }
            return Some(old);
        }
        let hashed = self.state_hash.map(|hash| hash.with(entry_hash(&entry)));
        self.state_hash = hashed;
        self.slot_bytes += insert_unique(bucket, hash, entry, &placement);
        self.entries += 1;
        None
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// What the entries and their slots occupy, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.entry_bytes + self.entries * SLOT_BYTES + self.tombstones.counts.bytes
    }

    /// What vectors have of that.
    pub fn vector_bytes(&self) -> usize {
        self.vector_bytes
    }

    /// What its buckets have room for beyond that, in bytes: they keep the room that they once needed.
    pub fn spare_bytes(&self) -> usize {
        let buckets = self.buckets.capacity() + self.tombstones.buckets.capacity();
        let counted = (self.entries + self.tombstones.counts.count) * SLOT_BYTES;
        (buckets * size_of::<HashTable<Entry>>() + self.slot_bytes).saturating_sub(counted)
    }

    /// How many buckets a walk visits.
    pub fn walk_length(&self) -> usize {
        self.buckets.len()
    }

    /// The next step of a walk: the entries from bucket `position` on, of so many
    /// buckets that there are about `entries_wanted`, or that they have about
    /// `bytes_wanted`, and where to go on.
    pub fn walk_step(
        &self,
        position: usize,
        entries_wanted: usize,
        bytes_wanted: usize,
    ) -> (Vec<Entry>, usize) {
        let mut entries = Vec::new();
        let (mut next, mut bytes) = (position, 0);
        while next < self.buckets.len() && entries.len() < entries_wanted && bytes < bytes_wanted {
            let before = entries.len();
            entries.extend(self.walk(next).cloned());
            bytes += entries[before..].iter().map(Entry::memory_bytes).sum::<usize>();
            next += 1;
        }
        (entries, next)
    }

    /// As [`Table::walk_step`], with the tombstones.
    pub fn walk_step_whole(&self, position: usize, entries_wanted: usize) -> (Vec<Entry>, usize) {
        let mut entries = Vec::new();
        let mut next = position;
        while next < self.buckets.len() && entries.len() < entries_wanted {
            entries.extend(self.walk(next).cloned());
            entries.extend(self.tombstones.buckets.get(next).into_iter().flatten().cloned());
            next += 1;
        }
        (entries, next)
    }

    /// The entries of one bucket of a walk, shared.
    pub fn walk(&self, position: usize) -> impl Iterator<Item = &Entry> {
        self.buckets[position].iter()
    }
}
