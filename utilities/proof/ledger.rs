//! What clients were told of their writes, and whether a state can be explained by it.
//!
//! A key has two registers, its value and its vector; a delete clears both.
//! Every write has a number of its own, which stands in the value or vector that
//! it leaves, so a register says which write made it. After a crash each
//! register must show
//!
//! ```text
//! the state before this round, or a write of this round      never one that was refused,
//!                                                            never half of a bulk
//! and no write that certainly happened came after it         nothing acknowledged is lost
//! ```
//!
//! "Certainly happened": it was acknowledged, a client has read it, it shows in
//! another register, or nothing else explains a register. "Came after": it was
//! begun after the other one was answered, or behind it on the same connection.
//!
//! What a round has shown is the next one's "before": a write whose outcome was
//! unknown is settled by what is read, and must stay so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::explanation::Explanation;
use super::fault::{Fault, FaultKind};
use super::names::number_in_value;

/// A write's number, unique over all rounds; it grows along each connection.
pub type Number = u64;

/// What a write does to each of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Leaves a value; the vector stays.
    SetValue,
    /// Leaves a vector; the value stays.
    AddVector,
    /// Removes both.
    Delete,
}

/// What the client knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Unanswered, or answered with the outcome `unknown`.
    Unknown,
    /// Answered with `ok`.
    Acknowledged,
    /// Answered with the outcome `not_applied`: it must never show.
    Refused,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its number.
    pub number: Number,
    /// What it does to its keys.
    pub kind: Kind,
    /// What became of it, as far as its client knows.
    pub told: Told,
    pub(super) connection: usize,
    pub(super) is_bulk: bool,
    pub(super) begun: u64,
    pub(super) answered: u64,
    pub(super) is_read: bool,
}

impl Write {
    /// What it leaves in the registers that it writes.
    pub(super) fn leaves(&self) -> Option<Number> {
        (self.kind != Kind::Delete).then_some(self.number)
    }
}

/// A key as it was read back; the numbers are those of the writes that it shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Of its value.
    pub value: Option<Number>,
    /// Of its vector.
    pub vector: Option<Number>,
    /// As the node gave it.
    pub version: String,
}

/// The state of all keys.
pub type State = BTreeMap<String, Shown>;

/// Counts over all rounds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    /// Writes answered with `ok`.
    pub acknowledged: u64,
    /// Writes answered with `not_applied`.
    pub refused: u64,
    /// Writes whose outcome nobody was told.
    pub unknown: u64,
    /// Of the unknown ones, those that have turned out to have happened; the
    /// others have not, or were overwritten.
    pub unknown_applied: u64,
    /// Values and vectors that were held to what had been told.
    pub registers_verified: u64,
    /// Faults of each kind.
    pub lost: u64,
    /// See [`FaultKind::Resurrected`].
    pub resurrected: u64,
    /// See [`FaultKind::PartialBulk`].
    pub partial_bulks: u64,
    /// See [`FaultKind::Disagreement`].
    pub disagreements: u64,
    /// See [`FaultKind::Divergence`].
    pub divergences: u64,
}

impl Figures {
    /// Counts these.
    pub fn count(&mut self, faults: &[Fault]) {
        for fault in faults {
            match fault.kind {
                FaultKind::Lost => self.lost += 1,
                FaultKind::Resurrected => self.resurrected += 1,
                FaultKind::PartialBulk => self.partial_bulks += 1,
                FaultKind::Disagreement => self.disagreements += 1,
                FaultKind::Divergence => self.divergences += 1,
            }
        }
    }
}

/// The book of all writes to one node, or to one cluster.
#[derive(Default)]
pub struct Ledger {
    clock: u64,
    last_number: Number,
    /// Every key that was ever named.
    known: BTreeSet<String>,
    pub(super) before: State,
    pub(super) writes: HashMap<Number, Write>,
    /// By each key that a write of this round names: those writes, oldest first.
    pub(super) by_key: BTreeMap<String, Vec<Number>>,
    /// The version that each write gave its keys, once known.
    versions: HashMap<Number, String>,
    /// Counts over all rounds.
    pub figures: Figures,
}

impl Ledger {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A number for a write that is about to be begun.
    pub fn next_number(&mut self) -> Number {
        self.last_number += 1;
        self.last_number
    }

    /// Before the write is sent.
    pub fn begin(&mut self, number: Number, connection: usize, kind: Kind, keys: Vec<String>) {
        let is_bulk = keys.len() > 1;
        for key in keys {
            if !self.known.contains(&key) {
                self.known.insert(key.clone());
            }
            self.by_key.entry(key).or_default().push(number);
        }
        let (begun, answered) = (self.tick(), u64::MAX);
        let told = Told::Unknown;
        let write = Write { number, kind, told, connection, is_bulk, begun, answered, is_read: false };
        self.writes.insert(number, write);
    }

    /// After its reply was read.
    pub fn answered(&mut self, number: Number, told: Told, version: Option<&str>) {
        let now = self.tick();
        let Some(write) = self.writes.get_mut(&number) else { return };
        write.told = told;
        if told != Told::Unknown {
            write.answered = now;
        }
        if let (Told::Acknowledged, Some(version)) = (told, version) {
            self.versions.insert(number, version.to_string());
        }
    }

    /// A client has read this value at a moment of this round.
    pub fn was_read(&mut self, value: &Value) {
        if let Some(write) = number_in_value(value).and_then(|number| self.writes.get_mut(&number)) {
            write.is_read = true;
        }
    }

    /// The writes of this round.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.writes.values()
    }

    pub(super) fn writes_len(&self) -> usize {
        self.writes.len()
    }

    /// Whether a write of this round names the key.
    pub fn touched(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Every key that was ever named.
    pub fn keys(&self) -> &BTreeSet<String> {
        &self.known
    }

    /// Ends the round with the state that the node shows.
    /// Gives back everything that the round's answers can't explain.
    pub fn settle(&mut self, now: State) -> Vec<Fault> {
        let explanation = Explanation::new(self, &now);
        let mut faults = explanation.faults();
        let is_applied = |write: &&Write| write.told == Told::Unknown && explanation.happened(write.number);
        self.figures.unknown_applied += self.writes.values().filter(is_applied).count() as u64;
        faults.extend(self.faults_of_reads());
        faults.extend(self.faults_of_versions(&now));
        for write in self.writes.values() {
            match write.told {
                Told::Acknowledged => self.figures.acknowledged += 1,
                Told::Refused => self.figures.refused += 1,
                Told::Unknown => self.figures.unknown += 1,
            }
        }
        self.figures.registers_verified += 2 * self.known.len() as u64;
        self.writes.clear();
        self.by_key.clear();
        // What shows no more can't come back: its version is of no use.
        let alive: BTreeSet<Number> = now.values().filter_map(|shown| shown.value).collect();
        self.versions.retain(|number, _| alive.contains(number));
        self.before = now;
        faults
    }

    /// Refused writes that a client has read before the crash.
    fn faults_of_reads(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (key, numbers) in &self.by_key {
            let writes = numbers.iter().map(|number| &self.writes[number]);
            for write in writes.filter(|write| write.told == Told::Refused && write.is_read) {
                faults.push(Fault {
                    kind: FaultKind::Resurrected,
                    key: key.clone(),
                    expected: format!("that nobody ever reads write {}, which was refused", write.number),
                    found: "that a client has read it".to_string(),
                });
            }
        }
        faults
    }

    /// A key without a vector shows the version of the write that its value is
    /// of: what the client was told, and the same for all keys of a bulk.
    fn faults_of_versions(&mut self, now: &State) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (key, shown) in now {
            let (Some(number), None) = (shown.value, shown.vector) else { continue };
            let known = self.versions.entry(number).or_insert_with(|| shown.version.clone());
            if *known != shown.version {
                let expected = format!("version {known} of write {number}");
                faults.push(Fault::disagreement(key, expected, format!("version {}", shown.version)));
            }
        }
        faults
    }
}
