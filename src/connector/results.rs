//! What calls give back, and the values that they take.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// A key's value and version.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Changes at every write of the key; compare for equality only.
    pub version: String,
}

/// What `bulk_get` found for one key.
#[derive(Debug, Deserialize)]
pub struct BulkEntry {
    /// The key that was asked for.
    pub key: String,
    /// Whether it has a value.
    pub found: bool,
    /// The value's text as it was written; `null` when there is none.
    pub value: Box<RawValue>,
    /// `None` when there is no such key.
    pub version: Option<String>,
}

/// What `bulk_set` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BulkWritten {
    /// Records sent.
    pub count: u64,
    /// The version that all its keys have now; `None` when there was no record.
    pub version: Option<String>,
}

/// A hit of `search_text`.
#[derive(Clone, Debug, PartialEq)]
pub struct TextMatch {
    /// The key whose value has the words.
    pub key: String,
    /// BM25, higher is better.
    pub score: f64,
}

/// A hit of `vector_search`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct VectorMatch {
    /// The key of the vector.
    pub key: String,
    /// Cosine similarity, −1 to 1.
    pub score: f64,
}

/// An item of a `scan`.
#[derive(Debug, Deserialize)]
pub struct Item {
    /// The key.
    pub key: String,
    /// The value's text as it was written; `null` for a key that has only a
    /// vector, `None` where values were not asked for.
    #[serde(default, deserialize_with = "raw")]
    pub value: Option<Box<RawValue>>,
    /// The key's version.
    pub version: String,
    /// The vector, where vectors were asked for and the key has one.
    pub vector: Option<Vec<f32>>,
}

/// Keeps `null` as a value: an absent field is the `None`.
fn raw<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// What `snapshot` made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SnapshotMade {
    /// The log entry it stands behind.
    pub index: u64,
    /// Its size on the disk.
    pub bytes: u64,
    /// How long it took.
    pub took_ms: u64,
}

/// How many members must have it (dynamo mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// So many, at least 1.
    Count(usize),
    /// More than half of them.
    Majority,
    /// Every one.
    All,
}

impl Serialize for Copies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Copies::Count(count) => count.serialize(serializer),
            Copies::Majority => serializer.serialize_str("majority"),
            Copies::All => serializer.serialize_str("all"),
        }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// As if there were one copy. A primary's default.
    Linearizable,
    /// What the node asked has. A replica's default.
    Local,
    /// At most this old; else `too_stale`.
    MaxStalenessMs(u64),
}

impl Serialize for Consistency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Consistency::Linearizable => serializer.serialize_str("linearizable"),
            Consistency::Local => serializer.serialize_str("local"),
            Consistency::MaxStalenessMs(max) => {
                serde_json::json!({ "max_staleness_ms": max }).serialize(serializer)
            }
        }
    }
}
