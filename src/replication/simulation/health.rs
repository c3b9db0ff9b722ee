//! What nodes tell each other of their disks, and what whoever leads makes of it.

use super::cluster::{Cluster, TICK_MS};
use super::node::ELECTION_TICKS;
use crate::persistence::{Members, host_of};
use crate::replication::health::{DiskHealth, Health};
use crate::replication::message::NodeId;
use crate::replication::policy::{Order, Reason, Seen};
use crate::replication::quorum::is_quorum;
use crate::replication::raft::Input;

/// The least that a disk must take for one write to be stalled.
const STALLED_AFTER_MS: u64 = 2_000;

impl Cluster {
    fn health(&self, place: usize) -> Option<Health> {
        let node = &self.nodes[place];
        let process = node.process.as_ref()?;
        let oldest_sync_ms = node.disk.oldest_write_ms(self.now_ms);
        let is_stalled = oldest_sync_ms >= STALLED_AFTER_MS;
        let disk = DiskHealth { oldest_sync_ms, is_stalled, is_full: false };
        Some(Health { disk, pause: process.policy.pause(), ..Health::default() })
    }

    /// What this node knows of the others: of those that it has heard lately.
    fn seen(&self, place: usize) -> Seen {
        let node = &self.nodes[place];
        let since_ms = self.now_ms.saturating_sub(TICK_MS * ELECTION_TICKS as u64);
        let heard = node.heard.iter().filter(|(id, at)| **id != node.id && **at >= since_ms);
        let heard: Vec<(NodeId, Health)> =
            heard.filter_map(|(id, _)| Some((*id, self.health(*id as usize - 1)?))).collect();
        let known = node.directory.membership.as_ref();
        let members = known.map_or(Members::default(), |known| known.configuration.members.clone());
        let acknowledges =
            |id: NodeId| heard.iter().any(|(other, health)| *other == id && !health.disk.is_stalled);
        let others_decide = is_quorum(&members, |voter| acknowledges(host_of(voter)), |_| false);
        Seen {
            own: self.health(place).unwrap_or_default(),
            peers: heard.into_iter().collect(),
            others_decide,
            others_have_room: others_decide,
        }
    }

    /// A node's policy is asked, as at each tick.
    pub fn hand_over(&mut self, place: usize) {
        let seen = self.seen(place);
        let Some(process) = &mut self.nodes[place].process else { return };
        let status = process.replica.status();
        match process.policy.tick(&status, &seen) {
            Some(Order::GoOn) => self.step(place, Input::GoOn),
            Some(Order::HandOver(to, reason)) => {
                self.faults.figures.hand_backs += u64::from(reason == Reason::HostsWitness);
                self.faults.figures.left_bad_disks += u64::from(reason == Reason::BadDisk);
                self.step(place, Input::TransferTo(to));
            }
            None => {}
        }
    }
}
