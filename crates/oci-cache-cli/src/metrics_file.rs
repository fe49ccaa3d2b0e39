//! `--metrics-file`: writes the metrics of a run.
//!
//! Guarantees: as [`OutputFile`]. Of the file of the run before, only the time of the last success, and since when
//! prunes were held off, are taken over, of the same command on the same cache.

use std::path::Path;

use anyhow::Context as _;
use oci_cache::escape_path;

use crate::output_file::OutputFile;
use crate::text::metrics::{self, Run};

/// What an error says first.
const WRITING: &str = "write the metrics file";

/// Finds the file, which must be outside the cache.
pub(crate) fn find(path: &Path, cache: Option<&Path>) -> anyhow::Result<OutputFile> {
    OutputFile::find(path, cache, WRITING)
}

/// What the run before wrote, if that can be told.
pub(crate) fn earlier(path: Option<&Path>) -> Option<String> {
    path.and_then(|path| find(path, None).ok()?.read_again())
}

/// Writes the metrics of a run.
pub(crate) fn write(path: &Path, file: &OutputFile, run: &Run<'_>) -> anyhow::Result<()> {
    let text = metrics::text(run, file.read_again().as_deref());
    file.write(|writer| writer.write_all(text.as_bytes()))
        .with_context(|| format!("{WRITING} `{}`", escape_path(path)))
}
