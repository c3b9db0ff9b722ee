//! What a client is told when a request fails: a code, whether trying again
//! can help, and, above all, whether the request happened.
//!
//! Internal errors are many and typed where they arise; they become one of the
//! codes here at the edge. One table ([`Code::rule`]) holds all three facts of
//! each code, so that they can't drift apart.

use crate::version::Version;

/// What `overloaded` tells clients to wait: longer than what is under way usually takes.
const RETRY_AFTER_MS: u64 = 100;

/// Whether a failed request took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not happen and never will, not even after a crash.
    NotApplied,
    /// It happened.
    Applied,
    /// It may or may not survive: the client must read to find out.
    Unknown,
}

impl Outcome {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::NotApplied => "not_applied",
            Outcome::Applied => "applied",
            Outcome::Unknown => "unknown",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $retryable:literal $outcome:ident;)*) => {
        /// Every error code of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code's name on the wire, whether it is retryable, and the
            /// outcome it stands for unless the error says otherwise.
            pub fn rule(self) -> (&'static str, bool, Outcome) {
                match self { $(Code::$name => ($text, $retryable, Outcome::$outcome),)* }
            }
        }
    };
}

codes! {
    /// Not UTF-8, not JSON, or a lone surrogate in a string.
    ParseError "parse_error" false NotApplied;
    /// Longer than `--max-line-bytes`.
    LineTooLong "line_too_long" false NotApplied;
    /// No operation of this name.
    UnknownOp "unknown_op" false NotApplied;
    /// A field is missing, unknown, given twice, or not what the operation wants.
    BadRequest "bad_request" false NotApplied;
    /// `hello` asked for a protocol that this node doesn't speak.
    UnsupportedProtocol "unsupported_protocol" false NotApplied;
    /// The operation belongs to another mode of replication.
    UnsupportedInMode "unsupported_in_mode" false NotApplied;
    /// `--indexes` leaves out the index that the request needs.
    IndexDisabled "index_disabled" false NotApplied;
    /// `if_version` is not the key's version; the error carries the current one.
    VersionMismatch "version_mismatch" false NotApplied;
    /// `if_absent` on a key that exists.
    AlreadyExists "already_exists" false NotApplied;
    /// A key over 4 KiB.
    KeyTooLarge "key_too_large" false NotApplied;
    /// A value over 8 MiB.
    ValueTooLarge "value_too_large" false NotApplied;
    /// Too many records, or a reply that would be too large.
    BatchTooLarge "batch_too_large" false NotApplied;
    /// Vectors exist, but none of the length searched for.
    DimensionMismatch "dimension_mismatch" false NotApplied;
    /// A vector that is empty, too long, all zero or not finite.
    BadVector "bad_vector" false NotApplied;
    /// This node is a replica.
    NotLeader "not_leader" true NotApplied;
    /// An election is running.
    NoLeader "no_leader" true NotApplied;
    /// No majority in contact.
    NoQuorum "no_quorum" true NotApplied;
    /// A replica that can't meet `max_staleness_ms`.
    TooStale "too_stale" true NotApplied;
    /// The index is being rebuilt; the error carries its progress.
    IndexNotReady "index_not_ready" true NotApplied;
    /// The node is recovering, or stopping.
    Starting "starting" true NotApplied;
    /// This node's clock is too far from the others'.
    ClockSkew "clock_skew" true NotApplied;
    /// The node has as much work as it may hold.
    Overloaded "overloaded" true NotApplied;
    /// As many connections as the node may hold.
    TooManyConnections "too_many_connections" true NotApplied;
    /// The disk's reserve is reached; reads and deletes go on.
    DiskFull "disk_full" false NotApplied;
    /// The node takes no writes.
    ReadOnly "read_only" false NotApplied;
    /// `--max-memory` is reached; reads and deletes go on.
    OutOfMemory "out_of_memory" false NotApplied;
    /// The disk refused to sync the write.
    SyncFailed "sync_failed" false NotApplied;
    /// No answer within `--request-timeout-ms`. Of a write that was begun the outcome is unknown.
    Timeout "timeout" true NotApplied;
    /// The leader lost its office while the write was under way.
    LeadershipLost "leadership_lost" false Unknown;
    /// Durable here, but not on as many nodes as asked for.
    ReplicationTimeout "replication_timeout" false Applied;
    /// A fault of the node's own.
    Internal "internal" false Unknown;
}

/// Where a client finds the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAddress {
    /// Its number in the cluster.
    pub node_id: u64,
    /// Its address or name.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A fact beyond code and message that some errors carry.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Detail {
    /// Nothing more.
    #[default]
    None,
    /// `version_mismatch`, `already_exists`: the key's version, `None` when it is absent.
    Current(Option<Version>),
    /// `not_leader`: who leads, `None` when that is not known.
    Leader(Option<LeaderAddress>),
    /// `overloaded`: when to try again, in milliseconds.
    RetryAfterMs(u64),
    /// `starting`: what part of the directory is read, 0 to 1.
    Progress(f64),
    /// `index_not_ready`: what part of the indexes is built, 0 to 1, and how long the rest will take,
    /// in milliseconds, if that can be told yet.
    Indexing(f64, Option<u64>),
    /// `dimension_mismatch`: the lengths of the vectors that the prefix has, ascending.
    Lengths(Vec<usize>),
    /// `replication_timeout`: how many nodes have it.
    Acknowledged(usize),
    /// `out_of_memory` of a delete: the members that hold tombstones back.
    HeldBy(Vec<u64>),
}

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// What was wrong and what was expected, for a person.
    pub message: String,
    /// Whether it happened; from the code's rule unless set by [`Error::with_outcome`].
    pub outcome: Outcome,
    /// What the code's entry in the protocol promises beside the message.
    pub detail: Detail,
}

impl Error {
    /// An error with the outcome that its code stands for.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), outcome: code.rule().2, detail: Detail::None }
    }

    /// `overloaded`, with when to try again.
    pub fn overloaded(message: impl Into<String>) -> Error {
        Error::new(Code::Overloaded, message).with_detail(Detail::RetryAfterMs(RETRY_AFTER_MS))
    }

    /// The same error with a fact beside its message.
    #[must_use]
    pub fn with_detail(mut self, detail: Detail) -> Error {
        self.detail = detail;
        self
    }

    /// The same error with another outcome than its code's usual one.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Error {
        self.outcome = outcome;
        self
    }

    /// Whether sending the same request again can succeed without anyone acting.
    pub fn retryable(&self) -> bool {
        self.code.rule().1 && self.outcome == Outcome::NotApplied
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.code.rule().0, self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retryable_implies_not_applied_for_every_code() {
        for code in Code::ALL {
            let (name, retryable, outcome) = code.rule();
            assert!(!retryable || outcome == Outcome::NotApplied, "{name}");
        }
    }

    #[test]
    fn an_unknown_outcome_is_never_retryable() {
        let error = Error::new(Code::Overloaded, "x").with_outcome(Outcome::Unknown);
        assert!(!error.retryable());
    }
}
