//! `dir`: prints the directory that the other commands would use.

use anyhow::Context as _;
use oci_cache::escape_path;
use serde_json::json;

use crate::cli::{DirArguments, Format};
use crate::exit::Exit;
use crate::{location, output};

/// Runs the command.
///
/// # Errors
///
/// If no cache directory is set.
pub fn run(arguments: &DirArguments) -> anyhow::Result<Exit> {
    let directory = location::cache_dir(&arguments.cache.location)?;
    let absolute = std::path::absolute(&directory)
        .with_context(|| format!("make the path `{}` absolute", escape_path(&directory)))?;
    let absolute = escape_path(&absolute);
    output::print(&match arguments.cache.format {
        Format::Human => format!("{absolute}\n"),
        Format::Json => format!("{}\n", json!({ "cache_dir": absolute })),
    })
}
