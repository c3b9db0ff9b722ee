//! Every key in byte order, for scans and counts.
//!
//! A B-tree of entry handles that compares the keys inside the entries: eight
//! bytes a key, and a scan needs nothing but the tree. The tree has one owner,
//! so the standard library's is the fastest there is for it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::btree_set::Range;
use std::ops::Bound;

use crate::engine::{Change, Entry};

/// An entry that is ordered by its key alone.
pub(super) struct ByKey(pub(super) Entry);

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &ByKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &ByKey) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl Borrow<[u8]> for ByKey {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

/// What a B-tree of handles takes per key, in bytes, its nodes two thirds full
/// as insertion in random order leaves them.
pub(super) const TREE_BYTES_PER_KEY: u64 = 14;

/// What a reply shows of an entry beside its key; it decides what the entry
/// counts towards a page's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The value's JSON text.
    pub values: bool,
    /// The vector's numbers.
    pub vectors: bool,
}

impl Parts {
    /// Only the key.
    pub const KEYS: Parts = Parts { values: false, vectors: false };

    /// A number of a vector in JSON: a sign, nine digits, a point and a comma.
    const NUMBER_BYTES: usize = 12;

    /// What the entry counts towards a page's bytes.
    pub fn item_bytes(self, entry: &Entry) -> usize {
        let value = if self.values { entry.value().map_or(0, <[u8]>::len) } else { 0 };
        let vector = if self.vectors { entry.vector().map_or(0, <[f32]>::len) } else { 0 };
        entry.key().len() + value + vector * Parts::NUMBER_BYTES
    }
}

/// The keys that a scan covers: those that meet every bound given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyRange<'a> {
    /// Keys begin with this.
    pub prefix: Option<&'a [u8]>,
    /// The smallest key, inclusive.
    pub start: Option<&'a [u8]>,
    /// The largest key, exclusive.
    pub end: Option<&'a [u8]>,
    /// The last key of the page before: the scan goes on behind it in its direction.
    pub after: Option<&'a [u8]>,
    /// From the largest key down.
    pub reverse: bool,
}

/// A shard's part of a page in key order.
#[derive(Clone, Debug, Default)]
pub struct ScanPage {
    /// The entries, in the scan's direction.
    pub entries: Vec<Entry>,
    /// Whether the range holds more behind them.
    pub more: bool,
}

/// A part of a count.
#[derive(Clone, Debug)]
pub struct KeysCounted {
    /// How many keys it has.
    pub count: u64,
    /// The last one of them, when there may be more behind it.
    pub last: Option<Entry>,
}

/// Takes a page's worth of entries: at most `limit`, and no more than
/// `bytes_max` bytes, but at least one.
pub(super) fn collect_page<'a>(
    mut entries: impl Iterator<Item = &'a Entry>,
    parts: Parts,
    limit: usize,
    bytes_max: usize,
) -> ScanPage {
    let mut page = ScanPage::default();
    let mut bytes = 0;
    for entry in entries.by_ref() {
        bytes += parts.item_bytes(entry);
        if !page.entries.is_empty() && (page.entries.len() >= limit || bytes > bytes_max) {
            page.more = true;
            break;
        }
        page.entries.push(entry.clone());
    }
    page
}

/// The key-order index of a shard's slice.
#[derive(Default)]
pub(super) struct OrderIndex {
    keys: BTreeSet<ByKey>,
    /// Of a build: keys that aren't in the tree yet. No search comes before it is empty.
    unsettled: Vec<ByKey>,
}

/// So many keys are settled together at least, as long as no change comes, and at most.
const SETTLED_TOGETHER: (usize, usize) = if cfg!(test) { (16, 64) } else { (1 << 16, 1 << 18) };

impl OrderIndex {
    pub(super) fn apply(&mut self, change: &Change) {
        self.settle();
        match (&change.old, &change.new) {
            // `replace` and not `insert`, which would keep the old entry.
            (_, Some(new)) => drop(self.keys.replace(ByKey(new.clone()))),
            (Some(old), None) => drop(self.keys.remove(old.key())),
            (None, None) => {}
        }
    }

    /// Adds keys that aren't there, sooner or later; see [`OrderIndex::settle`].
    pub(super) fn add_all(&mut self, entries: &[Entry]) {
        self.unsettled.extend(entries.iter().cloned().map(ByKey));
        let (least, most) = SETTLED_TOGETHER;
        if self.unsettled.len() >= self.keys.len().clamp(least, most) {
            self.settle();
        }
    }

    /// Brings all keys into the tree. Few are put in one by one. Many are sorted by their first
    /// bytes, which lie beside each other as the entries don't, and the tree is made anew of them and
    /// of what it had: in one run over both, where each insertion would wait for several entries.
    pub(super) fn settle(&mut self) {
        const FIRST_BYTES: usize = 16;
        if self.unsettled.is_empty() {
            return;
        }
        let first = |key: &[u8]| {
            let mut first = [0; FIRST_BYTES];
            let length = key.len().min(FIRST_BYTES);
            first[..length].copy_from_slice(&key[..length]);
            u128::from_be_bytes(first)
        };
        let unsettled = std::mem::take(&mut self.unsettled).into_iter();
        let mut keys: Vec<(u128, ByKey)> = unsettled.map(|key| (first(key.0.key()), key)).collect();
        keys.sort_unstable();
        let keys = keys.into_iter().map(|(_, key)| key);
        if keys.len() < self.keys.len() / 8 {
            self.keys.extend(keys);
        } else {
            self.keys.append(&mut keys.collect());
        }
    }

    pub(super) fn len(&self) -> u64 {
        (self.keys.len() + self.unsettled.len()) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.len() * TREE_BYTES_PER_KEY + (self.unsettled.capacity() * size_of::<ByKey>()) as u64
    }

    pub(super) fn scan(
        &self,
        range: &KeyRange<'_>,
        parts: Parts,
        limit: usize,
        bytes_max: usize,
    ) -> ScanPage {
        let Some(keys) = range_of(&self.keys, range) else { return ScanPage::default() };
        let entries = keys.map(|key| &key.0);
        if range.reverse {
            collect_page(entries.rev(), parts, limit, bytes_max)
        } else {
            collect_page(entries, parts, limit, bytes_max)
        }
    }

    /// See [`count_keys`].
    pub(super) fn count(&self, prefix: &[u8], after: Option<&[u8]>, most: usize) -> KeysCounted {
        count_keys(&self.keys, prefix, after, most)
    }

    /// The entries whose keys begin with `prefix`, in key order.
    pub(super) fn with_prefix(&self, prefix: Option<&[u8]>) -> impl Iterator<Item = &Entry> {
        range_of(&self.keys, &KeyRange { prefix, ..KeyRange::default() })
            .into_iter()
            .flatten()
            .map(|key| &key.0)
    }
}

/// Counts keys that begin with `prefix` and stand behind `after`, `most` of
/// them; says behind which key to go on, when there may be more.
pub(super) fn count_keys(
    keys: &BTreeSet<ByKey>,
    prefix: &[u8],
    after: Option<&[u8]>,
    most: usize,
) -> KeysCounted {
    let range = KeyRange { prefix: Some(prefix), after, ..KeyRange::default() };
    // A walk over the leaves: the tree keeps no counts, and no key is compared on the way.
    let mut count = 0;
    for key in range_of(keys, &range).into_iter().flatten() {
        count += 1;
        if count == most {
            return KeysCounted { count: count as u64, last: Some(key.0.clone()) };
        }
    }
    KeysCounted { count: count as u64, last: None }
}

/// The keys within a range. `None` stands for a range that nothing can be in: the tree refuses it with
/// a panic.
pub(super) fn range_of<'a>(keys: &'a BTreeSet<ByKey>, range: &KeyRange<'_>) -> Option<Range<'a, ByKey>> {
    let mut lower: Bound<&[u8]> = Bound::Included(range.start.unwrap_or(b""));
    let mut upper = range.end;
    let prefix_end = range.prefix.and_then(prefix_end);
    for bound in [prefix_end.as_deref(), range.after.filter(|_| range.reverse)].into_iter().flatten() {
        upper = Some(upper.map_or(bound, |upper| upper.min(bound)));
    }
    if let Some(prefix) = range.prefix.filter(|prefix| *prefix > key_of(lower)) {
        lower = Bound::Included(prefix);
    }
    if let Some(after) = range.after.filter(|after| !range.reverse && *after >= key_of(lower)) {
        lower = Bound::Excluded(after);
    }
    if upper.is_some_and(|upper| upper <= key_of(lower)) {
        return None;
    }
    Some(keys.range::<[u8], _>((lower, upper.map_or(Bound::Unbounded, Bound::Excluded))))
}

fn key_of(bound: Bound<&[u8]>) -> &[u8] {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => b"",
    }
}

/// The smallest byte string above every one that begins with `prefix`; `None`
/// when there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
