//! The node's figures, made readable.

use datastore::connector::DatastoreConnector;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::node::{flattened, print_fields};
use crate::output::{Format, Output, table};

/// The sections of a reply, by name.
pub type Sections = Map<String, Value>;

/// Columns of the table of actors: title and path in an actor's figures.
const ACTOR_COLUMNS: [(&str, &str); 10] = [
    ("actor", "/name"),
    ("depth", "/mailbox/depth"),
    ("depth max", "/mailbox/depth_max"),
    ("enqueued", "/mailbox/enqueued"),
    ("processed", "/mailbox/processed"),
    ("rejected", "/mailbox/rejected"),
    ("wait p50 µs", "/wait_us/p50"),
    ("wait p99 µs", "/wait_us/p99"),
    ("handle p50 µs", "/handle_us/p50"),
    ("handle p99 µs", "/handle_us/p99"),
];

pub async fn print(
    client: &DatastoreConnector,
    section: Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let sections = ask(client, section.as_deref()).await?;
    match output.format {
        Format::Table => output.line(readable(&sections, None).trim_end()),
        _ => print_fields(&Value::Object(sections), output),
    }
}

/// Asks the node for all sections or one.
pub async fn ask(client: &DatastoreConnector, section: Option<&str>) -> Result<Sections, Failure> {
    let call = client.stats();
    let mut sections = match section {
        Some(section) => call.section(section).await?,
        None => call.await?,
    };
    sections.remove("ok");
    Ok(sections)
}

/// Every section under its name; the actors as a table, with counts per second
/// where there are earlier figures to compare with.
pub fn readable(sections: &Sections, rates: Option<&Sections>) -> String {
    let mut text = String::new();
    for (name, section) in sections {
        text.push_str(&format!("{name}\n"));
        match section.as_array().filter(|_| name == "actors") {
            Some(actors) => text.push_str(&format!("{}\n", actor_table(actors, rates))),
            None => text.push_str(&lines(section)),
        }
        text.push('\n');
    }
    text
}

fn lines(section: &Value) -> String {
    let rows = flattened(section);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("  {name:width$}  {value}\n")).collect()
}

/// The actors; `enqueued` and `processed` are per second if `rates` has them.
pub fn actor_table(actors: &[Value], rates: Option<&Sections>) -> String {
    let header: Vec<String> = ACTOR_COLUMNS
        .iter()
        .map(|(title, path)| {
            let per_second = rates.is_some() && rate_name(path).is_some();
            if per_second { format!("{title}/s") } else { title.to_string() }
        })
        .collect();
    let cell = |actor: &Value, path: &str| {
        let name = actor["name"].as_str().unwrap_or_default();
        let rate = rate_name(path)
            .zip(rates)
            .and_then(|(field, rates)| rates.get(&format!("actors.{name}.{field}")));
        match rate.or_else(|| actor.pointer(path)) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    };
    let rows: Vec<Vec<String>> = actors
        .iter()
        .map(|actor| ACTOR_COLUMNS.iter().map(|(_, path)| cell(actor, path)).collect())
        .collect();
    table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

/// The name of a count's rate.
fn rate_name(path: &str) -> Option<&'static str> {
    match path {
        "/mailbox/enqueued" => Some("mailbox.enqueued_per_s"),
        "/mailbox/processed" => Some("mailbox.processed_per_s"),
        _ => None,
    }
}

/// Counts per second between two replies, by the path of their field.
pub fn rates(before: &Sections, now: &Sections, seconds: f64) -> Sections {
    let counts = |sections: &Sections| -> Vec<(String, f64)> {
        let rows = flattened(&Value::Object(sections.clone())).into_iter();
        rows.filter(|(path, _)| is_count(path))
            .filter_map(|(path, value)| Some((path, value.parse().ok()?)))
            .collect()
    };
    let earlier: std::collections::BTreeMap<String, f64> = counts(before).into_iter().collect();
    let mut rates = Sections::new();
    for (path, count) in counts(now) {
        // A node that has started anew counts from zero.
        let gone = earlier.get(&path).filter(|earlier| **earlier <= count).map(|earlier| count - earlier);
        if let Some(gone) = gone.filter(|_| seconds > 0.0) {
            rates.insert(format!("{path}_per_s"), Value::from((gone / seconds).round() as u64));
        }
    }
    rates
}

fn is_count(path: &str) -> bool {
    [".enqueued", ".processed"].iter().any(|end| path.ends_with(end)) || path == "wal.syncs"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sections(enqueued: u64, syncs: u64) -> Sections {
        let value = json!({
            "actors": [{"name": "shard-0", "mailbox": {"enqueued": enqueued, "depth": 1}}],
            "wal": {"syncs": syncs},
        });
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn rates_are_counts_per_second_and_none_after_a_restart() {
        let found = rates(&sections(10, 5), &sections(30, 6), 2.0);
        let wanted = json!({"actors.shard-0.mailbox.enqueued_per_s": 10, "wal.syncs_per_s": 1});
        assert_eq!(Value::Object(found), wanted);
        assert!(rates(&sections(10, 5), &sections(3, 1), 2.0).is_empty());
    }

    #[test]
    fn the_table_of_actors_has_rates_when_there_are_any() {
        let now = sections(30, 6);
        let actors = now["actors"].as_array().unwrap();
        assert!(actor_table(actors, None).contains("enqueued"));
        let found = rates(&sections(10, 5), &now, 2.0);
        let shown = actor_table(actors, Some(&found));
        assert!(shown.contains("enqueued/s") && shown.contains("10"), "{shown}");
    }
}
