//! `--github-summary`: the result as a Markdown table in a GitHub Actions job's summary.
//!
//! Guarantees: a file that cannot be appended to is an error before anything is removed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use banger_fmt::format_bytes;
use oci_cache::{PruneReport, escape_path};

use crate::exit::UsageError;
use crate::output_file;

const VARIABLE: &str = "GITHUB_STEP_SUMMARY";

/// The file that the summary goes to, open.
#[derive(Debug)]
pub(crate) struct Summary {
    path: PathBuf,
    file: File,
}

impl Summary {
    /// Opens the file, which must lie outside the cache.
    pub(crate) fn open(cache: &Path) -> anyhow::Result<Self> {
        let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        let path = path.map(PathBuf::from).ok_or_else(|| {
            anyhow!(UsageError(format!(
                "--github-summary: {VARIABLE} is not set; GitHub Actions sets it in every step"
            )))
        })?;
        output_file::check_outside(&path, cache)?;
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let file = file.with_context(|| format!("open the summary `{}`", escape_path(&path)))?;
        Ok(Self { path, file })
    }

    /// Appends the table.
    pub(crate) fn append(mut self, report: &PruneReport) -> anyhow::Result<()> {
        let written = self.file.write_all(table(report).as_bytes());
        written.with_context(|| format!("append the summary to `{}`", escape_path(&self.path)))
    }
}

fn table(report: &PruneReport) -> String {
    // A cell ends at a bar, and a code span at a backtick.
    let directory = escape_path(&report.cache_dir).replace('|', "\\|").replace('`', "'");
    let verb = if report.dry_run { "would be freed" } else { "freed" };
    let mut table = format!("### OCI blob cache\n\n| `{directory}` | blobs | size |\n|---|--:|--:|\n");
    let mut row = |what: &str, blobs: u64, bytes: u64| {
        table.push_str(&format!("| {what} | {blobs} | {} |\n", format_bytes(bytes)));
    };
    row(verb, report.blobs_freed, report.bytes_freed);
    for (reason, tally) in report.kept.by_reason().into_iter().filter(|(_, tally)| tally.blobs > 0) {
        row(&format!("kept: {}", reason.description()), tally.blobs, tally.bytes);
    }
    if !report.failures.is_empty() {
        table.push_str(&format!("| failed | {} | |\n", report.failures.len()));
    }
    table.push('\n');
    table
}
