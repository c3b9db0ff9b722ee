//! Promise: wherever the leader goes, clients follow: one that is killed, stopped, or gone without a word keeps no
//! client of several nodes for longer than a moment, no call takes longer than its time-out, and nothing that was
//! acknowledged is lost by it.
//!
//! Each of the clients works in a process of its own, at the place of a node that there isn't, so that it can be
//! parted from the leader, too. `DATASTORE_FAULT_ROUNDS` says how many failovers of each kind there are (1 unless
//! given), and what is printed is how long after the servers each client was back:
//!
//! ```text
//! DATASTORE_FAULT_ROUNDS=20 cargo test --release -p datastore-utilities --test clients_failover -- --nocapture
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster::Cluster;
use cluster::network::Id;
use cluster::under_load::rounds;
use common::programs::program;
use serde_json::{Value, json};

/// What each call has.
const TIMEOUT_SECONDS: u64 = 5;
/// Answers that show that a client is at work.
const ANSWERS: usize = 20;
/// Where clients stand.
const CLIENTS: Id = 4;

/// What both Python clients say of a call.
const PYTHON_SAID: &str = r#"
import contextlib, json, sys, time
from datastore import DatastoreError
@contextlib.contextmanager
def said(number):
    began, code = time.monotonic(), None
    try:
        yield
    except DatastoreError as error:
        code = error.code if error.outcome == "not_applied" else error.code + " unknown"
    print(json.dumps({"number": number, "took_ms": int((time.monotonic() - began) * 1000), "code": code}), flush=True)
"#;

/// Writes ever higher numbers under one key, and says what became of each, until it is ended.
const PYTHON: &str = r#"
from datastore import DatastoreConnector
client = DatastoreConnector(sys.argv[3:], timeout=float(sys.argv[2]))
number = 0
while True:
    number += 1
    with said(number):
        client.set(sys.argv[1], number)
    time.sleep(0.01)
"#;

/// The same by asyncio.
const PYTHON_ASYNC: &str = r#"
import asyncio
from datastore import AsyncDatastoreConnector
async def main():
    client = AsyncDatastoreConnector(sys.argv[3:], timeout=float(sys.argv[2]))
    number = 0
    while True:
        number += 1
        with said(number):
            await client.set(sys.argv[1], number)
        await asyncio.sleep(0.01)
asyncio.run(main())
"#;

/// The same, a process for each call.
const SHELL: &str = r#"
number=0
while true; do
    number=$((number + 1))
    began=$(date +%s%3N)
    code=$("$CLI" --timeout-ms "$((TIMEOUT * 1000))" --node "$NODES" set "$KEY" "$number" 2>&1 >/dev/null)
    if [ $? = 0 ]; then code=; fi
    echo "$number $(($(date +%s%3N) - began)) $code" | head -n 1
done
"#;

/// What became of a call.
#[derive(Clone, Debug)]
struct Answer {
    number: u64,
    took: Duration,
    /// `None`: it was acknowledged.
    code: Option<String>,
    at: Instant,
}

/// A line of a client: the number, milliseconds, and the code if it failed.
type Said = (u64, u64, Option<String>);

/// A client at work.
struct AtWork {
    name: &'static str,
    process: Child,
    answers: Arc<Mutex<Vec<Answer>>>,
    reader: Option<JoinHandle<()>>,
}

impl AtWork {
    fn start(name: &'static str, mut command: Command, read: fn(&str) -> Option<Said>) -> AtWork {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let answers: Arc<Mutex<Vec<Answer>>> = Arc::default();
        let said = answers.clone();
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Some((number, took_ms, code)) = read(&line) else { panic!("{name} said: {line}") };
                let answer =
                    Answer { number, took: Duration::from_millis(took_ms), code, at: Instant::now() };
                said.lock().expect("no thread panicked").push(answer);
            }
        });
        AtWork { name, process, answers, reader: Some(reader) }
    }

    fn answers(&self) -> Vec<Answer> {
        self.answers.lock().expect("no thread panicked").clone()
    }

    /// Answers to writes that were acknowledged after that moment.
    fn acknowledged_since(&self, since: Instant) -> Vec<Answer> {
        self.answers().into_iter().filter(|answer| answer.code.is_none() && answer.at > since).collect()
    }

    fn end(&mut self) {
        // It may have ended by itself, which the answers tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            reader.join().expect("what it says can be read");
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn from_json(line: &str) -> Option<Said> {
    let answer: Value = serde_json::from_str(line).ok()?;
    Some((answer["number"].as_u64()?, answer["took_ms"].as_u64()?, answer["code"].as_str().map(String::from)))
}

fn from_shell(line: &str) -> Option<Said> {
    let mut words = line.splitn(3, ' ');
    let (number, took_ms) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let code = words.next().map(str::trim).filter(|code| !code.is_empty()).map(String::from);
    Some((number, took_ms, code))
}

/// Between the answers a test's harness says what it runs.
fn from_harness(line: &str) -> Option<Said> {
    if line.starts_with('{') { from_json(line) } else { Some((0, 0, Some("the harness".into()))) }
}

/// One of each client, at work at all nodes.
fn clients(cluster: &Cluster) -> Vec<AtWork> {
    let nodes: Vec<String> = cluster
        .places()
        .iter()
        .filter(|place| place.node_id != CLIENTS)
        .map(|place| place.address.to_string())
        .collect();
    let timeout = TIMEOUT_SECONDS.to_string();
    let python = |name, script, key: &str| {
        let mut command = cluster.command_at(CLIENTS, "python3");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/python/src");
        command.env("PYTHONPATH", source).env("PYTHONDONTWRITEBYTECODE", "1");
        command.args(["-c", &format!("{PYTHON_SAID}{script}"), key, &timeout]).args(&nodes);
        AtWork::start(name, command, from_json)
    };
    let mut cli = cluster.command_at(CLIENTS, "bash");
    cli.args(["-c", SHELL]).env("CLI", program("datastore-cli")).env("TIMEOUT", &timeout);
    cli.env("NODES", nodes.join(",")).env("KEY", "cli");
    let mut connector =
        cluster.command_at(CLIENTS, std::env::current_exe().expect("a path").to_str().expect("text"));
    connector.args(["the_rust_client_at_work", "--exact", "--nocapture", "--quiet"]);
    connector.env("DATASTORE_TEST_NODES", nodes.join(","));
    vec![
        python("python", PYTHON, "python"),
        python("python, asyncio", PYTHON_ASYNC, "python-async"),
        AtWork::start("cli", cli, from_shell),
        AtWork::start("rust", connector, from_harness),
    ]
}

/// The Rust client as a process of its own: the tests of this file start it with the nodes to write to. Without those,
/// as one of the tests, it does nothing.
#[tokio::test]
async fn the_rust_client_at_work() {
    use datastore::connector::{DatastoreConnector, Options};
    use datastore::error::Outcome;
    let Ok(nodes) = std::env::var("DATASTORE_TEST_NODES") else { return };
    let mut options = Options::default();
    options.timeout = Duration::from_secs(TIMEOUT_SECONDS);
    let client = DatastoreConnector::lazy(&nodes, options);
    for number in 1_u64.. {
        let began = Instant::now();
        let code = match client.set("rust", &number).await {
            Ok(_) => None,
            Err(error) if error.outcome == Outcome::NotApplied => Some(error.code),
            Err(error) => Some(format!("{} unknown", error.code)),
        };
        let took_ms = began.elapsed().as_millis() as u64;
        println!("\n{}", json!({"number": number, "took_ms": took_ms, "code": code}));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How the leader goes.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Stop,
    Partition,
}

fn strike(cluster: &mut Cluster, fault: Fault, leader: Id) {
    match fault {
        Fault::Kill => cluster.kill(leader),
        Fault::Stop => cluster.pause(leader),
        Fault::Partition => {
            cluster.isolate(leader);
            cluster.part(&[leader], &[CLIENTS]);
        }
    }
}

fn mend(cluster: &mut Cluster, fault: Fault, leader: Id) {
    match fault {
        Fault::Kill => cluster.restart(leader),
        Fault::Stop => cluster.resume(leader),
        Fault::Partition => cluster.heal(),
    }
    cluster.wait_until("all are back", |cluster| cluster.members_serving().len() == 3);
}

fn median(mut of: Vec<Duration>) -> (Duration, Duration) {
    of.sort_unstable();
    (of[of.len() / 2], of[of.len() - 1])
}

fn follow_the_leader(fault: Fault) {
    let mut cluster = Cluster::founded(3, CLIENTS, &[]);
    if matches!(fault, Fault::Partition) && !cluster.has_places() {
        println!("skipped: clients can be parted from nodes only in network namespaces");
        return;
    }
    let mut clients = clients(&cluster);
    let mut back: Vec<Vec<Duration>> = vec![Vec::new(); clients.len()];
    for round in 0..rounds(1) {
        let leader = cluster.wait_for_leader();
        let now = Instant::now();
        cluster.wait_until("every client is at work", |_| {
            clients.iter().all(|client| client.acknowledged_since(now).len() >= ANSWERS)
        });
        let struck = Instant::now();
        strike(&mut cluster, fault, leader);
        let others = cluster.others(leader);
        cluster.ok_among(&others, &json!({"op": "set", "key": "servers", "value": round}));
        let servers = struck.elapsed();
        // While the leader is still away.
        cluster.wait_until("every client is served again", |_| {
            clients.iter().all(|client| client.acknowledged_since(struck + servers).len() >= ANSWERS)
        });
        for (client, back) in clients.iter().zip(&mut back) {
            let first = client.acknowledged_since(struck + servers)[0].at;
            back.push(first.saturating_duration_since(struck + servers));
        }
        mend(&mut cluster, fault, leader);
    }
    clients.iter_mut().for_each(AtWork::end);
    for (client, back) in clients.iter().zip(back) {
        let answers = client.answers();
        let longest = answers.iter().map(|answer| answer.took).max().expect("an answer");
        let (median, most) = median(back);
        println!(
            "{fault:?}, {}: back {median:?} after the servers, {most:?} at most; longest call {longest:?}",
            client.name
        );
        // Of what a process that is held up itself measures a part is its own.
        assert!(longest < Duration::from_secs(TIMEOUT_SECONDS) * 2, "{}: a call of {longest:?}", client.name);
    }
    let contents = cluster.converge();
    for (client, key) in clients.iter().zip(["python", "python-async", "cli", "rust"]) {
        let answers = client.answers();
        let last = answers.iter().filter(|answer| answer.code.is_none()).map(|answer| answer.number).max();
        let found = contents[key].get("value").and_then(Value::as_u64);
        assert!(found >= last, "{key}: {last:?} was acknowledged, {found:?} is there");
    }
}

#[test]
fn clients_follow_when_the_leader_is_killed() {
    follow_the_leader(Fault::Kill);
}

#[test]
fn clients_follow_when_the_leader_is_stopped() {
    follow_the_leader(Fault::Stop);
}

#[test]
fn clients_follow_when_the_leader_is_gone_without_a_word() {
    follow_the_leader(Fault::Partition);
}
