//! Three members of etcd, and what its own tool measures.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use datastore_utilities::load::{EtcdPuts, Outcome, Plan};
use serde_json::Value;
use tempfile::TempDir;

use crate::bench::{Bench, perfect};
use crate::process::{Process, command, free_ports};
use crate::report::CheckPerf;

const ETCD: &str = "etcd";
const ETCDCTL: &str = "etcdctl";
const MEMBERS: usize = 3;
/// The loads of `etcdctl check perf` that could show more than the smaller ones:
/// each asks for so many writes a second at most, by so many clients.
const CHECK_PERF_LOADS: [(&str, u64, u64); 2] = [("l", 500, 8_000), ("xl", 1_000, 15_000)];
/// Room for every revision of a long bench; more than that it would refuse.
const QUOTA_BYTES: &str = "8589934592";

/// Members that run; dropped, they are killed and their directory is removed.
pub struct Etcd<'a> {
    bench: &'a Bench,
    /// The members.
    pub members: Vec<Process>,
    /// As etcd says it.
    pub version: String,
    _directory: TempDir,
}

impl<'a> Etcd<'a> {
    /// Whether both of its programs are there.
    pub fn is_installed() -> bool {
        [(ETCD, "--version"), (ETCDCTL, "version")].iter().all(|(program, flag)| {
            command(Path::new(program)).arg(flag).output().is_ok_and(|output| output.status.success())
        })
    }

    /// Starts three members with their own defaults, and waits for a leader.
    pub fn start(bench: &'a Bench) -> Result<Etcd<'a>, String> {
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&bench.directory);
        let directory = directory.map_err(|error| format!("{}: {error}", bench.directory.display()))?;
        let ports = free_ports(2 * MEMBERS)?;
        let (clients, peers) = ports.split_at(MEMBERS);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(place, port)| format!("member-{place}={}", url(*port))).collect();
        let mut members = Vec::new();
        for place in 0..MEMBERS {
            let (client, peer) = (url(clients[place]), url(peers[place]));
            let data = directory.path().join(format!("member-{place}"));
            let arguments: [&str; 20] = [
                "--name",
                &format!("member-{place}"),
                "--data-dir",
                &data.to_string_lossy(),
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &cluster.join(","),
                "--quota-backend-bytes",
                QUOTA_BYTES,
                "--logger",
                "zap",
                "--log-level",
                "warn",
            ];
            let output = directory.path().join(format!("output-{place}"));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, clients[place]));
            members.push(Process::start(Path::new(ETCD), arguments.map(Into::into).into(), address, output)?);
        }
        let mut etcd = Etcd { bench, members, version: String::new(), _directory: directory };
        let status = bench.wait("etcd has a leader", || {
            etcd.members.iter_mut().try_for_each(Process::check)?;
            Ok(etcd.leader_status().ok())
        })?;
        etcd.version = status["Status"]["version"].as_str().unwrap_or("of an unknown version").into();
        Ok(etcd)
    }

    fn endpoints(&self) -> String {
        let addresses: Vec<String> = self.members.iter().map(|member| member.address.to_string()).collect();
        addresses.join(",")
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let output = command(Path::new(ETCDCTL))
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{ETCDCTL}: {error}"))?;
        // `check perf` ends with an error when a load's target isn't reached, too.
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the leader says of itself.
    fn leader_status(&self) -> Result<Value, String> {
        let text = self.ask(&["endpoint", "status", "--write-out", "json"])?;
        let members: Vec<Value> = serde_json::from_str(&text).map_err(|_| format!("no status: {text:?}"))?;
        let leads = |member: &Value| {
            let status = &member["Status"];
            members.len() == MEMBERS && status["leader"] == status["header"]["member_id"]
        };
        members.iter().find(|member| leads(member)).cloned().ok_or_else(|| "etcd has no leader".into())
    }

    /// A perfect run against the leader; as many puts must have happened as were
    /// answered.
    pub fn run(&self, plan: &Plan, others: &[Process]) -> Result<Outcome, String> {
        let revision = |status: &Value| status["Status"]["header"]["revision"].as_u64().unwrap_or_default();
        self.bench.rest([&self.members, others])?;
        let status = self.leader_status()?;
        let address = status["Endpoint"].as_str().and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| format!("etcd's leader is nowhere: {status}"))?;
        let outcome = perfect(self.bench.load(address, &EtcdPuts::default(), plan)?, "etcd")?;
        let puts = revision(&self.leader_status()?).saturating_sub(revision(&status));
        if puts == outcome.answered {
            Ok(outcome)
        } else {
            Err(format!("etcd answered {} puts, and its revision grew by {puts}", outcome.answered))
        }
    }

    /// What `etcdctl check perf` says, a minute for each load.
    pub fn check_perf(&self) -> Result<Vec<CheckPerf>, String> {
        let mut found = Vec::new();
        for (load, clients, target_per_second) in CHECK_PERF_LOADS {
            eprintln!("etcdctl check perf --load={load}: a minute");
            self.bench.rest([&self.members, &[]])?;
            let said = self.ask(&["check", "perf", "--load", load])?;
            let per_second = throughput(&said).ok_or_else(|| format!("check perf said {said:?}"))?;
            found.push(CheckPerf { load, clients, target_per_second, per_second });
            self.bench.check()?;
        }
        Ok(found)
    }
}

/// The figure in `Throughput is N writes/s` or `Throughput too low: N writes/s`.
fn throughput(said: &str) -> Option<f64> {
    let words = said.lines().find(|line| line.contains("Throughput"))?.strip_suffix(" writes/s")?;
    words.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::throughput;

    #[test]
    fn both_wordings_of_check_perf_are_read() {
        assert_eq!(throughput(" 60 / 60\nPASS: Throughput is 974 writes/s\nPASS: Slowest\n"), Some(974.0));
        assert_eq!(throughput("FAIL: Throughput too low: 6491 writes/s\nFAIL\n"), Some(6_491.0));
        assert_eq!(throughput("Error: context deadline exceeded\n"), None);
    }
}
