//! How the members that the log names come to count.

use super::convert;
use super::effect::Effect;
use super::replica::Replica;
use crate::persistence::{Configuration, is_witness};
use crate::replication::message::{EntryKind, LogEntry, NodeId};
use ::raft::StateRole;

impl Replica {
    /// Who belongs to the cluster, as far as the log is handed out.
    pub fn configuration(&self) -> &Configuration {
        self.configurations.newest()
    }

    /// Who belonged to it as of an entry.
    pub fn configuration_at(&self, index: u64) -> &Configuration {
        self.configurations.at(index)
    }

    /// An entry that names the members is committed, and counts from here on.
    pub(super) fn change_members(&mut self, entry: &LogEntry) {
        let Some(to) = self.configurations.decode(entry) else { return };
        let from = convert::members(&self.node.raft.prs().conf().to_conf_state());
        if from != to.members {
            let changed = self.node.apply_conf_change(&convert::change(&from, &to.members));
            let now = changed.unwrap_or_else(|error| panic!("entry {}: {error}", entry.index));
            assert_eq!(convert::members(&now), to.members, "entry {} makes other members", entry.index);
        }
        self.configurations.push(to);
        self.configured();
        self.step_down_if_removed();
    }

    /// The crate lets a leader go on that was removed: it answers reads without asking the
    /// one voter that is left, and looks for itself among the members when it has written.
    fn step_down_if_removed(&mut self) {
        let votes = self.configuration().members.votes(self.options.node_id);
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !votes {
            raft.become_follower(raft.term, 0);
        }
    }

    /// A leader that the change under way removes leaves it to one that stays to end it:
    /// who is out can tell nobody that it is done.
    pub(super) fn hand_over_if_leaving(&mut self) {
        let members = &self.configurations.newest().members;
        let stays = members.voters.contains(&self.options.node_id);
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || stays || raft.lead_transferee.is_some() {
            return;
        }
        let is_there = |id: &u64, is_active| is_active && !self.is_doubted(*id);
        let heard = |id: &u64| raft.prs().get(*id).filter(|progress| is_there(id, progress.recent_active));
        let voters = members.voters.iter().filter(|voter| !is_witness(**voter));
        let heirs = voters.filter_map(|id| Some((heard(id)?.matched, *id)));
        if let Some((_, heir)) = heirs.max_by_key(|(matched, _)| *matched) {
            self.node.transfer_leader(heir);
        }
    }

    pub(super) fn configured(&mut self) {
        self.host_as_configured();
        let members = &self.configurations.newest().members;
        self.doubts.keep(|node| members.has(node));
        self.effects.push(Effect::Configured(Box::new(self.configuration().clone())));
    }

    /// Proposes other members. Dropped unless it changes those that count now, and
    /// no other change is under way: who wants it looks again and asks again.
    pub(super) fn reconfigure(&mut self, to: &Configuration) {
        let may_be = self.configuration().index == to.index;
        let raft = &mut self.node.raft;
        if raft.state != StateRole::Leader || raft.has_pending_conf() || !may_be {
            return;
        }
        // While leadership is handed over nothing is appended, or the other one never has it all.
        if raft.lead_transferee.is_some() {
            return;
        }
        // Appended as the crate does with a change of its own: its own encoding of one
        // would be read from the network on the other nodes.
        let mut entry = convert::raft_entry(0, 0, EntryKind::Members, to.encode().into());
        if raft.append_entry(std::slice::from_mut(&mut entry)) {
            raft.pending_conf_index = raft.raft_log.last_index();
            raft.bcast_append();
        }
    }

    /// Without this node's own disk nothing is committed, before a change under way or
    /// behind it. If others had what it loses in a crash, then one that is about to vote
    /// would refuse it its vote, and not know yet that it may lead itself.
    pub(super) fn needs_own_disk(&self) -> bool {
        let members = &self.configuration().members;
        let is_alone = |voters: &[NodeId]| voters == [self.options.node_id];
        is_alone(&members.voters) || is_alone(&members.voters_outgoing)
    }
}
