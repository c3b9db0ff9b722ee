//! `datastore-cli`: the command-line client of datastore-node.
//!
//! ```text
//! arguments ─► run ─► keys, searches, node, cluster, conflicts, stats, import, export, wal ─► output
//!    repl ──────┘                     │
//!                              failure ─► stderr, exit code
//! ```

mod arguments;
mod cluster;
mod conflicts;
mod environment;
mod export;
mod failure;
mod file_arguments;
mod import;
mod import_lines;
mod import_progress;
mod keys;
mod node;
mod output;
mod plain_words;
mod repl;
mod repl_helper;
mod repl_words;
mod run;
mod searches;
mod stats;
mod stats_watch;
mod values;
mod wal;
mod wal_converging;
mod wal_dump;

use std::process::ExitCode;
use std::time::Duration;

use datastore::connector::{DatastoreConnector, Options};

use arguments::{Command, CommandLine};
use run::Session;

/// For the connection alone: a command, which may wait for a file or stdin, has a thread of its own.
const WORKER_THREADS: usize = 1;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long a snapshot may take: as long as anyone would wait for it.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// How long the command's requests may take.
fn timeout(command_line: &CommandLine) -> Duration {
    let usual =
        if matches!(command_line.command, Some(Command::Snapshot)) { SNAPSHOT_TIMEOUT } else { TIMEOUT };
    command_line.timeout_ms.map_or(usual, Duration::from_millis)
}

fn main() -> ExitCode {
    let command_line = environment::read();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let addresses = command_line.addresses();
    let mut options = Options::default();
    options.timeout = timeout(&command_line);
    options.patience = Duration::from_millis(command_line.patience_ms);
    options.connect_timeout = options.connect_timeout.min(options.timeout);
    let client = {
        let _entered = runtime.enter();
        DatastoreConnector::lazy(&addresses, options)
    };
    let session = Session { client, runtime: runtime.handle().clone() };
    let exit = match command_line.command {
        Some(command) => session.run(command, command_line.layout),
        None => repl::run(&session, command_line.layout, !command_line.no_history),
    };
    // A command that was interrupted may still wait for stdin: nobody waits for it.
    runtime.shutdown_background();
    ExitCode::from(exit)
}
