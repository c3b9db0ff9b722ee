//! Real nodes and plain clients for the whole-node tests.
//!
//! A node listens on a loopback port that the system chooses, in a directory of
//! its own, and is ended by its process id when the test drops it.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

pub mod addresses;
pub mod collection;
pub mod programs;
pub mod random;
pub mod workplace;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::Duration;

use serde_json::Value;

/// Longer than anything takes on a busy machine: a bound, not an expectation.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that goes when the test ends.
pub fn temporary_directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The node's binary, without any flag.
pub fn binary() -> Command {
    Command::new(programs::program("datastore-node"))
}

/// A node to be started.
pub struct Options {
    pub directory: PathBuf,
    pub arguments: Vec<String>,
    /// A command that becomes the node, such as one that enters a network of its own; mostly none.
    pub through: Vec<String>,
}

impl Options {
    /// Four shards and small segments, whatever the machine, on a port that the system chooses.
    pub fn in_directory(directory: &Path) -> Options {
        let arguments =
            ["--port", "0", "--shards", "4", "--segment-bytes", "1048576"].map(String::from).to_vec();
        Options { directory: directory.to_path_buf(), arguments, through: Vec::new() }
    }

    /// More flags; of a flag given twice the last one counts.
    pub fn with(mut self, arguments: &[&str]) -> Options {
        for pair in arguments.chunks(2) {
            if let Some(at) = self.arguments.iter().position(|given| given == pair[0]) {
                self.arguments.drain(at..at + 2);
            }
            self.arguments.extend(pair.iter().map(|argument| argument.to_string()));
        }
        self
    }

    fn command(&self) -> Command {
        let mut command = match &self.through[..] {
            [] => binary(),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(programs::program("datastore-node"));
                command
            }
        };
        command
            .args(["--log-format", "json", "--data-dir"])
            .arg(&self.directory)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the node and waits until it serves.
    pub fn start(self) -> Node {
        match self.try_start() {
            Ok(node) => node,
            Err((status, log)) => panic!("the node ended with {status} instead of serving:\n{log}"),
        }
    }

    /// Starts the node; if it ends before it serves, gives its exit status and what it said.
    pub fn try_start(self) -> Result<Node, (ExitStatus, String)> {
        let mut child = self.command().spawn().expect("the node's binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        let (reader, read) = sync_channel(1);
        std::thread::spawn(move || {
            let mut output = BufReader::new(stderr).lines();
            while let Some(line) = output.by_ref().map_while(Result::ok).next() {
                // Where nobody listens any more the pipe must still be emptied.
                let _ = sender.send(line);
                match read.try_recv() {
                    Ok(LogReader::Gone) => return,
                    // Until the node is dropped.
                    Ok(LogReader::Halted) => drop(read.recv()),
                    Err(_) => {}
                }
            }
        });
        let mut node = Node {
            options: self,
            child,
            lines,
            reader,
            log: Vec::new(),
            address: ([127, 0, 0, 1], 0).into(),
        };
        loop {
            match node.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    node.log.push(line.clone());
                    if let Some(address) = serving_address(&line) {
                        node.address = address;
                        return Ok(node);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = node.child.wait().expect("the child is ours");
                    return Err((status, node.log.join("\n")));
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the node neither serves nor ends:\n{}", node.log.join("\n"))
                }
            }
        }
    }
}

fn serving_address(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["fields"]["message"] == "serving").then(|| line["fields"]["address"].as_str()?.parse().ok())?
}

/// A node that runs.
pub struct Node {
    options: Options,
    child: Child,
    lines: Receiver<String>,
    reader: SyncSender<LogReader>,
    log: Vec<String>,
    pub address: SocketAddr,
}

/// What becomes of whoever reads a node's log, behind the next line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReader {
    /// It ends: there is nobody at the other end of the pipe.
    Gone,
    /// It reads no more, and the pipe fills up.
    Halted,
}

impl Node {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// From its next line on its log is read no more.
    pub fn leave_log(&self, to: LogReader) {
        if to == LogReader::Halted {
            // As small as it gets: a few lines fill it.
            let path = format!("/proc/{}/fd/2", self.pid());
            let pipe = std::fs::File::options().write(true).open(path).expect("its pipe");
            rustix::pipe::fcntl_setpipe_size(&pipe, 4_096).expect("a size that pipes may have");
        }
        self.reader.send(to).expect("it reads");
    }

    /// A client of its own connection.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// SIGKILL, as a power cut to the process; gives back how it was started.
    pub fn kill(mut self) -> Options {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
        self.take_options()
    }

    /// SIGTERM; waits for the end.
    pub fn terminate(mut self) -> (ExitStatus, Options) {
        signal(self.pid(), "TERM");
        let status = self.wait();
        (status, self.take_options())
    }

    /// Waits for the node to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the child is ours")
    }

    fn take_options(&mut self) -> Options {
        let empty = Options { directory: PathBuf::new(), arguments: Vec::new(), through: Vec::new() };
        std::mem::replace(&mut self.options, empty)
    }

    /// Waits until it has logged something that contains `text`; gives that line.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        if let Some(line) = self.log.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("not logged: {text}\n{}", self.log.join("\n")));
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// All that it has logged, once it has ended.
    pub fn rest_of_log(&mut self) -> String {
        self.log.extend(self.lines.iter());
        self.log.join("\n")
    }

    /// What it has logged so far.
    pub fn log(&mut self) -> String {
        self.log.extend(self.lines.try_iter());
        self.log.join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// A blocking client: a line out, a line in.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::of(TcpStream::connect(address).expect("the node listens"))
    }

    /// On a connection that is there already.
    pub fn of(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let reader = BufReader::new(stream.try_clone().expect("a second handle"));
        Client { stream, reader }
    }

    /// Sends raw bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node reads");
    }

    /// Sends one request.
    pub fn send(&mut self, request: &Value) {
        self.send_raw(format!("{request}\n").as_bytes());
    }

    /// The next reply's line, `None` when the node closed the connection.
    pub fn try_receive_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// The next reply's line, without its newline.
    pub fn receive_line(&mut self) -> String {
        self.try_receive_line().expect("a reply before the end").trim_end().to_string()
    }

    /// The next reply.
    pub fn receive(&mut self) -> Value {
        let line = self.receive_line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
    }

    /// A request and its reply.
    pub fn call(&mut self, request: Value) -> Value {
        self.send(&request);
        self.receive()
    }

    /// A request whose reply must be `ok`.
    pub fn ok(&mut self, request: Value) -> Value {
        let reply = self.call(request.clone());
        assert_eq!(reply["ok"], true, "{request} → {reply}");
        reply
    }

    /// A request that must be refused; gives the error object.
    pub fn refused(&mut self, request: Value) -> Value {
        let reply = self.call(request.clone());
        assert_eq!(reply["ok"], false, "{request} → {reply}");
        reply["error"].clone()
    }

    /// A request repeated until the indexes are built.
    pub fn when_ready(&mut self, request: Value) -> Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let reply = self.call(request.clone());
            if reply["error"]["code"] != "index_not_ready" {
                return reply;
            }
            assert!(std::time::Instant::now() < deadline, "the indexes never got ready: {reply}");
            std::thread::yield_now();
        }
    }

    /// Closes the sending half, as `nc` does at the end of its input.
    pub fn finish(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("the socket is open");
    }

    /// All that is still to come.
    pub fn receive_rest(&mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("the node answers and closes");
        rest
    }
}
