//! What the tool is asked for.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

const HOST_DEFAULT: &str = "127.0.0.1";
const PORT_DEFAULT: u16 = 9000;
const NODE_ID_DEFAULT: u64 = 1;

/// What a round of a cluster does to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Injected {
    /// SIGKILL, and the command again, at once or after some seconds
    Kill,
    /// SIGSTOP for longer than an election takes, and SIGCONT
    Pause,
}

/// How many nodes a round may strike at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtMost {
    Nodes(usize),
    All,
}

/// Kills a node over and over, and proves that it keeps its word.
///
/// Starts the command, kills it (SIGKILL) every --interval seconds under load, starts it again and
/// holds what it shows to all that it has answered. With several commands, one for each node of a
/// cluster, a round kills or pauses some of them while writers follow the leader; then all nodes
/// must come to the same contents, and the leader is held to all that any of them has answered.
/// Exit status: 0 all proven, 1 a violation, 2 usage, 3 a command couldn't be started, ended by
/// itself or did not serve in time.
#[derive(Parser)]
#[command(name = "chaos_test", version)]
pub struct Arguments {
    /// The node's command: split like a shell does it, run without one; for a cluster once for each node
    #[arg(long = "command", value_name = "COMMAND", required = true)]
    pub commands: Vec<String>,

    /// Seconds of load before a kill; each one differs by up to a quarter
    #[arg(long, default_value = "5.0", value_parser = seconds)]
    pub interval: Duration,

    /// Start the command again after a kill; without this it is killed once
    #[arg(long)]
    pub restart: bool,

    /// What is done to the nodes of a cluster [default: kill,pause]
    #[arg(long, value_delimiter = ',', value_name = "FAULT,…")]
    pub faults: Vec<Injected>,

    /// Nodes of a cluster that are struck at once, or `all` [default: a minority]
    #[arg(long, value_parser = at_most, value_name = "NODES")]
    pub at_most: Option<AtMost>,

    /// End after so many kills that were followed by a restart [default: go on until interrupted]
    #[arg(long, requires = "restart", value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: Option<u64>,

    /// Write and read all the time, and prove after each restart that nothing acknowledged is lost,
    /// nothing refused is there, bulks are whole or absent, and searches agree
    #[arg(long, requires = "restart")]
    pub verify: bool,

    /// Repeats the choices of a run [default: another one each time, printed]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Connections that write and read with --verify
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub connections: u16,

    /// Where the node listens [default: the command's own --host, else 127.0.0.1]
    #[arg(long)]
    pub host: Option<String>,

    /// Its port [default: the command's own --port, else 9000]
    #[arg(long)]
    pub port: Option<u16>,

    /// Seconds that a start may take until the node answers
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub start_timeout: Duration,

    /// File for what the command says [default: one among the temporary files, which goes if all is well]
    #[arg(long)]
    pub log: Option<PathBuf>,

    /// Show what the command says instead, on stderr
    #[arg(long, conflicts_with = "log")]
    pub show_output: bool,

    /// The summary as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// A node as its command describes it.
pub struct Described {
    /// The command's words; at least one.
    pub words: Vec<String>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its number in the cluster.
    pub node_id: u64,
}

impl Arguments {
    /// The nodes, in the order of their commands.
    pub fn nodes(&self) -> Result<Vec<Described>, String> {
        let is_one = self.commands.len() == 1;
        if is_one && !(self.faults.is_empty() && self.at_most.is_none()) {
            return Err("--faults and --at-most are for clusters, of several --command".to_string());
        }
        if !is_one && !self.restart {
            return Err("several --command need --restart".to_string());
        }
        if !is_one && (self.host.is_some() || self.port.is_some()) {
            return Err("--host and --port would be those of all nodes: give them in each --command".into());
        }
        let nodes: Vec<Described> =
            self.commands.iter().map(|command| self.node(command)).collect::<Result<_, _>>()?;
        let are_all = |count: usize, what: &str| {
            if count == nodes.len() { Ok(()) } else { Err(format!("two --command have the same {what}")) }
        };
        are_all(nodes.iter().map(|node| node.address).collect::<HashSet<_>>().len(), "address")?;
        are_all(nodes.iter().map(|node| node.node_id).collect::<HashSet<_>>().len(), "--node-id")?;
        match self.at_most {
            Some(AtMost::Nodes(most)) if most > nodes.len() => {
                Err(format!("--at-most {most} is more than there are nodes"))
            }
            _ => Ok(nodes),
        }
    }

    /// How many of the nodes of a cluster a round may strike at once.
    pub fn struck_max(&self) -> usize {
        match self.at_most {
            Some(AtMost::Nodes(most)) => most,
            Some(AtMost::All) => self.commands.len(),
            None => ((self.commands.len() - 1) / 2).max(1),
        }
    }

    /// What a round may do to a node; at least one thing.
    pub fn injected(&self) -> &[Injected] {
        if self.faults.is_empty() { Injected::value_variants() } else { &self.faults }
    }

    fn node(&self, command: &str) -> Result<Described, String> {
        let words = shell_words::split(command).map_err(|error| format!("--command: {error}"))?;
        if words.is_empty() {
            return Err("--command is empty".to_string());
        }
        let address = self.address(&words)?;
        let node_id = match flag(&words, "--node-id") {
            Some(id) => id.parse().map_err(|_| format!("`{id}` of the command is no node's number"))?,
            None => NODE_ID_DEFAULT,
        };
        Ok(Described { words, address, node_id })
    }

    /// Where the node of this command listens.
    fn address(&self, words: &[String]) -> Result<SocketAddr, String> {
        let host = self.host.as_deref().or(flag(words, "--host")).unwrap_or(HOST_DEFAULT);
        let port = match (self.port, flag(words, "--port")) {
            (Some(port), _) => port,
            (None, Some(port)) => port.parse().map_err(|_| format!("`{port}` of the command is no port"))?,
            (None, None) => PORT_DEFAULT,
        };
        if port == 0 {
            return Err("port 0 is another one at each start: give the node a port".to_string());
        }
        let found = (host, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let mut address = found.ok_or_else(|| format!("`{host}` is no address"))?;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        Ok(address)
    }
}

/// A flag's value in the command: `--flag value` or `--flag=value`; of several the last.
fn flag<'w>(words: &'w [String], name: &str) -> Option<&'w str> {
    words.iter().enumerate().rev().find_map(|(place, word)| {
        let rest = word.strip_prefix(name)?;
        if rest.is_empty() { words.get(place + 1).map(String::as_str) } else { rest.strip_prefix('=') }
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.filter(|duration| !duration.is_zero()).ok_or_else(|| "seconds above 0 are wanted".to_string())
}

fn at_most(text: &str) -> Result<AtMost, String> {
    match text.parse() {
        Ok(nodes @ 1..) => Ok(AtMost::Nodes(nodes)),
        _ if text == "all" => Ok(AtMost::All),
        _ => Err("a number above 0 is wanted, or `all`".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Injected};
    use clap::Parser;

    fn parsed(commands: &[&str], more: &[&str]) -> Result<Arguments, String> {
        let commands = commands.iter().flat_map(|command| ["--command", command]);
        let all = ["chaos_test"].into_iter().chain(commands).chain(more.iter().copied());
        Arguments::try_parse_from(all).map_err(|error| error.to_string())
    }

    fn address(command: &str, more: &[&str]) -> Result<String, String> {
        Ok(parsed(&[command], more)?.nodes()?[0].address.to_string())
    }

    #[test]
    fn the_address_is_the_one_given_or_the_commands_own_or_the_default() {
        assert_eq!(address("node", &[]), Ok("127.0.0.1:9000".to_string()));
        assert_eq!(address("node --port 9001", &[]), Ok("127.0.0.1:9001".to_string()));
        assert_eq!(address("node --port 1 --port=9001 --host=127.0.0.2", &[]), Ok("127.0.0.2:9001".into()));
        assert_eq!(address("node --port 9001", &["--port", "9002"]), Ok("127.0.0.1:9002".to_string()));
        assert_eq!(address("node --host 0.0.0.0", &[]), Ok("127.0.0.1:9000".to_string()));
    }

    #[test]
    fn what_cant_be_an_address_is_told() {
        for command in ["node --port 0", "node --port many", "node --host 300.0.0.1", "", "node '"] {
            assert!(address(command, &[]).is_err(), "{command}");
        }
        assert!(address("node", &["--interval", "0"]).is_err());
        assert!(address("node", &["--interval", "-1"]).is_err());
    }

    const THREE: [&str; 3] = ["node --port 1", "node --port 2 --node-id=2", "node --port 3 --node-id 3"];

    #[test]
    fn a_cluster_is_several_commands_and_a_minority_of_them_is_struck() {
        let arguments = parsed(&THREE, &["--restart"]).expect("usage");
        let nodes = arguments.nodes().map_err(|told| panic!("{told}"));
        assert_eq!(nodes.map(|nodes| nodes.iter().map(|node| node.node_id).collect()), Ok(vec![1, 2, 3]));
        assert_eq!(arguments.struck_max(), 1);
        assert_eq!(arguments.injected(), [Injected::Kill, Injected::Pause]);

        let arguments =
            parsed(&THREE, &["--restart", "--at-most", "all", "--faults", "pause"]).expect("usage");
        assert_eq!(arguments.struck_max(), 3);
        assert_eq!(arguments.injected(), [Injected::Pause]);
    }

    #[test]
    fn what_cant_be_a_cluster_is_told() {
        let refused = |commands: &[&str], more: &[&str]| {
            assert!(parsed(commands, more).and_then(|arguments| arguments.nodes()).is_err(), "{more:?}");
        };
        refused(&THREE, &[]);
        refused(&THREE, &["--restart", "--port", "9000"]);
        refused(&THREE, &["--restart", "--at-most", "4"]);
        refused(&THREE, &["--restart", "--at-most", "0"]);
        refused(&THREE, &["--restart", "--at-most", "some"]);
        refused(&THREE, &["--restart", "--faults", "flood"]);
        refused(&["node --port 1", "node --port 1 --node-id 2"], &["--restart"]);
        refused(&["node --port 1", "node --port 2"], &["--restart"]);
        refused(&THREE[..1], &["--restart", "--faults", "pause"]);
        refused(&THREE[..1], &["--restart", "--at-most", "1"]);
    }
}
