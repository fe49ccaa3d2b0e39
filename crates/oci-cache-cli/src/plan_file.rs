//! Saves and loads plans.
//!
//! Guarantees: a plan is written to stdout, or as in [`output_file`]. A plan that is read says what to remove, so nobody
//! but root and the user who carries it out may have written it; that is checked on the open file. Anything wrong with it
//! is a usage error, and nothing is touched.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use oci_cache::{CacheDir, PrunePlan, SavedPlan, escape_path, save_plan};
use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::exit::UsageError;
use crate::output_file;

/// The maximum size of a plan to read. A plan of a million blobs takes about 350 MB.
const MAX_PLAN_BYTES: u64 = 4 << 30;

/// Whether a plan is to be saved to stdout.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes the plan.
pub(crate) fn save(path: &Path, plan: &mut PrunePlan, cache: &CacheDir) -> anyhow::Result<()> {
    if is_stdout(path) {
        let mut stdout = BufWriter::new(io::stdout().lock());
        return match save_plan(plan, cache, &mut stdout).and_then(|()| stdout.flush()) {
            // As for every result: the reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            saved => saved.context("write the plan to stdout"),
        };
    }
    output_file::write(path, |writer| save_plan(plan, cache, writer))
        .with_context(|| format!("save the plan as `{}`", escape_path(path)))
}

/// Reads a plan, which must have been made for this cache.
pub(crate) fn load(path: &Path, cache: &CacheDir) -> anyhow::Result<SavedPlan> {
    read(path, cache)
        .map_err(|error| anyhow!(UsageError(format!("read the plan `{}`: {error:#}", escape_path(path)))))
}

fn read(path: &Path, cache: &CacheDir) -> anyhow::Result<SavedPlan> {
    // Opening a FIFO would wait for its writer.
    let without_waiting = i32::try_from(OFlags::NONBLOCK.bits())?;
    let file = File::options().read(true).custom_flags(without_waiting).open(path)?;
    check(&file.metadata()?, geteuid().as_raw(), &escape_path(path))?;
    let mut content = Vec::new();
    file.take(MAX_PLAN_BYTES).read_to_end(&mut content)?;
    let plan = SavedPlan::from_json(&content)?;
    plan.check_directory(cache)?;
    Ok(plan)
}

/// Checks that nobody but root and this user can have written the file.
fn check(found: &Metadata, user: u32, path: &str) -> anyhow::Result<()> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    if !found.is_file() {
        return Err(anyhow!("it is not a regular file: save the plan as a file, and name that"));
    }
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
