//! What a node's shards do with entries that are durable, and what must hold then.

use super::cluster::{Cluster, Event};
use super::model::Acknowledged;
use super::node::{Node, Process, SHARDS, placement};
use crate::engine::{Answer, Requests};
use crate::replication::dynamo::entry::{Content, Decoded, Dotted};
use crate::replication::dynamo::{Applied, MemberChange, VersionVector, apply};
use crate::replication::group::numbered;

impl Cluster {
    /// An entry is durable.
    pub fn applied(&mut self, place: usize, Applied { index, own, entry }: Applied) {
        if let Decoded::Dotted(dotted) = &entry {
            self.registry.add(dotted);
        }
        let Some(process) = &mut self.nodes[place].process else { return };
        process.applied = index;
        match &entry {
            Decoded::Dotted(dotted) => {
                process.model.apply(dotted);
                process.vector.raise(dotted.row());
            }
            Decoded::Seen(state) => {
                self.registry.extend(&mut process.model, &process.vector, &state.vector);
                state.dropped.iter().for_each(|origin| process.vector.remove(*origin));
                process.vector.merge(&state.vector);
            }
            Decoded::States { .. } | Decoded::Forgotten(_) => {}
        }
        let acknowledgements = process.acknowledgements.remove(&index).filter(|_| own);
        match (&entry, acknowledgements) {
            (Decoded::Dotted(dotted), Some(acknowledgements)) => {
                expect_to_win(process, dotted);
                self.nodes[place].is_restored = false;
                let Some(process) = &mut self.nodes[place].process else { return };
                for (shard, writes) in numbered(acknowledgements, SHARDS).into_iter().enumerate() {
                    process.slices[shard].committed_at(index, dotted.stamp(), &writes);
                }
            }
            _ => {
                let slices = process.slices.iter_mut().enumerate();
                slices.for_each(|(shard, slice)| apply(slice, shard, index, &entry));
            }
        }
        if let (Decoded::Dotted(dotted), true) = (&entry, own) {
            // Its first entry is that it begins.
            self.nodes[place].begins_anew &= dotted.sequence > 1;
            self.member_change(dotted);
        }
        self.drain(place);
        self.check(place);
    }

    /// An operator's or a node's change of the members is durable; it may be known already.
    pub fn member_change(&mut self, dotted: &Dotted) {
        let Content::Members(body) = &dotted.content else { return };
        match MemberChange::decode(body) {
            Some(MemberChange::Evict { directory: Some(directory), .. }) => {
                let is_it = |node: &&mut Node| node.disk.directory == directory && !node.is_evicted;
                let Some(node) = self.nodes.iter_mut().find(is_it) else { return };
                node.is_evicted = true;
                self.figures.evictions += 1;
                if !self.is_directed {
                    // Later it comes back, empty.
                    let (victim, until_ms) = (node.id as usize - 1, 3_000 + self.below(8_000));
                    self.after(until_ms, Event::Wipe(victim, directory));
                }
                let left = self.member_vectors();
                self.registry.left(&left);
            }
            Some(MemberChange::Admit { node }) => {
                let admitted = node.directory.map(|directory| (directory, dotted.row()));
                self.admitted.extend(admitted.filter(|known| !self.admitted.contains(known)));
            }
            _ => {}
        }
    }

    /// What is durable on the nodes that count.
    pub fn member_vectors(&self) -> Vec<VersionVector> {
        self.nodes.iter().filter(|node| !node.is_evicted).map(|node| node.vector.clone()).collect()
    }

    fn drain(&mut self, place: usize) {
        let is_lost = self.nodes[place].is_evicted;
        let Some(process) = &mut self.nodes[place].process else { return };
        for slice in &mut process.slices {
            let output = slice.output();
            output.changes.clear();
            process.conflicts.append(&mut output.conflicts);
            for (_, answer) in std::mem::take(&mut output.answers) {
                match answer {
                    Answer::Written(version) | Answer::Deleted(_, version) | Answer::Part { version, .. } => {
                        self.figures.acknowledged += 1;
                        self.registry.acknowledged.push(Acknowledged { version, is_lost });
                    }
                    Answer::Entry(_) => self.figures.reads += 1,
                    Answer::Entries(_) | Answer::Refused(_) => {}
                }
            }
        }
        if !self.is_directed {
            self.figures.conflicts += process.conflicts.len() as u64;
            process.conflicts.clear();
        }
    }

    /// A node that has exactly what its vector says shows exactly what that leads to.
    pub fn check(&self, place: usize) {
        let node = &self.nodes[place];
        let has_model = node.is_pure() && !self.registry.has_forks;
        let Some(process) = node.process.as_ref().filter(|_| has_model) else { return };
        if let Some(difference) = process.model.difference(&process.tables()) {
            panic!("node {} at {} ms: {difference}; it has {:?}", node.id, self.now_ms, process.vector);
        }
    }

    /// Two states differ that must be equal.
    pub fn differs(&mut self, place: usize) {
        self.figures.differences += 1;
        let excused =
            self.registry.has_forks || self.nodes.iter().any(|node| !node.is_pure() || node.has_rough_root);
        assert!(excused, "node {} finds another state at the same vector: {}", place + 1, self.describe());
    }

    pub fn has_converged(&self) -> bool {
        let all: Vec<&Process> = self.processes().collect();
        let same =
            |pair: &[&Process]| pair[0].vector == pair[1].vector && pair[0].members() == pair[1].members();
        all.len() == self.nodes.len()
            && all.windows(2).all(same)
            && all.iter().all(|process| process.replica.members().node_ids().len() == self.nodes.len())
    }

    /// All tombstones are gone, and all roots were compared.
    pub fn has_settled(&self) -> bool {
        self.has_converged()
            && self.processes().all(|process| {
                process.tombstones().0 == 0
                    && process.replica.equal_roots() > 0
                    && Some(process.hash()) == self.processes().next().map(Process::hash)
            })
    }

    /// Everyone has the same, and all that was acknowledged is in it.
    pub fn check_end(&self) {
        // `check` passes over those that took over states of a node whose later entries are lost.
        (0..self.nodes.len()).for_each(|place| self.check(place));
        for process in self.processes() {
            for write in self.registry.acknowledged.iter().filter(|write| !write.is_lost) {
                assert!(
                    process.vector.has(write.version),
                    "{:?} was acknowledged and is lost",
                    write.version
                );
            }
        }
    }

    pub fn describe(&self) -> String {
        let line = |node: &super::node::Node| match &node.process {
            None => format!("\nnode {}: down", node.id),
            Some(process) => format!(
                "\nnode {}: {:?}, ahead {:?}, {:?} tombstones, {:?}, equal roots {}, members {:?}, may write {:?} {}, peers {:?}",
                node.id,
                process.vector.rows(),
                node.ahead.rows(),
                process.tombstones(),
                process.replica.stability(),
                process.replica.equal_roots(),
                process.replica.members().node_ids(),
                node.must_hear,
                node.must_be_admitted,
                process
                    .replica
                    .view(0)
                    .iter()
                    .map(|view| (view.node_id, view.in_contact, view.lag_entries, view.is_far_behind))
                    .collect::<Vec<_>>(),
            ),
        };
        self.nodes.iter().map(line).collect()
    }
}

/// A write of this node stands above all that the node shows.
fn expect_to_win(process: &Process, dotted: &Dotted) {
    let Content::Writes(body) = &dotted.content else { return };
    for item in Requests::new(body) {
        let (ordinal, effect) = item.expect("a payload that was written");
        let (key, hash) = (effect.key(), placement().hash(effect.key()));
        let table = process.slices[placement().shard(hash)].table();
        let shown = table.get(key, hash).map(crate::engine::Entry::version);
        let last = shown.max(table.tombstone(key, hash));
        let version = dotted.stamp().version(ordinal);
        assert!(last < Some(version), "{version:?} is made after {last:?} was seen, and loses to it");
    }
}
