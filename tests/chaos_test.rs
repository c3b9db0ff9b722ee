//! `chaos_test`: that it proves what holds, that it catches what doesn't, and
//! that it leaves no process behind.
//!
//! What doesn't hold is brought about by commands around a real node: one that
//! forgets its directory at each start, and one that puts an old copy back. A
//! cluster's nodes all have to do so at once, or the others make good for it.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{addresses::own_addresses, programs::program, signal, temporary_directory};
use serde_json::Value;
use tempfile::TempDir;

/// A directory for a node's data and for scripts, and an address.
struct Place {
    directory: TempDir,
    address: SocketAddr,
}

impl Place {
    /// A node that is started again needs the same port again. It gets a loopback
    /// address of its own, so that nobody else takes the port in between.
    fn new() -> Place {
        let [address] = own_addresses();
        Place { directory: temporary_directory(), address }
    }

    fn flags(&self) -> String {
        format!("--host {} --port {}", self.address.ip(), self.address.port())
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The node's own command.
    fn node(&self, more: &str) -> String {
        let (node, data) = (program("datastore-node"), self.path("data"));
        format!("'{}' {} --data-dir '{data}' --shards 4 {more}", node.display(), self.flags())
    }

    /// With small files, so that kills fall into rotations, snapshots and cuts.
    fn small_node(&self, more: &str) -> String {
        self.node(&format!("--segment-bytes 65536 --snapshot-every-bytes 131072 {more}"))
    }

    /// A shell script that does something and becomes the node.
    fn wrapped(&self, before: &str) -> String {
        self.wrapped_with(before, "")
    }

    fn wrapped_with(&self, before: &str, more: &str) -> String {
        let script = self.path("wrapper");
        let text = format!("data='{}'\n{before}\nexec {}\n", self.path("data"), self.node(more));
        std::fs::write(&script, text).expect("a script");
        format!("sh '{script}' {} {more}", self.flags())
    }

    fn chaos(&self, command: &str, flags: &str) -> Command {
        self.chaos_on(&[command.to_string()], flags)
    }

    fn chaos_on(&self, commands: &[String], flags: &str) -> Command {
        let mut chaos = Command::new(program("chaos_test"));
        chaos.args(commands.iter().flat_map(|command| ["--command", command]));
        chaos.args(["--json", "--log", &self.path("log")]).args(flags.split(' '));
        chaos.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        chaos
    }

    fn run(&self, command: &str, flags: &str) -> Outcome {
        Outcome::of(self.chaos(command, flags).output().expect("chaos_test runs"))
    }

    /// The process id that a script has written.
    fn noted_pid(&self) -> String {
        std::fs::read_to_string(self.path("pid")).expect("the script has noted its id").trim().to_string()
    }
}

/// A cluster's places, the first of which forms it.
struct Cluster {
    places: Vec<Place>,
}

impl Cluster {
    fn of_three() -> Cluster {
        Cluster { places: (0..3).map(|_| Place::new()).collect() }
    }

    /// The flags that make one of the places a member.
    fn member(&self, place: usize) -> String {
        let peer = |other: usize| {
            let address = self.places[other].address;
            let (host, port) = (address.ip().to_string(), address.port());
            serde_json::json!({"node_id": other + 1, "host": host, "port": port})
        };
        let peers: Vec<Value> = (0..self.places.len()).filter(|other| *other != place).map(peer).collect();
        let role = if place == 0 { "primary" } else { "secondary" };
        format!("--node-id {} --role {role} --peers '{}'", place + 1, Value::from(peers))
    }

    /// Each node's command.
    fn commands(&self, command: impl Fn(&Place, &str) -> String) -> Vec<String> {
        self.places.iter().enumerate().map(|(number, place)| command(place, &self.member(number))).collect()
    }

    fn run(&self, commands: &[String], flags: &str) -> Outcome {
        Outcome::of(self.places[0].chaos_on(commands, flags).output().expect("chaos_test runs"))
    }

    /// A script of each node notes its process id.
    fn noting_commands(&self) -> Vec<String> {
        self.commands(|place, member| {
            place.wrapped_with(&format!("echo $$ > '{}'", place.path("pid")), member)
        })
    }
}

struct Outcome {
    code: Option<i32>,
    /// Null when there is none.
    summary: Value,
    told: String,
}

impl Outcome {
    fn of(output: Output) -> Outcome {
        let summary = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let told = String::from_utf8(output.stderr).expect("text");
        Outcome { code: output.status.code(), summary, told }
    }

    #[track_caller]
    fn figure(&self, name: &str) -> u64 {
        self.summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {} {}", self.summary, self.told))
    }

    #[track_caller]
    fn is_proven(&self, rounds: u64) {
        assert_eq!(self.code, Some(0), "{}", self.told);
        assert_eq!(self.summary["result"], "proven");
        assert_eq!(self.figure("rounds"), rounds);
        assert!(self.figure("kills") + self.summary["pauses"].as_u64().unwrap_or_default() >= rounds);
        assert!(self.figure("acknowledged") > 0, "{}", self.summary);
        assert!(self.figure("registers_verified") > 0, "{}", self.summary);
        for fault in ["lost", "resurrected", "partial_bulks", "disagreements"] {
            assert_eq!(self.figure(fault), 0, "{fault}: {}", self.told);
        }
        assert!(self.summary["start_to_serving_ms"]["p50"].as_f64() > Some(0.0), "{}", self.summary);
    }

    #[track_caller]
    fn fails(&self, text: &str) {
        assert_eq!(self.code, Some(3), "{}", self.told);
        assert!(self.told.contains(text), "{text}: {}", self.told);
    }
}

fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

#[test]
fn a_node_that_keeps_its_word_is_proven() {
    let place = Place::new();
    place.run(&place.small_node(""), "--interval 0.3 --restart --rounds 3 --verify").is_proven(3);
    // A second run stands beside the keys of the first one, its seed being the same or not.
    place.run(&place.small_node(""), "--interval 0.3 --restart --rounds 1 --verify --seed 5").is_proven(1);
    place.run(&place.small_node(""), "--interval 0.3 --restart --rounds 1 --verify --seed 5").is_proven(1);
}

#[test]
fn a_node_whose_syncs_fail_is_proven_and_what_it_refused_stays_away() {
    let place = Place::new();
    let outcome =
        place.run(&place.small_node("--drop-rate 0.3"), "--interval 0.3 --restart --rounds 3 --verify");
    outcome.is_proven(3);
    assert!(outcome.figure("refused") > 0, "{}", outcome.summary);
}

#[test]
fn a_node_without_indexes_is_proven_by_its_keys() {
    let place = Place::new();
    let outcome = place.run(&place.node("--indexes none"), "--interval 0.3 --restart --rounds 1 --verify");
    outcome.is_proven(1);
}

#[test]
fn a_node_that_forgets_its_directory_is_caught() {
    let place = Place::new();
    let command = place.wrapped(r#"rm -rf "$data""#);
    let outcome = place.run(&command, "--interval 0.3 --restart --rounds 3 --verify --seed 11");
    assert_eq!(outcome.code, Some(1), "{}", outcome.told);
    assert_eq!(outcome.summary["result"], "violation");
    assert!(outcome.figure("lost") > 0, "{}", outcome.summary);
    assert!(outcome.told.contains(", seed 11: "), "{}", outcome.told);
    let prefix = outcome.summary["prefix"].as_str().expect("a prefix");
    let lost = outcome.told.lines().find(|line| line.starts_with(&format!("LOST {prefix}")));
    let lost = lost.unwrap_or_else(|| panic!("no lost key is named: {}", outcome.told));
    assert!(lost.contains("expected the v") && lost.ends_with("found none"), "{lost}");
    assert!(Path::new(&place.path("data")).exists(), "the directory is kept");
}

#[test]
fn a_node_that_comes_back_with_an_old_copy_is_caught() {
    let place = Place::new();
    // The first kill's state is kept, and is what every later start begins with. It is kept
    // whole: a kill may fall into the copying, and a node refuses to start from half a copy.
    let command = place.wrapped(
        r#"if [ -d "$data.old" ]; then rm -rf "$data"; cp -r "$data.old" "$data"
           elif [ -d "$data" ]; then rm -rf "$data.new"; cp -r "$data" "$data.new"; mv "$data.new" "$data.old"; fi"#,
    );
    let outcome = place.run(&command, "--interval 0.3 --restart --rounds 5 --verify");
    assert_eq!(outcome.code, Some(1), "{}", outcome.told);
    assert!(outcome.figure("rounds") >= 1, "the first round is in order: {}", outcome.told);
    assert!(outcome.figure("lost") > 0, "{}", outcome.summary);
}

#[test]
fn a_log_that_ends_too_early_is_caught() {
    let place = Place::new();
    // The last segment's frames go, as if they had been acknowledged without being written.
    let command =
        place.wrapped(r#"ls "$data"/log/*.wal 2>/dev/null | tail -n 1 | xargs -r truncate -s 4096"#);
    let outcome = place.run(&command, "--interval 0.3 --restart --rounds 10 --verify");
    assert_eq!(outcome.code, Some(1), "{}", outcome.told);
    assert!(outcome.figure("lost") > 0, "{}", outcome.summary);
}

#[test]
fn a_cluster_whose_nodes_are_killed_and_paused_is_proven() {
    let cluster = Cluster::of_three();
    let commands = cluster.commands(|place, member| place.small_node(&format!("--drop-rate 0.02 {member}")));
    // A leader is killed and one is paused: with this seed, whoever leads.
    let outcome = cluster.run(&commands, "--interval 0.5 --restart --rounds 4 --verify --seed 2");
    outcome.is_proven(4);
    assert_eq!(outcome.figure("nodes"), 3);
    assert_eq!(outcome.figure("divergences"), 0, "{}", outcome.told);
    assert!(outcome.figure("kills") > 0 && outcome.figure("pauses") > 0, "{}", outcome.told);
    assert!(outcome.figure("failovers") > 0, "{}", outcome.told);
    assert!(outcome.summary["failover_gap_ms"]["max"].as_f64() > Some(0.0), "{}", outcome.summary);
}

#[test]
fn a_cluster_that_loses_all_its_nodes_at_once_is_proven() {
    let cluster = Cluster::of_three();
    let commands = cluster.commands(|place, member| place.small_node(member));
    let flags = "--interval 0.5 --restart --rounds 2 --verify --faults kill --at-most all --seed 22";
    let outcome = cluster.run(&commands, flags);
    outcome.is_proven(2);
    assert!(outcome.figure("kills") >= 6, "all of them twice: {}", outcome.told);
    assert_eq!((outcome.figure("pauses"), outcome.figure("divergences")), (0, 0));
}

#[test]
fn a_cluster_that_comes_back_with_old_copies_is_caught() {
    let cluster = Cluster::of_three();
    // As with one node; whole copies only, since a start may be killed, too.
    let roll_back = r#"if [ -d "$data.old" ]; then rm -rf "$data"; cp -r "$data.old" "$data"
           elif [ -d "$data" ]; then rm -rf "$data.new"; cp -r "$data" "$data.new"; mv "$data.new" "$data.old"; fi"#;
    // With this seed all are killed twice, and none while it starts: each node is rolled back once.
    let commands = cluster.commands(|place, member| place.wrapped_with(roll_back, member));
    let flags = "--interval 0.5 --restart --rounds 5 --verify --faults kill --at-most all --seed 117";
    let outcome = cluster.run(&commands, flags);
    assert_eq!(outcome.code, Some(1), "{}", outcome.told);
    assert_eq!(outcome.summary["result"], "violation");
    assert!(outcome.figure("rounds") >= 1, "the first round is in order: {}", outcome.told);
    assert!(outcome.figure("lost") > 0, "{}", outcome.summary);
    assert_eq!(outcome.figure("divergences"), 0, "they agree on what is wrong: {}", outcome.told);
}

#[test]
fn a_cluster_is_ended_with_those_that_are_paused() {
    let cluster = Cluster::of_three();
    let flags = "--interval 0.1 --restart --verify --faults pause --at-most all --seed 22";
    let mut chaos = cluster.places[0].chaos_on(&cluster.noting_commands(), flags).spawn().expect("it starts");
    let mut told = BufReader::new(chaos.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    while !line.starts_with("serving on") {
        line.clear();
        assert!(told.read_line(&mut line).expect("text") > 0, "it ended before it served");
    }
    let pids: Vec<String> = cluster.places.iter().map(Place::noted_pid).collect();
    // Stopped: state `T`.
    let is_stopped = |pid: &String| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        status.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
    };
    while !pids.iter().all(is_stopped) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    signal(chaos.id(), "TERM");
    let outcome = Outcome::of(chaos.wait_with_output().expect("it ends"));
    assert_eq!(outcome.summary["result"], "interrupted");
    assert!(pids.iter().all(|pid| !is_running(pid)), "{pids:?}");
}

#[test]
fn without_restart_it_kills_once() {
    let place = Place::new();
    let command = place.wrapped(&format!("echo $$ > '{}'", place.path("pid")));
    let outcome = place.run(&command, "--interval 0.1");
    assert_eq!(outcome.code, Some(0), "{}", outcome.told);
    assert_eq!((outcome.figure("kills"), outcome.figure("rounds")), (1, 0));
    assert!(!is_running(&place.noted_pid()));
}

#[test]
fn a_command_that_cant_be_started_or_ends_is_told() {
    let place = Place::new();
    let flags = "--interval 0.1 --restart --rounds 1";
    place
        .run("/nowhere/datastore-node --port 9", flags)
        .fails("`/nowhere/datastore-node` couldn't be started");

    let command = format!("sh -c 'echo out of luck >&2; exit 7' {}", place.flags());
    let outcome = place.run(&command, flags);
    outcome.fails("the command ended by itself (exit status: 7)");
    outcome.fails("  out of luck");
}

#[test]
fn a_command_that_never_serves_is_told_and_ended() {
    let place = Place::new();
    let command = format!("sh -c 'echo $$ > {}; exec sleep 600' {}", place.path("pid"), place.flags());
    place.run(&command, "--start-timeout 0.5").fails("did not answer");
    assert!(!is_running(&place.noted_pid()));
}

#[test]
fn an_address_that_somebody_else_has_is_left_alone() {
    let place = Place::new();
    let listener = TcpListener::bind(place.address).expect("the port is free");
    place.run(&place.node(""), "--restart --verify").fails("listens on");
    drop(listener);
}

#[test]
fn usage_errors_have_a_status_of_their_own() {
    let place = Place::new();
    for (command, flags) in [
        ("node", "--verify"),
        ("node", "--rounds 3"),
        ("node", "--interval 0"),
        ("node --port 0", "--restart"),
        ("", "--restart"),
        ("node 'unclosed", "--restart"),
        ("node", "--restart --faults pause"),
        ("node", "--restart --command node"),
    ] {
        let outcome = place.run(command, flags);
        assert_eq!(outcome.code, Some(2), "{command} {flags}: {}", outcome.told);
    }
}

/// Starts a run without an end, and waits until it is within its load.
fn endless(place: &Place, command: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut chaos = place.chaos(command, "--interval 600 --restart --verify").spawn().expect("it starts");
    let mut told = BufReader::new(chaos.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    while !line.starts_with("serving on") {
        line.clear();
        assert!(told.read_line(&mut line).expect("text") > 0, "it ended before it served");
    }
    (chaos, told)
}

#[test]
fn an_interrupt_ends_it_and_the_node() {
    for name in ["INT", "TERM", "HUP"] {
        let place = Place::new();
        let (chaos, _told) = endless(&place, &place.wrapped(&format!("echo $$ > '{}'", place.path("pid"))));
        assert!(is_running(&place.noted_pid()));
        signal(chaos.id(), name);
        let outcome = Outcome::of(chaos.wait_with_output().expect("it ends"));
        assert_eq!(outcome.code, Some(0));
        assert_eq!(outcome.summary["result"], "interrupted");
        assert!(!is_running(&place.noted_pid()));
    }
}

#[test]
fn a_node_that_ends_under_load_is_told() {
    let place = Place::new();
    let command = place.wrapped(&format!("echo $$ > '{}'", place.path("pid")));
    let (mut chaos, mut told) = endless(&place, &command);
    signal(place.noted_pid().parse().expect("a number"), "KILL");
    let mut rest = String::new();
    told.read_to_string(&mut rest).expect("text");
    assert_eq!(chaos.wait().expect("it ends").code(), Some(3), "{rest}");
    assert!(rest.contains("the command ended by itself (signal: 9"), "{rest}");
}
