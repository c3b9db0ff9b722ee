//! `bench_cluster`: three nodes beside three members of etcd, and what a cluster
//! promises, measured on this machine, now.
//!
//! ```text
//! cargo build --release -p datastore-node
//! cargo run --release -p datastore-utilities --bin bench_cluster
//! ```
//!
//! What makes it fair:
//!
//! - One load generator for both (see [`datastore_utilities::load`]), with the same
//!   bytes of keys and values and the same sequence of keys. To etcd it speaks
//!   gRPC, pipelined, over connections that stay: the cheapest way there is to
//!   write to it. etcd's own `check perf`, with its own client and values of 1 KiB,
//!   stands beside it, and the best of all of etcd's figures is what counts.
//! - Both sync before they acknowledge, on a majority: there is no other way with
//!   either. etcd's revision must grow by as much as was answered.
//! - Every reply is checked. A run with an error ends the bench without a report;
//!   only one that met a change of leaders is repeated, which is counted and told.
//! - Runs alternate, and a run begins when all servers are at rest.
//! - All are as they come, started on the loopback address in directories of
//!   their own on one disk, and all share the machine's cores with the generator.

mod alone;
mod bench;
mod dynamo;
mod etcd;
mod failover;
mod markdown;
mod marks;
mod nodes;
mod process;
mod reads;
mod replication;
mod report;
mod writes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use datastore_utilities::bench::{
    Machine, Page, Settings, ask_node, beside_this_program, find_node, seconds, write_report,
};
use datastore_utilities::load::Interrupt;
use serde_json::json;

use crate::bench::Bench;
use crate::etcd::Etcd;
use crate::nodes::Nodes;
use crate::report::Report;
use crate::writes::{MEMBERS, Method};

/// Where the report goes in a page.
const PAGE: Page = Page("bench cluster");

/// Measures three nodes of datastore-node beside three members of etcd, their
/// failover and their replication.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// The node's program [default: datastore-node beside this program]
    #[arg(long)]
    node: Option<PathBuf>,
    /// Another build of the node: compares nodes without peers
    #[arg(long)]
    against_binary: Option<PathBuf>,
    /// Where the servers' data goes while they run, on a real disk [default: beside this program]
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keys of each side [default: 100000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// Rounds of each comparison [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Seconds of each run [default: 2]
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// How often the leader is killed [default: 20]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    kills: Option<u16>,
    /// Writes whose way to the replicas is watched [default: 2000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    sections: Vec<Section>,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A run of seconds that only shows that everything works, without check-perf
    #[arg(long)]
    quick: bool,
    /// Write the report to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report to this file as Markdown, which is printed in any case
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Replace what stands between the bench's comments in this page
    #[arg(long)]
    write_into: Option<PathBuf>,
}

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// What etcd's own tool says: a minute for each of two loads
    CheckPerf,
    /// Writes beside etcd's, with all indexes and with none
    Writes,
    /// Reads of the primary and of a replica
    Reads,
    /// How soon replicas show a write
    Replication,
    /// What killing the leader of three nodes costs
    Failover,
    /// And of two: each kill waits until the other node has handed back, for some ten seconds
    FailoverOfTwo,
    /// Three nodes of dynamo mode
    Dynamo,
    /// A node without peers beside the one of --against-binary
    Alone,
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

fn measure(flags: &Flags) -> Result<(), String> {
    if let Some(page) = &flags.write_into {
        PAGE.check(page)?;
    }
    let other = flags.against_binary.as_deref().map(|path| find_node(Some(path), path)).transpose()?;
    let interrupt = Interrupt::watch().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let beside = beside_this_program()?;
    let bench = Bench {
        node: find_node(flags.node.as_deref(), &beside)?,
        directory: flags.directory.clone().unwrap_or(beside),
        interrupt,
    };
    let machine = Machine::prepare(&bench.directory, flags.quick)?;
    let report = run_sections(flags, &bench, machine, other.as_deref())?;
    write(flags, &report)
}

fn run_sections(
    flags: &Flags,
    bench: &Bench,
    machine: Machine,
    other: Option<&Path>,
) -> Result<Report, String> {
    let (keys, rounds, seconds) = if flags.quick { (2_000, 1, 0.2) } else { (100_000, 5, 2.0) };
    let (kills, samples) = if flags.quick { (2, 100) } else { (20, 2_000) };
    let kills = flags.kills.map_or(kills, usize::from);
    let (keys, seconds) = (flags.keys.unwrap_or(keys), flags.seconds.unwrap_or(seconds));
    let rounds = flags.rounds.map_or(rounds, usize::from);
    let method = Method { keys, rounds, time: Duration::from_secs_f64(seconds), seed: flags.seed };
    // Ten comparisons: shorter runs keep them within two minutes.
    let half = Method { time: method.time / 2, ..method };
    let is_wanted = |section| match &flags.sections[..] {
        [] => section != Section::CheckPerf || !flags.quick,
        wanted => wanted.contains(&section),
    };
    let settings = Settings {
        keys,
        rounds,
        seconds,
        seed: flags.seed,
        is_quick: flags.quick,
        is_debug_build: cfg!(debug_assertions),
    };
    let mut report = Report {
        machine,
        settings,
        node: version(bench)?,
        etcd: None,
        check_perf: Vec::new(),
        writes: Vec::new(),
        reads: Vec::new(),
        replication: None,
        failover: None,
        failover_of_two: None,
        alone: Vec::new(),
        dynamo: None,
    };
    if is_wanted(Section::CheckPerf) || is_wanted(Section::Writes) {
        beside_etcd(bench, &method, &is_wanted, &mut report)?;
    }
    if is_wanted(Section::Reads) {
        report.reads = reads::measure(bench, &half)?;
    }
    if is_wanted(Section::Replication) {
        let samples = flags.samples.map_or(samples, |samples| samples as usize);
        report.replication = Some(replication::measure(bench, samples)?);
    }
    if is_wanted(Section::Failover) {
        report.failover = Some(failover::measure(bench, MEMBERS, kills)?);
    }
    if is_wanted(Section::FailoverOfTwo) {
        report.failover_of_two = Some(failover::measure(bench, 2, kills)?);
    }
    if is_wanted(Section::Dynamo) {
        let samples = flags.samples.map_or(samples, |samples| samples as usize);
        let writes = if flags.quick { 5_000 } else { 1_000_000 };
        report.dynamo = Some(dynamo::measure(bench, &half, samples, writes)?);
    }
    if let Some(other) = other.filter(|_| is_wanted(Section::Alone)) {
        report.alone = alone::compare(bench, other, &half)?;
    }
    Ok(report)
}

/// The parts that want etcd; without it the nodes are measured alone.
fn beside_etcd(
    bench: &Bench,
    method: &Method,
    is_wanted: &dyn Fn(Section) -> bool,
    report: &mut Report,
) -> Result<(), String> {
    let etcd = if Etcd::is_installed() {
        Some(Etcd::start(bench)?)
    } else {
        eprintln!("skipped: etcd is not installed (apt install etcd-server etcd-client)");
        None
    };
    report.etcd = etcd.as_ref().map(|etcd| etcd.version.clone());
    if let Some(etcd) = etcd.as_ref().filter(|_| is_wanted(Section::CheckPerf)) {
        report.check_perf = etcd.check_perf()?;
    }
    if is_wanted(Section::Writes) {
        for (title, arguments) in
            [("All indexes on, as a node comes", &[][..]), ("Without indexes", &["--indexes", "none"])]
        {
            let writes = writes::compare(bench, title, arguments, etcd.as_ref(), &report.check_perf, method)?;
            report.writes.push(writes);
        }
    }
    Ok(())
}

/// The node's version, from one that runs; it must not lose syncs on purpose.
fn version(bench: &Bench) -> Result<String, String> {
    let node = Nodes::start(bench, &bench.node, 1, &[])?;
    let stats = ask_node(node.members[0].address, &json!({"op": "stats", "section": "node"}))?;
    match stats["node"]["version"].as_str() {
        Some(version) if stats["node"]["drop_rate"] == 0.0 => Ok(version.into()),
        _ => Err(format!("this is no node to be measured: {stats}")),
    }
}

fn write(flags: &Flags, report: &Report) -> Result<(), String> {
    let markdown = markdown::markdown(report);
    write_report(report, &markdown, flags.json.as_deref(), flags.markdown.as_deref())?;
    if let Some(path) = &flags.write_into {
        PAGE.write_into(path, &markdown)?;
    }
    Ok(())
}
