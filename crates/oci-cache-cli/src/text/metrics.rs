//! A run in the Prometheus text format, for the node exporter's textfile collector.
//!
//! Guarantees: pure. All values are gauges of the last run. Names and units follow the Prometheus naming
//! conventions (base units, `_bytes`, `_seconds`). The files of several caches, and those of several commands on
//! one cache, repeat no series, so they can share a directory.

use std::path::Path;
use std::time::Duration;

use oci_cache::{Goal, PruneReport, Tally, Timestamp};

use crate::exit::Exit;
use crate::held_off::{HeldOff, Hold, RUNS, SINCE};
use crate::report::Report;
use crate::report::usage::UsageReport;
use crate::report::verify::VerifyReport;
use crate::text::gauges::{Gauges, value_in};

/// A run, measured.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// The command's name, which the metrics' names contain.
    pub(crate) command: &'static str,
    /// The cache's absolute path.
    pub(crate) cache_dir: &'a Path,
    /// Whether there is a directory at the path after the run, if that is known.
    pub(crate) exists: Option<bool>,
    /// What the run found and did; none if it ended before that.
    pub(crate) report: Option<&'a Report>,
    /// Whether it is a prune that was held off.
    pub(crate) hold: Hold,
    /// How it ended.
    pub(crate) exit: Exit,
    /// When it began.
    pub(crate) started: Timestamp,
    /// When it ended.
    pub(crate) ended: Timestamp,
    /// How long it took.
    pub(crate) duration: Duration,
}

impl Run<'_> {
    /// Whether the run did what it was asked to do. A dry run does not.
    fn is_done(&self) -> bool {
        let is_dry_run = matches!(self.report, Some(Report::Prune(report)) if report.dry_run);
        self.exit.is_done() && !is_dry_run
    }

    /// The end of the last run that was done, in seconds of Unix time; 0 if there was none. `earlier` is the file of
    /// the run before.
    fn last_success(&self, earlier: Option<&str>) -> f64 {
        let (started, ended) = (unix_seconds(self.started), unix_seconds(self.ended));
        if self.is_done() {
            return ended;
        }
        let name = format!("{}_last_success_timestamp_seconds", self.command);
        let told = earlier.and_then(|text| value_in(text, &name, self.cache_dir));
        // A time in the future would hide for long that no run succeeds.
        told.filter(|seconds| (0.0..=started).contains(seconds)).unwrap_or(0.0)
    }
}

/// The metrics of a run. `earlier` is the file of the run before, if there is one.
pub(crate) fn text(run: &Run<'_>, earlier: Option<&str>) -> String {
    let mut gauges = Gauges::of_cache(run.cache_dir);
    match run.report {
        Some(Report::Prune(report)) => add_prune(&mut gauges, report),
        Some(Report::Verify(report)) => add_verify(&mut gauges, report),
        Some(Report::Usage(report)) => add_usage(&mut gauges, report),
        None => {}
    }
    add_room(&mut gauges, run);
    add_run(&mut gauges, run, earlier);
    if run.command == "prune" {
        add_held_off(&mut gauges, run, earlier);
    }
    gauges.into_text()
}

/// Adds how the run went.
fn add_run(gauges: &mut Gauges, run: &Run<'_>, earlier: Option<&str>) {
    let command = run.command;
    let mut add = |what: &str, help: &str, value: &str| gauges.add(&format!("{command}_{what}"), help, value);
    add("duration_seconds", "How long the run took.", &run.duration.as_secs_f64().to_string());
    add("exit_status", "Exit status of the run.", &run.exit.code().to_string());
    let time = |seconds: f64| format!("{seconds:.3}");
    let started = time(unix_seconds(run.started));
    add("last_run_timestamp_seconds", "Start of the run, in Unix time.", &started);
    let help = "End of the last run that was done, in Unix time; 0 if none was.";
    add("last_success_timestamp_seconds", help, &time(run.last_success(earlier)));
}

/// Adds since when prunes have been held off.
fn add_held_off(gauges: &mut Gauges, run: &Run<'_>, earlier: Option<&str>) {
    let held_off = HeldOff::after(run.hold, run.started, earlier, run.cache_dir);
    let since = held_off.map_or(0.0, |held_off| unix_seconds(held_off.since));
    let help = "Start of the first of the runs in a row that were held off, in Unix time; 0 if the last one was not.";
    gauges.add(SINCE, help, format!("{since:.3}"));
    let help = "Runs in a row that were held off: by the cache's lock, or by what may be a pull.";
    gauges.add(RUNS, help, held_off.map_or(0, |held_off| held_off.runs));
}

/// Adds whether the cache exists, and what it uses. Each command knows these, so they name the command.
fn add_room(gauges: &mut Gauges, run: &Run<'_>) {
    let mut add =
        |name: &str, help: &str, value: u64| gauges.add_by(name, help, "command", [(run.command, value)]);
    if let Some(exists) = run.exists {
        add("exists", "1 if the cache's directory exists after the run, else 0.", u64::from(exists));
    }
    let (used_bytes, available_bytes) = match run.report {
        Some(Report::Prune(report)) => (report.used_bytes, report.available_bytes),
        Some(Report::Usage(report)) => (report.usage.used_bytes, report.usage.available_bytes),
        Some(Report::Verify(_)) | None => return,
    };
    add("used_bytes", "What the cache's files use after the run.", used_bytes);
    if let Some(available_bytes) = available_bytes {
        let help = "Free space of the cache's file system after the run, for unprivileged processes.";
        add("available_bytes", help, available_bytes);
    }
}

/// Adds what a prune removed, kept, reached and could not do.
fn add_prune(gauges: &mut Gauges, report: &PruneReport) {
    gauges.add("prune_freed_bytes", "Logical size of the files removed.", report.bytes_freed);
    let disk = "Disk space of the removed files that have no other links.";
    gauges.add("prune_freed_disk_bytes", disk, report.disk_bytes_freed);
    gauges.add("prune_freed_blobs", "Files removed.", report.blobs_freed);
    let mut add_kept = |name: &str, help: &str, value: fn(&Tally) -> u64| {
        let kept = report.kept.by_reason();
        gauges.add_by(name, help, "reason", kept.iter().map(|(reason, tally)| (reason.name(), value(tally))));
    };
    add_kept("prune_kept_blobs", "Blobs kept, by reason.", |kept| kept.blobs);
    add_kept("prune_kept_bytes", "Logical size of the blobs kept, by reason.", |kept| kept.bytes);
    let failures = "Entries that could not be inspected or removed.";
    gauges.add("prune_failures", failures, report.failures.total());
    gauges.add("prune_dry_run", "1 for a dry run, else 0.", u8::from(report.dry_run));
    add_goals(gauges, &report.goals);
}

/// Adds how near a prune came to its goals.
fn add_goals(gauges: &mut Gauges, goals: &[Goal]) {
    if goals.is_empty() {
        return;
    }
    let mut add = |name: &str, help: &str, value: fn(&Goal) -> u64| {
        gauges.add_by(name, help, "goal", goals.iter().map(|goal| (goal.goal.name(), value(goal))));
    };
    add("goal_wanted_bytes", "What the prune's goal was, by goal.", |goal| goal.wanted);
    add("goal_reached_bytes", "What the prune reached, by goal.", |goal| goal.reached);
    add("goal_met", "1 if the goal was reached, else 0, by goal.", |goal| u64::from(goal.met));
}

/// Adds what a verification found and left.
fn add_verify(gauges: &mut Gauges, report: &VerifyReport) {
    gauges.add("verify_checked_blobs", "Blobs verified, intact or corrupt.", report.blobs_verified);
    gauges.add("verify_checked_bytes", "Logical size of the blobs verified.", report.bytes_verified);
    let reasons =
        [("in_use", report.in_use.blobs), ("changed", report.changed.blobs), ("unread", report.unread.blobs)];
    gauges.add_by("verify_unchecked_blobs", "Blobs not verified, by reason.", "reason", reasons);
    gauges.add("verify_corrupt_blobs", "Corrupt blobs found.", report.corrupt.len());
    gauges.add("verify_corrupt_left_blobs", "Corrupt blobs left after the run.", report.corrupt_left);
    gauges.add("verify_holes", "Holes found in the layout.", report.holes.len());
    gauges.add("verify_holes_left", "Holes left in the layout after the run.", report.holes_left);
    gauges.add("verify_quick", "1 for a quick check, else 0.", u8::from(report.quick));
}

/// Adds what is in the cache.
fn add_usage(gauges: &mut Gauges, report: &UsageReport) {
    let usage = &report.usage;
    gauges.add("usage_disk_bytes", "Disk space of the cache's files.", usage.disk_bytes);
    gauges.add("usage_blobs", "Blobs in the cache.", usage.blobs.blobs);
    gauges.add("usage_foreign", "Entries that do not belong to the cache.", usage.foreign);
    gauges.add("usage_images", "Images in the layout's index.", usage.images.len());
    let with_holes = report.images_with_holes();
    gauges.add("usage_images_with_holes", "Images that have holes.", with_holes);
    if let Some(unreferenced) = usage.unreferenced {
        let help = "Blobs that the layout's index does not lead to.";
        gauges.add("usage_unreferenced_blobs", help, unreferenced.blobs);
        let help = "Logical size of the blobs that the layout's index does not lead to.";
        gauges.add("usage_unreferenced_bytes", help, unreferenced.bytes);
    }
    if let Some(budget) = report.budget_bytes {
        gauges.add("usage_budget_bytes", "What --check allows the cache to use.", budget);
        let over = u8::from(report.is_over_budget());
        gauges.add("usage_over_budget", "1 if the cache uses more than --check allows, else 0.", over);
    }
}

/// Seconds of Unix time; 0 before 1970.
fn unix_seconds(time: Timestamp) -> f64 {
    Duration::from_nanos(u64::try_from(time.0).unwrap_or(0)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "verify_last_success_timestamp_seconds";

    /// A run from second 100 to second 101.
    fn run(exit: Exit, report: Option<&Report>) -> Run<'_> {
        Run {
            command: "verify",
            cache_dir: Path::new("/oci"),
            exists: None,
            report,
            hold: Hold::Unknown,
            exit,
            started: Timestamp(100_000_000_000),
            ended: Timestamp(101_000_000_000),
            duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_last_success_outlives_runs_that_fail() {
        let last =
            |exit, earlier: Option<&str>| value_in(&text(&run(exit, None), earlier), NAME, Path::new("/oci"));
        let earlier = format!("oci_cache_{NAME}{{cache_dir=\"/oci\"}} 42.500\n");
        let another = format!("oci_cache_{NAME}{{cache_dir=\"/oci2\"}} 42.500\n");
        let future = format!("oci_cache_{NAME}{{cache_dir=\"/oci\"}} 1000.000\n");
        for exit in [Exit::Done, Exit::Found] {
            assert_eq!(last(exit, Some(&earlier)), Some(101.0));
        }
        for exit in [Exit::Incomplete, Exit::Refused, Exit::Signalled(15)] {
            assert_eq!(last(exit, Some(&earlier)), Some(42.5));
            for earlier in [None, Some(another.as_str()), Some(future.as_str()), Some("")] {
                assert_eq!(last(exit, earlier), Some(0.0));
            }
        }
    }

    #[test]
    fn a_dry_run_is_no_success() {
        let report = PruneReport { dry_run: true, ..PruneReport::default() };
        let report = Report::Prune(Box::new(report));
        assert!(!run(Exit::Done, Some(&report)).is_done());
        let report = Report::Prune(Box::default());
        assert!(run(Exit::Done, Some(&report)).is_done());
    }
}
