//! `cargo xtask cache-dir`: prints the directory that the other commands would use.

use anyhow::Context as _;
use oci_cache::escape_path;

use crate::cli::CacheDirArguments;
use crate::exit::Exit;
use crate::{location, output};

pub(crate) fn run(arguments: &CacheDirArguments) -> anyhow::Result<Exit> {
    let directory = location::cache_dir(arguments)?;
    let absolute = std::path::absolute(&directory)
        .with_context(|| format!("make the path `{}` absolute", escape_path(&directory)))?;
    output::print(&format!("{}\n", escape_path(&absolute)))
}
