//! What a slice does in dynamo mode beside its own writes: it merges what other
//! nodes wrote, whole states that a peer sends, and forgets what a peer that had
//! seen it has no more.

use super::converge::{Conflict, Merged, SameVersion, Seen, Stamp, forget_parts, merge_effect, merge_state};
use super::effect::Effect;
use super::entry::{Change, Entry};
use super::slice::Slice;
use crate::limits::{CONFLICTS_KEPT_BYTES_MAX, CONFLICTS_KEPT_MAX};
use crate::version::Version;

impl<T> Slice<T> {
    /// From now on this slice converges with others: it has seen this much of their writes.
    pub fn converge(&mut self, seen: Seen) {
        self.seen = Some(seen);
    }

    /// As [`Slice::committed`], in dynamo mode: their versions are this stamp's.
    pub fn committed_at(&mut self, index: u64, stamp: Stamp, writes: &[(u32, u32)]) {
        self.committed_as(index, writes, |ordinal| stamp.version(ordinal));
        let last = writes.iter().map(|(_, ordinal)| *ordinal).max();
        if let (Some(seen), Some(last)) = (&mut self.seen, last) {
            seen.raise(stamp.origin, stamp.version(last).index);
        }
    }

    /// Merges a write of this node's own, which has seen all that is here.
    pub(super) fn merge_own(
        &mut self,
        effect: &Effect<'_>,
        hash: u64,
        version: Version,
    ) -> (Option<Entry>, Option<Entry>) {
        let Merged { old, new } =
            merge_effect(&mut self.table, effect, hash, version, &|_| true, &mut |_| {});
        (old, new)
    }

    fn changed(&mut self, Merged { old, new }: Merged) {
        let same = match (&old, &new) {
            (None, None) => true,
            (Some(old), Some(new)) => old.is_same(new),
            _ => false,
        };
        if !same {
            self.output.changes.push(Change { old, new });
        }
    }

    /// Merges an entry that another node wrote: the effects that concern this slice,
    /// each with its ordinal and its key's hash. `context` is what its writer had seen,
    /// `last` the time of its last request.
    pub fn merge_logged<'a>(
        &mut self,
        index: u64,
        (stamp, last): (Stamp, u64),
        context: &Seen,
        effects: impl Iterator<Item = (u32, Effect<'a>, u64)>,
    ) {
        self.applied(index);
        let mut conflicts: Vec<Conflict> = Vec::new();
        let (mut bytes, mut omitted) = (0, 0);
        for (ordinal, effect, hash) in effects {
            let seen = self.seen.take().unwrap_or_default();
            // Of what came here by a repair, ahead of its own entry, nobody can tell what it knew.
            let is_known = |other: Version| context.covers(other) || !seen.covers(other);
            let version = stamp.version(ordinal);
            // One large value may win against very many small ones.
            let mut report = |make: &dyn Fn() -> Conflict| {
                if conflicts.len() >= CONFLICTS_KEPT_MAX || bytes >= CONFLICTS_KEPT_BYTES_MAX {
                    omitted += 1;
                    return;
                }
                let conflict = make();
                bytes += conflict.memory_bytes();
                conflicts.push(conflict);
            };
            let merged = merge_effect(&mut self.table, &effect, hash, version, &is_known, &mut report);
            self.seen = Some(seen);
            self.changed(merged);
        }
        self.output.conflicts.append(&mut conflicts);
        self.output.conflicts_omitted += omitted;
        self.sees(stamp.origin, last);
    }

    /// This origin's writes up to this time are applied here.
    pub fn sees(&mut self, origin: u32, last: u64) {
        self.seen.get_or_insert_default().raise(origin, last);
    }

    fn applied(&mut self, index: u64) {
        assert!(index >= self.applied_index, "entry {index} after {}", self.applied_index);
        self.applied_index = index;
    }

    /// Merges states of keys that another node has sent, each with its key's hash. `covered`:
    /// what that node had seen, so that what it hasn't got of it is gone.
    pub fn merge_states(
        &mut self,
        index: u64,
        entries: impl Iterator<Item = (Entry, u64)>,
        same: SameVersion,
        covered: &Seen,
    ) {
        self.applied(index);
        let seen = self.seen.take().unwrap_or_default();
        for (entry, hash) in entries {
            let merged = merge_state(&mut self.table, &entry, hash, same, (covered, &seen));
            self.changed(merged);
        }
        self.seen = Some(seen);
    }

    /// Forgets these keys' parts of exactly these versions.
    pub fn forget<'a>(&mut self, index: u64, gone: impl Iterator<Item = (&'a [u8], u64, Version)>) {
        self.applied(index);
        for (key, hash, version) in gone {
            let merged = forget_parts(&mut self.table, key, hash, &|other| other == version);
            self.changed(merged);
        }
    }

    /// Forgets tombstones up to this time; how many they were.
    pub fn collect_tombstones(&mut self, through: u64) -> usize {
        self.table.collect_tombstones(through)
    }
}
