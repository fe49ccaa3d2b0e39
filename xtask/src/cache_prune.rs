//! `cargo xtask cache-prune`: frees the cache, and says in one line what was freed.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use oci_cache::{
    CacheDir, Policy, Progress, PrunePlan, PruneReport, References, Space, Timestamp, apply, apply_aside,
    escape_path, scan, select,
};

use crate::cli::{CacheArguments, CachePruneArguments};
use crate::exit::Exit;
use crate::signals::Signals;
use crate::{location, output, progress_bar, render};

pub(crate) fn run(arguments: &CachePruneArguments) -> anyhow::Result<Exit> {
    let progress = Progress::default();
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    let directory = location::cache_dir(&arguments.cache.location)?;
    let mut cache = CacheDir::open(&directory, &location::protected())?;
    if !arguments.dry_run && !lock(&mut cache, &arguments.cache, &progress)? {
        return Ok(signals.exit().unwrap_or(Exit::Incomplete));
    }
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    let now = Timestamp::from(SystemTime::now());
    let plan = select(scan(&cache)?, References::default(), &Policy::default(), now, Space::default());
    let report = if arguments.dry_run {
        plan.preview()
    } else {
        progress_bar::show(!arguments.cache.quiet, &progress, plan.total(), || {
            if arguments.aside { apply_aside(&cache, &plan, &progress) } else { Ok(apply(&plan, &progress)) }
        })?
    };
    let printed = print(&arguments.cache, &plan, &report)?;
    let done = if report.is_complete() { printed } else { Exit::Incomplete };
    Ok(signals.exit().unwrap_or(done))
}

/// Waits to become the one prune of the cache. Returns `false` if a signal came meanwhile.
fn lock(cache: &mut CacheDir, arguments: &CacheArguments, progress: &Progress) -> anyhow::Result<bool> {
    const POLL: Duration = Duration::from_millis(20);
    let started = Instant::now();
    let mut has_told = false;
    while !cache.try_lock()? {
        if progress.is_stopped() {
            return Ok(false);
        }
        let path = escape_path(cache.path());
        let limit = humantime::format_duration(arguments.wait_timeout);
        if started.elapsed() >= arguments.wait_timeout {
            return Err(anyhow!("lock oci cache `{path}`: still locked by another process after {limit}"));
        }
        if !has_told && !arguments.quiet {
            output::complain(&format!("waiting up to {limit} for another prune of `{path}`"));
        }
        has_told = true;
        thread::sleep(POLL);
    }
    Ok(true)
}

/// Prints the result on stdout, and the rest on stderr.
fn print(arguments: &CacheArguments, plan: &PrunePlan, report: &PruneReport) -> anyhow::Result<Exit> {
    if arguments.verbose {
        output::complain_all(render::entries(plan, report));
    }
    if !arguments.quiet {
        output::complain_all(render::notes(report));
    }
    output::complain_all(render::failures(report));
    output::print(&render::result(report, arguments.format)?)
}
