//! Nodes of a cluster that a test scripts: they read lines of JSON, answer what
//! the script says, and remember what they were asked.

#![allow(dead_code)] // each test file uses its part

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Listens, and doesn't answer yet: its address can be told to others.
pub struct Bound {
    pub address: SocketAddr,
    listener: TcpListener,
}

pub fn bind() -> Bound {
    bind_at(([127, 0, 0, 1], 0).into())
}

pub fn bind_at(address: SocketAddr) -> Bound {
    let listener = TcpListener::bind(address).expect("a port");
    Bound { address: listener.local_addr().expect("it is bound"), listener }
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    bind().address
}

/// A scripted node.
pub struct FakeNode {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
    connections: Arc<AtomicUsize>,
}

impl Bound {
    /// Takes connections and requests, and answers nothing.
    pub fn serve_nothing(self) -> FakeNode {
        self.serve_when(true, |_, _| None)
    }

    /// Answers each request by what `script` makes of its number and itself; `None` closes the connection.
    pub fn serve(self, script: impl Fn(usize, &Value) -> Option<Value> + Send + Sync + 'static) -> FakeNode {
        self.serve_when(false, script)
    }

    fn serve_when(
        self,
        is_silent: bool,
        script: impl Fn(usize, &Value) -> Option<Value> + Send + Sync + 'static,
    ) -> FakeNode {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (asked, script) = (requests.clone(), Arc::new(script));
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = connections.clone();
        std::thread::spawn(move || {
            for stream in self.listener.incoming().map_while(Result::ok) {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (asked, script) = (asked.clone(), script.clone());
                std::thread::spawn(move || converse(&stream, &asked, is_silent, &*script));
            }
        });
        FakeNode { address: self.address, requests, connections }
    }
}

fn converse(
    mut stream: &TcpStream,
    asked: &Mutex<Vec<Value>>,
    is_silent: bool,
    script: &dyn Fn(usize, &Value) -> Option<Value>,
) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).expect("a request");
        // By this a client of several nodes finds out whether somebody is there, before it asks for anything.
        if request == json!({"op": "ping", "id": 0}) && !is_silent {
            if stream.write_all(b"{\"ok\":true,\"id\":0,\"pong\":true}\n").is_err() {
                return;
            }
            continue;
        }
        let number = {
            let mut asked = asked.lock().expect("no thread panicked");
            asked.push(request.clone());
            asked.len() - 1
        };
        if is_silent {
            loop {
                std::thread::park();
            }
        }
        let Some(reply) = script(number, &request) else { return };
        if stream.write_all(format!("{reply}\n").as_bytes()).is_err() {
            return;
        }
    }
}

impl FakeNode {
    pub fn start(script: impl Fn(usize, &Value) -> Option<Value> + Send + Sync + 'static) -> FakeNode {
        bind().serve(script)
    }

    /// A leader, which takes everything.
    pub fn leader() -> FakeNode {
        FakeNode::start(|_, request| Some(taken(request)))
    }

    /// A replica, which answers what it may and names the leader otherwise.
    pub fn replica_of(leader: SocketAddr) -> FakeNode {
        FakeNode::start(move |_, request| Some(as_replica(request, Some(leader))))
    }

    /// What it was asked so far: the operations.
    pub fn operations(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| request["op"].as_str().expect("an operation").to_string())
            .collect()
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().expect("no thread panicked").clone()
    }
}

/// A good answer.
pub fn taken(request: &Value) -> Value {
    match request["op"].as_str().expect("an operation") {
        "set" => json!({"ok": true, "version": "1.0"}),
        "get" => json!({"ok": true, "found": true, "value": 1, "version": "1.0"}),
        "promote" => json!({"ok": true, "leader": request["node_id"]}),
        _ => json!({"ok": true, "count": 1, "pong": true}),
    }
}

/// What a replica says.
pub fn as_replica(request: &Value, leader: Option<SocketAddr>) -> Value {
    let is_write = ["set", "promote"].iter().any(|operation| request["op"] == *operation);
    if is_write || request["consistency"] == "linearizable" { not_leader(leader) } else { taken(request) }
}

/// `not_leader`, with the address of who is.
pub fn not_leader(leader: Option<SocketAddr>) -> Value {
    let mut reply = refused("not_leader");
    reply["error"]["leader"] = leader.map_or(
        Value::Null,
        |leader| json!({"node_id": 1, "host": leader.ip().to_string(), "port": leader.port()}),
    );
    reply
}

/// An error after which nothing has happened.
pub fn refused(code: &str) -> Value {
    json!({"ok": false, "error":
        {"code": code, "message": "as the test wants", "retryable": true, "outcome": "not_applied"}})
}
