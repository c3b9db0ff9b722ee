//! Promise: in dynamo mode a node whose disk was set back as a whole, so that nothing in its directory
//! tells it, and which is started at another address, costs the others nothing: what they hold of what was
//! acknowledged stays, what was deleted stays deleted, and all end with the same, also where the node took
//! writes while it could reach nobody. That it did is said.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use common::addresses::own_address;
use common::addresses::own_loopback_address;
use common::{Node, Options, PATIENCE, temporary_directory};
use serde_json::{Value, json};
use tempfile::TempDir;

const POLL: Duration = Duration::from_millis(20);

/// Nodes that name each other, the last of which is set back.
struct Nodes {
    directories: Vec<TempDir>,
    addresses: Vec<SocketAddr>,
    /// In the place of each node, while it runs.
    nodes: Vec<Option<Node>>,
}

impl Nodes {
    fn start(count: usize) -> Nodes {
        let host = own_loopback_address();
        let mut nodes = Nodes {
            directories: (0..count).map(|_| temporary_directory()).collect(),
            addresses: (1..=count as u64).map(|id| own_address(host, id)).collect(),
            nodes: (0..count).map(|_| None).collect(),
        };
        (0..count).for_each(|place| nodes.restart(place));
        nodes.wait_for_contact();
        nodes
    }

    fn restart(&mut self, place: usize) {
        let others = (0..self.addresses.len()).filter(|other| *other != place);
        let peer = |other: usize| {
            let address = self.addresses[other];
            json!({"node_id": other + 1, "host": address.ip().to_string(), "port": address.port()})
        };
        let peers: Vec<Value> = others.map(peer).collect();
        let address = self.addresses[place];
        let options = Options::in_directory(self.directories[place].path()).with(&[
            "--host",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
            "--node-id",
            &(place + 1).to_string(),
            "--mode",
            "dynamo",
            "--peers",
            &json!(peers).to_string(),
        ]);
        self.nodes[place] = Some(options.start());
    }

    fn kill(&mut self, place: usize) {
        drop(self.nodes[place].take().expect("it runs").kill());
    }

    fn last(&self) -> usize {
        self.nodes.len() - 1
    }

    fn node(&mut self, place: usize) -> &mut Node {
        self.nodes[place].as_mut().expect("it runs")
    }

    fn ok(&self, place: usize, request: Value) -> Value {
        self.nodes[place].as_ref().expect("it runs").client().ok(request)
    }

    fn view(&self, place: usize) -> Value {
        self.ok(place, json!({"op": "cluster"}))
    }

    /// What a node holds.
    fn contents(&self, place: usize) -> BTreeMap<String, Value> {
        let found = self.ok(place, json!({"op": "scan", "limit": 1_000}));
        let items = found["items"].as_array().expect("items").clone();
        items.into_iter().map(|item| (item["key"].as_str().expect("a key").to_string(), item)).collect()
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(&Nodes) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            if Instant::now() >= deadline {
                let logs: Vec<String> = self.nodes.iter_mut().flatten().map(Node::log).collect();
                panic!("it never came that {what}\n{}", logs.join("\n\n"));
            }
            std::thread::sleep(POLL);
        }
    }

    fn wait_for_contact(&mut self) {
        self.wait_until("all are in contact", |nodes| {
            (0..nodes.nodes.len()).all(|place| {
                let view = nodes.view(place);
                let members = view["members"].as_array().expect("members").clone();
                members.len() == nodes.nodes.len()
                    && members.iter().all(|member| member["state"] == "serving")
            })
        });
    }

    /// Waits until all have had the same writes, hold the same and have forgotten all deletes.
    fn settle(&mut self) -> BTreeMap<String, Value> {
        let has_settled = |nodes: &Nodes| {
            let views: Vec<Value> = (0..nodes.nodes.len()).map(|place| nodes.view(place)).collect();
            let is_done = |view: &Value| {
                view["dynamo"]["streams"] == views[0]["dynamo"]["streams"]
                    && view["dynamo"]["tombstones"]["kept"] == 0
                    && view["alarms"] == json!([])
            };
            views.iter().all(is_done)
                && (1..nodes.nodes.len()).all(|place| nodes.contents(place) == nodes.contents(0))
        };
        self.wait_until("all hold the same, with no delete left and no alarm", has_settled);
        let contents = self.contents(0);
        for place in 0..self.nodes.len() {
            assert_eq!(self.ok(place, json!({"op": "count"}))["count"], contents.len(), "they are counted");
        }
        contents
    }

    /// The last node's directory as it is, taken while it doesn't run.
    fn backup(&mut self) -> TempDir {
        let last = self.last();
        let (status, _) = self.nodes[last].take().expect("it runs").terminate();
        assert!(status.success());
        let kept = temporary_directory();
        let from = format!("{}/.", self.directories[last].path().display());
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(kept.path()).status();
        assert!(copied.expect("cp runs").success());
        self.restart(last);
        self.wait_for_contact();
        kept
    }

    /// The last node's disk is as it was then, and it will listen elsewhere.
    fn set_back(&mut self, kept: &TempDir) {
        let last = self.last();
        set_back(self.directories[last].path(), kept.path());
        let port = self.addresses[last].port() + 100;
        self.addresses[last].set_port(port);
    }
}

/// Every file is as it was, and the same one: what was written into it is overwritten.
fn set_back(directory: &Path, kept: &Path) {
    let names = |folder: &Path| -> Vec<OsString> {
        fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("an entry").file_name()).collect()
    };
    for name in names(directory).iter().filter(|name| !kept.join(name).exists()) {
        fs::remove_file(directory.join(name)).expect("a file of later");
    }
    for name in names(kept) {
        let (from, to) = (kept.join(&name), directory.join(&name));
        if from.is_dir() {
            fs::create_dir_all(&to).expect("there is room");
            set_back(&to, &from);
            continue;
        }
        let options = File::options().write(true).create(true).truncate(true).clone();
        let mut file = options.open(to).expect("it can be written");
        file.write_all(&fs::read(from).expect("a file")).expect("there is room");
        file.sync_all().expect("there is room");
    }
}

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "key": key, "value": value, "w": "all"})
}

/// The last node writes so many entries that it forgets, and deletes a key if told to.
fn is_set_back_and_moves(count: usize, forgotten: usize, deletes: bool) {
    let mut nodes = Nodes::start(count);
    let last = nodes.last();
    (0..count).for_each(|place| drop(nodes.ok(place, set(&format!("before-{place}"), "v"))));
    nodes.ok(0, set("gone", "soon"));
    nodes.settle();
    let kept = nodes.backup();
    (0..forgotten).for_each(|number| drop(nodes.ok(last, set(&format!("after-{number}"), "v"))));
    if deletes {
        nodes.ok(last, json!({"op": "delete", "key": "gone", "w": "all"}));
    }
    let expected = nodes.contents(0);
    assert_eq!(expected.contains_key("gone"), !deletes);
    nodes.kill(last);
    nodes.set_back(&kept);
    nodes.restart(last);
    nodes.node(last).wait_for_log("goes on as a new stream");
    assert_eq!(nodes.settle(), expected, "nothing is lost, and nothing comes back");
    nodes.ok(last, set("by the last", "v"));
    nodes.ok(0, set("by the first", "v"));
    assert_eq!(nodes.settle().len(), expected.len() + 2);
    let view = nodes.view(0);
    let moved = view["members"].as_array().unwrap().iter().find(|member| member["node_id"] == last + 1);
    assert_eq!(moved.unwrap()["port"], nodes.addresses[last].port(), "{view}");
}

#[test]
fn of_two_nodes_one_that_was_set_back_and_moved_gives_no_place_twice() {
    is_set_back_and_moves(2, 1, false);
}

#[test]
fn of_three_nodes_one_that_was_set_back_and_moved_gives_no_place_twice() {
    is_set_back_and_moves(3, 1, false);
}

#[test]
fn of_two_nodes_a_delete_that_one_has_forgotten_stays() {
    is_set_back_and_moves(2, 0, true);
}

#[test]
fn of_three_nodes_what_one_has_forgotten_stays() {
    is_set_back_and_moves(3, 3, true);
}

/// The last node is set back, reaches nobody, and takes writes by itself.
fn writes_alone(count: usize, forgotten: usize, alone: usize) {
    let mut nodes = Nodes::start(count);
    let last = nodes.last();
    nodes.ok(0, set("gone", "soon"));
    nodes.settle();
    let kept = nodes.backup();
    (0..forgotten).for_each(|number| drop(nodes.ok(last, set(&format!("after-{number}"), "v"))));
    nodes.ok(last, json!({"op": "delete", "key": "gone", "w": "all"}));
    let expected = nodes.settle();
    (0..count).for_each(|place| nodes.kill(place));
    nodes.set_back(&kept);
    nodes.restart(last);
    for number in 0..alone {
        nodes.ok(last, json!({"op": "set", "key": format!("alone-{number}"), "value": "v"}));
    }
    (0..last).for_each(|place| nodes.restart(place));
    let contents = nodes.settle();
    for (key, item) in expected {
        assert_eq!(contents.get(&key), Some(&item), "what the others had stays");
    }
    assert!(!contents.contains_key("gone"), "it stays deleted");
    nodes.node(last).wait_for_log("goes on as a new stream");
    let mut said = String::new();
    (0..count).for_each(|place| said += &nodes.node(place).log());
    assert!(said.contains("A STREAM HAS FORKED"), "{said}");
    assert!(said.matches("\"ERROR\"").count() < 20, "it isn't said all the time: {said}");
    nodes.ok(last, set("by the last", "v"));
    nodes.settle();
}

#[test]
fn of_two_nodes_one_that_was_set_back_and_wrote_alone_takes_over_what_the_other_has() {
    writes_alone(2, 2, 1);
    writes_alone(2, 1, 3);
}

#[test]
fn of_three_nodes_one_that_was_set_back_and_wrote_alone_takes_over_what_the_others_have() {
    writes_alone(3, 1, 2);
}
