//! The WalWriter of a node: gathers, proposes, and tells the shards.

use bytes::Bytes;

use super::Mutant;
use super::cluster::{Cluster, Event};
use super::history::operation_of;
use super::node::{SHARDS, State};
use super::shards::Mail;
use crate::engine::{Requests, Version};
use crate::error::{Code, Error};
use crate::replication::message::LogEntry;
use crate::replication::raft::{Input, RoleChange};

/// An entry as large as that takes no more, as on a node.
pub const GROUP_BYTES_WANTED: usize = 200;
/// Beyond these, writes wait for company or for room, as on a node.
const PERSISTS_UNDER_WAY_MAX: usize = 2;
const UNCOMMITTED_BYTES_MAX: usize = 3_000;

impl Cluster {
    /// An append of a shard arrives.
    pub fn append(&mut self, place: usize, shard: usize) {
        let Some(process) = &mut self.nodes[place].process else { return };
        let Some((append, mut looked_at)) = process.shards[shard].appends.pop_front() else { return };
        let office = process.notices.office();
        if self.mutant == Some(Mutant::OfficeNumberIgnored) {
            looked_at = office;
        }
        for met in process.appends.append(shard, append, looked_at, office) {
            if let Some((writes, error)) = met.let_go.filter(|_| self.mutant != Some(Mutant::PartsNotLetGo)) {
                for (shard, write) in writes {
                    process.notices.refuse(shard, vec![write], &error);
                }
            }
        }
        self.tell_shards(place);
        self.propose_soon(place);
    }

    /// What gathers until then shares the entry.
    fn propose_soon(&mut self, place: usize) {
        let incarnation = self.nodes[place].incarnation;
        let Some(process) = &mut self.nodes[place].process else { return };
        if !process.appends.is_empty() && !process.propose_is_due {
            process.propose_is_due = true;
            let delay = self.below(3);
            self.after(delay, Event::Propose(place, incarnation));
        }
    }

    /// What gathered is proposed, unless there is too much under way.
    pub fn propose(&mut self, place: usize) {
        let Some(process) = &mut self.nodes[place].process else { return };
        process.propose_is_due = false;
        let must_hold = process.persists_under_way >= PERSISTS_UNDER_WAY_MAX
            || process.notices.uncommitted_bytes() >= UNCOMMITTED_BYTES_MAX;
        let Some(group) = (if must_hold { None } else { process.appends.take_group() }) else { return };
        let payload = process.notices.proposing(group);
        self.propose_payload(place, payload);
        self.propose_soon(place);
    }

    fn propose_payload(&mut self, place: usize, payload: Bytes) {
        let Some(process) = &mut self.nodes[place].process else { return };
        process.next_handle += 1;
        let handle = process.next_handle;
        process.proposing = payload.clone();
        self.step(place, Input::Propose(handle, payload));
    }

    /// A proposal has its place in the log.
    pub fn proposed(&mut self, place: usize, index: u64, term: u64) {
        let Some(process) = &mut self.nodes[place].process else { return };
        let payload = std::mem::take(&mut process.proposing);
        process.notices.proposed(index, term);
        if self.mutant == Some(Mutant::AcknowledgedAtPropose) {
            self.acknowledge_payload(&payload, index);
        } else if matches!(self.mutant, Some(Mutant::AcknowledgedAtOwnSync | Mutant::AcknowledgedByIndex)) {
            process.proposed.insert(index, (term, payload));
        }
    }

    /// A proposal was not taken.
    pub fn dropped(&mut self, place: usize) {
        let Some(process) = &mut self.nodes[place].process else { return };
        let payload = std::mem::take(&mut process.proposing);
        process.notices.dropped(&Error::new(Code::NoLeader, "leadership is being handed over"));
        self.tell_shards(place);
        if self.mutant == Some(Mutant::RefusedButProposed) {
            self.forward(place, payload);
        }
    }

    /// Entries are committed.
    pub fn commit(&mut self, place: usize, entries: Vec<LogEntry>) {
        let id = self.nodes[place].id;
        if self.is_judged(place) {
            entries.iter().for_each(|entry| self.checker.applied(id, entry));
        }
        if self.mutant == Some(Mutant::AcknowledgedByIndex) {
            entries.iter().for_each(|entry| self.acknowledge_proposed(place, entry.index));
        }
        let Some(process) = &mut self.nodes[place].process else { return };
        let role = process.replica.status().role;
        process.notices.committed(entries, &role);
        self.tell_shards(place);
        self.let_operations_go(place);
    }

    /// Role, leader or term have changed.
    pub fn role_changed(&mut self, place: usize, change: RoleChange) {
        if self.is_judged(place) {
            self.checker.role(self.nodes[place].id, change);
        }
        let at_election = self.mutant == Some(Mutant::OfficeAtElection);
        let Some(process) = &mut self.nodes[place].process else { return };
        if process.notices.role_changed(&change) && self.mutant != Some(Mutant::GroupOutlivesOffice) {
            process.appends.office_ended();
        }
        if at_election {
            process.notices.begin_at_election(&change);
        }
        self.tell_shards(place);
    }

    /// A snapshot of the leader's is durable here.
    pub fn install(&mut self, place: usize, state: &State) {
        let Some(process) = &mut self.nodes[place].process else { return };
        process.notices.installed(state.applied);
        process.copying = None;
        (0..SHARDS).for_each(|shard| self.mail(place, shard, Mail::Install(state.clone())));
        self.let_operations_go(place);
    }

    /// What waited for room may have it.
    pub fn persisted(&mut self, place: usize) {
        if let Some(process) = &mut self.nodes[place].process {
            process.persists_under_way -= 1;
        }
        self.propose_soon(place);
    }

    fn tell_shards(&mut self, place: usize) {
        let Some(process) = &mut self.nodes[place].process else { return };
        for (shard, notice) in process.notices.take() {
            self.mail(place, shard, Mail::Notice(notice));
        }
    }

    /// The mistake of acknowledging what may still be replaced.
    pub fn acknowledge_proposed(&mut self, place: usize, index: u64) {
        let Some(process) = &mut self.nodes[place].process else { return };
        if let Some((_, payload)) = process.proposed.remove(&index) {
            self.acknowledge_payload(&payload, index);
        }
    }

    fn acknowledge_payload(&mut self, payload: &[u8], index: u64) {
        for item in Requests::new(payload) {
            let (ordinal, effect) = item.expect("a payload that was written");
            if let Some(operation) = operation_of(&effect) {
                self.acknowledge(operation, Version { index, ordinal }, None);
            }
        }
    }

    /// The mistake of a node that refuses requests and hands them on as well.
    pub fn forward(&mut self, from: usize, payload: Bytes) {
        for place in (0..self.nodes.len()).filter(|place| *place != from) {
            let Some(process) = &self.nodes[place].process else { continue };
            if process.leads() {
                return self.propose_payload(place, payload);
            }
        }
    }
}
