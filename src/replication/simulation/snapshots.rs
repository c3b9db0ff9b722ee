//! Snapshots: walked by the shards while they go on, kept, and sent whole.
//!
//! ```text
//!   entries  ──────S───────────────────E────────►
//!   shard 0        ├─ copies ─┤   copies ┤        what it has applied meanwhile is in some of it
//!   shard 1            ├─ copies ─┤
//!   recovery       └── replays (S, E] over it ──► the state behind E
//! ```

use super::Mutant;
use super::cluster::Cluster;
use super::node::{Node, SHARDS, State, replay_entries};
use super::shards::Mail;
use crate::engine::{Entry, Table};
use crate::replication::message::SnapshotMark;

/// A walk has so many steps, between which a shard does other things.
pub const WALK_STEPS: usize = 3;

/// A snapshot that is being made.
pub struct Copying {
    /// S.
    pub after: u64,
    /// E, as far as it is known.
    through: u64,
    /// The log may be cut behind this entry; `None`: it is left as it is.
    cut_index: Option<u64>,
    entries: Vec<Entry>,
    /// Steps of all shards that are still to come.
    missing: usize,
}

impl Cluster {
    /// The node makes a snapshot, and may cut its log.
    pub fn snapshot(&mut self, place: usize, cut: bool) {
        let keep = self.below(6);
        let Node { process, disk, .. } = &mut self.nodes[place];
        let Some(process) = process else { return };
        let after = process.notices.handed_over();
        let is_newer = disk.snapshot.as_ref().is_none_or(|(mark, _)| mark.index < after);
        if after == 0 || !is_newer || process.copying.is_some() {
            return;
        }
        let cut_index = cut.then(|| after.saturating_sub(keep));
        let missing = SHARDS * WALK_STEPS;
        process.copying = Some(Copying { after, through: after, cut_index, entries: Vec::new(), missing });
        (0..SHARDS).for_each(|shard| self.mail(place, shard, Mail::Walk(after, 0)));
    }

    /// A shard's step of the walk; with the last one the snapshot is durable.
    pub fn walked(&mut self, place: usize, after: u64, entries: Vec<Entry>, applied: u64) {
        let Node { process, disk, .. } = &mut self.nodes[place];
        let Some(process) = process else { return };
        let Some(copying) = process.copying.as_mut().filter(|copying| copying.after == after) else { return };
        copying.entries.extend(entries);
        copying.through = copying.through.max(applied);
        copying.missing -= 1;
        if copying.missing > 0 {
            return;
        }
        let Some(Copying { through: index, cut_index, entries, .. }) = process.copying.take() else { return };
        // Unknown when the log has begun anew behind another state meanwhile.
        let Some(term) = process.replica.term_of(index) else { return };
        let configuration = process.replica.configuration_at(index).clone();
        let mark = SnapshotMark { index, term, configuration };
        let cut_index = cut_index.unwrap_or(disk.cut().0);
        disk.snapshot(mark.clone(), State { applied: index, entries }, after, cut_index);
        process.replica.snapshot_made(mark, after, disk.cut().0);
    }

    /// The state of a snapshot, unless a newer one has taken its place: that behind E.
    pub fn state_of(&self, place: usize, mark: Option<&SnapshotMark>) -> Option<State> {
        let disk = &self.nodes[place].disk;
        let mark = mark?;
        let is_it =
            |(newest, _): &&(SnapshotMark, State)| (newest.index, newest.term) == (mark.index, mark.term);
        let (_, state) = disk.snapshot.as_ref().filter(is_it)?;
        if disk.replay_after == state.applied || self.mutant == Some(Mutant::WalkNotReplayed) {
            return Some(state.clone());
        }
        let entries = disk.read(disk.replay_after + 1, state.applied + 1, u64::MAX);
        assert!(!entries.is_empty(), "the log is cut behind S");
        let mut tables: Vec<Table> = (0..SHARDS).map(|shard| state.table(shard)).collect();
        replay_entries(&mut tables, &entries, self.mutant);
        let walk = |table: &Table| -> Vec<Entry> { table.walk_step(0, usize::MAX, usize::MAX).0 };
        Some(State { applied: state.applied, entries: tables.iter().flat_map(walk).collect() })
    }
}
