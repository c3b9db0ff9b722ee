//! What the documentation says is what the product does.
//!
//! Every fenced block tagged `session` in docs/PROTOCOL.md is sent to a real
//! node, line by line: `→` is a request as it stands, `←` the reply, compared
//! as JSON. In a reply `"…"` stands for any value, and `"…name"` for any value
//! that is the same wherever the name comes again, in a request too. Flags behind the tag
//! (`session --indexes none`) give the block a node of its own. The rest of
//! this file holds tables and lists against the code that they describe.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Client, Options, temporary_directory};
use datastore::error::Code;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Pages, relative to the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_string()];
    for entry in std::fs::read_dir(root().join("docs")).expect("there are docs") {
        let name = entry.expect("a directory entry").file_name().into_string().expect("an ASCII name");
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages
}

/// A fenced block: the line its fence stands on, what stands behind the fence, its lines.
struct Block {
    line: usize,
    tag: String,
    lines: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(tag), false) => {
                blocks.push(Block { line: number + 1, tag: tag.trim().to_string(), lines: Vec::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => blocks.last_mut().expect("a block is open").lines.push(line.to_string()),
            (None, false) => {}
        }
    }
    assert!(!open, "a fence is not closed");
    blocks
}

fn without_blocks(text: &str) -> String {
    let mut open = false;
    let outside = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        open ^= is_fence;
        !is_fence && !open
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// The names of replies seen so far.
type Names = BTreeMap<String, Value>;

/// Whether a reply is what the page shows.
fn is_like(shown: &Value, real: &Value, names: &mut Names) -> bool {
    match (shown, real) {
        (Value::String(text), _) if text.starts_with('…') => {
            let name = text.trim_start_matches('…');
            name.is_empty() || *names.entry(name.to_string()).or_insert_with(|| real.clone()) == *real
        }
        (Value::Object(shown), Value::Object(real)) => {
            shown.len() == real.len()
                && shown
                    .iter()
                    .all(|(field, shown)| real.get(field).is_some_and(|real| is_like(shown, real, names)))
        }
        (Value::Array(shown), Value::Array(real)) => {
            shown.len() == real.len()
                && shown.iter().zip(real).all(|(shown, real)| is_like(shown, real, names))
        }
        _ => shown == real,
    }
}

/// The request with what its names stand for.
fn with_names(request: &str, names: &Names) -> String {
    let mut request = request.to_string();
    for (name, value) in names {
        request = request.replace(&format!("\"…{name}\""), &value.to_string());
    }
    request
}

fn run_session(client: &mut Client, page: &str, block: &Block, names: &mut Names) {
    let mut sent: Vec<String> = Vec::new();
    for (number, line) in block.lines.iter().enumerate() {
        let place = format!("{page}:{}", block.line + 1 + number);
        if let Some(request) = line.strip_prefix("→ ") {
            let request = with_names(request, names);
            client.send_raw(format!("{request}\n").as_bytes());
            sent.push(request);
        } else if let Some(reply) = line.strip_prefix("← ") {
            let shown: Value = serde_json::from_str(reply).unwrap_or_else(|error| panic!("{place}: {error}"));
            let real = client.receive();
            assert!(
                is_like(&shown, &real, names),
                "{place}\n  after {}\n  shown {shown}\n  real  {real}",
                sent.join("\n        ")
            );
        } else {
            panic!("{place}: neither → nor ←: {line}");
        }
    }
    client.finish();
    let rest = client.receive_rest();
    assert_eq!(rest, "", "{page}:{}: replies that the page doesn't show", block.line);
}

#[test]
fn every_session_on_the_protocol_page_runs_as_shown() {
    let page = "docs/PROTOCOL.md";
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    node.client().when_ready(json!({"op": "search_text", "query": "x"}));
    let mut names = Names::new();
    let text = read(page);
    let sessions = blocks(&text).into_iter().filter(|block| block.tag.starts_with("session"));
    let mut count = 0;
    for block in sessions {
        count += 1;
        let flags: Vec<&str> = block.tag.split_whitespace().skip(1).collect();
        if flags.is_empty() {
            run_session(&mut node.client(), page, &block, &mut names);
        } else {
            let directory = temporary_directory();
            let node = Options::in_directory(directory.path()).with(&flags).start();
            run_session(&mut node.client(), page, &block, &mut Names::new());
        }
    }
    assert!(count >= 20, "only {count} sessions");
}

#[test]
fn every_operation_has_a_session() {
    // The node itself says which operations there are.
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let error = node.client().refused(json!({"op": "no such operation"}));
    let message = error["message"].as_str().expect("a message");
    let (_, names) = message.split_once("; there are ").expect("it names the operations");
    let text = read("docs/PROTOCOL.md");
    let sessions: Vec<Block> = blocks(&text).into_iter().filter(|b| b.tag.starts_with("session")).collect();
    for name in names.split(", ") {
        assert!(text.contains(&format!("| `{name}` |")), "{name} is in no table");
        let asked = format!("\"op\":\"{name}\"");
        assert!(sessions.iter().flat_map(|block| &block.lines).any(|line| line.contains(&asked)), "{name}");
    }
}

/// The rows of all tables, cell by cell.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let inner = line.trim().trim_matches('|').replace("\\|", "\u{0}");
            inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
        })
        .collect()
}

#[test]
fn every_error_code_is_documented_with_its_rule() {
    let rows = rows(&read("docs/PROTOCOL.md"));
    for code in Code::ALL {
        let (name, retryable, outcome) = code.rule();
        let is_rule = |row: &&Vec<String>| row.len() == 4 && ["yes", "no"].contains(&row[1].as_str());
        let row = rows.iter().filter(is_rule).find(|row| row[0] == format!("`{name}`"));
        let row = row.unwrap_or_else(|| panic!("{name} is in no table"));
        assert_eq!(row[1], if retryable { "yes" } else { "no" }, "{name}: retryable");
        assert!(row[2].starts_with(&format!("`{}`", outcome.as_str())), "{name}: outcome {}", row[2]);
        assert!(row[3].len() > 10, "{name}: what to do?");
    }
}

/// `16 MiB`, `10,000`, `64 KiB`, `100 ms`: a count, bytes or milliseconds.
fn quantity(text: &str) -> u64 {
    let mut words = text.split_whitespace();
    let number: u64 = words.next().expect("a number").replace(',', "").parse().expect("a number");
    match words.next() {
        Some("KiB") => number << 10,
        Some("MiB") => number << 20,
        Some("GiB") => number << 30,
        Some("s") => number * 1_000,
        _ => number,
    }
}

/// The public constants of src/limits.rs that are plain numbers.
fn limits() -> BTreeMap<String, u64> {
    let mut limits = BTreeMap::new();
    for line in read("src/limits.rs").lines() {
        let Some((name, rest)) = line.strip_prefix("pub const ").and_then(|line| line.split_once(": "))
        else {
            continue;
        };
        let (_, expression) = rest.split_once(" = ").expect("a constant has a value");
        let expression = expression.trim_end_matches(';').trim_end_matches(" as u64").replace('_', "");
        let factors = expression.split(" * ").map(|factor| match factor {
            "KIB" => 1 << 10,
            "MIB" => 1 << 20,
            "GIB" => 1 << 30,
            number => number.parse().unwrap_or_else(|_| panic!("{name} = {expression}")),
        });
        limits.insert(name.to_string(), factors.product());
    }
    limits
}

#[test]
fn every_limit_in_the_table_is_the_one_in_the_code() {
    let limits = limits();
    assert_eq!(limits["KEY_BYTES_MAX"], datastore::limits::KEY_BYTES_MAX as u64);
    assert_eq!(limits["SEGMENT_BYTES_DEFAULT"], datastore::limits::SEGMENT_BYTES_DEFAULT);
    let mut count = 0;
    for row in rows(&read("docs/PROTOCOL.md")) {
        let name = row.last().expect("a cell").trim_matches('`');
        let is_constant = name.contains('_') && name.chars().all(|c| c == '_' || c.is_ascii_uppercase());
        if is_constant {
            let value = limits.get(name).unwrap_or_else(|| panic!("src/limits.rs has no {name}"));
            assert_eq!(quantity(&row[1]), *value, "{name}: {}", row[1]);
            count += 1;
        }
    }
    assert!(count >= 25, "only {count} limits in the table");
}

/// Every field name in a reply, arrays included.
fn field_names(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                names.insert(name.clone());
                field_names(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| field_names(item, names)),
        _ => {}
    }
}

#[test]
fn every_field_of_stats_hello_and_cluster_is_documented() {
    let text = read("docs/PROTOCOL.md");
    for mode in ["leader", "dynamo"] {
        let directory = temporary_directory();
        let node = Options::in_directory(directory.path()).with(&["--mode", mode]).start();
        // What comes up only once there is something to show.
        node.client().ok(json!({"op": "set", "key": "k", "value": 1}));
        for op in ["stats", "hello", "cluster"] {
            let mut names = BTreeSet::new();
            field_names(&node.client().ok(json!({"op": op})), &mut names);
            for name in names {
                let is_there = text.contains(&format!("`{name}`")) || text.contains(&format!("\"{name}\":"));
                assert!(is_there, "`{name}` of {op} in {mode} mode is nowhere on the page");
            }
        }
    }
}

#[test]
fn every_flag_of_the_help_stands_in_the_readme_with_its_default() {
    let output = Command::new(env!("CARGO_BIN_EXE_datastore-node")).arg("--help").output().expect("it runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let rows = rows(&read("README.md"));
    let mut flag: Option<String> = None;
    let mut count = 0;
    for line in help.lines() {
        let word = line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, ");
        if word.starts_with("--") {
            let name: String = word.chars().take_while(|c| *c == '-' || c.is_ascii_lowercase()).collect();
            if name != "--help" && name != "--version" {
                count += 1;
                assert!(rows.iter().any(|row| row[0].starts_with(&format!("`{name}"))), "{name}");
            }
            flag = Some(name);
        }
        for (sign, what) in [("[env: ", "variable"), ("[default: ", "default")] {
            let Some((_, rest)) = line.split_once(sign) else { continue };
            let wanted = rest.split([']', '=']).next().expect("something");
            let name = flag.clone().expect("a flag before");
            let row = rows.iter().find(|row| row[0].starts_with(&format!("`{name}"))).expect("found above");
            let is_said = row.iter().any(|cell| cell.contains(wanted));
            assert!(is_said, "{name}: the README doesn't say its {what} {wanted}: {row:?}");
        }
    }
    assert!(count >= 18, "only {count} flags were found in the help");
}

#[test]
fn every_relative_link_leads_somewhere() {
    for page in pages() {
        let text = without_blocks(&read(&page));
        let folder = root().join(&page).parent().expect("a page is in a folder").to_path_buf();
        for piece in text.split("](").skip(1) {
            let target = piece.split(')').next().expect("a link ends");
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            assert!(path.exists(), "{page}: {target}");
            if !anchor.is_empty() {
                let linked = std::fs::read_to_string(&path).expect("a page");
                assert!(linked.lines().any(|line| is_heading(line, anchor)), "{page}: {target}");
            }
        }
    }
}

fn is_heading(line: &str, anchor: &str) -> bool {
    let Some(title) = line.strip_prefix('#') else { return false };
    let title = title.trim_start_matches('#').trim().to_lowercase();
    let slug: String = title
        .chars()
        .filter_map(
            |c| if c == ' ' { Some('-') } else { (c.is_alphanumeric() || "-_".contains(c)).then_some(c) },
        )
        .collect();
    slug == anchor
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = rows(&read("docs/ARCHITECTURE.md"));
    for manifest in ["Cargo.toml", "actors/Cargo.toml", "utilities/Cargo.toml"] {
        let mut within = false;
        for line in read(manifest).lines() {
            if line.starts_with('[') {
                within = line == "[dependencies]" || line == "[dev-dependencies]";
                continue;
            }
            let Some((name, _)) = line.split_once('=').filter(|_| within && !line.starts_with('#')) else {
                continue;
            };
            let name = name.trim().trim_end_matches(".workspace");
            let row = reasons.iter().find(|row| row[0].split(", ").any(|cell| cell == format!("`{name}`")));
            let row =
                row.unwrap_or_else(|| panic!("{name} of {manifest} has no row in docs/ARCHITECTURE.md"));
            assert!(row.last().is_some_and(|reason| reason.len() > 10), "{name}: why?");
        }
    }
}

/// Words with a path's or a test's look that the pages put between backquotes.
#[test]
fn every_file_and_test_that_a_page_names_exists() {
    let mut sources = String::new();
    for folder in ["src", "actors", "utilities", "tests"] {
        collect_sources(&root().join(folder), &mut sources);
    }
    for page in pages() {
        for word in without_blocks(&read(&page)).split('`').skip(1).step_by(2) {
            let is_path = ["src/", "actors/", "utilities/", "tests/", "docs/"]
                .iter()
                .any(|start| word.starts_with(start));
            if is_path && !word.contains([' ', '*', '<', '{']) {
                assert!(root().join(word).exists(), "{page}: {word}");
            }
            let looks_like_a_test =
                word.matches('_').count() >= 3 && word.chars().all(|c| c == '_' || c.is_ascii_lowercase());
            if looks_like_a_test {
                assert!(sources.contains(word), "{page}: no test {word}");
            }
        }
    }
}

fn collect_sources(folder: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            collect_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
}
