//! `--metrics-file`: writes the metrics of a run.
//!
//! Guarantees: as [`output_file`].

use std::path::Path;

use anyhow::Context as _;
use oci_cache::escape_path;

use crate::output_file;
use crate::text::metrics::{self, Run};

/// Writes the metrics of a run.
pub(crate) fn write(path: &Path, run: &Run<'_>) -> anyhow::Result<()> {
    output_file::write(path, |writer| writer.write_all(metrics::text(run).as_bytes()))
        .with_context(|| format!("write the metrics file `{}`", escape_path(path)))
}
