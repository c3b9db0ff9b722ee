//! Connections: in order while they last, and what is on them is lost with them.
//!
//! What is from too far ahead of the receiver's clock is not read, and nothing behind
//! it; only what time it is in the pulses behind it is looked at.

use super::cluster::{Cluster, Event};
use crate::replication::dynamo::clock::is_ahead;
use crate::replication::dynamo::entry::time_of;
use crate::replication::dynamo::greeting::{Decision, Greeting, PROTOCOL, decide};
use crate::replication::dynamo::{Message, Pulse};
use crate::replication::handshake::Lane;
use crate::replication::message::NodeId;

/// How often nodes try to reach each other.
const GREET_MS: u64 = 100;
const HELD_MS: u64 = 40;

/// A connection between two nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    pub is_up: bool,
    /// Counts connections.
    pub epoch: u64,
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl Cluster {
    pub fn link(&self, one: usize, other: usize) -> Link {
        self.links.get(&pair(one, other)).copied().unwrap_or_default()
    }

    pub fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let to = to as usize - 1;
        let link = self.link(from, to);
        if !link.is_up {
            return;
        }
        let delay = self.delay_ms();
        let at = (self.now_ms + delay).max(self.last_at.get(&(from, to)).copied().unwrap_or(0));
        self.last_at.insert((from, to), at);
        self.channels.entry((from, to)).or_default().push_back(message);
        self.after(at - self.now_ms, Event::Deliver(from, to, link.epoch));
    }

    fn delay_ms(&mut self) -> u64 {
        let delay_ms_max = self.delay_ms_max;
        1 + self.below(delay_ms_max)
    }

    pub fn deliver(&mut self, from: usize, to: usize, epoch: u64) {
        let link = self.link(from, to);
        if !link.is_up || link.epoch != epoch {
            return;
        }
        let now_ms = self.nodes[to].clock_ms(self.now_ms);
        let peer = from as NodeId + 1;
        let node = &mut self.nodes[to];
        let (Some(channel), Some(process)) = (self.channels.get_mut(&(from, to)), &mut node.process) else {
            return;
        };
        let holds = match channel.front() {
            Some(Message::Entries(entries)) => {
                entries.iter().filter_map(|payload| time_of(payload)).any(|time| is_ahead(time, now_ms))
            }
            _ => false,
        };
        if holds {
            self.figures.held += 1;
            let pulse = channel.iter().rev().find_map(|message| match message {
                Message::Pulse(Pulse { clock_ms, .. }) => Some(*clock_ms),
                _ => None,
            });
            if let Some(clock_ms) = pulse {
                process.replica.heard_clock(peer, clock_ms, now_ms);
            }
            return self.after(HELD_MS, Event::Deliver(from, to, epoch));
        }
        let Some(message) = channel.pop_front() else { return };
        if matches!(message, Message::Pulse(_) | Message::Vector { .. }) {
            node.must_hear.remove(&peer);
        }
        match message {
            Message::Entries(entries) => {
                process.replica.received(peer, entries).expect("entries that were written")
            }
            Message::Vector { vector, again } => process.replica.heard_vector(peer, vector, again, now_ms),
            Message::Pulse(pulse) => process.replica.heard_pulse(peer, pulse, now_ms),
            Message::TooFarBehind => process.replica.too_far_behind(peer),
            Message::Members(list) => process.replica.heard_list(peer, &list, now_ms),
        }
        self.is_dirty.insert(to);
    }

    /// Nodes that should be connected try it; those that shouldn't are cut.
    pub fn greet_all(&mut self) {
        let pause = GREET_MS / 2 + self.below(GREET_MS);
        self.after(pause, Event::Greet);
        for one in 0..self.nodes.len() {
            for other in one + 1..self.nodes.len() {
                let is_up = self.link(one, other).is_up;
                let may = self.reach(one, other) && self.greet(one, other) && self.greet(other, one);
                if is_up && !may {
                    self.cut(one, other);
                } else if !is_up && may && self.below(2) == 0 {
                    let link = self.links.entry(pair(one, other)).or_default();
                    *link = Link { is_up: true, epoch: link.epoch + 1 };
                    self.connected(one, other);
                    self.connected(other, one);
                }
            }
        }
    }

    fn connected(&mut self, place: usize, peer: usize) {
        let now_ms = self.nodes[place].clock_ms(self.now_ms);
        if let Some(process) = &mut self.nodes[place].process {
            process.replica.speaks(peer as NodeId + 1, PROTOCOL.1, now_ms);
            self.is_dirty.insert(place);
        }
    }

    fn reach(&self, one: usize, other: usize) -> bool {
        let runs = |place: usize| self.nodes[place].process.is_some();
        runs(one) && runs(other) && !self.parted.contains(&pair(one, other))
    }

    /// What one node says to another one's greeting.
    fn greet(&mut self, from: usize, to: usize) -> bool {
        let place = self.nodes[from].place();
        let is_new = self.nodes[from].process.as_ref().is_some_and(|process| process.replica.is_new());
        let me = self.nodes[to].place();
        let now_ms = self.nodes[to].clock_ms(self.now_ms);
        let Some(process) = &mut self.nodes[to].process else { return false };
        let greeting = Greeting {
            mode: "dynamo".to_string(),
            protocol: PROTOCOL,
            lane: Lane::Log,
            from: place.clone(),
            boot: 1,
            to: me.node_id,
            is_new,
            advertise: None,
        };
        match decide(&me, process.replica.members(), &greeting) {
            Decision::Accept => true,
            Decision::Refuse(_) => false,
            Decision::Evicted(_) => {
                self.tell_evicted(from);
                false
            }
            Decision::Admit => {
                let directory = place.directory.map(|directory| directory.0);
                if let Some(directory) = directory.filter(|known| !process.admitting.contains(known))
                    && process.replica.let_join(place, now_ms)
                {
                    process.admitting.insert(directory);
                    self.is_dirty.insert(to);
                }
                false
            }
        }
    }

    /// Who is evicted hears so from whom it greets, and keeps it.
    fn tell_evicted(&mut self, place: usize) {
        let now_ms = self.nodes[place].clock_ms(self.now_ms);
        let Some(process) = &mut self.nodes[place].process else { return };
        if !std::mem::replace(&mut process.knows_eviction, true) {
            process.replica.hear_eviction(now_ms);
            self.is_dirty.insert(place);
        }
    }

    /// A connection is lost, with what is on it.
    pub fn cut(&mut self, one: usize, other: usize) {
        let Some(link) = self.links.get_mut(&pair(one, other)).filter(|link| link.is_up) else { return };
        link.is_up = false;
        for (from, to) in [(one, other), (other, one)] {
            self.channels.remove(&(from, to));
            if let Some(process) = &mut self.nodes[from].process {
                process.replica.unreachable(to as NodeId + 1);
                self.is_dirty.insert(from);
            }
        }
    }

    /// All connections of a node are lost.
    pub fn cut_all(&mut self, place: usize) {
        (0..self.nodes.len()).filter(|other| *other != place).for_each(|other| self.cut(place, other));
    }

    /// Two nodes don't reach each other any more.
    pub fn part(&mut self, one: usize, other: usize) {
        self.parted.insert(pair(one, other));
        self.cut(one, other);
    }
}
