//! Searches and scans, whose answers come in pages.
//!
//! Awaiting such a call follows the cursor and gives everything, or as much as
//! its `limit` says. [`Call::pages`] gives a page at a time instead, for
//! answers that are too much to hold.

use serde::{Deserialize, Serialize};

use super::call::{Call, Operation, Prefixed, Read, Single};
use super::results::{Item, TextMatch, VectorMatch};
use super::{DatastoreConnector, Error, Reply, Request};

/// An operation that answers in pages.
pub trait Paged: Send + Sync + Sized + 'static {
    /// One of what it finds.
    type Item: Send;

    /// A page.
    ///
    /// # Errors
    ///
    /// `bad_reply` when the reply has none.
    fn read(reply: &Reply) -> Result<Page<Self::Item>, Error>;
}

/// One page of a search or a scan, as the node's reply has it.
#[derive(Clone, Debug, Default)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` behind the last one.
    pub next: Option<String>,
    /// How many items all pages have; `None` for a scan.
    pub total: Option<u64>,
    /// How many keys have any of the words, where none has all of them (`search_text`).
    pub total_any: Option<u64>,
}

/// The pages of a search or scan.
pub struct Pages<O> {
    call: Call<O>,
    /// Items that are still wanted; `None` for all.
    wanted: Option<usize>,
    after: Option<String>,
    ended: bool,
    total: Option<u64>,
    total_any: Option<u64>,
}

impl<O: Paged> Pages<O> {
    /// The next page, `None` behind the last one. A page holds up to 1,000 items.
    ///
    /// # Errors
    ///
    /// As for any call. The same page is asked for again by the next call.
    pub async fn next(&mut self) -> Result<Option<Vec<O::Item>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut request: Request = self.call.request.clone();
        if let Some(wanted) = self.wanted {
            request = request.with("limit", wanted);
        }
        if let Some(after) = &self.after {
            request = request.with("after", after);
        }
        let Page { mut items, next, total, total_any } = O::read(&self.call.connector.send(request).await?)?;
        (self.total, self.total_any) = (total, total_any);
        if let Some(wanted) = &mut self.wanted {
            items.truncate(*wanted);
            *wanted -= items.len();
        }
        self.ended = next.is_none() || self.wanted == Some(0);
        self.after = next;
        Ok(Some(items))
    }

    /// How many items all pages have, as the last page said; `None` before the first one, and for a scan.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// How many keys have any of the words, where none has all of them (`search_text`).
    pub fn total_any(&self) -> Option<u64> {
        self.total_any
    }

    /// All pages in one.
    async fn all(mut self) -> Result<Vec<O::Item>, Error> {
        let mut all = Vec::new();
        while let Some(items) = self.next().await? {
            all.extend(items);
        }
        Ok(all)
    }
}

impl<O: Paged> Call<O> {
    /// At most this many, from the best or first one on.
    pub fn limit(mut self, limit: usize) -> Call<O> {
        self.limit = Some(limit);
        self
    }

    /// A page at a time.
    pub fn pages(mut self) -> Pages<O> {
        let wanted = self.limit.take();
        let ended = wanted == Some(0);
        Pages { call: self, wanted, after: None, ended, total: None, total_any: None }
    }
}

/// Operations whose calls follow the cursor.
macro_rules! paged {
    ($($(#[$doc:meta])* $name:ident of $item:ty;)*) => { $(
        $(#[$doc])*
        pub struct $name;

        impl Read for $name {}
        impl Prefixed for $name {}

        impl Operation for $name {
            type Output = Vec<$item>;

            async fn run(call: Call<$name>) -> Result<Vec<$item>, Error> {
                call.pages().all().await
            }
        }
    )* };
}

paged! {
    /// `search_by_value`.
    SearchByValue of String;
    /// `search_text`.
    SearchText of TextMatch;
    /// `scan`.
    Scan of Item;
}

impl Paged for SearchByValue {
    type Item = String;

    fn read(reply: &Reply) -> Result<Page<String>, Error> {
        #[derive(Deserialize)]
        struct Fields {
            keys: Vec<String>,
            total: Option<u64>,
            next: Option<String>,
        }
        let Fields { keys: items, total, next } = reply.fields()?;
        Ok(Page { items, next, total, total_any: None })
    }
}

impl Paged for SearchText {
    type Item = TextMatch;

    fn read(reply: &Reply) -> Result<Page<TextMatch>, Error> {
        #[derive(Deserialize)]
        struct Fields {
            keys: Vec<String>,
            scores: Vec<f64>,
            total: Option<u64>,
            total_any: Option<u64>,
            next: Option<String>,
        }
        let Fields { keys, scores, total, total_any, next } = reply.fields()?;
        let pairs = keys.into_iter().zip(scores);
        let items = pairs.map(|(key, score)| TextMatch { key, score }).collect();
        Ok(Page { items, next, total, total_any })
    }
}

impl Paged for Scan {
    type Item = Item;

    fn read(reply: &Reply) -> Result<Page<Item>, Error> {
        #[derive(Deserialize)]
        struct Fields {
            items: Vec<Item>,
            next: Option<String>,
        }
        let Fields { items, next } = reply.fields()?;
        Ok(Page { items, next, total: None, total_any: None })
    }
}

/// `vector_search`, which answers in one page.
pub struct VectorSearch;

impl Read for VectorSearch {}
impl Prefixed for VectorSearch {}

impl Single for VectorSearch {
    type Output = Vec<VectorMatch>;

    fn read(reply: &Reply) -> Result<Vec<VectorMatch>, Error> {
        #[derive(Deserialize)]
        struct Fields {
            matches: Vec<VectorMatch>,
        }
        Ok(reply.fields::<Fields>()?.matches)
    }
}

impl Call<SearchText> {
    /// Keys with at least one of the words, instead of all of them.
    pub fn any(self) -> Call<SearchText> {
        self.with("match", "any")
    }
}

impl Call<VectorSearch> {
    /// How many; 10 unless given.
    pub fn top_k(self, top_k: usize) -> Call<VectorSearch> {
        self.with("top_k", top_k)
    }
}

impl Call<Scan> {
    /// Only this key and those behind it.
    pub fn start(self, start: &str) -> Call<Scan> {
        self.with("start", start)
    }

    /// Only keys before this one.
    pub fn end(self, end: &str) -> Call<Scan> {
        self.with("end", end)
    }

    /// The last key first.
    pub fn reverse(self) -> Call<Scan> {
        self.with("reverse", true)
    }

    /// Keys and versions without values.
    pub fn without_values(self) -> Call<Scan> {
        self.with("values", false)
    }

    /// Vectors, too.
    pub fn with_vectors(self) -> Call<Scan> {
        self.with("vectors", true)
    }
}

impl DatastoreConnector {
    /// The keys whose value is the same JSON data, in byte order.
    pub fn search_by_value(&self, value: &(impl Serialize + ?Sized)) -> Call<SearchByValue> {
        Call::new(self, "search_by_value").with("value", value)
    }

    /// The keys whose value has all the words of a query, best first.
    pub fn search_text(&self, query: &str) -> Call<SearchText> {
        Call::new(self, "search_text").with("query", query)
    }

    /// The keys of the most similar vectors of this length, best first.
    pub fn vector_search(&self, vector: &[f32]) -> Call<VectorSearch> {
        Call::new(self, "vector_search").with("vector", vector)
    }

    /// Keys with values and versions, in byte order.
    pub fn scan(&self) -> Call<Scan> {
        Call::new(self, "scan")
    }
}
