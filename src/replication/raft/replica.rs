//! One node's part in the protocol: inputs in, effects out. See the module's header.

use ::raft::{RawNode, SnapshotStatus, StateRole, eraftpb};
use bytes::Bytes;

use super::configurations::Configurations;
use super::convert;
use super::doubts::Doubts;
use super::effect::{
    Effect, Handle, Input, Options, Persist, Role, RoleChange, Start, Status, election_timeout_ticks,
    patience_ticks,
};
use super::elections::Elections;
use super::fetches::Fetches;
use super::hard_state::HardState;
use super::hosting::Hosting;
use super::reads::Reads;
use super::storage::Storage;
use crate::limits::MEMBERS_MAX;
use crate::persistence::is_witness;
use crate::replication::message::{EntryKind, LogEntry, MessageKind, NodeId, SnapshotMark};

/// A persist under way, and what is durable with it.
struct Persisting {
    number: u64,
    /// The crate's number for it; a persist of the witness alone has none.
    ready: Option<u64>,
    term: u64,
    witness_term: u64,
}

/// The node's part.
pub struct Replica {
    pub(super) node: RawNode<Storage>,
    pub(super) options: Options,
    role: RoleChange,
    pub(super) configurations: Configurations,
    pub(super) hosting: Hosting,
    /// The newest hard state that was ordered to be written.
    pub(super) hard_state: HardState,
    /// The term of the hard state that is durable.
    durable_term: u64,
    pub(super) persists_begun: u64,
    /// The last persist that is durable.
    persists_done: u64,
    persisting: Vec<Persisting>,
    /// The persist that installs a snapshot: nothing goes on before it is durable.
    pub(super) installing: Option<u64>,
    handed_out: u64,
    /// The term in which this node campaigns, or did, since its leader asked it to.
    pub(super) invited_to: u64,
    pub(super) elections: Elections,
    pub(super) doubts: Doubts,
    pub(super) reads: Reads,
    pub(super) fetches: Fetches,
    /// What is committed here its leader hasn't got: it takes no more part.
    pub(super) has_conflict: bool,
    pub(super) effects: Vec<Effect>,
    #[cfg(test)]
    pub(super) mistakes: Vec<super::mistake::Mistake>,
}

impl Replica {
    /// A node that goes on from where its disk left it.
    ///
    /// # Panics
    ///
    /// If `options` or `start` contradict themselves: a commit index behind the
    /// log's end, or a tail that doesn't continue the log.
    pub fn new(options: Options, mut start: Start) -> Replica {
        // What is applied was committed, even where the hard state that says so was not synced.
        let applied = start.cut.0 + start.applied.len() as u64;
        start.hard_state.commit = start.hard_state.commit.max(applied);
        if start.hard_state.term < start.members.term_least {
            (start.hard_state.term, start.hard_state.vote) = (start.members.term_least, 0);
        }
        let members = start.members.configuration.members.clone();
        let mut storage = Storage::new(start.hard_state, members, start.cut);
        start.applied.into_iter().for_each(|term| storage.push_without_payload(term));
        storage.append(&start.tail);
        let config = ::raft::Config {
            id: options.node_id,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied,
            max_size_per_msg: options.message_bytes_max,
            max_inflight_msgs: options.in_flight_messages_max,
            check_quorum: true,
            pre_vote: true,
            // The place decides, not chance: see `Replica::tick`.
            min_election_tick: election_timeout_ticks(options.election_ticks, 0),
            max_election_tick: election_timeout_ticks(options.election_ticks, MEMBERS_MAX)
                + patience_ticks(options.election_ticks)
                + 1,
            read_only_option: ::raft::ReadOnlyOption::Safe,
            skip_bcast_commit: false,
            batch_append: true,
            priority: 0,
            max_uncommitted_size: options.uncommitted_bytes_max,
            max_committed_size_per_ready: options.committed_bytes_max,
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, storage, &logger)
            .unwrap_or_else(|error| panic!("a replica can't begin: {error}"));
        let role = RoleChange { role: Role::Follower, leader: None, term: start.hard_state.term };
        let mut replica = Replica {
            node,
            hosting: Hosting::new(&options),
            doubts: Doubts::new(&options, start.in_doubt),
            options,
            role,
            configurations: Configurations::new(start.members),
            hard_state: start.hard_state,
            durable_term: start.hard_state.term,
            persists_begun: 0,
            persists_done: 0,
            persisting: Vec::new(),
            installing: None,
            handed_out: applied,
            invited_to: 0,
            elections: Elections::default(),
            reads: Reads::default(),
            fetches: Fetches::default(),
            has_conflict: false,
            effects: Vec::new(),
            #[cfg(test)]
            mistakes: Vec::new(),
        };
        replica.host_as_configured();
        replica
    }

    /// Takes an input in. Its effects come with the next [`Replica::pump`].
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Propose(handle, _) if self.has_conflict => self.effects.push(Effect::Dropped(handle)),
            Input::Read(handle) if self.has_conflict => self.effects.push(Effect::ReadLost(handle)),
            _ if self.has_conflict => {}
            // Until a snapshot is installed the log behind it has no beginning: a
            // node that campaigned now would look for entries that are gone.
            Input::Tick if self.installing.is_some() => {}
            Input::Tick => self.tick(),
            Input::Received(message) => self.receive(*message),
            Input::Propose(handle, payload) => self.propose(handle, payload),
            Input::Read(handle) => self.read(handle),
            Input::Persisted(number) => self.persisted(number),
            Input::Fetched(number, entries) => self.fetched(number, entries),
            Input::Unreadable(index) => self.node.mut_store().unreadable(index),
            Input::GoOn => self.go_on(),
            Input::Reconfigure(to) => self.reconfigure(&to),
            Input::DoubtStored => self.doubt_stored(),
            // It would not take it.
            Input::TransferTo(node) if self.is_doubted(node) && self.leads_in(self.node.raft.term) => {}
            Input::TransferTo(node) => self.node.transfer_leader(node),
            Input::Unreachable(node) => self.node.report_unreachable(node),
            Input::SnapshotSent(node, true) => self.node.report_snapshot(node, SnapshotStatus::Finish),
            Input::SnapshotSent(node, false) => self.node.report_snapshot(node, SnapshotStatus::Failure),
        }
    }

    /// All that follows from the inputs since the last call.
    pub fn pump(&mut self) -> Vec<Effect> {
        loop {
            self.settle_doubts();
            self.begin_read_round();
            while self.installing.is_none() && self.node.has_ready() {
                self.take_ready();
            }
            self.witness_acknowledges();
            self.persist_witness();
            if !self.deliver_inside(self.persists_done) {
                break;
            }
        }
        for to in self.node.mut_store().take_snapshot_wanted() {
            self.effects.push(Effect::SnapshotWanted(to));
        }
        for missing in self.node.mut_store().take_missing() {
            self.fetch(missing);
        }
        if self.installing.is_some() {
            self.answer_heartbeats();
        }
        self.speak()
    }

    /// While a snapshot is installed everything else waits for the disk. Not
    /// these, or a disk that stalls looks like a node that is dead.
    fn answer_heartbeats(&mut self) {
        let durable_term = self.durable_term;
        let may_leave = |message: &mut eraftpb::Message| {
            message.get_msg_type() == eraftpb::MessageType::MsgHeartbeatResponse
                && message.term <= durable_term
        };
        let answers: Vec<_> = self.node.raft.msgs.extract_if(.., may_leave).collect();
        for answer in answers.into_iter().filter_map(convert::outgoing) {
            self.send_at_once(answer);
        }
    }

    /// The lower its place among the nodes, the earlier it campaigns. The crate draws
    /// anew whenever its role changes; what it draws is never used. In doubt it lets all others
    /// go first, and may hear meanwhile that the members are others by now.
    fn tick(&mut self) {
        let nodes = self.configurations.newest().node_ids();
        let place = nodes.iter().position(|id| *id == self.options.node_id).unwrap_or(nodes.len());
        let patience = if self.is_in_doubt() { patience_ticks(self.options.election_ticks) } else { 0 };
        let timeout = election_timeout_ticks(self.options.election_ticks, place.min(MEMBERS_MAX)) + patience;
        self.node.raft.set_randomized_election_timeout(timeout);
        self.take_gap_alone();
        self.node.tick();
        if self.node.raft.state == StateRole::PreCandidate && self.node.raft.election_elapsed == 0 {
            self.elections.begin_anew();
        }
        self.tick_doubts();
        self.hand_over_if_leaving();
        self.tick_witness();
    }

    /// Where this node stands.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let mut followers: Vec<_> = Vec::new();
        if self.role.role == Role::Leader {
            let is_other = |id: NodeId| id != self.options.node_id && !is_witness(id);
            let others = raft.prs().iter().filter(|(id, _)| is_other(**id));
            let is_there = |id, is_active| is_active && !self.is_doubted(id);
            let row = |(id, progress): (&u64, &::raft::Progress)| {
                (*id, progress.matched, is_there(*id, progress.recent_active))
            };
            followers = others.map(row).collect();
            followers.sort_unstable();
        }
        let votes = |follower: &(NodeId, u64, bool)| self.configuration().members.votes(follower.0);
        let (followers, learners) = followers.into_iter().partition(votes);
        Status {
            role: self.role,
            commit: raft.raft_log.committed,
            last: raft.raft_log.last_index(),
            applied: self.handed_out,
            was_handed_over: self.role.role == Role::Leader && self.role.term == self.invited_to,
            followers,
            learners,
            hosts_witness: self.hosting.witness.is_some(),
            in_doubt: self.is_in_doubt(),
        }
    }

    /// The term of an entry of the log, or of the one before the first: `None` for
    /// any other, as for what is applied while a snapshot ahead of it is installed.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        let log = &self.node.raft.raft_log;
        // Outside of these the crate says 0, and a snapshot marked so would part its receiver for ever.
        let is_known = index + 1 >= log.first_index() && index <= log.last_index();
        if is_known { log.term(index).ok() } else { None }
    }

    /// A durable snapshot holds everything up to `mark`, with the log's entries behind `after`, its S:
    /// entries up to `cut_index` aren't needed.
    pub fn snapshot_made(&mut self, mark: SnapshotMark, after: u64, cut_index: u64) {
        self.configurations.cut(cut_index.min(mark.index));
        let store = self.node.mut_store();
        store.cut(cut_index.min(mark.index));
        store.snapshot = Some((mark, after));
    }

    fn propose(&mut self, handle: Handle, payload: Bytes) {
        debug_assert!(!payload.is_empty(), "an empty entry is a leader's own");
        // Checked and proposed in one step: a follower would forward it.
        let taken = self.node.raft.state == StateRole::Leader && {
            let entry = ::raft::eraftpb::Entry { data: payload, ..Default::default() };
            let mut message = ::raft::eraftpb::Message::default();
            message.set_msg_type(::raft::eraftpb::MessageType::MsgPropose);
            message.from = self.options.node_id;
            message.set_entries(vec![entry].into());
            self.node.raft.step(message).is_ok()
        };
        self.effects.push(if taken {
            Effect::Proposed(handle, self.node.raft.raft_log.last_index(), self.node.raft.term)
        } else {
            Effect::Dropped(handle)
        });
    }

    fn persisted(&mut self, number: u64) {
        let mut ready_number = None;
        while let Some(first) = self.persisting.first()
            && first.number <= number
        {
            let Persisting { ready, term, witness_term, .. } = self.persisting.remove(0);
            self.durable_term = term;
            self.hosting.durable(witness_term);
            ready_number = ready.or(ready_number);
        }
        self.persists_done = self.persists_done.max(number);
        if let Some(ready) = ready_number {
            self.node.on_persist_ready(ready);
        }
        if self.installing.is_some_and(|installing| installing <= number) {
            self.installing = None;
            self.node.advance_apply_to(self.handed_out);
        }
        let applied = self.handed_out;
        self.node.mut_store().let_payloads_go(applied, self.options.payload_bytes_max);
    }

    fn take_ready(&mut self) {
        let mut ready = self.node.ready();
        let ready_number = ready.number();
        let number = self.persists_begun + 1;
        let hard_state = ready.hs().map(|state| HardState {
            term: state.term,
            vote: state.vote,
            commit: state.commit,
            ..self.hard_state
        });
        self.hard_state = hard_state.unwrap_or(self.hard_state);
        self.note_role();
        let entries: Vec<LogEntry> = ready.entries().iter().cloned().map(convert::entry).collect();
        let at_once = ready.take_messages();
        let persisted = ready.take_persisted_messages();
        let mut then_send = Vec::new();
        let needs_own_disk = self.needs_own_disk();
        for (message, may_leave) in
            at_once.into_iter().map(|m| (m, true)).chain(persisted.into_iter().map(|m| (m, false)))
        {
            let Some(mut message) = convert::outgoing(message) else { continue };
            if let Some(mark) = &mut message.snapshot {
                mark.configuration = self.configurations.at(mark.index).clone();
            }
            if message.kind == MessageKind::Heartbeat {
                message.commit_term = self.term_of(message.commit).unwrap_or(0);
            }
            let promises_nothing = message.kind == MessageKind::HeartbeatResponse;
            let may_leave = may_leave && (message.entries.is_empty() || !needs_own_disk);
            if (may_leave || promises_nothing) && message.term <= self.durable_term {
                self.send_at_once(message);
            } else {
                self.send_behind(number, message, &mut then_send);
            }
        }
        let reads = ready.take_read_states();
        let committed: Vec<LogEntry> =
            ready.take_committed_entries().into_iter().map(convert::entry).collect();
        let snapshot = (!ready.snapshot().is_empty())
            .then(|| self.configurations.of_snapshot(convert::mark(ready.snapshot())));
        self.keep(snapshot.as_ref(), &entries);
        let is_empty = entries.is_empty()
            && hard_state.is_none()
            && snapshot.is_none()
            && then_send.is_empty()
            && !self.hosting.waits_for(number);
        let must_sync = ready.must_sync();
        self.node.advance_append_async(ready);
        if !is_empty {
            self.installing = snapshot.is_some().then_some(number);
            let persist = Persist { number, entries, hard_state, snapshot, must_sync, then_send };
            self.order(persist, Some(ready_number));
        } else if self.persisting.is_empty() {
            // Nothing to write and nothing on its way: else the crate would count
            // the heartbeats of an idle leader for ever.
            self.node.on_persist_ready(ready_number);
        }
        self.hand_out(committed);
        for read in reads {
            self.round_done(&read.request_ctx, read.index);
        }
    }

    /// The next of what must be durable, in order.
    pub(super) fn order(&mut self, persist: Persist, ready: Option<u64>) {
        self.persists_begun = persist.number;
        // What is written; while a snapshot is installed the crate may be further.
        let (term, witness_term) = (self.hard_state.term, self.hard_state.witness_term);
        self.persisting.push(Persisting { number: persist.number, ready, term, witness_term });
        self.effects.push(Effect::Persist(persist));
    }

    /// Makes readable what the crate is about to count as written.
    fn keep(&mut self, snapshot: Option<&SnapshotMark>, entries: &[LogEntry]) {
        if let Some(mark) = snapshot {
            self.node.mut_store().restart_at(mark);
            self.handed_out = mark.index;
            self.configurations.restart_at(mark);
            self.configured();
        }
        self.node.mut_store().append(entries);
    }

    fn hand_out(&mut self, committed: Vec<LogEntry>) {
        let Some(last) = committed.last() else { return };
        assert_eq!(committed[0].index, self.handed_out + 1, "committed entries come in order");
        self.handed_out = last.index;
        let changes: Vec<LogEntry> =
            committed.iter().filter(|entry| entry.kind == EntryKind::Members).cloned().collect();
        // First: whoever hears of an entry may ask who the members are there.
        changes.iter().for_each(|entry| self.change_members(entry));
        self.effects.push(Effect::Commit(committed));
        self.node.advance_apply_to(self.handed_out);
    }

    fn note_role(&mut self) {
        let raft = &self.node.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        let leader = (raft.leader_id != 0).then_some(raft.leader_id);
        let change = RoleChange { role, leader, term: raft.term };
        if change != self.role {
            let goes_on = (role, change.term) == (self.role.role, self.role.term);
            let led = self.role.role == Role::Leader && !goes_on;
            if !goes_on {
                let first = (role == Role::Leader).then(|| raft.raft_log.last_index());
                self.doubts.enter(change.term, first);
            }
            self.role = change;
            self.effects.push(Effect::Role(change));
            if led {
                self.lose_reads();
            }
        }
    }
}
