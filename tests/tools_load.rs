//! `perf_write_test` against real nodes: good ones, refusing ones, dying ones, none.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Node, Options, temporary_directory};
use serde_json::{Value, json};

fn perf_write_test(address: SocketAddr, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf_write_test"));
    command.args(["--port", &address.port().to_string()]).args(flags).stdin(Stdio::null());
    command
}

fn run(address: SocketAddr, flags: &[&str]) -> Output {
    perf_write_test(address, flags).output().expect("it runs")
}

/// A node with more flags.
fn start(directory: &Path, flags: &[&str]) -> Node {
    Options::in_directory(directory).with(flags).start()
}

fn result(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn every_request_is_answered_and_the_writes_are_there() {
    let directory = temporary_directory();
    let node = start(directory.path(), &[]);
    let shape = ["--connections", "4", "--pipeline", "7", "--keys", "50"];
    let output = run(node.address, &[&shape[..], &["--count", "5000", "--json"]].concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"", "no progress bar in a pipe");
    let written = result(&output);
    assert_eq!(written["ok"], true);
    for (field, wanted) in
        [("answered", 5_000), ("not_found", 0), ("wrong", 0), ("unanswered", 0), ("unsent", 0)]
    {
        assert_eq!(written[field], wanted, "{field} of {written}");
    }
    assert_eq!(written["errors"], json!([]));
    let latency = |name: &str| written["latency_us"][name].as_f64().expect("a figure");
    assert!(latency("p50") <= latency("p90") && latency("p99") <= latency("p99.9"));
    assert!(latency("p99.9") <= latency("max"));
    assert_eq!(node.client().call(json!({"op": "count", "prefix": "perf:"}))["count"], 50);

    // What was written is read again; what was not written is not found.
    let output = run(node.address, &[&shape[..], &["--count", "1000", "--reads", "1", "--json"]].concat());
    assert_eq!(result(&output)["not_found"], 0, "{output:?}");
    let output = run(node.address, &["--count", "30", "--reads", "1", "--prefix", "nobody:"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for part in ["answered    30 of 30", "p99.9", "max", "not found   30 reads", "seed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn batches_that_no_socket_takes_at_once_pass_both_ways() {
    let directory = temporary_directory();
    let node = start(directory.path(), &["--indexes", "none"]);
    // Of the second kind nothing is answered before all of it is sent.
    for (pipeline, value_bytes) in [("8", "1000000"), ("1", "8000000")] {
        for reads in ["0", "1"] {
            let flags =
                ["--connections", "2", "--keys", "1", "--count", "20", "--json", "--prefix", value_bytes];
            let more = ["--pipeline", pipeline, "--value-bytes", value_bytes, "--reads", reads];
            let output = run(node.address, &[&flags[..], &more[..]].concat());
            assert!(output.status.success(), "{output:?}");
            let result = result(&output);
            assert_eq!((&result["answered"], &result["not_found"]), (&json!(20), &json!(0)), "{result}");
        }
    }
}

#[test]
fn a_value_that_was_not_written_by_a_run_is_a_wrong_reply() {
    let directory = temporary_directory();
    let node = start(directory.path(), &["--indexes", "none"]);
    node.client().call(json!({"op": "set", "key": "perf:000000000000", "value": "someone else's"}));
    let output = run(node.address, &["--count", "10", "--keys", "1", "--reads", "1", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(result(&output)["wrong"], 10);
}

#[test]
fn errors_are_counted_by_code_with_their_outcome() {
    let directory = temporary_directory();
    let node = start(directory.path(), &["--max-memory", "1"]);
    let output = run(node.address, &["--count", "100", "--pipeline", "3", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let wanted = json!([{"code": "out_of_memory", "outcome": "not_applied", "count": 100}]);
    assert_eq!(result(&output)["errors"], wanted);
    let output = run(node.address, &["--count", "100"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("100 x out_of_memory (outcome: not_applied)"), "{text}");
}

#[test]
fn without_a_server_there_is_one_line() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let output = run(address, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.starts_with(&format!("error: cannot connect to {address}: ")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn a_node_that_dies_leaves_requests_whose_outcome_is_unknown() {
    let directory = temporary_directory();
    let node = start(directory.path(), &["--indexes", "none"]);
    let flags = ["--count", "1000000000", "--connections", "8", "--pipeline", "32", "--json"];
    let child = perf_write_test(node.address, &flags).stdout(Stdio::piped()).spawn().expect("it runs");
    while node.client().call(json!({"op": "stats", "section": "keyspace"}))["keyspace"]["keys"] == 0 {
        std::thread::yield_now();
    }
    node.kill();
    let output = child.wait_with_output().expect("the child is ours");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let result = result(&output);
    let figure = |field: &str| result[field].as_u64().expect("a count");
    assert!((1..=8 * 32).contains(&figure("unanswered")), "{result}");
    assert_eq!(figure("answered") + figure("unanswered") + figure("unsent"), 1_000_000_000);
    assert_eq!(result["ok"], false);
    let faults = result["faults"].to_string();
    assert!(faults.contains("a connection was lost"), "{faults}");
}

#[test]
fn a_server_of_another_kind_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
        for reply in ["HTTP/1.1 400 Bad Request\n", "{\"ok\":true,\"pong\":true}\n", "{}\n"] {
            reader.read_line(&mut String::new()).expect("a request");
            (&stream).write_all(reply.as_bytes()).expect("the client reads");
        }
    });
    let output = run(address, &["--count", "3", "--connections", "1", "--json"]);
    server.join().expect("the server has answered");
    assert_eq!(output.status.code(), Some(1));
    let result = result(&output);
    assert_eq!((&result["wrong"], &result["answered"]), (&json!(3), &json!(3)), "{result}");
    assert!(result["faults"].to_string().contains("HTTP/1.1 400"), "{result}");
}

#[test]
fn wrong_flags_end_with_two() {
    for flags in [["--reads", "1.1"], ["--count", "0"], ["--connections", "0"], ["--pipeline", "none"]] {
        let output = run(([127, 0, 0, 1], 1).into(), &flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {output:?}");
    }
}
