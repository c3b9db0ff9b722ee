//! What follows from the answers without any search: which write a version belongs
//! to, which writes without an answer were seen, and what contradicts itself.

use std::collections::HashMap;

use super::history::{Answer, History, Number, Operation, Outcome, Record, Time, Version};

/// An answer that no order could explain.
pub(super) struct Fault {
    pub key: String,
    pub text: String,
    /// The records that show it, by their places in the history.
    pub records: Vec<usize>,
}

/// Where a history's values and versions come from.
#[derive(Default)]
pub(super) struct Facts {
    /// By value: the record that writes it.
    writers: HashMap<Number, usize>,
    /// By writing record: the version that it gave all its keys, and who was told first.
    versions: HashMap<usize, (Version, usize)>,
    /// By key and version: the value.
    owners: HashMap<(String, Version), Number>,
    /// By value: when the first client knew that it had been written.
    seen: HashMap<Number, Time>,
    pub(super) faults: Vec<Fault>,
}

/// The request's key, if it has one and only one.
pub(super) fn key_of(record: &Record) -> Option<&str> {
    match &record.operation {
        Operation::Get { key } | Operation::Set { key, .. } | Operation::Delete { key, .. } => Some(key),
        Operation::BulkSet { .. } => None,
    }
}

impl Facts {
    /// Goes through all answers.
    pub(super) fn of(history: &History) -> Facts {
        let mut facts = Facts::default();
        for (place, record) in history.records.iter().enumerate() {
            for (key, value) in record.operation.writes() {
                if let Some(other) = facts.writers.insert(value, place) {
                    facts.fault(
                        key,
                        format!("two requests write {value}: nothing can be told"),
                        &[other, place],
                    );
                }
            }
        }
        for (place, record) in history.records.iter().enumerate() {
            facts.take_in(history, place, record);
        }
        facts.find_owners(history);
        for record in &history.records {
            let (Outcome::Ok(Answer::Mismatch(Some(version))), Some(key)) = (&record.outcome, key_of(record))
            else {
                continue;
            };
            if let Some(value) = facts.owners.get(&(key.to_string(), version.clone())).copied() {
                facts.was_seen(value, record);
            }
        }
        facts
    }

    /// The version that a writing record gave its keys, if anybody was told.
    pub(super) fn version(&self, writer: usize) -> Option<Version> {
        self.versions.get(&writer).map(|(version, _)| version.clone())
    }

    /// When a value had certainly been written.
    pub(super) fn seen(&self, value: Number) -> Option<Time> {
        self.seen.get(&value).copied()
    }

    /// Keys, and versions of theirs whose writes are known.
    pub(super) fn owned(&self) -> impl Iterator<Item = (&str, &Version)> {
        self.owners.keys().map(|(key, version)| (key.as_str(), version))
    }

    fn take_in(&mut self, history: &History, place: usize, record: &Record) {
        match &record.outcome {
            Outcome::Ok(Answer::Written(version)) => {
                let key =
                    record.operation.writes().first().map(|(key, _)| key.to_string()).unwrap_or_default();
                self.has_version(place, version, place, &key);
            }
            Outcome::Ok(Answer::Read(Some((value, version)))) => {
                let key = key_of(record).unwrap_or_default();
                let Some(writer) = self.writer(history, key, *value) else {
                    return self.fault(
                        key,
                        format!("{value} was read, and nobody has written it here"),
                        &[place],
                    );
                };
                match &history.records[writer].outcome {
                    Outcome::Refused(_) | Outcome::Ok(Answer::Mismatch(_)) => {
                        let text = format!("{value} was read, and its write had been refused");
                        self.fault(key, text, &[writer, place]);
                    }
                    _ => {
                        self.has_version(writer, version, place, key);
                        self.was_seen(*value, record);
                    }
                }
            }
            _ => {}
        }
    }

    /// Who writes this value to this key.
    fn writer(&self, history: &History, key: &str, value: Number) -> Option<usize> {
        let writer = *self.writers.get(&value)?;
        history.records[writer].operation.writes().contains(&(key, value)).then_some(writer)
    }

    fn has_version(&mut self, writer: usize, version: &Version, told: usize, key: &str) {
        let (known, first) = self.versions.entry(writer).or_insert_with(|| (version.clone(), told)).clone();
        if known != *version {
            let text = format!("one write has two versions, {known} and {version}: it was applied twice");
            let mut records = vec![writer, first, told];
            records.dedup();
            self.fault(key, text, &records);
        }
    }

    fn was_seen(&mut self, value: Number, by: &Record) {
        let Some(returned) = by.returned else { return };
        let seen = self.seen.entry(value).or_insert(returned);
        *seen = returned.min(*seen);
    }

    fn find_owners(&mut self, history: &History) {
        let mut writers: Vec<(usize, Version)> =
            self.versions.iter().map(|(writer, (version, _))| (*writer, version.clone())).collect();
        writers.sort_unstable();
        for (writer, version) in writers {
            for (key, value) in history.records[writer].operation.writes() {
                let Some(other) = self.owners.insert((key.to_string(), version.clone()), value) else {
                    continue;
                };
                let other = self.writers.get(&other).copied().unwrap_or(writer);
                self.fault(key, format!("two writes have one version, {version}"), &[other, writer]);
            }
        }
    }

    fn fault(&mut self, key: &str, text: String, records: &[usize]) {
        self.faults.push(Fault { key: key.to_string(), text, records: records.to_vec() });
    }
}
