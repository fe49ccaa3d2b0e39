//! `--metrics-file`: writes the metrics of a run.
//!
//! Guarantees: as [`output_file`]. Of the file of the run before, only the time of the last success, and since when
//! prunes were held off, are taken over, of the same command on the same cache.

use std::path::Path;

use anyhow::Context as _;
use oci_cache::escape_path;

use crate::output_file;
use crate::text::metrics::{self, Run};

/// What the run before wrote, if that can be told.
pub(crate) fn earlier(path: Option<&Path>) -> Option<String> {
    path.and_then(output_file::read_again)
}

/// Writes the metrics of a run.
pub(crate) fn write(path: &Path, run: &Run<'_>) -> anyhow::Result<()> {
    let text = metrics::text(run, output_file::read_again(path).as_deref());
    output_file::write(path, |writer| writer.write_all(text.as_bytes()))
        .with_context(|| format!("write the metrics file `{}`", escape_path(path)))
}
