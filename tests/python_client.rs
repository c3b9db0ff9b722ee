//! The Python client keeps its promises with this node: its types, its tests
//! and its README, by the script that its developers run.

#![allow(clippy::expect_used)] // a test stops where it fails

use std::path::Path;
use std::process::Command;

#[test]
fn the_python_client_passes_its_own_checks() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut check = Command::new(root.join("utilities/python/check.sh"));
    // The environment belongs to this build: two builds of one tree don't share it.
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let output = check.arg(build).env("DATASTORE_NODE", env!("CARGO_BIN_EXE_datastore-node")).output();
    let output = output.expect("check.sh can be run");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    println!("{said}");
}
