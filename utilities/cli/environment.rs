//! The command line with its environment variables: one that was never meant for this
//! program is passed over, and an error names the variable that a value came from.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Command, CommandFactory, FromArgMatches};
use datastore::address::is_service_link;

use crate::arguments::CommandLine;

/// Reads the command line, or ends the process with what is wrong with it.
pub fn read() -> CommandLine {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = CommandLine::command();
    for (id, name) in variables_of(&command) {
        let link = std::env::var(&name).ok().filter(|value| is_service_link(value));
        if let Some(link) = link {
            eprintln!(
                "warning: {name}={link} is passed over: it is what Kubernetes sets for a Service of that name, and no \
                 value of --{id}"
            );
            command = without_variable(command, &id);
        }
    }
    let matches = command.clone().try_get_matches_from(&arguments);
    let matches = matches.unwrap_or_else(|error| named(error, &command, &arguments).exit());
    CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Of each flag that has one: its id, which is its long name, and its variable.
fn variables_of(command: &Command) -> Vec<(String, String)> {
    let variable =
        |arg: &clap::Arg| Some((arg.get_id().to_string(), arg.get_env()?.to_string_lossy().into_owned()));
    command.get_arguments().filter_map(variable).collect()
}

fn without_variable(command: Command, id: &str) -> Command {
    command.mut_arg(id, |arg| arg.env(Resettable::Reset))
}

fn named(error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = argument.split_whitespace().next().unwrap_or_default();
    let variable = variables_of(command).into_iter().find(|(id, _)| format!("--{id}") == flag);
    let Some((id, variable)) = variable else { return error };
    // What is refused without its variable, too, was given on the command line.
    let without = without_variable(command.clone(), &id).try_get_matches_from(arguments);
    if without.is_err_and(|other| other.get(ContextKind::InvalidArg) == error.get(ContextKind::InvalidArg)) {
        return error;
    }
    let text = error.render().to_string();
    let reason = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    let message = format!("{flag} comes from the environment variable {variable}\n\n{reason}");
    clap::Error::raw(error.kind(), message)
}
