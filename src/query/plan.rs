//! What every shard's indexes are asked, and what each answers. A query is the
//! same for all shards; a key lives on one, so the parts never overlap.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::engine::Entry;
use crate::error::Error;
use crate::indexing::{
    Budget, CanonicalHash, GivenUp, Indexes, KeyRange, Parts, QueryTerm, ScanPage, TextAsked, TextPage,
    TextSearch, TextStatistics, TextStep, ValuePage, VectorPage, canonical_hash, terms_of_query,
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
    /// The value's JSON.
    json: Bytes,
    /// The value as the index knows it. The first shard that is asked works it out, for all: it
    /// may be long, and the threads of connections have others to serve.
    hash: Arc<OnceLock<CanonicalHash>>,
    hash_key: (u64, u64),
    /// The page begins behind this key.
    pub after: Option<Bytes>,
    /// Items in the page.
    pub limit: usize,
}

impl ValueQuery {
    /// The keys that hold what this JSON says, hashed as the indexes hash.
    pub fn new(hash_key: (u64, u64), json: Bytes, after: Option<Bytes>, limit: usize) -> ValueQuery {
        ValueQuery { json, hash: Arc::default(), hash_key, after, limit }
    }

    fn hash(&self) -> &CanonicalHash {
        self.hash.get_or_init(|| canonical_hash(self.hash_key, &self.json))
    }
}

/// Which words, and which page of the documents.
#[derive(Clone, Debug)]
pub struct TextQuery {
    /// The words as they came, in UTF-8.
    text: Bytes,
    /// What they come to, worked out like the hash of a value.
    terms: Arc<OnceLock<Result<Vec<QueryTerm>, Error>>>,
    /// Whether all must occur.
    pub matching: Match,
    /// The page begins behind this score and key.
    pub after: Option<(f64, Bytes)>,
    /// Items in the page.
    pub limit: usize,
}

impl TextQuery {
    /// The documents that hold these words.
    pub fn new(text: Bytes, matching: Match, after: Option<(f64, Bytes)>, limit: usize) -> TextQuery {
        TextQuery { text, terms: Arc::default(), matching, after, limit }
    }

    /// The words, each once, folded as the index folds them.
    fn terms(&self) -> Result<&[QueryTerm], Error> {
        let terms = self.terms.get_or_init(|| terms_of_query(&String::from_utf8_lossy(&self.text)));
        terms.as_deref().map_err(Clone::clone)
    }
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

/// How far a query has come.
#[derive(Debug)]
pub enum Progress {
    /// It is answered, or refused.
    Done(Result<Part, Error>),
    /// There is more to do. Others may come first, changes too, as long as the indexes are told
    /// that there are searches under way.
    GoOn(Resume),
}

/// Where a query goes on that is worked on in slices.
#[derive(Debug)]
pub enum Resume {
    /// A count: so far, and behind which key.
    Count(u64, Entry),
    /// A search by text.
    Text(TextSearch),
}

impl Query {
    /// Keys that are counted before others have their turn: a few milliseconds.
    pub const COUNTED_AT_ONCE: usize = if cfg!(test) { 100 } else { 1 << 17 };

    /// Asks one shard's indexes: from the beginning, or where they have said to go on.
    pub fn run(
        &self,
        indexes: &Indexes,
        resume: Option<Resume>,
        budget: &Budget<'_>,
    ) -> Result<Progress, GivenUp> {
        let part = match self {
            Query::Value(query) => {
                let after = query.after.as_deref();
                Part::Value(indexes.search_value(query.hash(), after, query.limit, PAGE_BYTES_MAX))
            }
            Query::TextStatistics(query) => match query.terms() {
                Ok(terms) => Part::TextStatistics(indexes.text_statistics(terms)),
                Err(error) => return Ok(Progress::Done(Err(error))),
            },
            Query::Text(query, statistics) => match query.terms() {
                Ok(terms) => {
                    let after = query.after.as_ref().map(|(score, key)| (*score, &key[..]));
                    let (matching, limit) = (query.matching, query.limit);
                    let under_way = match resume {
                        Some(Resume::Text(search)) => Some(search),
                        _ => None,
                    };
                    let asked = TextAsked { terms, matching, statistics, after, limit };
                    match indexes.search_text(&asked, under_way, budget)? {
                        TextStep::Done(page) => Part::Text(page),
                        TextStep::GoOn(search) => return Ok(Progress::GoOn(Resume::Text(search))),
                    }
                }
                Err(error) => return Ok(Progress::Done(Err(error))),
            },
            Query::Vector(query) => {
                let prefix = query.prefix.as_deref();
                Part::Vector(indexes.search_vector(&query.vector, query.top_k, prefix, budget)?)
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
            Query::Count(prefix) => {
                let (before, behind) = match resume {
                    Some(Resume::Count(counted, behind)) => (counted, Some(behind)),
                    _ => (0, None),
                };
                let behind = behind.as_ref().map(Entry::key);
                let keys = indexes.count(prefix, behind, Query::COUNTED_AT_ONCE);
                budget.spend(keys.count)?;
                let counted = before + keys.count;
                match keys.last {
                    Some(last) => return Ok(Progress::GoOn(Resume::Count(counted, last))),
                    None => Part::Count(counted),
                }
            }
        };
        Ok(Progress::Done(Ok(part)))
    }
}
