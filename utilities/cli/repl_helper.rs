//! What the interactive mode offers while a line is typed: commands, options
//! and keys on tab, and how the command is used behind the cursor.

use std::borrow::Cow;
use std::time::Duration;

use clap::{Command, CommandFactory};
use datastore::connector::DatastoreConnector;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::runtime::Handle;

use crate::arguments::Line;

/// Commands whose arguments are keys.
const WITH_KEYS: [&str; 6] = ["get", "set", "delete", "bulk-get", "get-vector", "add-vector"];
/// Keys offered at once.
const KEYS_MAX: usize = 50;
/// Keys that take longer are not offered: nobody waits for a tab.
const KEYS_TIME: Duration = Duration::from_millis(150);

/// Completes and hints.
pub struct ReplHelper {
    client: DatastoreConnector,
    runtime: Handle,
    grammar: Command,
}

impl ReplHelper {
    pub fn new(client: DatastoreConnector, runtime: Handle) -> ReplHelper {
        ReplHelper { client, runtime, grammar: Line::command() }
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let asked = async {
            let call = self.client.scan().without_values().limit(KEYS_MAX);
            let call = if prefix.is_empty() { call } else { call.prefix(prefix) };
            tokio::time::timeout(KEYS_TIME, call).await
        };
        match self.runtime.block_on(asked) {
            Ok(Ok(items)) => items.into_iter().map(|item| item.key).collect(),
            _ => Vec::new(),
        }
    }
}

/// What may stand where `word` stands, behind `before`: all but keys.
fn candidates(grammar: &Command, before: &[&str], word: &str) -> Vec<String> {
    let Some((command, rest)) = before.split_first() else {
        let names = grammar.get_subcommands().map(|command| command.get_name().to_string());
        return names
            .chain(["help", "quit"].map(String::from))
            .filter(|name| name.starts_with(word))
            .collect();
    };
    let Some(command) = grammar.find_subcommand(command) else { return Vec::new() };
    if word.starts_with('-') {
        let layout = grammar.get_arguments().filter(|argument| argument.is_global_set());
        let longs = command.get_arguments().chain(layout).filter_map(|argument| argument.get_long());
        return longs.map(|long| format!("--{long}")).filter(|option| option.starts_with(word)).collect();
    }
    let inner = command.get_subcommands().map(|command| command.get_name().to_string());
    inner.filter(|name| rest.is_empty() && name.starts_with(word)).collect()
}

impl Completer for ReplHelper {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..pos];
        let begin = typed.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = &typed[begin..];
        let before: Vec<&str> = typed[..begin].split_whitespace().collect();
        let mut found = candidates(&self.grammar, &before, word);
        let takes_key = before.first().is_some_and(|command| WITH_KEYS.contains(command));
        if found.is_empty() && takes_key && !word.starts_with(['-', '"', '\'']) {
            // A key that would have to be quoted is left to whoever types it.
            found = self.keys(word);
            found.retain(|key| shell_words::quote(key) == key.as_str());
        }
        Ok((begin, found))
    }
}

impl Hinter for ReplHelper {
    type Hint = String;

    /// The rest of the usage, as soon as a command stands there.
    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<String> {
        let name = line.strip_suffix(' ').filter(|name| pos == line.len() && !name.contains(' '))?;
        let mut command = self.grammar.find_subcommand(name)?.clone();
        let usage = command.render_usage().to_string();
        let (_, rest) = usage.trim().split_once(&format!("{name} "))?;
        Some(rest.to_string())
    }
}

impl Highlighter for ReplHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(console::style(hint).dim().to_string())
    }
}

impl Validator for ReplHelper {}
impl Helper for ReplHelper {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_options_are_completed() {
        let grammar = Line::command();
        assert_eq!(candidates(&grammar, &[], "bulk"), ["bulk-get"]);
        assert_eq!(candidates(&grammar, &["get"], "--ra"), ["--raw"]);
        assert_eq!(candidates(&grammar, &["get"], "--js"), ["--json"]);
        assert_eq!(candidates(&grammar, &["wal"], "v"), ["verify"]);
        assert!(candidates(&grammar, &["nonsense"], "").is_empty());
    }
}
