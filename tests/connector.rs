//! The Rust client: every operation against a real node, and what it says when
//! there is no node, a dying one, or something that isn't one.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::future::IntoFuture;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Options, temporary_directory};
use datastore::connector::{
    Consistency, Copies, DatastoreConnector, Error, Options as Times, Request, error,
};
use datastore::error::{Code, Outcome};
use serde_json::value::RawValue;
use serde_json::{Value, json};

async fn connect(address: SocketAddr) -> DatastoreConnector {
    DatastoreConnector::connect(&address.to_string()).await.expect("the node answers")
}

/// A server of one connection after another; each is given to `behave`.
fn server(mut behave: impl FnMut(usize, TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            behave(number, stream);
        }
    });
    address
}

fn read_line(stream: &TcpStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a request");
    line
}

#[tokio::test]
async fn every_operation_gives_its_result() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;

    assert!(client.ping().await.unwrap());
    assert_eq!(client.hello().await.unwrap()["protocol"], 1);

    let first = client.set("username", "alice").await.unwrap();
    assert_eq!(client.get::<String>("username").await.unwrap().as_deref(), Some("alice"));
    let entry = client.get_entry::<String>("username").await.unwrap().unwrap();
    assert_eq!((entry.value.as_str(), &entry.version), ("alice", &first));
    let local = client.get::<String>("username").consistency(Consistency::Local).await.unwrap();
    assert_eq!(local.as_deref(), Some("alice"));
    let fresh = client.get::<String>("username").consistency(Consistency::MaxStalenessMs(100)).await.unwrap();
    assert_eq!(fresh.as_deref(), Some("alice"));
    assert!(client.delete("username").await.unwrap());
    assert!(!client.delete("username").await.unwrap());
    assert_eq!(client.get::<String>("username").await.unwrap(), None);

    let written = client.bulk_set([("user:1", "Alice"), ("user:2", "Bob")]).await.unwrap();
    assert_eq!(written.count, 2);
    let found = client.bulk_get(["user:2", "nobody"]).await.unwrap();
    assert_eq!((found[0].value.get(), &found[0].version), ("\"Bob\"", &written.version));
    assert!(!found[1].found && found[1].value.get() == "null" && found[1].version.is_none());
    assert_eq!(client.count().await.unwrap(), 2);
    assert_eq!(client.count().prefix("user:1").await.unwrap(), 1);
    assert_eq!(client.bulk_delete(["user:1", "nobody"]).await.unwrap(), 1);

    client.set("bio", "Software engineer passionate about databases").await.unwrap();
    assert_eq!(client.search_text("databases").await.unwrap()[0].key, "bio");
    assert!(client.search_text("databases nonsense").await.unwrap().is_empty());
    assert_eq!(client.search_text("databases nonsense").any().await.unwrap().len(), 1);
    assert_eq!(client.search_by_value("Bob").await.unwrap(), ["user:2"]);

    client.add_vector("doc:1", &[1.0, 0.2, 0.3]).await.unwrap();
    client.add_vector("doc:2", &[0.9, 0.3, 0.2]).await.unwrap();
    assert_eq!(client.get_vector("doc:1").await.unwrap(), Some(vec![1.0, 0.2, 0.3]));
    assert_eq!(client.get_vector("bio").await.unwrap(), None);
    let matches = client.vector_search(&[1.0, 0.2, 0.3]).top_k(1).prefix("doc:").await.unwrap();
    assert_eq!(matches.iter().map(|hit| hit.key.as_str()).collect::<Vec<_>>(), ["doc:1"]);
    assert_eq!(client.get::<Value>("doc:1").await.unwrap(), None, "a key with only a vector has no value");

    let items = client.scan().prefix("doc:").with_vectors().await.unwrap();
    assert_eq!(items[1].vector, Some(vec![0.9, 0.3, 0.2]));
    assert_eq!(items[1].value.as_ref().unwrap().get(), "null");
    let keys = client.scan().start("bio").end("doc:2").reverse().without_values().await.unwrap();
    assert_eq!(keys.iter().map(|item| item.key.as_str()).collect::<Vec<_>>(), ["doc:1", "bio"]);
    assert!(keys[0].value.is_none());

    assert_eq!(client.stats().section("keyspace").await.unwrap()["keyspace"]["keys"], 4);
    assert!(client.stats().await.unwrap().contains_key("actors"));
    assert_eq!(client.cluster().await.unwrap()["tolerates"], 0);
    assert!(client.snapshot().await.unwrap().bytes > 0);
    for refused in [
        client.promote().node_id(1).force().await,
        client.remove_member(2).await,
        client.evict(2).await,
        client.conflicts().await.map(Value::Object),
    ] {
        assert!(refused.unwrap_err().is(Code::UnsupportedInMode));
    }
    // It is this node's own number.
    assert!(client.add_member(1, "127.0.0.1", 9001).await.unwrap_err().is(Code::BadRequest));
    let reply = client.send(Request::new("set").with("key", "any").with("value", json!([1]))).await.unwrap();
    assert!(reply.fields::<Value>().unwrap()["version"].is_string());
}

#[tokio::test]
async fn what_dynamo_mode_knows_reaches_the_node() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;
    let not_in_mode = |field: &str, refused: Result<(), Error>| {
        let refused = refused.unwrap_err();
        assert!(refused.is(Code::UnsupportedInMode) && refused.message.contains(field), "{refused}");
    };
    not_in_mode("`w`", client.set("k", &1).w(Copies::Count(2)).await.map(drop));
    not_in_mode("`w`", client.bulk_delete(["k"]).w(Copies::Majority).await.map(drop));
    not_in_mode("`r`", client.get::<Value>("k").after_version("1.0").r(Copies::All).await.map(drop));
    not_in_mode("`after_version`", client.scan().after_version("1.0").await.map(drop));
}

#[tokio::test]
async fn conditions_are_told_apart_and_carry_the_current_version() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;

    let five = client.set("stock", &5).if_absent().await.unwrap();
    let error = client.set("stock", &9).if_absent().await.unwrap_err();
    assert!(error.is(Code::AlreadyExists) && error.details["current"] == five.as_str());
    let four = client.set("stock", &4).if_version(&five).await.unwrap();
    let error = client.delete("stock").if_version(&five).await.unwrap_err();
    assert!(error.is(Code::VersionMismatch) && error.details["current"] == four.as_str());
    assert_eq!((error.outcome, error.retryable), (Outcome::NotApplied, false));
    let error = client.add_vector("stock", &[1.0]).if_missing().await.unwrap_err();
    assert!(error.is(Code::VersionMismatch));
    assert!(client.delete("stock").if_version(&four).await.unwrap());
}

#[tokio::test]
async fn values_come_back_byte_for_byte() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;
    let text = r#"{ "b" : 1.50, "a":[ 1e3,"é\u00e9" ]}"#;
    client.set("raw", &RawValue::from_string(text.to_string()).unwrap()).await.unwrap();
    let value: Box<RawValue> = client.get("raw").await.unwrap().unwrap();
    assert_eq!(value.get(), text);
    // A line break between tokens would cut the request in two.
    let broken = RawValue::from_string("[1,\r\n 2]".to_string()).unwrap();
    client.set("lines", &broken).await.unwrap();
    assert_eq!(client.get::<Vec<i32>>("lines").await.unwrap(), Some(vec![1, 2]));
}

#[tokio::test]
async fn searches_and_scans_follow_the_cursor_to_the_end() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;
    let keys: Vec<String> = (0..2_500).map(|number| format!("k{number:05}")).collect();
    client.bulk_set(keys.iter().map(|key| (key, "same words"))).await.unwrap();

    assert_eq!(client.search_by_value("same words").await.unwrap(), keys);
    assert_eq!(client.search_text("words").await.unwrap().len(), 2_500);
    assert_eq!(client.scan().await.unwrap().len(), 2_500);
    assert_eq!(client.search_by_value("same words").limit(1_200).await.unwrap(), keys[..1_200]);
    assert!(client.scan().limit(0).await.unwrap().is_empty());
    let mut pages = client.scan().limit(2_300).pages();
    let mut lengths = Vec::new();
    while let Some(items) = pages.next().await.unwrap() {
        lengths.push(items.len());
    }
    assert_eq!(lengths.iter().sum::<usize>(), 2_300);
    assert!(pages.next().await.unwrap().is_none(), "the end stays the end");
}

#[tokio::test]
async fn a_pipeline_keeps_its_order_and_one_failure_stays_alone() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;
    let large = "x".repeat(2_000);
    let sets = (0..20_000).map(|number| client.set(if number == 7 { "" } else { "one" }, &(number, &large)));
    let results = client.pipeline(sets).await;
    for (number, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), number == 7, "{number}: {result:?}");
    }
    assert!(results[7].as_ref().unwrap_err().is(Code::BadRequest));
    let (last, _) = client.get::<(u32, String)>("one").await.unwrap().unwrap();
    assert_eq!(last, 19_999, "writes to one key of one connection take effect in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_share_one_connection_and_a_dropped_call_puts_nobody_out_of_step() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..50 {
        let client = client.clone();
        tasks.spawn(async move {
            for round in 0..20 {
                let key = format!("{task}:{round}");
                let given_up =
                    tokio::time::timeout(Duration::ZERO, client.set("given up", &round).into_future());
                given_up.await.ok();
                client.set(&key, &(task, round)).await.unwrap();
                assert_eq!(client.get::<(i32, i32)>(&key).await.unwrap(), Some((task, round)));
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("no task fails");
    }
    let connections = client.stats().section("connections").await.unwrap();
    assert_eq!(connections["connections"]["accepted"], 1);
}

#[tokio::test]
async fn every_call_can_be_awaited_in_a_task_of_its_own() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let client = connect(node.address).await;
    let task = tokio::spawn(async move {
        let records = [("a".to_string(), json!([1])), ("b".to_string(), json!(null))];
        client.bulk_set(records.iter().map(|(key, value)| (key, value))).await?;
        client.add_vector("a", &[1.0, 2.0]).await?;
        client.get_entry::<Box<RawValue>>("a").await?;
        client.bulk_get(records.iter().map(|(key, _)| key)).await?;
        let mut pages = client.scan().prefix("a").with_vectors().pages();
        while pages.next().await?.is_some() {}
        client.search_text("x").any().limit(3).await?;
        client.search_by_value(&records[0].1).await?;
        client.vector_search(&[1.0, 2.0]).top_k(3).await?;
        for result in client.pipeline(records.iter().map(|(key, _)| client.delete(key))).await {
            result?;
        }
        client.count().await
    });
    assert_eq!(task.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn without_a_node_nothing_is_applied_and_it_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = DatastoreConnector::connect(&address).await.err().unwrap();
    assert_eq!((error.code.as_str(), error.outcome), (error::NOT_CONNECTED, Outcome::NotApplied));
    assert!(error.retryable && error.message.contains(&address), "{error}");
    let lazy = DatastoreConnector::lazy(&address, Times::default());
    let error = lazy.set("k", &1).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::NOT_CONNECTED, Outcome::NotApplied));
}

#[tokio::test]
async fn a_write_on_a_dying_connection_is_unknown_and_never_sent_again() {
    let (sender, requests) = std::sync::mpsc::channel();
    let address = server(move |_, stream| sender.send(read_line(&stream)).unwrap());
    let client = DatastoreConnector::lazy(&address, Times::default());
    let error = client.set("k", &1).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::CONNECTION_LOST, Outcome::Unknown));
    assert!(!error.retryable);
    assert!(requests.recv().unwrap().contains("\"set\""));
    assert!(requests.try_recv().is_err(), "it was sent once");
}

#[tokio::test]
async fn a_read_on_a_dying_connection_is_asked_again() {
    let address = server(|number, mut stream| {
        read_line(&stream);
        if number == 1 {
            stream.write_all(b"{\"ok\":true,\"count\":3}\n").unwrap();
        }
    });
    let client = DatastoreConnector::lazy(&address, Times::default());
    assert_eq!(client.count().await.unwrap(), 3);
    let error = client.count().await;
    assert!(error.is_err_and(|error| error.retryable && error.outcome == Outcome::NotApplied));
}

#[tokio::test]
async fn half_a_reply_is_no_reply() {
    let address = server(|_, mut stream| {
        read_line(&stream);
        stream.write_all(b"{\"ok\":true,\"version\":\"1.").unwrap();
    });
    let client = DatastoreConnector::lazy(&address, Times::default());
    let error = client.set("k", &1).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::CONNECTION_LOST, Outcome::Unknown));
}

#[tokio::test]
async fn garbage_is_told_apart_from_an_answer_and_ends_the_connection() {
    for garbage in ["HTTP/1.1 400 Bad Request\r\n", "{\"ok\":false}\n", "[]\n", "{\"ok\":true}\n", "\u{0}\n"]
    {
        let address = server(move |number, mut stream| {
            read_line(&stream);
            let reply = if number == 0 { garbage } else { "{\"ok\":true,\"version\":\"1.0\"}\n" };
            stream.write_all(reply.as_bytes()).unwrap();
        });
        let client = DatastoreConnector::lazy(&address, Times::default());
        let error = client.set("k", &1).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.outcome), (error::BAD_REPLY, Outcome::Unknown), "{garbage}");
    }
    // `ok` without what it promises closes nothing; the other four do.
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout_and_a_write_is_unknown() {
    let (sender, streams) = std::sync::mpsc::channel();
    let address = server(move |_, stream| sender.send(stream).unwrap()); // kept open, never answered
    let mut times = Times::default();
    times.timeout = Duration::from_millis(50);
    let client = DatastoreConnector::lazy(&address, times);
    let error = client.set("k", &1).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::CLIENT_TIMEOUT, Outcome::Unknown));
    let error = client.get::<Value>("k").await.unwrap_err();
    assert_eq!(error.outcome, Outcome::NotApplied);
    drop(streams);
}

#[tokio::test]
async fn what_cannot_be_json_is_refused_before_it_is_sent() {
    let client = DatastoreConnector::lazy("127.0.0.1:1", Times::default());
    let no_json = std::collections::BTreeMap::from([((1, 2), 3)]);
    let error: Error = client.set("k", &no_json).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.outcome), (error::BAD_ARGUMENT, Outcome::NotApplied));
}

#[tokio::test]
async fn it_comes_back_by_itself_when_the_node_does() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let port = node.address.port().to_string();
    let client = connect(node.address).await;
    client.set("k", "kept").await.unwrap();
    let options = node.kill();
    let error = client.set("k", "lost").await.unwrap_err();
    assert_ne!(error.outcome, Outcome::Applied);
    let node = options.with(&["--port", &port]).start();
    assert_eq!(client.get::<String>("k").await.unwrap().as_deref(), Some("kept"));
    drop(node);
}

#[tokio::test]
async fn a_connection_that_the_node_refuses_tells_its_reason() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--max-connections", "1"]).start();
    let _first = connect(node.address).await;
    let error = DatastoreConnector::connect(&node.address.to_string()).await.err().unwrap();
    assert!(error.is(Code::TooManyConnections) || error.code == error::CONNECTION_LOST, "{error}");
}

#[test]
fn the_examples_of_its_documentation_run() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    // `--workspace` as in the command that runs all tests, so that nothing is built anew.
    let output = std::process::Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--doc", "--locked", "--offline", "--", "connector"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("DATASTORE_ADDRESS", node.address.to_string())
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("2 passed"), "{said}");
    assert_eq!(
        node.client().ok(json!({"op": "get", "key": "stock"}))["value"],
        4,
        "they ran against the node"
    );
}

#[tokio::test]
async fn depending_on_it_brings_no_actors() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--manifest-path",
            manifest,
            "-p",
            "datastore",
            "--features",
            "client",
            "--edges",
            "normal",
        ])
        .args(["--offline", "--locked"])
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(tree.contains("tokio") && !tree.contains("actix"), "{tree}");
}
