//! The in-place strategy: applies a plan blob by blob, while pulls may be running.
//!
//! Guarantees: no directory of the cache is removed, replaced or changed in mode or owner. A pull
//! therefore always finds the directory that it will write to, and bind mounts, mount points and
//! symbolic links to the cache stay valid. Wherever the prune is killed, it leaves a valid, smaller
//! cache. A blob that a process has open stays. If anything to be removed has not certainly been idle for
//! an hour, or if blobs of an OCI image layout go, the prune first looks for pulls in the whole cache.
//! While one is under way, only what has certainly been idle for the grace goes, and images as a whole.
//! Signs that turn up later put the rule in force for everything that is left. In a layout, the index loses its
//! references to blobs before these are removed.
//!
//! What it does not guarantee: a pull that looked a blob up before the prune began to look, and has nothing
//! of the cache open until after the blob's removal, is not seen. `docs/prune-protocol.md` has the limits
//! and the measured rates.

use std::os::fd::AsFd as _;

use crate::cache::lock::Lock;
use crate::cache::partial::Partial;
use crate::error::{Error, Failure};
use crate::plan::PrunePlan;
use crate::plan::fate::{Fate, Keep};
use crate::progress::Progress;
use crate::prune::arm::arm;
use crate::prune::beside::{Beside, OpenFiles};
use crate::prune::confine::confined;
use crate::prune::layout_guard::{Guard, LeftIndex, Readiness};
use crate::prune::look::Look;
use crate::prune::pulls::{Pulls, Sign};
use crate::prune::report::{Outcome, PruneReport};
use crate::prune::spare::Idle;
use crate::prune::units::remove_blobs;

/// Applies the plan in place. Take the lock before the scan.
///
/// # Errors
///
/// [`Error::OtherLock`] if the lock is on another directory; then nothing was changed. Failures of
/// single entries are in [`PruneReport::failures`].
pub fn apply(plan: &PrunePlan, lock: &Lock, progress: &Progress) -> Result<PruneReport, Error> {
    apply_knowing(plan, lock, None, progress)
}

/// As [`apply`]. If a pull was under way in an earlier round, the rule is in force from the start.
pub(crate) fn apply_knowing(
    plan: &PrunePlan,
    lock: &Lock,
    pull: Option<&Sign>,
    progress: &Progress,
) -> Result<PruneReport, Error> {
    plan.check_lock(lock)?;
    let work = plan.work();
    progress.begin(work.blobs, work.bytes);
    let mut idle = Idle::of(plan);
    let needs_look = pull.is_some() || Guard::of(plan).is_some() || idle.is_in_doubt();
    // Before the confinement: a confined process cannot see what other processes have open.
    let pulls = needs_look.then(|| {
        idle.read_references();
        Pulls::look(plan, idle.references(), pull, progress)
    });
    let beside = pulls.as_ref().map(|pulls| Beside { pulls, idle: &idle });
    let (mut report, is_confined) = confined(plan, None, progress, || prune(plan, beside, progress));
    report.notes.confined = is_confined;
    Ok(report)
}

fn prune(plan: &PrunePlan, beside: Option<Beside<'_>>, progress: &Progress) -> PruneReport {
    let mut report = plan.report_of_kept();
    let guard = Guard::of(plan);
    let left_index = remove_planned_blobs(plan, guard.as_ref(), beside, progress, &mut report);
    remove_planned_partials(plan, beside, progress, &mut report);
    for leftover in plan.leftovers() {
        if !progress.is_stopped() {
            leftover.remove(progress, &mut report);
        }
    }
    if let (Some(guard), Some(left)) = (guard, left_index) {
        guard.clean_up(&left, progress, &mut report);
    }
    if plan.arms && !progress.is_stopped() {
        report.notes.armed = arm(plan, &report.notes.exceptions);
    }
    // No update of the watch from here on: this prune has opened partials and the index, unannounced.
    if let Some(Beside { pulls, .. }) = beside {
        report.notes.pull = report.notes.pull.or_else(|| pulls.sign().cloned());
        // Only further rounds need to know.
        if plan.goal.is_some() {
            report.notes.used = pulls.used();
        }
    }
    report.interrupted = progress.is_stopped();
    report
}

impl PrunePlan {
    fn doomed_blobs(&self) -> Vec<usize> {
        let fates = self.blob_fates.iter().enumerate();
        fates.filter(|(_, fate)| fate.goes()).map(|(index, _)| index).collect()
    }
}

/// Removes the planned blobs, or what the rule leaves of them; those of a layout only if the layout is ready.
/// Returns the index that is left in the layout.
fn remove_planned_blobs(
    plan: &PrunePlan,
    guard: Option<&Guard<'_>>,
    beside: Option<Beside<'_>>,
    progress: &Progress,
    report: &mut PruneReport,
) -> Option<LeftIndex> {
    let (mut doomed, mut index_change) = (plan.doomed_blobs(), plan.index_change.clone());
    if let Some(Beside { pulls, idle }) = beside
        && pulls.sign().is_some()
    {
        let spared = idle.spare(|index| pulls.is_in_use(index));
        (doomed, index_change) = (spared.doomed, spared.index_change);
        keep_planned_blobs(plan, spared.kept, Outcome::Kept(Keep::InUse), progress, report);
    }
    let tree = &plan.inventory.tree;
    let needs_index =
        index_change.drops_entries() || doomed.iter().any(|&index| plan.is_nested(&tree.blobs[index]));
    let readiness = match (guard, beside) {
        _ if progress.is_stopped() => Readiness::Stopped,
        (Some(guard), Some(Beside { pulls, .. })) if needs_index => guard.prepare(&index_change, pulls),
        _ => Readiness::Ready(None),
    };
    let mut kept = Vec::new();
    // The same directory may also be a flat cache: its blobs are removed in any case.
    if !matches!(readiness, Readiness::Ready(_)) {
        (doomed, kept) = doomed.into_iter().partition(|&index| !plan.is_nested(&tree.blobs[index]));
    }
    let mut removal = remove_blobs(tree, doomed, OpenFiles::Spare(beside), progress);
    report.notes.exceptions.append(&mut removal.exceptions);
    removal.count_into(report);
    let (outcome, left) = match readiness {
        Readiness::Ready(left) => {
            report.notes.index_changed =
                guard.filter(|_| needs_index).and_then(|_| plan.index_change(&index_change));
            (Outcome::Removed, left)
        }
        Readiness::Stopped => (Outcome::NotReached, None),
        Readiness::PullUnderWay(sign) => {
            report.notes.pull = Some(sign);
            (Outcome::Kept(Keep::InUse), None)
        }
        Readiness::Failed(failure) => {
            report.failures.push(failure);
            (Outcome::Failed, None)
        }
    };
    keep_planned_blobs(plan, kept, outcome, progress, report);
    left
}

fn keep_planned_blobs(
    plan: &PrunePlan,
    kept: Vec<usize>,
    outcome: Outcome,
    progress: &Progress,
    report: &mut PruneReport,
) {
    for index in kept {
        let size_bytes = plan.inventory.tree.blobs[index].size_bytes;
        if let Outcome::Kept(reason) = outcome {
            report.kept.add(reason, size_bytes);
        }
        progress.add(1, size_bytes);
        report.notes.exceptions.push((index, outcome));
    }
    report.notes.exceptions.sort_unstable_by_key(|(index, _)| *index);
}

fn remove_planned_partials(
    plan: &PrunePlan,
    beside: Option<Beside<'_>>,
    progress: &Progress,
    report: &mut PruneReport,
) {
    let idle = beside.filter(|beside| beside.pulls.update().is_some()).map(|beside| beside.idle);
    for (partial, fate) in plan.partials() {
        let is_spared = idle.is_some_and(|idle| idle.is_partial_spared(partial));
        let outcome = match fate {
            Fate::Keep(reason) => Outcome::Kept(reason),
            Fate::Remove(_) if progress.is_stopped() => Outcome::NotReached,
            Fate::Remove(_) => {
                let outcome = if is_spared {
                    Outcome::Kept(Keep::InUse)
                } else {
                    remove_partial(plan, partial, report)
                };
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
    match partial.look(directory, None) {
        Look::Idle { opened, unprobed } => {
            report.notes.unprobed += unprobed;
            let removed = partial.remove(directory, opened.as_ref(), OpenFiles::Spare(None), report);
            removed.unwrap_or_else(|errno| fail(report, "remove", partial, errno))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::time::SystemTime;

    use crate::{CacheDir, Policy, Space, scan, select};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
    fn a_use_after_the_last_blob_is_seen_before_the_first_partial() {
        for is_used in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let [blob, partial] = [format!("sha256:{:064x}", 1), "oci-put-blob1".to_owned()]
                .map(|name| directory.path().join(name));
            for path in [&blob, &partial] {
                fs::write(path, "content").unwrap();
            }
            let cache = CacheDir::open(directory.path(), &[]).unwrap();
            let (now, space) = (SystemTime::now().into(), Space::default());
            let plan = select(scan(&cache).unwrap(), &Policy::default(), now, space).unwrap();
            let (idle, progress) = (Idle::of(&plan), Progress::default());
            let pulls = Pulls::look(&plan, idle.references(), None, &progress);
            assert_eq!(pulls.sign(), None);
            if is_used {
                drop(File::open(blob).unwrap());
            }
            let mut report = PruneReport::default();
            let beside = Beside { pulls: &pulls, idle: &idle };
            remove_planned_partials(&plan, Some(beside), &progress, &mut report);
            let outcome = if is_used { Outcome::Kept(Keep::InUse) } else { Outcome::Removed };
            assert_eq!((report.notes.partials, partial.exists()), (vec![outcome], is_used));
        }
    }
}
