//! Saves and loads plans.
//!
//! Guarantees: a plan is written to stdout, or as an [`OutputFile`]. A plan that is read says what to remove, so nobody
//! but root and the user who carries it out may have written it; that is checked on the open file. Anything wrong with it
//! is a usage error, and nothing is touched. Reading never waits.

use std::fs::Metadata;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use oci_cache::{CacheDir, MAX_PLAN_BYTES, PrunePlan, SavedPlan, escape_path, save_plan};
use rustix::process::geteuid;

use crate::exit::UsageError;
use crate::input_file;
use crate::output_file::OutputFile;

/// What an error says first.
const SAVING: &str = "save the plan as";

/// Where a plan goes.
#[derive(Debug)]
pub(crate) enum Target {
    Stdout,
    File(OutputFile),
}

/// Finds where to save the plan. A file must be outside the cache.
pub(crate) fn target(path: &Path, cache: &Path) -> anyhow::Result<Target> {
    if is_stdout(path) {
        return Ok(Target::Stdout);
    }
    Ok(Target::File(OutputFile::find(path, Some(cache), SAVING)?))
}

/// Whether a plan is to be saved to stdout.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes the plan.
pub(crate) fn save(
    target: &Target,
    path: &Path,
    plan: &mut PrunePlan,
    cache: &CacheDir,
) -> anyhow::Result<()> {
    let Target::File(file) = target else {
        let mut stdout = BufWriter::new(io::stdout().lock());
        return match save_plan(plan, cache, &mut stdout).and_then(|()| stdout.flush()) {
            // As for every result: the reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            saved => saved.context("write the plan to stdout"),
        };
    };
    file.write(|writer| save_plan(plan, cache, writer))
        .with_context(|| format!("{SAVING} `{}`", escape_path(path)))
}

/// Reads a plan.
pub(crate) fn load(path: &Path) -> anyhow::Result<SavedPlan> {
    read(path).map_err(|error| unusable(path, &error))
}

/// Checks that the plan was made for this cache.
pub(crate) fn check_directory(path: &Path, plan: &SavedPlan, cache: &CacheDir) -> anyhow::Result<()> {
    plan.check_directory(cache).map_err(|error| unusable(path, &error.into()))
}

fn unusable(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    anyhow!(UsageError(format!("read the plan `{}`: {error:#}", escape_path(path))))
}

fn read(path: &Path) -> anyhow::Result<SavedPlan> {
    let file = input_file::open(path, "save the plan as a file, and name that")?;
    let found = file.metadata()?;
    check(&found, geteuid().as_raw(), &escape_path(path))?;
    if found.len() > MAX_PLAN_BYTES {
        let size = banger_fmt::format_bytes(MAX_PLAN_BYTES);
        return Err(anyhow!("it is larger than {size}: plan a part, as with --older-than"));
    }
    Ok(SavedPlan::from_reader(file)?)
}

/// Checks that nobody but root and this user can have written the file.
fn check(found: &Metadata, user: u32, path: &str) -> anyhow::Result<()> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    if ![user, 0].contains(&found.uid()) {
        let owner = found.uid();
        return Err(anyhow!(
            "it belongs to user {owner}, but only a plan of your own, or of root, is carried out: read it, then copy it to \
             a file of your own"
        ));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(anyhow!("other users can write it: read it, then run `chmod go-w {path}`"));
    }
    Ok(())
}
