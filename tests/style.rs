//! The house rules that a compiler doesn't know: which module may import which,
//! what the core keeps out, how long a file may be.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

use std::path::{Path, PathBuf};

/// Lines of a file before its tests.
const LINES_MAX: usize = 450;

/// Files that may be longer, how long, and why.
const LONGER: [(&str, usize, &str); 5] = [
    ("actors/connection.rs", 500, "one client's slots, timers and socket share one state"),
    ("actors/shard.rs", 480, "the actor carries out all that one slice can decide"),
    ("src/engine/slice.rs", 500, "one state machine"),
    ("src/indexing/postings.rs", 500, "one structure and its three forms of a list"),
    ("src/persistence/snapshot.rs", 480, "a snapshot's life: written, listed, verified, chosen"),
];

/// What each module of the core may import beside itself. There is no circle:
/// a module's row names only modules of rows above it.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("address", &[]),
    ("version", &[]),
    ("limits", &[]),
    ("error", &["version"]),
    ("engine", &["version", "limits", "error"]),
    ("ordering", &["error"]),
    ("persistence", &["version", "limits", "error", "engine"]),
    ("replication", &["version", "limits", "error", "engine", "ordering", "persistence"]),
    ("messaging", &["version", "limits", "error", "engine", "persistence", "replication"]),
    ("indexing", &["version", "limits", "error", "engine", "messaging"]),
    ("settings", &["address", "limits", "replication", "indexing"]),
    ("query", &["version", "limits", "error", "engine", "messaging", "indexing", "settings"]),
    ("connector", &["error"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every source file under a folder: its path from the root, and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("under the root").to_string_lossy().into_owned();
                found.push((name, std::fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder}");
    found
}

/// A file's lines as far as its unit tests, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.lines().position(|line| line.starts_with("mod tests {")).unwrap_or(usize::MAX);
    text.lines()
        .enumerate()
        .take(tests)
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

fn is_test(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// The modules that a line imports: `crate::a::…` and `crate::{a, b::c}`.
fn imported(line: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                names.extend(group.split(',').map(|name| name.trim().split(':').next().unwrap_or_default()));
            }
            None => names.push(rest.split(|c| !is_name(c)).next().unwrap_or_default()),
        }
    }
    names.retain(|name| !name.is_empty() && name.chars().all(is_name));
    names
}

#[test]
fn the_table_of_imports_has_no_circle() {
    for (row, (module, allowed)) in ALLOWED.iter().enumerate() {
        for name in *allowed {
            assert!(ALLOWED[..row].iter().any(|(above, _)| above == name), "{module} → {name}");
        }
    }
}

#[test]
fn the_architecture_page_has_the_same_table() {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the page");
    for (module, allowed) in ALLOWED {
        let names = if allowed.is_empty() { "nothing".to_string() } else { allowed.join(", ") };
        let is_row = |line: &&str| {
            let starts = [format!("| `src/{module}.rs` |"), format!("| `src/{module}/mod.rs` |")];
            starts.iter().any(|start| line.starts_with(start))
        };
        let row = page.lines().find(is_row).unwrap_or_else(|| panic!("{module} has no row"));
        assert!(row.ends_with(&format!("| {names} |")), "{module} may import {names}, the page says {row}");
    }
}

#[test]
fn core_modules_import_only_what_they_may() {
    for (name, text) in sources("src") {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().expect("a module");
        if module == "lib" {
            continue;
        }
        let row = ALLOWED.iter().find(|(row, _)| *row == module);
        let (_, allowed) = row.unwrap_or_else(|| panic!("{name}: give the module a row in ALLOWED"));
        for (number, line) in code(&text).filter(|_| !is_test(&name)) {
            for other in imported(line) {
                let may = other == module || allowed.contains(&other);
                assert!(may, "{name}:{number}: {module} may not import {other}");
            }
        }
    }
}

#[test]
fn the_core_keeps_threads_sockets_clocks_and_actors_out() {
    const FOREIGN: [&str; 9] = [
        "actix",
        "tokio",
        "crossbeam",
        "std::thread",
        "std::sync::mpsc",
        "std::os::unix::net",
        "Instant::now",
        "SystemTime",
        "datastore_node",
    ];
    // The Rust client is the one part that opens sockets, and nothing imports it.
    let core = |name: &str| !is_test(name) && !name.starts_with("src/connector/");
    for (name, text) in sources("src").into_iter().filter(|(name, _)| core(name)) {
        for (number, line) in code(&text) {
            for word in FOREIGN {
                assert!(!line.contains(word), "{name}:{number}: the core has no {word}");
            }
            // An address is a plain value; whoever opens a socket on it is an actor.
            let net = line.replace("std::net::IpAddr", "");
            assert!(!net.contains("std::net"), "{name}:{number}: the core has no sockets");
        }
    }
}

#[test]
fn nothing_is_imported_by_glob() {
    for folder in ["src", "actors", "utilities", "tests"] {
        for (name, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                let line = line.trim();
                let is_glob =
                    (line.starts_with("use ") || line.starts_with("pub use ")) && line.contains("::*");
                let in_tests = line == "use super::*;" || line == "use proptest::prelude::*;";
                assert!(!is_glob || in_tests, "{name}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn nothing_is_left_to_be_written() {
    // Put together here, so that this file doesn't find itself.
    let unfinished = ["todo", "unimplemented"].map(|name| format!("{name}!"));
    for folder in ["src", "actors", "utilities", "tests"] {
        for (name, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                for word in &unfinished {
                    assert!(!line.contains(word.as_str()), "{name}:{}: {word}", number + 1);
                }
            }
        }
    }
}

#[test]
fn files_are_short_enough_to_read() {
    for folder in ["src", "actors", "utilities"] {
        for (name, text) in sources(folder).into_iter().filter(|(name, _)| !is_test(name)) {
            let lines = text.lines().take_while(|line| !line.starts_with("mod tests {")).count();
            let longer = LONGER.iter().find(|(file, _, _)| *file == name);
            let most = longer.map_or(LINES_MAX, |(_, most, _)| *most);
            assert!(lines <= most, "{name} has {lines} lines before its tests, {most} are allowed");
        }
    }
}

#[test]
fn exceptions_are_still_needed() {
    /// Well below the bound, so that a file at its edge doesn't come and go.
    const SHORT: usize = 400;
    for (name, _, reason) in LONGER {
        let text =
            std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = text.lines().take_while(|line| !line.starts_with("mod tests {")).count();
        assert!(lines > SHORT, "{name} has only {lines} lines now: no exception ({reason}) is needed");
    }
}
