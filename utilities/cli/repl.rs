//! The interactive mode: a command a line, from a terminal or from a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Parser;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::arguments::{Layout, Line};
use crate::failure::{Exit, Failure};
use crate::repl_helper::ReplHelper;
use crate::repl_words::split;
use crate::run::Session;

/// Lines that are remembered.
const HISTORY_LINES: usize = 10_000;

/// What a line asks for beside commands.
enum Step {
    /// It was carried out; its exit code.
    Done(u8),
    Quit,
}

/// Reads commands to the end; gives the exit code: in a pipe that of the first
/// command that failed.
pub fn run(session: &Session, layout: Layout, keep_history: bool) -> u8 {
    if io::stdin().is_terminal() {
        return match at_terminal(session, layout, keep_history) {
            Ok(()) => 0,
            Err(error) => {
                Failure::usage(format!("the terminal can't be read: {error}")).say(layout.json);
                Exit::LocalFile as u8
            }
        };
    }
    let mut exit = 0;
    for line in io::stdin().lock().lines() {
        let step = match line {
            Ok(line) => step(session, layout, &line),
            Err(error) => {
                Failure::usage(format!("stdin can't be read as UTF-8 text: {error}")).say(layout.json);
                return Exit::Usage as u8;
            }
        };
        match step {
            Step::Done(code) if exit == 0 => exit = code,
            Step::Done(_) => {}
            Step::Quit => break,
        }
    }
    exit
}

fn at_terminal(session: &Session, layout: Layout, keep_history: bool) -> rustyline::Result<()> {
    let config =
        Config::builder().completion_type(CompletionType::List).max_history_size(HISTORY_LINES)?.build();
    let mut editor: Editor<ReplHelper, FileHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(ReplHelper::new(session.client.clone(), session.runtime.clone())));
    let history = history_path().filter(|path| keep_history && prepare_history(path).is_ok());
    if let Some(path) = &history {
        // One that can't be read is begun anew.
        editor.load_history(path).ok();
    }
    println!("datastore-cli {} at {}; help, quit", env!("CARGO_PKG_VERSION"), session.client.address());
    loop {
        match editor.readline("datastore> ") {
            Ok(line) => {
                editor.add_history_entry(line.as_str())?;
                if let Some(path) = &history {
                    editor.append_history(path).ok();
                }
                if let Step::Quit = step(session, layout, &line) {
                    return Ok(());
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn step(session: &Session, layout: Layout, line: &str) -> Step {
    let words = match split(line) {
        Ok(words) => words,
        Err(reason) => {
            let failure = Failure::usage(reason);
            failure.say(layout.json);
            return Step::Done(failure.exit as u8);
        }
    };
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => return Step::Done(0),
        [comment, ..] if comment.starts_with('#') => return Step::Done(0),
        ["quit" | "exit"] => return Step::Quit,
        _ => {}
    }
    match Line::try_parse_from(words) {
        Ok(parsed) => {
            let layout = Layout {
                json: layout.json || parsed.layout.json,
                table: layout.table || parsed.layout.table,
            };
            Step::Done(session.run(parsed.command, layout))
        }
        Err(error) => {
            // Help goes to stdout, and is no failure.
            error.print().ok();
            Step::Done(if error.use_stderr() { Exit::Usage as u8 } else { 0 })
        }
    }
}

/// `$XDG_STATE_HOME/datastore-cli/history`, by default below `~/.local/state`.
fn history_path() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("datastore-cli/history"))
}

/// Values are typed here: the file is nobody else's to read.
fn prepare_history(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Line::command().debug_assert();
        crate::arguments::CommandLine::command().debug_assert();
    }
}
