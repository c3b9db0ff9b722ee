//! Each shard's part of a page into one page.
//!
//! Every part is in the order of the whole, so merging takes the best of the
//! parts' first items, again and again. A part that ended early, by its limit
//! or its bytes, says so (`more`); when such a part is used up, what follows in
//! it is unknown, and the page ends there. A shard fills a page by the same
//! limits, so that hardly ever shortens one.

use std::cmp::Ordering;

use super::cursor::encode_key_cursor;
use crate::engine::Entry;
use crate::error::{Code, Detail, Error};
use crate::indexing::{Hit, Parts, ScanPage, TextPage, ValuePage, VectorPage, by_rank};

/// A page of `scan`.
#[derive(Clone, Debug)]
pub struct KeysMerged {
    /// The entries, in the scan's direction.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` behind the last one.
    pub next: Option<String>,
}

/// A page of `search_by_value`.
#[derive(Clone, Debug)]
pub struct ValueMerged {
    /// The entries in ascending key order.
    pub entries: Vec<Entry>,
    /// How many hold the value on all shards.
    pub total: u64,
    /// Where the next page begins; `None` behind the last one.
    pub next: Option<String>,
}

/// A page of `search_text`.
#[derive(Clone, Debug)]
pub struct TextMerged {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// How many match on all shards.
    pub total: u64,
    /// Whether there are more behind these.
    pub more: bool,
}

/// Merges a page of a scan.
pub fn merge_scan_pages(
    pages: Vec<ScanPage>,
    reverse: bool,
    parts: Parts,
    limit: usize,
    bytes_max: usize,
) -> KeysMerged {
    let sources = pages.into_iter().map(|page| Source::new(page.entries, page.more)).collect();
    let order = |left: &Entry, right: &Entry| {
        let ascending = left.key().cmp(right.key());
        if reverse { ascending.reverse() } else { ascending }
    };
    let (entries, more) = merge(sources, order, |entry| parts.item_bytes(entry), limit, bytes_max);
    let next = entries.last().filter(|_| more).map(|entry| encode_key_cursor(entry.key()));
    KeysMerged { entries, next }
}

/// Merges a page of a search by value.
pub fn merge_value_pages(pages: Vec<ValuePage>, limit: usize, bytes_max: usize) -> ValueMerged {
    let total = pages.iter().map(|page| page.total).sum();
    let scans = pages.into_iter().map(|page| ScanPage { entries: page.entries, more: page.more }).collect();
    let KeysMerged { entries, next } = merge_scan_pages(scans, false, Parts::KEYS, limit, bytes_max);
    ValueMerged { entries, total, next }
}

/// Merges a page of a search by text.
pub fn merge_text_pages(pages: Vec<TextPage>, limit: usize, bytes_max: usize) -> TextMerged {
    let total = pages.iter().map(|page| page.total).sum();
    let sources = pages.into_iter().map(|page| Source::new(page.hits, page.more)).collect();
    let (hits, more) = merge(sources, rank, |hit| hit.entry.key().len(), limit, bytes_max);
    TextMerged { hits, total, more }
}

/// Merges the nearest vectors of all shards. Fails when there are vectors under
/// the prefix, but none of the query's length.
pub fn merge_vector_pages(
    pages: Vec<VectorPage>,
    query_length: usize,
    top_k: usize,
    prefix: Option<&[u8]>,
) -> Result<Vec<Hit>, Error> {
    if !pages.iter().any(|page| page.covered) {
        let mut lengths: Vec<usize> = pages.iter().flat_map(|page| page.lengths.iter().copied()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        if lengths.is_empty() {
            return Ok(Vec::new());
        }
        let scope = prefix.map(|prefix| format!(" under the prefix {:?}", String::from_utf8_lossy(prefix)));
        let scope = scope.unwrap_or_default();
        let message =
            format!("no vector{scope} has {query_length} numbers; the lengths there are: {lengths:?}");
        return Err(Error::new(Code::DimensionMismatch, message).with_detail(Detail::Lengths(lengths)));
    }
    // A shard's hits are its best `top_k`: what it left out can't be among the best of all.
    let sources = pages.into_iter().map(|page| Source::new(page.hits, false)).collect();
    Ok(merge(sources, rank, |_| 0, top_k, usize::MAX).0)
}

fn rank(left: &Hit, right: &Hit) -> Ordering {
    by_rank((left.score, left.entry.key()), (right.score, right.entry.key()))
}

/// A shard's part, its first item at hand.
struct Source<T> {
    first: Option<T>,
    rest: std::vec::IntoIter<T>,
    more: bool,
}

impl<T> Source<T> {
    fn new(items: Vec<T>, more: bool) -> Source<T> {
        let mut rest = items.into_iter();
        Source { first: rest.next(), rest, more }
    }
}

/// Takes items in order until the page is full; says whether there are more.
fn merge<T>(
    mut sources: Vec<Source<T>>,
    order: impl Fn(&T, &T) -> Ordering,
    bytes_of: impl Fn(&T) -> usize,
    limit: usize,
    bytes_max: usize,
) -> (Vec<T>, bool) {
    let mut merged = Vec::new();
    let mut bytes = 0usize;
    loop {
        if sources.iter().any(|source| source.first.is_none() && source.more) {
            return (merged, true);
        }
        // Few shards: comparing all first items costs less than keeping a heap of them.
        let best = sources.iter_mut().filter(|source| source.first.is_some()).min_by(|left, right| {
            match (&left.first, &right.first) {
                (Some(left), Some(right)) => order(left, right),
                _ => Ordering::Equal,
            }
        });
        let Some(source) = best else { return (merged, false) };
        let Some(item) = source.first.take() else { return (merged, false) };
        bytes = bytes.saturating_add(bytes_of(&item));
        if !merged.is_empty() && (merged.len() >= limit || bytes > bytes_max) {
            return (merged, true);
        }
        merged.push(item);
        source.first = source.rest.next();
    }
}
