//! Promise: one process a directory, on a disk that can be written; a node ends
//! cleanly when asked to; flags say their unit and default, read their
//! environment variable, and what can't be is refused with the reason.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;
#[path = "common/log_files.rs"]
mod log_files;
#[path = "common/mount.rs"]
mod mount;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use common::{Options, binary, signal, temporary_directory};
use log_files::{frames, segments};
use mount::SmallDisk;
use serde_json::json;

#[test]
fn a_second_process_on_the_directory_is_refused() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let Err((status, said)) = Options::in_directory(directory.path()).try_start() else {
        panic!("two processes serve one directory")
    };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("in use by another process"), "{said}");
    node.client().ok(json!({"op": "set", "key": "still", "value": "served"}));
    let node = node.kill().start();
    assert_eq!(node.client().ok(json!({"op": "get", "key": "still"}))["value"], "served");
}

#[test]
fn a_read_only_directory_is_refused() {
    let Some(disk) = SmallDisk::mount("16m") else { return without_mounting() };
    let data = disk.path().join("data");
    Options::in_directory(&data).start().terminate();
    disk.make_read_only();
    expect_refusal(&data, "read-only");
}

/// The same by permissions, which bind everyone but root.
fn without_mounting() {
    let directory = temporary_directory();
    Options::in_directory(directory.path()).start().terminate();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(directory.path().join("written"), "").is_ok() {
        return println!("SKIPPED: permissions don't bind this user");
    }
    expect_refusal(directory.path(), "permission denied");
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
}

fn expect_refusal(data: &Path, reason: &str) {
    let Err((status, said)) = Options::in_directory(data).try_start() else {
        panic!("a directory that can't be written was served")
    };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(data.to_str().unwrap()) && said.to_lowercase().contains(reason), "{said}");
}

/// Whether a node that is started here doesn't mind this signal, since whoever started the tests has it ignored, as
/// `nohup` and a shell's jobs in the background do.
fn is_ignored(name: &str) -> bool {
    let number = match name {
        "HUP" => 1,
        "QUIT" => 3,
        _ => return false,
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (number - 1)) != 0
}

#[test]
fn an_end_by_signal_answers_what_is_in_flight_and_leaves_no_torn_tail() {
    for name in ["TERM", "INT", "HUP", "QUIT"] {
        if is_ignored(name) {
            println!("skipped: SIG{name} is ignored by whoever started this test, and so by the node");
            continue;
        }
        let directory = temporary_directory();
        let mut node = Options::in_directory(directory.path()).start();
        let mut client = node.client();
        let lines: String = (0..500)
            .map(|n| format!("{}\n", json!({"op": "set", "key": format!("k{n}"), "value": n})))
            .collect();
        client.send_raw(lines.as_bytes());
        client.receive();
        signal(node.pid(), name);
        let mut acknowledged = 1;
        while let Some(line) = client.try_receive_line() {
            assert!(line.contains("\"ok\":true") && line.ends_with('\n'), "{line}");
            acknowledged += 1;
        }
        let status = node.wait();
        assert_eq!(status.code(), Some(0), "{name}: {}", node.log());
        let last = frames(&segments(directory.path()).pop().unwrap()).pop().expect("a frame");
        assert_eq!(last.entries, 0, "the end of the log is not known to be durable");

        let mut node = Options::in_directory(directory.path()).start();
        let mut client = node.client();
        // What the node has read it has answered: nothing more may be there, and nothing less.
        assert_eq!(client.when_ready(json!({"op": "count"}))["count"], acknowledged, "{name}");
        assert!(!node.log().contains("was cut from the log"), "{}", node.log());
    }
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let directory = temporary_directory();
    Options::in_directory(directory.path()).start().terminate();
    let identity = directory.path().join("identity.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replace("\"format\":1", "\"format\":2")).unwrap();
    let Err((status, said)) = Options::in_directory(directory.path()).try_start() else {
        panic!("a newer format was served")
    };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("format 2, this version reads up to 1"), "{said}");
}

/// Starts the binary with what must end it at once.
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let directory = temporary_directory();
    let output: Output = binary()
        .args(["--port", "0", "--data-dir"])
        .arg(directory.path())
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("the node's binary starts");
    (output.status.code().expect("it ends by itself"), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn flags_that_do_not_go_together_are_refused_with_the_reason() {
    let refusals: [(&[&str], &str); 3] = [
        (&["--role", "secondary"], "wants --peers"),
        (&["--mode", "dynamo", "--role", "secondary"], "every node takes writes"),
        (&["--clock-offset-ms", "5"], "only --mode dynamo looks at the clock"),
    ];
    for (flags, reason) in refusals {
        let (code, said) = refused(flags, &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(flags[0]) || said.contains(flags[flags.len() - 2]), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn an_address_that_others_reach_wants_to_be_accepted() {
    let (code, said) = refused(&["--host", "0.0.0.0"], &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--host 0.0.0.0") && said.contains("--insecure"), "{said}");
    for host in ["127.0.0.2", "::1"] {
        let directory = temporary_directory();
        let started = Options::in_directory(directory.path()).with(&["--host", host]).try_start();
        if let Err((_, said)) = started {
            // A machine without the address may refuse it; the node may not.
            assert!(said.contains("cannot listen"), "{said}");
        }
    }
}

/// Every flag, a value that it can't take, and what the refusal names.
const REFUSED_VALUES: &[(&str, &str)] = &[
    ("host", "nowhere"),
    ("port", "65536"),
    ("node-id", "-1"),
    ("data-dir", "/dev/null/data"),
    ("role", "king"),
    ("mode", "chaos"),
    ("peers", "[2]"),
    ("peer-protocol", "0"),
    ("drop-rate", "1.1"),
    ("indexes", "colour"),
    ("shards", "0"),
    ("snapshot-every-bytes", "1"),
    ("snapshot-compression", "lossy"),
    ("segment-bytes", "1"),
    ("max-line-bytes", "1"),
    ("max-memory", "much"),
    ("max-connections", "0"),
    ("request-timeout-ms", "0"),
    ("idle-timeout-ms", "86400001"),
    ("clock-offset-ms", "soon"),
    ("log-format", "poem"),
    ("insecure", "maybe"),
    ("advertise", "a place without a port"),
    ("truncate-damaged-log", "maybe"),
];

fn variable_of(flag: &str) -> String {
    format!("DATASTORE_{}", flag.replace('-', "_").to_uppercase())
}

#[test]
fn every_flag_reads_its_environment_variable() {
    for (flag, value) in REFUSED_VALUES {
        let directory = temporary_directory();
        let mut command = binary();
        command.env("DATASTORE_PORT", "0").env("DATASTORE_DATA_DIR", directory.path());
        let output = command.env(variable_of(flag), value).output().expect("the node's binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{flag}");
        assert!(said.contains(flag) || said.contains(value), "{flag}: {said}");
    }
}

#[test]
fn switches_in_the_environment_take_the_usual_words() {
    for (word, accepted) in [("1", true), ("true", true), ("yes", true), ("0", false), ("false", false)] {
        // An address that the machine doesn't have: accepted, it can't be listened on.
        let (code, said) = refused(&["--host", "192.0.2.1"], &[("DATASTORE_INSECURE", word)]);
        assert_eq!(code, if accepted { 1 } else { 2 }, "{word}: {said}");
        assert_eq!(said.contains("cannot listen"), accepted, "{word}: {said}");
    }
}

#[test]
fn help_names_each_flag_with_its_unit_its_default_and_its_variable() {
    let output = binary().arg("--help").output().expect("the node's binary starts");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for (flag, _) in REFUSED_VALUES {
        let begins = format!("--{flag}");
        let at = help.find(&begins).unwrap_or_else(|| panic!("--help lacks {flag}"));
        let text = help[at..].split("\n      --").next().unwrap();
        assert!(text.contains(&variable_of(flag)), "{text}");
        let is_switch = matches!(*flag, "insecure" | "truncate-damaged-log");
        assert!(is_switch || ["peers", "advertise"].contains(flag) || text.contains("[default: "), "{text}");
        let unit = match flag.rsplit('-').next() {
            Some("bytes" | "memory") => "ytes",
            Some("ms") => "illiseconds",
            Some("rate") => "0.0 to 1.0",
            _ => "",
        };
        assert!(text.contains(unit), "{text}");
    }
    let listed = help.lines().filter(|line| line.trim_start().starts_with("--")).count();
    assert_eq!(listed, REFUSED_VALUES.len(), "a flag is not in this test");
}
