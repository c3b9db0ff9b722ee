//! The node's program for tests of another package, and nodes started from it.
//!
//! Cargo tells a test where the programs of its own package are, and no other's:
//! the node is looked for beside the test.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The node's program: in the folder above the test's own.
pub fn node_program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("a test is in target/<profile>/deps");
    let program = folder.join("datastore-node");
    assert!(program.is_file(), "no {}: build it first: cargo build -p datastore-node", program.display());
    program
}

/// A node that runs, on a port of its own, in a directory of its own.
pub struct Node {
    child: Child,
    pub address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Node {
    /// Starts a node with more flags, and waits until it serves.
    pub fn start(flags: &[&str]) -> Node {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(node_program())
            .args(["--port", "0", "--log-format", "json", "--data-dir"])
            .arg(directory.path())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the node's program starts");
        let mut log =
            BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
        let address = log.by_ref().find_map(|line| serving_address(&line));
        // The pipe must be emptied as long as the node writes.
        std::thread::spawn(move || log.for_each(drop));
        let Some(address) = address else { panic!("the node ended with {:?}", child.wait()) };
        Node { child, address, _directory: directory }
    }

    /// A request and its reply, on a connection of their own.
    pub fn ask(&self, request: &Value) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("the node listens");
        stream.write_all(format!("{request}\n").as_bytes()).expect("the node reads");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("the node answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serving_address(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["fields"]["message"] == "serving").then(|| line["fields"]["address"].as_str()?.parse().ok())?
}
