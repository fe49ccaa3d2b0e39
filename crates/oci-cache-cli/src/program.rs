//! Parses a program's command line, runs it, and turns its outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::exit::Exit;
use crate::{answer, near_miss, output, signals};

/// Parses the command line of this process. Ends the process if it is wrong; with `--format json`, stdout then has the
/// error as an object.
#[must_use]
pub fn parse<C: Parser>() -> C {
    C::try_parse().unwrap_or_else(|error| {
        let error = near_miss::with_advice(error, &C::command());
        answer::wrong_usage(&error, std::env::args_os());
        error.exit()
    })
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
