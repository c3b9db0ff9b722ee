//! The operator: wants nodes more and less, and repairs what lost disks have left.
//!
//! One wish at a time, asked for again until the committed log says that it is so:
//! a proposal may be lost with its leader, and come true all the same.

use std::collections::BTreeSet;

use super::Mutant;
use super::cluster::{Cluster, Event};
use super::members::member;
use crate::persistence::Configuration;
use crate::replication::message::NodeId;
use crate::replication::raft::Input;
use crate::replication::reconfiguration::{Answering, add, next, nodes_that_vote, remove};

/// Several heartbeats.
const ANSWERS_WITHIN_MS: u64 = 500;

/// What the operator is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A node shall vote.
    Add(NodeId),
    /// A node shall be gone.
    Remove(NodeId),
}

/// Who has the machines.
#[derive(Debug)]
pub struct Operator {
    /// How many nodes there shall be, at least and at most.
    sizes: (usize, usize),
    wish: Option<Wish>,
    /// Members whose disks were lost: they are refused, and must be replaced.
    lost: BTreeSet<NodeId>,
}

impl Operator {
    pub fn new(sizes: (usize, usize)) -> Operator {
        Operator { sizes, wish: None, lost: BTreeSet::new() }
    }
}

impl Cluster {
    /// The operator looks at the cluster, and does one thing.
    pub fn operate(&mut self) {
        let pause = 100 + self.below(1_000);
        self.after(pause, Event::Operator);
        let newest = self.checker.history.members().clone();
        let Some(operator) = &self.operator else { return };
        match operator.wish {
            Some(Wish::Add(id)) => self.go_on_adding(id, &newest),
            Some(Wish::Remove(id)) => self.go_on_removing(id, &newest),
            None if newest.members.is_joint() => {}
            None => {
                let wish = self.repair(&newest);
                let wish = wish.or_else(|| if self.calm { None } else { self.whim(&newest) });
                self.wishes(wish);
            }
        }
    }

    fn wishes(&mut self, wish: Option<Wish>) {
        let Some(operator) = &mut self.operator else { return };
        operator.wish = wish;
    }

    /// Whether the operator has nothing left to do.
    pub fn is_settled(&self) -> bool {
        let is_idle = |operator: &Operator| operator.wish.is_none() && operator.lost.is_empty();
        self.operator.as_ref().is_none_or(is_idle) && !self.checker.history.members().members.is_joint()
    }

    fn is_lost(&self, id: NodeId) -> bool {
        self.operator.as_ref().is_some_and(|operator| operator.lost.contains(&id))
    }

    /// A member loses its disk.
    fn lose_disk(&mut self, id: NodeId) {
        self.wipe(id as usize - 1);
        if let Some(operator) = &mut self.operator {
            operator.lost.insert(id);
        }
    }

    fn repair(&mut self, newest: &Configuration) -> Option<Wish> {
        let Operator { sizes: (least, _), lost, .. } = self.operator.as_ref()?;
        if let Some(id) = lost.first() {
            return Some(Wish::Remove(*id));
        }
        let least = *least;
        let waiting = newest.members.learners.first().map(|id| Wish::Add(*id));
        waiting.or_else(|| if newest.nodes.len() < least { self.add_one(newest) } else { None })
    }

    /// Something that nobody has to do.
    fn whim(&mut self, newest: &Configuration) -> Option<Wish> {
        let (least, most) = self.operator.as_ref()?.sizes;
        let victim = newest.nodes[self.below(newest.nodes.len() as u64) as usize].node_id;
        match self.below(8) {
            0 | 1 if newest.nodes.len() < most => self.add_one(newest),
            2 | 3 if newest.nodes.len() > least => Some(Wish::Remove(victim)),
            // Replaced: who comes in its stead may be the same machine.
            4 if newest.nodes.len() > 1 => Some(Wish::Remove(victim)),
            5 if self.may_lose_disk(victim, newest) => {
                self.lose_disk(victim);
                None
            }
            _ => None,
        }
    }

    /// Whether all members know that a change is done: else they may need those for it that were
    /// members before.
    pub fn is_known(&self, newest: &Configuration) -> bool {
        let known = |id: &NodeId| self.nodes[*id as usize - 1].directory.membership.as_ref();
        let nodes = nodes_that_vote(newest);
        nodes.iter().all(|id| known(id).is_some_and(|known| known.configuration.index >= newest.index))
    }

    /// Whether all members know it over a crash, too.
    fn is_stored(&self, newest: &Configuration) -> bool {
        let stored = |id: &NodeId| self.nodes[*id as usize - 1].directory.stored.as_ref();
        let nodes = nodes_that_vote(newest);
        nodes.iter().all(|id| stored(id).is_some_and(|stored| stored.configuration.index >= newest.index))
    }

    /// Whether what was acknowledged survives the loss, and a majority that can replace the node.
    fn may_lose_disk(&self, id: NodeId, newest: &Configuration) -> bool {
        if !self.is_stored(newest) {
            return false;
        }
        if self.mutant == Some(Mutant::WipedVotes) {
            return true;
        }
        // Beside one in doubt the others may be no majority, and only force would help.
        if self.faults.older_copies
            && (self.is_anyone_in_doubt() || !self.is_left_without(id as usize - 1, |_, _| false))
        {
            return false;
        }
        match nodes_that_vote(newest).len() {
            0 | 1 => false,
            2 => !newest.hosts_witness(id),
            _ => true,
        }
    }

    /// A machine that is no member, with an empty disk.
    fn add_one(&mut self, newest: &Configuration) -> Option<Wish> {
        let machines = 1..=self.nodes.len() as NodeId;
        let spare: Vec<NodeId> = machines.filter(|id| newest.node(*id).is_none()).collect();
        let id = spare[self.below(spare.len() as u64) as usize];
        if self.nodes[id as usize - 1].directory.membership.is_some() {
            self.wipe(id as usize - 1);
        }
        Some(Wish::Add(id))
    }

    fn go_on_adding(&mut self, id: NodeId, newest: &Configuration) {
        if self.is_lost(id) {
            return self.wishes(Some(Wish::Remove(id)));
        }
        if newest.members.votes(id) && !newest.members.is_joint() {
            self.wishes(None);
        }
        if newest.members.votes(id) {
            return;
        }
        let listens = newest.members.learners.contains(&id);
        if listens && !self.calm && nodes_that_vote(newest).len() > 1 && self.below(10) == 0 {
            return self.lose_disk(id);
        }
        self.ask_to_add(id);
    }

    /// Someone says `add_member`.
    pub fn ask_to_add(&mut self, id: NodeId) {
        let Some((place, current)) = self.asked() else { return };
        if let Ok(Some(to)) = add(&current, member(id)) {
            self.reconfigure(place, to);
        }
    }

    fn go_on_removing(&mut self, id: NodeId, newest: &Configuration) {
        if newest.node(id).is_none() && !newest.members.is_joint() && self.is_known(newest) {
            if let Some(operator) = &mut self.operator {
                operator.lost.remove(&id);
            }
            // It is answered when that is stored: what an emptied node knew is not needed any more.
            for voter in nodes_that_vote(newest) {
                self.nodes[voter as usize - 1].directory.catch_up();
            }
            // Some are wiped at once; others go on with what they have, or are restarted with it.
            if self.below(2) == 0 {
                self.wipe(id as usize - 1);
            }
            return self.wishes(None);
        }
        self.ask_to_remove(id);
    }

    /// Someone says `remove_member`. A leader that is to go hands over first.
    pub fn ask_to_remove(&mut self, id: NodeId) {
        let Some((place, current)) = self.asked() else { return };
        let leader = self.nodes[place].id;
        let Ok(to) = remove(&current, id, leader) else { return };
        if self.answering(place).allows(&current, &to, leader).is_err() {
            return;
        }
        let others: Vec<NodeId> =
            nodes_that_vote(&current).into_iter().filter(|other| *other != id).collect();
        if id == leader && !others.is_empty() {
            let to = others[self.below(others.len() as u64) as usize];
            return self.step(place, Input::TransferTo(to));
        }
        self.reconfigure(place, to);
    }

    /// Members that a leader has heard within the last moments, and itself.
    fn answering(&self, place: usize) -> Answering {
        let node = &self.nodes[place];
        if self.mutant == Some(Mutant::ChangesBlindly) {
            return Answering { nodes: self.nodes.iter().map(|node| node.id).collect(), doubted: Vec::new() };
        }
        let is_recent = |at: &u64| *at + ANSWERS_WITHIN_MS > self.now_ms;
        let nodes = node.heard.iter().filter(|(_, at)| is_recent(at)).map(|(id, _)| *id);
        let nodes: Vec<NodeId> = nodes.chain([node.id]).collect();
        let is_doubted = |id: &NodeId| self.nodes[*id as usize - 1].directory.in_doubt;
        Answering { doubted: nodes.iter().copied().filter(is_doubted).collect(), nodes }
    }

    /// Who leads, as far as one can ask, and who belongs to the cluster, as it knows them.
    fn asked(&self) -> Option<(usize, Configuration)> {
        let place = self.leader()? as usize - 1;
        let membership = self.nodes[place].directory.membership.as_ref()?;
        (!self.is_paused(place)).then(|| (place, membership.configuration.clone()))
    }

    fn reconfigure(&mut self, place: usize, to: Configuration) {
        self.step(place, Input::Reconfigure(Box::new(to)));
    }

    /// What a leader does by itself, at each tick.
    pub fn go_on_with_members(&mut self, place: usize) {
        let node = &self.nodes[place];
        let Some((process, membership)) = node.process.as_ref().zip(node.directory.membership.as_ref())
        else {
            return;
        };
        if !process.leads() {
            return;
        }
        let answering = self.answering(place);
        if let Some(to) = next(&membership.configuration, &process.replica.status(), node.id, &answering) {
            self.reconfigure(place, to);
        }
    }
}
