//! A request after decoding: what is asked for, with its texts as positions
//! ([`Span`]) in the lines that the socket brought, so that decoding allocates
//! nothing for the common operations.
//!
//! The whole lines of one socket read form an *arena*, a copy of just their length. Text that JSON escapes (a key with `\u0041` in it) and the numbers
//! of a vector are appended behind the lines when they are decoded, so that
//! every span points at plain bytes.

use bytes::Bytes;

use crate::engine::Condition;
use crate::error::Error;
use crate::version::Version;

/// A piece of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// Where it begins, in bytes.
    pub start: u32,
    /// How long it is, in bytes.
    pub length: u32,
}

impl Span {
    /// The bytes the span stands for.
    pub fn of<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start as usize..self.start as usize + self.length as usize]
    }

    /// The same bytes, keeping the arena alive.
    pub fn slice(&self, arena: &Bytes) -> Bytes {
        arena.slice(self.start as usize..self.start as usize + self.length as usize)
    }

    /// Whether it stands for nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// All that came in one read: the requests in the order of their lines.
#[derive(Debug)]
pub struct Decoded {
    /// What the spans point into.
    pub arena: Bytes,
    /// One per line that wasn't blank.
    pub requests: Vec<Request>,
}

/// One request line.
#[derive(Debug)]
pub struct Request {
    /// The `id` field's raw JSON (a string with its quotes, an integer or
    /// `null`); empty when the line had none or was too broken to tell.
    pub id: Span,
    /// What is asked for, or why the line is refused.
    pub operation: Result<Operation, Box<Error>>,
    /// What an accepted line asks for beyond its operation. It has a box of its
    /// own, since nearly no line does: it costs the others a word.
    pub asks: Option<Box<Asks>>,
}

/// How many members must have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// So many, 1 to [`MEMBERS_MAX`](crate::limits::MEMBERS_MAX): the cluster may have fewer members.
    Count(usize),
    /// More than half of them.
    Majority,
    /// Every one.
    All,
}

/// What a request asks for beyond its operation, and only dynamo mode knows.
/// The decoder doesn't know the node's mode: whoever does refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Asks {
    /// `w` of a write: how many must have it before it is acknowledged.
    pub copies: Option<Copies>,
    /// `r` of a `get`: how many are asked.
    pub read_copies: Option<Copies>,
    /// `after_version` of a read: it must see at least this write.
    pub after_version: Option<Version>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Not said: the default of the node's role.
    Default,
    /// Sees every write acknowledged anywhere before it.
    Linearizable,
    /// What this node has.
    Local,
    /// At most this old.
    MaxStalenessMs(u64),
}

/// How `search_text` combines its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Every word must occur.
    All,
    /// At least one word must occur.
    Any,
}

/// Which part of what a search finds is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Keys must begin with this.
    pub prefix: Option<Span>,
    /// Items in a page, already capped.
    pub limit: usize,
    /// A cursor of an earlier page.
    pub after: Option<Span>,
}

/// The range of keys a `scan` covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// Keys must begin with this.
    pub prefix: Option<Span>,
    /// The first key, inclusive.
    pub start: Option<Span>,
    /// The key to stop before.
    pub end: Option<Span>,
    /// Descending order.
    pub reverse: bool,
    /// Items in a page, already capped.
    pub limit: usize,
    /// A cursor of an earlier page.
    pub after: Option<Span>,
    /// Whether to give the values.
    pub values: bool,
    /// Whether to give the vectors.
    pub vectors: bool,
}

impl Operation {
    /// How many records or keys it names in a list.
    pub fn records(&self) -> usize {
        match self {
            Operation::BulkSet { records } => records.len(),
            Operation::BulkGet { keys, .. } | Operation::BulkDelete { keys } => keys.len(),
            _ => 0,
        }
    }

    /// What it occupies beside its handle, in bytes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Operation::BulkSet { records } => records.capacity() * size_of::<(Span, Span)>(),
            Operation::BulkGet { keys, .. } | Operation::BulkDelete { keys } => {
                keys.capacity() * size_of::<Span>()
            }
            Operation::Scan { .. } => size_of::<ScanRequest>(),
            Operation::SearchByValue { .. } | Operation::SearchText { .. } => size_of::<PageRequest>(),
            _ => 0,
        }
    }
}

/// Every operation of the protocol; its fields are those of the same name in
/// docs/PROTOCOL.md. Keys, queries and cursors are unescaped
/// UTF-8; values are raw JSON; vectors are little-endian f32s.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the fields are documented once, in docs/PROTOCOL.md
pub enum Operation {
    /// Is anyone there?
    Ping,
    /// Who are you, and what do you speak?
    Hello,
    /// Replaces a key's value.
    Set { key: Span, value: Span, condition: Condition },
    /// Reads a key's value.
    Get { key: Span, consistency: Consistency },
    /// Removes a key's value and vector.
    Delete { key: Span, condition: Condition },
    /// Replaces several keys' values, all or nothing. `(key, value)` each.
    BulkSet { records: Vec<(Span, Span)> },
    /// Reads several keys' values.
    BulkGet { keys: Vec<Span>, consistency: Consistency },
    /// Removes several keys, all or nothing.
    BulkDelete { keys: Vec<Span> },
    /// Keys whose value equals this one.
    SearchByValue { value: Span, page: Box<PageRequest>, consistency: Consistency },
    /// Keys whose value's strings hold these words, best first.
    SearchText { query: Span, matching: Match, page: Box<PageRequest>, consistency: Consistency },
    /// Replaces a key's vector.
    AddVector { key: Span, vector: Span, condition: Condition },
    /// Reads a key's vector.
    GetVector { key: Span, consistency: Consistency },
    /// The nearest vectors by cosine similarity.
    VectorSearch { vector: Span, top_k: usize, prefix: Option<Span>, consistency: Consistency },
    /// A range of keys in order.
    Scan { range: Box<ScanRequest>, consistency: Consistency },
    /// How many keys there are.
    Count { prefix: Option<Span>, consistency: Consistency },
    /// The node's figures; a section's name narrows them.
    Stats { section: Option<Span> },
    /// The members and who leads.
    Cluster,
    /// Hands leadership over; to the node asked where none is named.
    Promote { node_id: Option<u64>, force: bool },
    /// Adds a node, which listens at this address.
    AddMember { node_id: u64, host: Span, port: u16 },
    /// Removes a node.
    RemoveMember { node_id: u64 },
    /// Makes a snapshot now.
    Snapshot,
    /// Dynamo mode: lost races.
    Conflicts { limit: usize, after: Option<Span> },
    /// Dynamo mode: removes a node for good.
    Evict { node_id: u64 },
}
