//! Scans and searches: a page of results after the other, as they come.

use datastore::connector::{Call, DatastoreConnector, Item, Paged, Pages};
use serde_json::json;
use serde_json::value::RawValue;

use crate::arguments::{self, After};
use crate::export::Record;
use crate::failure::Failure;
use crate::keys::vector_of;
use crate::output::{Format, Output, key_column, note, value_column, vector_column};
use crate::plain_words;
use crate::values::parse_vector;

/// Which words a value is to have.
pub struct Words {
    pub words: Vec<String>,
    pub any: bool,
    pub prefix: Option<String>,
}

/// What a vector is to be similar to.
pub struct Like {
    pub numbers: Vec<String>,
    pub key: Option<String>,
}

pub async fn scan(
    client: &DatastoreConnector,
    scan: arguments::Scan,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut call = scan.after.of(client.scan());
    if let Some(prefix) = &scan.prefix {
        call = call.prefix(prefix);
    }
    if let Some(start) = &scan.start {
        call = call.start(start);
    }
    if let Some(end) = &scan.end {
        call = call.end(end);
    }
    if scan.reverse {
        call = call.reverse();
    }
    if scan.no_values {
        call = call.without_values();
    }
    if scan.vectors {
        call = call.with_vectors();
    }
    let (values, vectors) = (!scan.no_values, scan.vectors);
    let header: Vec<&str> = [("key", true), ("value", values), ("vector", vectors), ("version", true)]
        .iter()
        .filter(|(_, shown)| *shown)
        .map(|(name, _)| *name)
        .collect();
    let row = |item: &Item| {
        let mut row = vec![key_column(&item.key)];
        if values {
            row.push(item.value.as_deref().map(value_column).unwrap_or_default());
        }
        if vectors {
            row.push(item.vector.as_deref().map(vector_column).unwrap_or_default());
        }
        row.push(item.version.clone());
        row
    };
    let print_json = |item: &Item, output: &mut Output| {
        let Item { key, value, version, vector } = item;
        output.json(&Record { key, value: value.as_deref(), vector: vector.as_deref(), version })
    };
    print_pages(limited(call, scan.limit), &header, row, print_json, output).await.map(drop)
}

pub async fn text(
    client: &DatastoreConnector,
    words: Words,
    limit: Option<usize>,
    scores: bool,
    after: &After,
    output: &mut Output,
) -> Result<(), Failure> {
    plain_words::warn(&words.words);
    let mut call = after.of(client.search_text(&words.words.join(" ")));
    if words.any {
        call = call.any();
    }
    if let Some(prefix) = &words.prefix {
        call = call.prefix(prefix);
    }
    let header: &[&str] = if scores { &["key", "score"] } else { &["key"] };
    let pages = print_pages(
        limited(call, limit),
        header,
        |hit| {
            let score = scores.then(|| hit.score.to_string());
            [Some(key_column(&hit.key)), score].into_iter().flatten().collect()
        },
        |hit, output| output.json(&json!({ "key": hit.key, "score": hit.score })),
        output,
    )
    .await?;
    if let Some(some @ 1..) = pages.total_any() {
        let scope = words.prefix.map(|_| " under the prefix").unwrap_or_default();
        note(&format!("no value{scope} has all of these words; --any finds {some} that have some of them"));
    }
    Ok(())
}

pub async fn value(
    client: &DatastoreConnector,
    value: &RawValue,
    prefix: Option<String>,
    limit: Option<usize>,
    after: &After,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut call = after.of(client.search_by_value(value));
    if let Some(prefix) = &prefix {
        call = call.prefix(prefix);
    }
    print_pages(
        limited(call, limit),
        &["key"],
        |key| vec![key_column(key)],
        |key, output| output.json(&json!({ "key": key })),
        output,
    )
    .await
    .map(drop)
}

pub async fn vector(
    client: &DatastoreConnector,
    like: Like,
    top_k: Option<usize>,
    prefix: Option<String>,
    after: &After,
    output: &mut Output,
) -> Result<(), Failure> {
    let vector = match &like.key {
        Some(key) => vector_of(client, key, after).await?,
        None => parse_vector(&like.numbers)?,
    };
    let mut call = after.of(client.vector_search(&vector));
    if let Some(top_k) = top_k {
        call = call.top_k(top_k);
    }
    if let Some(prefix) = &prefix {
        call = call.prefix(prefix);
    }
    let matches = call.await?;
    if output.format == Format::Json {
        return matches
            .iter()
            .try_for_each(|hit| output.json(&json!({ "key": hit.key, "score": hit.score })));
    }
    let rows: Vec<_> = matches.iter().map(|hit| vec![key_column(&hit.key), hit.score.to_string()]).collect();
    output.rows(&["key", "score"], &rows)
}

fn limited<O: Paged>(call: Call<O>, limit: Option<usize>) -> Call<O> {
    match limit {
        Some(limit) => call.limit(limit),
        None => call,
    }
}

/// Prints each page when it comes, so that nothing grows with the result.
async fn print_pages<O: Paged>(
    call: Call<O>,
    header: &[&str],
    row: impl Fn(&O::Item) -> Vec<String>,
    print_json: impl Fn(&O::Item, &mut Output) -> Result<(), Failure>,
    output: &mut Output,
) -> Result<Pages<O>, Failure> {
    let mut pages = call.pages();
    while let Some(items) = pages.next().await? {
        if output.format == Format::Json {
            items.iter().try_for_each(|item| print_json(item, output))?;
        } else if !items.is_empty() {
            output.rows(header, &items.iter().map(&row).collect::<Vec<_>>())?;
        }
        output.flush()?;
    }
    Ok(pages)
}
