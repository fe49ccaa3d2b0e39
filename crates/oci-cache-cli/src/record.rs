//! `--metrics-file` and `--github-summary`: records a run, the same way for every command.
//!
//! Guarantees: the metrics are written however the run ends, after everything else. A metrics file that is refused, and a
//! summary that cannot be opened, fail the run before it does anything; a run without a result appends nothing.

use std::time::Instant;

use oci_cache::CacheDir;

use crate::cli::{LocationArguments, RecordArguments};
use crate::exit::{Exit, UsageError};
use crate::github_summary::Summary;
use crate::held_off::Hold;
use crate::report::Report;
use crate::text::metrics::Run;
use crate::{clock, location, metrics_file};

/// How a command ended, and its result.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) exit: Exit,
    /// The result; none if the command was stopped before it had one.
    pub(crate) report: Option<Report>,
}

/// Does the work of the command of this name, and records it.
///
/// # Errors
///
/// The error of the work takes precedence over errors of the records.
pub(crate) fn run(
    command: &'static str,
    arguments: &RecordArguments,
    location: &LocationArguments,
    work: impl FnOnce() -> anyhow::Result<Done>,
) -> anyhow::Result<Exit> {
    let (started, clock) = (clock::now(), Instant::now());
    let directory = location::cache_dir(location).ok();
    let found = match &arguments.metrics_file {
        None => None,
        Some(path) => match metrics_file::find(path, directory.as_deref()) {
            Err(error) if error.is::<UsageError>() => return Err(error),
            // If it cannot be written, the work is done all the same.
            found => Some((path, found)),
        },
    };
    let result = summarised(arguments, location, work);
    let Some((path, found)) = found else { return Ok(result?.exit) };
    // Where the cache is said to be, if that is no valid place.
    let directory = directory.or_else(|| location.cache_dir.clone()).unwrap_or_default();
    let run = Run {
        command,
        cache_dir: &std::path::absolute(&directory).unwrap_or_else(|_| directory.clone()),
        exists: CacheDir::open(&directory, &[]).ok().map(|cache| cache.exists()),
        report: result.as_ref().ok().and_then(|done| done.report.as_ref()),
        hold: Hold::of(result.as_ref().map(|done| done.report.as_ref())),
        exit: result.as_ref().map_or_else(Exit::of_error, |done| done.exit),
        started,
        ended: clock::now(),
        duration: clock.elapsed(),
    };
    let written = found.and_then(|file| metrics_file::write(path, &file, &run));
    let done = result?;
    written?;
    Ok(done.exit)
}

/// Does the work, and appends its result to the summary, if one is wanted.
fn summarised(
    arguments: &RecordArguments,
    location: &LocationArguments,
    work: impl FnOnce() -> anyhow::Result<Done>,
) -> anyhow::Result<Done> {
    if !arguments.github_summary {
        return work();
    }
    let summary = Summary::open(&location::cache_dir(location)?)?;
    let done = work()?;
    if let Some(report) = &done.report {
        summary.append(report)?;
    }
    Ok(done)
}
