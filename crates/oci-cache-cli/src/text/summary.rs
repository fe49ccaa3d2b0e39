//! The result as a Markdown table.
//!
//! Guarantees: pure; names from the disk are escaped, and no name can break out of its cell.

use banger_fmt::format_bytes;
use oci_cache::{PruneReport, escape_path};

use crate::text::reason::of_keeping;

/// The table, under a heading.
pub(crate) fn table(report: &PruneReport) -> String {
    // A bar would end the cell, and a backtick the code span.
    let directory = escape_path(&report.cache_dir).replace('|', "\\|").replace('`', "'");
    let verb = if report.dry_run { "would be freed" } else { "freed" };
    let mut table = format!("### OCI blob cache\n\n| `{directory}` | blobs | size |\n|---|--:|--:|\n");
    let mut row = |what: &str, blobs: u64, bytes: u64| {
        table.push_str(&format!("| {what} | {blobs} | {} |\n", format_bytes(bytes)));
    };
    row(verb, report.blobs_freed, report.bytes_freed);
    for (reason, tally) in report.kept.by_reason().into_iter().filter(|(_, tally)| tally.blobs > 0) {
        row(&format!("kept: {}", of_keeping(reason)), tally.blobs, tally.bytes);
    }
    if !report.failures.is_empty() {
        table.push_str(&format!("| failed | {} | |\n", report.failures.len()));
    }
    table.push('\n');
    table
}
