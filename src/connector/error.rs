//! What a call's failure is for the caller: the node's error as it came, or one
//! of the client's own. Both say whether the request happened.

use serde_json::{Map, Value};

use crate::error::{Code, Outcome};

/// No connection could be made, so nothing was sent.
pub const NOT_CONNECTED: &str = "not_connected";
/// The connection ended before the reply came.
pub const CONNECTION_LOST: &str = "connection_lost";
/// No reply came within the client's own time.
pub const CLIENT_TIMEOUT: &str = "client_timeout";
/// What came is no reply of this protocol; the connection was closed.
pub const BAD_REPLY: &str = "bad_reply";
/// An argument that can't become JSON; nothing was sent.
pub const BAD_ARGUMENT: &str = "bad_argument";

/// A call that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// The code's name: one of the protocol's, or one of this module's constants.
    pub code: String,
    /// What was wrong and what was expected, for a person.
    pub message: String,
    /// Whether the same call can succeed later without anyone acting.
    pub retryable: bool,
    /// Whether the request happened. A request that changes nothing is
    /// [`Outcome::NotApplied`] whatever became of it.
    pub outcome: Outcome,
    /// What the node added: `current`, `leader`, `lengths`, `progress`, `retry_after_ms`, `acknowledged` …
    pub details: Map<String, Value>,
}

impl Error {
    /// The protocol's code, if it is one that this version knows.
    pub fn code(&self) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.rule().0 == self.code)
    }

    /// Whether this is the node's answer with this code.
    pub fn is(&self, code: Code) -> bool {
        self.code() == Some(code)
    }

    /// Whether the node said this, and not the client.
    pub fn is_from_node(&self) -> bool {
        ![NOT_CONNECTED, CONNECTION_LOST, CLIENT_TIMEOUT, BAD_REPLY, BAD_ARGUMENT]
            .contains(&self.code.as_str())
    }

    /// Nothing was sent, and sending it again may help.
    pub(super) fn not_connected(message: String) -> Error {
        Error::own(NOT_CONNECTED, message, true, Outcome::NotApplied)
    }

    /// Nothing was sent, and never will be.
    pub(super) fn bad_argument(message: String) -> Error {
        Error::own(BAD_ARGUMENT, message, false, Outcome::NotApplied)
    }

    /// Something was sent and no reply can be trusted: a write may have happened.
    pub(super) fn unanswered(code: &str, message: String, changes: bool) -> Error {
        let outcome = if changes { Outcome::Unknown } else { Outcome::NotApplied };
        Error::own(code, message, !changes && code != BAD_REPLY, outcome)
    }

    /// The `error` of a reply; `None` if it isn't one.
    pub(super) fn from_reply(mut fields: Map<String, Value>) -> Option<Error> {
        let outcome = match fields.remove("outcome")?.as_str()? {
            "not_applied" => Outcome::NotApplied,
            "applied" => Outcome::Applied,
            // A word of a later version: nothing is known of it.
            _ => Outcome::Unknown,
        };
        let retryable = fields.remove("retryable")?.as_bool()?;
        let Value::String(code) = fields.remove("code")? else { return None };
        let Value::String(message) = fields.remove("message")? else { return None };
        Some(Error { code, message, retryable, outcome, details: fields })
    }

    fn own(code: &str, message: String, retryable: bool, outcome: Outcome) -> Error {
        Error { code: code.to_string(), message, retryable, outcome, details: Map::new() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {} (outcome: {})", self.code, self.message, self.outcome.as_str())
    }
}

impl std::error::Error for Error {}
