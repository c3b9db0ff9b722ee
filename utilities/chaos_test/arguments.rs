//! What the tool is asked for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

const HOST_DEFAULT: &str = "127.0.0.1";
const PORT_DEFAULT: u16 = 9000;

/// Kills a node over and over, and proves that it keeps its word.
///
/// Starts the command, kills it (SIGKILL) every --interval seconds under load, starts it again and
/// holds what it shows to all that it has answered. Exit status: 0 all proven, 1 a violation,
/// 2 usage, 3 the command couldn't be started, ended by itself or did not serve in time.
#[derive(Parser)]
#[command(name = "chaos_test", version)]
pub struct Arguments {
    /// The node's command: split like a shell does it, run without one
    #[arg(long)]
    pub command: String,

    /// Seconds of load before a kill; each one differs by up to a quarter
    #[arg(long, default_value = "5.0", value_parser = seconds)]
    pub interval: Duration,

    /// Start the command again after a kill; without this it is killed once
    #[arg(long)]
    pub restart: bool,

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

impl Arguments {
    /// The command's words; at least one.
    pub fn words(&self) -> Result<Vec<String>, String> {
        let words = shell_words::split(&self.command).map_err(|error| format!("--command: {error}"))?;
        if words.is_empty() { Err("--command is empty".to_string()) } else { Ok(words) }
    }

    /// Where the node of this command listens.
    pub fn address(&self, words: &[String]) -> Result<SocketAddr, String> {
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

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::Parser;

    fn address(command: &str, more: &[&str]) -> Result<String, String> {
        let all = ["chaos_test", "--command", command].into_iter().chain(more.iter().copied());
        let arguments = Arguments::try_parse_from(all).map_err(|error| error.to_string())?;
        Ok(arguments.address(&arguments.words()?)?.to_string())
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
}
