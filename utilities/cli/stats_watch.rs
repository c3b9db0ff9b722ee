//! `stats --watch`: the figures again and again, over restarts of the node.

use std::time::{Duration, Instant};

use console::Term;
use datastore::connector::DatastoreConnector;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::node::flattened;
use crate::output::{Format, Output};
use crate::stats::{Sections, actor_table, ask, rates, readable};

/// The terminal's cursor, hidden as long as this lives.
struct HiddenCursor(Term);

impl HiddenCursor {
    fn new() -> HiddenCursor {
        let term = Term::stdout();
        // A terminal that can't hide it shows it.
        term.hide_cursor().ok();
        HiddenCursor(term)
    }
}

impl Drop for HiddenCursor {
    fn drop(&mut self) {
        self.0.show_cursor().ok();
    }
}

/// Figures and when they were asked for.
struct Sample {
    at: Instant,
    sections: Sections,
}

pub async fn watch(
    client: &DatastoreConnector,
    section: Option<String>,
    interval: Duration,
    output: &mut Output,
) -> Result<(), Failure> {
    let screen = (output.format == Format::Table && Term::stdout().is_term()).then(HiddenCursor::new);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut before: Option<Sample> = None;
    loop {
        ticks.tick().await;
        let at = Instant::now();
        match ask(client, section.as_deref()).await {
            Ok(sections) => {
                let rates = before
                    .as_ref()
                    .map(|before| rates(&before.sections, &sections, (at - before.at).as_secs_f64()))
                    .unwrap_or_default();
                print(&sections, &rates, section.is_some(), screen.as_ref(), output)?;
                before = Some(Sample { at, sections });
            }
            // It may come back; anything else is wrong for ever.
            Err(failure) if failure.exit == Exit::NoConnection => {
                before = None;
                match &screen {
                    Some(HiddenCursor(term)) => show(term, &format!("no connection: {}", failure.message))?,
                    None => failure.say(output.format == Format::Json),
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// One block: a screen, or lines and an empty one, or a line of JSON.
fn print(
    sections: &Sections,
    rates: &Sections,
    narrowed: bool,
    screen: Option<&HiddenCursor>,
    output: &mut Output,
) -> Result<(), Failure> {
    let shown =
        |narrowed: bool| if narrowed { readable(sections, Some(rates)) } else { summary(sections, rates) };
    match (output.format, screen) {
        (_, Some(HiddenCursor(term))) => return show(term, &shown(narrowed)),
        (Format::Table, None) => output.line(&shown(narrowed))?,
        (Format::Plain, None) => {
            for (name, value) in flattened(&Value::Object(sections.clone())) {
                output.line(&format!("{name}\t{value}"))?;
            }
            for (name, value) in rates {
                output.line(&format!("{name}\t{value}"))?;
            }
            output.line("")?;
        }
        (Format::Json, None) => {
            let mut object = sections.clone();
            object.insert("rates".to_string(), json!(rates));
            output.json(&object)?;
        }
    }
    output.flush()
}

fn show(term: &Term, text: &str) -> Result<(), Failure> {
    // What doesn't fit the screen would scroll it, and the next block would be drawn below.
    let rows = term.size_checked().map_or(0, |(rows, _)| usize::from(rows));
    let fitting: Vec<&str> = text.lines().take(if rows > 1 { rows - 1 } else { usize::MAX }).collect();
    term.clear_screen()?;
    Ok(term.write_line(&fitting.join("\n"))?)
}

/// What a person watches: the log, keys, memory, and every actor's mailbox.
fn summary(sections: &Sections, rates: &Sections) -> String {
    let at = |path: &str| match Value::Object(sections.clone()).pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "–".to_string(),
    };
    let syncs = rates.get("wal.syncs_per_s").map_or_else(|| "–".to_string(), Value::to_string);
    let mebibytes = |path: &str| match at(path).parse::<u64>() {
        Ok(bytes) => format!("{} MiB", bytes >> 20),
        Err(_) => "–".to_string(),
    };
    let mut text = format!(
        "node    up {} ms, {} shards, disk full: {}\n\
         keys    {}\n\
         memory  {} used, {} resident\n\
         log     {syncs} syncs/s, sync p50 {} µs, p99 {} µs, {} sync failures\n",
        at("/node/uptime_ms"),
        at("/node/shards"),
        at("/node/disk_full"),
        at("/keyspace/keys"),
        mebibytes("/memory/used_bytes"),
        mebibytes("/memory/resident_bytes"),
        at("/wal/sync_us/p50"),
        at("/wal/sync_us/p99"),
        at("/wal/sync_failures"),
    );
    if let Some(actors) = sections.get("actors").and_then(Value::as_array) {
        text.push_str(&actor_table(actors, Some(rates)));
    }
    text
}
