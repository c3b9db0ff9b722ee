//! Flags that come from environment variables: a value that can't be is refused by the
//! variable's name, and one that was never meant for the node is passed over.
//!
//! Kubernetes sets `DATASTORE_PORT=tcp://10.0.0.1:9000` in every container beside a
//! Service named `datastore`: links, which say where a Service is and not where to listen.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use datastore::address::is_service_link;

use crate::flags::Flags;

/// The flags, what of them came from the environment, and what of that was passed over.
pub struct Given {
    /// As they count.
    pub flags: Flags,
    /// To name where a value came from.
    pub variables: Variables,
    /// For a person, at the start.
    pub warnings: Vec<String>,
}

/// Flags that came from the environment, each with its variable.
#[derive(Default)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// Names the variables behind the flags that a refusal names, and behind those that it is about.
    pub fn explain(&self, reason: &str, about: &[&str]) -> String {
        let names = |flag: &str| {
            reason.match_indices(flag).any(|(at, _)| {
                // `--port` isn't named by `--port-range`.
                !reason[at + flag.len()..].starts_with(|next: char| next == '-' || next.is_alphanumeric())
            })
        };
        let named = self.0.iter().filter(|(flag, _)| about.contains(&flag.as_str()) || names(flag));
        let notes = named.map(|(flag, variable)| came_from(flag, variable)).collect::<Vec<_>>();
        if notes.is_empty() { reason.to_string() } else { format!("{reason} ({})", notes.join("; ")) }
    }
}

fn came_from(flag: &str, variable: &str) -> String {
    format!("{flag} comes from the environment variable {variable}")
}

/// Reads flags and environment of this process.
pub fn read() -> Result<Given, clap::Error> {
    read_from(std::env::args_os().collect(), Flags::command(), |name| std::env::var_os(name))
}

fn read_from(
    arguments: Vec<OsString>,
    mut command: Command,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Given, clap::Error> {
    let mut warnings = Vec::new();
    for (id, name) in variables_of(&command) {
        let link = variable(&name).and_then(|value| value.into_string().ok()).filter(|v| is_service_link(v));
        if let Some(link) = link {
            warnings.push(format!(
                "{name}={link} is passed over: it is what Kubernetes sets for a Service of that name, and no value of \
                 --{id}; give the flag, or set enableServiceLinks to false"
            ));
            command = without_variable(command, &id);
        }
    }
    let matches = command
        .clone()
        .try_get_matches_from(&arguments)
        .map_err(|error| named(error, &command, &arguments))?;
    let flags = Flags::from_arg_matches(&matches)?;
    Ok(Given { flags, variables: from_environment(&command, &matches), warnings })
}

/// Of each flag that has one: its id and its variable. A flag's id is its long name.
fn variables_of(command: &Command) -> Vec<(String, String)> {
    let variable =
        |arg: &clap::Arg| Some((arg.get_id().to_string(), arg.get_env()?.to_string_lossy().into_owned()));
    command.get_arguments().filter_map(variable).collect()
}

fn without_variable(command: Command, id: &str) -> Command {
    command.mut_arg(id, |arg| arg.env(Resettable::Reset))
}

fn from_environment(command: &Command, matches: &ArgMatches) -> Variables {
    let came = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);
    let given = variables_of(command).into_iter().filter(|(id, _)| came(id));
    Variables(given.map(|(id, variable)| (flag_of(&id), variable)).collect())
}

fn flag_of(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

/// An error of a value that came from the environment names the variable.
fn named(error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = argument.split_whitespace().next().unwrap_or_default();
    let Some((id, variable)) = variables_of(command).into_iter().find(|(id, _)| flag_of(id) == flag) else {
        return error;
    };
    // What is refused without its variable, too, was given on the command line.
    let without = without_variable(command.clone(), &id).try_get_matches_from(arguments);
    let still =
        without.is_err_and(|other| other.get(ContextKind::InvalidArg) == error.get(ContextKind::InvalidArg));
    if still {
        return error;
    }
    let text = error.render().to_string();
    let reason = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    let message = format!("{}\n\n{reason}", came_from(flag, &variable));
    clap::Error::raw(error.kind(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(variable: &'static str, id: &'static str) -> Command {
        // The environment of the test's process counts for none of the other flags.
        let ids: Vec<String> = variables_of(&Flags::command()).into_iter().map(|(id, _)| id).collect();
        let bare = ids.iter().fold(Flags::command(), |command, id| without_variable(command, id));
        bare.mut_arg(id, |arg| arg.env(variable))
    }

    fn link(name: &str) -> Option<OsString> {
        (name == "HOME_OF_A_LINK").then(|| "tcp://10.0.0.1:9000".into())
    }

    #[test]
    fn a_link_to_a_service_is_passed_over_with_a_warning() {
        let given = read_from(vec!["node".into()], command("HOME_OF_A_LINK", "port"), link).ok().unwrap();
        assert_eq!(given.flags.into_settings().port, 9000);
        assert!(
            given.warnings[0].contains("HOME_OF_A_LINK=tcp://10.0.0.1:9000 is passed over"),
            "{:?}",
            given.warnings
        );
        let arguments = ["node", "--port", "7"].map(OsString::from).to_vec();
        let given = read_from(arguments, command("HOME_OF_A_LINK", "port"), link).ok().unwrap();
        assert_eq!((given.flags.into_settings().port, given.warnings.len()), (7, 1));
    }

    #[test]
    fn a_refusal_names_the_variables_of_the_flags_that_it_names() {
        let variables =
            Variables(vec![("--port".into(), "A_PORT".into()), ("--host".into(), "A_HOST".into())]);
        let note = "--host comes from the environment variable A_HOST";
        assert_eq!(variables.explain("--host x: wants y", &[]), format!("--host x: wants y ({note})"));
        assert_eq!(variables.explain("cannot listen", &["--host"]), format!("cannot listen ({note})"));
        assert_eq!(variables.explain("--port-range and --hostile", &[]), "--port-range and --hostile");
    }
}
