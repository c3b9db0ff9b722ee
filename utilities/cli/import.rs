//! `import`: JSON lines into the node, batch by batch.
//!
//! ```text
//! lines ─► batch ─► bulk_set, then add_vector pipelined ─► acknowledged ─► progress file
//! ```
//!
//! Batches are sent one after the other, so that "all before this line, nothing
//! behind it" is true wherever it stops. A batch that the node refuses for what
//! is in it is sent once more record by record, to find the line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use datastore::connector::{DatastoreConnector, Error};
use datastore::error::Code;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::file_arguments::{Import, OnError};
use crate::import_lines::{Lines, Place, Record};
use crate::import_progress::{Input, Progress, ProgressFile};
use crate::node::print_fields;
use crate::output::Output;

/// Records sent at once.
const BATCH_RECORDS: usize = 1_000;
/// Bytes of lines after which a batch is sent.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// How often a batch that the node can't take now is sent again.
const RETRIES_MAX: u32 = 50;
/// How long to wait before that, where the node doesn't say.
const RETRY_AFTER_MS: u64 = 100;

/// Refusals of what is in a request, and not of the moment.
const REFUSALS_OF_CONTENT: [Code; 7] = [
    Code::ParseError,
    Code::LineTooLong,
    Code::BadRequest,
    Code::KeyTooLarge,
    Code::ValueTooLarge,
    Code::BatchTooLarge,
    Code::BadVector,
];

/// Records of consecutive lines, each with its line's number.
#[derive(Default)]
struct Batch {
    records: Vec<(u64, Record)>,
    bytes: usize,
}

/// An import under way.
struct Importer<'a> {
    client: &'a DatastoreConnector,
    name: String,
    on_error: OnError,
    /// Where to keep how far it is; none for stdin.
    kept: Option<ProgressFile>,
    progress: Progress,
    bar: ProgressBar,
    json: bool,
}

pub async fn import(
    client: &DatastoreConnector,
    options: Import,
    output: &mut Output,
) -> Result<(), Failure> {
    let json = output.format == crate::output::Format::Json;
    let progress = if options.file.as_os_str() == "-" {
        let mut importer = Importer {
            client,
            name: "stdin".to_string(),
            on_error: options.on_error,
            kept: None,
            progress: Progress::new(client.address(), Input::default()),
            bar: bar(0),
            json,
        };
        importer.run(BufReader::new(io::stdin()), Place::default()).await?;
        importer.progress
    } else {
        import_file(client, options, json).await?
    };
    print_fields(&json!({ "records": progress.records, "skipped": progress.skipped }), output)?;
    output.flush()?;
    match progress.skipped {
        0 => Ok(()),
        skipped => {
            Err(Failure::skipped(format!("{skipped} lines were left out, {} imported", progress.records)))
        }
    }
}

async fn import_file(client: &DatastoreConnector, options: Import, json: bool) -> Result<Progress, Failure> {
    let path = options.file;
    let failed = |error: io::Error| Failure::file(&path, error);
    let mut file = File::open(&path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Failure::file(&path, "not a regular file; - reads a stream from stdin"));
    }
    let fresh = Progress::new(client.address(), Input::of(&file).map_err(failed)?);
    let kept = ProgressFile::new(&path, options.state);
    let earlier = if options.restart { None } else { kept.load(&fresh)? };
    if let Some(earlier) = &earlier {
        eprintln!("resuming at line {}", earlier.place().line + 1);
    }
    let progress = earlier.unwrap_or(fresh);
    let place = progress.place();
    file.seek(SeekFrom::Start(place.offset)).map_err(failed)?;
    let bar = bar(file.metadata().map_err(failed)?.len());
    let name = path.display().to_string();
    let mut importer =
        Importer { client, name, on_error: options.on_error, kept: Some(kept), progress, bar, json };
    importer.run(BufReader::new(file), place).await.map_err(|failure| importer.with_advice(failure))?;
    if let Some(kept) = &importer.kept {
        kept.remove()?;
    }
    Ok(importer.progress)
}

/// On stderr, where that is a terminal.
fn bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    if let Ok(style) =
        ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    bar
}

impl Importer<'_> {
    async fn run(&mut self, input: impl BufRead, place: Place) -> Result<(), Failure> {
        let mut lines = Lines::new(input, place);
        let mut batch = Batch::default();
        loop {
            let before = lines.place();
            let line = lines.next_line().map_err(|error| Failure::file(Path::new(&self.name), error))?;
            let Some(line) = line else { break };
            let number = lines.place().line;
            match line.and_then(|line| parsed(&line, &mut batch.bytes)) {
                Ok(Some(record)) => batch.records.push((number, record)),
                Ok(None) => {}
                Err(reason) => {
                    // What stands before the line is done before the line is told.
                    self.send(&mut batch, before).await?;
                    self.broken(Failure::broken_line(format!("{}:{number}: {reason}", self.name)))?;
                }
            }
            if batch.records.len() >= BATCH_RECORDS || batch.bytes >= BATCH_BYTES {
                self.send(&mut batch, lines.place()).await?;
            }
        }
        self.send(&mut batch, lines.place()).await?;
        self.bar.finish_and_clear();
        Ok(())
    }

    /// A line that can't be imported: the end, or one more that is left out.
    fn broken(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.on_error == OnError::Stop {
            return Err(failure);
        }
        self.progress.skipped += 1;
        self.bar.suspend(|| failure.say(self.json));
        Ok(())
    }

    /// Sends a batch and remembers that all before `place` is done.
    async fn send(&mut self, batch: &mut Batch, place: Place) -> Result<(), Failure> {
        let Batch { records, .. } = std::mem::take(batch);
        match self.write(&records).await {
            Ok(()) => self.progress.records += records.len() as u64,
            Err(error) if is_about_content(&error) => self.write_one_by_one(&records).await?,
            Err(error) => return Err(error.into()),
        }
        self.done(place)
    }

    fn done(&mut self, place: Place) -> Result<(), Failure> {
        self.progress.set_place(place);
        self.bar.set_position(place.offset);
        match &self.kept {
            Some(kept) => kept.store(&self.progress),
            None => Ok(()),
        }
    }

    async fn write_one_by_one(&mut self, records: &[(u64, Record)]) -> Result<(), Failure> {
        for record in records {
            match self.write_single(record).await {
                Ok(()) => self.progress.records += 1,
                Err(error) if is_about_content(&error) => {
                    let named = |message: &str| format!("{}:{}: {message}", self.name, record.0);
                    self.broken(Failure::from(error).with_message(named))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A bulk holds a value two levels deeper than a `set`, and so takes less of it.
    async fn write_single(&self, (_, record): &(u64, Record)) -> Result<(), Error> {
        if let Some(value) = &record.value {
            retrying(|| async { self.client.set(&record.key, value).await.map(drop) }).await?;
        }
        if let Some(vector) = &record.vector {
            retrying(|| async { self.client.add_vector(&record.key, vector).await.map(drop) }).await?;
        }
        Ok(())
    }

    async fn write(&self, records: &[(u64, Record)]) -> Result<(), Error> {
        let values = || records.iter().filter_map(|(_, record)| Some((&record.key, record.value.as_ref()?)));
        if values().next().is_some() {
            retrying(|| async { self.client.bulk_set(values()).await.map(drop) }).await?;
        }
        let vectors: Vec<(&str, &[f32])> = records
            .iter()
            .filter_map(|(_, record)| Some((&*record.key, record.vector.as_deref()?)))
            .collect();
        let mut written = 0;
        let mut retries = 0;
        while written < vectors.len() {
            let calls = vectors[written..].iter().map(|(key, vector)| self.client.add_vector(key, vector));
            let results = self.client.pipeline(calls).await;
            // Sent again from the first that failed on, so that of two vectors of one key the later one stays.
            let Some((place, Err(error))) =
                results.into_iter().enumerate().find(|(_, result)| result.is_err())
            else {
                break;
            };
            written += place;
            wait_for_retry(error, &mut retries).await?;
        }
        Ok(())
    }

    /// How to go on, where the same command would.
    fn with_advice(&self, failure: Failure) -> Failure {
        self.bar.abandon();
        let advice = match failure.exit {
            Exit::LocalFile | Exit::Refused => {
                "; nothing behind it is imported: correct it and import with --restart, \
                 or leave it out with --on-error skip"
                    .to_string()
            }
            _ => format!("; the same command goes on at line {}", self.progress.place().line + 1),
        };
        failure.with_message(|message| format!("{message}{advice}"))
    }
}

/// The record of a line, none for a blank one; counts its bytes.
fn parsed(line: &[u8], bytes: &mut usize) -> Result<Option<Record>, String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    *bytes += line.len();
    Record::parse(line).map(Some)
}

fn is_about_content(error: &Error) -> bool {
    error.code().is_some_and(|code| REFUSALS_OF_CONTENT.contains(&code))
}

/// Makes a call again as long as the node says that it may succeed later.
async fn retrying<F: Future<Output = Result<(), Error>>>(call: impl Fn() -> F) -> Result<(), Error> {
    let mut retries = 0;
    loop {
        match call().await {
            Ok(()) => return Ok(()),
            Err(error) => wait_for_retry(error, &mut retries).await?,
        }
    }
}

/// Waits until the call may be made again; gives the error back when it may not.
async fn wait_for_retry(error: Error, retries: &mut u32) -> Result<(), Error> {
    if !error.retryable || !error.is_from_node() || *retries >= RETRIES_MAX {
        return Err(error);
    }
    *retries += 1;
    let wait_ms = error.details.get("retry_after_ms").and_then(serde_json::Value::as_u64);
    tokio::time::sleep(Duration::from_millis(wait_ms.unwrap_or(RETRY_AFTER_MS))).await;
    Ok(())
}
