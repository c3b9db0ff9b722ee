//! One node's disk: what is durable, and what is on its way.

use std::collections::VecDeque;

use super::Mutant;
use super::node::State;
use crate::persistence::next_random;
use crate::replication::message::{LogEntry, SnapshotMark};
use crate::replication::raft::{HardState, Persist};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    pub hard_state: HardState,
    /// The entry before the first one of `entries`.
    pub cut: (u64, u64),
    pub entries: Vec<LogEntry>,
    /// The snapshot that the cut entries are in.
    pub snapshot: Option<(SnapshotMark, State)>,
}

/// A disk and the writes that it hasn't synced.
pub struct SimulatedDisk {
    pub durable: Durable,
    /// Oldest first.
    waiting: VecDeque<(Persist, Option<State>)>,
    mutant: Option<Mutant>,
}

impl SimulatedDisk {
    pub fn new(mutant: Option<Mutant>) -> SimulatedDisk {
        SimulatedDisk { durable: Durable::default(), waiting: VecDeque::new(), mutant }
    }

    /// A write is ordered. `installed`: the state of its snapshot, if it has one.
    pub fn write(&mut self, persist: Persist, installed: Option<State>) {
        self.waiting.push_back((persist, installed));
    }

    /// The oldest write is synced.
    pub fn sync(&mut self) -> Option<Persist> {
        let (persist, installed) = self.waiting.pop_front()?;
        self.durable.apply(&persist, installed, self.mutant);
        Some(persist)
    }

    /// A snapshot of the node's own is durable; the log is cut behind it.
    pub fn snapshot(&mut self, mark: SnapshotMark, state: State, cut_index: u64) {
        self.durable.cut_to(cut_index.min(mark.index));
        self.durable.snapshot = Some((mark, state));
    }

    /// Power fails: of what was not synced any number of frames is there, from the
    /// oldest on, since a frame that is torn ends the log.
    pub fn crash(&mut self, random: &mut u64) {
        let kept = next_random(random) as usize % (self.waiting.len() + 1);
        for (persist, installed) in self.waiting.drain(..).take(kept) {
            self.durable.apply(&persist, installed, self.mutant);
        }
        match self.mutant {
            Some(Mutant::VoteNotPersisted) => self.durable.hard_state.vote = 0,
            Some(Mutant::TermNotPersisted) => {
                self.durable.hard_state.term = self.durable.entries.last().map_or(0, |entry| entry.term);
                self.durable.hard_state.vote = 0;
            }
            _ => {}
        }
    }
}

impl Durable {
    /// The index of the last entry.
    pub fn last(&self) -> u64 {
        self.cut.0 + self.entries.len() as u64
    }

    /// Whether the entry of this index and term is on the disk.
    pub fn has(&self, index: u64, term: u64) -> bool {
        if index <= self.cut.0 {
            return true; // in the snapshot, which holds committed entries only
        }
        let place = (index - self.cut.0 - 1) as usize;
        self.entries.get(place).is_some_and(|entry| entry.term == term)
    }

    /// Entries `low..high`, up to so many bytes but one at least; none if the first is gone.
    pub fn read(&self, low: u64, high: u64, bytes_max: u64) -> Vec<LogEntry> {
        let mut bytes = 0;
        let wanted =
            self.entries.iter().skip_while(|entry| entry.index < low).take_while(|entry| entry.index < high);
        let mut found: Vec<LogEntry> = Vec::new();
        for entry in wanted {
            bytes += entry.payload.len() as u64;
            if entry.index != low + found.len() as u64 || (bytes > bytes_max && !found.is_empty()) {
                break;
            }
            found.push(entry.clone());
        }
        found
    }

    fn apply(&mut self, persist: &Persist, installed: Option<State>, mutant: Option<Mutant>) {
        if let (Some(mark), Some(state)) = (&persist.snapshot, installed) {
            self.entries.clear();
            self.cut = (mark.index, mark.term);
            self.snapshot = Some((mark.clone(), state));
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        for entry in &persist.entries {
            let place = (entry.index - self.cut.0 - 1) as usize;
            if mutant == Some(Mutant::ForgottenTruncation) && place < self.entries.len() {
                continue;
            }
            self.entries.truncate(place);
            self.entries.push(entry.clone());
        }
    }

    fn cut_to(&mut self, index: u64) {
        while self.cut.0 < index && !self.entries.is_empty() {
            let entry = self.entries.remove(0);
            self.cut = (entry.index, entry.term);
        }
    }
}
