//! What clients asked, what they were told, and when.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A client does one thing at a time; after an unknown outcome it goes on under a new id.
pub type ClientId = u64;
/// A written value: no two writes of a history write the same one.
pub type Number = u64;
/// A key's version, as the node gave it.
pub type Version = String;
/// Microseconds of one monotonic clock, or any other numbers that only grow. Of two
/// events at the same time neither comes first.
pub type Time = u64;

/// What a write depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no such key.
    IfAbsent,
    /// The key has this version.
    IfVersion(Version),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a key. A `bulk_get` is one of these for each of its keys.
    Get {
        /// Which one.
        key: String,
    },
    /// Writes a key.
    Set {
        /// Which one.
        key: String,
        /// What.
        value: Number,
        /// When.
        condition: Condition,
    },
    /// Removes a key.
    Delete {
        /// Which one.
        key: String,
        /// When; `IfAbsent` is no condition of a delete.
        condition: Condition,
    },
    /// Writes several keys, all or none.
    BulkSet {
        /// Each key once.
        records: Vec<(String, Number)>,
    },
}

impl Operation {
    /// What it writes, and where.
    pub fn writes(&self) -> Vec<(&str, Number)> {
        match self {
            Operation::Set { key, value, .. } => vec![(key, *value)],
            Operation::BulkSet { records } => {
                records.iter().map(|(key, value)| (key.as_str(), *value)).collect()
            }
            Operation::Get { .. } | Operation::Delete { .. } => Vec::new(),
        }
    }
}

/// What a request was answered with when its outcome is known and it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a get: value and version, or `None` for no such key.
    Read(Option<(Number, Version)>),
    /// Of a set or a bulk.
    Written(Version),
    /// Of a delete: whether there was something.
    Deleted(bool),
    /// Of a condition that did not hold: the version that the key has. The write
    /// must never take effect.
    Mismatch(Option<Version>),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Ok(Answer),
    /// It must never take effect; the code says why.
    Refused(String),
    /// It may take effect at any later time, or never; the text says how it ended.
    Unknown(String),
}

/// A request from its invocation to its return.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whose.
    pub client: ClientId,
    /// What was asked.
    pub operation: Operation,
    /// Before it was sent.
    pub invoked: Time,
    /// After its answer was read; `None` while there is none.
    pub returned: Option<Time>,
    /// What became of it.
    pub outcome: Outcome,
}

/// All requests of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order of their invocations.
    pub records: Vec<Record>,
    /// From here on nothing was under way but reads: what had no answer until now has
    /// happened or never will. `None` when the run has not waited for that.
    pub quiet_at: Option<Time>,
}

/// How many requests had which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered with `ok`, or with a condition that didn't hold.
    pub answered: usize,
    /// Those of them that were reads.
    pub reads: usize,
    /// Answered with `not_applied`.
    pub refused: usize,
    /// Nobody knows.
    pub unknown: usize,
}

impl History {
    /// How many requests had which outcome.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for record in &self.records {
            match record.outcome {
                Outcome::Ok(_) => counts.answered += 1,
                Outcome::Refused(_) => counts.refused += 1,
                Outcome::Unknown(_) => counts.unknown += 1,
            }
            counts.reads += usize::from(matches!(record.outcome, Outcome::Ok(Answer::Read(_))));
        }
        counts
    }

    /// Every key that a request names, ascending.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = std::collections::BTreeSet::new();
        for record in &self.records {
            match &record.operation {
                Operation::Get { key } | Operation::Set { key, .. } | Operation::Delete { key, .. } => {
                    keys.insert(key.clone());
                }
                Operation::BulkSet { records } => keys.extend(records.iter().map(|(key, _)| key.clone())),
            }
        }
        keys.into_iter().collect()
    }
}

/// Stands for a request whose return is still to be noted.
#[derive(Clone, Copy, Debug)]
#[must_use = "what is not completed stays unknown"]
pub struct Ticket(usize);

/// Takes the requests of all clients down as they happen.
pub struct Recorder {
    began: Instant,
    page: Mutex<Page>,
}

#[derive(Default)]
struct Page {
    history: History,
    last_number: Number,
    last_client: ClientId,
    answered: usize,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { began: Instant::now(), page: Mutex::default() }
    }
}

impl Recorder {
    /// An empty history, whose clock begins now.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // Each use leaves the page whole, so a panic elsewhere has not harmed it.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        self.began.elapsed().as_micros() as Time
    }

    /// A value that nobody else writes.
    pub fn next_number(&self) -> Number {
        let mut page = self.page();
        page.last_number += 1;
        page.last_number
    }

    /// An id that no other client has.
    pub fn next_client(&self) -> ClientId {
        let mut page = self.page();
        page.last_client += 1;
        page.last_client
    }

    /// Before the request is sent.
    pub fn invoke(&self, client: ClientId, operation: Operation) -> Ticket {
        let mut page = self.page();
        // Under the lock, so that records stand in the order of their times.
        let invoked = self.now();
        let outcome = Outcome::Unknown("no answer".to_string());
        page.history.records.push(Record { client, operation, invoked, returned: None, outcome });
        Ticket(page.history.records.len() - 1)
    }

    /// After its answer was read.
    pub fn complete(&self, ticket: Ticket, outcome: Outcome) {
        let returned = self.now();
        let mut page = self.page();
        page.answered += usize::from(matches!(outcome, Outcome::Ok(_)));
        if let Some(record) = page.history.records.get_mut(ticket.0) {
            record.returned = Some(returned);
            record.outcome = outcome;
        }
    }

    /// From now on there are only reads, and nothing is under way in the cluster.
    pub fn quiet(&self) {
        self.page().history.quiet_at = Some(self.now());
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> usize {
        self.page().answered
    }

    /// A copy of what was taken down so far.
    pub fn history(&self) -> History {
        self.page().history.clone()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Always => Ok(()),
            Condition::IfAbsent => write!(formatter, " if absent"),
            Condition::IfVersion(version) => write!(formatter, " if version {version}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Get { key } => write!(formatter, "get {key}"),
            Operation::Set { key, value, condition } => write!(formatter, "set {key} = {value}{condition}"),
            Operation::Delete { key, condition } => write!(formatter, "delete {key}{condition}"),
            Operation::BulkSet { records } => {
                write!(formatter, "bulk_set")?;
                records.iter().try_for_each(|(key, value)| write!(formatter, " {key} = {value}"))
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok(Answer::Read(None)) => write!(formatter, "not found"),
            Outcome::Ok(Answer::Read(Some((value, version)))) => {
                write!(formatter, "{value}, version {version}")
            }
            Outcome::Ok(Answer::Written(version)) => write!(formatter, "ok, version {version}"),
            Outcome::Ok(Answer::Deleted(true)) => write!(formatter, "ok, deleted"),
            Outcome::Ok(Answer::Deleted(false)) => write!(formatter, "ok, there was nothing"),
            Outcome::Ok(Answer::Mismatch(None)) => write!(formatter, "mismatch, there is nothing"),
            Outcome::Ok(Answer::Mismatch(Some(version))) => {
                write!(formatter, "mismatch, current version {version}")
            }
            Outcome::Refused(why) => write!(formatter, "refused: {why}"),
            Outcome::Unknown(why) => write!(formatter, "unknown: {why}"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Time| format!("{:.3}", time as f64 / 1_000.0);
        let returned = self.returned.map_or("-".to_string(), ms);
        let span = format!("{} – {returned} ms", ms(self.invoked));
        write!(formatter, "client {:<4} {span:<28} {} → {}", self.client, self.operation, self.outcome)
    }
}
