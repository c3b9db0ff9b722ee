//! `datastore-cli` as a script uses it: arguments in; output and exit code out.

#![allow(dead_code)] // each test file uses its part

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::common::programs::program;

/// What a run of it gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program, told where the node is.
pub fn command(address: SocketAddr) -> Command {
    let mut command = Command::new(program("datastore-cli"));
    command
        .env("DATASTORE_HOST", address.ip().to_string())
        .env("DATASTORE_PORT", address.port().to_string())
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(address: SocketAddr, arguments: &[&str]) -> Ran {
    ran(command(address).args(arguments))
}

/// Runs it with something on its stdin.
pub fn run_with_stdin(address: SocketAddr, arguments: &[&str], stdin: &str) -> Ran {
    let mut command = command(address);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("stdin is piped").write_all(stdin.as_bytes()).expect("it reads");
    read(child.wait_with_output().expect("it ends"))
}

/// Runs it with success; gives what it printed.
pub fn ok(address: SocketAddr, arguments: &[&str]) -> String {
    let ran = run(address, arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    ran.stdout
}

/// Runs any command to its end.
pub fn ran(command: &mut Command) -> Ran {
    read(command.output().expect("it starts"))
}

fn read(output: std::process::Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
