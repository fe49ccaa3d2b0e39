//! Parses a program's command line, runs it, and turns its outcome into an exit code.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};

use crate::exit::Exit;
use crate::{answer, output, signals};

/// Parses the command line of this process. Ends the process if it is wrong; with `--format json`, stdout then has the
/// error as an object.
#[must_use]
pub fn parse<C: Parser>() -> C {
    C::try_parse().unwrap_or_else(|error| {
        let error = with_near_miss(error, &C::command());
        answer::wrong_usage(&error, std::env::args_os());
        error.exit()
    })
}

/// Adds to the error on an unknown command which command was meant, if it is the name of one without the first part of it,
/// or with a part too many: `prune` and `cache-prune` are far apart by their letters.
fn with_near_miss(mut error: clap::Error, command: &Command) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand).cloned() else {
        return error;
    };
    let ends_in = |name: &str, end: &str| name.strip_suffix(end).is_some_and(|start| start.ends_with('-'));
    let names = command.get_subcommands().map(Command::get_name);
    let near = names.filter(|name| ends_in(name, &given) || ends_in(&given, name));
    let near: Vec<String> = near.map(str::to_owned).collect();
    if !near.is_empty() {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
    }
    error
}

/// Runs `work`, and prints the error if it fails.
pub fn run(work: impl FnOnce() -> anyhow::Result<Exit>) -> ExitCode {
    signals::outlive_size_limit();
    work()
        .unwrap_or_else(|error| {
            output::complain(&format!("error: {error:#}"));
            Exit::of_error(&error)
        })
        .into()
}
