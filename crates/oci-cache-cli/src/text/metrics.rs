//! The result in the Prometheus text format, for the node exporter's textfile collector.
//!
//! Guarantees: pure. All values are gauges of the last run. Names and units follow the Prometheus naming
//! conventions (base units, `_bytes`, `_seconds`).

use std::fmt::Write as _;
use std::time::Duration;

use oci_cache::{PruneReport, Timestamp};

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
    let mut gauge = |name: &str, help: &str, samples: &[(String, String)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP oci_cache_{name} {help}\n# TYPE oci_cache_{name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "oci_cache_{name}{labels} {value}");
        }
    };
    let plain = |value: String| vec![(String::new(), value)];
    if let Some(report) = run.report {
        gauge(
            "prune_freed_bytes",
            "Logical size of the files removed.",
            &plain(report.bytes_freed.to_string()),
        );
        let disk = report.disk_bytes_freed.to_string();
        gauge(
            "prune_freed_disk_bytes",
            "Disk space of the removed files that have no other links.",
            &plain(disk),
        );
        gauge("prune_freed_blobs", "Files removed.", &plain(report.blobs_freed.to_string()));
        let kept = report.kept.by_reason();
        let by_reason = |value: fn(&oci_cache::Tally) -> u64| {
            let samples = kept.iter();
            let samples = samples.map(|(reason, tally)| {
                (format!("{{reason=\"{}\"}}", reason.name()), value(tally).to_string())
            });
            samples.collect::<Vec<_>>()
        };
        gauge("prune_kept_blobs", "Blobs kept, by reason.", &by_reason(|tally| tally.blobs));
        gauge(
            "prune_kept_bytes",
            "Logical size of the blobs kept, by reason.",
            &by_reason(|tally| tally.bytes),
        );
        gauge(
            "prune_failures",
            "Entries that could not be inspected or removed.",
            &plain(report.failures.len().to_string()),
        );
        gauge("prune_dry_run", "1 for a dry run, else 0.", &plain(u8::from(report.dry_run).to_string()));
    }
    if let Some(bytes) = run.cache_bytes {
        let help = "Logical size of the cache's files after the run.";
        gauge("used_bytes", help, &plain(bytes.to_string()));
    }
    gauge("prune_duration_seconds", "How long the run took.", &plain(run.duration.as_secs_f64().to_string()));
    gauge("prune_exit_status", "Exit status of the run.", &plain(run.exit.code().to_string()));
    let started = Duration::from_nanos(u64::try_from(run.started.0).unwrap_or(0)).as_secs_f64();
    gauge(
        "prune_last_run_timestamp_seconds",
        "Start of the run, in Unix time.",
        &plain(format!("{started:.3}")),
    );
    text
}
