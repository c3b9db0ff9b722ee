//! Payloads that only the disk has, for followers that lag.

use std::collections::{BTreeMap, HashMap};

use ::raft::GetEntriesContext;

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

/// What the disk was asked for.
#[derive(Default)]
pub(super) struct Fetches {
    under_way: HashMap<u64, Fetching>,
    begun: u64,
}

impl Replica {
    /// Asks for payloads, unless the same are on their way already.
    pub(super) fn fetch(&mut self, missing: Missing) {
        let Missing { low, high, bytes_max, context } = missing;
        let name = format!("{context:?}");
        if let Some(same) = self.fetches.under_way.values_mut().find(|fetching| fetching.low == low) {
            same.contexts.insert(name, context);
            return;
        }
        self.fetches.begun += 1;
        let number = self.fetches.begun;
        self.effects.push(Effect::Fetch { number, low, high, bytes_max });
        let contexts = BTreeMap::from([(name, context)]);
        self.fetches.under_way.insert(number, Fetching { low, contexts });
    }

    pub(super) fn fetched(&mut self, number: u64, entries: Vec<LogEntry>) {
        let Some(fetching) = self.fetches.under_way.remove(&number) else { return };
        if entries.is_empty() {
            // They are gone from the disk: the follower is sent a snapshot when it asks again.
            return;
        }
        self.node.mut_store().fetched(entries);
        for (_, context) in fetching.contexts {
            self.node.on_entries_fetched(context);
        }
        self.node.mut_store().forget_fetched();
    }
}
