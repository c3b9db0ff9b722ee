//! Where a bench's servers work, and that nothing is left of them.

use std::path::Path;

/// Where servers work: cargo's own folder for tests, on the disk of the build.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// A path as an argument.
pub fn as_str(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Makes sure that nothing is left of the servers that worked in a directory.
pub fn expect_nothing_left(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory).expect("it is there").collect();
    assert!(left.is_empty(), "{left:?}");
    for process in std::fs::read_dir("/proc").expect("Linux").flatten() {
        // A process may end while it is looked at. Nodes and etcd name their directory
        // in their commands, Redis works in it.
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let works_in = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        let is_left = command.contains(as_str(directory)) || works_in.starts_with(directory);
        assert!(!is_left, "still there: {command}");
    }
}
