//! Commands of single keys and of key lists.

use datastore::connector::{BulkEntry, Copies, DatastoreConnector, Entry};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::arguments::{After, ValueKind, Wanted};
use crate::failure::Failure;
use crate::output::{Format, Output, key_column, value_column, vector_column};
use crate::values::{given_or_stdin, parse_value, parse_vector};

/// When a `set` is to happen.
pub struct Condition {
    pub if_version: Option<String>,
    pub if_absent: bool,
}

/// How a value is printed.
pub struct Shown {
    pub raw: bool,
    pub with_version: bool,
}

/// One key in JSON: its value as it is stored.
#[derive(Serialize)]
struct Record<'a> {
    key: &'a str,
    value: &'a RawValue,
    version: &'a str,
}

pub async fn get(
    client: &DatastoreConnector,
    key: &str,
    r: Option<Copies>,
    after: &After,
    shown: Shown,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut call = after.of(client.get_entry::<Box<RawValue>>(key));
    if let Some(copies) = r {
        call = call.r(copies);
    }
    let Some(Entry { value, version }) = call.await? else {
        return Err(Failure::not_found(format!("`{key}` has no value")));
    };
    if output.format == Format::Json {
        return output.json(&Record { key, value: &value, version: &version });
    }
    let text = match serde_json::from_str::<String>(value.get()) {
        Ok(text) if shown.raw => text,
        _ => value.get().to_string(),
    };
    if shown.with_version { output.line(&format!("{text}\t{version}")) } else { output.line(&text) }
}

pub async fn set(
    client: &DatastoreConnector,
    key: &str,
    value: String,
    kind: ValueKind,
    condition: Condition,
    wanted: Wanted,
    output: &mut Output,
) -> Result<(), Failure> {
    let value = parse_value(&given_or_stdin(value)?, kind)?;
    let mut call = wanted.of(client.set(key, &value));
    if let Some(version) = &condition.if_version {
        call = call.if_version(version);
    }
    if condition.if_absent {
        call = call.if_absent();
    }
    print_version(key, &call.await?, output)
}

fn print_version(key: &str, version: &str, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Json => output.json(&json!({ "key": key, "version": version })),
        _ => output.line(version),
    }
}

pub async fn delete(
    client: &DatastoreConnector,
    keys: &[String],
    if_version: Option<String>,
    wanted: Wanted,
    output: &mut Output,
) -> Result<(), Failure> {
    let deleted = match (keys, if_version) {
        ([key], Some(version)) => u64::from(wanted.of(client.delete(key)).if_version(&version).await?),
        ([key], None) => u64::from(wanted.of(client.delete(key)).await?),
        (_, Some(_)) => return Err(Failure::usage("--if-version is for a single key")),
        (_, None) => wanted.of(client.bulk_delete(keys)).await?,
    };
    match output.format {
        Format::Json => output.json(&json!({ "deleted": deleted }))?,
        _ => output.line(&deleted.to_string())?,
    }
    if deleted == 0 {
        return Err(Failure::not_found("nothing was there to be deleted"));
    }
    Ok(())
}

pub async fn bulk_get(
    client: &DatastoreConnector,
    keys: &[String],
    after: &After,
    output: &mut Output,
) -> Result<(), Failure> {
    let entries = after.of(client.bulk_get(keys)).await?;
    if output.format == Format::Json {
        for entry in &entries {
            print_bulk_entry(entry, output)?;
        }
    } else {
        let row = |entry: &BulkEntry| {
            let value = if entry.found { value_column(&entry.value) } else { String::new() };
            vec![key_column(&entry.key), value]
        };
        output.rows(&["key", "value"], &entries.iter().map(row).collect::<Vec<_>>())?;
    }
    let missing = entries.iter().filter(|entry| !entry.found).count();
    if missing > 0 {
        return Err(Failure::not_found(format!("{missing} of {} keys have no value", entries.len())));
    }
    Ok(())
}

fn print_bulk_entry(entry: &BulkEntry, output: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Found<'a> {
        key: &'a str,
        found: bool,
        value: &'a RawValue,
        version: Option<&'a str>,
    }
    let BulkEntry { key, found, value, version } = entry;
    output.json(&Found { key, found: *found, value, version: version.as_deref() })
}

pub async fn count(
    client: &DatastoreConnector,
    prefix: Option<String>,
    after: &After,
    output: &mut Output,
) -> Result<(), Failure> {
    let call = after.of(client.count());
    let count = match &prefix {
        Some(prefix) => call.prefix(prefix).await?,
        None => call.await?,
    };
    match output.format {
        Format::Json => output.json(&json!({ "count": count })),
        _ => output.line(&count.to_string()),
    }
}

pub async fn add_vector(
    client: &DatastoreConnector,
    key: &str,
    numbers: &[String],
    wanted: Wanted,
    output: &mut Output,
) -> Result<(), Failure> {
    let version = wanted.of(client.add_vector(key, &parse_vector(numbers)?)).await?;
    print_version(key, &version, output)
}

pub async fn get_vector(
    client: &DatastoreConnector,
    key: &str,
    after: &After,
    output: &mut Output,
) -> Result<(), Failure> {
    /// Its numbers as 32-bit floats, which [`serde_json::Value`] has none of.
    #[derive(Serialize)]
    struct Vector<'a> {
        key: &'a str,
        vector: &'a [f32],
    }
    let vector = vector_of(client, key, after).await?;
    match output.format {
        Format::Json => output.json(&Vector { key, vector: &vector }),
        _ => output.line(&vector_column(&vector)),
    }
}

/// The key's vector, which must be there.
pub async fn vector_of(client: &DatastoreConnector, key: &str, after: &After) -> Result<Vec<f32>, Failure> {
    let vector = after.of(client.get_vector(key)).await?;
    vector.ok_or_else(|| Failure::not_found(format!("`{key}` has no vector")))
}
