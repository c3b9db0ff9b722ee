//! Clusters of real nodes, on a network that can be parted.
//!
//! Nodes are named by their number in the cluster, from 1 on; number 1 forms it. Each
//! has a directory of its own, and keeps it and its address over restarts. Some may be
//! spare: there is room for them, and they become members later (`members.rs`).

#![allow(dead_code)] // each test file uses its part

pub mod directories;
pub mod dynamo;
pub mod members;
pub mod namespaces;
pub mod network;
pub mod proxies;
pub mod under_load;
pub mod writers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use datastore_utilities::linearizability::{Client, Load, Place};
use serde_json::{Value, json};

use super::common::{LogReader, Node, Options, PATIENCE, signal, temporary_directory};
use network::{Id, Network, network};

/// A bound on one request: longer than an election, shorter than a node's own patience.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// A bound on what a node can say from memory. One that is stopped says nothing.
const VIEW_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Longer than two elections.
const GIVEN_UP_MS: u64 = 3_000;

/// A key that `converge` writes; no test's own.
const MARKER: &str = "converge";

/// A cluster.
pub struct Cluster {
    // In the order in which they must go: nodes before the network that they stand in.
    nodes: BTreeMap<Id, Node>,
    stopped: BTreeSet<Id>,
    /// The first so many form the cluster.
    founders: u64,
    /// Those that are no members, or shall be none.
    spare: BTreeSet<Id>,
    /// Those that began with an empty directory in a cluster that was there, and whom they name.
    newcomers: BTreeMap<Id, Vec<Id>>,
    flags: HashMap<Id, Vec<String>>,
    environment: HashMap<Id, Vec<String>>,
    /// Directories that a test has chosen.
    elsewhere: HashMap<Id, PathBuf>,
    directories: BTreeMap<Id, tempfile::TempDir>,
    network: Box<dyn Network>,
}

impl Cluster {
    /// Starts `count` nodes and waits until they have a leader that serves.
    pub fn start(count: u64) -> Cluster {
        Cluster::start_with(count, &[])
    }

    /// As `start`, with more flags for every node.
    pub fn start_with(count: u64, flags: &[&str]) -> Cluster {
        Cluster::founded(count, count, flags)
    }

    /// As `start_with`, with room for more nodes, up to `total`.
    pub fn founded(count: u64, total: u64, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepared(total, flags);
        cluster.founders = count;
        cluster.spare = (count + 1..=total).collect();
        cluster.restart_all();
        cluster.wait_for_leader();
        // Members that are still on their way in would count as failures of the test's first step.
        cluster.wait_until("all nodes are members that have caught up", |cluster| {
            cluster.members_serving().len() as u64 == count
        });
        cluster
    }

    /// Directories and a network for `count` nodes, none of which is started yet.
    pub fn prepared(count: u64, flags: &[&str]) -> Cluster {
        let ids: Vec<Id> = (1..=count).collect();
        let flags: Vec<String> = flags.iter().map(|flag| flag.to_string()).collect();
        Cluster {
            nodes: BTreeMap::new(),
            stopped: BTreeSet::new(),
            founders: count,
            spare: BTreeSet::new(),
            newcomers: BTreeMap::new(),
            environment: HashMap::new(),
            elsewhere: HashMap::new(),
            flags: ids.iter().map(|id| (*id, flags.clone())).collect(),
            directories: ids.iter().map(|id| (*id, temporary_directory())).collect(),
            network: network(&ids),
        }
    }

    /// Flags of a node, from its next start on.
    pub fn set_flags(&mut self, id: Id, flags: &[&str]) {
        self.flags.insert(id, flags.iter().map(|flag| flag.to_string()).collect());
    }

    /// Environment variables of a node, from its next start on.
    pub fn set_environment(&mut self, id: Id, variables: &[(&str, &str)]) {
        let variables = variables.iter().map(|(name, value)| format!("{name}={value}"));
        self.environment.insert(id, ["env".to_string()].into_iter().chain(variables).collect());
    }

    fn options(&self, id: Id) -> Options {
        let address = self.network.address(id);
        let peer = |to: &Id| {
            let route = self.network.route(id, *to);
            json!({"node_id": to, "host": route.ip().to_string(), "port": route.port()})
        };
        let is_new = self.newcomers.contains_key(&id);
        let named = self.newcomers.get(&id).cloned().unwrap_or_else(|| (1..=self.founders).collect());
        let peers: Vec<Value> = named.iter().filter(|other| **other != id).map(peer).collect();
        let (through, way_in_flags) = self.network.way_in(id);
        let mut options = Options::in_directory(self.directory(id)).with(&[
            "--host",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
            "--node-id",
            &id.to_string(),
            "--role",
            if id == 1 && !is_new { "primary" } else { "secondary" },
            "--peers",
            &json!(peers).to_string(),
            "--shards",
            "2",
        ]);
        let flags: Vec<&str> = self.flags[&id].iter().map(String::as_str).collect();
        options = options.with(&flags);
        options.arguments.extend(way_in_flags);
        options.through = through;
        options.through.extend(self.environment.get(&id).into_iter().flatten().cloned());
        options
    }

    /// Every node's number, without those that are spare.
    pub fn ids(&self) -> Vec<Id> {
        self.directories.keys().copied().filter(|id| !self.spare.contains(id)).collect()
    }

    /// Those that run and aren't stopped.
    pub fn running(&self) -> Vec<Id> {
        self.nodes.keys().copied().filter(|id| !self.stopped.contains(id)).collect()
    }

    /// Nodes as clients reach them, also those that are spare.
    pub fn places(&self) -> Vec<Place> {
        let place = |node_id| Place { node_id, address: self.network.address(node_id) };
        self.directories.keys().copied().map(place).collect()
    }

    /// A load on this cluster.
    pub fn load(&self, prefix: &str) -> Load {
        Load::on(&self.places(), &self.network.dial(), prefix)
    }

    /// SIGKILL, as a power cut to the process.
    pub fn kill(&mut self, id: Id) {
        self.stopped.remove(&id);
        drop(self.nodes.remove(&id).expect("it runs").kill());
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, id: Id) {
        let (status, _) = self.nodes.remove(&id).expect("it runs").terminate();
        assert!(status.success(), "node {id} ended with {status}");
    }

    /// SIGSTOP: it does nothing, and doesn't know it.
    pub fn pause(&mut self, id: Id) {
        signal(self.nodes[&id].pid(), "STOP");
        self.stopped.insert(id);
    }

    /// SIGCONT.
    pub fn resume(&mut self, id: Id) {
        signal(self.nodes[&id].pid(), "CONT");
        self.stopped.remove(&id);
    }

    /// Starts a node that doesn't run, and waits until it says that it serves.
    pub fn restart(&mut self, id: Id) {
        assert!(!self.nodes.contains_key(&id), "node {id} runs");
        let node = self.options(id).start();
        self.nodes.insert(id, node);
    }

    /// Starts all nodes that don't run, at once: some may need the others to serve.
    pub fn restart_all(&mut self) {
        let missing: Vec<Id> = self.ids().into_iter().filter(|id| !self.nodes.contains_key(id)).collect();
        let options: Vec<(Id, Options)> = missing.into_iter().map(|id| (id, self.options(id))).collect();
        let started = std::thread::scope(|scope| {
            let start = |(id, options): (Id, Options)| (id, scope.spawn(|| options.start()));
            let starting: Vec<_> = options.into_iter().map(start).collect();
            starting.into_iter().map(|(id, node)| (id, node.join().expect("it serves"))).collect::<Vec<_>>()
        });
        self.nodes.extend(started);
    }

    /// Whether each node, and what stands in the place of one, has a network of its own.
    pub fn has_places(&self) -> bool {
        !self.network.way_in(1).0.is_empty()
    }

    /// A command that runs in the place of a node, which is none.
    pub fn command_at(&self, id: Id, program: &str) -> std::process::Command {
        let way_in = self.network.way_in(id).0;
        let mut words = way_in.iter().map(String::as_str).chain([program]);
        let mut command = std::process::Command::new(words.next().expect("the program"));
        command.args(words);
        command
    }

    /// Nothing passes between these and those, either way.
    pub fn part(&self, these: &[Id], those: &[Id]) {
        for (one, other) in these.iter().flat_map(|one| those.iter().map(move |other| (*one, *other))) {
            self.network.cut(one, other);
            self.network.cut(other, one);
        }
    }

    /// Nothing passes between a node and all others.
    pub fn isolate(&self, id: Id) {
        self.part(&[id], &self.others(id));
    }

    /// Nothing passes from one to the other.
    pub fn cut(&self, from: Id, to: Id) {
        self.network.cut(from, to);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.network.heal();
    }

    /// All nodes but this one.
    pub fn others(&self, id: Id) -> Vec<Id> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// A connection to a node that runs.
    pub fn client(&self, id: Id) -> Client {
        Client::connect(&self.network.dial(), self.network.address(id), PATIENCE).expect("it listens")
    }

    /// One request to a node, on a connection of its own.
    pub fn call(&self, id: Id, request: &Value) -> std::io::Result<Value> {
        self.call_within(id, request, REPLY_TIMEOUT)
    }

    fn call_within(&self, id: Id, request: &Value, timeout: Duration) -> std::io::Result<Value> {
        Client::connect(&self.network.dial(), self.network.address(id), timeout)?.call(request)
    }

    /// What a node says of its cluster, if it says anything.
    pub fn view(&self, id: Id) -> Option<Value> {
        if !self.running().contains(&id) {
            return None;
        }
        let view = self.call_within(id, &json!({"op": "cluster"}), VIEW_TIMEOUT).ok()?;
        (view["ok"] == true).then_some(view)
    }

    /// The node that says that it leads, in the latest term of those.
    pub fn leader(&self) -> Option<Id> {
        self.leader_among(&self.ids())
    }

    /// As `leader`, of some of the nodes.
    pub fn leader_among(&self, ids: &[Id]) -> Option<Id> {
        let leading = ids.iter().filter_map(|id| {
            let view = self.view(*id)?;
            (view["leader"]["node_id"] == *id).then(|| (view["term"].as_u64(), *id))
        });
        leading.max().map(|(_, id)| id)
    }

    /// Members that the leader says are serving; none when nobody leads.
    pub fn members_serving(&self) -> Vec<Id> {
        let Some(view) = self.leader().and_then(|leader| self.view(leader)) else { return Vec::new() };
        let members = view["members"].as_array().cloned().unwrap_or_default();
        members
            .iter()
            .filter(|member| member["state"] == "serving")
            .filter_map(|member| member["node_id"].as_u64())
            .collect()
    }

    /// Waits until a condition holds.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "it never came that {what}\n{}", self.describe());
            std::thread::sleep(POLL);
        }
    }

    /// Waits for a leader that answers reads.
    pub fn wait_for_leader(&self) -> Id {
        self.wait_for_leader_among(&self.ids())
    }

    /// As `wait_for_leader`, of some of the nodes.
    pub fn wait_for_leader_among(&self, ids: &[Id]) -> Id {
        let mut found = None;
        self.wait_until(&format!("one of {ids:?} leads and serves"), |cluster| {
            found = cluster.leader_among(ids).filter(|id| {
                let reply = cluster.call(
                    *id,
                    &json!({"op": "get", "key": "is anybody there", "consistency": "linearizable"}),
                );
                reply.is_ok_and(|reply| reply["ok"] == true)
            });
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// Waits until this node leads.
    pub fn wait_until_leads(&self, id: Id) {
        self.wait_until(&format!("node {id} leads"), |cluster| cluster.leader() == Some(id));
        assert_eq!(self.wait_for_leader(), id);
    }

    /// Waits until a leader has heard nothing of a node for so long that it no longer waits
    /// for it to take over from it: whoever comes back sooner may be handed the leadership.
    pub fn wait_until_given_up(&self, leader: Id, silent: Id) {
        self.wait_until(&format!("node {leader} gives node {silent} up"), |cluster| {
            let view = cluster.view(leader).unwrap_or_default();
            let mut members = view["members"].as_array().into_iter().flatten();
            members.any(|member| {
                member["node_id"] == silent && member["last_seen_ms"].as_u64() > Some(GIVEN_UP_MS)
            })
        });
    }

    /// A request to whoever leads, sent again as long as there is no `ok` and that may pass:
    /// it must be one that may happen twice.
    pub fn ok(&self, request: &Value) -> Value {
        self.ok_among(&self.ids(), request)
    }

    /// As `ok`, of some of the nodes.
    pub fn ok_among(&self, ids: &[Id], request: &Value) -> Value {
        let mut answer = Value::Null;
        self.wait_until(&format!("{request} is answered"), |cluster| {
            let reply = cluster.leader_among(ids).and_then(|leader| cluster.call(leader, request).ok());
            let Some(reply) = reply else { return false };
            let error = &reply["error"];
            let is_final = error["outcome"] == "not_applied"
                && error["retryable"] == false
                && error["code"] != "sync_failed";
            assert!(!is_final, "{request} → {reply}\n{}", cluster.describe());
            answer = reply;
            answer["ok"] == true
        });
        answer
    }

    /// A request that a node must refuse for good or for now; gives the error.
    pub fn refused(&self, id: Id, request: &Value) -> Value {
        let reply = self.call(id, request).expect("it answers");
        assert_eq!(reply["ok"], false, "{request} → {reply}");
        reply["error"].clone()
    }

    /// Waits until a node refuses a request with this code; other refusals and successes may come first.
    pub fn wait_until_refused(&self, id: Id, request: &Value, code: &str) {
        self.wait_until(&format!("node {id} answers {request} with {code}"), |cluster| {
            cluster.call(id, request).is_ok_and(|reply| reply["error"]["code"] == code)
        });
    }

    /// All that a node holds, as it says itself; `None` while it can't.
    pub fn contents(&self, id: Id) -> Option<BTreeMap<String, Value>> {
        let mut contents = BTreeMap::new();
        let mut after = Value::Null;
        loop {
            let mut request = json!({"op": "scan", "consistency": "local", "limit": 10_000});
            if !after.is_null() {
                request["after"] = after;
            }
            let page = self.call(id, &request).ok().filter(|page| page["ok"] == true)?;
            for item in page["items"].as_array()? {
                contents.insert(item["key"].as_str()?.to_string(), item.clone());
            }
            after = page["next"].clone();
            if after.is_null() {
                return Some(contents);
            }
        }
    }

    /// Starts whoever doesn't run, wakes whoever is stopped, heals the network, and waits until
    /// nothing is under way and all nodes hold the same; gives that.
    pub fn converge(&mut self) -> BTreeMap<String, Value> {
        self.heal();
        for id in std::mem::take(&mut self.stopped) {
            signal(self.nodes[&id].pid(), "CONT");
        }
        self.restart_all();
        self.wait_for_leader();
        let mut settled = BTreeMap::new();
        let mut before: Option<BTreeMap<String, Value>> = None;
        self.wait_until("all nodes hold the same, and nothing changes", |cluster| {
            let Some(contents) = cluster.common_contents() else { return false };
            if before.as_ref() == Some(&contents) {
                settled = contents;
                return true;
            }
            // The same once more behind a write of our own: what was under way before it has
            // come in the log, or is answered for good by whoever led before.
            let marker = json!({"op": "set", "key": MARKER, "value": contents.len()});
            let reply = cluster.leader().and_then(|leader| cluster.call(leader, &marker).ok());
            before = reply.filter(|reply| reply["ok"] == true).map(|_| contents);
            false
        });
        settled
    }

    /// What all nodes hold, if it is the same, without the marker of `converge`.
    fn common_contents(&self) -> Option<BTreeMap<String, Value>> {
        let mut all = self.ids().into_iter().map(|id| self.contents(id));
        let mut first = all.next()??;
        for other in all {
            if other? != first {
                return None;
            }
        }
        first.remove(MARKER);
        Some(first)
    }

    /// What is known of all nodes, for a failed test.
    pub fn describe(&self) -> String {
        let describe = |id: Id| match (self.view(id), self.running().contains(&id)) {
            (Some(view), _) => format!("node {id}: {view}"),
            (None, true) => format!("node {id} doesn't answer"),
            (None, false) => format!("node {id} doesn't run"),
        };
        self.directories.keys().copied().map(describe).collect::<Vec<_>>().join("\n")
    }

    /// A node's directory.
    pub fn directory(&self, id: Id) -> &Path {
        self.elsewhere.get(&id).map_or(self.directories[&id].path(), PathBuf::as_path)
    }

    /// Where a node keeps its data, from its next start on.
    pub fn set_directory(&mut self, id: Id, directory: &Path) {
        self.elsewhere.insert(id, directory.to_path_buf());
    }

    /// Waits until a node has ended by itself; how, and what it has logged.
    pub fn wait_for_end(&mut self, id: Id) -> (std::process::ExitStatus, String) {
        let mut node = self.nodes.remove(&id).expect("it runs");
        let status = node.wait();
        (status, node.rest_of_log())
    }

    /// What a node has logged so far.
    pub fn log(&mut self, id: Id) -> String {
        self.nodes.get_mut(&id).expect("it runs").log()
    }
    /// From its next line on a node's log is read no more.
    pub fn leave_log(&self, id: Id, to: LogReader) {
        self.nodes[&id].leave_log(to);
    }

    /// Waits until a node has logged something that contains `text`; gives that line.
    pub fn wait_for_log(&mut self, id: Id, text: &str) -> String {
        self.nodes.get_mut(&id).expect("it runs").wait_for_log(text)
    }
}
