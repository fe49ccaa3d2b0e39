//! The command line. The commands on caches take the same arguments as the program `oci-cache`.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};
use oci_cache_cli::cli::{DirArguments, PruneArguments, UsageArguments, VerifyArguments};
use oci_cache_cli::{examples, exit};

/// Prune, inspect and verify a local cache of OCI layer blobs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = exit::styled_help())]
pub(crate) struct Cli {
    /// What to do. Without a command, print this help.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(after_long_help = examples::PRUNE.help("cargo xtask cache-prune"))]
    CachePrune(Box<PruneArguments>),
    #[command(after_long_help = examples::VERIFY.help("cargo xtask cache-verify"))]
    CacheVerify(VerifyArguments),
    #[command(after_long_help = examples::USAGE.help("cargo xtask cache-usage"))]
    CacheUsage(UsageArguments),
    CacheDir(DirArguments),
    /// Build what people install: an archive, a Debian package, and their checksums.
    Dist(OtherArguments),
    /// Run the project's own checks: format, lints, tests, documentation.
    Ci(CiArguments),
    /// Prune real caches while real tools pull into them, and count what breaks.
    Smoke(OtherArguments),
    /// Prune under faults, kills, pulls and attacks, and count what is lost.
    Torture(OtherArguments),
    /// Feed random input, guided by coverage, to all that reads what others wrote; needs cargo-fuzz.
    Fuzz(OtherArguments),
    /// Measure the pruner beside other tools, and write the results into docs/.
    Bench(OtherArguments),
    /// Generate docs/cli.md from the declarations of the command lines, and docs/pictures from what the program prints.
    CliDocs(CliDocsArguments),
}

/// The arguments of `ci`.
#[derive(Debug, Args)]
pub(crate) struct CiArguments {
    /// Fail if a test was skipped for want of what it needs, such as root.
    #[arg(long)]
    pub(crate) no_skips: bool,
    /// Run the tests once more as the user `nobody`; needs root.
    #[arg(long)]
    pub(crate) also_as_nobody: bool,
}

/// The arguments of another program.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct OtherArguments {
    /// Passed on unchanged; --help lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// The arguments of `cli-docs`.
#[derive(Debug, Args)]
pub(crate) struct CliDocsArguments {
    /// Only check that they are up to date.
    #[arg(long)]
    pub(crate) check: bool,
}
