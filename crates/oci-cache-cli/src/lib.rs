//! The commands that prune, inspect and check a local cache of OCI layer blobs, as the program `oci-cache` has
//! them, and as other programs can have them: each is declared by a struct of arguments in [`cli`], and done by
//! the function `run` of its module in [`commands`].
//!
//! Guarantees: what a command prints, writes and ends with does not depend on the program that it is a command
//! of. No path of the machine that built it is in it.

pub mod cli;
pub mod clock;
pub mod commands;
pub mod exit;
mod github_summary;
mod location;
mod lock;
mod metrics_file;
pub mod output;
mod output_file;
mod plan_file;
mod policy;
pub mod program;
mod progress_bar;
mod report;
pub mod signals;
mod text;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command};

/// The program `oci-cache`: does what its command line asks for.
#[must_use]
pub fn main() -> ExitCode {
    program::run(|| {
        let cli = Cli::parse();
        match &cli.command {
            None => output::print(&Cli::command().render_help().to_string()),
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
