//! Promise: what docs/CLUSTERING.md tells a reader to type works, in its order.
//!
//! The page's `sh` blocks are run by a shell, with an address and a directory of their
//! own. A line that starts a node leaves it running; a command is asked again until it
//! succeeds, as a reader would; `# node 2 is lost, with its directory` loses it, once
//! all nodes vote and serve, and `# node 2 is killed` kills it at once. A section begins with
//! nothing, unless it goes on with the one before it.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::addresses::{own_address, own_loopback_address};
use common::{PATIENCE, temporary_directory};
use serde_json::Value;

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);
/// Ports as the page has them.
const PORTS: [(&str, u64); 5] = [("9000", 1), ("9001", 2), ("9002", 3), ("9003", 4), ("9004", 5)];

/// The commands of each section's `sh` blocks, with continuation lines joined.
fn sections() -> BTreeMap<String, Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLUSTERING.md");
    let text = std::fs::read_to_string(page).expect("the page is there");
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut section, mut is_shell, mut continued) = (String::new(), false, String::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_string();
        } else if line.starts_with("```") {
            is_shell = line == "```sh";
        } else if is_shell {
            match line.strip_suffix('\\') {
                Some(begun) => continued += begun,
                None => {
                    let whole = std::mem::take(&mut continued) + line;
                    sections.entry(section.clone()).or_default().push(whole);
                }
            }
        }
    }
    sections
}

/// What a reader has: a shell, a directory, and nodes that run.
struct Reader {
    directory: tempfile::TempDir,
    host: std::net::IpAddr,
    nodes: BTreeMap<u64, Child>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Reader {
    fn new() -> Reader {
        let (directory, host) = (temporary_directory(), own_loopback_address());
        Reader { directory, host, nodes: BTreeMap::new() }
    }

    /// The page's words, with addresses of this test's own.
    fn localised(&self, line: &str) -> String {
        let mut line = line.replace("127.0.0.1", &self.host.to_string()).replace("--rounds 50", "--rounds 2");
        if !line.contains("--host") {
            line = line.replace("--port ", &format!("--host {} --port ", self.host));
        }
        for (port, id) in PORTS {
            line = line.replace(port, &own_address(self.host, id).port().to_string());
        }
        line
    }

    fn shell(&self, line: &str) -> Command {
        let programs = std::env::current_exe().expect("the test has a path");
        let programs = programs.parent().and_then(Path::parent).expect("target/<profile>/deps");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(&self.directory).env("PATH", path).stdin(Stdio::null());
        command.env("DATASTORE_SHARDS", "1");
        command
    }

    fn follow(&mut self, lines: &[String]) -> String {
        let mut printed = String::new();
        for line in lines {
            if let Some(lost) = line.strip_prefix("# node ") {
                let id = lost.split(' ').next().and_then(|id| id.parse().ok()).expect("a number");
                if !lost.contains("is killed") {
                    self.wait_until_all_vote(self.nodes.len());
                }
                self.lose(id, lost.contains("with its directory"));
            } else if line.starts_with("datastore-node") {
                self.start(line);
            } else {
                printed = self.until_it_succeeds(line);
            }
        }
        printed
    }

    fn start(&mut self, line: &str) {
        let id = line.split("--node-id ").nth(1).and_then(|rest| rest.split(' ').next());
        let id: u64 = id.and_then(|id| id.parse().ok()).expect("a number");
        let mut command = self.shell(&format!("exec {}", self.localised(line)));
        let node = command.stderr(Stdio::null()).spawn().expect("a shell");
        assert!(self.nodes.insert(id, node).is_none(), "node {id} runs already: {line}");
    }

    fn until_it_succeeds(&self, line: &str) -> String {
        let until = Instant::now() + 2 * PATIENCE;
        loop {
            let output = self.shell(&self.localised(line)).output().expect("a shell");
            if output.status.success() {
                return String::from_utf8(output.stdout).expect("UTF-8");
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(Instant::now() < until, "{line}: {}: {said}", output.status);
            std::thread::sleep(AGAIN);
        }
    }

    /// Asks a node until the command's answer has this in it.
    fn until_it_prints(&self, node: &str, command: &str, wanted: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let printed = self.until_it_succeeds(&format!("datastore-cli --node {node} {command}"));
            if printed.contains(wanted) {
                return printed;
            }
            assert!(Instant::now() < until, "{node}: {command}: {printed}");
            std::thread::sleep(AGAIN);
        }
    }

    fn lose(&mut self, id: u64, with_directory: bool) {
        let mut node = self.nodes.remove(&id).expect("it runs");
        node.kill().and_then(|()| node.wait()).expect("it is ours");
        if with_directory {
            let directory = self.directory.path().join(format!("storage/node{id}"));
            std::fs::remove_dir_all(directory).expect("it was there");
        }
    }

    /// The nodes are all there, no change of them is under way, and one may fail where there are several:
    /// any one of three, or of two in dynamo mode.
    fn wait_until_all_vote(&self, count: usize) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let cluster = self.until_it_succeeds("datastore-cli --node 127.0.0.1:9000 cluster --json");
            let cluster: Value = serde_json::from_str(&cluster).expect("JSON");
            let members = cluster["members"].as_array().expect("members");
            let may_fail = cluster["may_fail"].as_array().map_or(0, Vec::len);
            let is_well = |member: &Value| member["votes"] == true && member["state"] == "serving";
            let is_dynamo = cluster["mode"] == "dynamo" && count > 1;
            let redundant = if is_dynamo { count } else { [0, 0, 1, 3][count.min(3)] };
            if members.len() == count && members.iter().all(is_well) && may_fail == redundant {
                return cluster;
            }
            assert!(Instant::now() < until, "not all vote: {cluster:#}");
            std::thread::sleep(AGAIN);
        }
    }
}

#[test]
fn three_nodes_start_as_the_page_says() {
    let mut reader = Reader::new();
    reader.follow(&sections()["Starting three nodes"]);
    assert_eq!(reader.wait_until_all_vote(3)["tolerates"], 1);
}

#[test]
fn two_nodes_start_as_the_page_says() {
    let mut reader = Reader::new();
    reader.follow(&sections()["Starting two nodes"]);
    let cluster = reader.wait_until_all_vote(2);
    assert_eq!(
        (&cluster["tolerates"], &cluster["may_fail"][0], &cluster["witness"]),
        (&0.into(), &1.into(), &2.into())
    );
}

#[test]
fn a_cluster_grows_is_mended_shrinks_and_is_forced_as_the_page_says() {
    let sections = sections();
    let mut reader = Reader::new();
    let printed = reader.follow(&sections["Adding a node"]);
    assert_eq!(printed.trim(), r#""hello""#);
    reader.wait_until_all_vote(3);
    reader.follow(&sections["Replacing a node"]);
    reader.wait_until_all_vote(3);
    reader.follow(&sections["Removing a node"]);
    let mut removed = reader.nodes.remove(&3).expect("it runs");
    removed.kill().and_then(|()| removed.wait()).expect("it is ours");
    reader.wait_until_all_vote(2);
    reader.follow(&sections["A majority that is lost"]);
    assert_eq!(reader.wait_until_all_vote(2)["epoch"], 1);
    let greeting = reader.until_it_succeeds("datastore-cli --node 127.0.0.1:9001 get greeting");
    assert_eq!(greeting.trim(), r#""still here""#);
}

#[test]
fn two_nodes_write_lose_a_race_and_are_replaced_as_the_page_says() {
    let sections = sections();
    let mut reader = Reader::new();
    reader.follow(&sections["Two nodes that both write"]);
    reader.wait_until_all_vote(2);
    let printed = reader.follow(&sections["Copies and versions"]);
    assert_eq!(printed.trim(), r#""Grace""#);
    reader.follow(&sections["A lost race"]);
    for node in ["127.0.0.1:9000", "127.0.0.1:9001"] {
        let conflicts = reader.until_it_prints(node, "conflicts --json", r#""value":"Ada""#);
        let rows: Vec<Value> =
            conflicts.lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
        assert_eq!(rows.len(), 1, "{conflicts}");
        assert_eq!((&rows[0]["key"], &rows[0]["winner"]["value"]), (&"seat:12".into(), &"Bob".into()));
        reader.until_it_prints(node, "get seat:12", r#""Bob""#);
        reader.until_it_prints(node, "get map:12", r#""front row""#);
        reader.until_it_prints(node, "get-vector map:12", "[1.0,0.5]");
    }
    let printed = reader.follow(&sections["A node that is lost"]);
    assert_eq!(printed.trim(), r#""Bob""#);
    reader.wait_until_all_vote(2);
    reader.follow(&sections["A node that joins"]);
    reader.wait_until_all_vote(3);
    reader.until_it_prints("127.0.0.1:9002", "get seat:12", r#""Bob""#);
}

#[test]
fn five_nodes_all_write_as_the_page_says() {
    let mut reader = Reader::new();
    let printed = reader.follow(&sections()["Five nodes"]);
    assert_eq!(printed.trim(), r#""hello""#);
    assert_eq!(reader.wait_until_all_vote(5)["tolerates"], 4);
}

#[test]
fn data_moves_between_the_modes_as_the_page_says() {
    let mut reader = Reader::new();
    let printed = reader.follow(&sections()["From one mode to the other"]);
    assert_eq!(printed.trim(), r#""hello""#);
}

#[test]
fn the_chaos_test_of_the_page_runs() {
    let reader = Reader::new();
    let lines = &sections()["Try it"];
    let said = reader.until_it_succeeds(&lines[0]);
    assert!(said.contains("proven: rounds 2"), "{said}");
}

#[test]
fn no_command_of_the_page_is_left_out() {
    let followed = [
        "Starting three nodes",
        "Starting two nodes",
        "Adding a node",
        "Replacing a node",
        "Removing a node",
        "A majority that is lost",
        "Try it",
        "Two nodes that both write",
        "Five nodes",
        "Copies and versions",
        "A lost race",
        "A node that is lost",
        "A node that joins",
        "From one mode to the other",
    ];
    let with_commands = sections();
    let left: Vec<&String> =
        with_commands.keys().filter(|title| !followed.contains(&title.as_str())).collect();
    assert!(left.is_empty(), "{left:?}");
}
