//! Saved plans as files.
//!
//! Guarantees: a plan file is complete or not there, since it is written aside and renamed. Whatever is
//! wrong with a plan that is read is a usage error: nothing is touched.

use std::fs;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use oci_cache::{CacheDir, PrunePlan, SavedPlan, escape_path, save_plan};
use tempfile::NamedTempFile;

use crate::exit::UsageError;

/// The most that is read of a plan: one of a million blobs takes about 350 MB.
const MAX_PLAN_BYTES: u64 = 4 << 30;

/// Writes the plan.
pub(crate) fn save(path: &Path, plan: &PrunePlan, cache: &CacheDir) -> anyhow::Result<()> {
    write_whole(path, |writer| save_plan(plan, cache, writer))
        .with_context(|| format!("save the plan as `{}`", escape_path(path)))
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut NamedTempFile>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = NamedTempFile::new_in(directory)?;
    // Readable by all, as a file of its kind is: metrics are collected by another user.
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let mut writer = BufWriter::new(&mut file);
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.persist(path)?;
    Ok(())
}

/// Reads a plan made for this cache.
pub(crate) fn load(path: &Path, cache: &CacheDir) -> anyhow::Result<SavedPlan> {
    read(path, cache)
        .map_err(|error| anyhow!(UsageError(format!("read the plan `{}`: {error:#}", escape_path(path)))))
}

fn read(path: &Path, cache: &CacheDir) -> anyhow::Result<SavedPlan> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_PLAN_BYTES).read_to_end(&mut content)?;
    let plan = SavedPlan::from_json(&content)?;
    plan.check_directory(cache)?;
    Ok(plan)
}
