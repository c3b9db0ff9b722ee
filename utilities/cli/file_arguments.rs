//! What may be said on the command line about files: those to import, and a node's own.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What to import.
#[derive(Args)]
pub struct Import {
    pub file: PathBuf,
    /// What to do about a line that can't be imported
    #[arg(long, value_enum, default_value_t = OnError::Stop)]
    pub on_error: OnError,
    /// Where to keep how far it is; FILE.import-progress.json unless given
    #[arg(long, value_name = "STATE_FILE")]
    pub state: Option<PathBuf>,
    /// From the first line, whatever an earlier import has done
    #[arg(long)]
    pub restart: bool,
}

/// What to do about a line that can't be imported.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Stop there: all before it is imported, nothing behind it
    Stop,
    /// Name it on stderr and go on
    Skip,
}

/// What to do with a log.
#[derive(Subcommand)]
pub enum Wal {
    /// Check every segment and snapshot; changes nothing
    Verify { directory: PathBuf },
    /// Print every write, and what else the log has; changes nothing
    Dump {
        directory: PathBuf,
        /// From this log entry on
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// Up to this log entry
        #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
        to: u64,
        /// Only what is about this key
        #[arg(long)]
        key: Option<String>,
    },
}
