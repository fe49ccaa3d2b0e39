//! The commands of the OCI blob cache pruner: `cargo xtask <command>`.
//!
//! This file declares and dispatches; each command has a file of its own.

mod bench;
mod ci;
mod cli_docs;
mod smoke;
mod torture;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use oci_cache_cli::cli::{
    CompletionsArguments, DirArguments, EXIT_CODES, PruneArguments, UsageArguments, VerifyArguments,
};
use oci_cache_cli::exit::Exit;
use oci_cache_cli::{commands, exit, output};

use crate::bench::BenchArguments;
use crate::smoke::SmokeArguments;
use crate::torture::TortureArguments;

/// Frees, inspects and checks a local cache of OCI layer blobs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do; without a command, this help is printed.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    CachePrune(PruneArguments),
    CacheVerify(VerifyArguments),
    CacheUsage(UsageArguments),
    CacheDir(DirArguments),
    Completions(CompletionsArguments),
    /// Run the project's own checks: format, lints, tests, documentation.
    Ci,
    /// Prune real caches while real tools pull into them, and count what breaks.
    Smoke(SmokeArguments),
    /// Prune under faults, kills, pulls and attacks, and count what is lost.
    Torture(TortureArguments),
    /// Measure the pruner beside other tools, and write the results into docs/.
    Bench(BenchArguments),
    /// Write docs/cli.md from the command line's own declarations.
    CliDocs(CliDocsArguments),
}

/// The arguments of `cli-docs`.
#[derive(Debug, Args)]
pub(crate) struct CliDocsArguments {
    /// Only check that docs/cli.md is up to date.
    #[arg(long)]
    pub(crate) check: bool,
}

/// The name under which the program is installed.
const PROGRAM: &str = "xtask";

fn main() -> ExitCode {
    exit::run(|| {
        let cli = Cli::parse();
        match &cli.command {
            None => output::print(&Cli::command().render_help().to_string()),
            Some(Command::CachePrune(arguments)) => commands::prune::run(arguments, &workspaces()),
            Some(Command::CacheVerify(arguments)) => commands::verify::run(arguments, &workspaces()),
            Some(Command::CacheUsage(arguments)) => commands::usage::run(arguments, &workspaces()),
            Some(Command::CacheDir(arguments)) => commands::dir::run(arguments),
            Some(Command::Completions(arguments)) => {
                commands::completions::run(arguments, Cli::command().name(PROGRAM).bin_name(PROGRAM))
            }
            Some(Command::Ci) => ci::run(),
            Some(Command::Bench(arguments)) => bench::run(arguments),
            Some(Command::Torture(arguments)) => torture::run(arguments),
            Some(Command::Smoke(arguments)) => smoke::run(arguments).map(|()| Exit::Done),
            Some(Command::CliDocs(arguments)) => cli_docs::run(arguments),
        }
    })
}

/// The workspaces, which are no caches either: the one that cargo runs this in, and the one it was built in.
fn workspaces() -> Vec<PathBuf> {
    let manifests = [std::env::var_os("CARGO_MANIFEST_DIR"), Some(env!("CARGO_MANIFEST_DIR").into())];
    let workspaces = manifests.iter().flatten().filter_map(|manifest| Path::new(manifest).parent());
    workspaces.map(Path::to_owned).collect()
}
