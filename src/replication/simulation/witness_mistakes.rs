//! Mistakes of a witness, made where its messages leave and arrive.

use super::Mutant;
use super::cluster::Cluster;
use crate::persistence::{is_witness, witness_in};
use crate::replication::message::{Message, MessageKind, NodeId};
use crate::replication::raft::Persist;

impl Cluster {
    /// The mistake of a witness that acknowledges before the disk of its host has it.
    pub fn witness_speaks_early(&mut self, place: usize, persist: &mut Persist) {
        if self.mutant != Some(Mutant::WitnessBeforeDisk) {
            return;
        }
        let early: Vec<Message> =
            persist.then_send.extract_if(.., |message| is_witness(message.from)).collect();
        early.into_iter().for_each(|message| self.send(place, message));
    }

    /// The mistake of a witness that asks for votes when nobody leads.
    pub fn witness_campaigns(&mut self, place: usize) {
        if self.mutant != Some(Mutant::WitnessCampaigns) {
            return;
        }
        let Some(process) = &self.nodes[place].process else { return };
        let status = process.replica.status();
        if !status.hosts_witness || status.role.leader.is_some() {
            return;
        }
        let (id, term) = (self.nodes[place].id, status.role.term + 1);
        let log_term = process.replica.term_of(status.last).unwrap_or(0);
        for to in self.others_than(id) {
            let asks = Message::new(MessageKind::RequestVote, witness_in(id), to, term);
            self.send(place, Message { index: status.last, log_term, ..asks });
        }
    }

    /// And that leads when it has one.
    pub fn witness_is_elected(&mut self, place: usize, message: &Message) {
        let is_vote = message.kind == MessageKind::RequestVoteResponse && !message.reject;
        if self.mutant == Some(Mutant::WitnessCampaigns) && is_witness(message.to) && is_vote {
            let leads = Message::new(MessageKind::Heartbeat, message.to, message.from, message.term);
            self.send(place, leads);
        }
    }

    fn others_than(&self, id: NodeId) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).filter(|other| *other != id).collect()
    }
}
