//! The promise: a node goes on, whatever becomes of its log. Whoever reads it may end, or read no more: no request, no
//! snapshot, no election and no end of the process waits for it, and what was not taken is counted.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use cluster::Cluster;
use common::{LogReader, Options, temporary_directory};
use serde_json::{Value, json};

/// Lines that fill a pipe, and the queue before it, many times over.
const SNAPSHOTS: u64 = 40;
const WAYS: [LogReader; 2] = [LogReader::Gone, LogReader::Halted];

fn set(key: u64) -> Value {
    json!({"op": "set", "key": format!("key-{key}"), "value": key})
}

#[test]
fn a_lone_node_answers_makes_snapshots_and_ends_without_a_reader_of_its_log() {
    for way in WAYS {
        let directory = temporary_directory();
        let node = Options::in_directory(directory.path()).start();
        node.leave_log(way);
        let mut client = node.client();
        for number in 0..SNAPSHOTS {
            client.ok(set(number));
            client.ok(json!({"op": "snapshot"}));
        }
        if way == LogReader::Gone {
            let stats = client.ok(json!({"op": "stats", "section": "node"}));
            let dropped = stats["node"]["log_lines_dropped"].as_u64().expect("a number");
            // What is said of that is not said for ever.
            assert!((1..20 * SNAPSHOTS).contains(&dropped), "{way:?}: {stats}");
        }
        let (status, options) = node.terminate();
        assert!(status.success(), "{way:?}: it ended with {status}");
        let node = options.start();
        assert_eq!(node.client().ok(json!({"op": "count"}))["count"], SNAPSHOTS, "{way:?}");
    }
}

#[test]
fn members_elect_and_go_on_without_readers_of_their_logs() {
    for way in WAYS {
        let mut cluster = Cluster::start(3);
        cluster.wait_until_leads(1);
        cluster.ids().into_iter().for_each(|id| cluster.leave_log(id, way));
        for number in 0..SNAPSHOTS {
            cluster.ok(&set(number));
            for id in cluster.ids() {
                cluster.call(id, &json!({"op": "snapshot"})).expect("it answers");
            }
        }
        // What they say of that is more than enough to end them, or to hold them up.
        cluster.kill(1);
        cluster.wait_for_leader_among(&[2, 3]);
        cluster.ok_among(&[2, 3], &set(SNAPSHOTS));
        cluster.restart(1);
        cluster.wait_for_members();
        assert_eq!(cluster.converge().len() as u64, SNAPSHOTS + 1, "{way:?}");
        for id in [2, 3] {
            cluster.terminate(id);
        }
    }
}
