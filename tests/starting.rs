//! Promise: a node that still reads its data directory says so to clients, with how far it is, and
//! goes on with their connections when it serves; nothing that was refused meanwhile is executed.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/slow_sync.rs"]
mod slow_sync;

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::addresses::own_addresses;
use common::{Client, Node, Options, PATIENCE, programs, signal, temporary_directory};
use serde_json::json;
use slow_sync::SlowSync;

const HANGS: Duration = Duration::from_secs(3_600);

/// A node that can't end its recovery before it may.
struct Held {
    slow: SlowSync,
    address: SocketAddr,
    node: JoinHandle<Node>,
    _directory: tempfile::TempDir,
}

impl Held {
    /// With `key` in its directory; `None` where a disk can't be made to hang.
    fn start(flags: &[&str]) -> Option<Held> {
        // The log's end is made certain before the node serves.
        let slow = SlowSync::of(HANGS)?.only_of("/log/");
        let directory = temporary_directory();
        let [address] = own_addresses();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let options =
            || Options::in_directory(directory.path()).with(&["--host", &host, "--port", &port]).with(flags);
        let node = options().start();
        node.client().ok(json!({"op": "set", "key": "key", "value": "kept"}));
        node.kill();
        let mut options = options();
        options.through = slow.through();
        slow.begin();
        let node = std::thread::spawn(move || options.start());
        let held = Held { slow, address, node, _directory: directory };
        held.wait_until_bound();
        Some(held)
    }

    fn wait_until_bound(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "it never listens");
            std::thread::yield_now();
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    fn let_go(self) -> (Node, tempfile::TempDir) {
        self.slow.end();
        (self.node.join().expect("it serves"), self._directory)
    }
}

#[test]
fn clients_are_told_that_the_node_is_starting_and_then_go_on() {
    let Some(held) = Held::start(&[]) else { return };
    let (mut client, mut half, mut unread) = (held.client(), held.client(), held.client());
    for request in [
        json!({"op": "get", "key": "key", "id": 7}),
        json!({"op": "set", "key": "refused", "value": 1, "id": 7}),
        json!({"op": "hello", "id": 7}),
        json!({"op": "stats", "id": 7}),
    ] {
        let reply = client.call(request);
        let error = &reply["error"];
        assert_eq!((&reply["id"], &error["code"]), (&json!(7), &json!("starting")), "{reply}");
        assert_eq!(
            (&error["retryable"], &error["outcome"]),
            (&json!(true), &json!("not_applied")),
            "{reply}"
        );
        let progress = error["progress"].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&progress), "{reply}");
    }
    assert_eq!(client.ok(json!({"op": "ping"}))["pong"], true);
    assert_eq!(client.refused(json!({"op": "nothing"}))["code"], "unknown_op");
    half.send_raw(b"{\"op\":\"set\",\"key\":\"half\",");
    half.call_ping_elsewhere(&held);
    unread.send_raw("{\"op\":\"get\",\"key\":\"key\"}\n".repeat(1_000).as_bytes());
    // A peer is neither answered nor refused.
    let (mut peer, mut gone) = (held.client(), held.client());
    for client in [&mut peer, &mut gone] {
        client.send_raw(b"{\"op\":\"peer\",\"protocol\":[1,4],");
        client.call_ping_elsewhere(&held);
    }
    peer.send_raw(b"\"lane\":\"log\"}\n");
    drop(gone);
    // One that asked and closed its half is answered and closed.
    let mut done = held.client();
    done.send_raw(b"{\"op\":\"ping\"}\n{\"op\":\"count\"}");
    done.finish();
    let said = done.receive_rest();
    assert!(said.lines().count() == 2 && said.contains("pong") && said.contains("starting"), "{said}");

    let (node, _directory) = held.let_go();
    assert_eq!(client.ok(json!({"op": "get", "key": "key"}))["value"], "kept");
    assert_eq!(client.ok(json!({"op": "get", "key": "refused"}))["found"], false);
    let said = peer.receive_rest();
    assert!(said.contains("unsupported_in_mode") && said.lines().count() == 1, "{said}");
    half.send_raw(b"\"value\":2}\n");
    assert_eq!(half.receive()["ok"], true, "the line goes on where it was");
    assert_eq!(client.ok(json!({"op": "get", "key": "half"}))["value"], 2);
    unread.ok_after(1_000);
    let stats = node.client().ok(json!({"op": "stats", "section": "connections"}));
    assert!(stats["connections"]["accepted"].as_u64() >= Some(5), "{stats}");
}

trait Patient {
    fn call_ping_elsewhere(&self, held: &Held);
    fn ok_after(&mut self, replies: usize);
}

impl Patient for Client {
    /// What was sent before on this connection was read when another one is answered twice.
    fn call_ping_elsewhere(&self, held: &Held) {
        let mut other = held.client();
        for _ in 0..2 {
            other.ok(json!({"op": "ping"}));
        }
    }

    /// So many replies, each a refusal or a real one, and the connection goes on behind them.
    fn ok_after(&mut self, replies: usize) {
        for _ in 0..replies {
            let reply = self.receive();
            assert!(reply["ok"] == true || reply["error"]["code"] == "starting", "{reply}");
        }
        self.ok(json!({"op": "ping"}));
    }
}

#[test]
fn no_more_clients_than_the_node_serves_are_attended_to_and_http_is_none() {
    let Some(held) = Held::start(&["--max-connections", "3"]) else { return };
    // The one that found out that it listens may still be there for a moment.
    let mut clients: Vec<Client> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while clients.len() < 3 {
        let mut client = held.client();
        match client.call(json!({"op": "ping"}))["ok"] == true {
            true => clients.push(client),
            false => assert!(Instant::now() < deadline, "nobody is let in"),
        }
    }
    let mut other = held.client();
    let reply = other.call(json!({"op": "ping"}));
    assert_eq!(reply["error"]["code"], "too_many_connections", "{reply}");
    drop(clients.pop());
    let mut web = loop {
        let mut client = held.client();
        if client.call(json!({"op": "ping"}))["ok"] == true {
            break client;
        }
        assert!(Instant::now() < deadline, "a place that is free again is taken");
    };
    // Not its first line any more: it is a line that is no JSON.
    web.send_raw(b"GET / HTTP/1.1\n");
    assert_eq!(web.receive()["error"]["code"], "parse_error");
    drop(web);
    let said = loop {
        let mut web = held.client();
        web.send_raw(b"POST / HTTP/1.1\r\n\r\n{\"op\":\"ping\"}\n");
        let said = web.receive_rest();
        if !said.contains("too_many_connections") {
            break said;
        }
        assert!(Instant::now() < deadline, "{said}");
    };
    assert!(said.starts_with("HTTP/1.1 400") && !said.contains("pong"), "{said}");
    held.let_go();
}

/// The command-line client speaks by the Rust one.
#[test]
fn clients_wait_for_a_node_that_starts() {
    let Some(held) = Held::start(&[]) else { return };
    let address = held.address.to_string();
    let mut command = Command::new(programs::program("datastore-cli"));
    command.args(["--host", &address, "--timeout-ms", "60000", "--patience-ms", "60000"]);
    command.args(["get", "key"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let asking = command.spawn().expect("it starts");
    // It has been told so when the node has answered others since it came.
    let mut others = held.client();
    for _ in 0..100 {
        assert_eq!(others.refused(json!({"op": "count"}))["code"], "starting");
        std::thread::sleep(Duration::from_millis(2));
    }
    let (_node, _directory) = held.let_go();
    let output = asking.wait_with_output().expect("it is ours");
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("kept"), "{said}{failed}");
}

#[test]
fn a_node_that_is_told_to_stop_while_it_starts_does() {
    let Some(held) = Held::start(&[]) else { return };
    let mut client = held.client();
    assert_eq!(client.refused(json!({"op": "count"}))["code"], "starting");
    signal(held.pid(), "TERM");
    assert_eq!(client.try_receive_line(), None);
    held.slow.end();
    let ended = held.node.join();
    assert!(ended.is_err(), "it never served");
}

impl Held {
    /// Of the process that listens there: the test has no handle of it before it serves.
    fn pid(&self) -> u32 {
        let port = format!("--port\0{}\0", self.address.port());
        let host = format!("--host\0{}\0", self.address.ip());
        let processes = std::fs::read_dir("/proc").expect("on Linux").flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains(&port) && line.contains(&host)
        };
        pids.into_iter().find(is_it).expect("it runs")
    }
}
