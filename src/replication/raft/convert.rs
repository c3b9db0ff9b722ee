//! Our own messages and the Raft crate's, one into the other. Its own encoding
//! is never used for what comes from the network: its parser recurses without
//! a bound (RUSTSEC-2024-0437).

use ::raft::eraftpb;
use bytes::Bytes;

use crate::persistence::{Configuration, Members};
use crate::replication::message::{EntryKind, LogEntry, Message, MessageKind, SnapshotMark};

/// The crate's message types at the places of [`MessageKind::ALL`], whose last ones are not
/// its. Its others are said within a node, or forward a follower's requests, which this node doesn't.
const TYPES: [eraftpb::MessageType; 11] = [
    eraftpb::MessageType::MsgAppend,
    eraftpb::MessageType::MsgAppendResponse,
    eraftpb::MessageType::MsgRequestVote,
    eraftpb::MessageType::MsgRequestVoteResponse,
    eraftpb::MessageType::MsgSnapshot,
    eraftpb::MessageType::MsgHeartbeat,
    eraftpb::MessageType::MsgHeartbeatResponse,
    eraftpb::MessageType::MsgTransferLeader,
    eraftpb::MessageType::MsgTimeoutNow,
    eraftpb::MessageType::MsgRequestPreVote,
    eraftpb::MessageType::MsgRequestPreVoteResponse,
];

/// `None` for what no peer may hear: a forwarded proposal would be decided
/// twice, a forwarded read answered by a node that didn't check its conditions.
pub(super) fn outgoing(mut message: eraftpb::Message) -> Option<Message> {
    let place = TYPES.iter().position(|kind| *kind == message.get_msg_type())?;
    let kind = MessageKind::ALL[place];
    Some(Message {
        kind,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        snapshot: (kind == MessageKind::Snapshot).then(|| mark(message.get_snapshot())),
        entries: message.take_entries().into_iter().map(entry).collect(),
        context: message.context,
        doubt: 0,
    })
}

pub(super) fn incoming(message: Message) -> eraftpb::Message {
    let mut into = eraftpb::Message::default();
    let place = MessageKind::ALL.iter().position(|kind| *kind == message.kind).unwrap_or_default();
    // A type that the crate refuses from outside stands for what isn't its.
    into.set_msg_type(TYPES.get(place).copied().unwrap_or(eraftpb::MessageType::MsgHup));
    into.from = message.from;
    into.to = message.to;
    into.term = message.term;
    into.log_term = message.log_term;
    into.index = message.index;
    into.commit = message.commit;
    into.commit_term = message.commit_term;
    into.reject = message.reject;
    into.reject_hint = message.reject_hint;
    into.request_snapshot = message.request_snapshot;
    into.context = message.context;
    into.set_entries(
        (message.entries.into_iter())
            .map(|entry| raft_entry(entry.index, entry.term, entry.kind, entry.payload))
            .collect(),
    );
    if let Some(mark) = message.snapshot {
        into.set_snapshot(raft_snapshot(&mark));
    }
    into
}

/// An entry of the crate's. Ours of kind Empty and Writes are its normal ones,
/// told apart by whether there is something in them.
pub(super) fn entry(entry: eraftpb::Entry) -> LogEntry {
    let kind = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal if entry.data.is_empty() => EntryKind::Empty,
        eraftpb::EntryType::EntryNormal => EntryKind::Writes,
        // What is in it is ours: the crate never reads it, it only counts such entries.
        eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => EntryKind::Members,
    };
    LogEntry { index: entry.index, term: entry.term, kind, payload: entry.data }
}

pub(super) fn raft_entry(index: u64, term: u64, kind: EntryKind, payload: Bytes) -> eraftpb::Entry {
    let mut entry = eraftpb::Entry { index, term, data: payload, ..Default::default() };
    if kind == EntryKind::Members {
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
    }
    entry
}

/// What makes of `from` what `to` is: into two sets of voters, out of them, or one step.
pub(super) fn change(from: &Members, to: &Members) -> eraftpb::ConfChangeV2 {
    let mut change = eraftpb::ConfChangeV2::default();
    if from.is_joint() && !to.is_joint() {
        return change; // nothing in it: the new voters alone count from here on
    }
    let mut steps = Vec::new();
    let mut step = |kind, node_id| {
        let mut single = eraftpb::ConfChangeSingle { node_id, ..Default::default() };
        single.set_change_type(kind);
        steps.push(single);
    };
    let new = |has: &[u64], had: &[u64]| -> Vec<u64> {
        has.iter().filter(|id| !had.contains(id)).copied().collect()
    };
    for id in new(&to.voters, &from.voters) {
        step(eraftpb::ConfChangeType::AddNode, id);
    }
    for id in new(&to.learners, &from.learners) {
        step(eraftpb::ConfChangeType::AddLearnerNode, id);
    }
    let kept = [&to.voters[..], &to.learners].concat();
    for id in new(&[&from.voters[..], &from.learners].concat(), &kept) {
        step(eraftpb::ConfChangeType::RemoveNode, id);
    }
    if to.is_joint() {
        change.set_transition(eraftpb::ConfChangeTransition::Explicit);
    }
    change.set_changes(steps.into());
    change
}

pub(super) fn conf_state(members: &Members) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: members.voters.clone(),
        learners: members.learners.clone(),
        voters_outgoing: members.voters_outgoing.clone(),
        learners_next: members.learners_next.clone(),
        auto_leave: members.auto_leave,
        ..Default::default()
    }
}

pub(super) fn members(state: &eraftpb::ConfState) -> Members {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    Members {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
        voters_outgoing: sorted(&state.voters_outgoing),
        learners_next: sorted(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}

/// The crate knows who votes and not where they are: a mark's nodes come from elsewhere.
pub(super) fn mark(snapshot: &eraftpb::Snapshot) -> SnapshotMark {
    let metadata = snapshot.get_metadata();
    let members = members(metadata.get_conf_state());
    let configuration = Configuration { members, ..Configuration::default() };
    SnapshotMark { index: metadata.index, term: metadata.term, configuration }
}

pub(super) fn raft_snapshot(mark: &SnapshotMark) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    snapshot.mut_metadata().index = mark.index;
    snapshot.mut_metadata().term = mark.term;
    snapshot.mut_metadata().set_conf_state(conf_state(&mark.configuration.members));
    snapshot
}
