//! `bench_against`: the node beside Redis, on this machine, now.
//!
//! ```text
//! cargo build --release -p datastore-node
//! cargo run --release -p datastore-utilities --bin bench_against
//! ```
//!
//! What makes it fair:
//!
//! - One load generator for both, on one thread, with the same pattern (see
//!   [`datastore_utilities::load`]), the same bytes of keys and values, and the
//!   same sequence of keys in each pair of runs. Figures of two different clients
//!   are never set against each other.
//! - Both sync every write before they answer it, and are asked whether they do.
//! - Every reply is checked. A run with an error, a missing key or a wrong reply
//!   ends the bench without a report.
//! - Runs alternate: node, Redis, node, Redis. The ratio is taken of each such
//!   pair, so that a machine that slows down slows down both.
//! - Both processes are there all the time, which keeps their data in memory and
//!   both equally warm, but only one works: a run begins when both have come to
//!   rest, their own background work (a snapshot, a rewritten log) included. An
//!   idle server costs next to nothing.
//! - Both are as they come: their own settings for all else, nothing pinned to a
//!   core, no thread told how many to be. The machine's cores are shared by the
//!   server and the generator, whose cost is shown beside the servers'.

mod cells;
mod chart;
mod markdown;
mod marks;
mod memory;
mod recovery;
mod report;
mod server;
mod sides;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use datastore_utilities::bench::{
    Machine, Page, Settings, beside_this_program, find_node, seconds, write_report,
};
use datastore_utilities::load::{Interrupt, Values};

use crate::cells::{Comparison, Method};
use crate::report::Report;
use crate::server::{Bench, Kind};

/// Measures datastore-node beside Redis and shows ratios with their spread.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// The node's program [default: datastore-node beside this program]
    #[arg(long)]
    node: Option<PathBuf>,
    /// Redis's program
    #[arg(long, default_value = "redis-server")]
    redis: PathBuf,
    /// Where the servers' data goes while they run, on a real disk [default: beside this program]
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keys of each server [default: 1000000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// Pairs of runs for each cell [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Seconds of each run [default: 2]
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// Only these: connections and requests of a batch, as in 50,64; may be given several times
    #[arg(long, value_parser = cell)]
    cell: Vec<(usize, usize)>,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    sections: Vec<Section>,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A run of seconds that only shows that everything works
    #[arg(long)]
    quick: bool,
    /// Write the report to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report to this file as Markdown, which is printed in any case
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Draw the ratios into this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Replace what stands between the bench's comments in this page, with the chart of --svg above it
    #[arg(long)]
    write_into: Option<PathBuf>,
}

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Throughput and latency without indexes
    Plain,
    /// Throughput and latency with all indexes
    Indexed,
    /// Memory per key
    Memory,
    /// Time to recover
    Recovery,
}

fn cell(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once(',').and_then(|(c, p)| Some((c.parse().ok()?, p.parse().ok()?)));
    let is_usable = |(connections, pipeline): &(usize, usize)| {
        (1..=1_000).contains(connections) && (1..=10_000).contains(pipeline)
    };
    numbers.filter(is_usable).ok_or_else(|| "two numbers are wanted, as in 50,64".into())
}

fn main() -> ExitCode {
    match measure(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Where the report goes in a page.
const PAGE: Page = Page("bench");
/// Longer than either server's allocator waits before it gives memory back.
const SETTLE: Duration = Duration::from_secs(3);

fn measure(flags: &Flags) -> Result<(), String> {
    if let Some(page) = &flags.write_into {
        PAGE.check(page)?;
    }
    let interrupt = Interrupt::watch().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let beside = beside_this_program()?;
    let bench = Bench {
        node: find_node(flags.node.as_deref(), &beside)?,
        redis: find_redis(&flags.redis)?,
        directory: flags.directory.clone().unwrap_or(beside),
        settle: if flags.quick { Duration::ZERO } else { SETTLE },
        interrupt,
    };
    let machine = Machine::prepare(&bench.directory, flags.quick)?;
    let report = run_sections(flags, &bench, machine)?;
    write(flags, &report)
}

fn run_sections(flags: &Flags, bench: &Bench, machine: Machine) -> Result<Report, String> {
    let (keys, rounds, seconds) = if flags.quick { (4_000, 1, 0.2) } else { (1_000_000, 5, 2.0) };
    let (keys, seconds) = (flags.keys.unwrap_or(keys), flags.seconds.unwrap_or(seconds));
    let rounds = flags.rounds.map_or(rounds, usize::from);
    let method = Method {
        cells: match (&flags.cell[..], flags.quick) {
            ([], true) => vec![(1, 1), (50, 16)],
            ([], false) => marks::cells(),
            (given, _) => given.to_vec(),
        },
        keys,
        rounds,
        time: Duration::from_secs_f64(seconds),
        seed: flags.seed,
    };
    let is_wanted = |section| flags.sections.is_empty() || flags.sections.contains(&section);
    let mut report = Report {
        machine,
        settings: Settings {
            keys,
            rounds,
            seconds,
            seed: flags.seed,
            is_quick: flags.quick,
            is_debug_build: cfg!(debug_assertions),
        },
        node: sides::about(&bench.start(Kind::Node, &[])?)?,
        redis: sides::about(&bench.start(Kind::Redis, &[])?)?,
        tables: Vec::new(),
        memory: Vec::new(),
        recovery: Vec::new(),
    };
    for (section, comparison) in comparisons() {
        if is_wanted(section) {
            report.tables.push(cells::compare(bench, &comparison, &method)?);
        }
    }
    if is_wanted(Section::Memory) {
        report.memory = memory::weigh(bench, keys, flags.seed)?;
    }
    if is_wanted(Section::Recovery) {
        report.recovery = recovery::recover(bench, keys, rounds, flags.seed)?;
    }
    Ok(report)
}

fn comparisons() -> [(Section, Comparison); 2] {
    let plain = Comparison {
        title: "Without indexes: 32-byte values".into(),
        values: Values::Letters { value_bytes: 32 },
        node_arguments: &["--indexes", "none"],
        is_indexed: false,
    };
    let indexed = Comparison {
        title: "All indexes on: five words, others at every write".into(),
        values: Values::Words { words: 5 },
        node_arguments: &[],
        is_indexed: true,
    };
    [(Section::Plain, plain), (Section::Indexed, indexed)]
}

fn write(flags: &Flags, report: &Report) -> Result<(), String> {
    let markdown = markdown::markdown(report);
    write_report(report, &markdown, flags.json.as_deref(), flags.markdown.as_deref())?;
    if let Some(path) = &flags.svg {
        chart::draw(path, &report.tables)?;
    }
    if let Some(path) = &flags.write_into {
        let chart = flags.svg.as_deref().map(|svg| Page::image(path, svg)).unwrap_or_default();
        PAGE.write_into(path, &format!("{chart}{markdown}"))?;
    }
    Ok(())
}

fn find_redis(given: &Path) -> Result<PathBuf, String> {
    let is_there = std::process::Command::new(given).arg("--version").output().is_ok();
    let install = "install it with `apt install redis-server`, or give --redis PATH";
    if is_there {
        Ok(given.to_path_buf())
    } else {
        Err(format!("{} doesn't run: {install}", given.display()))
    }
}
