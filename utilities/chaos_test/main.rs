//! `chaos_test`: kills a node over and over, and proves that it keeps its word.
//!
//! ```text
//! arguments ─► Campaign ── owns ──► Nodes ──► Process   a node's command, one for each node
//!                 │
//!                 └── proof::{Writers, converge, verify}   load, and what may be seen after it
//! ```
//!
//! One campaign drives one node ([`campaign`]) or a cluster ([`cluster`]): several
//! processes, of which a round strikes some, and one book.

mod arguments;
mod campaign;
mod cluster;
mod nodes;
mod process;
mod summary;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::Arguments;
use campaign::{Campaign, Stop};
use clap::Parser;
use datastore_utilities::proof::{Fault, Names};
use nodes::{Node, Nodes};
use process::Process;
use summary::Summary;
use tokio::signal::unix::{SignalKind, signal};

const VIOLATION: u8 = 1;
const USAGE: u8 = 2;
const FAILURE: u8 = 3;
/// Faults that are told one by one.
const FAULTS_TOLD: usize = 100;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match prepared(arguments) {
        Ok(run) => run.carry_out(),
        Err(message) => {
            eprintln!("chaos_test: {message}");
            ExitCode::from(USAGE)
        }
    }
}

/// A run with all that it is made of.
struct Run {
    runtime: tokio::runtime::Runtime,
    campaign: Campaign,
    seed: u64,
    prefix: String,
    is_json: bool,
    is_verified: bool,
    nodes: usize,
    /// The logs, when nobody has asked for them.
    unwanted_logs: Vec<PathBuf>,
}

fn prepared(arguments: Arguments) -> Result<Run, String> {
    let seed = arguments.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    // The same seed on the same directory must not meet its own earlier keys.
    let name = format!("chaos{seed:x}t{:x}", milliseconds_since_epoch());
    let names = Names::new(&name);
    let described = arguments.nodes()?;
    let is_cluster = described.len() > 1;
    let own_log = (!arguments.show_output && arguments.log.is_none())
        .then(|| std::env::temp_dir().join(format!("chaos_test-{name}.log")));
    let log = arguments.log.clone().or(own_log.clone());
    let (is_json, is_verified, prefix) = (arguments.json, arguments.verify, names.prefix());

    let told = log.as_ref().map_or("here".to_string(), |path| path.display().to_string());
    let told = if is_cluster && log.is_some() { format!("{told}.NODE") } else { told };
    eprintln!("seed {seed}, keys {prefix}*, the command's output: {told}");
    let log_of = |log: &PathBuf, node_id: u64| {
        let mut name = log.clone().into_os_string();
        if is_cluster {
            name.push(format!(".{node_id}"));
        }
        PathBuf::from(name)
    };
    let ids: Vec<u64> = described.iter().map(|node| node.node_id).collect();
    let nodes = described.into_iter().map(|node| {
        let log = log.as_ref().map(|log| log_of(log, node.node_id));
        Node { node_id: node.node_id, process: Process::new(node.words, node.address, log) }
    });
    let campaign = Campaign::new(arguments, Nodes::new(nodes.collect()), seed, names)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let unwanted_logs = own_log.iter().flat_map(|log| ids.iter().map(|id| log_of(log, *id))).collect();
    Ok(Run { runtime, campaign, seed, prefix, is_json, is_verified, nodes: ids.len(), unwanted_logs })
}

impl Run {
    fn carry_out(mut self) -> ExitCode {
        let stop = self.runtime.block_on(until_the_end(&mut self.campaign));
        let (result, code) = match &stop {
            Ok(()) if self.is_verified => ("proven", ExitCode::SUCCESS),
            Ok(()) => ("killed", ExitCode::SUCCESS),
            Err(Stop::Interrupt) => ("interrupted", ExitCode::SUCCESS),
            Err(Stop::Violation(faults)) => {
                self.tell_faults(faults);
                ("violation", ExitCode::from(VIOLATION))
            }
            Err(Stop::Failure(failure)) => {
                eprintln!("chaos_test: {failure}");
                ("failure", ExitCode::from(FAILURE))
            }
        };
        let summary = Summary {
            seed: self.seed,
            prefix: &self.prefix,
            result,
            is_verified: self.is_verified,
            nodes: self.nodes,
            progress: &self.campaign.progress,
            figures: self.campaign.book.with(|ledger| ledger.figures),
        };
        if self.is_json {
            println!("{}", summary.json());
        } else {
            println!("{}", summary.text());
        }
        let is_well = matches!(stop, Ok(()) | Err(Stop::Interrupt));
        for log in self.unwanted_logs.iter().filter(|_| is_well) {
            // It may never have been made.
            std::fs::remove_file(log).ok();
        }
        code
    }

    fn tell_faults(&self, faults: &[Fault]) {
        let round = self.campaign.progress.rounds + 1;
        eprintln!("VIOLATION in round {round}, seed {}: {} faults", self.seed, faults.len());
        for fault in faults.iter().take(FAULTS_TOLD) {
            eprintln!("{fault}");
        }
        if faults.len() > FAULTS_TOLD {
            eprintln!("… and {} more", faults.len() - FAULTS_TOLD);
        }
        if self.nodes > 1 {
            eprintln!("the nodes are stopped, and their data directories are left as they are");
        } else {
            eprintln!("the node is stopped, and its data directory is left as it is");
        }
    }
}

/// Runs until the rounds are over or a signal comes; the node is ended in any case.
async fn until_the_end(campaign: &mut Campaign) -> Result<(), Stop> {
    let stop = tokio::select! {
        // Signals are taken before there is a node that they could leave behind.
        biased;
        stop = asked_to_end() => Err(stop),
        stop = campaign.run() => stop,
    };
    campaign.end().await;
    stop
}

/// Resolves at an interrupt, a SIGTERM, or when the terminal goes.
async fn asked_to_end() -> Stop {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    match kinds.map(signal) {
        [Ok(mut interrupted), Ok(mut terminated), Ok(mut hung_up)] => tokio::select! {
            _ = interrupted.recv() => Stop::Interrupt,
            _ = terminated.recv() => Stop::Interrupt,
            _ = hung_up.recv() => Stop::Interrupt,
        },
        _ => Stop::Failure("signals can't be taken".to_string()),
    }
}

fn milliseconds_since_epoch() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |duration| duration.as_millis())
}
