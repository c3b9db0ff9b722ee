//! `export`: every record as a JSON line, to a file that is whole or absent.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use datastore::connector::{DatastoreConnector, Item};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::node::print_fields;
use crate::output::Output;

/// A record as `import` reads it, and an item of a scan in JSON.
#[derive(Serialize)]
pub struct Record<'a> {
    pub key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector: Option<&'a [f32]>,
    pub version: &'a str,
}

pub async fn export(
    client: &DatastoreConnector,
    file: &Path,
    prefix: Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let prefix = prefix.as_deref();
    if file.as_os_str() == "-" {
        let write = |error: io::Error| Failure::from(error);
        let mut stdout = BufWriter::new(io::stdout());
        write_records(client, prefix, &mut stdout, &write).await?;
        return Ok(stdout.flush()?);
    }
    let failed = |error: io::Error| Failure::file(file, error);
    if file.exists() && !file.is_file() {
        return Err(Failure::file(file, "not a regular file; - writes to stdout"));
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = BufWriter::new(tempfile::NamedTempFile::new_in(directory).map_err(failed)?);
    let records = write_records(client, prefix, &mut temporary, &failed).await?;
    let temporary = temporary.into_inner().map_err(|error| failed(error.into_error()))?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(file).map_err(|error| failed(error.error))?;
    print_fields(&json!({ "records": records }), output)
}

/// Writes the records in the order of their keys; gives how many.
async fn write_records(
    client: &DatastoreConnector,
    prefix: Option<&str>,
    out: &mut impl Write,
    failed: &(impl Fn(io::Error) -> Failure + Sync),
) -> Result<u64, Failure> {
    let mut call = client.scan().with_vectors();
    let mut count = client.count();
    if let Some(prefix) = prefix {
        call = call.prefix(prefix);
        count = count.prefix(prefix);
    }
    let bar = bar(count.await?);
    let mut pages = call.pages();
    let mut records = 0;
    while let Some(items) = pages.next().await? {
        let without_value = keys_without_value(client, &items).await?;
        for item in &items {
            let Item { key, value, version, vector } = item;
            let value = value.as_deref().filter(|_| !without_value.contains(key));
            let record = Record { key, value, vector: vector.as_deref(), version };
            serde_json::to_writer(&mut *out, &record).map_err(|error| failed(error.into()))?;
            out.write_all(b"\n").map_err(failed)?;
        }
        records += items.len() as u64;
        bar.set_position(records);
    }
    bar.finish_and_clear();
    Ok(records)
}

/// A scan shows `null` for a key that has only a vector, and for one whose value
/// is `null`: where there is a vector, `bulk_get` tells them apart.
async fn keys_without_value(
    client: &DatastoreConnector,
    items: &[Item],
) -> Result<BTreeSet<String>, Failure> {
    let is_null = |item: &&Item| item.value.as_deref().is_some_and(|value| value.get() == "null");
    let unclear: Vec<&str> =
        items.iter().filter(|item| item.vector.is_some()).filter(is_null).map(|item| &*item.key).collect();
    if unclear.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = client.bulk_get(unclear).await?;
    Ok(found.into_iter().filter(|entry| !entry.found).map(|entry| entry.key).collect())
}

/// On stderr, where that is a terminal.
fn bar(records: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(records);
    if let Ok(style) =
        ProgressStyle::with_template("{human_pos} of {human_len} records {wide_bar} {per_sec} {eta}")
    {
        bar.set_style(style);
    }
    bar
}
