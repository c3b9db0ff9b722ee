//! The keys and values of one run: they begin with the run's name, so that a run
//! can stand beside other data, and they are bounded in number.

use serde_json::{Value, json};

use super::ledger::Number;

/// What the writes' vectors look like: numbers that 32-bit floats hold exactly.
const VECTOR_BASE: u64 = 65_536;
/// Keys that only one connection writes to.
const OWN_KEYS: u64 = 150;
/// Keys that all connections write to.
const SHARED_KEYS: u64 = 60;
/// Keys of a bulk; with four shards nearly every bulk touches all of them.
pub(super) const BULK_KEYS: u64 = 8;
/// Bulks of a connection whose keys no other kind of write touches.
const BULKS: u64 = 12;

/// The names of one run.
#[derive(Clone, Debug)]
pub struct Names {
    run: String,
}

impl Names {
    /// `run` must be letters and digits: it becomes part of a word that is searched for.
    pub fn new(run: &str) -> Names {
        Names { run: run.to_string() }
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> String {
        format!("{}-", self.run)
    }

    /// A key that is none of the writers': a write that shows how far a cluster is.
    pub(super) fn marker(&self) -> String {
        format!("{}_marker", self.run)
    }

    /// A word of the value that a write leaves, and of no other one.
    pub fn word(&self, number: Number) -> String {
        format!("{}n{number}", self.run)
    }

    /// The value that a write leaves at a key; no other write and no other key has it.
    pub fn value(&self, number: Number, key: &str) -> Value {
        let filler = "durable ".repeat(1 + (number % 32) as usize);
        json!({"write": number, "key": key, "text": format!("{} {filler}", self.word(number))})
    }

    /// The vector that a write leaves.
    pub fn vector(&self, number: Number) -> Value {
        json!([1, number % VECTOR_BASE, number / VECTOR_BASE])
    }

    /// One of a connection's own keys, or of those that all share.
    pub(super) fn key(&self, connection: usize, choice: u64) -> String {
        let place = choice / 3;
        match choice % 3 {
            0 => self.shared_key(place),
            _ => format!("{}-own-{connection}-{:04}", self.run, place % OWN_KEYS),
        }
    }

    /// A key that all connections write to.
    pub(super) fn shared_key(&self, choice: u64) -> String {
        format!("{}-shared-{:04}", self.run, choice % SHARED_KEYS)
    }

    /// The keys of one of a connection's own bulks.
    pub(super) fn bulk_keys(&self, connection: usize, choice: u64) -> Vec<String> {
        let bulk = choice % BULKS;
        let key = |member| format!("{}-bulk-{connection}-{bulk:02}-{member}", self.run);
        (0..BULK_KEYS).map(key).collect()
    }
}

/// The write whose value this is.
pub(super) fn number_in_value(value: &Value) -> Option<Number> {
    value["write"].as_u64()
}

/// The write whose vector this is.
pub(super) fn number_in_vector(vector: &Value) -> Option<Number> {
    let part = |place: usize| vector[place].as_f64().map(|part| part as u64);
    Some(part(1)? + part(2)? * VECTOR_BASE)
}
