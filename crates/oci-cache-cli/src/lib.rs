//! The commands that prune, inspect and verify a local cache of OCI layer blobs.
//!
//! The program `oci-cache` offers them, and other programs can too. Each command is a struct of arguments in
//! [`cli`] and a function `run` in its module of [`commands`].
//!
//! Guarantees: a command's output, files and exit code do not depend on the program that offers it. This
//! crate itself embeds no path of the build machine.

mod answer;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod examples;
pub mod exit;
mod github_summary;
mod held_off;
mod input_file;
mod location;
mod lock;
mod metrics_file;
mod near_miss;
pub mod output;
mod output_file;
mod plan_file;
mod policy;
pub mod program;
mod progress_bar;
mod record;
mod report;
mod screen;
pub mod signals;
mod style;
mod text;
mod units;

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, Command};

/// The program `oci-cache`: runs the command that its command line names.
#[must_use]
pub fn main() -> ExitCode {
    program::run(|| {
        let cli: Cli = program::parse();
        match &cli.command {
            None => output::print_styled(&Cli::command().render_help().ansi().to_string()),
            Some(Command::Prune(arguments)) => commands::prune::run(arguments, &[]),
            Some(Command::Usage(arguments)) => commands::usage::run(arguments, &[]),
            Some(Command::Verify(arguments)) => commands::verify::run(arguments, &[]),
            Some(Command::Dir(arguments)) => commands::dir::run(arguments),
            Some(Command::Completions(arguments)) => commands::completions::run(arguments),
        }
    })
}

/// The command line of the program `oci-cache`.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}
