//! Disks that are set back to older copies of themselves.
//!
//! What is promised: a committed entry is lost only when no voter's disk has it any more. So
//! a disk is set back only as long as each committed entry is left on some voter's disk, in
//! doubt or not; how many are set back, and how far, doesn't matter.

use super::Mutant;
use super::cluster::{Cluster, Event};
use super::disk::SimulatedDisk;
use crate::persistence::{Membership, host_of};
use crate::replication::message::NodeId;
use crate::replication::protocol::PROTOCOL_DOUBT;
use crate::replication::raft::Input;

/// Copies kept of each node.
const COPIES_MAX: usize = 3;

/// A disk and a directory as they were.
pub struct OlderCopy {
    disk: SimulatedDisk,
    membership: Option<Membership>,
    in_doubt: bool,
}

impl Cluster {
    /// Someone makes a backup of a node's directory.
    pub fn keep_copy(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let (membership, in_doubt) = (node.directory.stored.clone(), node.directory.in_doubt);
        if node.copies.len() >= COPIES_MAX {
            node.copies.remove(0);
        }
        node.copies.push(OlderCopy { disk: node.disk.copy(), membership, in_doubt });
    }

    /// A node is started on one of the copies of its directory, if nothing that is committed is lost by that.
    pub fn set_back_for_a_while(&mut self, place: usize) {
        let count = self.nodes[place].copies.len() as u64;
        if count == 0 {
            return;
        }
        let number = self.below(count) as usize;
        if !self.may_set_back(place, number) {
            return;
        }
        self.set_back_to(place, number, true);
        let down_ms = 10 + self.below(1_000);
        self.after(down_ms, Event::Restart(place));
    }

    /// Whether each committed entry that the copy lacks is on some other voter's disk. Copies from before the
    /// members changed are another matter: by them the node alone may have been all that votes.
    fn may_set_back(&self, place: usize, number: usize) -> bool {
        let newest = self.checker.history.members();
        let OlderCopy { disk, membership, .. } = &self.nodes[place].copies[number];
        let is_of_now = membership.as_ref().is_some_and(|m| m.configuration.index == newest.index);
        let is_quiet = !newest.members.is_joint() && self.is_settled() && self.is_known(newest);
        // A version that knows no doubt goes on as if nothing had happened.
        let knows_doubt = self.nodes[place].protocol >= PROTOCOL_DOUBT;
        is_of_now
            && is_quiet
            && knows_doubt
            && self.is_left_without(place, |index, term| disk.has(index, term))
    }

    /// Whether each committed entry is on the disk of some voter but this one, or `has` says that it is left there.
    pub fn is_left_without(&self, place: usize, has: impl Fn(u64, u64) -> bool) -> bool {
        let history = &self.checker.history;
        let voters = history.members().members.voters.iter().map(|voter| host_of(*voter) as usize - 1);
        let others: Vec<usize> = voters.filter(|other| *other != place).collect();
        let is_left = |index: u64| {
            let term = history.term(index).unwrap_or_default();
            has(index, term) || others.iter().any(|other| self.nodes[*other].disk.has(index, term))
        };
        (1..=history.last()).rev().all(is_left)
    }

    /// Whether some node may be an older copy.
    pub fn is_anyone_in_doubt(&self) -> bool {
        self.nodes.iter().any(|node| node.directory.in_doubt)
    }

    /// The process ends, and its disk is what it was. `is_known`: the directory's mark tells it.
    pub fn set_back_to(&mut self, place: usize, number: usize, is_known: bool) {
        self.crash(place);
        self.faults.figures.set_back += 1;
        let is_known = is_known && self.mutant != Some(Mutant::CopyNotKnown);
        let node = &mut self.nodes[place];
        let copy = &mut node.copies[number];
        let (disk, membership, in_doubt) = (copy.disk.copy(), copy.membership.clone(), copy.in_doubt);
        node.lost.push(node.disk.held());
        node.disk = disk;
        node.directory.in_doubt = in_doubt;
        node.directory.set_back(membership, is_known);
    }

    /// The disk is told of a doubt, in its turn.
    pub fn note_doubt(&mut self, place: usize, begins: bool) {
        let (incarnation, sync_ms) = (self.nodes[place].incarnation, self.nodes[place].sync_ms);
        self.nodes[place].doubt_orders.push_back(begins);
        let delay = 1 + self.below(sync_ms + 1);
        self.after(delay, Event::DoubtNoted(place, incarnation));
    }

    /// And has noted it.
    pub fn doubt_noted(&mut self, place: usize) {
        let Some(begins) = self.nodes[place].doubt_orders.pop_front() else { return };
        self.nodes[place].directory.in_doubt = begins;
        if begins {
            return self.step(place, Input::DoubtStored);
        }
        self.faults.figures.doubts_ended += 1;
    }

    /// A node has committed what its leader hasn't. It takes no more part.
    pub fn conflicts(&mut self, place: usize, with: NodeId, index: u64) {
        let id = self.nodes[place].id;
        assert!(self.may_conflict, "entry {index}: node {id} and its leader {with} have committed others");
        self.nodes[place].process = None;
    }
}
