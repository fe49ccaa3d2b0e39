//! The in-place strategy: applies a plan blob by blob, while pulls may be running.
//!
//! Guarantees: no directory of the cache is removed, replaced or changed in mode or owner. A pull
//! therefore always finds the directory that it will write to, and bind mounts, mount points and
//! symbolic links to the cache stay valid. Wherever the prune is killed, it leaves a valid, smaller
//! cache. A blob that a process has open stays. If anything to be removed has not certainly been idle for
//! an hour, or if blobs of an OCI image layout go, the prune looks for pulls in the whole cache first. Only what has
//! certainly been idle, and is no part of a layout, goes before that.
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
use crate::plan::fate::{Fate, Keep};
use crate::plan::{IndexChange, PrunePlan};
use crate::progress::{Progress, Stage};
use crate::prune::arm::{arm, arm_index};
use crate::prune::beside::{Beside, OpenFiles};
use crate::prune::certain::remove_certain;
use crate::prune::confine::confined;
use crate::prune::early::Early;
use crate::prune::layout_guard::{Guard, LeftIndex, Readiness};
use crate::prune::look::Look;
use crate::prune::open::{open_blob, open_partial};
use crate::prune::pulls::{Pulls, Seen};
use crate::prune::report::{Notes, Outcome, PruneReport};
use crate::prune::sign::Sign;
use crate::prune::spare::Idle;
use crate::prune::units::remove_blobs;

/// Applies the plan in place. Take the lock before the scan.
///
/// # Errors
///
/// [`Error::OtherLock`] if the lock is on another directory, or [`Error::Refused`] if the plan is strict and the kernel
/// cannot confine the prune; then nothing was changed. Failures of single entries are in [`PruneReport::failures`].
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, Policy, Progress, apply, scan, select};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let mut cache = CacheDir::open(path, &[])?;
/// let lock = cache.try_lock()?.ok_or("another prune is running")?;
/// let plan = select(scan(&cache)?, &Policy::default(), now, cache.space()?)?;
/// let report = apply(&plan, &lock, &Progress::default())?;
/// assert!(report.is_complete());
/// assert_eq!((report.blobs_freed, scan(&cache)?.blobs().len()), (1, 0));
/// # Ok(())
/// # }
/// ```
pub fn apply(plan: &PrunePlan, lock: &Lock, progress: &Progress) -> Result<PruneReport, Error> {
    plan.check_lock(lock)?;
    plan.check_confinement()?;
    let Round { mut report, left, .. } = carry_out(plan, lock, None, progress);
    finish(plan, left.as_ref(), progress, &mut report);
    Ok(report.measured(plan))
}

/// What one round did.
pub(crate) struct Round {
    pub(crate) report: PruneReport,
    /// What it saw of pulls, if it looked for any.
    pub(crate) seen: Option<Seen>,
    /// The layout's index, if the round changed it.
    pub(crate) left: Option<LeftIndex>,
}

/// Removes what the plan says. If an earlier round looked for pulls, what it saw holds on.
pub(crate) fn carry_out(plan: &PrunePlan, lock: &Lock, seen: Option<Seen>, progress: &Progress) -> Round {
    let work = plan.work();
    progress.begin(Stage::Removing, work.blobs, work.bytes);
    let mut idle = Idle::of(plan);
    // Before the confinement: a confined process cannot see what other processes have open.
    let (early, pulls) = match seen {
        Some(seen) => (Early::default(), Some(Pulls::again(&plan.inventory.tree, seen))),
        None => look(plan, lock, &mut idle, progress),
    };
    if let Some(pulls) = &pulls {
        idle.note_watch(pulls.was_watched());
        if pulls.is_beside_readers() {
            idle.doubt_all();
        }
    }
    let beside = pulls.as_ref().map(|pulls| Beside { pulls, idle: &idle });
    let ((mut report, left), is_confined) =
        confined(plan, None, progress, || prune(plan, beside, &early, progress));
    early.count_into(&mut report);
    report.notes.confined = Some(is_confined);
    report.notes.unwatched = plan.inventory.exists() && pulls.as_ref().is_some_and(|it| it.watch().is_none());
    report.interrupted = progress.is_stopped();
    // A confined process could not see whose they are.
    report.pull = report.pull.or_else(|| first_in_use(plan, &report.notes));
    Round { report, left, seen: pulls.map(Pulls::into_seen) }
}

/// Looks for pulls, if there is a reason to. What goes in any case goes before that. While it watches for long, others
/// may share the lock.
fn look<'a>(
    plan: &'a PrunePlan,
    lock: &Lock,
    idle: &mut Idle<'_>,
    progress: &Progress,
) -> (Early, Option<Pulls<'a>>) {
    let readers = lock.readers();
    let must_look = Guard::of(plan).is_some() || idle.is_in_doubt() || plan.strict && !plan.removes_nothing();
    if readers.is_none() && !must_look {
        return (Early::default(), None);
    }
    idle.read_references();
    // Beside readers, the look must come first: a puller may have taken the lock that they share.
    let early = if readers.is_none() { remove_certain(plan, idle, progress) } else { Early::default() };
    let is_shared = plan.will_watch_first();
    if is_shared {
        lock.share();
    }
    let pulls = Pulls::look_after(&early, plan, idle.references(), progress).beside(readers.cloned());
    progress.enter(Stage::Removing);
    (early, Some(if is_shared { pulls.under(lock) } else { pulls }))
}

/// If something stays because a process has it open, what that is.
fn first_in_use(plan: &PrunePlan, notes: &Notes) -> Option<Sign> {
    let blob = notes.exceptions.iter().find(|(_, outcome)| *outcome == Outcome::Kept(Keep::InUse));
    match blob {
        Some((index, _)) => Some(open_blob(&plan.inventory.tree, *index)),
        None => first_partial_in_use(plan, notes),
    }
}

fn first_partial_in_use(plan: &PrunePlan, notes: &Notes) -> Option<Sign> {
    let index = notes.partials.iter().position(|outcome| *outcome == Outcome::Kept(Keep::InUse))?;
    plan.inventory.tree.partials.get(index).map(open_partial)
}

/// What comes after the last round: looks whether a pull wrote back entries of the index, and arms what stays.
pub(crate) fn finish(
    plan: &PrunePlan,
    left: Option<&LeftIndex>,
    progress: &Progress,
    report: &mut PruneReport,
) {
    if let Some(left) = left {
        let removed = Guard::removed_digests(plan, report);
        let clean_up = || Guard::new(plan).map(|guard| guard.clean_up(left, &removed, progress));
        if let (Some(Err(failure)), _) = confined(plan, None, progress, clean_up) {
            report.failures.push(failure);
        }
    }
    if !progress.is_stopped() {
        arm_index(plan);
        if plan.arms {
            report.notes.armed = arm(plan, &report.notes.exceptions);
        }
    }
    report.interrupted |= progress.is_stopped();
}

/// First removes what needs no change of the layout's index: on a full disk, that makes room for a new one.
fn prune(
    plan: &PrunePlan,
    beside: Option<Beside<'_>>,
    early: &Early,
    progress: &Progress,
) -> (PruneReport, Option<LeftIndex>) {
    let mut report = plan.report_of_kept();
    let removal = BlobRemoval { plan, guard: Guard::of(plan), beside, progress };
    let mut free: Vec<usize> = plan.doomed_blobs(early).collect();
    let is_bound = plan.is_bound();
    let bound = free.extract_if(.., |index| is_bound(index)).collect();
    let unchanged = removal.remove(free, Part::Free, &mut report);
    match beside {
        Some(Beside { pulls, .. }) => {
            pulls.while_removing_partials(|| remove_planned_partials(plan, beside, progress, &mut report));
            if let Some(sign) = first_partial_in_use(plan, &report.notes) {
                pulls.found(sign);
            }
        }
        None => remove_planned_partials(plan, beside, progress, &mut report),
    }
    for leftover in plan.leftovers() {
        if !progress.is_stopped() {
            leftover.remove(progress, &mut report);
        }
    }
    let left = removal.remove(bound, Part::Bound, &mut report).or(unchanged);
    // No update of the watch from here on: this prune has opened the index, unannounced.
    if let Some(Beside { pulls, .. }) = beside {
        report.pull = report.pull.or_else(|| pulls.sign().cloned());
    }
    (report, left)
}

impl PrunePlan {
    /// The blobs that are to go, by index, but for those that went early.
    fn doomed_blobs(&self, early: &Early) -> impl Iterator<Item = usize> {
        let fates = self.blob_fates.iter().enumerate();
        fates.filter(|(index, fate)| fate.goes() && !early.has_settled(*index)).map(|(index, _)| index)
    }

    /// Whether the index must change before the blob at an index goes: it leads to the blob, or may do so.
    pub(crate) fn is_bound(&self) -> impl Fn(&usize) -> bool {
        let references = &self.inventory.references;
        let is_known = references.is_complete() && self.index_change != IndexChange::Empty;
        let counts = if is_known { references.counts(self.blob_fates.len()) } else { Vec::new() };
        move |&index| {
            self.is_nested(&self.inventory.tree.blobs[index])
                && counts.get(index).is_none_or(|count| *count > 0)
        }
    }
}

/// Which of the planned blobs are removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Those that the index does not lead to.
    Free,
    /// Those that the index leads to.
    Bound,
}

/// Removes planned blobs, or what the rule leaves of them; those of a layout only if the layout is ready.
struct BlobRemoval<'a> {
    plan: &'a PrunePlan,
    guard: Option<Guard<'a>>,
    beside: Option<Beside<'a>>,
    progress: &'a Progress,
}

impl BlobRemoval<'_> {
    /// Returns the layout's index, if it was changed.
    fn remove(&self, doomed: Vec<usize>, part: Part, report: &mut PruneReport) -> Option<LeftIndex> {
        let (plan, tree) = (self.plan, &self.plan.inventory.tree);
        let is_nested = |index: &usize| plan.is_nested(&tree.blobs[*index]);
        let (mut doomed, mut index_change) = self.spare(doomed, part, report);
        let mut readiness = self.make_ready(&doomed, &index_change);
        if matches!(readiness, Readiness::SignTurnedUp) {
            (doomed, index_change) = self.spare(doomed, part, report);
            readiness = self.make_ready(&doomed, &index_change);
        }
        let mut kept = Vec::new();
        // The same directory may also be a flat cache: its blobs are removed in any case.
        if !matches!(readiness, Readiness::Ready(_)) {
            (kept, doomed) = doomed.into_iter().partition(is_nested);
        }
        let mut removal = remove_blobs(tree, doomed, OpenFiles::Spare(self.beside), self.progress);
        report.notes.exceptions.append(&mut removal.exceptions);
        removal.count_into(report);
        let (outcome, left) = match readiness {
            Readiness::Ready(left) => {
                (Outcome::Removed, left.map(|status| LeftIndex { status, index_change }))
            }
            Readiness::Stopped => (Outcome::NotReached, None),
            Readiness::PullUnderWay(sign) => {
                report.pull = Some(sign);
                (Outcome::Kept(Keep::Spared), None)
            }
            Readiness::SignTurnedUp => (Outcome::Kept(Keep::Spared), None),
            Readiness::Failed(failure) => {
                report.failures.push(failure);
                (Outcome::Failed, None)
            }
        };
        if let Some(LeftIndex { status, index_change }) = &left {
            report.notes.index_changed = plan.index_change(index_change);
            report.notes.index_removed =
                self.guard.as_ref().filter(|_| status.is_none()).map(Guard::index_path);
        }
        keep_planned_blobs(plan, kept, outcome, self.progress, report);
        left
    }

    /// Makes the layout ready for the removal of these blobs.
    fn make_ready(&self, doomed: &[usize], index_change: &IndexChange) -> Readiness {
        let plan = self.plan;
        let needs_index = index_change.drops_entries()
            || doomed.iter().any(|&index| plan.is_nested(&plan.inventory.tree.blobs[index]));
        match (&self.guard, self.beside) {
            _ if self.progress.is_stopped() => Readiness::Stopped,
            (Some(guard), Some(Beside { pulls, .. })) if needs_index => match pulls.locked_out() {
                Some(sign) => Readiness::PullUnderWay(sign),
                None => guard.prepare_on_any_disk(index_change, pulls),
            },
            _ => Readiness::Ready(None),
        }
    }

    /// Leaves out what stays because a pull is under way, or because it cannot be probed. Returns what goes, and the
    /// change of the layout's index.
    fn spare(&self, doomed: Vec<usize>, part: Part, report: &mut PruneReport) -> (Vec<usize>, IndexChange) {
        let unchanged = |change| if part == Part::Free { IndexChange::Drop(Vec::new()) } else { change };
        let Some(Beside { pulls, idle }) = self.beside else {
            return (doomed, unchanged(self.plan.index_change.clone()));
        };
        let (is_under_way, unprobed) = (pulls.sign().is_some(), pulls.unprobed());
        if !is_under_way && unprobed.is_empty() {
            return (doomed, unchanged(self.plan.index_change.clone()));
        }
        if pulls.locked_out().is_some() {
            keep_planned_blobs(self.plan, doomed, Outcome::Kept(Keep::Spared), self.progress, report);
            return (Vec::new(), IndexChange::Drop(Vec::new()));
        }
        let may_be_wanted = |index| is_under_way && (idle.is_spared(index) || pulls.is_in_use(index));
        let spared = idle.spare(|index| may_be_wanted(index) || unprobed.contains(&index));
        let (doomed, kept): (_, Vec<usize>) = doomed.into_iter().partition(|index| spared.goes[*index]);
        let (in_use, kept): (_, Vec<usize>) =
            kept.into_iter().partition(|&index| is_under_way && pulls.is_in_use(index));
        let (unknown, spare) = kept.into_iter().partition(|index| !is_under_way || unprobed.contains(index));
        for (kept, reason) in [(in_use, Keep::InUse), (unknown, Keep::Unprobed), (spare, Keep::Spared)] {
            keep_planned_blobs(self.plan, kept, Outcome::Kept(reason), self.progress, report);
        }
        (doomed, unchanged(spared.index_change))
    }
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
    let under_way = beside.filter(|beside| beside.pulls.update().is_some());
    for (index, (partial, fate)) in plan.partials().enumerate() {
        let spared = under_way
            .filter(|beside| beside.pulls.locked_out().is_some() || beside.idle.is_partial_spared(partial));
        let outcome = match fate {
            Fate::Keep(reason) => Outcome::Kept(reason),
            Fate::Removed(_) => Outcome::Removed,
            Fate::Gone => Outcome::Gone,
            Fate::Failed => Outcome::Failed,
            Fate::Remove(_) if progress.is_stopped() => Outcome::NotReached,
            Fate::Remove(_) => {
                let outcome = match spared {
                    Some(Beside { pulls, .. }) if pulls.is_partial_open(index) => Outcome::Kept(Keep::InUse),
                    Some(_) => Outcome::Kept(Keep::Spared),
                    None => remove_partial(plan, partial, OpenFiles::Spare(beside), report),
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

fn remove_partial(
    plan: &PrunePlan,
    partial: &Partial,
    open_files: OpenFiles<'_>,
    report: &mut PruneReport,
) -> Outcome {
    let directory = plan.inventory.tree.directory(partial.directory).descriptor.as_fd();
    match partial.look(directory, None) {
        Look::Idle { unprobed: 1.., .. } if open_files.keep_unprobed() => Outcome::Kept(Keep::Unprobed),
        Look::Idle { opened, unprobed } => {
            report.notes.unprobed += unprobed;
            let removed = partial.remove(directory, opened.as_ref(), open_files, report);
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
            let pulls = Pulls::look(&plan, idle.references(), &progress);
            assert_eq!(pulls.sign(), None);
            if is_used {
                drop(File::open(blob).unwrap());
            }
            let mut report = PruneReport::default();
            let beside = Beside { pulls: &pulls, idle: &idle };
            remove_planned_partials(&plan, Some(beside), &progress, &mut report);
            let outcome = if is_used { Outcome::Kept(Keep::Spared) } else { Outcome::Removed };
            assert_eq!((report.notes.partials, partial.exists()), (vec![outcome], is_used));
        }
    }
}
