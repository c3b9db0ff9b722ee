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
    assert_eq!(leader.requests()[1], serde_json::json!({"op": "promote", "node_id": 3, "force": true}));
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
        "│ 1    ┆ {} ┆ primary ┆ true  ┆ serving ┆ 0           ┆ 0      ┆ 0            │\n",
        node.address
    );
    assert!(shown.contains(&row) && shown.contains("tolerates  0 more nodes failing, whichever"), "{shown}");
    let refused = run(node.address, &["promote"]);
    assert!(refused.code == Some(3) && refused.stderr.starts_with("unsupported_in_mode: "), "{refused:?}");
}
