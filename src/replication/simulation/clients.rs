//! Clients and their connections: what they ask, and what it waits for first.

use bytes::Bytes;

use super::Mutant;
use super::checker::{Freshness, Key, Operation, What};
use super::cluster::{Cluster, Event};
use super::node::{Node, placement};
use super::probes::Asker;
use super::shards::Mail;
use crate::engine::{Condition, Effect, Version, encode_effect, encode_request_header};
use crate::error::{Code, Error};
use crate::persistence::host_of;
use crate::replication::raft::Handle;

/// So few that writes of one key are in flight together, and share entries.
const HOT: [Key; 7] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g"];
/// So many that there is nothing in flight of most of them.
const COLD: [Key; 24] = [
    b"h", b"i", b"j", b"k", b"l", b"m", b"n", b"o", b"p", b"q", b"r", b"s", b"t", b"u", b"v", b"w", b"x",
    b"y", b"z", b"0", b"1", b"2", b"3", b"4",
];

impl Cluster {
    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    /// A client does something at some node, mostly at one that leads.
    pub fn client(&mut self) {
        let leads = |node: &Node| node.process.as_ref().is_some_and(|process| process.leads());
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(|place| leads(&self.nodes[*place])).collect();
        let what = self.wish();
        let on_replicas = matches!(what, What::Get { freshness: Freshness::Probed | Freshness::Local, .. });
        let anywhere = on_replicas || leaders.is_empty() || self.below(12) == 0;
        let place =
            if anywhere { self.below(self.nodes.len() as u64) as usize } else { self.one_of(&leaders) };
        // A paused node would read it when the client has gone.
        if self.is_paused(place) || self.nodes[place].process.is_none() || !self.is_judged(place) {
            return;
        }
        let of = (place, self.nodes[place].incarnation, self.now_ms);
        let operation = self.checker.ask(what, of);
        self.connection(place, operation);
    }

    fn wish(&mut self) -> What {
        let key = match self.below(6) {
            0 => self.one_of(&COLD),
            // What has just changed, a node that lags doesn't have.
            1 => self.checker.newest.unwrap_or(HOT[0]),
            _ => self.one_of(&HOT),
        };
        let deletes = self.below(5) == 0;
        match self.below(20) {
            0..=4 => What::Get { key, freshness: Freshness::Linearizable },
            5 => What::Get { key, freshness: Freshness::Probed },
            6 => What::Get { key, freshness: Freshness::Local },
            7..=11 => What::Write { key, deletes, condition: Condition::None },
            12..=14 => {
                let condition = Condition::Version(self.checker.recent(key));
                What::Write { key, deletes, condition }
            }
            15 | 16 => What::Write { key, deletes: false, condition: Condition::Absent },
            _ => {
                let shard = |key: Key| placement().shard(placement().hash(key));
                let others: Vec<Key> = HOT.into_iter().filter(|other| shard(other) != shard(key)).collect();
                let other = self.one_of(&others);
                What::Bulk { keys: vec![key, other], deletes }
            }
        }
    }

    /// The connection refuses it, lets it go, or lets it wait for a round.
    fn connection(&mut self, place: usize, operation: Operation) {
        let Some(process) = &self.nodes[place].process else { return };
        let (leads, serves) = (process.leads(), process.notices.is_in_office());
        let mutant = self.mutant;
        let (may_ask, waits) = match self.checker.what(operation) {
            What::Get { freshness: Freshness::Local, .. } => (true, false),
            What::Get { freshness: Freshness::Probed, .. } if !leads => {
                return self.probe(place, operation);
            }
            What::Get { .. } => (leads, mutant != Some(Mutant::ReadWithoutRound)),
            What::Bulk { .. } => (serves, false),
            What::Write { condition, .. } => {
                let trusts_office =
                    matches!(mutant, Some(Mutant::RefusalWithoutRound | Mutant::OfficeAtElection));
                (serves, *condition != Condition::None && !trusts_office)
            }
        };
        if !may_ask {
            return self.refuse(place, operation);
        }
        if !waits {
            return self.dispatch_soon(place, operation);
        }
        self.begin_round(place, Asker::Here(operation));
    }

    pub fn refuse(&mut self, place: usize, operation: Operation) {
        let error = Error::new(Code::NotLeader, "this node doesn't lead");
        if !self.checker.is_asked(operation) {
            return;
        }
        let what = self.checker.what(operation).clone();
        self.checker.refused(operation, &error);
        match what {
            What::Write { key, .. } if self.mutant == Some(Mutant::RefusedButProposed) => {
                self.forward(place, payload(key, operation));
            }
            What::Bulk { .. } => self.checker.refused(operation, &error), // for both parts
            _ => {}
        }
    }

    /// A round is done: what is committed up to `index` must be seen.
    pub fn round_done(&mut self, place: usize, handle: Handle, index: u64) {
        let Some(process) = &mut self.nodes[place].process else { return };
        match process.rounds.remove(&handle) {
            Some(Asker::Here(operation)) => self.wait_for(place, operation, index),
            Some(asker) => self.answer_probe(place, asker, Some(index)),
            None => {}
        }
    }

    /// This node can't say what is committed.
    pub fn round_lost(&mut self, place: usize, handle: Handle) {
        let Some(process) = &mut self.nodes[place].process else { return };
        match process.rounds.remove(&handle) {
            Some(Asker::Here(operation)) => self.refuse(place, operation),
            Some(asker) => self.answer_probe(place, asker, None),
            None => {}
        }
    }

    /// The operation goes on when the entry is handed over.
    pub fn wait_for(&mut self, place: usize, operation: Operation, index: u64) {
        let at = if self.mutant == Some(Mutant::ReadBeforeApply) { 0 } else { index };
        let Some(process) = &mut self.nodes[place].process else { return };
        process.waiting.entry(at).or_default().push(operation);
        self.let_operations_go(place);
    }

    /// Entries were handed over: who waited for them goes on, behind them.
    pub fn let_operations_go(&mut self, place: usize) {
        loop {
            let Some(process) = &mut self.nodes[place].process else { return };
            let handed_over = process.notices.handed_over();
            let Some(first) = process.waiting.first_entry().filter(|first| *first.key() <= handed_over)
            else {
                return;
            };
            first.remove().into_iter().for_each(|operation| self.dispatch_soon(place, operation));
        }
    }

    /// Parts of one operation leave one by one.
    fn dispatch_soon(&mut self, place: usize, operation: Operation) {
        let incarnation = self.nodes[place].incarnation;
        let keys = match self.checker.what(operation) {
            What::Get { key, .. } | What::Write { key, .. } => vec![*key],
            What::Bulk { keys, .. } => keys.clone(),
        };
        for key in keys {
            let shard = placement().shard(placement().hash(key));
            let delay = self.below(self.nodes[place].queue_ms + 1);
            self.after(delay, Event::Dispatch(place, incarnation, shard, operation));
        }
    }

    /// It stands in the shard's queue.
    pub fn dispatch(&mut self, place: usize, shard: usize, operation: Operation) {
        self.mail(place, shard, Mail::Request(operation));
    }

    /// A write was acknowledged.
    pub fn acknowledge(&mut self, operation: Operation, version: Version, existed: Option<bool>) {
        let Some(term) = self.checker.history.term(version.index) else {
            panic!("operation {operation} was acknowledged before anyone applied it")
        };
        let has = |voter| self.nodes[host_of(voter) as usize - 1].has(version.index, term);
        let is_on_quorum = self.checker.history.is_quorum(version.index, has);
        assert!(is_on_quorum, "operation {operation} was acknowledged with too few disks");
        let is_everywhere = self.nodes.iter().all(|node| node.has(version.index, term));
        assert!(is_everywhere || !self.all_disks, "operation {operation} was acknowledged with one disk");
        self.checker.acknowledged(operation, version, existed);
    }
}

/// A write as an entry's payload.
fn payload(key: Key, operation: Operation) -> Bytes {
    let mut payload = Vec::new();
    encode_request_header(&mut payload, 1);
    encode_effect(&mut payload, &Effect::Set { key, value: operation.to_string().as_bytes() });
    payload.into()
}
