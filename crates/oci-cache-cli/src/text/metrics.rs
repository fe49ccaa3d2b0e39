//! The result in the Prometheus text format, for the node exporter's textfile collector.
//!
//! Guarantees: pure. All values are gauges of the last run. Names and units follow the Prometheus naming
//! conventions (base units, `_bytes`, `_seconds`).

use std::fmt::{Display, Write as _};
use std::time::Duration;

use oci_cache::{PruneReport, Tally, Timestamp};

use crate::exit::Exit;

/// A run, measured.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// What the run did; none if it ended with an error.
    pub(crate) report: Option<&'a PruneReport>,
    /// The total size of the cache's files after the run, in bytes, if known.
    pub(crate) cache_bytes: Option<u64>,
    /// How long it took.
    pub(crate) duration: Duration,
    /// How it ended.
    pub(crate) exit: Exit,
    /// When it began.
    pub(crate) started: Timestamp,
}

/// The metrics of a run.
pub(crate) fn text(run: &Run<'_>) -> String {
    let mut text = String::new();
    if let Some(report) = run.report {
        add_report(&mut text, report);
    }
    if let Some(bytes) = run.cache_bytes {
        gauge(&mut text, "used_bytes", "Logical size of the cache's files after the run.", bytes);
    }
    let duration = run.duration.as_secs_f64();
    gauge(&mut text, "prune_duration_seconds", "How long the run took.", duration);
    gauge(&mut text, "prune_exit_status", "Exit status of the run.", run.exit.code());
    let started = Duration::from_nanos(u64::try_from(run.started.0).unwrap_or(0)).as_secs_f64();
    let started = format!("{started:.3}");
    gauge(&mut text, "prune_last_run_timestamp_seconds", "Start of the run, in Unix time.", started);
    text
}

/// Adds what a prune removed, kept and could not do.
fn add_report(text: &mut String, report: &PruneReport) {
    gauge(text, "prune_freed_bytes", "Logical size of the files removed.", report.bytes_freed);
    let disk = "Disk space of the removed files that have no other links.";
    gauge(text, "prune_freed_disk_bytes", disk, report.disk_bytes_freed);
    gauge(text, "prune_freed_blobs", "Files removed.", report.blobs_freed);
    gauge_by_reason(text, "prune_kept_blobs", "Blobs kept, by reason.", report, |kept| kept.blobs);
    let bytes = "Logical size of the blobs kept, by reason.";
    gauge_by_reason(text, "prune_kept_bytes", bytes, report, |kept| kept.bytes);
    let failures = "Entries that could not be inspected or removed.";
    gauge(text, "prune_failures", failures, report.failures.len());
    gauge(text, "prune_dry_run", "1 for a dry run, else 0.", u8::from(report.dry_run));
}

/// Adds a gauge with one sample.
fn gauge(text: &mut String, name: &str, help: &str, value: impl Display) {
    add_head(text, name, help);
    add_sample(text, name, "", value);
}

/// Adds a gauge with one sample for each reason to keep a blob.
fn gauge_by_reason(
    text: &mut String,
    name: &str,
    help: &str,
    report: &PruneReport,
    value: fn(&Tally) -> u64,
) {
    add_head(text, name, help);
    for (reason, tally) in &report.kept.by_reason() {
        add_sample(text, name, &format!("{{reason=\"{}\"}}", reason.name()), value(tally));
    }
}

fn add_head(text: &mut String, name: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP oci_cache_{name} {help}\n# TYPE oci_cache_{name} gauge");
}

fn add_sample(text: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = writeln!(text, "oci_cache_{name}{labels} {value}");
}
