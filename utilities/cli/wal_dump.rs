//! `wal dump`: every write that a stopped node's log has.

use std::ops::RangeInclusive;
use std::path::Path;

use datastore::engine::{Effect, Requests, Version};
use datastore::persistence::{RecoveredEntry, inspect_log};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::output::{Format, Output, key_column, value_column, vector_column};
use crate::wal::{Directory, log_failure};

/// Which writes to print.
pub struct Wanted {
    pub indexes: RangeInclusive<u64>,
    pub key: Option<String>,
}

/// A write in JSON; `version` is that of the key behind it.
#[derive(Serialize)]
struct Write<'a> {
    index: u64,
    term: u64,
    version: String,
    op: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

pub fn dump(path: &Path, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    let directory = Directory::open(path)?;
    let mut failure = None;
    let inspected = inspect_log(&directory.disk, directory.identity.node, &mut |entry| {
        dump_entry(&entry, wanted, output).map_err(|failed| {
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

fn dump_entry(entry: &RecoveredEntry<'_>, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    if !wanted.indexes.contains(&entry.index) {
        return Ok(());
    }
    for request in Requests::new(entry.payload) {
        let (ordinal, effect) =
            request.map_err(|error| Failure::damaged(format!("entry {}: {error}", entry.index)))?;
        if wanted.key.as_ref().is_none_or(|key| key.as_bytes() == effect.key()) {
            print(&write(entry, ordinal, &effect)?, output)?;
        }
    }
    Ok(())
}

fn write<'a>(entry: &RecoveredEntry<'_>, ordinal: u32, effect: &Effect<'a>) -> Result<Write<'a>, Failure> {
    let damaged = |what: &str| Failure::damaged(format!("entry {}: {what}", entry.index));
    let key = std::str::from_utf8(effect.key()).map_err(|_| damaged("a key is not UTF-8"))?;
    let (op, value, vector) = match effect {
        Effect::Delete { .. } => ("delete", None, None),
        Effect::Set { value, .. } => {
            let value = serde_json::from_slice(value).map_err(|_| damaged("a value is not JSON"))?;
            ("set", Some(value), None)
        }
        Effect::AddVector { vector, .. } => {
            let (numbers, _) = vector.as_chunks::<4>();
            ("add_vector", None, Some(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
        }
    };
    let version = Version { index: entry.index, ordinal }.to_string();
    Ok(Write { index: entry.index, term: entry.term, version, op, key, value, vector })
}

fn print(write: &Write<'_>, output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return output.json(write);
    }
    // Lines on a terminal, too: a table would have to be held until its last row is known.
    let what = match (write.value, &write.vector) {
        (Some(value), _) => value_column(value),
        (None, Some(vector)) => vector_column(vector),
        (None, None) => String::new(),
    };
    let Write { index, term, version, op, key, .. } = write;
    output.line(&format!("{index}\t{term}\t{version}\t{op}\t{}\t{what}", key_column(key)))
}
