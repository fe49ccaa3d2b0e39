//! What `cargo xtask dist` makes, installed and run where users do.
//!
//! Guarantees: the files are built by `oci-cache-dist`, twice: the second time from a copy of the sources in another
//! directory and into another target directory. Both times they have the same bytes. The archive and the Debian package
//! are installed in a plain Debian without Rust, made for this by debootstrap; the image is built on the archive without
//! a network. All of it is in the directory of the exercise, and mounts are seen by nobody else.
//!
//! What it does not guarantee: anything but the same bytes if it is not root who runs it.

mod archive;
mod debian;
mod image;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use xshell::cmd;

use self::machine::Machine;
use crate::kit::process;
use crate::kit::shell::{output_of, shell};
use crate::kit::workspace::workspace;
use crate::smoke::prune::Prune;
use crate::smoke::table::Row;
use crate::smoke::tally::Tally;
use oci_cache_cli::output;

/// The time limit of a build.
const LIMIT: Duration = Duration::from_secs(900);

/// What was built.
#[derive(Debug)]
struct Built {
    archive: PathBuf,
    package: PathBuf,
}

/// Runs the exercise in a subdirectory of `directory`. `python` has the package `yaml`.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn row(prune: &Prune, python: &Path, directory: &Path) -> anyhow::Result<Row> {
    let directory = directory.join("packages");
    fs::create_dir(&directory).context("create a temporary directory")?;
    let mut tally = Tally::default();
    let is_root = rustix::process::geteuid().is_root();
    // It mostly waits for the network and the disk, and the builds for the processor.
    let machine = is_root.then(|| Machine::start(&directory.join("debian"))).transpose()?;
    let built = build_twice(prune, &directory, &mut tally)?;
    match machine {
        Some(machine) => {
            let machine = machine.finish()?;
            debian::check(&machine, &built.package, &mut tally)?;
            archive::check(&machine, &built.archive, &mut tally)?;
            image::check(&machine, &built.archive, python, &directory, &mut tally)?;
        }
        None => output::complain("smoke: only root can install a Debian, so what is built is not installed"),
    }
    Ok(Row { exercise: "what dist builds", may_fail: false, tally })
}

/// Builds everything here and elsewhere, and compares.
fn build_twice(prune: &Prune, directory: &Path, tally: &mut Tally) -> anyhow::Result<Built> {
    let (here, elsewhere, sources) =
        (directory.join("here"), directory.join("elsewhere"), directory.join("a copy of the sources"));
    build(prune, &here, &mut Command::new(prune.dist()))?;
    let shell = shell()?;
    let workspace = workspace();
    let listed =
        output_of(cmd!(shell, "git -C {workspace} ls-files --cached --others --exclude-standard -z"))?;
    fs::create_dir(&sources).context("create a temporary directory")?;
    for file in listed.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (workspace.join(file), sources.join(file));
        // A file that was removed, and is not yet committed so.
        if from.exists() {
            fs::create_dir_all(to.parent().unwrap_or(&sources)).context("copy the sources")?;
            fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    let time = output_of(cmd!(shell, "git -C {workspace} log -1 --format=%ct"))?;
    let mut dist = Command::new(prune.dist());
    dist.arg("--manifest-path").arg(sources.join("Cargo.toml"));
    dist.env("CARGO_TARGET_DIR", directory.join("another target")).env("SOURCE_DATE_EPOCH", time.trim());
    build(prune, &elsewhere, &mut dist)?;

    let names = names(&here)?;
    let others = self::names(&elsewhere)?;
    tally.check(names == others, || format!("one build makes {names:?}, another one {others:?}"));
    for name in &names {
        let (one, other) = (fs::read(here.join(name))?, fs::read(elsewhere.join(name)).unwrap_or_default());
        tally.check(one == other, || format!("{name} has other bytes if it is built elsewhere"));
    }
    let check = cmd!(shell, "sha256sum --check --strict --quiet SHA256SUMS");
    shell.change_dir(&here);
    let sums = output_of(check);
    tally.check(sums.is_ok(), || format!("{sums:?}"));
    let find = |end: &str| {
        let name = names.iter().find(|name| name.ends_with(end));
        name.map(|name| here.join(name)).with_context(|| format!("dist made no {end}: {names:?}"))
    };
    Ok(Built { archive: find(".tar.gz")?, package: find(".deb")? })
}

fn build(prune: &Prune, out: &Path, dist: &mut Command) -> anyhow::Result<()> {
    ensure!(prune.dist().exists(), "{} was not built: run `cargo xtask smoke`", prune.dist().display());
    process::must(dist.arg("--out").arg(out), LIMIT).context("build what is installed").map(drop)
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
