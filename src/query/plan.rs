//! What every shard's indexes are asked, and what each answers. A query is the
//! same for all shards; a key lives on one, so the parts never overlap.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::text_query::TextQuery;
use crate::engine::Entry;
use crate::error::Error;
use crate::indexing::{
    Budget, CanonicalHash, FewMatches, GivenUp, Indexes, KeyRange, Parts, ScanPage, TextPage, TextSearch,
    TextStatistics, ValuePage, VectorPage, canonical_hash,
};
use crate::limits::PAGE_BYTES_MAX;

/// A question to the indexes of every shard.
#[derive(Clone, Debug)]
pub enum Query {
    /// `search_by_value`.
    Value(ValueQuery),
    /// `search_text`: how common are the words, and which documents match if they are few?
    TextStatistics(TextQuery),
    /// `search_text`: the best documents.
    Text(TextQuery),
    /// `search_text`, where no document holds all words: how many hold any of them?
    TextAny(TextQuery),
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
    /// Keys must begin with this.
    pub prefix: Option<Bytes>,
    /// The page begins behind this key.
    pub after: Option<Bytes>,
    /// Items in the page.
    pub limit: usize,
}

impl ValueQuery {
    /// The keys that hold what this JSON says, hashed as the indexes hash, and begin with `prefix`; a page of them
    /// behind `after`.
    pub fn new(
        hash_key: (u64, u64),
        json: Bytes,
        prefix: Option<Bytes>,
        after: Option<Bytes>,
        limit: usize,
    ) -> ValueQuery {
        ValueQuery { json, hash: Arc::default(), hash_key, prefix, after, limit }
    }

    /// The page, or where to go on: keys with a prefix are counted some at a time.
    fn run(
        &self,
        indexes: &Indexes,
        resume: Option<Resume>,
        budget: &Budget<'_>,
    ) -> Result<Progress, GivenUp> {
        let prefix = self.prefix.as_deref();
        let (mut page, counted) = match resume {
            Some(Resume::Value(page, last)) => (page, Some(last)),
            _ => {
                let range = KeyRange { prefix, after: self.after.as_deref(), ..KeyRange::default() };
                (indexes.search_value(self.hash(), &range, self.limit, PAGE_BYTES_MAX), None)
            }
        };
        let Some(prefix) = prefix else { return Ok(Progress::Done(Ok(Part::Value(page)))) };
        let counted = counted.as_ref().map(Entry::key);
        let keys = indexes.count_value(self.hash(), prefix, counted, Query::COUNTED_AT_ONCE);
        budget.spend(keys.count)?;
        page.total += keys.count;
        Ok(match keys.last {
            Some(last) => Progress::GoOn(Resume::Value(page, last)),
            None => Progress::Done(Ok(Part::Value(page))),
        })
    }

    fn hash(&self) -> &CanonicalHash {
        self.hash.get_or_init(|| canonical_hash(self.hash_key, &self.json))
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
    TextStatistics(TextStatistics, Option<FewMatches>),
    /// To [`Query::Text`].
    Text(TextPage),
    /// To [`Query::TextAny`]; nothing, where it takes too long to be counted.
    TextTotal(Option<u64>),
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
    /// A search by value: its page, with as many counted as there are up to this key.
    Value(ValuePage, Entry),
}

impl Query {
    /// A `search_text`. Where its statistics are known, or are those of the one shard, one question does.
    pub fn text(query: TextQuery, shards: usize) -> Query {
        match shards == 1 || query.statistics().is_some() {
            true => Query::Text(query),
            false => Query::TextStatistics(query),
        }
    }

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
            Query::Value(query) => return query.run(indexes, resume, budget),
            Query::TextStatistics(query) => return Ok(Progress::Done(query.count(indexes))),
            Query::Text(query) => return query.rank(indexes, resume, budget),
            Query::TextAny(query) => return query.count_any(indexes, resume, budget),
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
