//! The live exercise: the pruner runs while real tools fill caches.
//!
//! Guarantees: all files are in one temporary directory, which is removed at the end. The registry listens on
//! the loopback interface only, and ends with the exercise. The pruner is a separate process, as users run
//! it. Every forbidden failure is counted, listed, and fails the command. No failed pull is retried.
//!
//! What it does not guarantee: that a failure that did not occur is impossible. The exercise takes some
//! minutes.

mod damage;
mod distance;
mod fill;
mod flat_cache;
mod fleet;
mod heal;
mod idle;
mod images;
mod mutation;
mod oci_layouts;
mod packages;
mod prune;
mod registry;
mod stores;
mod table;
pub(crate) mod tally;
mod trace;
mod units;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use self::images::Images;
use self::prune::Prune;
use self::registry::Registry;
use self::table::Row;
use crate::kit::programs::{self, Program};
use crate::kit::workspace::workspace;
use crate::kit::{machine, section};
use oci_cache_cli::exit::Exit;
use oci_cache_cli::output;

/// The programs that the exercises need.
const PROGRAMS: [Program; 13] = [
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("buildah", "buildah"),
    ("podman", "podman"),
    ("strace", "strace"),
    ("curl", "curl"),
    ("setpriv", "util-linux"),
    ("promtool", "prometheus"),
    ("systemd-analyze", "systemd"),
    ("python3", "python3-venv"),
    ("debootstrap", "debootstrap"),
    ("git", "git"),
];

/// The arguments of `smoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct SmokeArguments {
    /// How many pulls run at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
    /// Write the table into docs/reliability.md
    #[arg(long)]
    pub(crate) publish: bool,
}

/// Runs all exercises of the program and prints the table.
///
/// # Errors
///
/// If a program is missing, an exercise cannot run, or there is a forbidden failure.
pub(crate) fn run(arguments: &SmokeArguments, program: &Path) -> anyhow::Result<Exit> {
    programs::check("smoke", &PROGRAMS)?;
    let started = Instant::now();
    let scratch = TempDir::with_prefix("oci-cache-smoke-").context("create a temporary directory")?;
    let prune = Prune::new(program);
    let registry = Registry::start(scratch.path())?;
    output::complain("smoke: build and push images");
    let images = Images::build_and_push(&registry, scratch.path())?;

    output::complain("smoke: OCI layouts: pull without prunes, then beside prunes");
    let mut rows = oci_layouts::rows(&prune, &images, scratch.path(), arguments.jobs)?;
    output::complain("smoke: flat cache: pull beside prunes in place, then aside");
    rows.extend(flat_cache::rows(&prune, scratch.path(), arguments.jobs)?);
    output::complain("smoke: idle caches: compare reports with the disk");
    rows.extend(idle::rows(&prune, &images, scratch.path())?);
    output::complain("smoke: poison a cache by killed pulls, then heal it");
    rows.push(heal::row(&prune, &images, scratch.path())?);
    output::complain("smoke: stores of buildah, podman and umoci");
    rows.push(stores::row(&prune, &images, scratch.path())?);
    output::complain("smoke: trace the system calls of a dry run");
    rows.push(trace::row(&prune, &images, scratch.path())?);
    output::complain("smoke: check the files for fleets");
    rows.push(fleet::row(&prune, &images, scratch.path())?);
    output::complain("smoke: run the systemd units");
    rows.push(units::row(&prune, &images, scratch.path())?);
    output::complain("smoke: build, install and remove what people install");
    rows.push(packages::row(&prune, &fleet::python(scratch.path()), scratch.path())?);

    let printed = output::print(&table::render(&rows))?;
    if arguments.publish {
        let command = format!("cargo xtask smoke --jobs {} --publish", arguments.jobs);
        let source = machine::source(&command, started.elapsed())?;
        let measured = format!("\n{source}\n\n{}\n", table::markdown(&rows));
        section::write_named(&workspace().join("docs/reliability.md"), "smoke", &measured)?;
    }
    verdict(&rows).map(|()| printed)
}

fn verdict(rows: &[Row]) -> anyhow::Result<()> {
    let failures: u64 = rows.iter().map(Row::forbidden_failures).sum();
    if failures > 0 {
        bail!("smoke: {failures} forbidden failure(s)");
    }
    Ok(())
}
