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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

/// A write's number, unique over all rounds; it grows along each connection.
pub type Number = u64;

/// What the writes' vectors look like: numbers that 32-bit floats hold exactly.
const VECTOR_BASE: u64 = 65_536;

/// The value that a write leaves at a key; no other write and no other key has it.
pub fn value_of(number: Number, key: &str) -> Value {
    let filler = "durable ".repeat(1 + (number % 32) as usize);
    json!({"write": number, "key": key, "text": format!("word{number} {filler}")})
}

/// The vector that a write leaves.
pub fn vector_of(number: Number) -> Value {
    json!([1, number % VECTOR_BASE, number / VECTOR_BASE])
}

fn number_in_value(value: &Value) -> Option<Number> {
    value["write"].as_u64()
}

fn number_in_vector(vector: &Value) -> Option<Number> {
    let part = |place: usize| vector[place].as_f64().map(|part| part as u64);
    Some(part(1)? + part(2)? * VECTOR_BASE)
}

/// What a write does to each of its keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    SetValue,
    AddVector,
    Delete,
}

/// What the client knows of a write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    /// Unanswered, or answered with the outcome `unknown`.
    Unknown,
    Acknowledged,
    /// Answered with the outcome `not_applied`: it must never show.
    Refused,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub struct Write {
    pub number: Number,
    pub connection: usize,
    pub kind: Kind,
    begun: u64,
    answered: u64,
    pub told: Told,
    read_by_someone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Part {
    Value,
    Vector,
}

/// A key as it was read back; the numbers are those of the writes that it shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    pub value: Option<Number>,
    pub vector: Option<Number>,
    pub version: String,
}

impl Shown {
    /// Reads an item of `scan`; a value that belongs to another key is no value of ours.
    pub fn of_item(item: &Value) -> Shown {
        let key = item["key"].as_str().expect("an item has its key");
        let value = number_in_value(&item["value"]);
        if let Some(number) = value {
            assert_eq!(item["value"], value_of(number, key), "the value of {key} is not what was written");
        }
        let vector = number_in_vector(&item["vector"]);
        let version = item["version"].as_str().expect("an item has its version").to_string();
        Shown { value, vector, version }
    }

    fn part(&self, part: Part) -> Option<Number> {
        if part == Part::Value { self.value } else { self.vector }
    }
}

/// The state of all keys.
pub type State = BTreeMap<String, Shown>;

/// Counts over all rounds.
#[derive(Default, Debug)]
pub struct Figures {
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    pub registers_verified: u64,
}

/// The book of one node's writes.
#[derive(Default)]
pub struct Ledger {
    clock: u64,
    last_number: Number,
    before: State,
    writes: HashMap<Number, Write>,
    /// By each key that a write of this round names: those writes, oldest first.
    by_key: BTreeMap<String, Vec<Number>>,
    /// The version that each write gave its keys, once known.
    versions: HashMap<Number, String>,
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
        for key in keys {
            self.by_key.entry(key).or_default().push(number);
        }
        let begun = self.tick();
        let told = Told::Unknown;
        let write =
            Write { number, connection, kind, begun, answered: u64::MAX, told, read_by_someone: false };
        self.writes.insert(number, write);
    }

    /// After its reply was read.
    pub fn answered(&mut self, number: Number, told: Told, version: Option<&str>) {
        let now = self.tick();
        let write = self.writes.get_mut(&number).expect("only what was begun is answered");
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
            write.read_by_someone = true;
        }
    }

    /// The writes of this round.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.writes.values()
    }

    /// Whether a write of this round names the key.
    pub fn touched(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Every key that was ever written to or is there.
    pub fn keys(&self) -> BTreeSet<String> {
        self.by_key.keys().chain(self.before.keys()).cloned().collect()
    }

    /// Ends the round with the state that the node shows after its restart.
    /// Gives back everything that the round's answers can't explain.
    pub fn settle(&mut self, now: State) -> Vec<String> {
        let mut faults = Explanation::new(self, &now).faults();
        faults.extend(self.version_faults(&now));
        for write in self.writes.values() {
            match write.told {
                Told::Acknowledged => self.figures.acknowledged += 1,
                Told::Refused => self.figures.refused += 1,
                Told::Unknown => self.figures.unknown += 1,
            }
            if write.told == Told::Refused && write.read_by_someone {
                faults.push(format!("a client has read a write that was refused: {write:?}"));
            }
        }
        self.figures.registers_verified += 2 * self.keys().len() as u64;
        self.writes.clear();
        self.by_key.clear();
        self.before = now;
        faults
    }

    /// A key without a vector shows the version of the write that its value is
    /// of: what the client was told, and the same for all keys of a bulk.
    fn version_faults(&mut self, now: &State) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, shown) in now {
            let (Some(number), None) = (shown.value, shown.vector) else { continue };
            let known = self.versions.entry(number).or_insert_with(|| shown.version.clone());
            if *known != shown.version {
                faults.push(format!("{key}: write {number} has version {known}, the key {}", shown.version));
            }
        }
        faults
    }
}

/// A possible origin of what a register shows.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    BeforeTheRound,
    Write(Number),
}

struct Explanation<'a> {
    ledger: &'a Ledger,
    now: &'a State,
    happened: HashSet<Number>,
}

impl<'a> Explanation<'a> {
    fn new(ledger: &'a Ledger, now: &'a State) -> Self {
        let shown = now.values().flat_map(|shown| [shown.value, shown.vector]).flatten();
        let certain = ledger.writes.values().filter(|write| {
            write.told == Told::Acknowledged || (write.read_by_someone && write.told != Told::Refused)
        });
        let happened = certain.map(|write| write.number).chain(shown).collect();
        Explanation { ledger, now, happened }
    }

    fn faults(mut self) -> Vec<String> {
        // What is the only explanation of one register must be allowed for in all others.
        while self.conclude() {}
        let mut faults = Vec::new();
        for (key, part) in self.registers() {
            if self.origins(&key, part).is_empty() {
                faults.push(self.describe(&key, part));
            }
        }
        faults
    }

    fn registers(&self) -> impl Iterator<Item = (String, Part)> + use<> {
        let mut keys = self.ledger.keys();
        keys.extend(self.now.keys().cloned());
        keys.into_iter().flat_map(|key| [(key.clone(), Part::Value), (key, Part::Vector)])
    }

    fn conclude(&mut self) -> bool {
        let mut concluded = false;
        for (key, part) in self.registers() {
            if let [Origin::Write(only)] = self.origins(&key, part)[..] {
                concluded |= self.happened.insert(only);
            }
        }
        concluded
    }

    /// All that can have left the register as it is.
    fn origins(&self, key: &str, part: Part) -> Vec<Origin> {
        let shown = self.now.get(key).and_then(|shown| shown.part(part));
        let before = self.ledger.before.get(key).and_then(|shown| shown.part(part));
        let writes: Vec<&Write> = self.ledger.by_key.get(key).map_or(Vec::new(), |numbers| {
            numbers
                .iter()
                .map(|number| &self.ledger.writes[number])
                .filter(|write| write.writes(part))
                .collect()
        });
        let leaves = |write: &Write| (write.kind != Kind::Delete).then_some(write.number);
        let candidates = writes.iter().filter(|write| write.told != Told::Refused && leaves(write) == shown);
        let mut origins: Vec<Origin> = candidates
            .filter(|candidate| !writes.iter().any(|later| self.hides(later, candidate)))
            .map(|candidate| Origin::Write(candidate.number))
            .collect();
        if before == shown && !writes.iter().any(|write| self.happened.contains(&write.number)) {
            origins.push(Origin::BeforeTheRound);
        }
        origins
    }

    /// Whether `later` certainly happened, and after `earlier`.
    fn hides(&self, later: &Write, earlier: &Write) -> bool {
        let in_order = later.connection == earlier.connection && later.number > earlier.number;
        self.happened.contains(&later.number) && (in_order || later.begun > earlier.answered)
    }

    fn describe(&self, key: &str, part: Part) -> String {
        let shown = self.now.get(key);
        let before = self.ledger.before.get(key);
        let numbers = self.ledger.by_key.get(key).cloned().unwrap_or_default();
        let writes: Vec<&Write> = numbers.iter().map(|number| &self.ledger.writes[number]).collect();
        format!("{key}: its {part:?} can't be explained\n  now {shown:?}\n  before {before:?}\n  {writes:#?}")
    }
}

impl Write {
    fn writes(&self, part: Part) -> bool {
        match self.kind {
            Kind::SetValue => part == Part::Value,
            Kind::AddVector => part == Part::Vector,
            Kind::Delete => true,
        }
    }
}
