//! One node's part in the protocol: inputs in, effects out. See the module's header.

use std::collections::{BTreeMap, HashMap};

use ::raft::{GetEntriesContext, RawNode, SnapshotStatus, StateRole, eraftpb};
use bytes::Bytes;

use super::convert;
use super::effect::{Effect, Handle, Input, Options, Persist, Role, RoleChange, Start, Status};
use super::hard_state::HardState;
use super::storage::{Missing, Storage};
use crate::replication::message::{LogEntry, Members, Message, MessageKind, SnapshotMark};

/// Payloads that are being read back, and what goes on when they have come.
struct Fetching {
    low: u64,
    /// For each its name: the crate asks again at every message that it would
    /// send, and each answer makes it ask for what comes next.
    contexts: BTreeMap<String, GetEntriesContext>,
}

/// The node's part.
pub struct Replica {
    node: RawNode<Storage>,
    options: Options,
    role: RoleChange,
    /// The term of the hard state that is durable.
    durable_term: u64,
    /// Persists under way: number and the term that will be durable with it.
    persisting: Vec<(u64, u64)>,
    /// The persist that installs a snapshot: nothing goes on before it is durable.
    installing: Option<u64>,
    handed_out: u64,
    /// The term in which this node campaigns, or did, since its leader asked it to.
    invited_to: u64,
    /// Reads that no round was begun for yet.
    reads: Vec<Handle>,
    /// Rounds under way.
    rounds: HashMap<Vec<u8>, Vec<Handle>>,
    rounds_begun: u64,
    fetches: HashMap<u64, Fetching>,
    fetches_begun: u64,
    effects: Vec<Effect>,
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
        let mut storage = Storage::new(start.hard_state, start.members, start.cut);
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
            // One value: the rank decides, not chance.
            min_election_tick: options.timeout_ticks,
            max_election_tick: options.timeout_ticks + 1,
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
        Replica {
            node,
            options,
            role,
            durable_term: start.hard_state.term,
            persisting: Vec::new(),
            installing: None,
            handed_out: applied,
            invited_to: 0,
            reads: Vec::new(),
            rounds: HashMap::new(),
            rounds_begun: 0,
            fetches: HashMap::new(),
            fetches_begun: 0,
            effects: Vec::new(),
        }
    }

    /// Takes an input in. Its effects come with the next [`Replica::pump`].
    pub fn step(&mut self, input: Input) {
        match input {
            // Until a snapshot is installed the log behind it has no beginning: a
            // node that campaigned now would look for entries that are gone.
            Input::Tick if self.installing.is_some() => {}
            Input::Tick => {
                self.node.tick();
            }
            Input::Received(message) => self.receive(*message),
            Input::Propose(handle, payload) => self.propose(handle, payload),
            Input::Read(handle) => self.read(handle),
            Input::Persisted(number) => self.persisted(number),
            Input::Fetched(number, entries) => self.fetched(number, entries),
            Input::TransferTo(node) => self.node.transfer_leader(node),
            Input::Unreachable(node) => self.node.report_unreachable(node),
            Input::SnapshotSent(node, true) => self.node.report_snapshot(node, SnapshotStatus::Finish),
            Input::SnapshotSent(node, false) => self.node.report_snapshot(node, SnapshotStatus::Failure),
        }
    }

    /// All that follows from the inputs since the last call.
    pub fn pump(&mut self) -> Vec<Effect> {
        self.begin_read_round();
        while self.installing.is_none() && self.node.has_ready() {
            self.take_ready();
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
        std::mem::take(&mut self.effects)
    }

    /// Asks for payloads, unless the same are on their way already.
    fn fetch(&mut self, missing: Missing) {
        let Missing { low, high, bytes_max, context } = missing;
        let name = format!("{context:?}");
        if let Some(same) = self.fetches.values_mut().find(|fetching| fetching.low == low) {
            same.contexts.insert(name, context);
            return;
        }
        self.fetches_begun += 1;
        self.effects.push(Effect::Fetch { number: self.fetches_begun, low, high, bytes_max });
        let contexts = BTreeMap::from([(name, context)]);
        self.fetches.insert(self.fetches_begun, Fetching { low, contexts });
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
        self.effects.extend(answers.into_iter().filter_map(convert::outgoing).map(Effect::Send));
    }

    /// Where this node stands.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let mut followers: Vec<_> = Vec::new();
        if self.role.role == Role::Leader {
            let others = raft.prs().iter().filter(|(id, _)| **id != self.options.node_id);
            followers =
                others.map(|(id, progress)| (*id, progress.matched, progress.recent_active)).collect();
            followers.sort_unstable();
        }
        Status {
            role: self.role,
            commit: raft.raft_log.committed,
            last: raft.raft_log.last_index(),
            applied: self.handed_out,
            was_handed_over: self.role.role == Role::Leader && self.role.term == self.invited_to,
            followers,
        }
    }

    /// Who votes and who listens.
    pub fn members(&self) -> Members {
        convert::members(&self.node.raft.prs().conf().to_conf_state())
    }

    /// The term of an entry of the log, or of the one before the first: `None` for
    /// any other, as for what is applied while a snapshot ahead of it is installed.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        let log = &self.node.raft.raft_log;
        // Outside of these the crate says 0, and a snapshot marked so would part its receiver for ever.
        let is_known = index + 1 >= log.first_index() && index <= log.last_index();
        if is_known { log.term(index).ok() } else { None }
    }

    /// A durable snapshot holds everything up to `mark`: entries up to `cut_index` aren't needed.
    pub fn snapshot_made(&mut self, mark: SnapshotMark, cut_index: u64) {
        let store = self.node.mut_store();
        store.cut(cut_index.min(mark.index));
        store.snapshot = Some(mark);
    }

    fn receive(&mut self, message: Message) {
        let is_ours = message.to == self.options.node_id && message.from != self.options.node_id;
        if !is_ours || (message.kind == MessageKind::TimeoutNow && self.installing.is_some()) {
            return;
        }
        // A heartbeat's commit index is one that this node is known to have reached.
        let last = self.node.raft.raft_log.last_index();
        if message.kind == MessageKind::Heartbeat && message.commit > last && self.installing.is_none() {
            return self.effects.push(Effect::PromiseBroken { promised: message.commit, last });
        }
        if message.kind == MessageKind::TimeoutNow && message.term == self.node.raft.term {
            self.invited_to = message.term + 1;
        }
        // A peer that isn't a member (any more), or a message that this state has no use for.
        let _ = self.node.step(convert::incoming(message));
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

    fn read(&mut self, handle: Handle) {
        if self.node.raft.state == StateRole::Leader {
            self.reads.push(handle);
        } else {
            self.effects.push(Effect::ReadLost(handle));
        }
    }

    /// One round of heartbeats for all reads that wait.
    fn begin_read_round(&mut self) {
        let raft = &self.node.raft;
        let knows_what_is_committed =
            raft.raft_log.term(raft.raft_log.committed).is_ok_and(|term| term == raft.term);
        if self.reads.is_empty() || raft.state != StateRole::Leader || !knows_what_is_committed {
            return;
        }
        self.rounds_begun += 1;
        // Never the same twice: not within this process, and not after it, since
        // a node doesn't lead the same term twice.
        let mut context = raft.term.to_le_bytes().to_vec();
        context.extend_from_slice(&self.rounds_begun.to_le_bytes());
        self.rounds.insert(context.clone(), std::mem::take(&mut self.reads));
        self.node.read_index(context);
    }

    fn lose_reads(&mut self) {
        let begun = self.rounds.drain().flat_map(|(_, handles)| handles);
        let mut lost: Vec<Handle> = begun.chain(self.reads.drain(..)).collect();
        lost.sort_unstable();
        self.effects.extend(lost.into_iter().map(Effect::ReadLost));
    }

    fn persisted(&mut self, number: u64) {
        while let Some(&(first, term)) = self.persisting.first()
            && first <= number
        {
            self.persisting.remove(0);
            self.durable_term = term;
        }
        self.node.on_persist_ready(number);
        if self.installing.is_some_and(|installing| installing <= number) {
            self.installing = None;
            self.node.advance_apply_to(self.handed_out);
        }
        let applied = self.handed_out;
        self.node.mut_store().let_payloads_go(applied, self.options.payload_bytes_max);
    }

    fn fetched(&mut self, number: u64, entries: Vec<LogEntry>) {
        let Some(fetching) = self.fetches.remove(&number) else { return };
        if entries.is_empty() {
            // They are gone from the disk: the follower is sent a snapshot when it asks again.
            return;
        }
        self.node.mut_store().fetched(entries);
        for (_, context) in fetching.contexts {
            self.node.on_entries_fetched(context);
        }
        self.node.mut_store().forget_fetched();
    }

    fn take_ready(&mut self) {
        let mut ready = self.node.ready();
        let number = ready.number();
        let hard_state =
            ready.hs().map(|state| HardState { term: state.term, vote: state.vote, commit: state.commit });
        self.note_role();
        let entries: Vec<LogEntry> = ready.entries().iter().cloned().map(convert::entry).collect();
        let at_once = ready.take_messages();
        let persisted = ready.take_persisted_messages();
        let mut then_send = Vec::new();
        for (message, may_leave) in
            at_once.into_iter().map(|m| (m, true)).chain(persisted.into_iter().map(|m| (m, false)))
        {
            let Some(message) = convert::outgoing(message) else { continue };
            let promises_nothing = message.kind == MessageKind::HeartbeatResponse;
            if (may_leave || promises_nothing) && message.term <= self.durable_term {
                self.effects.push(Effect::Send(message));
            } else {
                then_send.push(message);
            }
        }
        let reads = ready.take_read_states();
        let committed: Vec<LogEntry> =
            ready.take_committed_entries().into_iter().map(convert::entry).collect();
        let snapshot = (!ready.snapshot().is_empty()).then(|| convert::mark(ready.snapshot()));
        self.keep(snapshot.as_ref(), &entries);
        let is_empty =
            entries.is_empty() && hard_state.is_none() && snapshot.is_none() && then_send.is_empty();
        let must_sync = ready.must_sync();
        self.node.advance_append_async(ready);
        if !is_empty {
            self.installing = snapshot.is_some().then_some(number);
            self.persisting.push((number, self.node.raft.term));
            let persist = Persist { number, entries, hard_state, snapshot, must_sync, then_send };
            self.effects.push(Effect::Persist(persist));
        } else if self.persisting.is_empty() {
            // Nothing to write and nothing on its way: else the crate would count
            // the heartbeats of an idle leader for ever.
            self.node.on_persist_ready(number);
        }
        self.hand_out(committed);
        for read in reads {
            for handle in self.rounds.remove(&read.request_ctx).into_iter().flatten() {
                self.effects.push(Effect::ReadReady(handle, read.index));
            }
        }
    }

    /// Makes readable what the crate is about to count as written.
    fn keep(&mut self, snapshot: Option<&SnapshotMark>, entries: &[LogEntry]) {
        if let Some(mark) = snapshot {
            self.node.mut_store().restart_at(mark);
            self.handed_out = mark.index;
        }
        self.node.mut_store().append(entries);
    }

    fn hand_out(&mut self, committed: Vec<LogEntry>) {
        let Some(last) = committed.last() else { return };
        assert_eq!(committed[0].index, self.handed_out + 1, "committed entries come in order");
        self.handed_out = last.index;
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
            let led =
                self.role.role == Role::Leader && (role != Role::Leader || change.term != self.role.term);
            self.role = change;
            self.effects.push(Effect::Role(change));
            if led {
                self.lose_reads();
            }
        }
    }
}
