//! Who belonged to the cluster as of which entry.

use std::collections::BTreeMap;

use super::effect::StartMembers;
use crate::persistence::Configuration;
use crate::replication::message::{LogEntry, SnapshotMark};

/// The members as of the log's beginning, and each change since.
pub(super) struct Configurations {
    /// Ascending by index; never empty.
    known: Vec<Configuration>,
    /// As the cluster was founded, or forced.
    base: Configuration,
    forced_through: u64,
    /// Of snapshots that the replica hears of, by index and term: the crate keeps only who votes.
    /// While one is installed it may hear of others, and which one is next the crate decides.
    coming: BTreeMap<(u64, u64), SnapshotMark>,
}

impl Configurations {
    pub fn new(members: StartMembers) -> Configurations {
        let StartMembers { configuration, base, forced_through, .. } = members;
        Configurations { known: vec![configuration], base, forced_through, coming: BTreeMap::new() }
    }

    pub fn newest(&self) -> &Configuration {
        &self.known[self.known.len() - 1]
    }

    /// As of an entry.
    pub fn at(&self, index: u64) -> &Configuration {
        let later = self.known.partition_point(|configuration| configuration.index <= index);
        &self.known[later.saturating_sub(1)]
    }

    /// What an entry says; `None` if it was overruled by force, or by what is known already:
    /// a node that was taken in again reads of what it was before.
    ///
    /// # Panics
    ///
    /// If it can't be read. Checksums were right all the way: it is a fault of a node's own.
    pub fn decode(&self, entry: &LogEntry) -> Option<Configuration> {
        if entry.index <= self.forced_through.max(self.newest().index) {
            return None;
        }
        let made = Configuration::of_entry(entry.index, &entry.payload);
        Some(made.unwrap_or_else(|| panic!("entry {} names no members", entry.index)))
    }

    pub fn push(&mut self, next: Configuration) {
        self.known.push(next);
    }

    /// Nobody asks for entries before this one any more.
    pub fn cut(&mut self, index: u64) {
        let later = self.known.partition_point(|configuration| configuration.index <= index);
        self.known.drain(..later.saturating_sub(1));
    }

    /// If later members are known already they count.
    pub fn comes_with_snapshot(&mut self, mark: &mut SnapshotMark) {
        if self.newest().index > mark.configuration.index {
            mark.configuration = self.newest().clone();
        }
        self.coming.insert((mark.index, mark.term), mark.clone());
    }

    /// None of those that were heard of is to be installed.
    pub fn no_snapshot_waits(&mut self) {
        self.coming.clear();
    }

    /// A snapshot's mark with all that it came with.
    ///
    /// # Panics
    ///
    /// If none of that place came.
    pub fn of_snapshot(&mut self, mark: SnapshotMark) -> SnapshotMark {
        let later = self.coming.split_off(&(mark.index, mark.term + 1));
        let coming = std::mem::replace(&mut self.coming, later).remove(&(mark.index, mark.term));
        coming.unwrap_or_else(|| panic!("a snapshot of entry {} is installed that never came", mark.index))
    }

    /// A snapshot takes the place of all that was applied. One without members of its
    /// own is from before they ever changed.
    pub fn restart_at(&mut self, mark: &SnapshotMark) {
        let is_changed = mark.configuration.index > self.forced_through;
        self.known = vec![if is_changed { mark.configuration.clone() } else { self.base.clone() }];
    }
}
