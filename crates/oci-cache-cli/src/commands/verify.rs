//! `verify`: hashes every blob, lists the corrupt ones and, with `--prune`, removes them.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use oci_cache::{
    CacheDir, Check, IdleIo, Inventory, Policy, Progress, PrunePlan, PruneReport, Space, Verification, apply,
    check_confinement, holes, read_references, scan, select, verify,
};

use crate::cli::VerifyArguments;
use crate::exit::Exit;
use crate::record::{self, Done};
use crate::report::Report;
use crate::report::entries::{Entry, WithEntries, entries};
use crate::report::verify::VerifyReport;
use crate::signals::Signals;
use crate::{answer, clock, location, lock, output, progress_bar, text};

/// Runs the command. It refuses the home directory, the directories in `protected`, and every directory that
/// contains one of these.
///
/// # Errors
///
/// Whatever prevents a result. The caller prints it.
pub fn run(arguments: &VerifyArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    answer::or_problem(&arguments.cache, |started| {
        record::run("verify", &arguments.record, &arguments.cache.location, || {
            check(arguments, protected, started)
        })
    })
}

fn check(arguments: &VerifyArguments, protected: &[PathBuf], started: Instant) -> anyhow::Result<Done> {
    let progress = Progress::default();
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    let directory = location::cache_dir(&arguments.cache.location)?;
    let mut cache = CacheDir::open(&directory, &location::protected(protected))?;
    let check = if arguments.quick { Check::Quick } else { Check::Full };
    let mut lock = None;
    if arguments.prune {
        lock = lock::wait(&mut cache, &arguments.cache, arguments.grace.watch_first, &progress)?;
        if lock.is_none() {
            print_result(arguments, &VerifyReport::stopped(&cache, check), None, started)?;
            return Ok(Done { exit: signals.exit().unwrap_or(Exit::Incomplete), report: None });
        }
    }
    let is_strict = arguments.strictness.strict;
    if is_strict && arguments.prune {
        check_confinement(cache.path())?;
    }
    let mut inventory = scan(&cache)?;
    // Only for the hashing: a removal holds leases, and whoever waits for one waits at this thread's priority.
    let idle = arguments.io_idle.then(IdleIo::begin).transpose().context("set the I/O priority to idle")?;
    let found = hash(&mut inventory, check, &progress, arguments.cache.quiet);
    drop(idle);
    let mut report = VerifyReport::new(&cache, check, &inventory, found);
    let mut policy = Policy::default();
    policy.corrupt = true;
    policy.grace = arguments.grace.grace;
    policy.strict = is_strict;
    policy.watch_first = arguments.grace.watch_first;
    let plan = select(inventory, &policy, clock::now(), Space::default())?;
    if let Some(lock) = lock {
        if plan.will_watch_first() && !arguments.cache.quiet {
            output::complain(&text::prune::watching_first(policy.grace));
        }
        let pruned =
            progress_bar::show(!arguments.cache.quiet, &progress, || apply(&plan, &lock, &progress))?;
        report.corrupt_left = pruned.corrupt_left(&plan);
        report.pruned = Some(pruned);
        if !report.holes.is_empty() {
            let mut left = scan(&cache)?;
            read_references(&mut left);
            report.holes_left = holes(&left).len();
        }
    }
    if !arguments.cache.quiet {
        output::complain_all(location::absence(&cache));
    }
    let printed = print(arguments, &plan, &report, started)?;
    let exit = signals.exit().unwrap_or_else(|| report.exit(printed));
    Ok(Done { exit, report: Some(Report::Verify(Box::new(report))) })
}

/// Hashes the blobs, with a progress bar.
pub(crate) fn hash(
    inventory: &mut Inventory,
    check: Check,
    progress: &Progress,
    quiet: bool,
) -> Verification {
    progress_bar::show(!quiet, progress, || verify(inventory, check, progress))
}

/// Prints the result on stdout, and the rest on stderr.
fn print(
    arguments: &VerifyArguments,
    plan: &PrunePlan,
    report: &VerifyReport,
    started: Instant,
) -> anyhow::Result<Exit> {
    // What a prune would remove, whoever runs it.
    let preview = PruneReport { dry_run: true, ..PruneReport::default() };
    let applied = report.pruned.as_ref().unwrap_or(&preview);
    let entries = arguments.cache.verbose.then(|| entries(plan, applied));
    output::complain_all(report.corrupt.iter().map(text::verify::corrupt));
    output::complain_all(report.holes.iter().map(text::verify::hole));
    if arguments.cache.verbose {
        output::complain_all(entries.iter().flatten().map(text::entries::line));
        output::complain_all(report.pruned.as_ref().and_then(text::prune::confinement));
        output::complain_all(report.pruned.as_ref().and_then(text::prune::armed));
    }
    if !arguments.cache.quiet {
        output::complain_all(text::verify::notes(report));
        output::complain_all(report.pruned.iter().flat_map(|pruned| text::prune::notes(plan, pruned)));
    }
    output::complain_all(report.pruned.as_ref().and_then(text::without::note));
    output::complain_all(text::failures::failures(&report.failures));
    let pruned = report.pruned.iter();
    output::complain_all(pruned.flat_map(|pruned| text::failures::failures(&pruned.failures)));
    print_result(arguments, report, entries, started)
}

fn print_result(
    arguments: &VerifyArguments,
    report: &VerifyReport,
    entries: Option<Vec<Entry>>,
    started: Instant,
) -> anyhow::Result<Exit> {
    let result = WithEntries { result: report, entries };
    answer::print(arguments.cache.format, started, &result, || {
        let mut text = text::verify::result(report);
        if let Some(pruned) = &report.pruned {
            text.push_str(&text::prune::result(pruned));
        }
        text
    })
}
