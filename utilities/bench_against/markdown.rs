//! The report as Markdown tables.

use std::fmt::Write;

use crate::marks::Mark;
use crate::report::{Cell, Marked, MemoryRow, RecoveryRow, Report, Table};

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
    let mut text = String::new();
    if settings.is_quick {
        text.push_str("**A quick run: it shows that the bench works. The figures mean nothing.**\n\n");
    }
    if settings.is_debug_build {
        text.push_str("**Built without optimisation: the figures mean nothing.**\n\n");
    }
    let _ = write!(
        text,
        "- machine: {} cores, {:.1} GiB of memory, {}, data on {}\n\
         - datastore-node {}: {}\n\
         - Redis {}: {}\n\
         - {} keys, {} rounds of {} s for a cell, seed {}\n",
        machine.cores,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.file_system,
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

/// A mark, and whether it is met.
fn mark(mark: Option<(Mark, bool)>) -> String {
    let Some((mark, is_met)) = mark else { return "–".into() };
    let said = if is_met { "met" } else { "**not met**" };
    match mark {
        Mark::AtLeast(least) => format!("≥ {}: {said}", short(least)),
        Mark::AtMost(most) => format!("≤ {}: {said}", short(most)),
    }
}

/// What is held to the mark, and the mark.
fn marked(marked: Option<&Marked>) -> String {
    marked.map_or("– | –".into(), |marked| {
        format!("{} | {}", short(marked.figure), mark(Some((marked.mark, marked.is_met))))
    })
}

/// Large numbers whole, small ones with what matters.
fn short(number: f64) -> String {
    if number >= 10.0 {
        grouped(number)
    } else {
        format!("{number:.2}").trim_end_matches('0').trim_end_matches('.').into()
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Mark, grouped, mark, short};

    #[test]
    fn numbers_are_grouped() {
        let cases =
            [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (123_456.0, "123,456"), (1e6, "1,000,000")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!([short(1.0), short(1.5), short(0.95), short(250.0)], ["1", "1.5", "0.95", "250"]);
    }

    #[test]
    fn marks_say_whether_they_are_met() {
        assert_eq!(mark(Some((Mark::AtLeast(1.3), true))), "≥ 1.3: met");
        assert_eq!(mark(Some((Mark::AtMost(100.0), false))), "≤ 100: **not met**");
        assert_eq!(mark(None), "–");
    }
}
