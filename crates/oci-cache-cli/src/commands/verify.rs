//! `verify`: hashes every blob, lists the corrupt ones, and removes them if asked to.

use std::path::PathBuf;

use anyhow::Context as _;
use oci_cache::{
    CacheDir, Check, Inventory, Policy, Progress, PrunePlan, PruneReport, References, Space, Tally,
    Verification, apply, escape_path, read_references, scan, select, set_idle_io_priority, verify,
};
use serde::Serialize;

use crate::cli::{Format, VerifyArguments};
use crate::exit::Exit;
use crate::progress_bar::{self, Measure};
use crate::signals::Signals;
use crate::{clock, location, lock, output, text};

/// The command's result.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyReport {
    /// The directory, absolute and escaped.
    pub(crate) cache_dir: String,
    /// Whether only blobs that show a sign of ending early were hashed.
    pub(crate) quick: bool,
    /// How many blobs were looked at, and their logical size in bytes.
    pub(crate) blobs_verified: u64,
    pub(crate) bytes_verified: u64,
    /// The corrupt ones.
    pub(crate) corrupt: Vec<CorruptBlob>,
    /// What somebody was writing to.
    pub(crate) in_use: Tally,
    /// What changed each time it was read.
    pub(crate) changed: Tally,
    /// What could not be read, or was not reached.
    pub(crate) unread: Tally,
    /// How many of the corrupt ones could not be probed for somebody who writes to them.
    #[serde(skip)]
    pub(crate) unprobed: u64,
    /// What could not be inspected or read.
    pub(crate) failures: Vec<oci_cache::Failure>,
    /// Whether a signal stopped it before its end.
    pub(crate) interrupted: bool,
    /// What was removed, if it was asked for.
    pub(crate) pruned: Option<PruneReport>,
}

/// A corrupt blob.
#[derive(Debug, Serialize)]
pub(crate) struct CorruptBlob {
    /// Where it is, escaped.
    pub(crate) path: String,
    /// Its logical size.
    pub(crate) bytes: u64,
    /// What its content should hash to.
    pub(crate) expected: String,
    /// What it hashes to.
    pub(crate) actual: String,
}

/// Does all of it. Beside the home, the directories in `protected` are never a cache, nor is what holds them.
///
/// # Errors
///
/// What kept it from coming to a result, to be told.
pub fn run(arguments: &VerifyArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    let progress = Progress::default();
    let signals = Signals::watch(&progress.stop).context("watch for signals")?;
    if arguments.io_idle {
        set_idle_io_priority().context("set the I/O priority to idle")?;
    }
    let directory = location::cache_dir(&arguments.cache.location)?;
    let mut cache = CacheDir::open(&directory, &location::protected(protected))?;
    if arguments.prune && !lock::wait(&mut cache, &arguments.cache, &progress)? {
        return Ok(signals.exit().unwrap_or(Exit::Incomplete));
    }
    let now = clock::now();
    let mut inventory = scan(&cache)?;
    let references = read_references(&inventory);
    let check = if arguments.quick { Check::Quick } else { Check::Full };
    let found = hash(&mut inventory, &references, check, &progress, arguments.cache.quiet);
    let mut report = VerifyReport::new(&cache, check, &inventory, &found);
    report.failures.extend(found.failures.iter().map(oci_cache::Failure::duplicate));
    let corrupt = Some(found.findings());
    let policy = Policy { corrupt, ..Policy::default() };
    let plan = select(inventory, references, &policy, now, Space::default());
    if arguments.prune {
        report.pruned = Some(apply(&plan, &progress));
    }
    let printed = print(arguments, &plan, &report)?;
    Ok(signals.exit().unwrap_or_else(|| report.exit(printed)))
}

/// Hashes the blobs, with a progress bar.
pub(crate) fn hash(
    inventory: &mut Inventory,
    references: &References,
    check: Check,
    progress: &Progress,
    quiet: bool,
) -> Verification {
    let mut total = Tally::default();
    inventory.blobs().iter().for_each(|blob| total.add(blob.size_bytes));
    progress_bar::show(!quiet, Measure::Bytes, progress, total, || {
        verify(inventory, references, check, progress)
    })
}

impl VerifyReport {
    fn new(cache: &CacheDir, check: Check, inventory: &Inventory, found: &Verification) -> Self {
        let corrupt = found.corrupt.iter().map(|corrupt| {
            let blob = &inventory.blobs()[corrupt.blob];
            CorruptBlob {
                path: escape_path(&inventory.path_of(blob)),
                bytes: blob.size_bytes,
                expected: blob.digest.to_string(),
                actual: corrupt.actual.to_string(),
            }
        });
        let tally = |blobs: &[usize]| {
            let mut tally = Tally::default();
            blobs.iter().for_each(|&blob| tally.add(inventory.blobs()[blob].size_bytes));
            tally
        };
        let mut corrupt: Vec<CorruptBlob> = corrupt.collect();
        corrupt.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        Self {
            cache_dir: escape_path(cache.path()),
            quick: check == Check::Quick,
            blobs_verified: found.checked.blobs,
            bytes_verified: found.checked.bytes,
            corrupt,
            in_use: tally(&found.in_use),
            changed: tally(&found.changed),
            unread: tally(&found.unread),
            unprobed: found.unprobed,
            failures: inventory.failures().iter().map(oci_cache::Failure::duplicate).collect(),
            interrupted: found.interrupted,
            pruned: None,
        }
    }

    /// Whether corrupt blobs stay decides before anything that could not be done.
    fn exit(&self, printed: Exit) -> Exit {
        let removed = self.pruned.as_ref().map_or(0, |pruned| pruned.blobs_freed);
        let is_complete =
            self.failures.is_empty() && self.pruned.as_ref().is_none_or(PruneReport::is_complete);
        if self.corrupt.len() as u64 > removed {
            Exit::Found
        } else if is_complete {
            printed
        } else {
            Exit::Incomplete
        }
    }
}

/// Prints the result on stdout, and the rest on stderr.
fn print(arguments: &VerifyArguments, plan: &PrunePlan, report: &VerifyReport) -> anyhow::Result<Exit> {
    output::complain_all(report.corrupt.iter().map(text::verify::corrupt));
    if arguments.cache.verbose {
        let preview = plan.preview();
        output::complain_all(text::prune::entries(plan, report.pruned.as_ref().unwrap_or(&preview)));
        output::complain_all(report.pruned.as_ref().and_then(text::prune::confinement));
        output::complain_all(report.pruned.as_ref().and_then(text::prune::missing_watch));
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
