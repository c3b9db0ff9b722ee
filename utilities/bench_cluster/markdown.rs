//! The report as Markdown tables.

use std::fmt::Write;

use datastore_utilities::bench::{Marked, Spread, grouped, mark, short};

use crate::report::{
    CheckPerf, Dynamo, Failover, Held, Pair, Percentiles, Reads, Replication, Report, Writes,
};

/// The whole report.
pub fn markdown(report: &Report) -> String {
    let mut sections = vec![heading(report)];
    sections.extend(report.writes.iter().map(|writes| of_writes(writes, report.etcd.is_some())));
    if !report.check_perf.is_empty() {
        sections.push(check_perf(&report.check_perf));
    }
    if !report.reads.is_empty() {
        sections.push(reads(&report.reads));
    }
    sections.extend(report.failover.iter().chain(&report.failover_of_two).map(failover));
    sections.extend(report.replication.as_ref().map(replication));
    sections.extend(report.dynamo.as_ref().map(dynamo));
    if !report.alone.is_empty() {
        let title = "### A node without peers, beside another build\n\n";
        sections.push(format!("{title}{}", pairs(&report.alone, "this build", "other build")));
    }
    sections.join("\n")
}

fn heading(report: &Report) -> String {
    let settings = &report.settings;
    let mut text = settings.warnings();
    let etcd = report.etcd.as_ref().map_or("etcd: not measured".into(), |version| {
        format!("etcd {version}: three members, a write is synced by two of them before it is answered")
    });
    let _ = write!(
        text,
        "- {}\n\
         - datastore-node {}: three nodes, a write is synced by two of them before it is answered\n\
         - {etcd}\n\
         - values of 32 bytes, {} keys, {} rounds of {} s, seed {}\n",
        report.machine.described(),
        report.node,
        grouped(settings.keys as f64),
        settings.rounds,
        settings.seconds,
        settings.seed,
    );
    text
}

fn of_writes(writes: &Writes, has_etcd: bool) -> String {
    let mut text = format!("### Writes of three nodes: {}\n\n", writes.title);
    text.push_str(&pairs(&writes.rows, "nodes", if has_etcd { "etcd" } else { "etcd (not measured)" }));
    text.push('\n');
    let mut say = |what: &str, held: &Option<Held>| {
        if let Some(held) = held {
            let _ = writeln!(text, "- {what}: {}, mark {}", spread(&held.ratio, 1), judged(&held.marked));
        }
    };
    say("pipelined (50, 64) by etcd's best at any shape and in `check perf`", &writes.pipelined);
    say("500 clients without pipelining by etcd's best with as many", &writes.clients);
    if let Some(ratio) = &writes.by_check_perf {
        let _ =
            writeln!(text, "- pipelined (50, 64) by the best of `check perf` alone: {}", spread(ratio, 1));
    }
    if writes.repeated > 0 {
        let _ = writeln!(text, "- runs repeated because the leader changed: {}", writes.repeated);
    }
    text
}

fn pairs(pairs: &[Pair], ours: &str, other: &str) -> String {
    let mut text = format!(
        "| | c, P | {ours} / {other} (min – max) | mark | {ours} /s (min – max) | {other} /s (min – max) \
         | p50, p99 ms: {ours} | p50, p99 ms: {other} | generator busy |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for pair in pairs {
        let ms = |us: f64| us / 1e3;
        let none = || "–".to_string();
        let other = pair.other.as_ref();
        let _ = writeln!(
            text,
            "| {} | {}, {} | {} | {} | {} | {} | {:.2}, {:.2} | {} | {:.0} %{} |",
            pair.operation,
            pair.connections,
            pair.pipeline,
            pair.ratio.as_ref().map_or_else(none, |ratio| spread(ratio, 2)),
            pair.marked.as_ref().map_or_else(none, judged),
            rate(&pair.ours.per_second),
            other.map_or_else(none, |side| rate(&side.per_second)),
            ms(pair.ours.p50_us),
            ms(pair.ours.p99_us),
            other.map_or_else(none, |side| format!("{:.2}, {:.2}", ms(side.p50_us), ms(side.p99_us))),
            pair.ours.generator_share * 100.0,
            other.map_or_else(String::new, |side| format!(", {:.0} %", side.generator_share * 100.0)),
        );
    }
    text
}

fn check_perf(rows: &[CheckPerf]) -> String {
    let mut text = "### etcd's own tool: `etcdctl check perf`\n\n\
                    One minute a load, its own client, one request at a time each, keys of 256 bytes, values of \
                    1 KiB; it asks for no more than its target.\n\n\
                    | load | clients | target /s | writes /s |\n|---|---|---|---|\n"
        .to_string();
    for row in rows {
        let (target, per_second) = (grouped(row.target_per_second as f64), grouped(row.per_second));
        let _ = writeln!(text, "| {} | {} | {target} | {per_second} |", row.load, row.clients);
    }
    text
}

fn reads(rows: &[Reads]) -> String {
    let mut text = "### Reads\n\n| GET | c, P | /s (min – max) | p50, p99 ms | generator busy |\n\
                    |---|---|---|---|---|\n"
        .to_string();
    for row in rows {
        let side = &row.side;
        let _ = writeln!(
            text,
            "| {} | {}, {} | {} | {:.2}, {:.2} | {:.0} % |",
            row.what,
            row.connections,
            row.pipeline,
            rate(&side.per_second),
            side.p50_us / 1e3,
            side.p99_us / 1e3,
            side.generator_share * 100.0,
        );
    }
    text
}

fn failover(failover: &Failover) -> String {
    let row = |what: &str, figures: &Percentiles, marked: Option<&Marked>| {
        let mark = marked.map_or("–".into(), judged);
        format!("| {what} | {:.2} | {:.2} | {:.2} | {mark} |\n", figures.median, figures.p99, figures.max)
    };
    format!(
        "### Failover of {} nodes: {} kills of the leader under 4 writers\n\n\
         | seconds | median | p99 | max | mark (max) |\n|---|---|---|---|---|\n{}{}\n\
         {} writes acknowledged, {} of them lost (mark {})\n",
        failover.members,
        failover.gap_s.samples,
        row("without an acknowledged write", &failover.gap_s, Some(&failover.gap_marked)),
        row("from the start of the killed node until it has caught up", &failover.caught_up_s, None),
        grouped(failover.acknowledged as f64),
        grouped(failover.lost as f64),
        judged(&failover.lost_marked),
    )
}

fn replication(replication: &Replication) -> String {
    let row = |what: &str, figures: &Percentiles, marked: Option<&Marked>| {
        let mark = marked.map_or("–".into(), judged);
        let samples = grouped(figures.samples as f64);
        format!(
            "| {what} | {samples} | {:.2} | {:.2} | {:.2} | {mark} |\n",
            figures.median, figures.p99, figures.max
        )
    };
    format!(
        "### Replication: one write a millisecond, {} replicas watched by local reads\n\n\
         | milliseconds | samples | median | p99 | max | mark (median) |\n|---|---|---|---|---|---|\n{}{}{}",
        replication.replicas,
        row(
            "from the answer until a replica shows it",
            &replication.from_answer_ms,
            Some(&replication.marked)
        ),
        row("from the sending until a replica shows it", &replication.from_sending_ms, None),
        row("from the sending until the answer", &replication.answer_ms, None),
    )
}

fn dynamo(dynamo: &Dynamo) -> String {
    let mut text = String::from("### Dynamo mode: three nodes\n\n");
    text.push_str("| processor time of a write | node that takes it, us | single node, us | ratio | mark |\n|---|---|---|---|---|\n");
    for cost in &dynamo.cost {
        let _ = writeln!(
            text,
            "| {} connections, {} a batch | {:.1} | {:.1} | {} | {} |",
            cost.connections,
            cost.pipeline,
            cost.ours_us.median,
            cost.single_us.median,
            spread(&cost.ratio, 2),
            judged(&cost.marked)
        );
    }
    let down = &dynamo.down;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let _ = write!(
        text,
        "\n- one of three down for {} writes: memory of the node that took them {:.0} MiB before, {:.0} MiB at most, \
         {:.0} MiB at rest afterwards; the node had all {:.1} s after its start, by {}\n\n",
        grouped(down.writes as f64),
        mib(down.before_bytes),
        mib(down.most_bytes),
        mib(down.after_bytes),
        down.caught_up_s,
        if down.by_log { "the log alone" } else { "a state that it took over" },
    );
    text + &replication(&dynamo.replication).replacen("### Replication:", "Replication in dynamo mode:", 1)
}

fn judged(marked: &Marked) -> String {
    mark(Some((marked.mark, marked.is_met)))
}

/// A ratio, with so many digits behind the point.
fn spread(ratio: &Spread, digits: usize) -> String {
    format!("**{:.digits$}** ({:.digits$} – {:.digits$})", ratio.median, ratio.min, ratio.max)
}

fn rate(rate: &Spread) -> String {
    format!("{} ({} – {})", short(rate.median), short(rate.min), short(rate.max))
}
