//! The proof of the program `oci-cache`: `oci-cache-proof --program PATH smoke|torture|fuzz|bench|pictures`.
//!
//! Guarantees: the proof runs the program at that path as a separate process, as users run it. This file only
//! dispatches. `cli` declares the commands, and each command has a file of its own.

mod bench;
mod cli;
mod fuzz;
mod kit;
mod pictures;
mod smoke;
mod torture;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use oci_cache_cli::{output, program};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    program::run(|| {
        let cli = Cli::parse();
        // Parts of the proof run in other directories.
        let program = std::path::absolute(&cli.program)
            .with_context(|| format!("make the path `{}` absolute", cli.program.display()))?;
        match &cli.command {
            Command::Smoke(arguments) => smoke::run(arguments, &program),
            Command::Torture(arguments) => torture::run(arguments, &program),
            Command::Fuzz(arguments) => fuzz::run(arguments),
            Command::Bench(arguments) => bench::run(arguments, &program),
            Command::Pictures(arguments) => pictures::run(arguments, &program),
            Command::Markdown => output::print(&cli::markdown()),
        }
    })
}
