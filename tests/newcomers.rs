//! Promise: a node is added only where one waits for that, and otherwise nothing happens: no
//! connection ends, no member is noted.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::io::{Read, Write};
use std::net::TcpListener;

use cluster::Cluster;
use common::{Node, Options, temporary_directory};
use serde_json::{Value, json};

fn add(node_id: u64, port: u16) -> Value {
    json!({"op": "add_member", "node_id": node_id, "host": "127.0.0.1", "port": port})
}

/// A node that waits to be added.
fn waiting(directory: &tempfile::TempDir, node_id: u64) -> Node {
    let peers = json!([{"node_id": 99, "host": "127.0.0.1", "port": 9}]).to_string();
    let flags = ["--node-id", &node_id.to_string(), "--role", "secondary", "--peers", &peers];
    Options::in_directory(directory.path()).with(&flags).start()
}

/// Answers whoever connects with this line.
fn stranger(line: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut socket = socket;
            let _ = socket.read(&mut [0; 4_096]);
            let _ = socket.write_all(line.as_bytes());
        }
    });
    port
}

/// Where nobody waits for `node_id`: nobody listens, somebody else does, a node of its own does.
fn wrong_places(others: &[u16]) -> Vec<u16> {
    let unused = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().unwrap().port();
    let mut places = vec![unused, stranger("HTTP/1.1 400 Bad Request\r\n\r\n"), stranger("{\"ok\":true}\n")];
    places.extend(others);
    places
}

#[test]
fn a_lone_node_goes_on_where_nobody_waits_to_be_added() {
    let directories = [(); 3].map(|()| temporary_directory());
    let node = Options::in_directory(directories[0].path()).start();
    let alone = Options::in_directory(directories[1].path()).with(&["--node-id", "2"]).start();
    let third = waiting(&directories[2], 3);
    let mut kept = node.client();
    kept.ok(json!({"op": "set", "key": "k", "value": 1}));
    for place in wrong_places(&[alone.address.port(), third.address.port()]) {
        let error = kept.refused(add(2, place));
        assert_eq!(
            (&error["code"], &error["outcome"]),
            (&json!("bad_request"), &json!("not_applied")),
            "{error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("no node 2 waits at") && message.contains("start it there first"),
            "{message}"
        );
    }
    // The connection is the same one still, and the node is as alone.
    assert_eq!(kept.ok(json!({"op": "cluster"}))["members"].as_array().map(Vec::len), Some(1));
    assert!(!directories[0].path().join("cluster.json").exists());
    let added = kept.ok(add(3, third.address.port()));
    assert_eq!(added["members"].as_array().map(Vec::len), Some(2), "{added}");
}

#[test]
fn a_leader_takes_in_nobody_who_doesn_t_wait() {
    let cluster = Cluster::founded(2, 2, &["--request-timeout-ms", "4000"]);
    let leader = cluster.wait_for_leader();
    let directories = [(); 2].map(|()| temporary_directory());
    let alone = Options::in_directory(directories[0].path()).with(&["--node-id", "3"]).start();
    let fourth = waiting(&directories[1], 4);
    for place in wrong_places(&[alone.address.port(), fourth.address.port()]) {
        let error = cluster.refused(leader, &add(3, place));
        assert_eq!(
            (&error["code"], &error["outcome"]),
            (&json!("bad_request"), &json!("not_applied")),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains("no node 3 waits at"), "{error}");
    }
    let view = cluster.view(leader).expect("it answers");
    assert_eq!(view["members"].as_array().map(Vec::len), Some(2), "{view}");
}

#[test]
fn a_node_that_doesn_t_answer_is_given_up_before_the_request_is() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--request-timeout-ms", "1000"]).start();
    // It is connected to, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let error = node.client().refused(add(2, silent.local_addr().unwrap().port()));
    assert_eq!(
        (&error["code"], &error["outcome"]),
        (&json!("bad_request"), &json!("not_applied")),
        "{error}"
    );
}
