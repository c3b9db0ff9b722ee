//! `conflicts`: the races that were lost, the newest first (dynamo mode).

use datastore::connector::{DatastoreConnector, Request};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::output::{Format, Output, key_column, value_column};

const COLUMNS: [&str; 6] = ["key", "winner", "won", "loser", "lost", "seen_at"];

#[derive(Deserialize)]
struct Page {
    conflicts: Vec<Conflict>,
    next: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Conflict {
    key: String,
    winner: Side,
    loser: Side,
    seen_at: u64,
}

/// One of value, vector and deleted. The first two stay as they came, as everywhere.
#[derive(Deserialize, Serialize)]
struct Side {
    version: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    vector: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
}

/// A field that is there has a value: null is one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Follows the cursor as far as `limit`, and then says where to go on.
pub async fn print(
    client: &DatastoreConnector,
    limit: Option<u64>,
    after: Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let (mut wanted, mut cursor) = (limit, after);
    loop {
        let page = ask(client, wanted, cursor.as_deref()).await?;
        print_page(&page.conflicts, output)?;
        // What is shown so far stands before what is said on stderr.
        output.flush()?;
        wanted = wanted.map(|wanted| wanted.saturating_sub(page.conflicts.len() as u64));
        match page.next {
            None => return Ok(()),
            Some(next) if wanted == Some(0) => {
                say_next(&next, output.format);
                return Ok(());
            }
            Some(next) => cursor = Some(next),
        }
    }
}

async fn ask(client: &DatastoreConnector, limit: Option<u64>, after: Option<&str>) -> Result<Page, Failure> {
    let mut request = Request::new("conflicts");
    if let Some(limit) = limit {
        request = request.with("limit", limit);
    }
    if let Some(after) = after {
        request = request.with("after", after);
    }
    Ok(client.send(request).await?.fields()?)
}

fn print_page(conflicts: &[Conflict], output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return conflicts.iter().try_for_each(|conflict| output.json(conflict));
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    output.rows(&COLUMNS, &conflicts.iter().map(columns).collect::<Vec<_>>())
}

/// On stderr: on stdout there are conflicts alone.
fn say_next(next: &str, format: Format) {
    match format {
        Format::Json => eprintln!("{}", json!({ "next": next })),
        _ => eprintln!("there are more: --after {next}"),
    }
}

fn columns(conflict: &Conflict) -> Vec<String> {
    let Conflict { key, winner, loser, seen_at } = conflict;
    let side = |side: &Side| [side.version.clone(), side.content()];
    let mut columns = vec![key_column(key)];
    columns.extend([side(winner), side(loser)].concat());
    columns.push(seen_at.to_string());
    columns
}

impl Side {
    /// A value is JSON; no JSON begins like the other two.
    fn content(&self) -> String {
        match (&self.value, &self.vector) {
            (Some(value), _) => value_column(value),
            (None, Some(vector)) => format!("vector {}", value_column(vector)),
            (None, None) => "deleted".to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_race_is_a_row_that_says_what_each_side_wrote() {
        let loser = r#"{"version":"8.7","deleted":true}"#;
        let cases = [
            (r#"{"version":"9.7","value":{"x": 1.50}}"#, r#"a|9.7|{"x": 1.50}|8.7|deleted|77"#),
            (r#"{"version":"9.7","value":null}"#, "a|9.7|null|8.7|deleted|77"),
            (r#"{"version":"9.7","vector":[1.5]}"#, "a|9.7|vector [1.5]|8.7|deleted|77"),
        ];
        for (winner, expected) in cases {
            let reply = format!(r#"{{"key":"a","winner":{winner},"loser":{loser},"seen_at":77}}"#);
            let conflict: Conflict = serde_json::from_str(&reply).unwrap();
            assert_eq!(columns(&conflict).join("|"), expected);
            assert_eq!(serde_json::to_string(&conflict).unwrap(), reply, "JSON has it as it came");
        }
    }
}
