//! Nodes of datastore-node: a cluster, or one alone.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use datastore_utilities::bench::ask_node;
use datastore_utilities::load::{Data, JsonLines, Outcome, Plan};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bench::{Bench, perfect};
use crate::process::{Process, free_ports};

/// A run that met a change of leaders is repeated so often.
const ATTEMPTS: usize = 3;
/// What a member refuses while it doesn't lead, or no longer.
const OFFICE_CODES: [&str; 4] = ["not_leader", "no_leader", "leadership_lost", "no_quorum"];

/// Nodes that run; dropped, they are killed and their directory is removed.
pub struct Nodes<'a> {
    bench: &'a Bench,
    /// The nodes; the number of a node is its place, counted from one.
    pub members: Vec<Process>,
    /// Runs that were repeated since another member had come to lead.
    pub repeated: usize,
    _directory: TempDir,
}

impl<'a> Nodes<'a> {
    /// Starts `count` nodes of this program, and waits until the first write is
    /// acknowledged and every member takes part.
    pub fn start(bench: &'a Bench, program: &Path, count: usize, more: &[&str]) -> Result<Nodes<'a>, String> {
        let role = |place: usize| ["--role", if place == 0 { "primary" } else { "secondary" }];
        Nodes::start_in(bench, program, count, more, &role)
    }

    /// As [`Nodes::start`], in dynamo mode.
    pub fn start_dynamo(bench: &'a Bench, count: usize, more: &[&str]) -> Result<Nodes<'a>, String> {
        Nodes::start_in(bench, &bench.node, count, more, &|_| ["--mode", "dynamo"])
    }

    fn start_in(
        bench: &'a Bench,
        program: &Path,
        count: usize,
        more: &[&str],
        of_mode: &dyn Fn(usize) -> [&'static str; 2],
    ) -> Result<Nodes<'a>, String> {
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&bench.directory);
        let directory = directory.map_err(|error| format!("{}: {error}", bench.directory.display()))?;
        let ports = free_ports(count)?;
        let mut members = Vec::new();
        for (place, port) in ports.iter().enumerate() {
            let data = directory.path().join(format!("node-{}", place + 1));
            let mut arguments: Vec<String> =
                ["--port", &port.to_string(), "--data-dir", &data.to_string_lossy()].map(Into::into).into();
            arguments.extend(more.iter().map(|argument| argument.to_string()));
            if count > 1 {
                let of_cluster = ["--node-id", &(place + 1).to_string(), "--peers", &peers(&ports, place)];
                arguments.extend(of_cluster.map(Into::into));
                arguments.extend(of_mode(place).map(Into::into));
            }
            let output = directory.path().join(format!("output-{}", place + 1));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            members.push(Process::start(program, arguments, address, output)?);
        }
        let mut nodes = Nodes { bench, members, repeated: 0, _directory: directory };
        let bench = nodes.bench;
        bench.wait("the nodes serve", || nodes.is_serving().map(|is_serving| is_serving.then_some(())))?;
        Ok(nodes)
    }

    fn is_serving(&mut self) -> Result<bool, String> {
        self.members.iter_mut().try_for_each(Process::check)?;
        let Some(leader) = self.leader() else { return Ok(false) };
        let address = self.members[leader].address;
        let is_member_serving = |member: &Value| member["state"] == "serving";
        let all_serve = ask_node(address, &json!({"op": "cluster"})).is_ok_and(|cluster| {
            cluster["members"].as_array().is_some_and(|members| {
                members.len() == self.members.len() && members.iter().all(is_member_serving)
            })
        });
        Ok(all_serve && ask_node(address, &json!({"op": "set", "key": "first", "value": 1})).is_ok())
    }

    /// The place of the member that says of itself that it leads.
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).find(|&place| {
            ask_node(self.members[place].address, &json!({"op": "cluster"}))
                .is_ok_and(|cluster| cluster["role"] == "primary")
        })
    }

    /// Waits for a leader; gives its place.
    pub fn wait_for_leader(&self) -> Result<usize, String> {
        self.bench.wait("a node leads", || Ok(self.leader()))
    }

    /// Whether the leader is one of those that may fail as things stand.
    pub fn may_lose_leader(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let cluster = ask_node(self.members[leader].address, &json!({"op": "cluster"}));
        let may_fail = cluster.map(|cluster| cluster["may_fail"].clone()).unwrap_or_default();
        may_fail.as_array().is_some_and(|nodes| nodes.contains(&json!(leader + 1)))
    }

    /// A perfect run against the leader, with all servers at rest before it.
    /// Repeated when another node came to lead meanwhile.
    pub fn run(&mut self, plan: &Plan, others: &[Process]) -> Result<Outcome, String> {
        for _ in 1..ATTEMPTS {
            let outcome = self.run_once(plan, others)?;
            let codes: BTreeSet<&str> = outcome.refused.keys().map(|refusal| &refusal.code[..]).collect();
            let is_change = !codes.is_empty() && codes.iter().all(|code| OFFICE_CODES.contains(code));
            if !is_change || outcome.wrong + outcome.unanswered > 0 || outcome.is_interrupted {
                return perfect(outcome, "the nodes");
            }
            self.repeated += 1;
            eprintln!("repeated, since the leader changed: {codes:?}");
        }
        perfect(self.run_once(plan, others)?, "the nodes")
    }

    fn run_once(&self, plan: &Plan, others: &[Process]) -> Result<Outcome, String> {
        self.bench.rest([&self.members, others])?;
        let leader = self.wait_for_leader()?;
        self.bench.load(self.members[leader].address, &JsonLines, plan)
    }

    /// A run against one of them, whatever became of it.
    pub fn load(&self, place: usize, plan: &Plan) -> Result<Outcome, String> {
        self.bench.load(self.members[place].address, &JsonLines, plan)
    }

    /// Writes each key once.
    pub fn fill(&mut self, data: &Data, keys: u64, seed: u64) -> Result<(), String> {
        self.run(&Plan::fill(data, keys, seed), &[]).map(|_| ())
    }

    /// Whether the member has applied all that the leader has committed now, and
    /// the leader counts it among those that serve.
    pub fn has_caught_up(&self, place: usize, leader: usize) -> bool {
        let ask = |place: usize| ask_node(self.members[place].address, &json!({"op": "cluster"}));
        let (Ok(of_leader), Ok(of_member)) = (ask(leader), ask(place)) else { return false };
        let is_serving = of_leader["members"].as_array().is_some_and(|members| {
            // It has all entries; its indexes may still be built.
            let has_all =
                |member: &Value| ["serving", "indexing"].iter().any(|state| member["state"] == *state);
            members.iter().any(|member| member["node_id"] == place + 1 && has_all(member))
        });
        // Asked after the leader: what it had committed then, the member has applied.
        is_serving && of_member["applied_index"].as_u64() >= of_leader["commit_index"].as_u64()
    }
}

/// The peers of the node at this place, as its flag wants them.
fn peers(ports: &[u16], own: usize) -> String {
    let peer = |(place, port): (usize, &u16)| {
        (place != own).then(|| json!({"node_id": place + 1, "host": "127.0.0.1", "port": port}))
    };
    Value::Array(ports.iter().enumerate().filter_map(peer).collect()).to_string()
}
