//! A replica that hosts a witness: what is said to it and by it, and what of that
//! waits for the disk that both share.
//!
//! While the host leads and the other node is there, too, what is acknowledged
//! should be on both disks: the witness alone would let its host acknowledge what
//! only one disk has. So it withholds its acknowledgements, which any voter may,
//! until the other node is silent for an election timeout, or keeps no pace.

use std::collections::BTreeMap;

use super::effect::{Effect, Options, Persist};
use super::replica::Replica;
use super::witness::Witness;
use crate::limits::CAUGHT_UP_LAG_ENTRIES_MAX;
use crate::persistence::{is_witness, witness_in};
use crate::replication::message::{Message, MessageKind, NodeId};
use ::raft::{SnapshotStatus, StateRole};

/// How far another node is, and for how long.
#[derive(Clone, Copy, Debug, Default)]
struct Other {
    /// Ticks since a message of its came.
    silent: usize,
    matched: u64,
    /// Ticks for which it has lacked something and got nothing.
    stalled: usize,
}

/// What a replica has beside its own vote.
pub(super) struct Hosting {
    node_id: NodeId,
    election_ticks: usize,
    pub witness: Option<Witness>,
    /// Messages between the two, and the persist that each waits for.
    inside: Vec<(u64, Message)>,
    /// What the witness says and may not say before its term or vote is durable.
    promises: Vec<Message>,
    others: BTreeMap<NodeId, Other>,
    withholds: bool,
}

impl Hosting {
    pub fn new(options: &Options) -> Hosting {
        Hosting {
            node_id: options.node_id,
            election_ticks: options.election_ticks,
            witness: None,
            inside: Vec::new(),
            promises: Vec::new(),
            others: BTreeMap::new(),
            withholds: false,
        }
    }

    pub fn is_witness(&self, id: NodeId) -> bool {
        self.witness.as_ref().is_some_and(|witness| witness.id == id)
    }

    /// Whether something inside waits for this persist.
    pub fn waits_for(&self, number: u64) -> bool {
        self.inside.iter().any(|(waits_for, _)| *waits_for == number)
    }

    pub fn heard(&mut self, from: NodeId) {
        if let Some(other) = self.others.get_mut(&from) {
            other.silent = 0;
        }
    }

    pub fn durable(&mut self, term: u64) {
        if let Some(witness) = &mut self.witness {
            witness.durable_term = witness.durable_term.max(term);
        }
    }
}

impl Replica {
    /// A witness comes or goes with the members.
    pub(super) fn host_as_configured(&mut self) {
        let node_id = self.options.node_id;
        if !self.configuration().hosts_witness(node_id) {
            self.hosting.witness = None;
            self.hosting.inside.clear();
            self.hosting.promises.clear();
        } else if self.hosting.witness.is_none() {
            let id = witness_in(node_id);
            self.hosting.witness = Some(Witness::new(id, self.options.election_ticks, &self.hard_state));
        }
    }

    pub(super) fn tick_witness(&mut self) {
        let Some(witness) = &mut self.hosting.witness else { return };
        witness.tick();
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            self.hosting.others.clear();
            self.hosting.withholds = false;
            return;
        }
        let (patience, persisted) = (self.hosting.election_ticks, raft.raft_log.persisted);
        let mut withholds = false;
        for (&id, progress) in raft.prs().iter().filter(|(id, _)| !is_witness(**id)) {
            if id == self.hosting.node_id || !raft.prs().conf().voters().contains(id) || self.is_doubted(id) {
                continue;
            }
            // A new leader has heard of nobody yet.
            let unheard = Other { silent: patience, ..Other::default() };
            let other = self.hosting.others.entry(id).or_insert(unheard);
            other.silent = other.silent.saturating_add(1);
            let gets_nothing = progress.matched < persisted && progress.matched <= other.matched;
            other.stalled = if gets_nothing { other.stalled + 1 } else { 0 };
            other.matched = progress.matched;
            let is_there = other.silent <= patience && other.stalled <= 2 * patience;
            let has_caught_up = progress.matched + CAUGHT_UP_LAG_ENTRIES_MAX >= persisted;
            withholds |= is_there && (self.hosting.withholds || has_caught_up);
        }
        self.hosting.withholds = withholds && !self.is_in_doubt();
    }

    /// A message of another node to the witness, or the host's own.
    pub(super) fn witness_hears(&mut self, message: &Message) {
        let log = &self.node.raft.raft_log;
        let log_end = (log.last_term(), log.last_index());
        let Some(witness) = &mut self.hosting.witness else { return };
        if let Some(answer) = witness.hear(message, log_end) {
            self.witness_says(answer);
        }
    }

    fn witness_says(&mut self, message: Message) {
        let Some(witness) = &self.hosting.witness else { return };
        let is_vote = message.kind == MessageKind::RequestVoteResponse && !message.reject;
        // A pre-vote is of a term that nobody is in yet: it promises nothing.
        let is_durable =
            message.kind == MessageKind::RequestPreVoteResponse || message.term <= witness.durable_term;
        if is_vote || !is_durable {
            self.hosting.promises.push(message);
        } else if message.to == self.options.node_id {
            self.hosting.inside.push((0, message));
        } else {
            self.effects.push(Effect::Send(message));
        }
    }

    /// What the witness promises becomes durable, and then leaves.
    pub(super) fn persist_witness(&mut self) {
        let number = self.persists_begun + 1;
        let Some(witness) = &mut self.hosting.witness else { return };
        if !witness.is_dirty && self.hosting.promises.is_empty() {
            return;
        }
        let must_sync = std::mem::take(&mut witness.is_dirty);
        (self.hard_state.witness_term, self.hard_state.witness_vote) = (witness.term, witness.vote);
        let promises = std::mem::take(&mut self.hosting.promises);
        let (inside, then_send): (Vec<_>, Vec<_>) =
            promises.into_iter().partition(|message| message.to == self.options.node_id);
        self.hosting.inside.extend(inside.into_iter().map(|message| (number, message)));
        let hard_state = must_sync.then_some(self.hard_state);
        let persist =
            Persist { number, entries: Vec::new(), hard_state, snapshot: None, must_sync, then_send };
        self.order(persist, None);
    }

    /// The host's own entries, as far as they are durable, while it leads.
    pub(super) fn witness_acknowledges(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || self.hosting.withholds {
            return;
        }
        let (term, durable) = (raft.term, raft.raft_log.persisted);
        let Some(witness) = &mut self.hosting.witness else { return };
        if let Some(message) = witness.acknowledges_host(self.options.node_id, term, durable) {
            self.hosting.inside.push((0, message));
        }
    }

    /// Hands over what the two say to each other and what is durable of it. Says
    /// whether there was anything.
    pub(super) fn deliver_inside(&mut self, persists_done: u64) -> bool {
        let may_go = |(waits_for, _): &mut (u64, Message)| *waits_for <= persists_done;
        let messages: Vec<(u64, Message)> = self.hosting.inside.extract_if(.., may_go).collect();
        let some = !messages.is_empty();
        for (_, mut message) in messages {
            if message.to == self.options.node_id {
                message.doubt = self.doubts.own_number().unwrap_or(0);
                self.hear(message);
            } else {
                self.witness_hears(&message);
            }
        }
        some
    }

    /// What the replica says leaves now.
    pub(super) fn send_at_once(&mut self, message: Message) {
        if self.hosting.is_witness(message.to) && message.kind != MessageKind::Snapshot {
            self.hosting.inside.push((0, message));
        } else if self.goes_out(&message) {
            self.effects.push(Effect::Send(message));
        }
    }

    /// What the replica says leaves when a persist is durable; with what its witness says to that.
    pub(super) fn send_behind(&mut self, number: u64, message: Message, then_send: &mut Vec<Message>) {
        if self.hosting.is_witness(message.to) {
            return self.hosting.inside.push((number, message));
        }
        if !self.goes_out(&message) {
            return;
        }
        let witness = self.hosting.witness.as_mut();
        let copy = witness.and_then(|witness| Some((witness.acknowledges(&message)?, witness.durable_term)));
        then_send.push(message);
        match copy {
            Some((copy, durable_term)) if copy.term <= durable_term => then_send.push(copy),
            Some((copy, _)) => self.hosting.promises.push(copy),
            None => {}
        }
    }

    /// A witness elsewhere has the entries by its host, and never needs a snapshot of its own.
    fn goes_out(&mut self, message: &Message) -> bool {
        match message.kind {
            MessageKind::Append => !is_witness(message.to),
            MessageKind::Snapshot if is_witness(message.to) => {
                self.node.report_snapshot(message.to, SnapshotStatus::Finish);
                false
            }
            _ => true,
        }
    }
}
