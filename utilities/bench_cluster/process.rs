//! A server's process on the loopback address: started, killed, started again, and
//! ended by its process id whatever happens.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use datastore_utilities::bench::process;
use datastore_utilities::random::Random;

/// Settings of whoever runs the bench are not the defaults that it speaks of.
const FOREIGN_SETTINGS: [&str; 3] = ["DATASTORE_", "ETCD_", "ETCDCTL_"];
/// Lines of a server's output that are shown when it has ended.
const TAIL_LINES: usize = 20;
/// Where ports are looked for, if the system keeps no others for connections.
const PORT_MIN: u16 = 11_000;
const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// A process. Dropped, it is killed.
pub struct Process {
    /// Where it listens to clients.
    pub address: SocketAddr,
    program: PathBuf,
    arguments: Vec<String>,
    output: PathBuf,
    child: Child,
}

impl Process {
    /// Starts the program; what it says is appended to the file `output`.
    pub fn start(
        program: &Path,
        arguments: Vec<String>,
        address: SocketAddr,
        output: PathBuf,
    ) -> Result<Process, String> {
        let child = spawn(program, &arguments, &output)?;
        Ok(Process { address, program: program.into(), arguments, output, child })
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) -> Result<(), String> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(|_| ()).map_err(|error| format!("{}: {error}", self.program.display()))
    }

    /// Starts it again as it was started.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.child = spawn(&self.program, &self.arguments, &self.output)?;
        Ok(())
    }

    /// An error when it has ended by itself, with its last words.
    pub fn check(&mut self) -> Result<(), String> {
        let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? else { return Ok(()) };
        let said = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(TAIL_LINES).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        Err(format!("{} ended by itself with {status}:\n{}", self.program.display(), tail.join("\n")))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time it has used.
    pub fn cpu(&self) -> Result<Duration, String> {
        process::cpu(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, arguments: &[String], output: &Path) -> Result<Child, String> {
    let file = OpenOptions::new().create(true).append(true).open(output);
    let both = file.and_then(|file: File| Ok((file.try_clone()?, file)));
    let (out, err) = both.map_err(|error| format!("{}: {error}", output.display()))?;
    let child = command(program).args(arguments).stdin(Stdio::null()).stdout(out).stderr(err).spawn();
    child.map_err(|error| format!("{} doesn't start: {error}", program.display()))
}

/// A command without the settings of whoever runs the bench.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if FOREIGN_SETTINGS.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Ports that are free now and that no outgoing connection is given: a member
/// that was killed must find its own port free, and a client that calls a port
/// where nobody listens could be given that same port and reach itself.
pub fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    const TRIES: usize = 10_000;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|least| least.parse().ok());
    let end = end.unwrap_or(EPHEMERAL_PORT_MIN).max(PORT_MIN + 1);
    let mut random = Random::new(u64::from(std::process::id()));
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for _ in 0..TRIES {
        if held.len() == count {
            break;
        }
        let port = PORT_MIN + random.below(u64::from(end - PORT_MIN)) as u16;
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|listener| (port, listener)));
    }
    if held.len() < count {
        return Err(format!("no {count} free ports between {PORT_MIN} and {end}"));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}
