//! A node's process: started, awaited, killed, always ended.
//!
//! The command gets a process group of its own, and signals go to that group: a
//! command that is a wrapper is killed with what it has started, and an
//! interrupt of the terminal reaches only the tool.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Between two looks at something that takes milliseconds.
const POLL: Duration = Duration::from_millis(1);
/// How long a group that was killed may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node may take to end in good order.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond this the log begins anew with the next start.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What of the log's end is told, at most.
const TAIL_BYTES: u64 = 4 * 1024;
const TAIL_LINES: usize = 20;

/// A command that is a node while it runs.
pub struct Process {
    words: Vec<String>,
    address: SocketAddr,
    /// Where its output goes; to stderr without one.
    log: Option<PathBuf>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    group: Pid,
}

impl Process {
    /// Not started yet.
    pub fn new(words: Vec<String>, address: SocketAddr, log: Option<PathBuf>) -> Process {
        Process { words, address, log, running: None }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it was started and hasn't been seen to end.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The tool must not load a node that it hasn't started.
    pub async fn refuse_a_taken_address(&self) -> Result<(), String> {
        match TcpStream::connect(self.address).await {
            Ok(_) => Err(format!("something listens on {} already", self.address)),
            Err(_) => Ok(()),
        }
    }

    /// Starts the command.
    pub fn start(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null()).process_group(0);
        let (out, err) = self.output().map_err(|error| format!("the command's log: {error}"))?;
        let failed = |error| format!("`{}` couldn't be started: {error}", self.words[0]);
        let child = command.stdout(out).stderr(err).spawn().map_err(failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = group.ok_or_else(|| "the command has no process id".to_string())?;
        self.running = Some(Running { child, group });
        Ok(())
    }

    fn output(&self) -> io::Result<(Stdio, Stdio)> {
        let Some(path) = &self.log else { return Ok((io::stderr().into(), io::stderr().into())) };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() > LOG_BYTES_MAX {
            file.set_len(0)?;
        }
        Ok((file.try_clone()?.into(), file.into()))
    }

    /// Waits until it answers; tells how it failed if it ends instead.
    pub async fn wait_until_serving(&mut self, patience: Duration) -> Result<(), String> {
        let address = self.address;
        let serving = async {
            while !answers(address).await {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            served = timeout(patience, serving) => served.map_err(|_| {
                format!("it did not answer on {address} within {} s{}", patience.as_secs_f64(), self.tail())
            }),
            failure = self.ended() => Err(failure),
        }
    }

    /// Resolves when it has ended without being asked to: how, and its last words.
    pub async fn ended(&mut self) -> String {
        let Some(running) = &mut self.running else { return "the command isn't running".to_string() };
        let status = running.child.wait().await;
        // What it has started and left behind must not go on alone.
        kill_process_group(running.group, Signal::KILL).ok();
        self.running = None;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("the command ended by itself ({status}){}", self.tail())
    }

    /// SIGKILL, and waits until nothing of it is left.
    pub async fn kill(&mut self) {
        self.signal_and_wait(Signal::KILL).await;
    }

    /// SIGSTOP: it does nothing, and doesn't know it.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            kill_process_group(running.group, signal).ok();
        }
    }

    /// SIGTERM, and SIGKILL when that doesn't end it.
    pub async fn end(&mut self) {
        // One that is stopped would never see the other signal.
        self.resume();
        if timeout(END_TIMEOUT, self.signal_and_wait(Signal::TERM)).await.is_err() {
            self.kill().await;
        }
        self.running = None;
    }

    async fn signal_and_wait(&mut self, signal: Signal) {
        let Some(running) = &mut self.running else { return };
        kill_process_group(running.group, signal).ok();
        running.child.wait().await.ok();
        // A wrapper's node holds its port and its files until it is gone, too.
        let deadline = Instant::now() + GONE_TIMEOUT;
        while test_kill_process_group(running.group).is_ok() && Instant::now() < deadline {
            sleep(POLL).await;
        }
        if test_kill_process_group(running.group).is_ok() {
            kill_process_group(running.group, Signal::KILL).ok();
        }
        self.running = None;
    }

    /// The end of what it has said.
    fn tail(&self) -> String {
        let Some(path) = &self.log else { return String::new() };
        let mut end = Vec::new();
        let read = File::open(path).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            file.read_to_end(&mut end)
        });
        if read.is_err() || end.is_empty() {
            return ", and said nothing".to_string();
        }
        let text = String::from_utf8_lossy(&end);
        let lines: Vec<&str> = text.lines().rev().take(TAIL_LINES).collect();
        let lines: Vec<String> = lines.iter().rev().map(|line| format!("  {line}")).collect();
        format!("; the end of {}:\n{}", path.display(), lines.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            // Not reaped yet, so the number is still its own.
            kill_process_group(running.group, Signal::KILL).ok();
        }
    }
}

/// Whether a node serves. One that still reads its directory answers pings, and all else with `starting`.
async fn answers(address: SocketAddr) -> bool {
    let hello = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = BufReader::new(stream);
        stream.write_all(b"{\"op\":\"hello\"}\n").await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        Ok::<bool, io::Error>(line.contains("\"ok\":true"))
    };
    hello.await.unwrap_or(false)
}
