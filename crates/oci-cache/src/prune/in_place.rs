//! The in-place strategy: carries out a plan blob by blob, beside running pulls.
//!
//! Guarantees: no directory of the cache is removed, replaced or changed in mode or owner, so a pull
//! always finds the directory it is about to write to, and bind mounts, mount points and symbolic links
//! to the cache stay good. Every point at which the prune may be killed leaves a valid, smaller cache.
//! A blob that a process has open stays. A blob used in the last half second is looked at again after as
//! long a wait, and goes only if nobody touched it: so a pull that closes a blob and opens it again
//! finds it. In an OCI image layout the index is emptied before its blobs go; while a pull is under way
//! there, they stay.
//!
//! What it does not guarantee: a pull that looked a blob up earlier than half a second ago, and opens it
//! later, can find it gone. `docs/prune-protocol.md` has the measured rates.

use std::os::fd::AsFd as _;

use crate::cache::SETTLE;
use crate::cache::partial::Partial;
use crate::error::Failure;
use crate::os::watch::Watch;
use crate::plan::PrunePlan;
use crate::plan::fate::{Fate, Keep};
use crate::progress::Progress;
use crate::prune::confine::confined;
use crate::prune::layout_guard::{Guard, Way};
use crate::prune::partials::Look;
use crate::prune::removal::{Users, remove_blobs};
use crate::prune::report::{Outcome, PruneReport};

/// Carries out the plan in place.
///
/// The caller holds the cache's lock ([`crate::CacheDir::try_lock`]) since before the scan.
#[must_use]
pub fn apply(plan: &PrunePlan, progress: &Progress) -> PruneReport {
    let (mut report, is_confined) = confined(plan, None, || prune(plan, progress));
    report.confined = is_confined;
    report
}

fn prune(plan: &PrunePlan, progress: &Progress) -> PruneReport {
    let mut report = plan.report_of_kept();
    let guard = Guard::of(plan);
    let mut watch = None;
    if guard.is_some() || plan.has_fresh_entries() {
        watch = Watch::start(
            plan.inventory.tree.directories.iter().map(|directory| directory.descriptor.as_fd()),
        );
        report.unwatched = !watch.as_ref().is_some_and(Watch::is_whole);
        wait(watch.as_ref(), progress);
    }
    let way = match &guard {
        _ if progress.is_stopped() => Way::Stopped,
        Some(guard) => guard.make_way(watch.as_ref()),
        None => Way::Clear,
    };
    let users = Users::Spare(watch.as_ref());
    // What is not clear holds for the layout; a flat cache may stand in the same directory.
    let (doomed, kept) = match way {
        Way::Clear => (plan.doomed_blobs(), Vec::new()),
        _ => plan
            .doomed_blobs()
            .into_iter()
            .partition(|&index| !plan.is_nested(&plan.inventory.tree.blobs[index])),
    };
    remove_planned_blobs(plan, doomed, users, progress, &mut report);
    match way {
        Way::Clear => report.index_changed = guard.as_ref().and_then(|_| plan.index_change()),
        Way::Stopped => keep_planned_blobs(plan, kept, Outcome::NotReached, &mut report),
        Way::PullInFlight(path) => {
            keep_planned_blobs(plan, kept, Outcome::Kept(Keep::InUse), &mut report);
            report.pull_in_flight = Some(path);
        }
        Way::Failed(failure) => {
            keep_planned_blobs(plan, kept, Outcome::Failed, &mut report);
            report.failures.push(failure);
        }
    }
    remove_planned_partials(plan, progress, &mut report);
    for leftover in plan.leftovers() {
        if !progress.is_stopped() {
            leftover.remove(progress, &mut report);
        }
    }
    if let Some(guard) = guard {
        guard.clean_up(progress, &mut report);
    }
    report.interrupted = progress.is_stopped();
    report
}

/// Waits for entries to settle, and takes in meanwhile what is opened: the kernel's queue is bounded.
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
    /// Whether something that goes was used so recently that it must be looked at twice.
    fn has_fresh_entries(&self) -> bool {
        let settled = self.planned_at.before(SETTLE);
        let goes = |fate| matches!(fate, Fate::Remove(_));
        self.blobs().any(|(blob, fate)| goes(fate) && blob.last_used() > settled)
            || self.partials().any(|(partial, fate)| goes(fate) && partial.last_used() > settled)
    }

    fn doomed_blobs(&self) -> Vec<usize> {
        let fates = self.blob_fates.iter().enumerate();
        fates.filter(|(_, fate)| matches!(fate, Fate::Remove(_))).map(|(index, _)| index).collect()
    }
}

fn remove_planned_blobs(
    plan: &PrunePlan,
    doomed: Vec<usize>,
    users: Users<'_>,
    progress: &Progress,
    report: &mut PruneReport,
) {
    let mut removal = remove_blobs(&plan.inventory.tree, doomed, users, progress);
    report.exceptions = std::mem::take(&mut removal.exceptions);
    removal.count_into(report);
}

fn keep_planned_blobs(plan: &PrunePlan, kept: Vec<usize>, outcome: Outcome, report: &mut PruneReport) {
    for index in kept {
        if let Outcome::Kept(reason) = outcome {
            report.kept.add(reason, plan.inventory.tree.blobs[index].size_bytes);
        }
        report.exceptions.push((index, outcome));
    }
    report.exceptions.sort_unstable_by_key(|(index, _)| *index);
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
        report.partials.push(outcome);
    }
}

fn remove_partial(plan: &PrunePlan, partial: &Partial, report: &mut PruneReport) -> Outcome {
    let directory = plan.inventory.tree.directory(partial.directory).descriptor.as_fd();
    match partial.look(directory) {
        Look::Idle { opened, unprobed } => {
            report.unprobed += unprobed;
            match partial.remove(directory, opened.as_ref(), Users::Spare(None), report) {
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
