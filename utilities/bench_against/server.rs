//! A server under test: started on a port of its own in a directory of its own,
//! driven, and ended by its process id whatever happens.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use datastore_utilities::bench::process;
use datastore_utilities::load::{Answer, Interrupt, JsonLines, Outcome, Plan, Protocol, Resp, run};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tempfile::TempDir;

/// Nothing takes so long to start or to stop.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often something that can't be waited for is looked at.
const POLL_EVERY: Duration = Duration::from_millis(1);
/// How long the processor time of a server is watched, and how much of it is rest.
const REST_LOOK: Duration = Duration::from_millis(100);
const REST_CPU: Duration = Duration::from_millis(10);

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// datastore-node
    Node,
    /// Redis
    Redis,
}

impl Kind {
    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Node => "the node",
            Kind::Redis => "Redis",
        }
    }
}

/// Where things are, and whether to stop.
pub struct Bench {
    /// The node's program.
    pub node: PathBuf,
    /// Redis's program.
    pub redis: PathBuf,
    /// Where the servers' directories are made.
    pub directory: PathBuf,
    /// How long a server at rest must not give memory back before it is weighed.
    pub settle: Duration,
    /// Asked while anything is waited for.
    pub interrupt: Interrupt,
}

impl Bench {
    fn check(&self) -> Result<(), String> {
        if self.interrupt.is_asked() { Err("interrupted".into()) } else { Ok(()) }
    }

    /// Starts a server with more arguments than it always has, and waits until it
    /// answers.
    pub fn start<'a>(&'a self, kind: Kind, arguments: &[&str]) -> Result<Server<'a>, String> {
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&self.directory);
        let directory = directory.map_err(|error| format!("{}: {error}", self.directory.display()))?;
        let address = free_address().map_err(|error| format!("no free port: {error}"))?;
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let child = self.spawn(kind, address, directory.path(), &arguments)?;
        let mut server = Server { bench: self, kind, address, arguments, child, directory };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    fn spawn(
        &self,
        kind: Kind,
        address: SocketAddr,
        directory: &Path,
        more: &Vec<String>,
    ) -> Result<Child, String> {
        let program = match kind {
            Kind::Node => &self.node,
            Kind::Redis => &self.redis,
        };
        let mut command = Command::new(program);
        let port = address.port().to_string();
        match kind {
            Kind::Node => command.args(["--port", &port, "--data-dir"]).arg(directory),
            Kind::Redis => command
                .args(["--port", &port, "--bind", "127.0.0.1", "--protected-mode", "no", "--save", ""])
                .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
                .arg(directory),
        };
        // Settings of whoever runs the bench are not the defaults that it speaks of.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DATASTORE_") {
                command.env_remove(name);
            }
        }
        let log = File::create(directory.join("output")).and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = log.map_err(|error| format!("{}: {error}", directory.display()))?;
        let child = command.args(more).stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        child.map_err(|error| format!("{} doesn't start: {error}", program.display()))
    }

    /// Waits until none of the servers works: until then one would work in the
    /// other's time.
    pub fn rest(&self, servers: &[&Server]) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        for server in servers {
            loop {
                let before = server.cpu()?;
                std::thread::sleep(REST_LOOK);
                self.check()?;
                let is_busy =
                    server.cpu()? > before + REST_CPU || !process::children(server.pid()).is_empty();
                if !is_busy {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!("{} doesn't come to rest", server.kind.name()));
                }
            }
        }
        Ok(())
    }
}

/// A loopback port that is free now.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A server that runs. Dropped, it is killed and its directory removed.
pub struct Server<'a> {
    bench: &'a Bench,
    /// Which one.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    arguments: Vec<String>,
    child: Child,
    directory: TempDir,
}

impl Server<'_> {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time it has used.
    pub fn cpu(&self) -> Result<Duration, String> {
        process::cpu(self.pid())
    }

    /// Runs a plan against it; a run that isn't perfect is an error.
    pub fn run(&self, plan: &Plan) -> Result<Outcome, String> {
        let mut go_on = |_| !self.bench.interrupt.is_asked();
        let outcome = match self.kind {
            Kind::Node => run(self.address, &JsonLines, plan, &mut go_on),
            Kind::Redis => run(self.address, &Resp, plan, &mut go_on),
        }?;
        let missing = (outcome.misses > 0).then(|| format!("{} keys were not found", outcome.misses));
        match outcome.failure().or(missing) {
            Some(failure) => Err(format!("a run against {} failed: {failure}", self.kind.name())),
            None if outcome.answered == 0 => Err("a run was too short for a single answer".into()),
            None => Ok(outcome),
        }
    }

    /// Stops it in good order and starts it again on the same data; the time from
    /// the new process's start to its first answer that isn't "loading".
    pub fn restart(&mut self) -> Result<Duration, String> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).map_err(|error| format!("{}: {error}", self.kind.name()))?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().map_err(|error| error.to_string())?.is_none() {
            self.bench.check()?;
            if Instant::now() > deadline {
                return Err(format!("{} doesn't stop", self.kind.name()));
            }
            std::thread::sleep(POLL_EVERY);
        }
        let began = Instant::now();
        self.child = self.bench.spawn(self.kind, self.address, self.directory.path(), &self.arguments)?;
        self.wait_until_it_answers()?;
        Ok(began.elapsed())
    }

    fn wait_until_it_answers(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers = match self.kind {
                Kind::Node => answers(self.address, &mut JsonLines),
                Kind::Redis => answers(self.address, &mut Resp),
            };
            if answers? {
                return Ok(());
            }
            self.bench.check()?;
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                let said = std::fs::read_to_string(self.directory.path().join("output")).unwrap_or_default();
                return Err(format!("{} ended with {status} instead of serving:\n{said}", self.kind.name()));
            }
            if Instant::now() > deadline {
                return Err(format!("{} doesn't answer", self.kind.name()));
            }
            std::thread::sleep(POLL_EVERY);
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // They may have ended already. A child that rewrites a log would go on in
        // a directory that is about to be removed.
        for child in process::children(self.pid()) {
            if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a read is answered; not so while nobody listens or data is loaded.
fn answers<P: Protocol>(address: SocketAddr, protocol: &mut P) -> Result<bool, String> {
    let Ok(reply) = first_reply(address, protocol) else { return Ok(false) };
    match protocol.reply(&reply) {
        Some((Answer::Found(_) | Answer::Missing, _)) => Ok(true),
        Some((Answer::Refused(refusal), _)) if ["LOADING", "starting"].contains(&&*refusal.code) => Ok(false),
        other => Err(format!("the first read was answered {other:?}")),
    }
}

fn first_reply<P: Protocol>(address: SocketAddr, protocol: &mut P) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    protocol.get(b"key:000000000000", &mut request);
    stream.write_all(&request)?;
    let mut reply = Vec::new();
    let mut room = [0; 4096];
    while reply.is_empty() || protocol.reply(&reply).is_none() {
        match stream.read(&mut room)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            bytes => reply.extend_from_slice(&room[..bytes]),
        }
    }
    Ok(reply)
}
