//! The command line, declared.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::smoke::SmokeArguments;

/// Frees, inspects and checks a local cache of OCI layer blobs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do; without a command, this help is printed.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, also if there was nothing to do; 1 not all of it could be done, what was done is \
reported; 2 wrong usage, or a directory that is refused; 130, 143 stopped by SIGINT, SIGTERM.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Free the cache, and say in one line what was freed.
    #[command(long_about = PRUNE_ABOUT)]
    CachePrune(CachePruneArguments),
    /// Print the directory that the other commands would use.
    CacheDir(CacheDirArguments),
    /// Run the project's own checks: format, lints, tests, documentation.
    Ci,
    /// Prune real caches while real tools pull into them, and count what breaks.
    Smoke(SmokeArguments),
    /// Write docs/cli.md from the command line's own declarations.
    CliDocs(CliDocsArguments),
}

const PRUNE_ABOUT: &str = "\
In place (the default) it removes every blob that no process has open, and broken-off downloads; a pull in \
flight keeps its directories and open files, and fetches again what was removed.
With --aside the whole cache is exchanged for an empty directory, then removed; a pull in flight loses what it \
has written so far and may fail.";

/// Where the cache is.
#[derive(Debug, Args)]
pub(crate) struct CacheDirArguments {
    /// The cache's directory.
    ///
    /// Without it: $BANGER_OCI_CACHE_DIR; else, for root, /var/cache/banger/oci; else
    /// $XDG_CACHE_HOME/banger/oci; else ~/.cache/banger/oci.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// What the cache commands have in common.
#[derive(Debug, Args)]
pub(crate) struct CacheArguments {
    #[command(flatten)]
    pub(crate) location: CacheDirArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
    /// Print the result and errors only, no notes and no progress.
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// List each entry with its fate and the reason, on stderr.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How long to wait for another prune of the same cache, such as 90s, 5m or 1h.
    #[arg(long, value_name = "AGE", default_value = "5m", value_parser = humantime::parse_duration)]
    pub(crate) wait_timeout: Duration,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One line for people.
    Human,
    /// One JSON object on one line.
    Json,
}

/// The arguments of `cache-prune`.
#[derive(Debug, Args)]
pub(crate) struct CachePruneArguments {
    /// Only say what would be freed; change nothing.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Take the whole cache aside in one step, then remove it.
    #[arg(long)]
    pub(crate) aside: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// The arguments of `cli-docs`.
#[derive(Debug, Args)]
pub(crate) struct CliDocsArguments {
    /// Only check that docs/cli.md is up to date.
    #[arg(long)]
    pub(crate) check: bool,
}
