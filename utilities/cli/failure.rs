//! Why a command failed: what is said on stderr, and the exit code.

use std::fmt;
use std::io::Write;
use std::path::Path;

use datastore::connector::Error;
use datastore::connector::error::{BAD_ARGUMENT, BAD_REPLY, CLIENT_TIMEOUT, CONNECTION_LOST, NOT_CONNECTED};
use datastore::error::Outcome;
use serde_json::{Map, Value, json};

/// The process's exit code. `arguments::EXIT_CODES` says each in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Whoever read the output has gone: nothing is left to be done or said.
    ReaderGone = 0,
    NotFound = 1,
    Usage = 2,
    Refused = 3,
    Unknown = 4,
    NoConnection = 5,
    LocalFile = 6,
    Damaged = 7,
    Skipped = 8,
    Applied = 9,
    Interrupted = 130,
}

/// A command that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: Exit,
    pub code: String,
    pub message: String,
    pub retryable: bool,
    pub outcome: Outcome,
    /// What the node added.
    pub details: Map<String, Value>,
}

impl Failure {
    fn own(exit: Exit, code: &str, message: impl fmt::Display) -> Failure {
        Failure {
            exit,
            code: code.to_string(),
            message: message.to_string(),
            retryable: false,
            outcome: Outcome::NotApplied,
            details: Map::new(),
        }
    }

    /// What was asked for isn't there.
    pub fn not_found(message: impl fmt::Display) -> Failure {
        Failure::own(Exit::NotFound, "not_found", message)
    }

    /// The command itself is wrong.
    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure::own(Exit::Usage, "usage", message)
    }

    /// A local file can't be read, written or used.
    pub fn file(path: &Path, reason: impl fmt::Display) -> Failure {
        Failure::own(Exit::LocalFile, "local_file", format!("{}: {reason}", path.display()))
    }

    /// A line of an import that is no record.
    pub fn broken_line(message: impl fmt::Display) -> Failure {
        Failure::own(Exit::LocalFile, "broken_line", message)
    }

    /// A log or snapshot is not what was written.
    pub fn damaged(message: impl fmt::Display) -> Failure {
        Failure::own(Exit::Damaged, "damaged", message)
    }

    /// An import left lines out, each of which was named.
    pub fn skipped(message: impl fmt::Display) -> Failure {
        Failure { outcome: Outcome::Applied, ..Failure::own(Exit::Skipped, "lines_skipped", message) }
    }

    /// Ctrl-c.
    pub fn interrupted(message: impl fmt::Display, changes: bool) -> Failure {
        let outcome = if changes { Outcome::Unknown } else { Outcome::NotApplied };
        Failure { outcome, ..Failure::own(Exit::Interrupted, "interrupted", message) }
    }

    /// The same with more said before and behind the message.
    #[must_use]
    pub fn with_message(mut self, message: impl FnOnce(&str) -> String) -> Failure {
        self.message = message(&self.message);
        self
    }

    /// Says it on stderr.
    pub fn say(&self, json: bool) {
        if self.exit == Exit::ReaderGone {
            return;
        }
        // Whoever closed stderr doesn't want to know.
        let mut stderr = std::io::stderr();
        if json {
            writeln!(stderr, "{}", self.to_json()).ok()
        } else {
            writeln!(stderr, "{self}").ok()
        };
    }

    fn to_json(&self) -> Value {
        let mut fields = self.details.clone();
        fields.insert("code".into(), json!(self.code));
        fields.insert("message".into(), json!(self.message));
        fields.insert("retryable".into(), json!(self.retryable));
        fields.insert("outcome".into(), json!(self.outcome.as_str()));
        Value::Object(fields)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} (outcome: {})", self.code, self.message, self.outcome.as_str())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let exit = match (error.code.as_str(), error.outcome) {
            (BAD_ARGUMENT, _) => Exit::Usage,
            (_, Outcome::Unknown) => Exit::Unknown,
            (_, Outcome::Applied) => Exit::Applied,
            (NOT_CONNECTED | CONNECTION_LOST | CLIENT_TIMEOUT | BAD_REPLY, _) => Exit::NoConnection,
            _ => Exit::Refused,
        };
        let Error { code, message, retryable, outcome, details } = error;
        Failure { exit, code, message, retryable, outcome, details }
    }
}

/// Of stdout, the one place where anything is written that has no name.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure::own(Exit::ReaderGone, "reader_gone", error);
        }
        Failure::own(Exit::LocalFile, "local_file", format!("the output can't be written: {error}"))
    }
}
