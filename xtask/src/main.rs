//! The workspace commands of the OCI blob cache pruner: `cargo xtask <command>`.
//!
//! This file dispatches, and `cli` declares the commands. The commands on caches come from the crate
//! `oci-cache-cli`; each other command has its own file.

mod ci;
mod cli;
mod cli_docs;
mod dist;
mod programs;
mod proof;
mod test_run;
mod workspace;

use std::process::ExitCode;

use clap::CommandFactory as _;
use oci_cache_cli::{commands, output, program};

use crate::cli::{Cli, Command};
use crate::workspace::workspaces;

fn main() -> ExitCode {
    program::run(|| {
        let cli: Cli = program::parse();
        match &cli.command {
            None => output::print_styled(&Cli::command().render_help().ansi().to_string()),
            Some(Command::CachePrune(arguments)) => commands::prune::run(arguments, &workspaces()),
            Some(Command::CacheVerify(arguments)) => commands::verify::run(arguments, &workspaces()),
            Some(Command::CacheUsage(arguments)) => commands::usage::run(arguments, &workspaces()),
            Some(Command::CacheDir(arguments)) => commands::dir::run(arguments),
            Some(Command::Dist(arguments)) => dist::run(arguments),
            Some(Command::Ci(arguments)) => ci::run(arguments),
            Some(Command::Smoke(arguments)) => proof::run("smoke", arguments),
            Some(Command::Torture(arguments)) => proof::run("torture", arguments),
            Some(Command::Fuzz(arguments)) => proof::run("fuzz", arguments),
            Some(Command::Bench(arguments)) => proof::run("bench", arguments),
            Some(Command::CliDocs(arguments)) => cli_docs::run(arguments),
        }
    })
}
