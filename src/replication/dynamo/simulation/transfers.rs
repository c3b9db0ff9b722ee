//! A node takes over another one's state while both go on, as actors do it.

use std::collections::BTreeSet;

use bytes::BytesMut;

use super::cluster::{Cluster, Event};
use super::node::{Process, SHARDS};
use crate::engine::{Entry, SameVersion, Table, Version};
use crate::replication::dynamo::clock::is_ahead;
use crate::replication::dynamo::entry::encode_state;
use crate::replication::dynamo::{BucketHashes, SnapshotVector, bucket_of};
use crate::replication::message::NodeId;

const STEP_ENTRIES: usize = 2;

/// One that is under way.
pub struct Transfer {
    source: (usize, u64),
    puller: (usize, u64),
    /// As the source names it.
    number: u64,
    epoch: u64,
    repair: Option<SameVersion>,
    /// Of the source, when it began.
    state: SnapshotVector,
    /// Buckets to repair.
    differing: Vec<u32>,
    shard: usize,
    position: usize,
    received: BTreeSet<Vec<u8>>,
    last_index: u64,
}

fn bucket_hashes(process: &Process) -> BucketHashes {
    let mut hashes = BucketHashes::default();
    all_entries(process).iter().for_each(|entry| hashes.add(entry));
    hashes
}

fn all_entries(process: &Process) -> Vec<Entry> {
    let walk = |table: &Table| table.walk_step(0, usize::MAX, usize::MAX).0;
    process.slices.iter().flat_map(|slice| walk(slice.table())).collect()
}

impl Cluster {
    /// The replica asks for it.
    pub fn pull(&mut self, place: usize, from: NodeId, repair: Option<SameVersion>) {
        let (source, puller_id) = (from as usize - 1, place as NodeId + 1);
        let link = self.link(source, place);
        let incarnations = (self.nodes[source].incarnation, self.nodes[place].incarnation);
        let reaches = link.is_up && self.nodes[source].process.is_some();
        let Some(puller) = &self.nodes[place].process else { return };
        let ours = bucket_hashes(puller);
        let serves = self.nodes[source].process.as_ref().is_some_and(|process| {
            let replica = &process.replica;
            replica.excess().is_empty() && puller.replica.may_take(&replica.history().state())
        });
        let Some(process) = self.nodes[source].process.as_mut().filter(|_| reaches && serves) else {
            return self.after(50, Event::PullFailed(place, incarnations.1));
        };
        let differing = bucket_hashes(process).differing(ours.hashes()).unwrap_or_default();
        let (number, state) = process.replica.transfer_begins(puller_id);
        match repair {
            None => self.figures.transfers += 1,
            Some(_) => self.figures.repairs += 1,
        }
        self.next_transfer += 1;
        let transfer = Transfer {
            source: (source, incarnations.0),
            puller: (place, incarnations.1),
            number,
            epoch: link.epoch,
            repair,
            state,
            differing,
            shard: 0,
            position: 0,
            received: BTreeSet::new(),
            last_index: 0,
        };
        self.transfers.insert(self.next_transfer, transfer);
        self.after(5, Event::Transfer(self.next_transfer));
    }

    /// One more step.
    pub fn transfer(&mut self, number: u64) {
        let Some(mut transfer) = self.transfers.remove(&number) else { return };
        let ((source, _), (puller, _)) = (transfer.source, transfer.puller);
        let link = self.link(source, puller);
        let is_whole = link.is_up && link.epoch == transfer.epoch;
        if !is_whole || !self.runs(transfer.source) || !self.runs(transfer.puller) {
            return self.transfer_broke(&transfer);
        }
        let now_ms = self.nodes[puller].clock_ms(self.now_ms);
        let Some(process) = &self.nodes[source].process else { return };
        let latest = process.replica.history().latest();
        let mut is_over = false;
        if !is_ahead(latest, now_ms) {
            is_over = if transfer.shard < SHARDS {
                self.transfer_batch(&mut transfer);
                false
            } else {
                self.transfer_ends(&transfer)
            };
        }
        if !is_over {
            self.transfers.insert(number, transfer);
            let delay = 1 + self.below(30);
            self.after(delay, Event::Transfer(number));
        }
    }

    fn transfer_batch(&mut self, transfer: &mut Transfer) {
        let Some(source) = &self.nodes[transfer.source.0].process else { return };
        let table = source.slices[transfer.shard].table();
        let (entries, next) = table.walk_step_whole(transfer.position, STEP_ENTRIES);
        // The source may itself hold more than it has.
        let mut ahead = source.vector.clone();
        ahead.merge(&self.nodes[transfer.source.0].ahead);
        transfer.position = next;
        if next == table.walk_length() {
            (transfer.shard, transfer.position) = (transfer.shard + 1, 0);
        }
        let mut states = BytesMut::new();
        let concerns =
            |entry: &Entry| transfer.repair.is_none() || transfer.differing.contains(&bucket_of(entry.key()));
        for entry in entries.iter().filter(|entry| concerns(entry)) {
            encode_state(&mut states, entry);
            if !entry.is_tombstone() {
                transfer.received.insert(entry.key().to_vec());
            }
        }
        let node = &mut self.nodes[transfer.puller.0];
        // Of a repair, too: the source may have gone on.
        node.ahead.merge(&ahead);
        let Some(process) = &mut node.process else { return };
        if !states.is_empty() {
            let same = transfer.repair.unwrap_or(SameVersion::Ours);
            transfer.last_index = process.replica.states(&transfer.state.vector, same, states.freeze());
            self.is_dirty.insert(transfer.puller.0);
        }
    }

    /// All has come: what the source had seen and has no more is forgotten. Says whether
    /// that was possible already.
    fn transfer_ends(&mut self, transfer: &Transfer) -> bool {
        let Some(process) = &mut self.nodes[transfer.puller.0].process else { return true };
        if process.applied < transfer.last_index {
            return false;
        }
        let gone = match transfer.repair {
            Some(SameVersion::Greater) => Vec::new(),
            _ => forgotten(process, transfer),
        };
        if !gone.is_empty() {
            let rows = gone.iter().map(|(key, version)| (&key[..], *version));
            process.replica.forget(rows, &transfer.state.vector);
        }
        process.replica.pulled(transfer.state.clone());
        self.is_dirty.insert(transfer.puller.0);
        self.transfer_ended(transfer);
        true
    }

    fn transfer_ended(&mut self, transfer: &Transfer) {
        if !self.runs(transfer.source) {
            return;
        }
        if let Some(source) = &mut self.nodes[transfer.source.0].process {
            source.replica.transfer_ended(transfer.number);
        }
    }

    fn transfer_broke(&mut self, transfer: &Transfer) {
        self.figures.broken_transfers += 1;
        self.transfer_ended(transfer);
        let (place, incarnation) = transfer.puller;
        self.pull_failed(place, incarnation);
    }

    pub fn pull_failed(&mut self, place: usize, incarnation: u64) {
        if !self.runs((place, incarnation)) {
            return;
        }
        if let Some(process) = &mut self.nodes[place].process {
            process.replica.pull_failed();
            self.is_dirty.insert(place);
        }
    }
}

/// Parts that the source had seen, of keys that it hasn't got.
fn forgotten(process: &Process, transfer: &Transfer) -> Vec<(Vec<u8>, Version)> {
    let mut gone = Vec::new();
    for entry in all_entries(process) {
        let concerns = transfer.repair.is_none() || transfer.differing.contains(&bucket_of(entry.key()));
        if !concerns || transfer.received.contains(entry.key()) {
            continue;
        }
        for (version, _) in [entry.value_part(), entry.vector_part()].into_iter().flatten() {
            // Where the source's copy counts, what came astray is gone, too: the replica knows it.
            let its_copy_counts = transfer.repair == Some(SameVersion::Theirs);
            if its_copy_counts || transfer.state.vector.has(version) {
                gone.push((entry.key().to_vec(), version));
            }
        }
    }
    gone
}
