//! What goes wrong, and when.

use std::collections::BTreeSet;

use super::cluster::{Cluster, Event};
use crate::persistence::next_random;
use crate::replication::message::NodeId;
use crate::replication::raft::{Input, Role};

/// How often each thing went wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub crashes: u64,
    pub partitions: u64,
    pub pauses: u64,
    pub slow_disks: u64,
    /// Disks that took nothing for a while, and leaders that left one.
    pub hung_disks: u64,
    pub left_bad_disks: u64,
    pub failed_syncs: u64,
    pub lost_messages: u64,
    pub snapshots: u64,
    pub installed: u64,
    pub slow_shards: u64,
    pub promotions: u64,
    /// Of members, each committed one.
    pub changes: u64,
    pub adoptions: u64,
    pub wipes: u64,
    /// From a witness' host to the other node.
    pub hand_backs: u64,
    pub forced: u64,
    pub rejoined: u64,
    /// Disks that were set back to older copies, and doubts that have ended.
    pub set_back: u64,
    pub doubts_ended: u64,
}

impl Figures {
    pub fn add(&mut self, more: &Figures) {
        self.crashes += more.crashes;
        self.partitions += more.partitions;
        self.pauses += more.pauses;
        self.slow_disks += more.slow_disks;
        self.hung_disks += more.hung_disks;
        self.left_bad_disks += more.left_bad_disks;
        self.failed_syncs += more.failed_syncs;
        self.lost_messages += more.lost_messages;
        self.snapshots += more.snapshots;
        self.installed += more.installed;
        self.slow_shards += more.slow_shards;
        self.promotions += more.promotions;
        self.changes += more.changes;
        self.adoptions += more.adoptions;
        self.wipes += more.wipes;
        self.hand_backs += more.hand_backs;
        self.forced += more.forced;
        self.rejoined += more.rejoined;
        self.set_back += more.set_back;
        self.doubts_ended += more.doubts_ended;
    }
}

/// What is wrong now.
#[derive(Default)]
pub struct Faults {
    /// From and to.
    blocked: BTreeSet<(NodeId, NodeId)>,
    loss_percent: u64,
    double_percent: u64,
    delay_ms_max: u64,
    pub failed_syncs_percent: u64,
    pub only_promotions: bool,
    pub older_copies: bool,
    pub figures: Figures,
}

impl Faults {
    pub fn heal(&mut self) {
        *self = Faults { figures: self.figures, older_copies: self.older_copies, ..Faults::default() };
    }

    /// Whether one of the two doesn't hear the other.
    pub fn parts(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.contains(&(from, to)) || self.blocked.contains(&(to, from))
    }

    /// When the message arrives, or `None` if it doesn't.
    pub fn delay(&mut self, from: NodeId, to: NodeId, random: &mut u64) -> Option<u64> {
        let is_lost = self.blocked.contains(&(from, to)) || next_random(random) % 100 < self.loss_percent;
        if is_lost {
            self.figures.lost_messages += 1;
            return None;
        }
        Some(next_random(random) % (self.delay_ms_max + 2))
    }

    pub fn doubles(&self, random: &mut u64) -> bool {
        next_random(random) % 100 < self.double_percent
    }
}

impl Cluster {
    /// One more thing goes wrong, or is mended.
    pub fn fault(&mut self) {
        let place = self.below(self.nodes.len() as u64) as usize;
        let kinds = if self.faults.older_copies { 20 } else { 15 };
        let which = if self.faults.only_promotions { 12 } else { self.below(kinds) };
        match which {
            0 | 1 => self.crash_for_a_while(place),
            2 => (0..self.nodes.len()).for_each(|place| self.crash_for_a_while(place)),
            3 => self.part(place, true, true),
            4 => {
                let leads = |place: &usize| {
                    let process = self.nodes[*place].process.as_ref();
                    process.is_some_and(|process| process.replica.status().role.role == Role::Leader)
                };
                let leader = (0..self.nodes.len()).find(leads).unwrap_or(place);
                self.part(leader, true, true);
            }
            5 => {
                let outwards = self.below(2) == 0;
                self.part(place, outwards, !outwards);
            }
            6 => {
                self.faults.figures.pauses += 1;
                self.nodes[place].paused_until_ms = self.now_ms + 100 + self.below(4_000);
            }
            7 if self.below(4) == 0 => {
                let for_ms = 1_000 + self.below(20_000);
                self.hang(place, for_ms);
            }
            7 => {
                self.faults.figures.slow_disks += 1;
                self.nodes[place].sync_ms = [1, 50, 5_000][self.below(3) as usize];
            }
            8 => {
                self.faults.loss_percent = [0, 5, 30][self.below(3) as usize];
                self.faults.double_percent = self.below(20);
                self.faults.delay_ms_max = [1, 20, 300][self.below(3) as usize];
            }
            9 => self.faults.failed_syncs_percent = [0, 0, 30][self.below(3) as usize],
            10 | 11 if self.is_paused(place) => {}
            10 | 11 => {
                self.faults.figures.snapshots += 1;
                self.snapshot(place, true);
            }
            12 => self.promote(place),
            13 => {
                self.faults.figures.slow_shards += 1;
                self.nodes[place].queue_ms = [2, 60, 800][self.below(3) as usize];
            }
            15 | 16 => self.keep_copy(place),
            17..20 => self.set_back_for_a_while(place),
            _ => self.faults.blocked.clear(),
        }
    }

    /// A disk takes nothing for so long.
    pub fn hang(&mut self, place: usize, for_ms: u64) {
        self.faults.figures.hung_disks += 1;
        self.nodes[place].hangs_until_ms = self.now_ms + for_ms;
    }

    /// Someone says `promote`: no fault, but a change of leadership all the same.
    pub fn promote(&mut self, place: usize) {
        self.faults.figures.promotions += 1;
        let id = self.nodes[place].id;
        for asked in (0..self.nodes.len()).filter(|asked| !self.is_paused(*asked)).collect::<Vec<_>>() {
            self.step(asked, Input::TransferTo(id));
        }
    }

    fn crash_for_a_while(&mut self, place: usize) {
        if self.nodes[place].process.is_none() {
            return;
        }
        self.faults.figures.crashes += 1;
        self.crash(place);
        // Half of them are back before an election is over: what they said in it must still bind them.
        let longest = [60, 2_000][self.below(2) as usize];
        let down_ms = 10 + self.below(longest);
        self.after(down_ms, Event::Restart(place));
    }

    /// One node is parted from all others.
    pub fn part(&mut self, place: usize, outwards: bool, inwards: bool) {
        self.faults.figures.partitions += 1;
        self.faults.blocked.clear();
        let alone = self.nodes[place].id;
        for other in self.nodes.iter().map(|node| node.id).filter(|id| *id != alone) {
            if outwards {
                self.faults.blocked.insert((alone, other));
            }
            if inwards {
                self.faults.blocked.insert((other, alone));
            }
        }
    }
}
