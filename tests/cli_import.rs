//! `import` and `export`: nothing is lost over a broken line, a kill of either
//! side or a second run, and what is exported is what was imported.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cli.rs"]
mod cli;
mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use cli::{command, ok, run, run_with_stdin};
use common::{Options, PATIENCE, temporary_directory};
use serde_json::json;

fn state_of(input: &Path) -> PathBuf {
    PathBuf::from(format!("{}.import-progress.json", input.display()))
}

/// A file of so many records, and its name as an argument.
fn input(directory: &Path, records: usize, broken: Option<(usize, &str)>) -> (PathBuf, String) {
    let path = directory.join("input.jsonl");
    let mut text = String::new();
    for number in 1..=records {
        match broken {
            Some((line, broken)) if line == number => text.push_str(broken),
            _ => text.push_str(&format!("{{\"key\":\"key-{number:06}\",\"value\":\"value {number}\"}}")),
        }
        text.push('\n');
    }
    std::fs::write(&path, text).unwrap();
    let name = path.to_str().unwrap().to_string();
    (path, name)
}

#[test]
fn a_broken_line_is_named_and_nothing_behind_it_is_applied() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let (path, name) = input(directory.path(), 5_000, Some((4_711, "{\"key\":\"x\",\"valeu\":1}")));
    let stopped = run(node.address, &["import", &name]);
    assert_eq!(stopped.code, Some(6), "{stopped:?}");
    assert!(stopped.stderr.starts_with(&format!("broken_line: {name}:4711: ")), "{stopped:?}");
    assert!(stopped.stderr.contains("valeu"), "{stopped:?}");
    assert_eq!(ok(node.address, &["count"]), "4710\n");
    assert_eq!(
        ok(node.address, &["scan", "--reverse", "--limit", "1", "--no-values"]).split('\t').next(),
        Some("key-004710")
    );

    let skipped = run(node.address, &["import", &name, "--on-error", "skip"]);
    assert_eq!(skipped.code, Some(8), "{skipped:?}");
    assert!(skipped.stderr.starts_with("resuming at line 4711\n"), "{skipped:?}");
    assert!(skipped.stderr.contains(&format!("{name}:4711: ")), "{skipped:?}");
    assert_eq!(skipped.stdout, "records\t4999\nskipped\t1\n");
    assert_eq!(ok(node.address, &["count"]), "4999\n");
    assert!(!state_of(&path).exists(), "a complete import leaves no state");
}

#[test]
fn a_record_that_the_node_refuses_is_named_too() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let deep = format!("{{\"key\":\"deep\",\"value\":{}{}}}", "[".repeat(70), "]".repeat(70));
    let (_, name) = input(directory.path(), 20, Some((7, &deep)));
    let stopped = run(node.address, &["import", &name]);
    assert_eq!(stopped.code, Some(3), "{stopped:?}");
    assert!(stopped.stderr.starts_with(&format!("bad_request: {name}:7: ")), "{stopped:?}");
    assert_eq!(ok(node.address, &["count"]), "6\n");
    let skipped = run(node.address, &["import", &name, "--on-error", "skip", "--restart"]);
    assert_eq!(
        (skipped.code, skipped.stdout.as_str()),
        (Some(8), "records\t19\nskipped\t1\n"),
        "{skipped:?}"
    );
    assert_eq!(ok(node.address, &["count"]), "19\n");
}

/// An import that has had a batch acknowledged.
fn under_way(address: SocketAddr, name: &str, state: &Path) -> Child {
    let mut import = command(address)
        .args(["import", name])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !state.exists() {
        assert!(Instant::now() < deadline, "no batch was acknowledged");
        assert!(import.try_wait().unwrap().is_none(), "the import ended without a batch");
        std::thread::yield_now();
    }
    import
}

const MANY: usize = 120_000;

#[test]
fn an_import_that_was_killed_goes_on_where_it_stopped() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let (path, name) = input(directory.path(), MANY, None);
    let mut import = under_way(node.address, &name, &state_of(&path));
    import.kill().unwrap();
    assert_eq!(import.wait().unwrap().code(), None, "it was killed before its end");

    let elsewhere = run(([127, 0, 0, 1], 1).into(), &["import", &name]);
    assert_eq!(elsewhere.code, Some(6), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains(&format!("it went to {}", node.address)), "{elsewhere:?}");

    let resumed = run(node.address, &["import", &name]);
    assert_eq!(
        (resumed.code, resumed.stdout.as_str()),
        (Some(0), "records\t120000\nskipped\t0\n"),
        "{resumed:?}"
    );
    let line = resumed.stderr.strip_prefix("resuming at line ").unwrap().trim_end().parse::<usize>().unwrap();
    assert!(line > 1_000 && line % 1_000 == 1, "behind a batch: {line}");
    assert_eq!(ok(node.address, &["count"]), format!("{MANY}\n"));
    assert_eq!(ok(node.address, &["get", "key-120000"]), "\"value 120000\"\n");
    assert!(!state_of(&path).exists());
}

#[test]
fn an_import_whose_node_was_killed_goes_on_when_it_is_back() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let address = node.address;
    let (path, name) = input(directory.path(), MANY, None);
    let import = under_way(address, &name, &state_of(&path));
    let options = node.kill();
    let output = import.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(4 | 5)), "{output:?}");
    assert!(said.contains("the same command goes on at line"), "{said}");

    let node = options.with(&["--port", &address.port().to_string()]).start();
    let resumed = run(node.address, &["import", &name]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stderr.starts_with("resuming at line "), "{resumed:?}");
    assert_eq!(ok(node.address, &["count"]), format!("{MANY}\n"));
}

#[test]
fn a_changed_input_is_refused_until_it_is_said_what_to_do() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let (path, name) = input(directory.path(), 3, Some((3, "no record")));
    assert_eq!(run(node.address, &["import", &name]).code, Some(6));
    assert!(state_of(&path).exists());
    input(directory.path(), 3, None);
    let refused = run(node.address, &["import", &name]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(refused.stderr.contains("has changed") && refused.stderr.contains("--restart"), "{refused:?}");
    let again = run(node.address, &["import", &name, "--restart"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "records\t3\nskipped\t0\n"), "{again:?}");
}

const RECORDS: [&str; 7] = [
    r#"{"key":"a","value":{"big": 9007199254740993, "d":1.50}}"#,
    r#"{"key":"b","vector":[0.1,-2.5,3e20]}"#,
    r#"{"key":"c","value":null,"vector":[1,2]}"#,
    r#"{"key":"d","value":null}"#,
    r#"{"key":"ключ \"quoted\"\n","value":"東京 \u00e9 😀"}"#,
    r#"{"key":"f","value":[1e400, -0, 1E+2]}"#,
    "",
];

/// Lines without their versions.
fn without_versions(text: &str) -> Vec<String> {
    text.lines().map(|line| line.rsplit_once(",\"version\":").unwrap().0.to_string()).collect()
}

#[test]
fn what_was_exported_is_imported_and_exported_the_same() {
    let directory = temporary_directory();
    let first = Options::in_directory(&directory.path().join("first")).start();
    let stdin = RECORDS.join("\n");
    let imported = run_with_stdin(first.address, &["import", "-"], &stdin);
    assert_eq!(
        (imported.code, imported.stdout.as_str()),
        (Some(0), "records\t6\nskipped\t0\n"),
        "{imported:?}"
    );
    let file = directory.path().join("export.jsonl");
    let name = file.to_str().unwrap();
    assert_eq!(ok(first.address, &["export", name]), "records\t6\n");
    let exported = std::fs::read_to_string(&file).unwrap();
    for part in [
        r#""value":{"big": 9007199254740993, "d":1.50}"#,
        r#""value":[1e400, -0, 1E+2]"#,
        r#""value":"東京 \u00e9 😀""#,
        r#"{"key":"b","vector":[0.1,-2.5,3e+20],"#,
        r#"{"key":"c","value":null,"vector":[1.0,2.0],"#,
        r#"{"key":"d","value":null,"#,
    ] {
        assert!(exported.contains(part), "{part}\n{exported}");
    }
    let second = Options::in_directory(&directory.path().join("second")).start();
    assert_eq!(ok(second.address, &["import", name]), "records\t6\nskipped\t0\n");
    let again = ok(second.address, &["export", "-"]);
    assert_eq!(without_versions(&again), without_versions(&exported));
    assert_eq!(ok(second.address, &["get", "a"]), "{\"big\": 9007199254740993, \"d\":1.50}\n");
    assert_eq!(run(second.address, &["get", "b"]).code, Some(1), "it has a vector alone");
    assert_eq!(ok(second.address, &["export", "-", "--prefix", "c"]).lines().count(), 1);
}

#[test]
fn a_failed_export_leaves_the_old_file() {
    let directory = temporary_directory();
    let file = directory.path().join("export.jsonl");
    std::fs::write(&file, "old").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(run(nobody, &["export", file.to_str().unwrap()]).code, Some(5));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    assert_eq!(run(nobody, &["export", "/dev/null"]).code, Some(6));
}

#[test]
fn a_batch_that_the_node_cant_take_now_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut requests = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let overloaded = json!({"ok": false, "error": {"code": "overloaded", "message": "busy",
            "retryable": true, "outcome": "not_applied", "retry_after_ms": 1}});
        let done = json!({"ok": true, "count": 1, "version": "1.0"});
        let mut seen = Vec::new();
        for answer in [&overloaded, &overloaded, &done] {
            seen.push(requests.next().unwrap());
            writeln!(&stream, "{answer}").unwrap();
        }
        seen
    });
    let ran = run_with_stdin(address, &["import", "-"], "{\"key\":\"k\",\"value\":1}\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "records\t1\nskipped\t0\n"), "{ran:?}");
    let seen = server.join().unwrap();
    assert!(seen.iter().all(|line| *line == seen[0]) && seen[0].contains("bulk_set"), "{seen:?}");
}
