//! The indexes over one shard's slice: by value, by text, by vector and by key.
//!
//! [`Indexes::apply`] takes each change once, in log order, and every index is
//! up to date when it returns: there is no refresh and nothing to merge later.
//! [`Indexes::build`] is the same for many keys at once.
//! An entry is shared with the keyspace and never copied; every index that
//! holds a key swaps its handle when the key is overwritten, even where nothing
//! it looks at changed, so that no old entry is kept alive and every search
//! gives the latest version.
//!
//! | index | file | finds |
//! |---|---|---|
//! | value | `value`, `canonical` | keys that hold equal JSON |
//! | text | `text`, `text_search`, `few_matches`, `any_count`, `ranking`, `tokens`, `ascii_words`, `preparing`, `folding`, `parts`, `particles`, `dictionaries`, `documents`, `postings`, `term_hash`, `frequencies` | keys whose strings hold words, by BM25 |
//! | vector | `vector`, `kernel`, `cosine` | the nearest by cosine similarity, exactly |
//! | order | `order` | ranges of keys |

mod any_count;
mod ascii_words;
mod budget;
mod build;
mod canonical;
mod cosine;
mod dictionaries;
mod documents;
mod few_matches;
mod folding;
mod frequencies;
mod growth;
mod json;
mod kernel;
mod key_slot;
mod order;
mod particles;
mod parts;
mod postings;
mod preparing;
mod ranking;
mod shrink;
mod term_hash;
#[cfg(test)]
mod tests;
mod text;
mod text_search;
mod tokens;
mod top;
mod value;
mod vector;

use std::fmt;

use crate::engine::{Change, Entry};
use crate::messaging::Match;

pub use budget::{Budget, GivenUp};
pub use build::{Digest, Digester, Piece, slices};
pub use canonical::{CanonicalHash, canonical_hash};
pub use few_matches::FewMatches;
pub use growth::{Room, Rooms};
pub use order::{KeyRange, KeysCounted, Parts, ScanPage};
pub use text::{TextPage, TextStatistics};
pub use text_search::{TextAsked, TextSearch, TextStep};
pub use tokens::{QueryTerm, TEXT_REVISION, terms_of_query};
pub use top::{Hit, by_rank};
pub use value::ValuePage;
pub use vector::VectorPage;

/// Which indexes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds {
    /// For `search_by_value`.
    pub value: bool,
    /// For `search_text`.
    pub text: bool,
    /// For `vector_search`.
    pub vector: bool,
    /// For `scan`, and `count` with a prefix.
    pub order: bool,
}

impl Kinds {
    /// Every index.
    pub const ALL: Kinds = Kinds { value: true, text: true, vector: true, order: true };
    /// No index.
    pub const NONE: Kinds = Kinds { value: false, text: false, vector: false, order: false };

    /// Reads names with commas between them, `none` or `all`.
    pub fn parse(text: &str) -> Result<Kinds, String> {
        match text.trim() {
            "none" => return Ok(Kinds::NONE),
            "all" => return Ok(Kinds::ALL),
            _ => {}
        }
        let mut kinds = Kinds::NONE;
        for name in text.split(',') {
            match name.trim() {
                "value" => kinds.value = true,
                "text" => kinds.text = true,
                "vector" => kinds.vector = true,
                "order" => kinds.order = true,
                other => {
                    return Err(format!(
                        "`{other}` is no index: give any of value, text, vector and order with commas, or none, or all"
                    ));
                }
            }
        }
        Ok(kinds)
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            [(self.value, "value"), (self.text, "text"), (self.vector, "vector"), (self.order, "order")];
        let kept: Vec<&str> = names.iter().filter(|(kept, _)| *kept).map(|(_, name)| *name).collect();
        formatter.write_str(if kept.is_empty() { "none" } else { "" })?;
        formatter.write_str(&kept.join(","))
    }
}

/// What an index holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// How many keys it covers.
    pub entries: u64,
    /// What it takes in memory beside the entries themselves, in bytes.
    pub bytes: u64,
}

/// What each index holds; zero where it is switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// The value index.
    pub value: Size,
    /// The text index.
    pub text: Size,
    /// The vector index.
    pub vector: Size,
    /// The key-order index.
    pub order: Size,
}

impl Sizes {
    /// All indexes' bytes together.
    pub fn bytes(&self) -> u64 {
        self.value.bytes + self.text.bytes + self.vector.bytes + self.order.bytes
    }
}

/// The indexes of one shard's slice. A search of an index that is switched off
/// finds nothing: whoever asks looks at [`Indexes::kinds`] first.
pub struct Indexes {
    hash_key: (u64, u64),
    value: Option<value::ValueIndex>,
    text: Option<text::TextIndex>,
    vector: Option<vector::VectorIndex>,
    order: Option<order::OrderIndex>,
}

impl Indexes {
    /// Empty indexes. The key keeps outsiders from aiming at the hash tables
    /// and must be the same on every shard, since a value's hash is searched for on all.
    pub fn new(kinds: Kinds, hash_key: (u64, u64)) -> Indexes {
        Indexes {
            hash_key,
            value: kinds.value.then(|| value::ValueIndex::new(hash_key)),
            text: kinds.text.then(|| text::TextIndex::new(hash_key)),
            vector: kinds.vector.then(|| vector::VectorIndex::new(hash_key)),
            order: kinds.order.then(order::OrderIndex::default),
        }
    }

    /// Which indexes are kept.
    pub fn kinds(&self) -> Kinds {
        Kinds {
            value: self.value.is_some(),
            text: self.text.is_some(),
            vector: self.vector.is_some(),
            order: self.order.is_some(),
        }
    }

    /// Brings every index in line with a write. Each change comes once, in the
    /// order of the log, and its `old` is what the last one of its key left.
    pub fn apply(&mut self, change: &Change) {
        if let Some(value) = &mut self.value {
            value.apply(change);
        }
        if let Some(text) = &mut self.text {
            text.apply(change);
        }
        if let Some(vector) = &mut self.vector {
            vector.apply(change);
        }
        if let Some(order) = &mut self.order {
            order.apply(change);
        }
    }

    /// A page of the keys whose value has this hash ([`canonical_hash`]), within a range of keys.
    pub fn search_value(
        &self,
        query: &CanonicalHash,
        range: &KeyRange<'_>,
        limit: usize,
        bytes_max: usize,
    ) -> ValuePage {
        self.value
            .as_ref()
            .map_or_else(ValuePage::default, |value| value.search(query, range, limit, bytes_max))
    }

    /// How many of them begin with `prefix`: `most` of those behind `after`, and where to go on.
    pub fn count_value(
        &self,
        query: &CanonicalHash,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> KeysCounted {
        let none = KeysCounted { count: 0, last: None };
        self.value.as_ref().map_or(none, |value| value.count(query, prefix, after, most))
    }

    /// This shard's share of what [`Indexes::search_text`] needs to know of all shards.
    pub fn text_statistics(&self, terms: &[QueryTerm]) -> TextStatistics {
        self.text.as_ref().map_or_else(TextStatistics::default, |text| text.statistics(terms))
    }

    /// All entries that match and whose key begins with `prefix`, where they are few.
    pub fn few_text_matches(
        &self,
        terms: &[QueryTerm],
        matching: Match,
        prefix: Option<&[u8]>,
    ) -> Option<FewMatches> {
        self.text.as_ref()?.few_matches(terms, matching, prefix)
    }

    /// The entries that hold the terms, best first: begins a search, or goes on with one.
    pub fn search_text(
        &self,
        asked: &TextAsked<'_>,
        under_way: Option<TextSearch>,
        budget: &Budget<'_>,
    ) -> Result<TextStep, GivenUp> {
        let Some(text) = &self.text else { return Ok(TextStep::Done(TextPage::default())) };
        if under_way.is_none()
            && asked.prefix.is_some()
            && let Some(keys) = self.few_with_prefix(asked.prefix, text.few_keys(asked), budget)?
        {
            return text.search(asked, Some(&keys), None, budget);
        }
        text.search(asked, None, under_way, budget)
    }

    /// How many entries hold any of the terms; `None` where that takes too long to be counted.
    pub fn count_any_term(&self, terms: &[QueryTerm]) -> Option<u64> {
        self.text.as_ref().map_or(Some(0), |text| text.count_any(terms))
    }

    /// How many entries the terms' lists have together: what a search costs that goes through them.
    pub fn postings_of(&self, terms: &[QueryTerm]) -> u64 {
        self.text.as_ref().map_or(0, |text| text.postings_of(terms))
    }

    /// Whether there are searches that will go on: what they have seen must not come again.
    pub fn searches_under_way(&mut self, any: bool) {
        if let Some(text) = &mut self.text {
            text.searches_under_way(any);
        }
    }

    /// The `top_k` nearest vectors of the query's length whose key begins with `prefix`.
    pub fn search_vector(
        &self,
        query: &[f32],
        top_k: usize,
        prefix: Option<&[u8]>,
        budget: &Budget<'_>,
    ) -> Result<VectorPage, GivenUp> {
        let Some(vector) = &self.vector else { return Ok(VectorPage::default()) };
        let rows = vector.len_of(query.len());
        // A row costs about a twentieth of a key.
        const ROWS_PER_KEY: usize = 20;
        if let Some(keys) = self.few_with_prefix(prefix, rows / ROWS_PER_KEY + 1, budget)? {
            return vector::rank(query, top_k, keys.into_iter(), budget);
        }
        let page = vector.search(query, top_k, prefix, budget)?;
        if page.covered {
            return Ok(page);
        }
        let lengths = match self.few_with_prefix(prefix, vector.len() as usize / ROWS_PER_KEY + 1, budget)? {
            Some(keys) => vector::lengths_of(keys.into_iter()),
            None => vector.lengths(query.len(), prefix, budget)?,
        };
        Ok(VectorPage { lengths, ..page })
    }

    /// The entries that the prefix covers, if they are so few that following them costs less than
    /// looking at the prefix of all that is searched.
    fn few_with_prefix(
        &self,
        prefix: Option<&[u8]>,
        few: usize,
        budget: &Budget<'_>,
    ) -> Result<Option<Vec<&Entry>>, GivenUp> {
        let (Some(_), Some(order)) = (prefix, &self.order) else { return Ok(None) };
        let mut keys = Vec::new();
        for entry in order.with_prefix(prefix).take(few + 1) {
            budget.spend(1)?;
            keys.push(entry);
        }
        Ok((keys.len() <= few).then_some(keys))
    }

    /// A page of a range of keys; `parts` is what the reply shows of each.
    pub fn scan(&self, range: &KeyRange<'_>, parts: Parts, limit: usize, bytes_max: usize) -> ScanPage {
        let Some(order) = &self.order else { return ScanPage::default() };
        order.scan(range, parts, limit, bytes_max)
    }

    /// How many keys begin with `prefix`: `most` of those behind `after`, and where to go on.
    pub fn count(&self, prefix: &[u8], after: Option<&[u8]>, most: usize) -> KeysCounted {
        match &self.order {
            Some(order) => order.count(prefix, after, most),
            None => KeysCounted { count: 0, last: None },
        }
    }

    /// The tables that may be about to grow. Constant time.
    pub fn rooms(&self) -> Rooms {
        let (single, several) = self.value.as_ref().map(value::ValueIndex::rooms).unwrap_or_default();
        let (words, documents) = self.text.as_ref().map(text::TextIndex::rooms).unwrap_or_default();
        let vectors = self.vector.as_ref().map(vector::VectorIndex::room).unwrap_or_default();
        Rooms { words, keys: [single, several, documents, vectors] }
    }

    /// What each index holds. Constant time.
    pub fn sizes(&self) -> Sizes {
        let size = |entries, bytes| Size { entries, bytes };
        Sizes {
            value: self.value.as_ref().map_or_else(Size::default, |index| size(index.len(), index.bytes())),
            text: self.text.as_ref().map_or_else(Size::default, |index| size(index.len(), index.bytes())),
            vector: self.vector.as_ref().map_or_else(Size::default, |index| size(index.len(), index.bytes())),
            order: self.order.as_ref().map_or_else(Size::default, |index| size(index.len(), index.bytes())),
        }
    }
}
