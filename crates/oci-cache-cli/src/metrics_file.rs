//! `--metrics-file`: writes the metrics of a run.
//!
//! Guarantees: as [`output_file`]. Of the file of the run before, only the time of the last success of the same
//! command on the same cache is taken over.

use std::path::Path;

use anyhow::Context as _;
use oci_cache::escape_path;

use crate::output_file;
use crate::text::metrics::{self, Run};

/// Writes the metrics of a run.
pub(crate) fn write(path: &Path, run: &Run<'_>) -> anyhow::Result<()> {
    let text = metrics::text(run, output_file::read_again(path).as_deref());
    output_file::write(path, |writer| writer.write_all(text.as_bytes()))
        .with_context(|| format!("write the metrics file `{}`", escape_path(path)))
}
