//! Saves and loads plans.
//!
//! Guarantees: a plan is written as in [`output_file`]. Anything wrong with a plan that is read is a usage
//! error, and nothing is touched.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use oci_cache::{CacheDir, PrunePlan, SavedPlan, escape_path, save_plan};

use crate::exit::UsageError;
use crate::output_file;

/// The maximum size of a plan to read. A plan of a million blobs takes about 350 MB.
const MAX_PLAN_BYTES: u64 = 4 << 30;

/// Writes the plan.
pub(crate) fn save(path: &Path, plan: &mut PrunePlan, cache: &CacheDir) -> anyhow::Result<()> {
    output_file::write(path, |writer| save_plan(plan, cache, writer))
        .with_context(|| format!("save the plan as `{}`", escape_path(path)))
}

/// Reads a plan, which must have been made for this cache.
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
