//! The torture: the pruner runs under faults, kills, pulls and attacks, and on hostile caches.
//!
//! Guarantees: the pruner is a separate process. All files are in one temporary directory and all mounts in a
//! mount namespace of this run. Both disappear at the end, however the run ends. Every loop is bounded and
//! every program has a time limit. Everything that must not happen is counted as lost, listed, and fails the
//! command. Nothing is retried. Where a detector could be blind, a negative control checks it.
//!
//! What it does not guarantee: that what did not happen is impossible. `docs/reliability.md` has the figures.

mod age;
mod attack;
mod attributes;
mod beside;
mod clients;
mod control;
mod faults;
mod hostile;
mod index;
mod kills;
mod leases;
mod links;
mod measured;
mod mode;
mod mounts;
mod nested_pull;
mod nobody;
mod puller;
mod row;
mod sandbox;
mod stage;
mod storm;
mod strace;
mod surroundings;
mod sweep;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use tempfile::TempDir;

use self::row::Row;
use self::stage::Stage;
use crate::kit::programs::{self, Program};
use oci_cache_cli::exit::Exit;
use oci_cache_cli::output;

/// The programs that the parts need.
const PROGRAMS: [Program; 21] = [
    ("strace", "strace"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("btrfs", "btrfs-progs"),
    ("cp", "coreutils"),
    ("bindfs", "bindfs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("chattr", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("prlimit", "util-linux"),
    ("fsfreeze", "util-linux"),
    ("timeout", "coreutils"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("capsh", "libcap2-bin"),
    ("dd", "coreutils"),
    ("setfacl", "acl"),
    ("getfacl", "acl"),
    ("setfattr", "attr"),
    ("getfattr", "attr"),
];

/// The arguments of `torture`.
#[derive(Debug, clap::Args)]
pub(crate) struct TortureArguments {
    /// Try samples of everything: about ten minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the figures into docs/reliability.md; without --quick that is done anyhow
    #[arg(long, conflicts_with = "only")]
    pub(crate) publish: bool,
    /// Run this part only
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) only: Option<Part>,
    /// Where this program keeps its files, once it is in a mount namespace of its own
    #[arg(long, hide = true, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// What this program plays in a part
    #[arg(hide = true, last = true)]
    role: Vec<OsString>,
}

/// The parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Every system call fails
    Faults,
    /// The prune is killed before every system call
    Kills,
    /// Pulls and prunes without pause
    Storm,
    /// Clients of a flat cache, beside prunes without pause
    Beside,
    /// A scanner, a file system that is frozen, opens at the last moment
    Leases,
    /// Clients change a layout's index while a prune does
    Index,
    /// Names are swapped for links while root prunes
    Attack,
    /// A user plays with links around the files that root writes
    Links,
    /// Names, documents and lists that are meant to do harm
    Hostile,
    /// Mounts, room on the disk, limits, signals
    Surroundings,
}

impl Part {
    const ALL: [Self; 10] = [
        Self::Faults,
        Self::Kills,
        Self::Storm,
        Self::Beside,
        Self::Leases,
        Self::Index,
        Self::Attack,
        Self::Links,
        Self::Hostile,
        Self::Surroundings,
    ];

    fn rows(self, stage: &Stage) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Faults => faults::rows(stage),
            Self::Kills => kills::rows(stage),
            Self::Storm => storm::rows(stage),
            Self::Beside => beside::rows(stage),
            Self::Leases => leases::rows(stage),
            Self::Index => index::rows(stage),
            Self::Attack => attack::rows(stage),
            Self::Links => links::rows(stage),
            Self::Hostile => hostile::rows(stage),
            Self::Surroundings => surroundings::rows(stage),
        }
    }
}

/// Runs the parts on the program and prints the table.
///
/// # Errors
///
/// If a program is missing, a part cannot run, or anything is lost.
pub(crate) fn run(arguments: &TortureArguments, program: &Path) -> anyhow::Result<Exit> {
    if !arguments.role.is_empty() {
        return play(&arguments.role).map(|()| Exit::Done);
    }
    match &arguments.scratch {
        None => run_in_own_namespace(arguments, program),
        Some(scratch) => run_here(arguments, program, scratch),
    }
}

/// Plays a role in a part, on behalf of another process of this program.
fn play(role: &[OsString]) -> anyhow::Result<()> {
    let words: Vec<&str> = role.iter().filter_map(|word| word.to_str()).collect();
    match words.split_first() {
        Some((&"puller", rest)) => puller::play(rest),
        Some((&"clients", rest)) => clients::play(rest),
        Some((&"scanner", rest)) => leases::scan(rest),
        Some((&"swapper", rest)) => attack::roles::swap(rest),
        Some((&"old-index", rest)) => index::naive::prune(rest),
        Some((&"by-path", rest)) => links::naive::write(rest),
        Some((&"naive", rest)) => attack::roles::remove(rest),
        _ => Err(anyhow!("no such role: {role:?}")),
    }
}

/// Runs this program again, in a mount namespace of its own and with a temporary directory.
fn run_in_own_namespace(arguments: &TortureArguments, program: &Path) -> anyhow::Result<Exit> {
    programs::check("torture", &PROGRAMS)?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "torture mounts file systems and changes users, so it must run as root"
    );
    let scratch = TempDir::with_prefix("oci-cache-torture-").context("make a temporary directory")?;
    // Other users need access to what is in it.
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o711))
        .with_context(|| format!("give other users access to {}", scratch.path().display()))?;
    let proof = this_program()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(proof);
    command.arg("--program").arg(program).args(["torture", "--scratch"]).arg(scratch.path());
    if arguments.quick {
        command.arg("--quick");
    }
    if arguments.publish {
        command.arg("--publish");
    }
    if let Some(part) = arguments.only.as_ref().and_then(clap::ValueEnum::to_possible_value) {
        command.args(["--only", part.get_name()]);
    }
    let status = command.status().context("run `unshare`")?;
    // The child has reported what failed.
    Ok(if status.success() { Exit::Done } else { Exit::Incomplete })
}

fn run_here(arguments: &TortureArguments, program: &Path, scratch: &Path) -> anyhow::Result<Exit> {
    let started = Instant::now();
    mounts::tmpfs(scratch, "mode=0711,size=6g")?;
    let stage = Stage {
        scratch: scratch.to_owned(),
        program: mounts::copy_for_all(program, scratch, "oci-cache")?,
        proof: mounts::copy_for_all(&this_program()?, scratch, "oci-cache-proof")?,
        quick: arguments.quick,
    };
    let mut rows = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| arguments.only.is_none_or(|only| only == *part)) {
        let at = started.elapsed().as_secs();
        output::complain(&format!("torture: {part:?} starts after {at} s"));
        match part.rows(&stage) {
            Ok(more) => rows.extend(more),
            Err(error) => {
                // A whole run takes long: show what it found so far.
                output::print(&row::told(&rows))?;
                return Err(error.context(format!("{part:?}")));
            }
        }
    }
    let printed = output::print(&row::told(&rows))?;
    output::complain(&format!("torture: done after {} s", started.elapsed().as_secs()));
    let lost: u64 = rows.iter().map(|row| row.lost).sum();
    if arguments.publish || !arguments.quick && arguments.only.is_none() {
        measured::write(&rows, arguments.quick, started.elapsed())?;
    }
    match lost {
        0 => Ok(printed),
        lost => Err(anyhow!("torture: {lost} thing(s) lost")),
    }
}

fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find the path of this program")
}
