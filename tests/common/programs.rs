//! Where the programs under test are.

use std::path::PathBuf;

/// A program of this workspace, built in the same profile as the test that asks.
///
/// Cargo names a package's own programs to its tests, and no others; all lie in
/// the directory above the tests' own.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let directory = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let program = directory.join(name);
    assert!(program.exists(), "{name} isn't built: cargo build --workspace");
    program
}
