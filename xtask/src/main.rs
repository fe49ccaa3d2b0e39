//! The commands of the OCI blob cache pruner: `cargo xtask <command>`.
//!
//! This file dispatches; `cli` declares the commands, and each has a file of its own.

mod bench;
mod cache_dir;
mod cache_prune;
mod cache_usage;
mod cache_verify;
mod ci;
mod cli;
mod cli_docs;
mod clock;
mod completions;
mod exit;
mod github_summary;
mod location;
mod lock;
mod metrics;
mod output;
mod output_file;
mod plan_file;
mod policy;
mod progress_bar;
mod render;
mod render_usage;
mod signals;
mod smoke;
mod torture;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command};
use crate::exit::Exit;

fn main() -> ExitCode {
    signals::outlive_size_limit();
    let cli = Cli::parse();
    let done = match &cli.command {
        None => output::print(&Cli::command().render_help().to_string()),
        Some(Command::CachePrune(arguments)) => cache_prune::run(arguments),
        Some(Command::CacheVerify(arguments)) => cache_verify::run(arguments),
        Some(Command::CacheUsage(arguments)) => cache_usage::run(arguments),
        Some(Command::CacheDir(arguments)) => cache_dir::run(arguments),
        Some(Command::Completions(arguments)) => completions::run(arguments),
        Some(Command::Ci) => ci::run(),
        Some(Command::Bench(arguments)) => bench::run(arguments),
        Some(Command::Torture(arguments)) => torture::run(arguments),
        Some(Command::Smoke(arguments)) => smoke::run(arguments).map(|()| Exit::Done),
        Some(Command::CliDocs(arguments)) => cli_docs::run(arguments),
    };
    done.unwrap_or_else(|error| {
        output::complain(&format!("error: {error:#}"));
        Exit::of_error(&error)
    })
    .into()
}
