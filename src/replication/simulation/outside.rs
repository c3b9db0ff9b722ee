//! Where a node meets the world: its disk and the network.

use super::Mutant;
use super::cluster::{Cluster, Event, TICK_MS};
use crate::persistence::host_of;
use crate::replication::doubt::for_earlier;
use crate::replication::message::{Message, MessageKind};
use crate::replication::protocol::PROTOCOL_DOUBT;
use crate::replication::raft::{Input, Persist};

impl Cluster {
    pub fn persist(&mut self, place: usize, mut persist: Persist) {
        let incarnation = self.nodes[place].incarnation;
        let sync_ms = self.nodes[place].sync_ms;
        if let Some(process) = &mut self.nodes[place].process {
            process.persists_under_way += 1;
        }
        let installed = persist.snapshot.as_ref().and_then(|mark| {
            self.nodes[place].process.as_mut().and_then(|process| process.received.remove(&mark.index))
        });
        assert_eq!(
            persist.snapshot.is_some(),
            installed.is_some(),
            "a snapshot is installed that never came"
        );
        if self.mutant == Some(Mutant::PromisesBeforeSync) {
            let promises = std::mem::take(&mut persist.then_send);
            promises.into_iter().for_each(|message| self.send(place, message));
        }
        self.witness_speaks_early(place, &mut persist);
        let at_once = self.mutant == Some(Mutant::PersistedBeforeSync) && persist.snapshot.is_none();
        let number = persist.number;
        let promises = if at_once { std::mem::take(&mut persist.then_send) } else { Vec::new() };
        self.nodes[place].disk.write(self.now_ms, persist, installed);
        let delay = 1 + self.below(sync_ms + 1);
        self.after(delay, Event::Synced(place, incarnation));
        if at_once {
            promises.into_iter().for_each(|message| self.send(place, message));
            self.step(place, Input::Persisted(number));
        }
    }

    pub fn synced(&mut self, place: usize, incarnation: u64) {
        if !self.is_running(place, incarnation) {
            return;
        }
        if self.is_paused(place) {
            return self.when_it_goes_on(place, Event::Synced(place, incarnation));
        }
        let hangs_until_ms = self.nodes[place].hangs_until_ms;
        if hangs_until_ms > self.now_ms {
            // Looked at again and again: it may be mended before.
            let wait_ms = (hangs_until_ms - self.now_ms).min(TICK_MS);
            return self.after(wait_ms, Event::Synced(place, incarnation));
        }
        let fails = !self.calm && self.below(100) < self.faults.failed_syncs_percent;
        self.faults.figures.failed_syncs += u64::from(fails);
        let Some(persist) = self.nodes[place].disk.sync(fails) else { return };
        if let (Some(_), Some((_, state))) = (&persist.snapshot, &self.nodes[place].disk.snapshot) {
            let state = state.clone();
            self.faults.figures.installed += 1;
            self.install(place, &state);
        }
        if self.mutant == Some(Mutant::AcknowledgedAtOwnSync) {
            persist.entries.iter().for_each(|entry| self.acknowledge_proposed(place, entry.index));
        }
        persist.then_send.into_iter().for_each(|message| self.send(place, message));
        self.persisted(place);
        self.step(place, Input::Persisted(persist.number));
    }

    pub fn send(&mut self, place: usize, mut message: Message) {
        let speaks = |id: u64| self.nodes[host_of(id) as usize - 1].protocol;
        if speaks(message.from) < PROTOCOL_DOUBT && message.kind == MessageKind::Heartbeat {
            message.commit_term = 0;
        }
        if speaks(message.from).min(speaks(message.to)) < PROTOCOL_DOUBT {
            let Some(earlier) = for_earlier(message) else { return };
            message = earlier;
        }
        if !self.connects(place, host_of(message.to) as usize - 1) {
            return self.not_sent(place, &message);
        }
        let delay = self.faults.delay(host_of(message.from), host_of(message.to), &mut self.random);
        let uuid = self.nodes[host_of(message.to) as usize - 1].directory.uuid;
        let mut state = None;
        if message.kind == MessageKind::Snapshot {
            state = self.state_of(place, message.snapshot.as_ref()).filter(|_| delay.is_some());
            let (to, is_there, incarnation) = (message.to, state.is_some(), self.nodes[place].incarnation);
            // Whatever became of it is said: the replica sends nothing else until it knows.
            self.after(delay.unwrap_or(0) + 20, Event::SnapshotReport(place, incarnation, to, is_there));
            if !is_there {
                return;
            }
        }
        let Some(delay) = delay else { return };
        if self.faults.doubles(&mut self.random) {
            let again = delay + self.below(100);
            self.after(again, Event::Deliver(Box::new(message.clone()), state.clone(), uuid));
        }
        self.after(delay, Event::Deliver(Box::new(message), state, uuid));
    }

    /// Nobody is there who would take it.
    fn not_sent(&mut self, place: usize, message: &Message) {
        if message.kind == MessageKind::Snapshot {
            let incarnation = self.nodes[place].incarnation;
            self.after(20, Event::SnapshotReport(place, incarnation, message.to, false));
        }
    }
}
