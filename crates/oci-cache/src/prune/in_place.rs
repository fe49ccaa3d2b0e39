//! The in-place strategy: applies a plan blob by blob, while pulls may be running.
//!
//! Guarantees: no directory of the cache is removed, replaced or changed in mode or owner. A pull
//! therefore always finds the directory that it will write to, and bind mounts, mount points and
//! symbolic links to the cache stay valid. Wherever the prune is killed, it leaves a valid, smaller
//! cache. A blob that a process has open stays. A blob used in the last half second is checked again
//! after a wait of half a second, and removed only if nobody used it meanwhile: so a pull that closes a
//! blob and opens it again finds it. In an OCI image layout, the index loses its references to blobs
//! before these are removed; while a pull into the layout is in progress, all its blobs stay.
//!
//! What it does not guarantee: a pull that looked a blob up more than half a second ago, and opens it
//! later, may find it gone. `docs/prune-protocol.md` has the measured rates.

use std::os::fd::AsFd as _;

use crate::cache::SETTLE;
use crate::cache::lock::Lock;
use crate::cache::partial::Partial;
use crate::error::{Error, Failure};
use crate::os::watch::Watch;
use crate::plan::PrunePlan;
use crate::plan::fate::{Fate, Keep};
use crate::progress::Progress;
use crate::prune::confine::confined;
use crate::prune::layout_guard::{Guard, LeftIndex, Readiness};
use crate::prune::partials::Look;
use crate::prune::removal::remove_blobs;
use crate::prune::report::{Outcome, PruneReport};
use crate::prune::worker::OpenFiles;

/// Applies the plan in place. Take the lock before the scan.
///
/// # Errors
///
/// [`Error::OtherLock`] if the lock is on another directory; then nothing was changed. Failures of
/// single entries are in [`PruneReport::failures`].
pub fn apply(plan: &PrunePlan, lock: &Lock, progress: &Progress) -> Result<PruneReport, Error> {
    plan.check_lock(lock)?;
    let total = plan.total();
    progress.begin(total.blobs, total.bytes);
    let (mut report, is_confined) = confined(plan, None, progress, || prune(plan, progress));
    report.notes.confined = is_confined;
    Ok(report)
}

fn prune(plan: &PrunePlan, progress: &Progress) -> PruneReport {
    let mut report = plan.report_of_kept();
    let guard = Guard::of(plan);
    let watch =
        if guard.is_some() || plan.has_fresh_entries() { settle(plan, progress, &mut report) } else { None };
    let left_index = remove_planned_blobs(plan, guard.as_ref(), watch.as_ref(), progress, &mut report);
    remove_planned_partials(plan, progress, &mut report);
    for leftover in plan.leftovers() {
        if !progress.is_stopped() {
            leftover.remove(progress, &mut report);
        }
    }
    if let (Some(guard), Some(left)) = (guard, left_index) {
        guard.clean_up(&left, progress, &mut report);
    }
    report.interrupted = progress.is_stopped();
    report
}

/// Starts to watch who opens files, and waits for recently used entries to become idle.
fn settle(plan: &PrunePlan, progress: &Progress, report: &mut PruneReport) -> Option<Watch> {
    let directories = plan.inventory.tree.directories.iter();
    let watch = Watch::start(directories.map(|directory| directory.descriptor.as_fd()));
    report.notes.unwatched = !watch.as_ref().is_some_and(Watch::is_whole);
    wait(watch.as_ref(), progress);
    watch
}

/// Waits for recently used entries to become idle. Meanwhile reads the watch's events, because the
/// kernel's queue is bounded.
fn wait(watch: Option<&Watch>, progress: &Progress) {
    const SLICES: u32 = 25;
    for _ in 0..SLICES {
        progress.wait(SETTLE / SLICES);
        if let Some(watch) = watch {
            watch.update();
        }
    }
}

impl PrunePlan {
    /// Whether any entry to be removed was used so recently that it must be checked twice.
    fn has_fresh_entries(&self) -> bool {
        let settled = self.planned_at.before(SETTLE);
        self.blobs().any(|(blob, fate)| fate.goes() && blob.last_used() > settled)
            || self.partials().any(|(partial, fate)| fate.goes() && partial.last_used() > settled)
    }

    fn doomed_blobs(&self) -> Vec<usize> {
        let fates = self.blob_fates.iter().enumerate();
        fates.filter(|(_, fate)| fate.goes()).map(|(index, _)| index).collect()
    }
}

/// Removes the planned blobs; those of a layout only if the layout is ready. Returns the index that is
/// left in the layout.
fn remove_planned_blobs(
    plan: &PrunePlan,
    guard: Option<&Guard<'_>>,
    watch: Option<&Watch>,
    progress: &Progress,
    report: &mut PruneReport,
) -> Option<LeftIndex> {
    let readiness = match guard {
        _ if progress.is_stopped() => Readiness::Stopped,
        Some(guard) => guard.prepare(watch),
        None => Readiness::Ready(None),
    };
    let mut doomed = plan.doomed_blobs();
    let mut kept = Vec::new();
    // The same directory may also be a flat cache: its blobs are removed in any case.
    if !matches!(readiness, Readiness::Ready(_)) {
        let tree = &plan.inventory.tree;
        (doomed, kept) = doomed.into_iter().partition(|&index| !plan.is_nested(&tree.blobs[index]));
    }
    let mut removal = remove_blobs(&plan.inventory.tree, doomed, OpenFiles::Spare(watch), progress);
    report.notes.exceptions = std::mem::take(&mut removal.exceptions);
    removal.count_into(report);
    let outcome = match readiness {
        Readiness::Ready(left) => {
            report.notes.index_changed = guard.and_then(|_| plan.index_change());
            return left;
        }
        Readiness::Stopped => Outcome::NotReached,
        Readiness::PullInFlight(path) => {
            report.notes.pull_in_flight = Some(path);
            Outcome::Kept(Keep::InUse)
        }
        Readiness::Failed(failure) => {
            report.failures.push(failure);
            Outcome::Failed
        }
    };
    keep_planned_blobs(plan, kept, outcome, report);
    None
}

fn keep_planned_blobs(plan: &PrunePlan, kept: Vec<usize>, outcome: Outcome, report: &mut PruneReport) {
    for index in kept {
        if let Outcome::Kept(reason) = outcome {
            report.kept.add(reason, plan.inventory.tree.blobs[index].size_bytes);
        }
        report.notes.exceptions.push((index, outcome));
    }
    report.notes.exceptions.sort_unstable_by_key(|(index, _)| *index);
}

fn remove_planned_partials(plan: &PrunePlan, progress: &Progress, report: &mut PruneReport) {
    for (partial, fate) in plan.partials() {
        let outcome = match fate {
            Fate::Keep(reason) => Outcome::Kept(reason),
            Fate::Remove(_) if progress.is_stopped() => Outcome::NotReached,
            Fate::Remove(_) => {
                let outcome = remove_partial(plan, partial, report);
                if let Outcome::Kept(reason) = outcome {
                    report.kept.add(reason, partial.size_bytes());
                }
                outcome
            }
        };
        report.notes.partials.push(outcome);
    }
}

fn remove_partial(plan: &PrunePlan, partial: &Partial, report: &mut PruneReport) -> Outcome {
    let directory = plan.inventory.tree.directory(partial.directory).descriptor.as_fd();
    match partial.look(directory) {
        Look::Idle { opened, unprobed } => {
            report.notes.unprobed += unprobed;
            match partial.remove(directory, opened.as_ref(), OpenFiles::Spare(None), report) {
                Ok(true) => Outcome::Removed,
                Ok(false) => Outcome::Kept(Keep::InUse),
                Err(errno) => fail(report, "remove", partial, errno),
            }
        }
        Look::InUse => Outcome::Kept(Keep::InUse),
        Look::Changed => Outcome::Kept(Keep::Changed),
        Look::Gone => Outcome::Gone,
        Look::Failed(errno) => fail(report, "probe", partial, errno),
    }
}

fn fail(
    report: &mut PruneReport,
    operation: &'static str,
    partial: &Partial,
    errno: rustix::io::Errno,
) -> Outcome {
    report.failures.push(Failure::new(operation, partial.path.clone(), errno));
    Outcome::Failed
}
