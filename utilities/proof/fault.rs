//! What a node shows that nothing it has said can explain.

use std::fmt;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A write that certainly happened isn't there.
    Lost,
    /// A write that was refused or deleted is there.
    Resurrected,
    /// A bulk shows at some of its keys only.
    PartialBulk,
    /// A read tells something else than what was written, or than another read.
    Disagreement,
    /// A node of a cluster holds something else than another one, or says that it did.
    Divergence,
}

/// One fault, at one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Where.
    pub key: String,
    /// What may be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Fault {
    /// A read that contradicts what was written or read elsewhere.
    pub fn disagreement(key: &str, expected: impl fmt::Display, found: impl fmt::Display) -> Fault {
        let (expected, found) = (expected.to_string(), found.to_string());
        Fault { kind: FaultKind::Disagreement, key: key.to_string(), expected, found }
    }

    /// What two nodes show differently.
    pub fn divergence(key: &str, expected: impl fmt::Display, found: impl fmt::Display) -> Fault {
        Fault { kind: FaultKind::Divergence, ..Fault::disagreement(key, expected, found) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Lost => "LOST",
            FaultKind::Resurrected => "RESURRECTED",
            FaultKind::PartialBulk => "PARTIAL BULK",
            FaultKind::Disagreement => "DISAGREEMENT",
            FaultKind::Divergence => "DIVERGENCE",
        };
        write!(formatter, "{kind} {}: expected {}, found {}", self.key, self.expected, self.found)
    }
}
