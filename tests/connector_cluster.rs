//! The Rust client among several nodes: it finds the leader, and sends nothing
//! twice that may have happened.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/fake_nodes.rs"]
mod fake_nodes;

use std::net::SocketAddr;
use std::time::Duration;

use datastore::connector::{Consistency, DatastoreConnector, Options, error};
use datastore::error::{Code, Outcome};
use fake_nodes::{FakeNode, as_replica, bind, bind_at, nobody, not_leader, refused, taken};
use serde_json::json;

/// Long enough for a few pauses.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);

/// More than any test needs on a busy machine.
fn client(addresses: &[SocketAddr]) -> DatastoreConnector {
    with_patience(addresses, Duration::from_secs(60))
}

fn with_patience(addresses: &[SocketAddr], patience: Duration) -> DatastoreConnector {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let mut options = Options::default();
    options.patience = patience;
    DatastoreConnector::lazy(&addresses.join(", "), options)
}

#[tokio::test]
async fn a_write_goes_to_the_leader_that_a_replica_names_and_happens_once() {
    let leader = FakeNode::leader();
    let replica = FakeNode::replica_of(leader.address);
    let client = client(&[replica.address]);
    assert_eq!(client.set("k", &1).await.unwrap(), "1.0");
    assert_eq!((replica.operations(), leader.operations()), (vec!["set".into()], vec!["set".into()]));

    client.set("k", &2).await.unwrap();
    assert_eq!(client.get::<i32>("k").await.unwrap(), Some(1));
    client.get::<i32>("k").consistency(Consistency::Linearizable).await.unwrap();
    assert_eq!(leader.operations(), ["set", "set", "get", "get"], "it stays with the leader");
    assert_eq!(replica.operations(), ["set"]);
}

#[tokio::test]
async fn what_is_about_one_node_stays_at_the_node_asked() {
    let leader = FakeNode::leader();
    let replica = FakeNode::replica_of(leader.address);
    let client = client(&[replica.address, leader.address]);
    client.set("k", &1).await.unwrap();
    client.get::<i32>("k").consistency(Consistency::Local).await.unwrap();
    client.count().consistency(Consistency::MaxStalenessMs(5)).await.unwrap();
    client.ping().await.unwrap();
    client.stats().await.unwrap();
    client.cluster().await.unwrap();
    assert_eq!(replica.operations(), ["set", "get", "count", "ping", "stats", "cluster"]);
    assert_eq!(leader.operations(), ["set"]);

    let refused = client.promote().await.unwrap_err();
    assert!(refused.is(Code::NotLeader), "the leader would promote itself: {refused}");
    assert_eq!(client.promote().node_id(2).await.unwrap(), 2);
    assert_eq!(leader.operations(), ["set", "promote"]);
}

#[tokio::test]
async fn a_linearizable_read_finds_the_leader() {
    let leader = FakeNode::leader();
    let replica = FakeNode::replica_of(leader.address);
    let client = client(&[replica.address]);
    client.get::<i32>("k").await.unwrap();
    assert!(leader.operations().is_empty(), "a replica answers a plain read");
    client.get::<i32>("k").consistency(Consistency::Linearizable).await.unwrap();
    client.get::<i32>("k").await.unwrap();
    assert_eq!((replica.operations().len(), leader.operations().len()), (2, 2));
}

#[tokio::test]
async fn while_nobody_leads_it_waits_and_finds_who_is_elected() {
    for code in ["not_leader", "no_leader", "no_quorum", "starting"] {
        let leader = FakeNode::leader();
        let elected = leader.address;
        let replica = FakeNode::start(move |number, request| {
            Some(match number {
                0..3 if code == "not_leader" => not_leader(None),
                0..3 => refused(code),
                _ => as_replica(request, Some(elected)),
            })
        });
        let client = client(&[replica.address]);
        client.set("k", &1).await.unwrap();
        assert_eq!((replica.requests().len(), leader.requests().len()), (4, 1), "{code}");
    }
}

#[tokio::test]
async fn a_node_that_starts_is_waited_for_whatever_it_is_asked() {
    let node = FakeNode::start(|number, request| {
        Some(if [0, 1, 3].contains(&number) { refused("starting") } else { as_replica(request, None) })
    });
    let client = client(&[node.address]);
    client.get::<i32>("k").consistency(Consistency::Local).await.unwrap();
    client.stats().await.unwrap();
    assert_eq!(node.operations(), ["get", "get", "get", "stats", "stats"]);
}

#[tokio::test]
async fn where_one_node_knows_no_leader_the_others_are_asked() {
    let leader = FakeNode::leader();
    let isolated = FakeNode::start(|_, _| Some(refused("no_quorum")));
    let client = client(&[isolated.address, leader.address]);
    client.set("k", &1).await.unwrap();
    client.set("k", &2).await.unwrap();
    assert_eq!((isolated.requests().len(), leader.requests().len()), (1, 2));
}

#[tokio::test]
async fn two_nodes_that_name_each_other_are_not_asked_for_ever() {
    let (one, other) = (bind(), bind());
    let (first, second) = (one.address, other.address);
    let one = one.serve(move |_, _| Some(not_leader(Some(second))));
    let other = other.serve(move |_, _| Some(not_leader(Some(first))));
    let error = with_patience(&[first], SHORT_PATIENCE).set("k", &1).await.unwrap_err();
    assert!(error.is(Code::NotLeader) && error.outcome == Outcome::NotApplied, "{error}");
    // Once a round each, and the rounds are 20, 40, 80, 160 … ms apart.
    let asked = (one.requests().len(), other.requests().len());
    assert!((2..=8).contains(&asked.0) && (2..=8).contains(&asked.1), "{asked:?}");
}

#[tokio::test]
async fn an_address_where_nobody_is_is_passed_over() {
    let (leader, gone) = (FakeNode::leader(), nobody());
    let addresses = format!("{gone},{}", leader.address);
    let client = DatastoreConnector::connect(&addresses).await.unwrap();
    // Neither writes nor what is about a node goes there again when it is back.
    let back = bind_at(gone).serve(|_, request| Some(taken(request)));
    client.set("k", &1).await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(leader.operations(), ["hello", "set", "ping"]);
    assert!(back.operations().is_empty());

    let error = with_patience(&[nobody(), nobody()], Duration::MAX).set("k", &1).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::NOT_CONNECTED, Outcome::NotApplied));
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_looked_for_elsewhere() {
    let gone = nobody();
    let stale = FakeNode::replica_of(gone);
    let leader = FakeNode::leader();
    let client = client(&[stale.address, leader.address]);
    client.set("k", &1).await.unwrap();
    client.set("k", &2).await.unwrap();
    assert_eq!((stale.requests().len(), leader.requests().len()), (1, 2));
}

#[tokio::test]
async fn a_replica_that_still_names_the_dead_leader_is_asked_until_it_names_the_new_one() {
    let gone = nobody();
    let leader = FakeNode::leader();
    let elected = leader.address;
    let replica =
        FakeNode::start(move |number, _| Some(not_leader(Some(if number < 2 { gone } else { elected }))));
    let client = client(&[replica.address]);
    client.set("k", &1).await.unwrap();
    assert_eq!((replica.requests().len(), leader.requests().len()), (3, 1));
}

#[tokio::test]
async fn a_write_whose_connection_breaks_is_unknown_and_sent_nowhere_else() {
    let dying = FakeNode::start(|_, _| None);
    let replica = FakeNode::replica_of(dying.address);
    let bystander = FakeNode::leader();
    let client = client(&[replica.address, bystander.address]);
    let error = client.set("k", &1).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::CONNECTION_LOST, Outcome::Unknown));
    assert_eq!(dying.requests().len(), 1);
    let results = client.pipeline((2..5).map(|number| client.set("k", &number))).await;
    for result in results {
        assert_eq!(result.unwrap_err().outcome, Outcome::Unknown);
    }
    let mut values: Vec<_> = dying.requests().iter().map(|request| request["value"].as_i64()).collect();
    let sent = values.len();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), sent, "none was sent twice");
    assert_eq!((replica.requests().len(), bystander.requests().len()), (1, 0));
}

#[tokio::test]
async fn what_a_deposed_leader_may_have_done_is_not_sent_again() {
    // The second is no answer of a sound node: the outcome counts, whatever the code.
    for code in ["leadership_lost", "no_quorum"] {
        let mut reply = refused(code);
        reply["error"]["outcome"] = json!("unknown");
        let deposed = FakeNode::start(move |_, _| Some(reply.clone()));
        let bystander = FakeNode::leader();
        let client = client(&[deposed.address, bystander.address]);
        let error = client.set("k", &1).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.outcome), (code, Outcome::Unknown));
        assert_eq!((deposed.requests().len(), bystander.requests().len()), (1, 0));
    }
}

#[tokio::test]
async fn at_the_end_of_patience_the_last_error_is_given() {
    let replica =
        FakeNode::start(|number, _| Some(refused(if number < 2 { "no_leader" } else { "no_quorum" })));
    let error = with_patience(&[replica.address], SHORT_PATIENCE).set("k", &1).await.unwrap_err();
    assert!(error.is(Code::NoQuorum) && error.retryable && error.outcome == Outcome::NotApplied, "{error}");

    let leader = FakeNode::leader();
    let replica = FakeNode::replica_of(leader.address);
    let error = with_patience(&[replica.address], Duration::ZERO).set("k", &1).await.unwrap_err();
    assert!(error.is(Code::NotLeader) && error.details["leader"]["port"] == leader.address.port());
    assert!(leader.requests().is_empty(), "without patience it is told and not followed");
}

#[tokio::test]
async fn a_pipeline_goes_on_where_the_leader_is_in_its_order() {
    let leader = FakeNode::leader();
    let elected = leader.address;
    let old = FakeNode::start(move |number, request| {
        Some(if number < 3 { taken(request) } else { not_leader(Some(elected)) })
    });
    let client = client(&[old.address]);
    let mut calls: Vec<_> = (0..200).map(|number| client.set("k", &number)).collect();
    calls[50] = client.set("k", &std::collections::BTreeMap::from([((1, 2), 3)])); // no JSON
    let results = client.pipeline(calls).await;
    for (number, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), number == 50, "{number}: {result:?}");
    }
    let values: Vec<_> = leader.requests().iter().map(|request| request["value"].clone()).collect();
    assert_eq!(
        values,
        (3..200).filter(|number| *number != 50).map(|number| json!(number)).collect::<Vec<_>>()
    );
    assert_eq!(old.requests().len(), 199);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_are_led_on_at_once_share_one_connection_and_each_write_happens_once() {
    let leader = FakeNode::leader();
    let replica = FakeNode::replica_of(leader.address);
    let client = client(&[replica.address]);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = client.clone();
        tasks.spawn(async move { client.set(&format!("k{number}"), &number).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    let mut values: Vec<_> = leader.requests().iter().map(|request| request["value"].as_i64()).collect();
    values.sort();
    assert_eq!((replica.connections(), leader.connections()), (1, 1));
    assert_eq!(values, (0..100).map(Some).collect::<Vec<_>>());
}

/// A node that is there for its system alone: it takes connections and requests, and answers nothing.
fn silent_node() -> FakeNode {
    bind().serve_nothing()
}

/// A node that has answered so many requests when it falls silent.
fn falls_silent_after(answers: usize) -> FakeNode {
    FakeNode::start(move |number, request| {
        if number >= answers {
            loop {
                std::thread::park();
            }
        }
        Some(taken(request))
    })
}

fn only_pings(operations: &[String]) -> bool {
    operations.iter().all(|operation| operation == "ping")
}

#[tokio::test]
async fn nothing_is_handed_to_a_node_that_only_seems_to_be_there() {
    let (silent, leader) = (silent_node(), FakeNode::leader());
    let client = client(&[silent.address, leader.address]);
    client.set("k", &1).await.unwrap();
    client.get::<i32>("k").consistency(Consistency::Local).await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(leader.operations(), ["set", "get", "ping"]);
    assert!(only_pings(&silent.operations()), "{:?}", silent.operations());
}

#[tokio::test]
async fn a_node_that_falls_silent_is_left_and_reads_are_repeated_elsewhere() {
    let (silent, leader) = (falls_silent_after(1), FakeNode::leader());
    let client = client(&[silent.address, leader.address]);
    client.get::<i32>("k").await.unwrap();
    assert_eq!(client.get::<i32>("k").await.unwrap(), Some(1));
    assert_eq!(leader.operations(), ["get"]);
    client.set("k", &1).await.unwrap();
    assert_eq!(silent.operations()[..2], ["get", "get"]);
    assert!(only_pings(&silent.operations()[2..]), "{:?}", silent.operations());
}

#[tokio::test]
async fn a_write_at_a_node_that_falls_silent_is_unknown_and_sent_nowhere_else() {
    let (silent, leader) = (falls_silent_after(1), FakeNode::leader());
    let client = client(&[silent.address, leader.address]);
    client.set("k", &1).await.unwrap();
    let error = client.set("k", &2).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::CONNECTION_LOST, Outcome::Unknown), "{error}");
    assert!(leader.operations().is_empty());
    client.set("k", &3).await.unwrap();
    assert_eq!(leader.operations(), ["set"]);
}

#[tokio::test]
async fn what_waits_behind_a_request_at_a_node_that_falls_silent_goes_elsewhere() {
    let (silent, leader) = (falls_silent_after(1), FakeNode::leader());
    let client = client(&[silent.address, leader.address]);
    client.get::<i32>("k").await.unwrap();
    let calls = (0..20).map(|_| client.get::<i32>("k"));
    let replies = client.pipeline(calls).await;
    assert!(replies.iter().all(|reply| reply.as_ref().unwrap() == &Some(1)));
    assert_eq!(leader.operations().len(), 20);
}

#[tokio::test]
async fn a_replica_that_names_a_silent_leader_is_asked_until_it_names_another_one() {
    let silent = falls_silent_after(1);
    let next = FakeNode::leader();
    let (gone, new) = (silent.address, next.address);
    let replica =
        FakeNode::start(move |number, _| Some(not_leader(Some(if number < 4 { gone } else { new }))));
    let client = client(&[silent.address, replica.address]);
    let read = || client.get::<i32>("k").consistency(Consistency::Linearizable);
    read().await.unwrap();
    read().await.unwrap();
    assert_eq!(next.operations(), ["get"]);
    assert!(only_pings(&silent.operations()[2..]));
}

#[tokio::test]
async fn a_node_that_is_only_slow_is_waited_for_and_one_that_answers_again_is_asked_again() {
    let other = FakeNode::leader();
    // It answers its first search when it has been pinged three times meanwhile.
    let pings = std::sync::Arc::new((std::sync::Mutex::new(0), std::sync::Condvar::new()));
    let slow = FakeNode::start(move |_, request| {
        let (count, changed) = &*pings;
        let mut count = count.lock().unwrap();
        if request["op"] == "ping" {
            *count += 1;
            changed.notify_all();
        } else {
            while *count < 3 {
                count = changed.wait(count).unwrap();
            }
        }
        Some(taken(request))
    });
    let client = client(&[slow.address, other.address]);
    client.set("k", &1).await.unwrap();
    assert_eq!(slow.operations(), ["set", "ping", "ping", "ping"]);
    assert!(other.operations().is_empty(), "it was there");
}

#[tokio::test]
async fn a_silent_node_is_asked_again_when_it_has_answered_a_ping() {
    let other = FakeNode::replica_of(nobody());
    let is_back = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let back = is_back.clone();
    let node = FakeNode::start(move |number, request| {
        while number > 0 && !back.load(std::sync::atomic::Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(taken(request))
    });
    let client = client(&[node.address, other.address]);
    client.get::<i32>("k").await.unwrap();
    client.get::<i32>("k").await.unwrap();
    assert_eq!(other.operations(), ["get"]);
    is_back.store(true, std::sync::atomic::Ordering::SeqCst);
    // The other one takes no writes, and names nobody who is there.
    client.set("k", &1).await.unwrap();
    assert!(node.operations().contains(&"set".to_string()));
}

#[tokio::test]
async fn the_only_node_there_is_is_waited_for_and_no_call_outlives_its_time() {
    let silent = silent_node();
    let mut options = Options::default();
    (options.timeout, options.silence) = (Duration::from_millis(700), Duration::from_millis(100));
    let client = DatastoreConnector::lazy(&silent.address.to_string(), options);
    let error = client.set("k", &1).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::CLIENT_TIMEOUT, Outcome::Unknown), "{error}");
    assert_eq!(silent.operations(), ["set"], "there is nobody else to ask");

    // Where nobody leads, patience ends with the call's time.
    let nobody_leads = FakeNode::start(|_, _| Some(refused("no_leader")));
    let mut options = Options::default();
    (options.timeout, options.patience) = (Duration::from_millis(300), Duration::from_secs(3_600));
    let client = DatastoreConnector::lazy(&nobody_leads.address.to_string(), options);
    assert!(client.set("k", &1).await.unwrap_err().is(Code::NoLeader));
}

/// A write that may still happen at a stopped node must not come after later ones that were sent elsewhere.
#[tokio::test]
async fn of_a_pipeline_no_write_overtakes_one_that_may_still_happen() {
    let (silent, leader) = (falls_silent_after(1), FakeNode::leader());
    let client = client(&[silent.address, leader.address]);
    client.set("k", &0).await.unwrap();
    // More than one connection takes at once.
    let calls: Vec<_> = (1..3_000).map(|number| client.set("k", &format!("{number:20000}"))).collect();
    let replies = client.pipeline(calls).await;
    assert!(replies.iter().all(Result::is_err) && leader.operations().is_empty());
    let outcomes: Vec<Outcome> = replies.into_iter().map(|reply| reply.unwrap_err().outcome).collect();
    assert_eq!(outcomes[0], Outcome::Unknown);
    assert_eq!(outcomes.last(), Some(&Outcome::NotApplied), "it was never sent");
}
