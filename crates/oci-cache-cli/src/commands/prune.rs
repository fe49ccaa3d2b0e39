//! `prune`: frees the cache, and says in one line what was freed.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use oci_cache::{
    CacheDir, Check, Failure, Policy, Progress, PrunePlan, PruneReport, References, Space, Timestamp, apply,
    apply_aside, check_aside, read_references, scan, select,
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

/// Does all of it. Beside the home, the directories in `protected` are never a cache, nor is what holds them.
///
/// # Errors
///
/// What kept it from coming to a result, to be told.
pub fn run(arguments: &PruneArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    let (now, started) = (clock::now(), Instant::now());
    if let Ok(cache) = location::cache_dir(&arguments.cache.location) {
        for path in arguments.save_plan.iter().chain(&arguments.metrics_file) {
            output_file::check_outside(path, &cache)?;
        }
    }
    let result = prune(arguments, protected, now);
    if let Some(path) = &arguments.metrics_file {
        let exit = result.as_ref().map_or_else(Exit::of_error, |pruned| pruned.exit);
        let pruned = result.as_ref().ok();
        let report = pruned.and_then(|pruned| pruned.report.as_ref());
        let cache_bytes = pruned.and_then(|pruned| pruned.cache_bytes);
        let written = metrics_file::write(
            path,
            &Run { report, cache_bytes, duration: started.elapsed(), exit, started: now },
        );
        // Why the run failed is said in any case; that the metrics did not come, only where it is the worst.
        if result.is_ok() {
            written?;
        }
    }
    result.map(|pruned| pruned.exit)
}

/// How often a prune to a goal makes up for what it could not take.
const MAX_ROUNDS: usize = 256;

/// What a run came to.
struct Pruned {
    exit: Exit,
    report: Option<PruneReport>,
    /// What the cache's files have together afterwards, if that is known.
    cache_bytes: Option<u64>,
}

fn prune(arguments: &PruneArguments, protected: &[PathBuf], now: Timestamp) -> anyhow::Result<Pruned> {
    let progress = Progress::default();
    // Lists may come from where nothing comes: until they are read, a signal ends the process.
    let policy = policy::build(&arguments.policy)?;
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    let directory = location::cache_dir(&arguments.cache.location)?;
    let summary = arguments.github_summary.then(|| Summary::open(&directory)).transpose()?;
    let mut cache = CacheDir::open(&directory, &location::protected(protected))?;
    if !arguments.dry_run && !lock::wait(&mut cache, &arguments.cache, &progress)? {
        let report =
            PruneReport { cache_dir: cache.path().to_owned(), interrupted: true, ..PruneReport::default() };
        output::print(&text::prune::result(&report, arguments.cache.format)?)?;
        let exit = signals.exit().unwrap_or(Exit::Incomplete);
        return Ok(Pruned { exit, report: Some(report), cache_bytes: None });
    }
    let space = cache.space()?;
    let (plan, unread) = plan(arguments, &cache, &policy, now, space, &progress)?;
    if arguments.aside {
        check_aside(&cache, &plan)?;
    }
    if let Some(path) = &arguments.save_plan {
        plan_file::save(path, &plan, &cache)?;
    }
    let mut carried_out = if arguments.dry_run {
        CarriedOut::new(plan.preview(), plan)
    } else {
        carry_out(arguments, &cache, &policy, plan, now, space, &progress)?
    };
    carried_out.report.failures.extend(unread);
    let CarriedOut { plan, report, used_bytes } = carried_out;
    if policy.has_goal() && !arguments.cache.quiet {
        output::complain_all(text::prune::unmet_goals(&policy, used_bytes, space_after(&cache, &report)?));
    }
    let printed = print(arguments, &cache, &plan, &report)?;
    if let Some(summary) = summary {
        summary.append(&report)?;
    }
    let done = if report.is_complete() { printed } else { Exit::Incomplete };
    // What is left may be no cache any more, if only what is foreign stays.
    let found =
        arguments.metrics_file.as_ref().and_then(|_| scan(&CacheDir::open(&directory, &[]).ok()?).ok());
    let cache_bytes = Some(found.map_or(used_bytes, |inventory| inventory.used_bytes()));
    Ok(Pruned { exit: signals.exit().unwrap_or(done), report: Some(report), cache_bytes })
}

/// A plan that was carried out, or shown.
struct CarriedOut {
    plan: PrunePlan,
    report: PruneReport,
    /// What the cache's files have together afterwards, or would have.
    used_bytes: u64,
}

impl CarriedOut {
    fn new(report: PruneReport, plan: PrunePlan) -> Self {
        let left_by_prunes: u64 = plan.leftovers().map(|leftover| leftover.total().bytes).sum();
        let freed = report.bytes_freed.saturating_sub(left_by_prunes);
        let used_bytes = plan.inventory().used_bytes().saturating_sub(freed);
        Self { plan, report, used_bytes }
    }
}

/// Carries the plan out. For what could not go, others go, as far as a goal asks for it.
fn carry_out(
    arguments: &PruneArguments,
    cache: &CacheDir,
    policy: &Policy,
    plan: PrunePlan,
    now: Timestamp,
    mut space: Space,
    progress: &Progress,
) -> anyhow::Result<CarriedOut> {
    let carry_out = |plan: PrunePlan| -> anyhow::Result<CarriedOut> {
        let report =
            progress_bar::show(!arguments.cache.quiet, Measure::Blobs, progress, plan.total(), || {
                if arguments.aside { apply_aside(cache, &plan, progress) } else { Ok(apply(&plan, progress)) }
            })?;
        Ok(CarriedOut::new(report, plan))
    };
    let mut done = carry_out(plan)?;
    // To look for what is corrupt once more would take too long.
    if !policy.has_goal() || arguments.policy.corrupt {
        return Ok(done);
    }
    let mut policy = policy.clone();
    let available_before = space.available_bytes;
    for _ in 1..MAX_ROUNDS {
        let held = done.plan.held(&done.report);
        // A pull under way keeps all of a layout.
        if held.is_empty() || done.report.pull_in_flight.is_some() || progress.is_stopped() {
            break;
        }
        if arguments.cache.verbose {
            output::complain_all(text::prune::removed_entries(&done.plan, &done.report));
        }
        policy.held.extend(held);
        progress.blobs.store(0, Ordering::Relaxed);
        progress.bytes.store(0, Ordering::Relaxed);
        // Some file systems give the room back later.
        space.available_bytes = available_before.saturating_add(done.report.disk_bytes_freed);
        match self::plan(arguments, cache, &policy, now, space, progress)
            .and_then(|(plan, _)| carry_out(plan))
        {
            Ok(next) => done = CarriedOut { report: done.report.followed_by(next.report), ..next },
            // What went must be reported.
            Err(error) => {
                let error = std::io::Error::other(format!("{error:#}"));
                let path = cache.path().to_owned();
                done.report.failures.push(Failure {
                    operation: "make up for what is in use in",
                    path,
                    error,
                });
                break;
            }
        }
    }
    Ok(done)
}

/// The room after the prune, or what it would be.
fn space_after(cache: &CacheDir, report: &PruneReport) -> anyhow::Result<Space> {
    let mut space = cache.space()?;
    if report.dry_run {
        space.available_bytes = space.available_bytes.saturating_add(report.disk_bytes_freed);
    }
    Ok(space)
}

/// Makes the plan. Also returns what could not be read where blobs had to be.
fn plan(
    arguments: &PruneArguments,
    cache: &CacheDir,
    policy: &Policy,
    now: Timestamp,
    space: Space,
    progress: &Progress,
) -> anyhow::Result<(PrunePlan, Vec<Failure>)> {
    let saved = arguments.from_plan.as_ref().map(|path| plan_file::load(path, cache)).transpose()?;
    let mut inventory = scan(cache)?;
    let corrupt = arguments.policy.corrupt;
    // A prune of everything need not know what refers to what.
    let wants_references =
        saved.is_some() || arguments.save_plan.is_some() || corrupt || !policy.is_everything();
    let references = if wants_references { read_references(&inventory) } else { References::default() };
    if policy.unreferenced && !references.has_index && cache.exists() {
        let why = "--unreferenced: this cache has no index.json from which blobs could be referenced, as an OCI \
                   image layout has";
        return Err(anyhow!(UsageError(why.to_owned())));
    }
    if let Some(saved) = saved {
        return Ok((saved.select(inventory, references, now), Vec::new()));
    }
    let mut policy = policy.clone();
    let mut unread = Vec::new();
    if corrupt {
        let found = verify::hash(&mut inventory, &references, Check::Full, progress, arguments.cache.quiet);
        policy.corrupt = Some(found.findings());
        unread = found.failures;
    }
    Ok((select(inventory, references, &policy, now, space), unread))
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
        output::complain_all(text::prune::missing_watch(report));
    }
    if !arguments.cache.quiet {
        output::complain_all(text::prune::notes(plan, report));
    }
    output::complain_all(report.failures.iter().map(text::failure));
    output::print(&text::prune::result(report, arguments.cache.format)?)
}
