//! `bench_cluster` with real nodes, and with etcd where that is installed. Nothing
//! here looks at how fast anything is.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::process::{Command, Stdio};

use common::workplace::{as_str, directory, expect_nothing_left};
use serde_json::Value;

fn bench_cluster(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench_cluster"));
    command.arg("--node").arg(common::programs::program("datastore-node")).args(flags).stdin(Stdio::null());
    command
}

/// Whether there is an etcd to compare with; says so if not.
fn has_etcd() -> bool {
    let runs = |program: &str, flag: &str| Command::new(program).arg(flag).output().is_ok();
    let has_etcd = runs("etcd", "--version") && runs("etcdctl", "version");
    if !has_etcd {
        println!("skipped in part: etcd is not installed (apt install etcd-server etcd-client)");
    }
    has_etcd
}

#[test]
fn a_quick_run_measures_every_part_and_loses_nothing() {
    let (data, reports) = (directory(), directory());
    let [json, page] = ["r.json", "page.md"].map(|name| reports.path().join(name));
    std::fs::write(&page, "above\n<!-- bench cluster: begin -->\nold\n<!-- bench cluster: end -->\nbelow\n")
        .expect("a file");
    let node = common::programs::program("datastore-node");
    let output = bench_cluster(&["--quick", "--directory", as_str(data.path())])
        .args(["--against-binary", as_str(&node)])
        .args(["--json", as_str(&json), "--write-into", as_str(&page)])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    expect_nothing_left(data.path());
    let report = std::fs::read_to_string(&json).expect("written");
    expect_report(&serde_json::from_str(&report).expect("JSON"), has_etcd());

    let page = std::fs::read_to_string(&page).expect("written");
    assert!(page.starts_with("above\n<!-- bench cluster: begin -->"), "{page}");
    assert!(page.ends_with("<!-- bench cluster: end -->\nbelow\n"), "{page}");
    let markdown = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(page.contains(markdown.trim()) && !page.contains("old\n"), "{page}");
    for part in [
        "The figures mean nothing",
        "### Writes",
        "### Reads",
        "### Failover",
        "### Replication",
        "### Dynamo",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

fn expect_report(report: &Value, has_etcd: bool) {
    assert_eq!(report["settings"]["is_quick"], true);
    assert_eq!(report["etcd"].is_string(), has_etcd);
    let shape = |pair: &Value| format!("{} {} {}", pair["operation"], pair["connections"], pair["pipeline"]);
    let count = |figure: &Value| figure.as_u64().expect("a count");
    let writes = report["writes"].as_array().expect("tables");
    assert_eq!(writes.len(), 2);
    for table in writes {
        let rows = table["rows"].as_array().expect("rows");
        let shapes: Vec<String> = rows.iter().map(shape).collect();
        assert_eq!(shapes, ["\"SET\" 50 64", "\"SET\" 50 16", "\"SET\" 500 1"]);
        for row in rows {
            assert!(count(&row["ours"]["answered"]) > 0, "{row}");
            assert_eq!(row["other"]["answered"].as_u64().is_some_and(|answered| answered > 0), has_etcd);
        }
        for held in [&table["pipelined"], &table["clients"]] {
            assert_eq!(held["marked"]["is_met"].is_boolean(), has_etcd, "{held}");
        }
    }
    assert_eq!(report["reads"].as_array().expect("rows").len(), 4);
    assert_eq!(report["alone"].as_array().expect("rows").len(), 10);
    let replication = &report["replication"];
    assert_eq!(count(&replication["from_answer_ms"]["samples"]), 2 * 100, "{replication}");
    let failover = &report["failover"];
    assert_eq!(count(&failover["gap_s"]["samples"]), 2, "{failover}");
    assert!(count(&failover["acknowledged"]) > 0, "{failover}");
    assert_eq!(count(&failover["lost"]), 0, "{failover}");
    let dynamo = &report["dynamo"];
    assert_eq!(dynamo["cost"].as_array().expect("rows").len(), 3, "{dynamo}");
    assert_eq!(dynamo["down"]["by_log"], true, "{dynamo}");
}

#[test]
fn what_is_missing_is_said_before_anything_runs() {
    let reports = directory();
    let page = reports.path().join("page.md");
    std::fs::write(&page, "no place for a report\n").expect("a file");
    let nobody = as_str(&reports.path().join("nobody")).to_string();
    for (flags, wanted) in [
        (["--write-into", as_str(&page)], "has no <!-- bench cluster: begin -->"),
        (["--against-binary", &nobody], "there is no node at"),
    ] {
        let output = bench_cluster(&flags).output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}
