//! Fresh reads on a replica: it asks its leader what is committed, and answers
//! when it has that.
//!
//! ```text
//! replica ─ probe ─► leader: a round of heartbeats ─ index ─► replica: waits until it is handed over
//! ```

use super::checker::Operation;
use super::cluster::{Cluster, Event};
use crate::replication::raft::Input;

/// A leader that hasn't answered by then isn't waited for.
const PATIENCE_MS: u64 = 1_000;

/// Who waits for a round.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// An operation of this node's.
    Here(Operation),
    /// A replica's, in its so-manieth life.
    There(usize, u64, Operation),
}

impl Cluster {
    /// The replica asks.
    pub fn probe(&mut self, place: usize, operation: Operation) {
        let incarnation = self.nodes[place].incarnation;
        let Some(process) = &mut self.nodes[place].process else { return };
        let Some(leader) = process.replica.status().role.leader else {
            return self.refuse(place, operation);
        };
        process.probes.insert(operation);
        self.after(PATIENCE_MS, Event::Impatient(place, incarnation, operation));
        let (id, to) = (self.nodes[place].id, leader as usize - 1);
        if !self.connects(place, to) {
            return;
        }
        if let Some(delay) = self.faults.delay(id, leader, &mut self.random) {
            self.after(delay, Event::Probe(to, Asker::There(place, incarnation, operation)));
        }
    }

    /// The leader is asked.
    pub fn probed(&mut self, place: usize, asker: Asker) {
        if self.is_paused(place) {
            return self.when_it_goes_on(place, Event::Probe(place, asker));
        }
        self.begin_round(place, asker);
    }

    /// Someone waits for a round.
    pub fn begin_round(&mut self, place: usize, asker: Asker) {
        let Some(process) = &mut self.nodes[place].process else { return };
        process.next_handle += 1;
        let handle = process.next_handle;
        process.rounds.insert(handle, asker);
        self.step(place, Input::Read(handle));
    }

    /// The leader answers; `None`: it doesn't lead.
    pub fn answer_probe(&mut self, from: usize, asker: Asker, index: Option<u64>) {
        let Asker::There(place, incarnation, operation) = asker else { return };
        let (id, to) = (self.nodes[from].id, self.nodes[place].id);
        if let Some(delay) = self.faults.delay(id, to, &mut self.random) {
            self.after(delay, Event::Answered(place, incarnation, operation, index));
        }
    }

    /// The replica hears the answer.
    pub fn probe_answered(&mut self, place: usize, operation: Operation, index: Option<u64>) {
        let Some(process) = &mut self.nodes[place].process else { return };
        if !process.probes.remove(&operation) {
            return;
        }
        match index {
            Some(index) => self.wait_for(place, operation, index),
            None => self.refuse(place, operation),
        }
    }
}
