//! `datastore-cli` without a command: lines from a pipe, and from a terminal.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cli.rs"]
mod cli;
mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use cli::{command, run_with_stdin};
use common::{Node, Options, PATIENCE, temporary_directory};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

#[test]
fn lines_of_a_pipe_are_commands() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    node.client().when_ready(json!({"op": "search_text", "query": "x"}));
    let script = "# a comment\n\
        set k {\"a\": 1}\n\
        set \"my key\" \"17\"\n\
        set s 'two words' --if-absent\n\
        get k\n\
        get 'my key' --json\n\
        get s --raw\n\
        search-value {\"a\": 1.0}\n\
        add-vector v [1, -2]\n\
        get-vector v\n\
        \n\
        count\n\
        quit\n\
        get k\n";
    let ran = run_with_stdin(node.address, &[], script);
    let expected = "1.0\n2.0\n3.0\n{\"a\": 1}\n{\"key\":\"my key\",\"value\":\"17\",\"version\":\"2.0\"}\ntwo words\nk\n4.0\n[1.0,-2.0]\n4\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), expected, ""));
}

#[test]
fn a_line_that_fails_is_said_and_the_next_one_is_read() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let ran = run_with_stdin(node.address, &[], "get nobody\nnonsense\nget 'open\nping\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "pong\n"), "{ran:?}");
    assert!(ran.stderr.contains("not_found: "), "{ran:?}");
    assert!(ran.stderr.contains("nonsense") && ran.stderr.contains("not closed"), "{ran:?}");
    let help = run_with_stdin(node.address, &[], "help\nhelp set\n");
    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(help.stdout.contains("search-text") && help.stdout.contains("--if-absent"), "{help:?}");
}

/// The program at a terminal.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(node: &Node, state: &Path, arguments: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = Path::new(OsStr::from_bytes(name.as_bytes()));
        let slave = || Stdio::from(File::options().read(true).write(true).open(path).unwrap());
        let child = command(node.address)
            .args(arguments)
            .env("TERM", "xterm")
            .env("XDG_STATE_HOME", state)
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        let keyboard = File::from(master);
        let mut display = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal's end is an error here.
            while let Ok(count) = display.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal { child, keyboard, screen, seen: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown this since the last time.
    fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} was not shown: {:?}", self.seen),
            }
        }
        let at = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..at);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_terminal_has_a_prompt_completion_and_a_history_of_its_own() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    node.client().when_ready(json!({"op": "search_text", "query": "x"}));
    let state = directory.path().join("state");
    let mut terminal = Terminal::start(&node, &state, &[]);
    terminal.wait_for("datastore> ");
    terminal.press("set some-key {\"a\": 1}\r");
    terminal.wait_for("1.0");
    terminal.wait_for("datastore> ");
    // Ctrl-c clears what was typed and nothing else.
    terminal.press("delete some-key\u{3}");
    terminal.wait_for("datastore> ");
    terminal.press("get s\t");
    terminal.wait_for("some-key");
    terminal.press("\r");
    terminal.wait_for("{\"a\": 1}");
    terminal.wait_for("datastore> ");
    terminal.press("scan\r");
    terminal.wait_for("│ some-key");
    terminal.wait_for("datastore> ");
    terminal.press("\u{4}");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    let history = state.join("datastore-cli/history");
    assert_eq!(history.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&history).unwrap();
    assert!(text.contains("set some-key") && text.contains("scan"), "{text}");
    assert!(!text.contains("delete"), "{text}");
}

#[test]
fn without_history_nothing_is_kept() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let state = directory.path().join("state");
    let mut terminal = Terminal::start(&node, &state, &["--no-history"]);
    terminal.wait_for("datastore> ");
    terminal.press("ping\r");
    terminal.wait_for("pong");
    terminal.wait_for("datastore> ");
    terminal.press("quit\r");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    assert!(!state.exists());
}

#[test]
fn a_watched_screen_ends_by_ctrl_c_with_its_cursor_shown() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let mut terminal = Terminal::start(&node, directory.path(), &["stats", "--watch", "--interval-ms", "20"]);
    terminal.wait_for("\u{1b}[?25l");
    terminal.wait_for("syncs/s");
    terminal.wait_for("wal-writer");
    // The terminal isn't the process's controlling one, so the signal is sent to it.
    common::signal(terminal.child.id(), "INT");
    terminal.wait_for("\u{1b}[?25h");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_search_at_a_terminal_says_what_may_mislead() {
    let directory = temporary_directory();
    let node = Options::in_directory(&directory.path().join("data")).start();
    let mut client = node.client();
    client.when_ready(json!({"op": "search_text", "query": "x"}));
    client.ok(json!({"op": "bulk_set", "records": [["a", "blue"], ["b", "shoe"]]}));
    let mut terminal = Terminal::start(&node, &directory.path().join("state"), &[]);
    terminal.wait_for("datastore> ");
    terminal.press("search-text shoe -- -blue\r");
    terminal
        .wait_for("note: there are no operators, phrases or wildcards: -blue is searched for as plain words");
    terminal.wait_for("note: no value has all of these words; --any finds 2 that have some of them");
    terminal.wait_for("datastore> ");
    terminal.press("search-text red \"blue shoe\"\r");
    terminal.wait_for("wildcards: blue shoe is searched for as plain words");
    terminal.wait_for("datastore> ");
    terminal.press("search-text --any shoe blue\r");
    terminal.wait_for("│ a");
    terminal.wait_for("datastore> ");
    assert!(!terminal.seen.contains("note:"));
}
