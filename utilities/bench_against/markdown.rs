//! The report as Markdown tables.

use std::fmt::Write;

use datastore_utilities::bench::{Marked, grouped, mark, short};

use crate::report::{Cell, MemoryRow, RecoveryRow, Report, Table};

/// The whole report.
pub fn markdown(report: &Report) -> String {
    let mut sections = vec![heading(report)];
    sections.extend(report.tables.iter().map(table));
    if !report.memory.is_empty() {
        sections.push(memory(&report.memory));
    }
    if !report.recovery.is_empty() {
        sections.push(recovery(&report.recovery));
    }
    sections.join("\n")
}

fn heading(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    let mut text = settings.warnings();
    let _ = write!(
        text,
        "- {}\n\
         - datastore-node {}: {}\n\
         - Redis {}: {}\n\
         - {} keys, {} rounds of {} s for a cell, seed {}\n",
        machine.described(),
        report.node.version,
        report.node.durability,
        report.redis.version,
        report.redis.durability,
        grouped(settings.keys as f64),
        settings.rounds,
        settings.seconds,
        settings.seed,
    );
    text
}

fn table(table: &Table) -> String {
    let mut text = format!(
        "### {}\n\n\
         | | c, P | node / Redis (min – max) | mark | node /s | Redis /s | node p50, p99 ms | Redis p50, p99 ms \
         | CPU us: node, Redis | generator us, busy |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        table.title
    );
    for cell in &table.cells {
        text.push_str(&row(cell));
    }
    text
}

fn row(cell: &Cell) -> String {
    let (node, redis) = (&cell.node, &cell.redis);
    let busy = |share: f64| format!("{:.0} %", share * 100.0);
    format!(
        "| {} | {}, {} | **{:.2}** ({:.2} – {:.2}) | {} | {} | {} | {:.2}, {:.2} | {:.2}, {:.2} \
         | {:.2}, {:.2} | {:.2}, {:.2}; {}, {} |\n",
        cell.operation,
        cell.connections,
        cell.pipeline,
        cell.ratio.median,
        cell.ratio.min,
        cell.ratio.max,
        mark(cell.mark.zip(cell.is_met)),
        grouped(node.per_second),
        grouped(redis.per_second),
        node.p50_us / 1e3,
        node.p99_us / 1e3,
        redis.p50_us / 1e3,
        redis.p99_us / 1e3,
        node.server_cpu_us,
        redis.server_cpu_us,
        node.generator_cpu_us,
        redis.generator_cpu_us,
        busy(node.generator_share),
        busy(redis.generator_share),
    )
}

fn memory(rows: &[MemoryRow]) -> String {
    let mut text =
        "### Memory\n\n| data | keys | node, bytes a key | Redis, bytes a key | held to the mark | mark |\n\
                    |---|---|---|---|---|---|\n"
            .to_string();
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {} |",
            row.data,
            grouped(row.keys as f64),
            row.node_bytes_per_key,
            row.redis_bytes_per_key,
            marked(row.marked.as_ref()),
        );
    }
    text
}

fn recovery(rows: &[RecoveryRow]) -> String {
    let mut text = "### Recovery\n\n| from | items | answers after, s (min – max) | indexes built after, s \
                    | seconds a million items | items /s | mark |\n|---|---|---|---|---|---|---|\n"
        .to_string();
    for row in rows {
        let indexed = row.indexed_s.map_or("–".into(), |indexed| format!("{:.2}", indexed.median));
        let mark = mark(row.marked.as_ref().map(|marked| (marked.mark, marked.is_met)));
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} ({:.2} – {:.2}) | {indexed} | {:.2} | {} | {mark} |",
            row.source,
            grouped(row.items as f64),
            row.answers_s.median,
            row.answers_s.min,
            row.answers_s.max,
            1e6 / row.items_per_second,
            grouped(row.items_per_second),
        );
    }
    text
}

/// What is held to the mark, and the mark.
fn marked(marked: Option<&Marked>) -> String {
    marked.map_or("– | –".into(), |marked| {
        format!("{} | {}", short(marked.figure), mark(Some((marked.mark, marked.is_met))))
    })
}
