//! `dir`: prints the directory that the other commands would use.

use std::time::Instant;

use anyhow::Context as _;
use oci_cache::escape_path;
use serde_json::json;

use crate::cli::DirArguments;
use crate::exit::Exit;
use crate::{answer, location};

/// Runs the command.
///
/// # Errors
///
/// If no cache directory is set.
pub fn run(arguments: &DirArguments) -> anyhow::Result<Exit> {
    answer::or_problem(&arguments.cache, |started| print_directory(arguments, started))
}

fn print_directory(arguments: &DirArguments, started: Instant) -> anyhow::Result<Exit> {
    let directory = location::cache_dir(&arguments.cache.location)?;
    let absolute = std::path::absolute(&directory)
        .with_context(|| format!("make the path `{}` absolute", escape_path(&directory)))?;
    let exists = absolute.is_dir();
    let absolute = escape_path(&absolute);
    let result = json!({ "cache_dir": absolute, "exists": exists });
    answer::print(arguments.cache.format, started, &result, || format!("{absolute}\n"))
}
