//! Promise: what the system does to a process (signals, limits, an environment that is meant for
//! others) ends no node that it shouldn't, and is said where it counts; clients of other protocols
//! are told so and execute nothing; clients that are gone, or idle, hold no place for ever.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::io::Read;
use std::process::{Command, Output};
use std::time::Duration;

use common::{Client, Node, Options, binary, programs, signal, temporary_directory};
use serde_json::json;

fn with_node(flags: &[&str], work: impl FnOnce(&mut Node)) {
    let directory = temporary_directory();
    work(&mut Options::in_directory(directory.path()).with(flags).start());
}

#[test]
fn signals_that_have_nothing_to_do_here_do_nothing() {
    with_node(&[], |node| {
        for name in ["USR1", "USR2", "PIPE", "XFSZ"] {
            signal(node.pid(), name);
        }
        node.wait_for_log("SIGUSR1: the node does nothing on it");
        node.client().ok(json!({"op": "set", "key": "still", "value": "here"}));
    });
}

#[test]
fn a_hangup_that_whoever_started_the_node_ignores_ends_nothing() {
    let directory = temporary_directory();
    let mut options = Options::in_directory(directory.path());
    options.through = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"].map(String::from).to_vec();
    let mut node = options.start();
    signal(node.pid(), "HUP");
    signal(node.pid(), "USR1");
    node.wait_for_log("SIGUSR1");
    node.client().ok(json!({"op": "ping"}));
    let (status, _) = node.terminate();
    assert_eq!(status.code(), Some(0));
}

/// What the node says to a client that sends this, and then nothing until it is closed.
fn said_to(node: &Node, sent: &[u8]) -> String {
    let mut client = node.client();
    client.send_raw(sent);
    client.receive_rest()
}

const SET: &str = "{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n";

#[test]
fn what_stands_behind_a_first_line_of_http_is_not_executed() {
    with_node(&["--max-line-bytes", "8192"], |node| {
        let long = "x".repeat(10_000);
        for sent in [
            format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 34\r\n\r\n{SET}"),
            format!("\r\nANY-METHOD /a?b HTTP/1.0\r\n\r\n{SET}"),
            format!("POST /{long} HTTP/1.1\r\n\r\n{SET}"),
            format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SET}"),
        ] {
            let answer = said_to(node, sent.as_bytes());
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1 ").count() == 1,
                "{answer}"
            );
            assert!(answer.contains("one object per line") && !answer.contains("\"ok\":"), "{answer}");
        }
        let answer = said_to(node, format!("\u{16}\u{3}\u{1}\u{2}\n{SET}").as_bytes());
        assert!(answer.contains("unsupported_protocol") && answer.lines().count() == 1, "{answer}");
        let mut client = node.client();
        assert_eq!(client.ok(json!({"op": "get", "key": "k"}))["found"], false);
        // Only the first line tells.
        client.send_raw(format!("GET / HTTP/1.1\n{SET}").as_bytes());
        assert_eq!(client.receive()["error"]["code"], "parse_error");
        assert_eq!(client.receive()["ok"], true);
    });
}

#[test]
fn an_idle_connection_is_closed_after_the_time_that_was_asked_for() {
    with_node(&["--idle-timeout-ms", "300"], |node| {
        let mut silent = node.client();
        let mut asked = node.client();
        asked.ok(json!({"op": "set", "key": "k", "value": 1}));
        for client in [&mut silent, &mut asked] {
            assert_eq!(client.try_receive_line(), None, "it is closed");
        }
        let stats = node.client().ok(json!({"op": "stats", "section": "connections"}));
        assert_eq!(
            (&stats["connections"]["closed_idle"], &stats["connections"]["open"]),
            (&json!(2), &json!(1))
        );
    });
    with_node(&[], |node| {
        let mut client = node.client();
        client.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert!(client.stream.read(&mut [0]).is_err(), "without that nothing is closed");
        client.ok(json!({"op": "ping"}));
    });
}

/// Timers of the node's sockets, as the system shows them: what it waits for, and how long, in seconds.
#[cfg(target_os = "linux")]
fn timer_of(node: &Node, client: &Client) -> (u32, f64) {
    let (here, there) = (node.address.port(), client.stream.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the system shows it");
    let is_it = |line: &&str| {
        let ends = |field: Option<&str>, port: u16| {
            field.is_some_and(|field| field.ends_with(&format!(":{port:04X}")))
        };
        let mut fields = line.split_whitespace().skip(1);
        ends(fields.next(), here) && ends(fields.next(), there)
    };
    let line = table.lines().find(is_it).expect("its connection");
    let (kind, when) =
        line.split_whitespace().nth(5).and_then(|timer| timer.split_once(':')).expect("its timer");
    (kind.parse().unwrap(), f64::from(u32::from_str_radix(when, 16).unwrap()) / 100.0)
}

#[test]
#[cfg(target_os = "linux")]
fn the_system_asks_for_a_silent_client_within_half_a_minute() {
    with_node(&[], |node| {
        let mut client = node.client();
        client.ok(json!({"op": "ping"}));
        let (kind, seconds) = timer_of(node, &client);
        // 2: keep-alive. What follows the first question is a test of `actors/server.rs`.
        assert!(kind == 2 && seconds > 0.0 && seconds <= 30.0, "{kind}: {seconds} s");
    });
}

#[test]
fn too_few_files_are_said_before_anything_is_opened() {
    for files in [20, 25, 60] {
        let directory = temporary_directory();
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh"])
            .arg(programs::program("datastore-node"))
            .args(["--port", "0", "--shards", "4", "--data-dir"])
            .arg(directory.path().join("data"))
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{files}: {said}");
        assert!(
            said.contains(&format!("may open {files} files (ulimit -n)")) && !said.contains("panic"),
            "{said}"
        );
        assert!(!directory.path().join("data").exists(), "{files}");
    }
}

/// The node with this in its environment.
fn ends_with(environment: (&str, &str), arguments: &[&str]) -> Output {
    let mut command = binary();
    command.args(arguments).env(environment.0, environment.1).output().expect("it starts")
}

#[test]
fn a_port_that_is_a_link_to_a_service_is_passed_over_with_a_warning() {
    let directory = temporary_directory();
    let mut options = Options::in_directory(directory.path());
    options.through = ["env", "DATASTORE_PORT=tcp://10.0.0.1:9000"].map(String::from).to_vec();
    let mut node = options.start();
    node.wait_for_log("DATASTORE_PORT=tcp://10.0.0.1:9000 is passed over");
}

#[test]
fn a_filter_of_messages_that_can_t_be_read_is_said() {
    let directory = temporary_directory();
    let mut options = Options::in_directory(directory.path());
    options.through = ["env", "RUST_LOG=a=b=c"].map(String::from).to_vec();
    options.start().wait_for_log("RUST_LOG is passed over");
}

#[test]
fn what_can_t_be_names_the_variable_that_it_comes_from() {
    let directory = temporary_directory();
    let data = directory.path().to_str().unwrap();
    let node = ["--data-dir", data];
    for (variable, value, arguments, code) in [
        ("DATASTORE_PORT", "http", &node[..], 2),
        ("DATASTORE_SHARDS", "0", &node, 2),
        ("DATASTORE_INSECURE", "maybe", &node, 2),
        ("DATASTORE_ROLE", "king", &node, 2),
        ("DATASTORE_HOST", "192.0.2.1", &["--insecure", "--port", "0", "--data-dir", data], 1),
        ("DATASTORE_DATA_DIR", "/dev/null/data", &["--port", "0"], 1),
    ] {
        let output = ends_with((variable, value), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{variable}: {said}");
        assert!(said.contains(&format!("environment variable {variable}")), "{variable}: {said}");
    }
    // What was given as a flag is not the variable's fault.
    let output = binary().args(["--shards", "x"]).env("DATASTORE_SHARDS", "y").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("'x'") && !said.contains("environment"), "{said}");
}
