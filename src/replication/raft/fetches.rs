//! Reading payloads back that memory has let go, for a follower that lags.

use std::collections::{BTreeMap, HashMap};

use ::raft::{GetEntriesContext, StateRole};

use super::effect::Effect;
use super::replica::Replica;
use super::storage::Missing;
use crate::replication::message::LogEntry;

/// Payloads that are being read back, and what goes on when they have come.
struct Fetching {
    low: u64,
    /// For each its name: the crate asks again at every message that it would
    /// send, and each answer makes it ask for what comes next.
    contexts: BTreeMap<String, GetEntriesContext>,
}

/// Those under way.
#[derive(Default)]
pub(super) struct Fetches {
    by_number: HashMap<u64, Fetching>,
    begun: u64,
}

impl Replica {
    /// What the log occupies in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.node.store().memory_bytes()
    }

    /// Asks for payloads, unless the same are on their way already.
    pub(super) fn fetch(&mut self, missing: Missing) {
        let Missing { low, high, bytes_max, context } = missing;
        let name = format!("{context:?}");
        if let Some(same) = self.fetches.by_number.values_mut().find(|fetching| fetching.low == low) {
            same.contexts.insert(name, context);
            return;
        }
        self.fetches.begun += 1;
        self.effects.push(Effect::Fetch { number: self.fetches.begun, low, high, bytes_max });
        let contexts = BTreeMap::from([(name, context)]);
        self.fetches.by_number.insert(self.fetches.begun, Fetching { low, contexts });
    }

    pub(super) fn fetched(&mut self, number: u64, entries: Vec<LogEntry>) {
        let Some(fetching) = self.fetches.by_number.remove(&number) else { return };
        if entries.is_empty() {
            // They are gone from the disk, or can't be read: the follower is sent a snapshot when it asks again.
            return;
        }
        self.node.mut_store().fetched(entries);
        for (_, context) in fetching.contexts {
            self.node.on_entries_fetched(context);
        }
        self.node.mut_store().forget_fetched();
    }

    /// An empty entry, as each leader's first one is.
    pub(super) fn go_on(&mut self) {
        if self.node.raft.state == StateRole::Leader {
            // Where it can't be proposed, as while leadership is handed over, someone asks again.
            let _ = self.node.propose(Vec::new(), Vec::new());
        }
    }
}
