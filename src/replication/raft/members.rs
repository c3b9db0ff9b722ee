//! How the members that the log names come to count.

use super::convert;
use super::effect::Effect;
use super::replica::Replica;
use crate::persistence::Configuration;
use crate::replication::message::{EntryKind, LogEntry};
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
    }

    pub(super) fn configured(&mut self) {
        self.host_as_configured();
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
}
