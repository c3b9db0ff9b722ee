//! Why a node can't start.

use std::fmt;
use std::io;
use std::path::PathBuf;

use datastore::persistence::{AppendError, IdentityError, OpenError, ReadError, SnapshotError};

/// Why a node can't start. Nothing was served.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are what their types say: a path, a name, the system's error
pub enum StartError {
    /// The data directory can't be used.
    Directory { path: PathBuf, source: io::Error },
    /// Another process has it.
    Locked { path: PathBuf },
    /// The start-up probe failed: the directory doesn't do what the log relies on.
    Probe { path: PathBuf, step: &'static str, source: io::Error },
    /// The identity file can't be read or written.
    Identity(IdentityError),
    /// The directory belongs to another mode of replication.
    OtherMode { found: String, wanted: &'static str },
    /// `--peers` on a directory with data that never was a member's.
    NotAMember,
    /// The directory is another member's.
    OtherNode { found: u64, wanted: u64 },
    /// The directory's cluster has no member of this number.
    NoMemberOf { node_id: u64, members: Vec<u64> },
    /// `--truncate-damaged-log` on a member's directory.
    TruncatedMember,
    /// The log can't be opened.
    Log(OpenError),
    /// The log's newest hard state is none.
    HardState,
    /// The snapshot doesn't say what it holds of other nodes.
    SnapshotState,
    /// Entries that are not committed yet can't be read back.
    Tail(ReadError),
    /// The log can't begin anew behind a snapshot that was installed.
    Restart(AppendError),
    /// No snapshot can be used.
    Snapshot(SnapshotError),
    /// The system gave no random numbers.
    Random(io::Error),
    /// A thread could not be started.
    Thread { name: String, source: io::Error },
}

impl StartError {
    /// Whether it says that the data directory is the wrong one, or can't be used.
    pub fn is_about_directory(&self) -> bool {
        !matches!(self, StartError::Random(_) | StartError::Thread { .. })
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Directory { path, source } => {
                write!(formatter, "the data directory {} can't be used: {source}", path.display())
            }
            StartError::Locked { path } => write!(
                formatter,
                "the data directory {} is in use by another process: stop it, or give another --data-dir",
                path.display()
            ),
            StartError::Probe { path, step, source } => write!(
                formatter,
                "the data directory {} failed the start-up probe: could not {step}: {source}",
                path.display()
            ),
            StartError::Identity(error) => error.fmt(formatter),
            StartError::OtherMode { found, wanted } => write!(
                formatter,
                "the data directory was made with --mode {found} and this start is --mode {wanted}: export its data \
                 and import it into a new directory to move"
            ),
            StartError::NotAMember => write!(
                formatter,
                "the data directory has data of a node on its own, and --peers names a cluster: start without \
                 --peers, or form the cluster with empty directories and import an export of the data"
            ),
            StartError::OtherNode { found, wanted } => write!(
                formatter,
                "the data directory is that of node {found}, and --node-id is {wanted}: give each node its own"
            ),
            StartError::NoMemberOf { node_id, members } => write!(
                formatter,
                "the data directory belongs to a cluster of nodes {members:?}, and --node-id is {node_id}"
            ),
            StartError::TruncatedMember => write!(
                formatter,
                "a member's log is not cut (--truncate-damaged-log): it would forget what it promised to the other \
                 nodes, and what was acknowledged could be lost; bring back an undamaged copy of the directory"
            ),
            StartError::Log(error) => error.fmt(formatter),
            StartError::HardState => write!(
                formatter,
                "the log's newest hard state is not one of this version's: start the version that wrote it"
            ),
            StartError::SnapshotState => write!(
                formatter,
                "the newest snapshot doesn't say up to where it has each node's writes: start the version that wrote it"
            ),
            StartError::Tail(error) => error.fmt(formatter),
            StartError::Restart(error) => error.fmt(formatter),
            StartError::Snapshot(error) => error.fmt(formatter),
            StartError::Random(source) => write!(formatter, "the system gave no random numbers: {source}"),
            StartError::Thread { name, source } => {
                write!(formatter, "the thread {name} could not be started: {source}")
            }
        }
    }
}

impl std::error::Error for StartError {}
