//! The command line, declared: the arguments of each command, once for all programs that have it.
//!
//! Guarantees: what a command is about stands above its arguments, and is the help of each such program.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use oci_cache::{Digest, FreeSpace};

use crate::units;

/// Frees, inspects and checks a local cache of OCI layer blobs.
#[derive(Debug, Parser)]
#[command(name = "oci-cache", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do; without a command, this help is printed.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What every program that has the commands says of its exit codes.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done, also if there was nothing to do; 1 not all of it could be done, what was done is \
reported; 2 wrong usage, or a directory that is refused; 3 `verify` found corrupt blobs that stay, or \
`usage --check` found the cache over its budget; \
130, 143 stopped by SIGINT, SIGTERM.";

/// The program's commands; what each is about stands above its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Prune(PruneArguments),
    Usage(UsageArguments),
    Verify(VerifyArguments),
    Dir(DirArguments),
    Completions(CompletionsArguments),
}

const PRUNE_ABOUT: &str = "\
In place (the default) it removes every blob that no process has open, and broken-off downloads; a pull in \
flight keeps its directories and open files, and fetches again what was removed.
With --aside the whole cache is exchanged for an empty directory, then removed; a pull in flight loses what it \
has written so far and may fail.";

/// Where the cache is.
#[derive(Debug, Args)]
pub(crate) struct LocationArguments {
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
    pub(crate) location: LocationArguments,
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
    #[arg(long, value_name = "AGE", default_value = "5m", value_parser = units::age)]
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

/// Free the cache, and say in one line what was freed.
#[derive(Debug, Args)]
#[command(long_about = PRUNE_ABOUT)]
pub struct PruneArguments {
    /// Only say what would be freed; change nothing.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Take the whole cache aside in one step, then remove it.
    #[arg(long)]
    pub(crate) aside: bool,
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
    /// With --dry-run: write what would go to FILE, for --from-plan.
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub(crate) save_plan: Option<PathBuf>,
    /// Remove exactly what FILE lists and is still what it was.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "aside", "save_plan"])]
    pub(crate) from_plan: Option<PathBuf>,
    /// Append a Markdown table of the result to the file that $GITHUB_STEP_SUMMARY names.
    #[arg(long)]
    pub(crate) github_summary: bool,
    /// Write the result to FILE as metrics in Prometheus' text format.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Filters, all of which must hold, and goals, at which the prune ends.
///
/// Goals take the least recently used first. Last use is the later of the last write and the last read
/// that the mount recorded.
#[derive(Debug, Args)]
#[group(id = "policy", multiple = true, conflicts_with = "aside")]
pub(crate) struct PolicyArguments {
    /// Only what was neither written nor read for AGE, such as 90m, 12h, 7d or 2w.
    #[arg(long, value_name = "AGE", value_parser = units::age)]
    pub(crate) older_than: Option<Duration>,
    /// Only blobs that the OCI layout's index does not lead to.
    #[arg(long)]
    pub(crate) unreferenced: bool,
    /// Only corrupt blobs: every blob is hashed first, as `verify` does.
    #[arg(long)]
    pub(crate) corrupt: bool,
    /// Keep the blob, or the image, with this digest; may be given again.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) keep: Vec<Digest>,
    /// Keep what FILE (- for standard input) lists: a digest a line, or an OCI index or manifest.
    #[arg(long, value_name = "FILE")]
    pub(crate) keep_from: Vec<PathBuf>,
    /// Stop when the cache's files have at most SIZE together, such as 5GiB or 500MB.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) max_used_space: Option<u64>,
    /// Stop when the file system has at least so much room, such as 20GB or 10%.
    #[arg(long, value_name = "SIZE|PERCENT%", value_parser = units::free_space)]
    pub(crate) min_free_space: Option<FreeSpace>,
}

/// Show what is in the cache, by kind, age and size, and what common policies would free.
#[derive(Debug, Args)]
pub struct UsageArguments {
    /// With --check: exit 3 if the cache's files have more than SIZE together.
    #[arg(long, value_name = "SIZE", value_parser = units::size, requires = "check")]
    pub(crate) max_used_space: Option<u64>,
    /// Check --max-used-space.
    #[arg(long, requires = "max_used_space")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Hash every blob, and list those whose content does not hash to their name.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Remove the corrupt blobs, and nothing else.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Hash only small blobs and those that show a sign of ending early: a wrong size, a missing trailer, no
    /// content. The line then begins with "quickly checked".
    #[arg(long)]
    pub(crate) quick: bool,
    /// Read at idle I/O priority: only when nobody else wants the disk.
    #[arg(long)]
    pub(crate) io_idle: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Print the directory that the other commands would use.
#[derive(Debug, Args)]
pub struct DirArguments {
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Print completions for a shell.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}
