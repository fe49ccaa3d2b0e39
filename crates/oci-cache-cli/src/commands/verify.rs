//! `verify`: hashes every blob, lists the corrupt ones and, with `--prune`, removes them.

use std::path::PathBuf;

use anyhow::Context as _;
use oci_cache::{
    CacheDir, Check, IdleIo, Inventory, Policy, Progress, PrunePlan, Space, Verification, apply, holes,
    read_references, scan, select, verify,
};

use crate::cli::{Format, VerifyArguments};
use crate::exit::Exit;
use crate::progress_bar::{self, Measure};
use crate::report::verify::VerifyReport;
use crate::signals::Signals;
use crate::{clock, location, lock, output, text};

/// Runs the command. It refuses the home directory, the directories in `protected`, and every directory that
/// contains one of these.
///
/// # Errors
///
/// Whatever prevents a result. The caller prints it.
pub fn run(arguments: &VerifyArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    let progress = Progress::default();
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    let directory = location::cache_dir(&arguments.cache.location)?;
    let mut cache = CacheDir::open(&directory, &location::protected(protected))?;
    let mut lock = None;
    if arguments.prune {
        lock = lock::wait(&mut cache, &arguments.cache, &progress)?;
        if lock.is_none() {
            return Ok(signals.exit().unwrap_or(Exit::Incomplete));
        }
    }
    let mut inventory = scan(&cache)?;
    let check = if arguments.quick { Check::Quick } else { Check::Full };
    // Only for the hashing: a removal holds leases, and whoever waits for one waits at this thread's priority.
    let idle = arguments.io_idle.then(IdleIo::begin).transpose().context("set the I/O priority to idle")?;
    let found = hash(&mut inventory, check, &progress, arguments.cache.quiet);
    drop(idle);
    let mut report = VerifyReport::new(&cache, check, &inventory, found);
    let mut policy = Policy::default();
    policy.corrupt = true;
    policy.grace = arguments.grace.grace;
    let plan = select(inventory, &policy, clock::now(), Space::default())?;
    if let Some(lock) = lock {
        let pruned = apply(&plan, &lock, &progress)?;
        report.corrupt_left = pruned.corrupt_left(&plan);
        report.pruned = Some(pruned);
        if !report.holes.is_empty() {
            let mut left = scan(&cache)?;
            read_references(&mut left);
            report.holes_left = holes(&left).len();
        }
    }
    let printed = print(arguments, &plan, &report)?;
    Ok(signals.exit().unwrap_or_else(|| report.exit(printed)))
}

/// Hashes the blobs, with a progress bar.
pub(crate) fn hash(
    inventory: &mut Inventory,
    check: Check,
    progress: &Progress,
    quiet: bool,
) -> Verification {
    progress_bar::show(!quiet, Measure::Bytes, progress, || verify(inventory, check, progress))
}

/// Prints the result on stdout, and the rest on stderr.
fn print(arguments: &VerifyArguments, plan: &PrunePlan, report: &VerifyReport) -> anyhow::Result<Exit> {
    output::complain_all(report.corrupt.iter().map(text::verify::corrupt));
    output::complain_all(report.holes.iter().map(text::verify::hole));
    if arguments.cache.verbose {
        let preview = plan.preview();
        output::complain_all(text::prune::entries(plan, report.pruned.as_ref().unwrap_or(&preview)));
        output::complain_all(report.pruned.as_ref().and_then(text::prune::confinement));
        output::complain_all(report.pruned.as_ref().and_then(text::prune::armed));
    }
    if !arguments.cache.quiet {
        output::complain_all(text::verify::notes(report));
        output::complain_all(report.pruned.iter().flat_map(|pruned| text::prune::notes(plan, pruned)));
    }
    let pruned = report.pruned.iter().flat_map(|pruned| &pruned.failures);
    output::complain_all(report.failures.iter().chain(pruned).map(text::failure));
    output::print(&match arguments.cache.format {
        Format::Json => format!("{}\n", serde_json::to_string(report)?),
        Format::Human => {
            let mut text = text::verify::result(report);
            if let Some(pruned) = &report.pruned {
                text.push_str(&text::prune::result(pruned, Format::Human)?);
            }
            text
        }
    })
}
