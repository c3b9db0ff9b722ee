//! `datastore-cli` among several nodes.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cli.rs"]
mod cli;
mod common;
#[path = "common/fake_nodes.rs"]
mod fake_nodes;

use cli::{ok, run};
use common::{Options, temporary_directory};
use fake_nodes::{FakeNode, nobody, refused};
use serde_json::{Value, json};

#[test]
fn a_write_follows_the_leader_from_whichever_node_is_given() {
    let leader = FakeNode::leader();
    let replica = FakeNode::replica_of(leader.address);
    assert_eq!(ok(replica.address, &["set", "k", "1"]), "1.0\n");
    assert_eq!((replica.operations().len(), leader.operations().len()), (1, 1));
    let (gone, address) = (nobody().to_string(), leader.address.to_string());
    let nodes = format!("{gone},{address}");
    // The flags count, not what the environment says.
    for several in [&["--host", &nodes][..], &["--node", &gone, "--node", &address]] {
        assert_eq!(ok(nobody(), &[several, &["set", "k", "1"]].concat()), "1.0\n", "{several:?}");
    }
    assert_eq!(leader.operations().len(), 3);
}

#[test]
fn without_a_leader_it_ends_when_its_patience_does() {
    let replica = FakeNode::start(|_, _| Some(refused("no_leader")));
    let ran = run(replica.address, &["--patience-ms", "50", "set", "k", "1"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.stderr.starts_with("no_leader: ") && ran.stderr.ends_with("(outcome: not_applied)\n"),
        "{ran:?}"
    );
    assert!(replica.operations().len() >= 2);
}

#[test]
fn promote_names_the_new_leader() {
    let leader = FakeNode::leader();
    let replica = FakeNode::replica_of(leader.address);
    assert_eq!(ok(replica.address, &["promote", "2"]), "2\n");
    assert_eq!(ok(replica.address, &["promote", "3", "--force", "--json"]), "{\"leader\":3}\n");
    assert_eq!(leader.requests()[1], json!({"op": "promote", "node_id": 3, "force": true}));
    // Of itself only the node that is asked can say what it does.
    assert_eq!(run(replica.address, &["promote"]).code, Some(3));
    assert_eq!(leader.requests().len(), 2);
}

#[test]
fn a_node_on_its_own_is_a_cluster_of_one() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let shown = ok(node.address, &["cluster", "--table"]);
    let row = format!(
        "│ 1    ┆ {} ┆ primary ┆ true  ┆ serving ┆ 0           ┆ 0      ┆ 0            ┆ ",
        node.address
    );
    assert!(shown.contains(&row) && shown.contains("tolerates  0 more nodes failing, whichever"), "{shown}");
    let refused = run(node.address, &["promote"]);
    assert!(refused.code == Some(3) && refused.stderr.starts_with("unsupported_in_mode: "), "{refused:?}");
}

#[test]
fn a_node_of_dynamo_mode_has_no_leader_and_shows_what_the_mode_has() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--mode", "dynamo"]).start();
    let shown = ok(node.address, &["cluster", "--table"]);
    for line in [
        "mode        dynamo: every node takes writes\n",
        "conflicts   0 since the start\n",
        "tombstones  0 kept\n",
        "clock       0 ms ahead of the median\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    assert!(!shown.contains("leader"), "{shown}");
    assert_eq!(ok(node.address, &["conflicts"]), "");
    let refused = run(node.address, &["evict", "7"]);
    assert!(refused.code == Some(3) && refused.stderr.starts_with("bad_request: "), "{refused:?}");
}

#[test]
fn in_leader_mode_nobody_is_evicted_and_no_race_is_lost() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    for arguments in [&["evict", "1"][..], &["conflicts"]] {
        let refused = run(node.address, arguments);
        assert!(
            refused.code == Some(3) && refused.stderr.starts_with("unsupported_in_mode: "),
            "{refused:?}"
        );
    }
}

#[test]
fn evict_names_the_node_and_prints_who_is_left() {
    let left = json!([{"node_id": 1, "host": "10.0.0.1", "port": 9000, "role": "primary", "votes": true,
        "state": "serving", "lag_entries": 0, "lag_ms": 0, "last_seen_ms": 0}]);
    let reply = json!({"ok": true, "members": left});
    let node = FakeNode::start(move |_, _| Some(reply.clone()));
    assert!(ok(node.address, &["evict", "2", "--table"]).contains("│ 1    ┆ 10.0.0.1:9000 ┆ primary"));
    assert!(ok(node.address, &["evict", "2"]).contains("members.0.node_id\t1\n"));
    assert_eq!(node.requests()[0], json!({"op": "evict", "node_id": 2}));
}

/// Lost races numbered downwards from `after`, as a node with `count` of them tells them.
fn lost_races(request: &Value, count: u64, page: u64) -> Value {
    let behind = request["after"].as_str().map_or(count + 1, |after| after.parse().expect("a cursor"));
    let shown = request["limit"].as_u64().unwrap_or(page).min(page).min(behind - 1);
    let last = behind - shown;
    let row = |number: u64| {
        json!({"key": "k", "winner": {"version": "9.7", "value": number}, "seen_at": 77,
            "loser": {"version": "8.7", "deleted": true}})
    };
    let rows: Vec<Value> = (last..behind).rev().map(row).collect();
    let next = if last > 1 { json!(last.to_string()) } else { Value::Null };
    json!({"ok": true, "conflicts": rows, "next": next})
}

#[test]
fn conflicts_follow_the_cursor_and_a_limit_says_where_to_go_on() {
    let node = FakeNode::start(|_, request| Some(lost_races(request, 5, 2)));
    let line = |number: u64| format!("k\t9.7\t{number}\t8.7\tdeleted\t77\n");
    let lines = |numbers: &[u64]| numbers.iter().map(|number| line(*number)).collect::<String>();
    assert_eq!(ok(node.address, &["conflicts"]), lines(&[5, 4, 3, 2, 1]));
    assert_eq!(node.requests().len(), 3);

    let some = run(node.address, &["conflicts", "--limit", "3"]);
    assert_eq!((some.code, some.stdout.as_str()), (Some(0), lines(&[5, 4, 3]).as_str()), "{some:?}");
    assert_eq!(some.stderr, "there are more: --after 3\n");
    let rest = run(node.address, &["conflicts", "--limit", "2", "--after", "3"]);
    assert_eq!((rest.stdout.as_str(), rest.stderr.as_str()), (lines(&[2, 1]).as_str(), ""));

    let one = run(node.address, &["conflicts", "--limit", "1", "--json"]);
    let row = r#"{"key":"k","winner":{"version":"9.7","value":5},"loser":{"version":"8.7","deleted":true},"seen_at":77}"#;
    assert_eq!((one.stdout, one.stderr.as_str()), (format!("{row}\n"), "{\"next\":\"5\"}\n"));
    assert_eq!(run(node.address, &["conflicts", "--limit", "0"]).code, Some(2));
    assert!(ok(node.address, &["conflicts", "--table"]).contains("│ key ┆ winner ┆ won ┆ loser ┆ lost "));
}
