//! The command line, and a line of the interactive mode: one parser for both.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use datastore::connector::{Call, Copies, Read, Write};

use crate::file_arguments::{Import, Wal};

/// How a command ends, for scripts.
pub const EXIT_CODES: &str = "Exit codes:
  0    done
  1    not found: get, get-vector, bulk-get or delete of a key that isn't there
  2    wrong usage, or an argument that can't be sent
  3    refused by the node, nothing was changed
  4    outcome unknown: sent, and no answer to trust; read to find out
  5    no connection, or no answer; nothing was changed
  6    trouble with a local file: an import's line, an export's target, a data directory
  7    wal verify, wal dump: the log or a snapshot is damaged
  8    import --on-error skip: done, but lines were skipped
  9    applied, although the node reports an error
  130  interrupted";

/// A client for datastore-node. Without a command it reads commands, line by line.
#[derive(Parser)]
#[command(name = "datastore-cli", version, after_help = EXIT_CODES)]
pub struct CommandLine {
    /// The node's host or HOST:PORT; of a cluster several, with commas or given again
    #[arg(long, visible_alias = "node", env = "DATASTORE_HOST", default_value = "127.0.0.1")]
    #[arg(value_delimiter = ',', value_name = "HOST[:PORT]", value_parser = host)]
    pub host: Vec<Host>,
    /// The port of hosts that are given without one
    #[arg(long, env = "DATASTORE_PORT", default_value_t = 9000)]
    pub port: u16,
    /// How long a request may take, whatever it waits for [default: 15000; a snapshot takes as long as it takes]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: Option<u64>,
    /// How long of that to look for a leader while the nodes name none
    #[arg(long, default_value_t = 10_000)]
    pub patience_ms: u64,
    /// Keep no history of the interactive mode
    #[arg(long)]
    pub no_history: bool,
    #[command(flatten)]
    pub layout: Layout,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl CommandLine {
    /// `host:port`, with the brackets of an IPv6 address; several with commas between them.
    pub fn addresses(&self) -> String {
        let with_port = |host: &Host| format!("{}:{}", host.name, host.port.unwrap_or(self.port));
        self.host.iter().map(with_port).collect::<Vec<_>>().join(",")
    }
}

/// A host, with a port if it has one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// An IPv6 address is in brackets.
    name: String,
    port: Option<u16>,
}

fn host(text: &str) -> Result<Host, String> {
    // An IPv6 address has colons itself: only behind its brackets one begins a port.
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let wanted = || "it must be HOST, HOST:PORT or [IPV6]:PORT".to_string();
    let port = port.map(|port| port.parse().map_err(|_| wanted())).transpose()?;
    match name {
        "" => Err(wanted()),
        name if name.contains(':') && !name.starts_with('[') => Ok(Host { name: format!("[{name}]"), port }),
        name => Ok(Host { name: name.to_string(), port }),
    }
}

/// A line of the interactive mode.
#[derive(Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true)]
#[command(override_usage = "COMMAND [ARGUMENTS]")]
pub struct Line {
    #[command(flatten)]
    pub layout: Layout,
    #[command(subcommand)]
    pub command: Command,
}

/// What the output looks like.
#[derive(Args, Clone, Copy, Default)]
pub struct Layout {
    /// JSON, one object per line
    #[arg(long, global = true, conflicts_with = "table")]
    pub json: bool,
    /// Tables in a pipe, too
    #[arg(long, global = true)]
    pub table: bool,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Print a key's value
    Get {
        key: String,
        /// A string's text without quotes and escapes
        #[arg(long)]
        raw: bool,
        /// The version behind the value
        #[arg(long)]
        with_version: bool,
        /// The newest of what so many members have: a number, majority or all (dynamo mode)
        #[arg(long, value_name = "COPIES", value_parser = copies)]
        r: Option<Copies>,
        #[command(flatten)]
        after: After,
    },
    /// Write a value: JSON if it is JSON, else a string; - reads it from stdin
    Set {
        key: String,
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        kind: ValueKind,
        /// Only if the key has this version
        #[arg(long, value_name = "VERSION", conflicts_with = "if_absent")]
        if_version: Option<String>,
        /// Only if there is no such key
        #[arg(long)]
        if_absent: bool,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Remove keys, value and vector: one, or several all or nothing
    Delete {
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        /// Only if the key, a single one, has this version
        #[arg(long, value_name = "VERSION")]
        if_version: Option<String>,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Print the values of many keys
    BulkGet {
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        after: After,
    },
    /// List keys with their values
    Scan(Scan),
    /// Count keys
    Count {
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        #[command(flatten)]
        after: After,
    },
    /// Find keys by the words of their value, best first; there are no operators: all of it is words
    SearchText {
        #[arg(required = true)]
        words: Vec<String>,
        /// At least one of the words, instead of all
        #[arg(long)]
        any: bool,
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
        /// The scores, too
        #[arg(long)]
        scores: bool,
        #[command(flatten)]
        after: After,
    },
    /// Find keys by their whole value
    SearchValue {
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        kind: ValueKind,
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
        #[command(flatten)]
        after: After,
    },
    /// Find keys with a similar vector, most similar first
    SearchVector {
        /// The vector's numbers, or one JSON array
        #[arg(required_unless_present = "key", conflicts_with = "key", allow_negative_numbers = true)]
        numbers: Vec<String>,
        /// Like the vector of this key
        #[arg(long)]
        key: Option<String>,
        /// At most so many; 10 unless given
        #[arg(long)]
        top_k: Option<usize>,
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        #[command(flatten)]
        after: After,
    },
    /// Write a key's vector
    AddVector {
        key: String,
        /// The vector's numbers, or one JSON array
        #[arg(required = true, allow_negative_numbers = true)]
        numbers: Vec<String>,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Print a key's vector
    GetVector {
        key: String,
        #[command(flatten)]
        after: After,
    },
    /// Print the node's figures
    Stats {
        /// node, actors, connections, wal, keyspace, indexes, replication or memory
        section: Option<String>,
        /// Again and again, until ctrl-c
        #[arg(long)]
        watch: bool,
        /// How often
        #[arg(long, default_value_t = 1_000, requires = "watch", value_parser = clap::value_parser!(u64).range(10..))]
        interval_ms: u64,
    },
    /// Print who is in the cluster, who leads, and how far each one is
    Cluster,
    /// Make the node asked, or another one, the leader; prints the leader's number
    Promote {
        /// The number of another node
        node_id: Option<u64>,
        /// Without a majority, giving up what only the lost nodes have
        #[arg(long)]
        force: bool,
    },
    /// Add a node, which is started on an empty directory with --role secondary; prints the members
    AddMember {
        /// Its number
        node_id: u64,
        /// Where it listens, HOST:PORT
        address: String,
    },
    /// Remove a node; prints the members that are left
    RemoveMember {
        /// Its number
        node_id: u64,
    },
    /// Give a node up for good, and its directory with it; prints the members that are left (dynamo mode)
    Evict {
        /// Its number
        node_id: u64,
    },
    /// List the races that were lost, the newest first (dynamo mode)
    Conflicts {
        /// At most so many
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Only those behind this cursor, which an earlier list has named
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Make a snapshot now
    Snapshot,
    /// Ask whether the node answers
    Ping,
    /// Send any request of the protocol and print its reply
    Call {
        /// A JSON object with an "op"
        request: String,
    },
    /// Write the records of a file of JSON lines; - reads stdin
    Import(Import),
    /// Write all records to a file of JSON lines; - writes to stdout
    Export {
        file: PathBuf,
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
    },
    /// Look at a stopped node's data directory
    #[command(subcommand)]
    Wal(Wal),
}

/// How an argument becomes a JSON value.
#[derive(Args, Clone, Copy)]
pub struct ValueKind {
    /// The value is a string, even if it is JSON
    #[arg(long, conflicts_with = "json_value")]
    pub string: bool,
    /// The value is JSON, or wrong
    #[arg(long)]
    pub json_value: bool,
}

/// Which keys to list.
#[derive(Args)]
pub struct Scan {
    /// Only keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// From this key on
    #[arg(long)]
    pub start: Option<String>,
    /// Up to the key before this one
    #[arg(long)]
    pub end: Option<String>,
    /// The last key first
    #[arg(long)]
    pub reverse: bool,
    /// At most so many
    #[arg(long)]
    pub limit: Option<usize>,
    /// Keys and versions alone
    #[arg(long)]
    pub no_values: bool,
    /// Vectors, too
    #[arg(long)]
    pub vectors: bool,
    #[command(flatten)]
    pub after: After,
}

/// How many members must have a write.
#[derive(Args, Clone, Copy)]
pub struct Wanted {
    /// Acknowledged when so many members have it: a number, majority or all (dynamo mode)
    #[arg(long = "w", value_name = "COPIES", value_parser = copies)]
    pub copies: Option<Copies>,
}

impl Wanted {
    /// The call, asking for that.
    pub fn of<O: Write>(self, call: Call<O>) -> Call<O> {
        match self.copies {
            Some(copies) => call.w(copies),
            None => call,
        }
    }
}

/// Which write a read must see.
#[derive(Args, Clone)]
pub struct After {
    /// Sees at least the write that gave this version (dynamo mode)
    #[arg(long = "after-version", value_name = "VERSION")]
    pub version: Option<String>,
}

impl After {
    /// The call, asking for that.
    pub fn of<O: Read>(&self, call: Call<O>) -> Call<O> {
        match &self.version {
            Some(version) => call.after_version(version),
            None => call,
        }
    }
}

fn copies(text: &str) -> Result<Copies, String> {
    match text {
        "majority" => Ok(Copies::Majority),
        "all" => Ok(Copies::All),
        number => {
            let count = number.parse().ok().filter(|count| *count > 0);
            count.map(Copies::Count).ok_or_else(|| "it must be a number, majority or all".to_string())
        }
    }
}

impl Command {
    /// Whether it may have changed something on the node when it is broken off.
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Command::Get { .. }
                | Command::BulkGet { .. }
                | Command::Scan(_)
                | Command::Count { .. }
                | Command::SearchText { .. }
                | Command::SearchValue { .. }
                | Command::SearchVector { .. }
                | Command::GetVector { .. }
                | Command::Stats { .. }
                | Command::Cluster
                | Command::Conflicts { .. }
                | Command::Ping
                | Command::Export { .. }
                | Command::Wal(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_addresses() {
        let addresses = |arguments: &[&str]| {
            let line = CommandLine::try_parse_from([&["datastore-cli"], arguments, &["ping"]].concat());
            line.map(|line| line.addresses()).map_err(|error| error.kind())
        };
        let cases: [(&[&str], &str); 6] = [
            (&["--host", "a"], "a:9000"),
            (&["--host", "a,b:1", "--port", "7"], "a:7,b:1"),
            (&["--node", "a:1", "--node", "b:2"], "a:1,b:2"),
            (&["--host", "::1"], "[::1]:9000"),
            (&["--host", "[::1]"], "[::1]:9000"),
            (&["--host", "[::1]:5,10.0.0.1"], "[::1]:5,10.0.0.1:9000"),
        ];
        for (arguments, expected) in cases {
            assert_eq!(addresses(arguments).as_deref(), Ok(expected), "{arguments:?}");
        }
        for wrong in ["", "a:", "a:b", ":1", "a:70000", "a,,b"] {
            assert_eq!(
                addresses(&["--host", wrong]),
                Err(clap::error::ErrorKind::ValueValidation),
                "{wrong}"
            );
        }
    }
}
