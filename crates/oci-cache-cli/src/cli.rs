//! The command line: the arguments of each command, declared once for all programs that offer it.
//!
//! Guarantees: the doc comment above a command's arguments is its help text in every such program.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use oci_cache::Pin;

use crate::units::{self, GivenAmount};
use crate::{examples, exit};

/// Prune, inspect and verify a local cache of OCI layer blobs.
#[derive(Debug, Parser)]
#[command(name = "oci-cache", version, after_help = exit::styled_help())]
pub(crate) struct Cli {
    /// What to do. Without a command, print this help.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The program's commands. The help of each stands above its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(after_long_help = examples::PRUNE.help("oci-cache prune"))]
    Prune(Box<PruneArguments>),
    #[command(after_long_help = examples::USAGE.help("oci-cache usage"))]
    Usage(UsageArguments),
    #[command(after_long_help = examples::VERIFY.help("oci-cache verify"))]
    Verify(VerifyArguments),
    Dir(DirArguments),
    Completions(CompletionsArguments),
}

/// The groups of flags in the help.
const WHAT_GOES: &str = "What goes";
const WHEN_TO_STOP: &str = "When to stop";
const SAFETY: &str = "Safety";
const OUTPUT: &str = "Output";
const CACHE: &str = "Cache";

const PRUNE_ABOUT: &str = "\
Free space in the cache: remove blobs and unfinished downloads that nobody uses, and report in one line what was freed.

Without flags, all that is not in use goes. Filters narrow that down; all of them must match. Goals stop the prune early: \
the least recently used goes first. Last use is the later of the last write and the last read that the mount recorded.

While a pull is under way, only what has certainly been idle for --grace goes; the rest stays, and the prune says what \
shows the pull.";

const USAGE_ABOUT: &str = "\
Show what is in the cache, by kind, age and size, and what common policies would free.

Of an image, `size` is what it needs, `own` is what goes if only this image is removed, and `holes` is how much of it is \
missing. Partials are unfinished downloads; unreferenced blobs are those that no image needs.";

/// Where the cache is.
#[derive(Debug, Args)]
pub(crate) struct LocationArguments {
    /// The cache's directory.
    ///
    /// Default: $BANGER_OCI_CACHE_DIR; else, for root, /var/cache/banger/oci; else
    /// $XDG_CACHE_HOME/banger/oci; else ~/.cache/banger/oci.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = CACHE)]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// The arguments that all commands on a cache share.
#[derive(Debug, Args)]
pub(crate) struct CacheArguments {
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Human, help_heading = OUTPUT)]
    pub(crate) format: Format,
    /// Print only the result, warnings and errors: no progress, and no notes but of what the prune had to go without.
    #[arg(short, long, conflicts_with = "verbose", help_heading = OUTPUT)]
    pub(crate) quiet: bool,
    /// List each entry, its fate and the reason on stderr; with --format json, in the object too. `usage` instead shows
    /// names and digests whole.
    #[arg(short, long, help_heading = OUTPUT)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) location: LocationArguments,
    /// How long to wait for the cache's lock, such as 90s, 5m or 1h: another prune may hold it, or a script under
    /// `flock -s`. Only prunes wait.
    #[arg(long, value_name = "AGE", value_hint = ValueHint::Other, default_value = "5m", value_parser = units::age, help_heading = CACHE)]
    pub(crate) wait_timeout: Duration,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    Human,
    /// One JSON object on one line.
    Json,
}

/// Free space in the cache, and report in one line what was freed.
#[derive(Debug, Args)]
#[command(long_about = PRUNE_ABOUT, after_help = exit::styled_help())]
pub struct PruneArguments {
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
    /// Remove exactly the entries that FILE lists and that have not changed. FILE must be a regular file that belongs
    /// to you or to root, and that nobody else can write.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["policy", "aside", "save_plan"], help_heading = WHAT_GOES)]
    pub(crate) from_plan: Option<PathBuf>,
    /// Move the whole cache aside in one step, then remove it. A pull in flight loses what it has written so far, and may
    /// fail. Refused if the directory has a file that is not the cache's.
    #[arg(long, conflicts_with_all = ["strict", "watch_first"], help_heading = WHAT_GOES)]
    pub(crate) aside: bool,
    /// Only report what would be freed; change nothing.
    #[arg(short = 'n', long, help_heading = SAFETY)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) grace: GraceArguments,
    #[command(flatten)]
    pub(crate) strictness: StrictArguments,
    /// With --dry-run: write what would be removed to FILE, for --from-plan. If FILE is -, the plan goes to stdout, and
    /// the result to stderr.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "dry_run", help_heading = OUTPUT)]
    pub(crate) save_plan: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) record: RecordArguments,
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Where the result goes besides stdout.
#[derive(Debug, Args)]
#[command(next_help_heading = OUTPUT)]
pub(crate) struct RecordArguments {
    /// Append a Markdown table of the result to the file named by $GITHUB_STEP_SUMMARY.
    #[arg(long)]
    pub(crate) github_summary: bool,
    /// Write the result to FILE as metrics in the Prometheus text format. Use another FILE for each cache and command, in a
    /// directory that only you and root can change.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) metrics_file: Option<PathBuf>,
}

/// What to keep while a pull is under way.
#[derive(Debug, Args)]
#[command(next_help_heading = SAFETY)]
pub(crate) struct GraceArguments {
    /// While a pull is under way, remove only what has certainly been idle for AGE.
    ///
    /// Idle means neither written nor read, where the mount would have recorded a read. With 0s, only files that are
    /// open, or are used once the prune has begun to look for pulls, are kept: for a disk that is full now, or for a
    /// mount that does not record reads (noatime) and on which pulls never rest.
    #[arg(long, value_name = "AGE", value_hint = ValueHint::Other, default_value = "1h", value_parser = units::age)]
    pub(crate) grace: Duration,
    /// Watch the cache for --grace before removing anything. What nobody opens, creates or renames meanwhile has certainly
    /// been idle for so long.
    ///
    /// So the prune can go on where something reads the cache all the time, or where the mount does not record reads. Other
    /// prunes wait meanwhile, scripts under `flock -s` do not. If everything that is to go has certainly been idle for --grace
    /// anyway, the prune does not wait.
    #[arg(long)]
    pub(crate) watch_first: bool,
}

/// What to do where the kernel does not help.
#[derive(Debug, Args)]
#[command(next_help_heading = SAFETY)]
pub(crate) struct StrictArguments {
    /// Keep what cannot be checked for use, instead of removing it by age and policy alone.
    ///
    /// What cannot be leased stays, with its image: files of another user without CAP_LEASE, and files on NFS. Without
    /// inotify, a pull counts as under way. Without Landlock, nothing is removed: exit code 2. The prune always looks for
    /// pulls, which takes half a second, or five after a read of a layout's index.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Filters narrow down what may be removed; all of them must match. Goals say when the prune stops.
///
/// With a goal, the least recently used is removed first. Last use is the later of the last write and the
/// last read that the mount recorded.
#[derive(Debug, Args)]
#[group(id = "policy", multiple = true, conflicts_with = "aside")]
#[command(next_help_heading = WHAT_GOES)]
pub(crate) struct PolicyArguments {
    /// Only entries neither written nor read for AGE, such as 90m, 12h, 7d or 2w.
    #[arg(long, value_name = "AGE", value_hint = ValueHint::Other, value_parser = units::age)]
    pub(crate) older_than: Option<Duration>,
    /// Of the blobs, only those that the OCI layout's index does not lead to. Without --older-than, blobs written
    /// within the last hour stay.
    #[arg(long)]
    pub(crate) unreferenced: bool,
    /// Only corrupt blobs. Hashes every blob first, as `verify` does.
    #[arg(long)]
    pub(crate) corrupt: bool,
    /// Only images of this name, or of this digest of a manifest, index or config ("image ID"); repeatable. Everything
    /// else stays.
    #[arg(long, value_name = "NAME|DIGEST", value_hint = ValueHint::Other, conflicts_with_all = ["unreferenced", "corrupt"])]
    pub(crate) image: Vec<Pin>,
    /// Only images without a name, and those of --image.
    #[arg(long, conflicts_with_all = ["unreferenced", "corrupt"])]
    pub(crate) untagged: bool,
    /// Keep the image of this name, or the blob of this digest with the images that need it; repeatable.
    #[arg(long, value_name = "NAME|DIGEST", value_hint = ValueHint::Other)]
    pub(crate) keep: Vec<Pin>,
    /// Keep what FILE, a regular file (or - for standard input), lists: one name or digest per line, an OCI index or
    /// manifest, or the output of crictl, docker, podman or skopeo; repeatable.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) keep_from: Vec<PathBuf>,
    /// Stop once the cache's files total at most SIZE, such as 5GiB or 500MB, or a share of the file system, such as
    /// 20%.
    #[arg(long, value_name = "SIZE|PERCENT%", value_hint = ValueHint::Other, value_parser = units::amount, help_heading = WHEN_TO_STOP)]
    pub(crate) max_used_space: Option<GivenAmount>,
    /// Stop once the file system has at least this much free space, such as 20GB or 10%.
    #[arg(long, value_name = "SIZE|PERCENT%", value_hint = ValueHint::Other, value_parser = units::amount, help_heading = WHEN_TO_STOP)]
    pub(crate) min_free_space: Option<GivenAmount>,
}

/// Show what is in the cache, by kind, age and size, and what common policies would free.
#[derive(Debug, Args)]
#[command(long_about = USAGE_ABOUT, after_help = exit::styled_help())]
pub struct UsageArguments {
    /// With --check: exit with 3 if the cache's files total more than SIZE, or than a share of the file system.
    #[arg(long, value_name = "SIZE|PERCENT%", value_hint = ValueHint::Other, value_parser = units::amount, requires = "check")]
    pub(crate) max_used_space: Option<GivenAmount>,
    /// Check the cache against --max-used-space.
    #[arg(long, requires = "max_used_space")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) record: RecordArguments,
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Hash every blob, and list those whose content does not match their digest.
#[derive(Debug, Args)]
#[command(after_help = exit::styled_help())]
pub struct VerifyArguments {
    /// Remove the corrupt blobs, and the entries of index.json whose manifest is not there. Nothing else goes.
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) grace: GraceArguments,
    #[command(flatten)]
    pub(crate) strictness: StrictArguments,
    /// Hash only small blobs and those that look truncated: a wrong size, a missing trailer, no content. The
    /// result line then starts with "quickly checked".
    #[arg(long)]
    pub(crate) quick: bool,
    /// Read at idle I/O priority: only when nothing else uses the disk.
    #[arg(long)]
    pub(crate) io_idle: bool,
    #[command(flatten)]
    pub(crate) record: RecordArguments,
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Print the cache directory that the other commands would use.
#[derive(Debug, Args)]
#[command(after_help = exit::styled_help())]
pub struct DirArguments {
    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

/// Print shell completions.
#[derive(Debug, Args)]
#[command(after_help = exit::styled_help())]
pub struct CompletionsArguments {
    /// The shell to complete in.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}
