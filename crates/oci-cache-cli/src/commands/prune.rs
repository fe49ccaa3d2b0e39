//! `prune`: frees space in the cache, and reports in one line what was freed.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use oci_cache::{
    CacheDir, Check, Error, Failure, Lock, Policy, Progress, PrunePlan, PruneReport, Pruned, Space,
    apply_aside, apply_to_goal, check_aside, scan, select,
};

use crate::cli::PruneArguments;
use crate::commands::verify;
use crate::exit::{Exit, UsageError};
use crate::github_summary::Summary;
use crate::progress_bar::Measure;
use crate::signals::Signals;
use crate::text::metrics::Run;
use crate::{
    clock, location, lock, metrics_file, output, output_file, plan_file, policy, progress_bar, text,
};

/// Runs the command. It refuses the home directory, the directories in `protected`, and every directory that
/// contains one of these.
///
/// # Errors
///
/// Whatever prevents a result. The caller prints it.
pub fn run(arguments: &PruneArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    let (now, started) = (clock::now(), Instant::now());
    if let Ok(cache) = location::cache_dir(&arguments.cache.location) {
        for path in arguments.save_plan.iter().chain(&arguments.metrics_file) {
            output_file::check_outside(path, &cache)?;
        }
    }
    let result = prune(arguments, protected);
    if let Some(path) = &arguments.metrics_file {
        let exit = result.as_ref().map_or_else(Exit::of_error, |done| done.exit);
        let done = result.as_ref().ok();
        let report = done.and_then(|done| done.report.as_ref());
        let cache_bytes = done.and_then(|done| done.cache_bytes);
        let written = metrics_file::write(
            path,
            &Run { report, cache_bytes, duration: started.elapsed(), exit, started: now },
        );
        // An error of the run takes precedence over an error of the metrics.
        if result.is_ok() {
            written?;
        }
    }
    result.map(|done| done.exit)
}

/// The outcome of a run.
struct Done {
    exit: Exit,
    report: Option<PruneReport>,
    /// The total size of the cache's files afterwards, if known.
    cache_bytes: Option<u64>,
}

fn prune(arguments: &PruneArguments, protected: &[PathBuf]) -> anyhow::Result<Done> {
    let progress = Progress::default();
    // Reading a list may block forever, so until the lists are read, a signal ends the process.
    let policy = policy::build(&arguments.policy, arguments.grace.grace)?;
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    let directory = location::cache_dir(&arguments.cache.location)?;
    let summary = arguments.github_summary.then(|| Summary::open(&directory)).transpose()?;
    let mut cache = CacheDir::open(&directory, &location::protected(protected))?;
    let mut lock = None;
    if !arguments.dry_run {
        lock = lock::wait(&mut cache, &arguments.cache, &progress)?;
        if lock.is_none() {
            return stopped(&cache, arguments, &signals);
        }
    }
    let space = cache.space()?;
    let (mut plan, unread) = plan(arguments, &cache, &policy, space, &progress)?;
    if arguments.aside {
        check_aside(&cache, &plan)?;
    }
    if let Some(path) = &arguments.save_plan {
        plan_file::save(path, &mut plan, &cache)?;
    }
    let mut pruned = match lock {
        None => Pruned::preview(plan),
        Some(lock) => carry_out(arguments, &cache, &lock, plan, &progress)?,
    };
    pruned.report.failures.extend(unread);
    let Pruned { plan, report, used_bytes, .. } = pruned;
    if policy.has_goal() && !arguments.cache.quiet {
        output::complain_all(text::prune::unmet_goals(&policy, used_bytes, space_after(&cache, &report)?));
    }
    let printed = print(arguments, &cache, &plan, &report)?;
    if let Some(summary) = summary {
        summary.append(&report)?;
    }
    let done = if report.is_complete() { printed } else { Exit::Incomplete };
    // If only foreign entries are left, the directory is no longer a cache, and the scan refuses it.
    let found =
        arguments.metrics_file.as_ref().and_then(|_| scan(&CacheDir::open(&directory, &[]).ok()?).ok());
    let cache_bytes = Some(found.map_or(used_bytes, |inventory| inventory.used_bytes()));
    Ok(Done { exit: signals.exit().unwrap_or(done), report: Some(report), cache_bytes })
}

/// Reports that a signal arrived while the command waited for the lock.
fn stopped(cache: &CacheDir, arguments: &PruneArguments, signals: &Signals) -> anyhow::Result<Done> {
    let report =
        PruneReport { cache_dir: cache.path().to_owned(), interrupted: true, ..PruneReport::default() };
    output::print(&text::prune::result(&report, arguments.cache.format)?)?;
    let exit = signals.exit().unwrap_or(Exit::Incomplete);
    Ok(Done { exit, report: Some(report), cache_bytes: None })
}

/// Carries the plan out, with a progress bar.
fn carry_out(
    arguments: &PruneArguments,
    cache: &CacheDir,
    lock: &Lock,
    plan: PrunePlan,
    progress: &Progress,
) -> anyhow::Result<Pruned> {
    let each_round = |plan: &PrunePlan, report: &PruneReport| {
        if arguments.cache.verbose {
            output::complain_all(text::prune::removed_entries(plan, report));
        }
    };
    let pruned = progress_bar::show(!arguments.cache.quiet, Measure::Blobs, progress, || {
        if arguments.aside {
            let report = apply_aside(cache, lock, &plan, progress)?;
            Ok(Pruned::new(plan, report))
        } else {
            apply_to_goal(cache, lock, plan, progress, each_round)
        }
    });
    pruned.map_err(|error: Error| error.into())
}

/// The free space after the prune; for a dry run, what it would be.
fn space_after(cache: &CacheDir, report: &PruneReport) -> anyhow::Result<Space> {
    let mut space = cache.space()?;
    if report.dry_run {
        space.available_bytes = space.available_bytes.saturating_add(report.disk_bytes_freed);
    }
    Ok(space)
}

/// Makes the plan. With `--corrupt`, also returns the blobs that could not be read.
fn plan(
    arguments: &PruneArguments,
    cache: &CacheDir,
    policy: &Policy,
    space: Space,
    progress: &Progress,
) -> anyhow::Result<(PrunePlan, Vec<Failure>)> {
    let saved = arguments.from_plan.as_ref().map(|path| plan_file::load(path, cache)).transpose()?;
    let mut inventory = scan(cache)?;
    if let Some(saved) = saved {
        return Ok((saved.select(inventory, clock::now(), policy.grace), Vec::new()));
    }
    let mut unread = Vec::new();
    if policy.corrupt {
        unread = verify::hash(&mut inventory, Check::Full, progress, arguments.cache.quiet).failures;
    }
    // Not earlier: what a pull wrote or read meanwhile would seem to come from the future.
    match select(inventory, policy, clock::now(), space) {
        Err(Error::NoIndex { .. }) => Err(anyhow!(UsageError(
            "--unreferenced needs the index.json of an OCI image layout: this cache has none".to_owned()
        ))),
        plan => Ok((plan?, unread)),
    }
}

/// Prints the result on stdout, and the rest on stderr.
fn print(
    arguments: &PruneArguments,
    cache: &CacheDir,
    plan: &PrunePlan,
    report: &PruneReport,
) -> anyhow::Result<Exit> {
    if arguments.cache.verbose {
        output::complain_all(text::prune::entries(plan, report));
        output::complain(text::prune::access_times(cache.access_times()));
        output::complain_all(text::prune::confinement(report));
        output::complain_all(text::prune::armed(report));
    }
    if !arguments.cache.quiet {
        output::complain_all(text::prune::notes(plan, report));
    }
    output::complain_all(report.failures.iter().map(text::failure));
    output::print(&text::prune::result(report, arguments.cache.format)?)
}
