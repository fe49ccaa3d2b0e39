//! `--github-summary`: the result as a Markdown table in a GitHub Actions job's summary.
//!
//! Guarantees: as [`OutputFile`]. If the file cannot be opened for appending, the command fails before it does anything.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use oci_cache::escape_path;

use crate::exit::UsageError;
use crate::output_file::OutputFile;
use crate::report::Report;
use crate::text::summary;

const VARIABLE: &str = "GITHUB_STEP_SUMMARY";
/// What an error says first.
const OPENING: &str = "open the summary file";

/// The summary file, open for appending.
#[derive(Debug)]
pub(crate) struct Summary {
    path: PathBuf,
    file: File,
}

impl Summary {
    /// Opens the file, which must be outside the cache.
    pub(crate) fn open(cache: &Path) -> anyhow::Result<Self> {
        let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        let path = path.map(PathBuf::from).ok_or_else(|| {
            anyhow!(UsageError(format!(
                "--github-summary: {VARIABLE} is not set; GitHub Actions sets it in every step"
            )))
        })?;
        let file = OutputFile::find(&path, Some(cache), OPENING)?;
        let file = file.append().with_context(|| format!("{OPENING} `{}`", escape_path(&path)))?;
        Ok(Self { path, file })
    }

    /// Appends the table.
    pub(crate) fn append(mut self, report: &Report) -> anyhow::Result<()> {
        let written = self.file.write_all(summary::table(report).as_bytes());
        written.with_context(|| format!("append to the summary file `{}`", escape_path(&self.path)))
    }
}
