//! One replica by itself: what it promises when, and what it never does.

use bytes::Bytes;

use super::{Effect, HardState, Input, Options, Persist, Replica, Role, Start, StartMembers};
use crate::persistence::{Configuration, Member};
use crate::replication::message::{EntryKind, LogEntry, Members, Message, MessageKind, SnapshotMark};

const ELECTION_TICKS: usize = 10;

fn replica(node_id: u64, voters: &[u64]) -> Replica {
    replica_behind((0, 0), node_id, voters)
}

fn replica_behind(cut: (u64, u64), node_id: u64, voters: &[u64]) -> Replica {
    replica_with(cut, vec![], node_id, voters)
}

/// With so many entries behind the cut that only the disk has: of these terms.
fn replica_with(cut: (u64, u64), applied: Vec<u64>, node_id: u64, voters: &[u64]) -> Replica {
    let node = |&node_id: &u64| Member { node_id, host: "h".into(), port: 1, node: None };
    let nodes = voters.iter().map(node).collect();
    let members = Members { voters: voters.to_vec(), ..Members::default() };
    let members = StartMembers::founding(Configuration { index: 0, members, nodes });
    let start =
        Start { hard_state: HardState::default(), members, cut, applied, tail: vec![], in_doubt: false };
    let options = Options {
        node_id,
        heartbeat_ticks: 2,
        election_ticks: ELECTION_TICKS,
        message_bytes_max: 1 << 20,
        in_flight_messages_max: 64,
        uncommitted_bytes_max: 1 << 20,
        committed_bytes_max: 1 << 20,
        payload_bytes_max: 1 << 20,
        doubt_seed: 7,
    };
    Replica::new(options, start)
}

/// Ticks until something must be persisted, which a candidate's vote must.
fn campaign(replica: &mut Replica) -> Vec<Effect> {
    for _ in 0..100 {
        replica.step(Input::Tick);
        let effects = replica.pump();
        if effects.iter().any(|effect| matches!(effect, Effect::Persist(_))) {
            return effects;
        }
    }
    panic!("it never campaigned");
}

fn persist(effects: &[Effect]) -> &Persist {
    let found = effects
        .iter()
        .find_map(|effect| if let Effect::Persist(persist) = effect { Some(persist) } else { None });
    found.expect("something to persist")
}

fn sent(effects: &[Effect]) -> Vec<MessageKind> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Send(message) = effect { Some(message.kind) } else { None })
        .collect()
}

fn message(kind: MessageKind, from: u64, to: u64, term: u64) -> Message {
    Message::new(kind, from, to, term)
}

fn receive(replica: &mut Replica, message: Message) -> Vec<Effect> {
    replica.step(Input::Received(Box::new(message)));
    replica.pump()
}

/// Node 1 of three leads, and nothing is under way.
fn leader() -> Replica {
    elected(replica(1, &[1, 2, 3]))
}

fn elected(mut replica: Replica) -> Replica {
    let asked = campaign(&mut replica);
    replica.step(Input::Persisted(persist(&asked).number));
    let mut grant = message(MessageKind::RequestPreVoteResponse, 2, 1, 1);
    let effects = receive(&mut replica, grant.clone());
    replica.step(Input::Persisted(persist(&effects).number));
    replica.pump();
    grant.kind = MessageKind::RequestVoteResponse;
    let effects = receive(&mut replica, grant);
    assert_eq!(replica.status().role.role, Role::Leader, "{effects:?}");
    replica.step(Input::Persisted(persist(&effects).number));
    replica.pump();
    replica
}

#[test]
fn a_lone_voter_leads_but_says_nothing_of_its_term_before_that_is_durable() {
    let mut replica = replica(1, &[1]);
    let effects = campaign(&mut replica);
    assert_eq!(sent(&effects), []);
    let persist = persist(&effects);
    assert_eq!((persist.hard_state.map(|state| state.term), persist.must_sync), (Some(1), true));
    assert_eq!(persist.entries[0].kind, EntryKind::Empty);
    replica.step(Input::Propose(1, Bytes::from_static(b"w")));
    let effects = replica.pump();
    assert!(effects.contains(&Effect::Proposed(1, 2, 1)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Commit(_))), "nothing is durable");
}

#[test]
fn a_vote_leaves_after_it_is_durable_and_once_a_term() {
    let mut replica = replica(3, &[1, 2, 3]);
    let ask = |from| message(MessageKind::RequestVote, from, 3, 5);
    let effects = receive(&mut replica, ask(1));
    assert_eq!(sent(&effects), []);
    let promised = persist(&effects);
    assert_eq!(promised.hard_state, Some(HardState { term: 5, vote: 1, ..HardState::default() }));
    assert_eq!(promised.then_send[0].kind, MessageKind::RequestVoteResponse);
    assert!(!promised.then_send[0].reject);
    let effects = receive(&mut replica, ask(2));
    assert!(persist(&effects).then_send[0].reject, "another one asks in the same term");
}

#[test]
fn a_leader_sends_while_its_own_disk_works_and_commits_when_both_have_it() {
    let mut replica = leader();
    // What it began its term with is on node 2's disk.
    let mut has = message(MessageKind::AppendResponse, 2, 1, 1);
    has.index = 1;
    let effects = receive(&mut replica, has.clone());
    let committed = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Commit(_)));
    assert!(committed(&effects), "{effects:?}");
    replica.step(Input::Propose(7, Bytes::from_static(b"write")));
    let effects = replica.pump();
    assert!(effects.contains(&Effect::Proposed(7, 2, 1)));
    assert!(sent(&effects).contains(&MessageKind::Append), "{effects:?}");
    let number = persist(&effects).number;
    has.index = 2;
    let effects = receive(&mut replica, has);
    assert!(!committed(&effects), "its own disk hasn't synced it: {effects:?}");
    replica.step(Input::Persisted(number));
    assert!(committed(&replica.pump()));
}

#[test]
fn a_follower_refuses_proposals_and_reads_and_forwards_nothing() {
    let mut replica = replica(2, &[1, 2, 3]);
    receive(&mut replica, message(MessageKind::Heartbeat, 1, 2, 3));
    replica.step(Input::Propose(1, Bytes::from_static(b"w")));
    replica.step(Input::Read(2));
    let effects = replica.pump();
    assert!(effects.contains(&Effect::Dropped(1)) && effects.contains(&Effect::ReadLost(2)));
    assert_eq!(sent(&effects), []);
}

#[test]
fn a_heartbeat_is_answered_while_the_disk_stalls_and_an_append_is_not() {
    let mut replica = replica(2, &[1, 2, 3]);
    let effects = receive(&mut replica, message(MessageKind::Heartbeat, 1, 2, 3));
    assert_eq!(sent(&effects), [], "its term is not durable yet");
    replica.step(Input::Persisted(persist(&effects).number));
    replica.pump();
    let mut append = message(MessageKind::Append, 1, 2, 3);
    append.entries =
        vec![LogEntry { index: 1, term: 3, kind: EntryKind::Writes, payload: Bytes::from_static(b"w") }];
    let effects = receive(&mut replica, append);
    assert_eq!(sent(&effects), [], "the append waits for the disk");
    assert_eq!(persist(&effects).then_send[0].kind, MessageKind::AppendResponse);
    let effects = receive(&mut replica, message(MessageKind::Heartbeat, 1, 2, 3));
    assert_eq!(sent(&effects), [MessageKind::HeartbeatResponse]);
}

#[test]
fn reads_wait_for_a_round_and_a_round_serves_all_that_waited() {
    let mut replica = leader();
    replica.step(Input::Read(1));
    let effects = replica.pump();
    assert_eq!(sent(&effects), [], "it hasn't committed anything in its term");
    let mut has = message(MessageKind::AppendResponse, 2, 1, 1);
    has.index = 1;
    receive(&mut replica, has);
    replica.step(Input::Read(2));
    let effects = replica.pump();
    let contexts: Vec<&Bytes> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(message) if message.kind == MessageKind::Heartbeat => Some(&message.context),
            _ => None,
        })
        .collect();
    let context = contexts.last().expect("a round of heartbeats").to_owned().clone();
    let mut heard = message(MessageKind::HeartbeatResponse, 3, 1, 1);
    heard.context = context;
    let effects = receive(&mut replica, heard);
    assert!(effects.contains(&Effect::ReadReady(2, 1)), "{effects:?}");
}

#[test]
fn a_term_is_known_of_what_the_log_has_and_of_nothing_else() {
    let replica = replica_behind((10, 3), 1, &[1, 2, 3]);
    assert_eq!([9, 10, 11].map(|index| replica.term_of(index)), [None, Some(3), None]);
}

#[test]
fn a_leader_that_was_asked_to_lead_is_told_from_one_that_was_elected() {
    assert!(!leader().status().was_handed_over);
    let mut replica = replica(2, &[1, 2, 3]);
    let effects = receive(&mut replica, message(MessageKind::Heartbeat, 1, 2, 3));
    replica.step(Input::Persisted(persist(&effects).number));
    replica.pump();
    let effects = receive(&mut replica, message(MessageKind::TimeoutNow, 1, 2, 3));
    replica.step(Input::Persisted(persist(&effects).number));
    replica.pump();
    receive(&mut replica, message(MessageKind::RequestVoteResponse, 3, 2, 4));
    let status = replica.status();
    assert_eq!((status.role.role, status.role.term), (Role::Leader, 4));
    assert!(status.was_handed_over);
}

#[test]
fn what_a_follower_lacks_is_read_back_once_however_often_it_is_asked_for() {
    let mut replica = elected(replica_with((0, 0), vec![1; 5], 1, &[1, 2, 3]));
    let term = replica.status().role.term;
    let fetches = |effects: &[Effect]| {
        effects.iter().filter(|effect| matches!(effect, Effect::Fetch { .. })).cloned().collect::<Vec<_>>()
    };
    let mut lacks_all = message(MessageKind::AppendResponse, 2, 1, term);
    (lacks_all.reject, lacks_all.index) = (true, 5);
    let asked = fetches(&receive(&mut replica, lacks_all));
    let [Effect::Fetch { number, low: 1, .. }] = asked[..] else { panic!("{asked:?}") };
    for _ in 0..5 {
        let effects = receive(&mut replica, message(MessageKind::HeartbeatResponse, 2, 1, term));
        assert_eq!(fetches(&effects), [], "the same is on its way");
    }
    let entry =
        |index| LogEntry { index, term: 1, kind: EntryKind::Writes, payload: Bytes::from_static(b"w") };
    replica.step(Input::Fetched(number, (1..=5).map(entry).collect()));
    let sent = replica.pump();
    let entries: usize = sent
        .iter()
        .map(|effect| if let Effect::Send(message) = effect { message.entries.len() } else { 0 })
        .sum();
    assert!(entries >= 5, "{sent:?}");
}

#[test]
fn who_lacks_what_the_disk_does_not_give_back_is_sent_a_snapshot_that_needs_none_of_it() {
    let mut replica = elected(replica_with((0, 0), vec![1; 5], 1, &[1, 2, 3]));
    let term = replica.status().role.term;
    let mut lacks_all = message(MessageKind::AppendResponse, 2, 1, term);
    (lacks_all.reject, lacks_all.index) = (true, 5);
    let effects = receive(&mut replica, lacks_all);
    let fetched = effects.iter().find_map(|effect| match effect {
        Effect::Fetch { number, .. } => Some(*number),
        _ => None,
    });
    replica.step(Input::Unreadable(3));
    replica.step(Input::Fetched(fetched.unwrap(), vec![]));
    let mark = SnapshotMark { index: 5, term: 1, configuration: replica.configuration().clone() };
    let mut asked_again = |after: Option<u64>, cut| {
        if let Some(after) = after {
            replica.snapshot_made(mark.clone(), after, cut);
        }
        let effects = receive(&mut replica, message(MessageKind::HeartbeatResponse, 2, 1, term));
        let is_fetch = |effect: &Effect| matches!(effect, Effect::Fetch { .. });
        assert!(!effects.iter().any(is_fetch), "it is not read a second time: {effects:?}");
        let is_wanted = effects.contains(&Effect::SnapshotWanted(2));
        let is_snapshot =
            |effect: &Effect| matches!(effect, Effect::Send(sent) if sent.kind == MessageKind::Snapshot);
        (is_wanted, effects.iter().any(is_snapshot))
    };
    assert_eq!(asked_again(None, 0), (true, false), "there is none");
    assert_eq!(asked_again(Some(2), 0), (true, false), "it needs entry 3, too");
    assert_eq!(asked_again(Some(3), 0), (false, true));
}

#[test]
fn a_leader_s_log_goes_on_by_an_empty_entry_where_it_must_and_a_follower_s_does_not() {
    let mut leader = leader();
    leader.step(Input::GoOn);
    let effects = leader.pump();
    let entry = &persist(&effects).entries[0];
    assert_eq!((entry.kind, entry.payload.len()), (EntryKind::Empty, 0));
    let mut follower = replica(2, &[1, 2, 3]);
    follower.step(Input::GoOn);
    assert_eq!(follower.pump(), []);
}

/// The log says that node 1 was the only voter, once; it has been removed since, and
/// added again on an empty disk.
#[test]
fn who_was_taken_in_again_is_not_once_more_what_it_was_before() {
    let node = |node_id| Member { node_id, host: "h".into(), port: 1, node: None };
    let nodes = vec![node(1), node(2)];
    let members = Members { voters: vec![2], learners: vec![1], ..Members::default() };
    let told = Configuration { index: 9, members, nodes: nodes.clone() };
    let base = Configuration::founding(nodes, 1);
    let members = StartMembers { configuration: told.clone(), ..StartMembers::founding(base.clone()) };
    let options = replica(1, &[1]).options;
    let hard_state = HardState { term: 3, vote: 2, ..HardState::default() };
    let start = Start { hard_state, members, cut: (0, 0), applied: vec![], tail: vec![], in_doubt: false };
    let mut replica = Replica::new(options, start);
    let mut alone = base.clone();
    alone.members = Members { voters: vec![1], ..Members::default() };
    let payload = alone.encode().into();
    let mut append = message(MessageKind::Append, 2, 1, 3);
    append.entries = vec![LogEntry { index: 1, term: 1, kind: EntryKind::Members, payload }];
    append.commit = 1;
    let effects = receive(&mut replica, append);
    replica.step(Input::Persisted(persist(&effects).number));
    let effects = replica.pump();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Commit(_))));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Configured(_))));
    (0..100).for_each(|_| replica.step(Input::Tick));
    assert_eq!((replica.status().role.role, replica.configuration()), (Role::Follower, &told));
    let mut snapshot = message(MessageKind::Snapshot, 2, 1, 3);
    snapshot.snapshot = Some(SnapshotMark { index: 5, term: 1, configuration: base });
    let effects = receive(&mut replica, snapshot);
    assert_eq!(persist(&effects).snapshot.as_ref().map(|mark| &mark.configuration), Some(&told));
}

#[test]
fn a_leader_that_was_removed_answers_no_read_and_takes_no_write() {
    let mut replica = elected(replica(1, &[1, 2]));
    let has = |index| Message { index, ..message(MessageKind::AppendResponse, 2, 1, 1) };
    receive(&mut replica, has(1));
    let mut without = replica.configuration().clone();
    without.members = Members { voters: vec![2], voters_outgoing: vec![1, 2], ..Members::default() };
    for index in 2..=3 {
        replica.step(Input::Reconfigure(Box::new(without.clone())));
        let effects = replica.pump();
        replica.step(Input::Persisted(persist(&effects).number));
        receive(&mut replica, has(index));
        without.members.voters_outgoing.clear();
        without.index = index;
    }
    assert_eq!(replica.configuration().members.voters, [2]);
    assert_eq!(replica.status().role.role, Role::Follower);
    replica.step(Input::Read(7));
    replica.step(Input::Propose(8, Bytes::from_static(b"w")));
    let effects = replica.pump();
    assert!(effects.contains(&Effect::ReadLost(7)) && effects.contains(&Effect::Dropped(8)), "{effects:?}");
}

#[test]
fn a_snapshot_that_is_heard_of_late_takes_no_other_one_s_place() {
    let mut replica = replica(2, &[1, 2, 3]);
    let configuration = replica.configuration().clone();
    let coming = |index| {
        let mark = SnapshotMark { index, term: 1, configuration: configuration.clone() };
        Message { snapshot: Some(mark), ..message(MessageKind::Snapshot, 1, 2, 1) }
    };
    let first = receive(&mut replica, coming(10));
    receive(&mut replica, coming(20));
    receive(&mut replica, coming(15));
    replica.step(Input::Persisted(persist(&first).number));
    let effects = replica.pump();
    assert_eq!(persist(&effects).snapshot.as_ref().map(|mark| mark.index), Some(20));
}

#[test]
fn who_votes_alone_sends_what_is_on_its_own_disk() {
    let mut replica = replica(1, &[1]);
    let effects = campaign(&mut replica);
    replica.step(Input::Persisted(persist(&effects).number));
    replica.pump();
    let node = Member { node_id: 2, host: "h".into(), port: 2, node: None };
    let with = crate::replication::reconfiguration::add(replica.configuration(), node).unwrap().unwrap();
    replica.step(Input::Reconfigure(Box::new(with)));
    let effects = replica.pump();
    replica.step(Input::Persisted(persist(&effects).number));
    replica.pump();
    let has = Message { index: 2, ..message(MessageKind::AppendResponse, 2, 1, 1) };
    receive(&mut replica, has);
    replica.step(Input::Propose(1, Bytes::from_static(b"w")));
    let effects = replica.pump();
    assert_eq!(sent(&effects), []);
    assert_eq!(persist(&effects).then_send[0].kind, MessageKind::Append);
}
