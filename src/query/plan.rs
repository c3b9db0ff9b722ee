//! What every shard's indexes are asked, and what each answers. A query is the
//! same for all shards; a key lives on one, so the parts never overlap.

use bytes::Bytes;

use crate::indexing::{
    CanonicalHash, Indexes, KeyRange, Parts, ScanPage, TextPage, TextStatistics, ValuePage, VectorPage,
};
use crate::limits::PAGE_BYTES_MAX;
use crate::messaging::Match;

/// A question to the indexes of every shard.
#[derive(Clone, Debug)]
pub enum Query {
    /// `search_by_value`.
    Value(ValueQuery),
    /// `search_text`, first phase: how common are the words? BM25 needs that
    /// over all shards, or a score would depend on where a key happens to live.
    TextStatistics(TextQuery),
    /// `search_text`, second phase: the best documents.
    Text(TextQuery, TextStatistics),
    /// `vector_search`.
    Vector(VectorQuery),
    /// `scan`.
    Scan(ScanQuery),
    /// `count` of the keys with a prefix.
    Count(Bytes),
}

/// Which value, and which page of its keys.
#[derive(Clone, Debug)]
pub struct ValueQuery {
    /// The value, as the index knows it.
    pub value: CanonicalHash,
    /// The page begins behind this key.
    pub after: Option<Bytes>,
    /// Items in the page.
    pub limit: usize,
}

/// Which words, and which page of the documents.
#[derive(Clone, Debug)]
pub struct TextQuery {
    /// The words, each once, folded as the index folds them.
    pub terms: Vec<String>,
    /// Whether all must occur.
    pub matching: Match,
    /// The page begins behind this score and key.
    pub after: Option<(f64, Bytes)>,
    /// Items in the page.
    pub limit: usize,
}

/// Which vector.
#[derive(Clone, Debug)]
pub struct VectorQuery {
    /// Its numbers.
    pub vector: Vec<f32>,
    /// How many matches.
    pub top_k: usize,
    /// Keys must begin with this.
    pub prefix: Option<Bytes>,
}

/// Which keys, and what of them.
#[derive(Clone, Debug)]
pub struct ScanQuery {
    /// Keys must begin with this.
    pub prefix: Option<Bytes>,
    /// The first key, inclusive.
    pub start: Option<Bytes>,
    /// The key to stop before.
    pub end: Option<Bytes>,
    /// The page begins behind this key.
    pub after: Option<Bytes>,
    /// Descending order.
    pub reverse: bool,
    /// Items in the page.
    pub limit: usize,
    /// Whether values are shown.
    pub values: bool,
    /// Whether vectors are shown.
    pub vectors: bool,
}

/// What one shard's indexes answer.
#[derive(Clone, Debug)]
pub enum Part {
    /// To [`Query::Value`].
    Value(ValuePage),
    /// To [`Query::TextStatistics`].
    TextStatistics(TextStatistics),
    /// To [`Query::Text`].
    Text(TextPage),
    /// To [`Query::Vector`].
    Vector(VectorPage),
    /// To [`Query::Scan`].
    Scan(ScanPage),
    /// To [`Query::Count`].
    Count(u64),
}

impl Query {
    /// Asks one shard's indexes.
    pub fn run(&self, indexes: &Indexes) -> Part {
        match self {
            Query::Value(query) => {
                let after = query.after.as_deref();
                Part::Value(indexes.search_value(&query.value, after, query.limit, PAGE_BYTES_MAX))
            }
            Query::TextStatistics(query) => Part::TextStatistics(indexes.text_statistics(&query.terms)),
            Query::Text(query, statistics) => {
                let after = query.after.as_ref().map(|(score, key)| (*score, &key[..]));
                Part::Text(indexes.search_text(&query.terms, query.matching, statistics, after, query.limit))
            }
            Query::Vector(query) => {
                Part::Vector(indexes.search_vector(&query.vector, query.top_k, query.prefix.as_deref()))
            }
            Query::Scan(query) => {
                let range = KeyRange {
                    prefix: query.prefix.as_deref(),
                    start: query.start.as_deref(),
                    end: query.end.as_deref(),
                    after: query.after.as_deref(),
                    reverse: query.reverse,
                };
                let shown = Parts { values: query.values, vectors: query.vectors };
                Part::Scan(indexes.scan(&range, shown, query.limit, PAGE_BYTES_MAX))
            }
            Query::Count(prefix) => Part::Count(indexes.count(Some(prefix))),
        }
    }
}
