//! The README's first steps, as a newcomer takes them.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use common::{Options, temporary_directory};
use serde_json::json;

#[test]
fn what_is_set_is_read_and_found_and_survives_a_kill() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    // A new node has nothing to index first: its very first answer is a real one.
    assert_eq!(client.ok(json!({"op": "search_text", "query": "databases"}))["total"], 0);
    client.ok(json!({"op": "set", "key": "username", "value": "alice"}));
    client.ok(json!({"op": "set", "key": "bio", "value": "Software engineer passionate about databases"}));
    assert_eq!(client.ok(json!({"op": "get", "key": "username"}))["value"], "alice");
    assert_eq!(client.when_ready(json!({"op": "search_text", "query": "databases"}))["keys"], json!(["bio"]));

    let node = node.kill().start();
    let mut client = node.client();
    assert_eq!(client.ok(json!({"op": "get", "key": "username"}))["value"], "alice");
    assert_eq!(client.when_ready(json!({"op": "search_text", "query": "databases"}))["keys"], json!(["bio"]));
    client.ok(json!({"op": "delete", "key": "username"}));
    assert_eq!(client.ok(json!({"op": "get", "key": "username"}))["found"], false);
    let (status, _) = node.terminate();
    assert!(status.success(), "{status}");
}
