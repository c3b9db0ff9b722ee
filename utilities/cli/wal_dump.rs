//! `wal dump`: every write that a stopped node's log has, and what it has beside them.

use std::ops::RangeInclusive;
use std::path::Path;

use datastore::engine::{Effect, Requests, Version};
use datastore::persistence::{RecoveredEntry, inspect_log};
use datastore::replication::dynamo::Row;
use datastore::replication::message::EntryKind;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::output::{Format, Output, key_column, value_column, vector_column};
use crate::wal::{Directory, log_failure};
use crate::wal_converging;

/// Which entries to print.
pub struct Wanted {
    pub indexes: RangeInclusive<u64>,
    /// What is about no key isn't printed either.
    pub key: Option<String>,
}

impl Wanted {
    pub fn takes(&self, key: &[u8]) -> bool {
        self.key.as_ref().is_none_or(|wanted| wanted.as_bytes() == key)
    }
}

/// A line of the dump.
#[derive(Serialize)]
pub struct Line<'a> {
    pub index: u64,
    #[serde(flatten)]
    pub source: Source,
    /// Of a write: that of the key behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    #[serde(flatten)]
    pub content: Content<'a>,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Source {
    Leader {
        term: u64,
    },
    Stream {
        origin: u32,
        sequence: u64,
    },
    /// Of dynamo mode: the node itself, which tells it to nobody.
    Own {},
}

/// What a line is about, beside the key.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Content<'a> {
    Nothing {},
    Value { value: &'a RawValue },
    Vector { vector: Vec<f32> },
    Members { members: &'a RawValue },
    States { keys: u64, streams: &'a [Row] },
    Forgotten { parts: u64 },
    Seen { streams: &'a [Row] },
}

/// Where lines go.
pub type Print<'a> = dyn FnMut(&Line<'_>) -> Result<(), Failure> + 'a;

pub fn dump(path: &Path, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    let directory = Directory::open(path)?;
    let mut failure = None;
    let inspected = inspect_log(&directory.disk, directory.identity.node, &mut |entry| {
        dump_entry(&entry, wanted, &mut |line| print(line, output)).map_err(|failed| {
            // The log passes on words alone; the failure is more.
            let words = failed.message.clone();
            failure = Some(failed);
            words.into()
        })
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    let log = inspected.map_err(|error| log_failure(path, &error))?;
    let damages: Vec<String> = log.damages().map(ToString::to_string).collect();
    if damages.is_empty() {
        return Ok(());
    }
    Err(Failure::damaged(format!("{}: {}", path.display(), damages.join("; "))))
}

/// The failure of an entry whose checksum is right and whose bytes are not.
pub fn damaged(index: u64, what: impl std::fmt::Display) -> Failure {
    Failure::damaged(format!("entry {index}: {what}"))
}

fn dump_entry(entry: &RecoveredEntry<'_>, wanted: &Wanted, print: &mut Print<'_>) -> Result<(), Failure> {
    if !wanted.indexes.contains(&entry.index) {
        return Ok(());
    }
    let index = entry.index;
    let source = Source::Leader { term: entry.term };
    match EntryKind::from_byte(entry.kind) {
        Some(EntryKind::Writes) => {
            let version = |ordinal| Some(Version { index, ordinal });
            writes(index, source, entry.payload, &version, wanted, print)
        }
        Some(EntryKind::Members) if wanted.key.is_none() => {
            let content = members(index, entry.payload)?;
            print(&Line { index, source, version: None, op: "members", key: None, content })
        }
        // A leader's first entry has nothing in it.
        Some(EntryKind::Members | EntryKind::Empty) => Ok(()),
        Some(EntryKind::Converging) => wal_converging::dump_entry(index, entry.payload, wanted, print),
        None => Err(damaged(index, "its kind is none of this version's")),
    }
}

/// Every write of encoded requests; `version` is `None` for a request that can't have one.
pub fn writes(
    index: u64,
    source: Source,
    requests: &[u8],
    version: &dyn Fn(u32) -> Option<Version>,
    wanted: &Wanted,
    print: &mut Print<'_>,
) -> Result<(), Failure> {
    for request in Requests::new(requests) {
        let (ordinal, effect) = request.map_err(|error| damaged(index, error))?;
        let version = version(ordinal).ok_or_else(|| damaged(index, "it has more requests than it says"))?;
        if wanted.takes(effect.key()) {
            print(&write(index, source, version, &effect)?)?;
        }
    }
    Ok(())
}

/// Members of either mode: they are JSON.
pub fn members(index: u64, body: &[u8]) -> Result<Content<'_>, Failure> {
    let members = serde_json::from_slice(body).map_err(|_| damaged(index, "its members are not JSON"))?;
    Ok(Content::Members { members })
}

fn write<'a>(index: u64, source: Source, version: Version, effect: &Effect<'a>) -> Result<Line<'a>, Failure> {
    let key = std::str::from_utf8(effect.key()).map_err(|_| damaged(index, "a key is not UTF-8"))?;
    let (op, content) = match effect {
        Effect::Delete { .. } => ("delete", Content::Nothing {}),
        Effect::Set { value, .. } => {
            let value = serde_json::from_slice(value).map_err(|_| damaged(index, "a value is not JSON"))?;
            ("set", Content::Value { value })
        }
        Effect::AddVector { vector, .. } => {
            let (numbers, _) = vector.as_chunks::<4>();
            let vector = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            ("add_vector", Content::Vector { vector })
        }
    };
    Ok(Line { index, source, version: Some(version.to_string()), op, key: Some(key), content })
}

fn print(line: &Line<'_>, output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return output.json(line);
    }
    // Lines on a terminal, too: a table would have to be held until its last row is known.
    output.line(&line.columns())
}

impl Line<'_> {
    /// With tabs between them. In a log of dynamo mode all lines have the same, as in one of leader mode.
    pub fn columns(&self) -> String {
        let source = match self.source {
            Source::Leader { term } => term.to_string(),
            Source::Stream { origin, sequence } => format!("{origin}\t{sequence}"),
            Source::Own {} => "\t".to_string(),
        };
        let what = match &self.content {
            Content::Nothing {} => String::new(),
            Content::Value { value: json } | Content::Members { members: json } => value_column(json),
            Content::Vector { vector } => vector_column(vector),
            Content::States { keys, .. } => format!("{keys} keys"),
            Content::Forgotten { parts } => format!("{parts} parts"),
            Content::Seen { streams } => serde_json::to_string(streams).unwrap_or_default(),
        };
        let version = self.version.as_deref().unwrap_or_default();
        let key = self.key.map(key_column).unwrap_or_default();
        format!("{}\t{source}\t{version}\t{}\t{key}\t{what}", self.index, self.op)
    }
}

#[cfg(test)]
mod tests {
    use datastore::persistence::Configuration;

    use super::*;

    #[test]
    fn what_a_clusters_log_has_beside_writes_is_no_damage() {
        let payload = Configuration::founding(Vec::new(), 1).encode();
        let dumped = |kind: u8, payload: &[u8], key: Option<&str>| {
            let wanted = Wanted { indexes: 0..=9, key: key.map(String::from) };
            let mut lines = Vec::new();
            let entry = RecoveredEntry { index: 5, term: 2, kind, payload };
            dump_entry(&entry, &wanted, &mut |line| {
                lines.push(line.columns());
                Ok(())
            })?;
            Ok::<_, Failure>(lines)
        };
        let members = dumped(EntryKind::Members.to_byte(), &payload, None).unwrap();
        assert_eq!(members, [format!("5\t2\t\tmembers\t\t{}", String::from_utf8_lossy(&payload))]);
        assert!(dumped(EntryKind::Members.to_byte(), &payload, Some("k")).unwrap().is_empty());
        assert!(dumped(EntryKind::Empty.to_byte(), b"", None).unwrap().is_empty());
        assert!(dumped(77, b"", None).unwrap_err().message.contains("entry 5"));
    }
}
