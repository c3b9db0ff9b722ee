//! A request that several actors answer: what it waits for, and the reply once
//! all is there. Pages are kept as handles to entries and become text only when
//! the reply's turn has come, so that many unread replies cost little.

use bytes::Bytes;

use super::bulk_get_reply::BulkGetReply;
use super::merge::{merge_scan_pages, merge_value_pages, merge_vector_pages};
use super::plan::{Part, Query, ScanQuery, ValueQuery, VectorQuery};
use super::text_gathering::TextGathering;
use crate::engine::{Entry, Version};
use crate::error::Error;
use crate::indexing::{FewMatches, Parts};
use crate::limits::PAGE_BYTES_MAX;
use crate::messaging::reply;

/// What is asked for, with what is needed to put the answer together.
enum Plan {
    BulkGet { keys: Vec<Bytes>, shard_of_key: Vec<u16>, entries: Vec<std::vec::IntoIter<Option<Entry>>> },
    BulkSet { count: usize, version: Option<Version> },
    BulkDelete { existed: usize },
    CountAll { keys: usize },
    Snapshot { made: Option<(u64, u64, u64)> },
    Value(ValueQuery),
    Text(TextGathering),
    Vector(VectorQuery),
    Scan(ScanQuery),
    CountPrefix,
    Copied { reply: CopiedReply, existed: usize, version: Option<Version>, asked: bool },
    Read { key: Option<Bytes>, entry: Option<Entry> },
}

/// How a write is answered that waits for copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopiedReply {
    /// With its version.
    Written,
    /// With whether there was something to delete.
    Deleted,
    /// With its version, and how many records it had.
    BulkSet(usize),
    /// With how many keys there were to delete.
    BulkDelete,
}

/// What is to be asked next, when all that was asked is there.
#[derive(Clone, Debug)]
pub enum NextStage {
    /// All shards' indexes, this.
    Query(Query),
    /// The members, whether they have this write.
    Copies(Version),
    /// The members, what they have of this key.
    Key(Bytes),
}

/// A request whose answers gather.
pub struct Gathering {
    plan: Plan,
    waiting_for: usize,
    shards: usize,
    parts: Vec<Part>,
    error: Option<Error>,
}

impl Gathering {
    fn new(plan: Plan, waiting_for: usize) -> Gathering {
        Gathering { plan, waiting_for, shards: waiting_for, parts: Vec::new(), error: None }
    }

    /// A `bulk_get` of `keys`, each on the shard of the same place in
    /// `shard_of_key`; `touched` of all `shards` were asked.
    pub fn bulk_get(keys: Vec<Bytes>, shard_of_key: Vec<u16>, shards: usize, touched: usize) -> Gathering {
        let entries = (0..shards).map(|_| Vec::new().into_iter()).collect();
        Gathering::new(Plan::BulkGet { keys, shard_of_key, entries }, touched)
    }

    /// A `bulk_set` of `count` records on `touched` shards.
    pub fn bulk_set(count: usize, touched: usize) -> Gathering {
        Gathering::new(Plan::BulkSet { count, version: None }, touched)
    }

    /// A `bulk_delete` on `touched` shards.
    pub fn bulk_delete(touched: usize) -> Gathering {
        Gathering::new(Plan::BulkDelete { existed: 0 }, touched)
    }

    /// A `count` of everything.
    pub fn count(shards: usize) -> Gathering {
        Gathering::new(Plan::CountAll { keys: 0 }, shards)
    }

    /// A snapshot.
    pub fn snapshot() -> Gathering {
        Gathering::new(Plan::Snapshot { made: None }, 1)
    }

    /// A write on `touched` shards whose answer waits for copies.
    pub fn copied(reply: CopiedReply, touched: usize) -> Gathering {
        Gathering::new(Plan::Copied { reply, existed: 0, version: None, asked: false }, touched)
    }

    /// A `get` that asks several members, behind this node's own shard.
    pub fn read(key: Bytes) -> Gathering {
        Gathering::new(Plan::Read { key: Some(key), entry: None }, 1)
    }

    /// A query to the indexes of all shards.
    pub fn search(query: &Query, shards: usize) -> Gathering {
        let plan = match query.clone() {
            Query::Value(query) => Plan::Value(query),
            Query::TextStatistics(query) | Query::Text(query) | Query::TextAny(query) => {
                Plan::Text(TextGathering::new(query))
            }
            Query::Vector(query) => Plan::Vector(query),
            Query::Scan(query) => Plan::Scan(query),
            Query::Count(_) => Plan::CountPrefix,
        };
        Gathering::new(plan, shards)
    }

    /// Whether answers are still to come.
    pub fn is_waiting(&self) -> bool {
        self.waiting_for > 0
    }

    fn came(&mut self, outcome: Result<(), Error>) {
        self.waiting_for = self.waiting_for.saturating_sub(1);
        if let (Err(error), None) = (outcome, &self.error) {
            self.error = Some(error);
        }
    }

    /// A shard's entries of a `bulk_get`.
    pub fn entries(&mut self, shard: usize, came: Vec<Option<Entry>>) {
        if let Plan::BulkGet { entries, .. } = &mut self.plan {
            entries[shard] = came.into_iter();
        }
        self.came(Ok(()));
    }

    /// A shard's part of a multi-key write (keys that existed, version) or of a count.
    pub fn part(&mut self, outcome: Result<(usize, Option<Version>), Error>) {
        let outcome = outcome.map(|(number, written)| match &mut self.plan {
            Plan::BulkSet { version, .. } => *version = written,
            Plan::Copied { existed, version, .. } => {
                *existed += number;
                *version = version.or(written);
            }
            Plan::BulkDelete { existed } => *existed += number,
            Plan::CountAll { keys } => *keys += number,
            _ => {}
        });
        self.came(outcome);
    }

    /// What one shard's indexes found.
    pub fn found(&mut self, part: Result<Part, Error>) {
        let part = match &self.plan {
            // The page is there: what else would be good to know is left out.
            Plan::Text(text) if text.is_merged() => part.or(Ok(Part::TextTotal(None))),
            _ => part,
        };
        let outcome = part.map(|part| self.parts.push(part));
        self.came(outcome);
    }

    /// The snapshot's entry index, bytes and duration in ms.
    pub fn snapshot_made(&mut self, outcome: Result<(u64, u64, u64), Error>) {
        let outcome = outcome.map(|came| {
            if let Plan::Snapshot { made } = &mut self.plan {
                *made = Some(came);
            }
        });
        self.came(outcome);
    }

    /// The members have the write, or not in time.
    pub fn copied_outcome(&mut self, outcome: Result<(), Error>) {
        self.came(outcome);
    }

    /// What several members have of a key comes to this.
    pub fn copies_read(&mut self, came: Result<Option<Entry>, Error>) {
        let outcome = came.map(|came| {
            if let Plan::Read { entry, .. } = &mut self.plan {
                *entry = came;
            }
        });
        self.came(outcome);
    }

    /// All answers are there; if they only lead to a further question, this is it.
    pub fn next_stage(&mut self) -> Option<NextStage> {
        if self.error.is_some() {
            return None;
        }
        let stage = match &mut self.plan {
            Plan::Copied { version, asked, .. } if !*asked => {
                *asked = true;
                NextStage::Copies((*version)?)
            }
            Plan::Read { key, .. } => NextStage::Key(key.take()?),
            _ => return self.next_query().map(NextStage::Query),
        };
        self.waiting_for = 1;
        Some(stage)
    }

    fn next_query(&mut self) -> Option<Query> {
        let Plan::Text(text) = &mut self.plan else { return None };
        let next = text.next(&mut self.parts)?;
        self.waiting_for = self.shards;
        Some(next)
    }

    /// What the answers keep alive, in bytes: entries, too, since the keyspace may have others by the time
    /// that the reply is read.
    pub fn memory_bytes(&self) -> usize {
        const HANDLE_BYTES: usize = 16;
        const KEY_BYTES: usize = size_of::<Bytes>() + size_of::<Option<Entry>>() + size_of::<u16>();
        let pinned = |entry: &Entry| HANDLE_BYTES + entry.memory_bytes();
        let pages = self.parts.iter().map(|part| match part {
            Part::Value(page) => page.entries.iter().map(pinned).sum::<usize>(),
            Part::Text(page) => page.hits.iter().map(|hit| pinned(&hit.entry)).sum(),
            Part::Vector(page) => page.hits.iter().map(|hit| pinned(&hit.entry)).sum(),
            Part::Scan(page) => page.entries.iter().map(pinned).sum(),
            Part::TextStatistics(_, few) => few.iter().flat_map(FewMatches::entries).map(pinned).sum(),
            Part::Count(_) | Part::TextTotal(_) => HANDLE_BYTES,
        });
        let kept = match &self.plan {
            Plan::BulkGet { keys, entries, .. } => {
                let entries = entries.iter().flat_map(|entries| entries.as_slice()).flatten();
                keys.len() * KEY_BYTES + entries.map(pinned).sum::<usize>()
            }
            Plan::Text(text) => {
                text.hits().iter().map(|hit| pinned(&hit.entry)).sum::<usize>() + text.cursor_bytes()
            }
            _ => 0,
        };
        pages.sum::<usize>() + kept
    }

    /// Whether it is a snapshot's.
    pub fn is_snapshot(&self) -> bool {
        matches!(self.plan, Plan::Snapshot { .. })
    }

    /// Writes the reply; everything is there. What is too long for one piece is given back, to be
    /// written behind it.
    pub fn encode(self, line: &mut Vec<u8>, id: &[u8]) -> Option<BulkGetReply> {
        if let Some(error) = self.error {
            reply::error(line, id, &error);
            return None;
        }
        match self.plan {
            Plan::BulkGet { keys, shard_of_key, entries } => {
                return BulkGetReply::begin(line, id, keys, &shard_of_key, entries);
            }
            Plan::BulkSet { count, version } => reply::bulk_set(line, id, count as u64, version),
            Plan::BulkDelete { existed } => reply::count(line, id, existed as u64),
            Plan::CountAll { keys } => reply::count(line, id, keys as u64),
            Plan::Snapshot { made } => {
                let (index, bytes, took_ms) = made.unwrap_or_default();
                reply::snapshot(line, id, index, bytes, took_ms);
            }
            Plan::Value(query) => encode_value(line, id, &query, self.parts),
            Plan::Text(text) => text.encode(line, id),
            Plan::Vector(query) => encode_vector(line, id, &query, self.parts),
            Plan::Scan(query) => encode_scan(line, id, &query, self.parts),
            Plan::Copied { reply, existed, version, .. } => match (reply, version) {
                (CopiedReply::Written, Some(version)) => reply::version(line, id, version),
                (CopiedReply::BulkSet(count), version) => reply::bulk_set(line, id, count as u64, version),
                (CopiedReply::BulkDelete, _) => reply::count(line, id, existed as u64),
                (CopiedReply::Deleted | CopiedReply::Written, _) => reply::deleted(line, id, existed > 0),
            },
            Plan::Read { entry, .. } => reply::get(line, id, entry.as_ref()),
            Plan::CountPrefix => {
                let counts =
                    self.parts.iter().map(|part| if let Part::Count(count) = part { *count } else { 0 });
                reply::count(line, id, counts.sum());
            }
        }
        None
    }
}

/// The pages of one kind among the parts; there are no others.
macro_rules! pages {
    ($parts:expr, $kind:ident) => {
        $parts
            .into_iter()
            .filter_map(|part| if let Part::$kind(page) = part { Some(page) } else { None })
            .collect::<Vec<_>>()
    };
}

fn encode_value(line: &mut Vec<u8>, id: &[u8], query: &ValueQuery, parts: Vec<Part>) {
    let page = merge_value_pages(pages!(parts, Value), query.limit, PAGE_BYTES_MAX);
    let next = page.next.as_deref().map(str::as_bytes);
    reply::keys_page(line, id, page.entries.iter().map(Entry::key), page.total, next);
}

fn encode_scan(line: &mut Vec<u8>, id: &[u8], query: &ScanQuery, parts: Vec<Part>) {
    let shown = Parts { values: query.values, vectors: query.vectors };
    let page = merge_scan_pages(pages!(parts, Scan), query.reverse, shown, query.limit, PAGE_BYTES_MAX);
    let next = page.next.as_deref().map(str::as_bytes);
    let shown = reply::Shown { values: query.values, vectors: query.vectors };
    reply::scan_page(line, id, &page.entries, shown, next);
}

fn encode_vector(line: &mut Vec<u8>, id: &[u8], query: &VectorQuery, parts: Vec<Part>) {
    let prefix = query.prefix.as_deref();
    match merge_vector_pages(pages!(parts, Vector), query.vector.len(), query.top_k, prefix) {
        Ok(hits) => reply::vector_matches(line, id, hits.iter().map(|hit| (hit.entry.key(), hit.score))),
        Err(error) => reply::error(line, id, &error),
    }
}
