//! `prune`: frees space in the cache, and reports in one line what was freed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use oci_cache::{
    CacheDir, Check, Error, Failures, Lock, Policy, Progress, PrunePlan, PruneReport, Pruned, SavedPlan,
    Space, Timestamp, apply_aside, apply_to_goal, check_aside, check_confinement, scan, select,
};

use crate::cli::PruneArguments;
use crate::commands::verify;
use crate::exit::{Exit, UsageError};
use crate::held_off::{HeldOff, Hold, LockTimeout};
use crate::plan_file::Target;
use crate::record::{self, Done};
use crate::report::Report;
use crate::report::entries::{WithEntries, entries};
use crate::report::hold::WithHold;
use crate::signals::Signals;
use crate::{answer, clock, location, lock, metrics_file, output, plan_file, policy, progress_bar, text};

/// Runs the command. It refuses the home directory, the directories in `protected`, and every directory that
/// contains one of these.
///
/// # Errors
///
/// Whatever prevents a result. The caller prints it.
pub fn run(arguments: &PruneArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    answer::or_problem(&arguments.cache, |started| {
        record::run("prune", &arguments.record, &arguments.cache.location, || {
            prune(arguments, protected, started)
        })
    })
}

fn prune(arguments: &PruneArguments, protected: &[PathBuf], started: Instant) -> anyhow::Result<Done> {
    let (progress, began) = (Progress::default(), clock::now());
    let directory = location::cache_dir(&arguments.cache.location)?;
    // Reading a list may block forever, and a plan may be long. So until they are read, a signal ends the process.
    let files = files(arguments, &directory)?;
    let mut policy = policy::build(&arguments.policy, &arguments.grace)?;
    policy.strict = arguments.strictness.strict;
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    let mut cache = CacheDir::open(&directory, &location::protected(protected))?;
    files.check_directory(arguments, &cache)?;
    let mut lock = None;
    if !arguments.dry_run {
        lock = lock::wait(&mut cache, &arguments.cache, arguments.grace.watch_first, &progress)
            .map_err(|error| with_earlier_runs(error, arguments, &directory, began))?;
        if lock.is_none() {
            let held_off = held_off(arguments, &directory, began, Hold::Unknown);
            return stopped(&cache, arguments, &signals, held_off, started);
        }
    }
    if policy.strict {
        check_confinement(cache.path())?;
    }
    let space = cache.space()?;
    // By now it may be another directory at the path.
    files.check_directory(arguments, &cache)?;
    let (mut plan, unread) = plan(arguments, files.plan, &cache, &policy, space, &progress)?;
    if arguments.aside {
        check_aside(&cache, &plan)?;
    }
    if let (Some(path), Some(target)) = (&arguments.save_plan, &files.target) {
        plan_file::save(target, path, &mut plan, &cache)?;
    }
    let mut pruned = match lock {
        None => Pruned::preview(plan),
        Some(lock) => carry_out(arguments, &cache, &lock, plan, &progress)?,
    };
    pruned.report.failures.merge(unread);
    pruned.report.interrupted |= progress.is_stopped();
    let Pruned { plan, report } = pruned;
    if !arguments.cache.quiet {
        output::complain_all(location::absence(&cache));
        output::complain_all(text::prune::unmet_goals(&report.goals, &arguments.policy));
    }
    let held_off = held_off(arguments, &directory, began, Hold::of_prune(&report));
    let printed = print(arguments, &cache, &plan, &report, held_off, started)?;
    let is_met = report.goals.iter().all(|goal| goal.met);
    let done = match report.is_complete() {
        false => Exit::Incomplete,
        true if is_met => printed,
        true => Exit::Found,
    };
    let exit = signals.exit().unwrap_or(done);
    Ok(Done { exit, report: Some(Report::Prune(Box::new(report))) })
}

/// The runs in a row that were held off, with one that began then, as far as its metrics file tells of earlier ones.
fn held_off(arguments: &PruneArguments, directory: &Path, began: Timestamp, hold: Hold) -> Option<HeldOff> {
    let earlier = metrics_file::earlier(arguments.record.metrics_file.as_deref());
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    HeldOff::after(hold, began, earlier.as_deref(), &directory)
}

/// Adds to an error that ended the wait for the lock since when prunes are held off.
fn with_earlier_runs(
    error: anyhow::Error,
    arguments: &PruneArguments,
    directory: &Path,
    began: Timestamp,
) -> anyhow::Error {
    match error.downcast::<LockTimeout>() {
        Ok(mut timeout) => {
            timeout.held_off = held_off(arguments, directory, began, Hold::Held);
            timeout.into()
        }
        Err(error) => error,
    }
}

/// The files of a plan.
struct Files {
    /// Where a plan is to be saved.
    target: Option<Target>,
    /// The plan to carry out.
    plan: Option<SavedPlan>,
}

/// Finds or reads the file of the plan. Nobody waits for this yet.
fn files(arguments: &PruneArguments, directory: &Path) -> anyhow::Result<Files> {
    let target = arguments.save_plan.as_deref().map(|path| plan_file::target(path, directory)).transpose()?;
    let plan = arguments.from_plan.as_deref().map(plan_file::load).transpose()?;
    Ok(Files { target, plan })
}

impl Files {
    /// Checks that the plan was made for this cache.
    fn check_directory(&self, arguments: &PruneArguments, cache: &CacheDir) -> anyhow::Result<()> {
        match (&arguments.from_plan, &self.plan) {
            (Some(path), Some(plan)) => plan_file::check_directory(path, plan, cache),
            _ => Ok(()),
        }
    }
}

/// Reports that a signal arrived while the command waited for the lock.
fn stopped(
    cache: &CacheDir,
    arguments: &PruneArguments,
    signals: &Signals,
    held_off: Option<HeldOff>,
    started: Instant,
) -> anyhow::Result<Done> {
    let (cache_dir, exists) = (cache.path().to_owned(), cache.exists());
    let report = PruneReport { cache_dir, exists, interrupted: true, ..PruneReport::default() };
    let result = WithHold::of(&report, held_off);
    answer::print(arguments.cache.format, started, &result, || text::prune::result(&report))?;
    let exit = signals.exit().unwrap_or(Exit::Incomplete);
    // It would say that the cache uses nothing.
    Ok(Done { exit, report: None })
}

/// Carries the plan out, with a progress bar.
fn carry_out(
    arguments: &PruneArguments,
    cache: &CacheDir,
    lock: &Lock,
    plan: PrunePlan,
    progress: &Progress,
) -> anyhow::Result<Pruned> {
    if plan.will_watch_first() && !arguments.aside && !arguments.cache.quiet {
        output::complain(&text::prune::watching_first(arguments.grace.grace));
    }
    let pruned = progress_bar::show(!arguments.cache.quiet, progress, || {
        if arguments.aside {
            let report = apply_aside(cache, lock, &plan, progress)?;
            Ok(Pruned { plan, report })
        } else {
            apply_to_goal(cache, lock, plan, progress)
        }
    });
    pruned.map_err(|error: Error| error.into())
}

/// Makes the plan. With `--corrupt`, also returns the blobs that could not be read.
fn plan(
    arguments: &PruneArguments,
    saved: Option<SavedPlan>,
    cache: &CacheDir,
    policy: &Policy,
    space: Space,
    progress: &Progress,
) -> anyhow::Result<(PrunePlan, Failures)> {
    let mut inventory = scan(cache)?;
    if let Some(saved) = saved {
        let plan = saved.select(inventory, clock::now(), policy);
        return Ok((plan.watching_first(policy.watch_first), Failures::default()));
    }
    let mut unread = Failures::default();
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
    held_off: Option<HeldOff>,
    started: Instant,
) -> anyhow::Result<Exit> {
    let entries = arguments.cache.verbose.then(|| entries(plan, report));
    if arguments.cache.verbose {
        output::complain_all(entries.iter().flatten().map(text::entries::line));
        output::complain_all(cache.access_times().map(text::prune::access_times).map(str::to_owned));
        output::complain_all(text::prune::confinement(report));
        output::complain_all(text::prune::armed(report));
    }
    output::complain_all(text::prune::unmatched(&report.unmatched));
    if !arguments.cache.quiet {
        output::complain_all(text::prune::notes(plan, report));
        let held_off = held_off.filter(|_| report.is_held_off());
        output::complain_all(held_off.map(|held_off| text::prune::held_off(held_off, &arguments.grace)));
    }
    output::complain_all(text::without::note(report));
    output::complain_all(text::failures::failures(&report.failures));
    let result = WithHold::of(WithEntries { result: report, entries }, held_off);
    if arguments.save_plan.as_deref().is_some_and(plan_file::is_stdout) {
        let line = answer::as_text(arguments.cache.format, started, &result, || text::prune::result(report))?;
        output::complain(line.trim_end());
        return Ok(Exit::Done);
    }
    answer::print(arguments.cache.format, started, &result, || text::prune::result(report))
}
