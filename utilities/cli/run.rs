//! Carrying a command out, and what becomes of it: its exit code.

use std::time::Duration;

use datastore::connector::DatastoreConnector;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::arguments::{Command, Layout};
use crate::failure::Failure;
use crate::file_arguments::Wal;
use crate::output::Output;
use crate::values::parse_value;
use crate::{cluster, conflicts, export, import, keys, node, searches, stats, stats_watch, wal, wal_dump};

/// For a command that was interrupted to put the terminal back.
const CLEAN_UP_TIME: Duration = Duration::from_millis(200);

/// What all commands of a process share.
pub struct Session {
    pub client: DatastoreConnector,
    pub runtime: Handle,
}

impl Session {
    /// Carries a command out and says why if it fails; gives the exit code.
    pub fn run(&self, command: Command, layout: Layout) -> u8 {
        match self.runtime.block_on(self.run_until_interrupted(command, layout)) {
            Ok(()) => 0,
            Err(failure) => {
                failure.say(layout.json);
                failure.exit as u8
            }
        }
    }

    /// On a thread of its own, so that ctrl-c is heard while it waits for a file or stdin.
    async fn run_until_interrupted(&self, command: Command, layout: Layout) -> Result<(), Failure> {
        let interruption = interruption(&command);
        let (client, runtime) = (self.client.clone(), self.runtime.clone());
        let (cancel, cancelled) = oneshot::channel::<()>();
        let mut thread = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = carry_out(client, command, layout) => Some(ended),
                    _ = cancelled => None,
                }
            })
        });
        let ended = tokio::select! {
            ended = &mut thread => ended,
            _ = tokio::signal::ctrl_c() => {
                // What it holds (a hidden cursor, a temporary file) is given back by its end.
                cancel.send(()).ok();
                tokio::time::timeout(CLEAN_UP_TIME, thread).await.ok();
                return interruption;
            }
        };
        match ended {
            Ok(ended) => ended.unwrap_or(interruption),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => interruption,
        }
    }
}

async fn carry_out(client: DatastoreConnector, command: Command, layout: Layout) -> Result<(), Failure> {
    let mut output = Output::stdout(layout);
    let ended = dispatch(client, command, &mut output).await;
    // What was printed before a failure is printed before the failure is said.
    let flushed = output.flush();
    ended.and(flushed)
}

/// How a command ends by ctrl-c.
fn interruption(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Stats { watch: true, .. } => Ok(()),
        Command::Import(_) => Err(Failure::interrupted(
            "the import is not complete; the same command goes on where it stopped",
            true,
        )),
        command => Err(Failure::interrupted("the command is not complete", command.changes())),
    }
}

async fn dispatch(client: DatastoreConnector, command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Get { key, raw, with_version, r, after } => {
            let shown = keys::Shown { raw, with_version };
            keys::get(&client, &key, r, &after, shown, output).await
        }
        Command::Set { key, value, kind, if_version, if_absent, wanted } => {
            let condition = keys::Condition { if_version, if_absent };
            keys::set(&client, &key, value, kind, condition, wanted, output).await
        }
        Command::Delete { keys, if_version, wanted } => {
            keys::delete(&client, &keys, if_version, wanted, output).await
        }
        Command::BulkGet { keys, after } => keys::bulk_get(&client, &keys, &after, output).await,
        Command::Count { prefix, after } => keys::count(&client, prefix, &after, output).await,
        Command::AddVector { key, numbers, wanted } => {
            keys::add_vector(&client, &key, &numbers, wanted, output).await
        }
        Command::GetVector { key, after } => keys::get_vector(&client, &key, &after, output).await,
        Command::Scan(scan) => searches::scan(&client, scan, output).await,
        Command::SearchText { words, any, prefix, limit, scores, after } => {
            let words = searches::Words { words, any, prefix };
            searches::text(&client, words, limit, scores, &after, output).await
        }
        Command::SearchValue { value, kind, prefix, limit, after } => {
            let value = parse_value(&value, kind)?;
            searches::value(&client, &value, prefix, limit, &after, output).await
        }
        Command::SearchVector { numbers, key, top_k, prefix, after } => {
            let like = searches::Like { numbers, key };
            searches::vector(&client, like, top_k, prefix, &after, output).await
        }
        Command::Stats { section, watch: false, .. } => stats::print(&client, section, output).await,
        Command::Stats { section, watch: true, interval_ms } => {
            stats_watch::watch(&client, section, Duration::from_millis(interval_ms), output).await
        }
        Command::Cluster => cluster::print(&client, output).await,
        Command::Promote { node_id, force } => cluster::promote(&client, node_id, force, output).await,
        Command::AddMember { node_id, address } => cluster::add(&client, node_id, &address, output).await,
        Command::RemoveMember { node_id } => cluster::remove(&client, node_id, output).await,
        Command::Evict { node_id } => cluster::evict(&client, node_id, output).await,
        Command::Conflicts { limit, after } => conflicts::print(&client, limit, after, output).await,
        Command::Snapshot => node::snapshot(&client, output).await,
        Command::Ping => node::ping(&client, output).await,
        Command::Call { request } => node::call(&client, &request, output).await,
        Command::Import(options) => import::import(&client, options, output).await,
        Command::Export { file, prefix } => export::export(&client, &file, prefix, output).await,
        Command::Wal(Wal::Verify { directory }) => wal::verify(&directory, output),
        Command::Wal(Wal::Dump { directory, from, to, key }) => {
            let wanted = wal_dump::Wanted { indexes: from..=to, key };
            wal_dump::dump(&directory, &wanted, output)
        }
    }
}
