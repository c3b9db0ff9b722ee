//! `bench_against` with a real node and a real Redis. Nothing here looks at how
//! fast anything is.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::workplace::{as_str, directory, expect_nothing_left};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn bench_against(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench_against"));
    command.arg("--node").arg(common::programs::program("datastore-node")).args(flags).stdin(Stdio::null());
    command
}

/// Whether there is a Redis to compare with; says so if not.
fn has_redis() -> bool {
    let has_redis = Command::new("redis-server").arg("--version").output().is_ok();
    if !has_redis {
        println!("skipped: redis-server is not installed (apt install redis-server)");
    }
    has_redis
}

#[test]
fn a_quick_run_writes_every_report() {
    if !has_redis() {
        return;
    }
    let (data, reports) = (directory(), directory());
    let [json, markdown, svg, page] =
        ["r.json", "r.md", "r.svg", "page.md"].map(|name| reports.path().join(name));
    std::fs::write(&page, "above\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nbelow\n").expect("a file");
    let output = bench_against(&["--quick", "--directory", as_str(data.path())])
        .args(["--json", as_str(&json), "--markdown", as_str(&markdown)])
        .args(["--svg", as_str(&svg), "--write-into", as_str(&page)])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    expect_nothing_left(data.path());
    expect_report(&std::fs::read_to_string(&json).expect("written"));

    let markdown = std::fs::read_to_string(&markdown).expect("written");
    assert!(markdown.contains("The figures mean nothing"), "{markdown}");
    assert!(markdown.contains("appendfsync always"), "{markdown}");
    for heading in ["### Without indexes", "### All indexes on", "### Memory", "### Recovery"] {
        assert!(markdown.contains(heading), "{heading}: {markdown}");
    }
    assert_eq!(String::from_utf8(output.stdout).expect("UTF-8").trim(), markdown.trim());
    let svg = std::fs::read_to_string(&svg).expect("written");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("50, 16").count(), 2, "a SET and a GET");
    let page = std::fs::read_to_string(&page).expect("written");
    assert!(page.starts_with("above\n<!-- bench: begin -->"), "{page}");
    assert!(page.ends_with("<!-- bench: end -->\nbelow\n"), "{page}");
    assert!(page.contains(markdown.trim()) && !page.contains("old\n"), "{page}");
}

fn expect_report(json: &str) {
    let report: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(report["settings"]["is_quick"], true);
    let tables = report["tables"].as_array().expect("tables");
    assert_eq!(tables.len(), 2);
    for table in tables {
        let cells = table["cells"].as_array().expect("cells");
        let shapes: Vec<String> = cells
            .iter()
            .map(|cell| format!("{} {} {}", cell["operation"], cell["connections"], cell["pipeline"]))
            .collect();
        assert_eq!(shapes, ["\"SET\" 1 1", "\"SET\" 50 16", "\"GET\" 1 1", "\"GET\" 50 16"]);
        for cell in cells {
            for side in [&cell["node"], &cell["redis"]] {
                assert_eq!(side["errors"], 0, "{cell}");
                assert!(side["answered"].as_u64().expect("a count") > 0, "{cell}");
            }
            let ratio = |name: &str| cell["ratio"][name].as_f64().expect("a figure");
            assert!(ratio("min") <= ratio("median") && ratio("median") <= ratio("max"), "{cell}");
        }
    }
    assert_eq!(report["memory"].as_array().expect("rows").len(), 5);
    assert_eq!(report["recovery"].as_array().expect("rows").len(), 5);
}

#[test]
fn an_ended_bench_leaves_nothing_behind() {
    if !has_redis() {
        return;
    }
    let data = directory();
    // It would run for ten minutes.
    let mut child = bench_against(&["--quick", "--seconds", "600", "--directory", as_str(data.path())])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut said =
        BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
    said.find(|line| line.contains("filling")).expect("it begins");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the child is ours");
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().expect("the child is ours").code(), Some(1));
    assert!(rest.last().is_some_and(|line| line.contains("interrupted")), "{rest:?}");
    expect_nothing_left(data.path());
}

#[test]
fn what_is_missing_is_said_before_anything_runs() {
    if !has_redis() {
        return;
    }
    let reports = directory();
    let page = reports.path().join("page.md");
    std::fs::write(&page, "no place for a report\n").expect("a file");
    let nobody = as_str(&reports.path().join("nobody")).to_string();
    for (flags, wanted) in [
        (["--write-into", as_str(&page)], "has no <!-- bench: begin -->"),
        (["--redis", &nobody], "apt install redis-server"),
    ] {
        let output = bench_against(&flags).output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_bench_against")).args(["--node", &nobody]).output();
    let said = String::from_utf8(output.expect("it runs").stderr).expect("UTF-8");
    assert!(said.contains("cargo build --release -p datastore-node"), "{said}");
}
