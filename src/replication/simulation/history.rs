//! What the committed log says: the versions of every key, one behind the other,
//! and the state behind each entry. Kept apart from what nodes make of it.

use std::collections::BTreeMap;

use super::checker::{Key, Operation};
use super::node::{SHARDS, placement};
use crate::engine::{Effect, Entry, Requests, StateHash, Table, Version};
use crate::persistence::Configuration;
use crate::replication::message::{EntryKind, LogEntry};
use crate::replication::quorum::is_majority;

/// One request of an entry.
#[derive(Debug)]
pub struct Request {
    pub version: Version,
    /// Each key, and whose value it got; `None`: it was deleted.
    pub effects: Vec<(Vec<u8>, Option<Operation>)>,
}

/// The log and what follows from it.
pub struct History {
    /// Each committed entry: its term and payload.
    committed: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Members that entries up to this one name were set aside by force.
    forced_through: u64,
    tables: Vec<Table>,
    hashes: BTreeMap<u64, Vec<StateHash>>,
    /// The members as they were founded, and each change.
    members: Vec<Configuration>,
    /// Each key's writes, in the log's order; `None`: a deletion.
    keys: BTreeMap<Vec<u8>, Vec<(Version, Option<Operation>)>>,
}

impl Default for History {
    fn default() -> Self {
        let tables = (0..SHARDS).map(|shard| Table::new(placement(), shard).with_state_hash()).collect();
        let (committed, hashes, keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        History { committed, forced_through: 0, tables, hashes, members: Vec::new(), keys }
    }
}

impl History {
    /// An entry is committed, says a node. Gives its requests if that is news.
    pub fn committed(&mut self, node: u64, entry: &LogEntry) -> Vec<Request> {
        let index = entry.index;
        if let Some((term, payload)) = self.committed.get(&index) {
            let is_same = *term == entry.term && *payload == entry.payload;
            assert!(is_same, "node {node} applies another entry {index}");
            return Vec::new();
        }
        assert_eq!(index, self.last() + 1, "node {node} leaves entries out");
        self.committed.insert(index, (entry.term, entry.payload.to_vec()));
        if entry.kind == EntryKind::Members {
            let made = Configuration::decode(&entry.payload).expect("members that were encoded");
            if index > self.forced_through {
                self.members.push(Configuration { index, ..made });
            }
            return Vec::new();
        }
        let mut requests: Vec<Request> = Vec::new();
        for item in Requests::new(&entry.payload) {
            let (ordinal, effect) = item.expect("a payload that was written");
            let version = Version { index, ordinal };
            if requests.last().is_none_or(|request| request.version != version) {
                requests.push(Request { version, effects: Vec::new() });
            }
            let effects = requests.last_mut().map(|request| &mut request.effects);
            effects.expect("pushed above").push((effect.key().to_vec(), operation_of(&effect)));
        }
        requests
    }

    /// Who belonged to the cluster before it ever changed.
    pub fn founded(&mut self, base: Configuration) {
        self.members = vec![base];
    }

    /// One node goes on alone, and its log ends at `through`. Gives the last entry that was
    /// committed before and is not lost.
    pub fn forced(&mut self, base: Configuration, through: u64, has: impl Fn(u64, u64) -> bool) -> u64 {
        let is_kept = |(index, (term, _)): &(&u64, &(u64, Vec<u8>))| has(**index, *term);
        let kept = self.committed.iter().take_while(is_kept).map(|(index, _)| *index).last().unwrap_or(0);
        (self.members, self.forced_through) = (vec![base], through);
        self.restored(kept);
        kept
    }

    /// Nothing is known of what was behind this entry.
    pub fn restored(&mut self, kept: u64) {
        self.committed.split_off(&(kept + 1));
        self.hashes.split_off(&(kept + 1));
        let written = std::mem::take(&mut self.keys);
        let mut writes: Vec<_> = written
            .into_iter()
            .flat_map(|(key, writes)| writes.into_iter().map(move |(at, whose)| (at, key.clone(), whose)))
            .filter(|(at, ..)| at.index <= kept)
            .collect();
        writes.sort();
        self.tables = History::default().tables;
        for (version, key, whose) in writes {
            self.apply(&Request { version, effects: vec![(key, whose)] });
        }
    }

    /// Who belongs to the cluster now.
    pub fn members(&self) -> &Configuration {
        self.members.last().expect("it was founded")
    }

    /// How often that has changed.
    pub fn changes(&self) -> u64 {
        self.members.len() as u64 - 1
    }

    /// Whether so many voters have an entry that it is committed: by the voters of then, which a
    /// leader may count that has not applied the change before it, or by any since.
    pub fn is_quorum(&self, index: u64, has: impl Fn(u64) -> bool) -> bool {
        let later = self.members.partition_point(|members| members.index <= index);
        self.members[later.saturating_sub(2)..].iter().any(|made| is_majority(&made.members, &has))
    }

    /// The state goes on to what a request made of it.
    pub fn apply(&mut self, request: &Request) {
        for (key, operation) in &request.effects {
            let hash = placement().hash(key);
            let table = &mut self.tables[placement().shard(hash)];
            let value = operation.map(|operation| operation.to_string());
            table.update(key, hash, |_| {
                Some(Entry::new(request.version, key, Some(value.as_ref()?.as_bytes()), None))
            });
            self.keys.entry(key.clone()).or_default().push((request.version, *operation));
        }
    }

    /// All of an entry is in the state.
    pub fn applied(&mut self, index: u64) {
        let hashes = self.tables.iter().map(|table| table.state_hash().expect("it is kept"));
        self.hashes.entry(index).or_insert_with(|| hashes.collect());
    }

    /// A shard's hash behind an entry.
    pub fn hash(&self, shard: usize, index: u64) -> StateHash {
        self.hashes.get(&index).map_or(StateHash::default(), |hashes| hashes[shard])
    }

    /// The newest committed entry.
    pub fn last(&self) -> u64 {
        self.committed.keys().next_back().copied().unwrap_or(0)
    }

    /// The term of a committed entry.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.committed.get(&index).map(|(term, _)| *term)
    }

    /// Whose write is at this version of the key; `Some(None)`: a deletion.
    pub fn at(&self, key: Key, version: Version) -> Option<Option<Operation>> {
        self.writes(key).iter().find(|(at, _)| *at == version).map(|(_, operation)| *operation)
    }

    /// The key's version before this write of it; `None`: it was absent.
    pub fn before(&self, key: Key, version: Version) -> Option<Version> {
        let writes = self.writes(key);
        let position = writes.partition_point(|(at, _)| *at < version);
        version_of(writes[..position].last())
    }

    /// Someone saw the key at this version (`None`: absent), and knew before that
    /// everything up to entry `seen` is committed. Gives the entry that it saw.
    ///
    /// # Panics
    ///
    /// If the key never was so, or was so only before what was known.
    pub fn saw(&self, key: Key, current: Option<Version>, seen: u64) -> u64 {
        let writes = self.writes(key);
        let least = writes.partition_point(|(version, _)| version.index <= seen);
        let fits = |count: &usize| version_of(writes[..*count].last()) == current;
        let Some(count) = (least..=writes.len()).find(fits) else {
            let newest = writes[..least].last();
            panic!("{current:?} of a key was seen, and {newest:?} had been before it (entry {seen})");
        };
        writes[..count].last().map_or(0, |(version, _)| version.index)
    }

    fn writes(&self, key: Key) -> &[(Version, Option<Operation>)] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }
}

fn version_of(write: Option<&(Version, Option<Operation>)>) -> Option<Version> {
    let (version, operation) = write?;
    operation.map(|_| *version)
}

/// Whose effect it is: a value is the number of the operation that wrote it.
pub fn operation_of(effect: &Effect<'_>) -> Option<Operation> {
    match effect {
        Effect::Set { value, .. } => std::str::from_utf8(value).ok()?.parse().ok(),
        _ => None,
    }
}
