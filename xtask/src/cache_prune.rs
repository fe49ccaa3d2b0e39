//! `cargo xtask cache-prune`: frees the cache, and says in one line what was freed.

use std::time::Instant;

use anyhow::{Context as _, anyhow};
use oci_cache::{
    CacheDir, Check, Failure, Policy, Progress, PrunePlan, PruneReport, References, Space, Timestamp, apply,
    apply_aside, check_aside, read_references, scan, select,
};

use crate::cli::CachePruneArguments;
use crate::exit::{Exit, UsageError};
use crate::progress_bar::Measure;
use crate::signals::Signals;
use crate::{
    cache_verify, clock, github_summary, location, lock, metrics, output, plan_file, policy, progress_bar,
    render,
};

pub(crate) fn run(arguments: &CachePruneArguments) -> anyhow::Result<Exit> {
    let (now, started) = (clock::now(), Instant::now());
    let result = prune(arguments, now);
    if let Some(path) = &arguments.metrics_file {
        let exit = result.as_ref().map_or_else(Exit::of_error, |pruned| pruned.exit);
        let pruned = result.as_ref().ok();
        let report = pruned.and_then(|pruned| pruned.report.as_ref());
        let cache_bytes = pruned.map_or(0, |pruned| pruned.cache_bytes);
        let written = metrics::write(
            path,
            &metrics::Run { report, cache_bytes, duration: started.elapsed(), exit, started: now },
        );
        // Why the run failed is said in any case; that the metrics did not come, only where it is the worst.
        if result.is_ok() {
            written?;
        }
    }
    result.map(|pruned| pruned.exit)
}

/// What a run came to.
struct Pruned {
    exit: Exit,
    report: Option<PruneReport>,
    /// What the cache's files have together afterwards.
    cache_bytes: u64,
}

fn prune(arguments: &CachePruneArguments, now: Timestamp) -> anyhow::Result<Pruned> {
    let progress = Progress::default();
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    let policy = policy::build(&arguments.policy)?;
    let summary = arguments.github_summary.then(github_summary::file).transpose()?;
    let directory = location::cache_dir(&arguments.cache.location)?;
    let mut cache = CacheDir::open(&directory, &location::protected())?;
    if !arguments.dry_run && !lock::wait(&mut cache, &arguments.cache, &progress)? {
        let report =
            PruneReport { cache_dir: cache.path().to_owned(), interrupted: true, ..PruneReport::default() };
        output::print(&render::result(&report, arguments.cache.format)?)?;
        let exit = signals.exit().unwrap_or(Exit::Incomplete);
        return Ok(Pruned { exit, report: Some(report), cache_bytes: 0 });
    }
    let (plan, unread) = plan(arguments, &cache, &policy, now, &progress)?;
    if arguments.aside {
        check_aside(&cache, &plan)?;
    }
    if let Some(path) = &arguments.save_plan {
        plan_file::save(path, &plan, &cache)?;
    }
    let mut report = if arguments.dry_run {
        plan.preview()
    } else {
        progress_bar::show(!arguments.cache.quiet, Measure::Blobs, &progress, plan.total(), || {
            if arguments.aside { apply_aside(&cache, &plan, &progress) } else { Ok(apply(&plan, &progress)) }
        })?
    };
    report.failures.extend(unread);
    if policy.has_goal() && !arguments.cache.quiet {
        output::complain_all(render::unmet_goals(
            &policy,
            used_after(&plan, &report),
            space_after(&cache, &report)?,
        ));
    }
    let printed = print(arguments, &cache, &plan, &report)?;
    if let Some(path) = summary {
        github_summary::append(&path, &report)?;
    }
    let done = if report.is_complete() { printed } else { Exit::Incomplete };
    let cache_bytes = match arguments.metrics_file {
        Some(_) => scan(&CacheDir::open(&directory, &[])?)?.used_bytes(),
        None => 0,
    };
    Ok(Pruned { exit: signals.exit().unwrap_or(done), report: Some(report), cache_bytes })
}

/// What the cache's files have together after the prune, or would have.
fn used_after(plan: &PrunePlan, report: &PruneReport) -> u64 {
    let left_by_prunes: u64 = plan.leftovers().map(|leftover| leftover.total().bytes).sum();
    let freed = report.bytes_freed.saturating_sub(left_by_prunes);
    plan.inventory().used_bytes().saturating_sub(freed)
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
    arguments: &CachePruneArguments,
    cache: &CacheDir,
    policy: &Policy,
    now: Timestamp,
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
        let found =
            cache_verify::hash(&mut inventory, &references, Check::Full, progress, arguments.cache.quiet);
        policy.corrupt = Some(found.findings());
        unread = found.failures;
    }
    Ok((select(inventory, references, &policy, now, cache.space()?), unread))
}

/// Prints the result on stdout, and the rest on stderr.
fn print(
    arguments: &CachePruneArguments,
    cache: &CacheDir,
    plan: &PrunePlan,
    report: &PruneReport,
) -> anyhow::Result<Exit> {
    if arguments.cache.verbose {
        output::complain_all(render::entries(plan, report));
        output::complain(render::access_times(cache.access_times()));
        output::complain_all(render::confinement(report));
    }
    if !arguments.cache.quiet {
        output::complain_all(render::notes(plan, report));
    }
    output::complain_all(report.failures.iter().map(render::failure));
    output::print(&render::result(report, arguments.cache.format)?)
}
