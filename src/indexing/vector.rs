//! Exact nearest neighbours by cosine similarity.
//!
//! Vectors of one length form a group: for each row the inverse of its norm and
//! a handle to the entry that holds the numbers, the only copy there is. A
//! search reads every row of its group at the speed of memory ([`kernel`]) and
//! keeps each one whose approximate score comes close enough to the best ones,
//! by a bound on the rounding, that it might belong to them. Those are scored
//! again to the last bit of an f64 ([`cosine`]), so every machine gives the same
//! answer and no member is lost to rounding, not among equals either.
//!
//! [`kernel`]: super::kernel
//! [`cosine`]: super::cosine

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use hashbrown::HashTable;

use super::budget::{Budget, GivenUp};
use super::cosine::{Query, norm};
use super::growth::Room;
use super::kernel::{error_bound, fastest_dot};
use super::key_slot::{KeySlot, hash_of};
use super::shrink::{shrink_table, shrink_vector};
use super::top::{Hit, Top};
use crate::engine::prefetch;
use crate::engine::{Change, ENTRY_OVERHEAD_BYTES, Entry};

/// A shard's part of a `vector_search`.
#[derive(Clone, Debug, Default)]
pub struct VectorPage {
    /// The best ones: score descending, then key ascending.
    pub hits: Vec<Hit>,
    /// Whether the shard has any vector of the query's length, under the prefix if there is one.
    pub covered: bool,
    /// When it has none: the lengths it has there, ascending.
    pub lengths: Vec<usize>,
}

/// The vectors of one length.
#[derive(Default)]
struct Group {
    /// One by the norm; not a number where f32 can't hold the scores, which
    /// makes the row a candidate always.
    inverse_norms: Vec<f32>,
    entries: Vec<Entry>,
    rows: HashTable<KeySlot>,
    /// Rows that came since they were last in the order of their addresses.
    disorder: usize,
}

impl Group {
    fn put(&mut self, hash: u32, entry: &Entry, vector: &[f32]) {
        self.disorder += 1;
        if self.disorder > DISORDER_MIN + self.entries.len() / 8 {
            self.disorder = 0;
            self.sort_by_address();
        }
        let inverse = inverse_norm(vector);
        match self.find(hash, entry.key()) {
            Some(row) => {
                self.inverse_norms[row] = inverse;
                self.entries[row] = entry.clone();
            }
            None => {
                let slot = KeySlot { hash, place: self.entries.len() as u32 };
                self.inverse_norms.push(inverse);
                self.entries.push(entry.clone());
                self.rows
                    .insert_unique(KeySlot::table_hash(hash), slot, |slot| KeySlot::table_hash(slot.hash));
            }
        }
    }

    /// Puts the rows into the order in which they lie in memory, unless they
    /// are: a search then runs over memory in one direction and is about four
    /// times as fast as over scattered rows. Keys that come once are allocated
    /// in order anyway; it is overwriting that scatters them. Done when an
    /// eighth of the rows is new, so it costs each of them little.
    fn sort_by_address(&mut self) {
        if self.entries.is_sorted_by_key(Entry::address) {
            return;
        }
        let entries = std::mem::take(&mut self.entries).into_iter();
        let mut rows: Vec<(Entry, f32, u32)> = entries
            .zip(&self.inverse_norms)
            .zip(0..)
            .map(|((entry, &inverse), row)| (entry, inverse, row))
            .collect();
        rows.sort_unstable_by_key(|(entry, _, _)| entry.address());
        let mut moved = vec![0u32; rows.len()];
        for (row, (_, inverse, before)) in (0u32..).zip(&rows) {
            moved[*before as usize] = row;
            self.inverse_norms[row as usize] = *inverse;
        }
        self.entries = rows.into_iter().map(|(entry, _, _)| entry).collect();
        for slot in self.rows.iter_mut() {
            slot.place = moved[slot.place as usize];
        }
    }

    fn find(&self, hash: u32, key: &[u8]) -> Option<usize> {
        let is_key = |slot: &KeySlot| slot.hash == hash && self.entries[slot.place as usize].key() == key;
        self.rows.find(KeySlot::table_hash(hash), is_key).map(|slot| slot.place as usize)
    }

    /// Takes the key's row out and moves the last row into its place.
    fn remove(&mut self, hash: u32, key: &[u8], last_hash: impl Fn(&Entry) -> u32) {
        let Some(row) = self.find(hash, key) else { return };
        if let Ok(slot) = self.rows.find_entry(KeySlot::table_hash(hash), |slot| slot.place as usize == row) {
            slot.remove();
            shrink_table(&mut self.rows, |slot| KeySlot::table_hash(slot.hash));
        }
        self.inverse_norms.swap_remove(row);
        self.entries.swap_remove(row);
        shrink_vector(&mut self.inverse_norms);
        shrink_vector(&mut self.entries);
        let Some(moved) = self.entries.get(row) else { return };
        let from = self.entries.len();
        if let Some(slot) =
            self.rows.find_mut(KeySlot::table_hash(last_hash(moved)), |slot| slot.place as usize == from)
        {
            slot.place = row as u32;
        }
    }

    fn bytes(&self) -> usize {
        self.inverse_norms.capacity() * size_of::<f32>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.rows.allocation_size()
    }

    /// Whether any of the keys begins with `prefix`.
    fn has_prefix(&self, prefix: &[u8], budget: &Budget<'_>) -> Result<bool, GivenUp> {
        for rows in self.entries.chunks(ROWS_TOGETHER) {
            budget.spend(rows.len() as u64)?;
            if rows.iter().any(|entry| entry.key().starts_with(prefix)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every row that may belong to the `top_k` best.
    fn candidates(
        &self,
        query: &[f32],
        top_k: usize,
        prefix: Option<&[u8]>,
        budget: &Budget<'_>,
    ) -> Result<Vec<u32>, GivenUp> {
        let dot = fastest_dot();
        let unit = unit(query);
        let margin = 2.0 * error_bound(query.len());
        let mut best = BestScores::new(top_k);
        let mut candidates: Vec<(f32, u32)> = Vec::new();
        let mut prune_at = PRUNED_MIN.max(2 * top_k);
        // Each row is an allocation of its own: the processor can't foresee the next one.
        let row_bytes = ENTRY_OVERHEAD_BYTES + size_of_val(query);
        let rows_ahead = (PREFETCH_BYTES / row_bytes).clamp(1, 16);
        let prefetched_bytes = row_bytes.min(PREFETCH_BYTES);
        for (row, (entry, &inverse)) in self.entries.iter().zip(&self.inverse_norms).enumerate() {
            if row % ROWS_TOGETHER == 0 {
                let rows = ROWS_TOGETHER.min(self.entries.len() - row);
                budget.spend(rows as u64 * steps_of(query))?;
            }
            if let Some(ahead) = self.entries.get(row + rows_ahead) {
                prefetch(ahead.address(), prefetched_bytes);
            }
            if prefix.is_some_and(|prefix| !entry.key().starts_with(prefix)) {
                continue;
            }
            let score = dot(&unit, entry.vector().unwrap_or(&[])) * inverse;
            if score < best.floor - margin {
                continue;
            }
            candidates.push((score, row as u32));
            best.offer(score);
            // Early rows got in by a low floor: drop them before they pile up.
            if candidates.len() >= prune_at {
                budget.spend(candidates.len() as u64)?;
                candidates.retain(|&(score, _)| !below(score, best.floor - margin));
                // When it has doubled, or rows that can't be dropped would be gone over again for each that comes.
                prune_at = PRUNED_MIN.max(2 * candidates.len()).max(2 * top_k);
            }
        }
        candidates.retain(|&(score, _)| !below(score, best.floor - margin));
        Ok(candidates.into_iter().map(|(_, row)| row).collect())
    }
}

/// Fewer candidates aren't worth pruning. Small in tests, so that they are.
const PRUNED_MIN: usize = if cfg!(test) { 4 } else { 256 };

/// So many rows are noted in the budget together.
const ROWS_TOGETHER: usize = 64;

/// What a row costs that is as long as the query.
fn steps_of(query: &[f32]) -> u64 {
    const BYTES_PER_STEP: usize = 64;
    1 + (size_of_val(query) / BYTES_PER_STEP) as u64
}

/// Fewer new rows than this aren't worth sorting. Small in tests, so that they sort.
const DISORDER_MIN: usize = if cfg!(test) { 3 } else { 4096 };

/// How much is fetched ahead of the row that is being read.
const PREFETCH_BYTES: usize = 2048;

/// Whether a score is too low; one that isn't a number never is.
fn below(score: f32, floor: f32) -> bool {
    score < floor
}

/// The best approximate scores, for the floor under which none can belong to them.
struct BestScores {
    limit: usize,
    heap: BinaryHeap<Reverse<OrderedScore>>,
    floor: f32,
}

#[derive(PartialEq, PartialOrd)]
struct OrderedScore(f32);

impl Eq for OrderedScore {}

#[allow(clippy::derive_ord_xor_partial_ord)] // no score in the heap is NaN
impl Ord for OrderedScore {
    fn cmp(&self, other: &OrderedScore) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl BestScores {
    fn new(limit: usize) -> BestScores {
        BestScores { limit, heap: BinaryHeap::new(), floor: f32::NEG_INFINITY }
    }

    fn offer(&mut self, score: f32) {
        if score.is_nan() || score <= self.floor {
            return;
        }
        if self.heap.len() >= self.limit {
            self.heap.pop();
        }
        self.heap.push(Reverse(OrderedScore(score)));
        if self.heap.len() >= self.limit {
            self.floor = self.heap.peek().map_or(f32::NEG_INFINITY, |lowest| lowest.0.0);
        }
    }
}

/// The query scaled to length one, so that approximate scores stay in range.
fn unit(query: &[f32]) -> Vec<f32> {
    let norm = norm(query);
    query.iter().map(|&number| (f64::from(number) / norm) as f32).collect()
}

/// The norm as well as f32 can hold it: each vector that is written needs it.
fn norm_for_f32(vector: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    let (blocks, rest) = vector.as_chunks::<8>();
    for block in blocks {
        for (sum, number) in sums.iter_mut().zip(block) {
            *sum += f64::from(*number) * f64::from(*number);
        }
    }
    let rest = rest.iter().map(|number| f64::from(*number) * f64::from(*number)).sum::<f64>();
    (sums.iter().sum::<f64>() + rest).sqrt()
}

/// See [`Group::inverse_norms`]. Within these bounds no product or sum leaves
/// f32's range, and what underflows is far below the error bound.
fn inverse_norm(vector: &[f32]) -> f32 {
    let norm = norm_for_f32(vector);
    if (1e-18..1e18).contains(&norm) { (1.0 / norm) as f32 } else { f32::NAN }
}

/// The nearest among `entries`, all scored exactly. Those without a vector of the
/// query's length are passed over; where there is no other, the page has their lengths.
pub(super) fn rank<'a>(
    query: &[f32],
    top_k: usize,
    entries: impl Iterator<Item = &'a Entry>,
    budget: &Budget<'_>,
) -> Result<VectorPage, GivenUp> {
    let scored = Query::new(query);
    let mut top = Top::new(top_k.max(1));
    let mut others = Vec::new();
    for entry in entries {
        match entry.vector() {
            Some(vector) if vector.len() == query.len() => {
                budget.spend(steps_of(query))?;
                top.offer(scored.cosine(vector), entry);
            }
            _ => others.push(entry),
        }
    }
    let hits = top.finish().0;
    if hits.is_empty() {
        return Ok(VectorPage { lengths: lengths_of(others.into_iter()), ..VectorPage::default() });
    }
    Ok(VectorPage { hits, covered: true, lengths: Vec::new() })
}

/// The lengths of the vectors that there are among `entries`, ascending.
pub(super) fn lengths_of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<usize> {
    let lengths: BTreeSet<usize> = entries.filter_map(|entry| Some(entry.vector()?.len())).collect();
    lengths.into_iter().collect()
}

/// The vector index of a shard's slice.
pub(super) struct VectorIndex {
    hash_key: (u64, u64),
    groups: BTreeMap<usize, Group>,
    /// The length that most have, as far as it was looked at.
    usual_length: usize,
    count: u64,
    bytes: usize,
}

impl VectorIndex {
    pub(super) fn new(hash_key: (u64, u64)) -> VectorIndex {
        VectorIndex { hash_key, groups: BTreeMap::new(), usual_length: 0, count: 0, bytes: 0 }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        let old = change.old.as_ref().and_then(|entry| Some((entry, entry.vector()?)));
        let new = change.new.as_ref().and_then(|entry| Some((entry, entry.vector()?)));
        let Some((holder, _)) = old.or(new) else { return };
        let hash_key = self.hash_key;
        let hash = hash_of(hash_key, holder.key());
        let new_length = new.map(|(_, vector)| vector.len());
        if let Some((entry, vector)) = old.filter(|(_, vector)| Some(vector.len()) != new_length)
            && let Some(group) = self.groups.get_mut(&vector.len())
        {
            self.bytes -= group.bytes();
            group.remove(hash, entry.key(), |moved| hash_of(hash_key, moved.key()));
            if group.entries.is_empty() {
                self.groups.remove(&vector.len());
            } else {
                self.bytes += group.bytes();
            }
        }
        if let Some((entry, vector)) = new {
            let group = self.groups.entry(vector.len()).or_default();
            self.bytes -= group.bytes();
            group.put(hash, entry, vector);
            self.bytes += group.bytes();
            let rows = group.entries.len();
            if rows > self.len_of(self.usual_length) {
                self.usual_length = vector.len();
            }
        }
        self.count = self.count + u64::from(new.is_some()) - u64::from(old.is_some());
    }

    /// The nearest among all vectors of the query's length whose key begins with `prefix`; where
    /// there is none, the page is left without lengths.
    pub(super) fn search(
        &self,
        query: &[f32],
        top_k: usize,
        prefix: Option<&[u8]>,
        budget: &Budget<'_>,
    ) -> Result<VectorPage, GivenUp> {
        let Some(group) = self.groups.get(&query.len()) else { return Ok(VectorPage::default()) };
        let top_k = top_k.max(1);
        let rows = group.candidates(query, top_k, prefix, budget)?;
        rank(query, top_k, rows.into_iter().map(|row| &group.entries[row as usize]), budget)
    }

    /// The lengths of the vectors whose key begins with `prefix`, ascending. None has the query's.
    pub(super) fn lengths(
        &self,
        query_length: usize,
        prefix: Option<&[u8]>,
        budget: &Budget<'_>,
    ) -> Result<Vec<usize>, GivenUp> {
        let Some(prefix) = prefix else { return Ok(self.groups.keys().copied().collect()) };
        let mut lengths = Vec::new();
        for (&length, group) in &self.groups {
            if length != query_length && group.has_prefix(prefix, budget)? {
                lengths.push(length);
            }
        }
        Ok(lengths)
    }

    /// How many vectors of this length there are.
    pub(super) fn len_of(&self, length: usize) -> usize {
        self.groups.get(&length).map_or(0, |group| group.entries.len())
    }

    /// Of the vectors of the length that most have: their lists double with their table.
    pub(super) fn room(&self) -> Room {
        let Some(group) = self.groups.get(&self.usual_length) else { return Room::default() };
        let lists = group.entries.capacity().min(group.inverse_norms.capacity());
        Room { taken: group.entries.len(), places: lists.min(group.rows.capacity()), bytes: group.bytes() }
    }

    pub(super) fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}
