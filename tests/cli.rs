//! `datastore-cli` in a pipe: exact output, exit codes, JSON, and the examples
//! of docs/CLI.md.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cli.rs"]
mod cli;
mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use cli::{command, ok, ran, run, run_with_stdin};
use common::{Node, Options, programs::program, temporary_directory};
use serde_json::{Value, json};

fn node() -> (tempfile::TempDir, Node) {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    node.client().when_ready(json!({"op": "search_text", "query": "x"}));
    (directory, node)
}

#[test]
fn every_command_prints_lines_with_tabs_in_a_pipe() {
    let (_directory, node) = node();
    let cases: [(&[&str], i32, &str); 38] = [
        (&["ping"], 0, "pong\n"),
        (&["set", "user:1", r#"{"name": "Ada", "n": 9007199254740993, "d": 1.50}"#], 0, "1.0\n"),
        (&["set", "user:2", "hello"], 0, "2.0\n"),
        (&["set", "user:3", "-5"], 0, "3.0\n"),
        (&["set", "--string", "user:4", "17"], 0, "4.0\n"),
        (&["set", "user:5", "{", "--json-value"], 2, ""),
        (&["set", "user:1", "1", "--if-absent"], 3, ""),
        (&["set", "user:3", "-6", "--if-version", "3.0"], 0, "5.0\n"),
        (&["set", "user:3", "-7", "--if-version", "3.0"], 3, ""),
        (&["get", "user:1"], 0, "{\"name\": \"Ada\", \"n\": 9007199254740993, \"d\": 1.50}\n"),
        (&["get", "user:2"], 0, "\"hello\"\n"),
        (&["get", "user:2", "--raw"], 0, "hello\n"),
        (&["get", "user:3", "--with-version"], 0, "-6\t5.0\n"),
        (&["get", "nobody"], 1, ""),
        (&["bulk-get", "user:2", "user:4"], 0, "user:2\t\"hello\"\nuser:4\t\"17\"\n"),
        (&["bulk-get", "user:2", "nobody"], 1, "user:2\t\"hello\"\nnobody\t\n"),
        (&["scan", "--start", "user:2", "--end", "user:4"], 0, "user:2\t\"hello\"\t2.0\nuser:3\t-6\t5.0\n"),
        (&["scan", "--reverse", "--limit", "1", "--no-values"], 0, "user:4\t4.0\n"),
        (&["scan", "--prefix", "nobody"], 0, ""),
        (&["count"], 0, "4\n"),
        (&["count", "--prefix", "user:2"], 0, "1\n"),
        (&["search-text", "hello", "ada", "--any", "--limit", "5"], 0, "user:1\nuser:2\n"),
        (&["search-text", "hello", "ada"], 0, ""),
        (&["search-text", "hello", "ada", "--any", "--prefix", "user:2"], 0, "user:2\n"),
        (&["search-text", "shoe", "--", "-blue"], 0, ""),
        (&["search-value", "-6.0", "--prefix", "user:3"], 0, "user:3\n"),
        (&["search-value", "-6.0", "--prefix", "user:4"], 0, ""),
        (&["search-value", "-6.0"], 0, "user:3\n"),
        (&["search-value", "--string", "17"], 0, "user:4\n"),
        (&["add-vector", "user:1", "1", "-0.5"], 0, "6.0\n"),
        (&["add-vector", "only", "[1, 0]"], 0, "7.0\n"),
        (&["get-vector", "user:1"], 0, "[1.0,-0.5]\n"),
        (&["get-vector", "user:2"], 1, ""),
        (&["search-vector", "2", "0", "--top-k", "1"], 0, "only\t1\n"),
        (&["search-vector", "--key", "only", "--prefix", "only"], 0, "only\t1\n"),
        (&["call", r#"{"op":"count","prefix":"user:","id":7}"#], 0, "{\"id\":7,\"ok\":true,\"count\":4}\n"),
        (&["delete", "user:1", "user:2", "nobody"], 0, "2\n"),
        (&["delete", "nobody"], 1, "0\n"),
    ];
    for (arguments, code, stdout) in cases {
        let ran = run(node.address, arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), stdout), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stderr.is_empty(), code == 0, "{arguments:?}: {ran:?}");
    }
    assert!(ok(node.address, &["snapshot"]).contains("\nindex\t"));
    assert!(ok(node.address, &["cluster"]).contains("leader.node_id\t1\n"));
    assert!(ok(node.address, &["stats", "keyspace"]).contains("keyspace.keys\t3\n"));
    assert!(ok(node.address, &["stats"]).contains("actors.wal-writer.mailbox.depth\t"));
    assert_eq!(run_with_stdin(node.address, &["set", "s", "-"], "{\"a\":\n1}\n").code, Some(0));
    assert_eq!(ok(node.address, &["get", "s"]), "{\"a\": 1}\n");
}

#[test]
fn columns_stay_columns_whatever_is_in_them() {
    let (_directory, node) = node();
    node.client().ok(json!({"op": "set", "key": "a\tb\u{1b}[31m", "value": "x\ty"}));
    let mut client = node.client();
    client.send_raw(b"{\"op\":\"set\",\"key\":\"w\",\"value\":[1,\t2]}\n");
    assert_eq!(client.receive()["ok"], true);
    let shown = ok(node.address, &["scan"]);
    assert_eq!(shown, "\"a\\tb\\u001b[31m\"\t\"x\\ty\"\t1.0\nw\t[1, 2]\t2.0\n");
    assert_eq!(ok(node.address, &["get", "w"]), "[1,\t2]\n", "a value alone is printed as it is stored");
}

#[test]
fn json_has_everything_as_it_is_stored() {
    let (_directory, node) = node();
    let value = r#"{ "n": 9007199254740993, "d":1.50, "é":"\u00e9" }"#;
    ok(node.address, &["set", "k", value]);
    ok(node.address, &["add-vector", "k", "0.1", "2"]);
    let cases: [(&[&str], String); 8] = [
        (&["get", "k"], format!("{{\"key\":\"k\",\"value\":{value},\"version\":\"2.0\"}}\n")),
        (
            &["scan", "--vectors"],
            format!("{{\"key\":\"k\",\"value\":{value},\"vector\":[0.1,2.0],\"version\":\"2.0\"}}\n"),
        ),
        (&["scan", "--no-values"], "{\"key\":\"k\",\"version\":\"2.0\"}\n".to_string()),
        (
            &["bulk-get", "k"],
            format!("{{\"key\":\"k\",\"found\":true,\"value\":{value},\"version\":\"2.0\"}}\n"),
        ),
        (&["count"], "{\"count\":1}\n".to_string()),
        (&["get-vector", "k"], "{\"key\":\"k\",\"vector\":[0.1,2.0]}\n".to_string()),
        (&["search-value", value], "{\"key\":\"k\"}\n".to_string()),
        (&["ping"], "{\"pong\":true}\n".to_string()),
    ];
    for (arguments, stdout) in cases {
        assert_eq!(ok(node.address, &[arguments, &["--json"]].concat()), stdout, "{arguments:?}");
    }
    let stats: Value = serde_json::from_str(&ok(node.address, &["stats", "--json"])).unwrap();
    assert_eq!(stats["keyspace"]["keys"], 1);
    let refused = run(node.address, &["--json", "set", "k", "1", "--if-absent"]);
    let error: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(
        (error["code"].as_str(), error["outcome"].as_str()),
        (Some("already_exists"), Some("not_applied"))
    );
    assert_eq!((&error["retryable"], &error["current"]), (&json!(false), &json!("2.0")));
}

#[test]
fn a_table_is_drawn_where_it_is_asked_for() {
    let (_directory, node) = node();
    ok(node.address, &["set", "k", "1"]);
    let shown = ok(node.address, &["--table", "scan"]);
    assert!(shown.contains("│ k   ┆ 1     ┆ 1.0     │"), "{shown}");
    assert!(ok(node.address, &["--table", "stats", "actors"]).contains("handle p99"));
}

#[test]
fn what_dynamo_mode_knows_reaches_the_node() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let cases: [(&[&str], &str); 14] = [
        (&["set", "k", "1", "--w", "2"], "`w`"),
        (&["delete", "k", "--w", "majority"], "`w`"),
        (&["delete", "k", "--w", "all", "--if-version", "1.0"], "`w`"),
        (&["delete", "k", "l", "--w", "all"], "`w`"),
        (&["add-vector", "k", "1", "--w", "1"], "`w`"),
        (&["get", "k", "--r", "all"], "`r`"),
        (&["get", "k", "--after-version", "1.0"], "`after_version`"),
        (&["bulk-get", "k", "--after-version", "1.0"], "`after_version`"),
        (&["get-vector", "k", "--after-version", "1.0"], "`after_version`"),
        (&["scan", "--after-version", "1.0"], "`after_version`"),
        (&["count", "--after-version", "1.0"], "`after_version`"),
        (&["search-text", "x", "--after-version", "1.0"], "`after_version`"),
        (&["search-value", "1", "--after-version", "1.0"], "`after_version`"),
        (&["search-vector", "1", "--after-version", "1.0"], "`after_version`"),
    ];
    for (arguments, field) in cases {
        let ran = run(node.address, arguments);
        let expected = format!("unsupported_in_mode: {field}");
        assert!(ran.code == Some(3) && ran.stderr.starts_with(&expected), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn wrong_usage_is_said_with_2() {
    let nowhere = ([127, 0, 0, 1], 1).into();
    let cases: [&[&str]; 8] = [
        &["set", "k", "1", "--w", "0"],
        &["get", "k", "--r", "most"],
        &["nonsense"],
        &["get"],
        &["search-vector"],
        &["call", "{}"],
        &["add-vector", "k", "x"],
        &["--json", "--table", "ping"],
    ];
    for arguments in cases {
        let ran = run(nowhere, arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{arguments:?}");
    }
    let help = run(nowhere, &["--help"]);
    assert!(help.stdout.contains("Exit codes:") && help.stdout.contains("outcome unknown"), "{help:?}");
}

/// A server that reads a line of each of so many connections and answers this.
fn fake_server(answer: &'static [u8], connections: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().take(connections).map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut line = String::new();
            reader.read_line(&mut line).expect("a request");
            (&stream).write_all(answer).expect("the client reads");
        }
    });
    address
}

#[test]
fn whoever_is_not_there_or_answers_nothing_is_told_from_a_refusal() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = run(nobody, &["set", "k", "1"]);
    assert_eq!(absent.code, Some(5), "{absent:?}");
    assert!(absent.stderr.starts_with("not_connected: "), "{absent:?}");
    assert!(absent.stderr.ends_with("(outcome: not_applied)\n"), "{absent:?}");

    let died = run(fake_server(b"", 1), &["set", "k", "1"]);
    assert_eq!(died.code, Some(4), "{died:?}");
    assert!(died.stderr.starts_with("connection_lost: "), "{died:?}");
    assert!(died.stderr.ends_with("(outcome: unknown)\n"), "{died:?}");
    // A read is sent once more, and changes nothing.
    assert_eq!(run(fake_server(b"", 2), &["get", "k"]).code, Some(5));

    let garbage = run(fake_server(b"HTTP/1.1 400 Bad Request\n", 1), &["set", "k", "1"]);
    assert_eq!(garbage.code, Some(4), "{garbage:?}");
    assert!(garbage.stderr.starts_with("bad_reply: "), "{garbage:?}");
    assert_eq!(run(fake_server(b"HTTP/1.1 400 Bad Request\n", 1), &["get", "k"]).code, Some(5));

    // The server holds the connection open and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = run(listener.local_addr().unwrap(), &["--timeout-ms", "50", "set", "k", "1"]);
    assert_eq!(silent.code, Some(4), "{silent:?}");
    assert!(silent.stderr.starts_with("client_timeout: "), "{silent:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it_silently() {
    let (_directory, node) = node();
    let value = "x".repeat(1_000);
    let records: Vec<Value> = (0..2_000).map(|n| json!([format!("key-{n:04}"), value])).collect();
    node.client().ok(json!({"op": "bulk_set", "records": records}));
    for arguments in [&["scan"][..], &["export", "-"]] {
        let mut child = command(node.address)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("key-0000"), "{first}");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn watched_figures_go_on_over_a_restart_of_the_node() {
    let (_directory, node) = node();
    let address = node.address;
    let mut child = command(address)
        .args(["stats", "--watch", "--interval-ms", "20"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut block = || lines.by_ref().take_while(|line| !line.is_empty()).collect::<Vec<_>>();
    let has = |block: &[String], name: &str| block.iter().any(|line| line.starts_with(name));
    assert!(has(&block(), "wal.syncs\t"));
    assert!(has(&block(), "wal.syncs_per_s\t"), "the second block has rates");

    let options = node.kill();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("not_connected") || said.starts_with("connection_lost"), "{said}");
    let _node = options.with(&["--port", &address.port().to_string()]).start();
    // Blocks from before the kill may wait in the pipe: a new node has made no frame yet.
    let is_new = |block: &[String]| block.iter().any(|line| line == "connections.accepted\t1");
    while !is_new(&block()) {}
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Whether a line is what the page shows: `…` stands for anything.
fn is_like(shown: &str, real: &str) -> bool {
    let mut pieces = shown.split('…');
    let Some(rest) = pieces.next().and_then(|first| real.strip_prefix(first)) else { return false };
    let Some(last) = shown.contains('…').then(|| shown.rsplit('…').next().unwrap()) else {
        return rest.is_empty();
    };
    let mut rest = rest;
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    real.ends_with(last)
}

/// Runs `$ …` lines in a shell and compares what stands below each.
fn run_block(page: &str, lines: &[(usize, String)], directory: &Path, address: SocketAddr) {
    let path = format!(
        "{}:{}",
        program("datastore-cli").parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut at = 0;
    while at < lines.len() {
        let (number, line) = &lines[at];
        let shell =
            line.strip_prefix("$ ").unwrap_or_else(|| panic!("{page}:{number}: not a command: {line}"));
        let end = (at + 1..lines.len()).find(|&end| lines[end].1.starts_with("$ ")).unwrap_or(lines.len());
        let shown: Vec<&str> = lines[at + 1..end].iter().map(|(_, line)| line.as_str()).collect();
        let ran = ran(Command::new("sh")
            .args(["-c", &format!("{{ {shell}; }} 2>&1")])
            .current_dir(directory)
            .env("PATH", &path)
            .env("DATASTORE_PORT", address.port().to_string()));
        let real: Vec<&str> = ran.stdout.lines().collect();
        let fits = match shown.split_last() {
            // A last line of … stands for all that comes.
            Some((&"…", shown)) => {
                real.len() >= shown.len() && shown.iter().zip(&real).all(|(shown, real)| is_like(shown, real))
            }
            _ => {
                real.len() == shown.len() && shown.iter().zip(&real).all(|(shown, real)| is_like(shown, real))
            }
        };
        assert!(fits, "{page}:{number}: {shell}\nshown:\n{}\nreal:\n{}", shown.join("\n"), ran.stdout);
        at = end;
    }
}

#[test]
fn the_examples_of_the_page_run_as_shown() {
    let page = "docs/CLI.md";
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    node.client().when_ready(json!({"op": "search_text", "query": "x"}));
    let address = node.address;
    let mut node = Some(node);
    let mut block: Option<Vec<(usize, String)>> = None;
    let mut commands = 0;
    for (number, line) in text.lines().enumerate() {
        match (&mut block, line) {
            (None, "```sh" | "```sh stopped") => {
                // A block of a stopped node stands behind all others.
                if line.ends_with("stopped") && node.is_some() {
                    node.take().map(Node::terminate);
                }
                block = Some(Vec::new());
            }
            (Some(lines), "```") => {
                commands += lines.iter().filter(|(_, line)| line.starts_with("$ ")).count();
                run_block(page, lines, directory.path(), address);
                block = None;
            }
            (Some(lines), line) => lines.push((number + 1, line.to_string())),
            (None, _) => {}
        }
    }
    assert!(commands >= 20, "only {commands} examples");
}

#[test]
fn the_page_has_every_command_and_exit_code() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLI.md")).unwrap();
    let help = run(([127, 0, 0, 1], 1).into(), &["--help"]).stdout;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let names = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 19, "{names:?}");
    for name in names.iter().filter(|name| **name != "help") {
        assert!(page.contains(&format!("| `{name}")), "{name} has no row");
    }
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    for code in codes.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(page.contains(&format!("| {code} |")), "exit code {code} has no row");
    }
}

#[test]
fn environment_that_is_meant_for_others_is_passed_over_and_what_can_t_be_is_named() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let port = node.address.port().to_string();
    let with = |variable: &str, value: &str, arguments: &[&str]| {
        let mut command = Command::new(program("datastore-cli"));
        ran(command.args(arguments).env(variable, value).stdin(Stdio::null()))
    };
    let link = with("DATASTORE_PORT", "tcp://10.0.0.1:9000", &["--port", &port, "ping"]);
    assert_eq!(link.code, Some(0), "{link:?}");
    assert!(link.stderr.contains("warning: DATASTORE_PORT=tcp://10.0.0.1:9000 is passed over"), "{link:?}");
    for (variable, value) in [("DATASTORE_PORT", "http"), ("DATASTORE_HOST", "a:port")] {
        let refused = with(variable, value, &["ping"]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(&format!("environment variable {variable}")), "{refused:?}");
    }
    let refused = with("DATASTORE_PORT", "http", &["--port", "ftp", "ping"]);
    assert!(refused.stderr.contains("'ftp'") && !refused.stderr.contains("environment"), "{refused:?}");
}
