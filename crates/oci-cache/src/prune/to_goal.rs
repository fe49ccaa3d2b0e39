//! Prunes to a goal: if an entry cannot be removed, or frees less than it promised, others are removed instead.
//!
//! Guarantees: one scan. The room on the file system is measured after each round. The goal is missed only if nothing
//! more may be removed, or the room cannot be measured. What one round could not remove is not tried again. Once a blob
//! turned out to be in use, all blobs are probed before the next round; once a pull was under way in a round, later
//! rounds take only what has certainly been idle for the grace.

use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::syncfs;

use crate::cache::cache_dir::{CacheDir, Space};
use crate::cache::lock::Lock;
use crate::error::{Error, Failures};
use crate::os::status::{Status, Timestamp};
use crate::plan::fate::{Fate, Keep};
use crate::plan::foresight::Foresight;
use crate::plan::policy::Policy;
use crate::plan::select::select_around;
use crate::plan::settled::Settled;
use crate::plan::{IndexChange, PrunePlan};
use crate::progress::Progress;
use crate::prune::in_place::{Round, carry_out, finish};
use crate::prune::layout_guard::LeftIndex;
use crate::prune::pulls::{Pulls, Seen};
use crate::prune::report::{Outcome, PruneReport, Room};
use crate::prune::spare::Idle;

/// How long a round waits for room that the file system gives back in the background. After a round that waited in vain, as
/// where snapshots hold the room, the next one waits half as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A plan that was applied or previewed.
#[derive(Debug)]
pub struct Pruned {
    /// The plan; the last one in a prune to a goal.
    pub plan: PrunePlan,
    /// The report of all rounds together.
    pub report: PruneReport,
}

impl Pruned {
    /// A plan that is only previewed: the dry run.
    #[must_use]
    pub fn preview(plan: PrunePlan) -> Self {
        let report = plan.preview();
        Self { plan, report }
    }
}

/// Applies a plan in place.
///
/// If the plan's policy has a goal that is not met, makes and applies further plans by the same policy, for what is left.
///
/// # Errors
///
/// As [`apply`](crate::apply()).
///
/// # Examples
///
/// ```
/// use oci_cache::{Amount, CacheDir, Policy, Progress, apply_to_goal, scan, select};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let mut cache = CacheDir::open(path, &[])?;
/// let lock = cache.try_lock()?.ok_or("another prune is running")?;
/// let mut policy = Policy::default();
/// policy.max_used = Some(Amount::Bytes(3));
/// let plan = select(scan(&cache)?, &policy, now, cache.space()?)?;
/// let report = apply_to_goal(&cache, &lock, plan, &Progress::default())?.report;
/// assert!(report.goals.iter().all(|goal| goal.met));
/// assert_eq!((report.blobs_freed, report.used_bytes), (1, 0));
/// # Ok(())
/// # }
/// ```
pub fn apply_to_goal(
    cache: &CacheDir,
    lock: &Lock,
    plan: PrunePlan,
    progress: &Progress,
) -> Result<Pruned, Error> {
    plan.check_lock(lock)?;
    plan.check_confinement()?;
    let policy = plan.goal.clone();
    let leftovers_go = plan.leftovers_go.clone();
    let (started, planned_at, before) = (Instant::now(), plan.planned_at, cache.space()?);
    let Round { report, seen, left } = carry_out(&plan, lock, None, progress);
    // Each round settles at least one entry.
    let most = plan.blob_fates.len() + plan.partial_fates.len();
    let (settled, before) = (Settled::default(), before.available_bytes);
    let measured = Measured { available_bytes: before, freed_bytes: 0 };
    let mut rounds = Rounds { lock, plan, report, seen, left, settled, measured, patience: PATIENCE };
    for _ in 0..most {
        let Some(policy) = &policy else { break };
        let Some(space) = rounds.is_to_go_on(policy, cache, progress) else { break };
        let now = planned_at.after(started.elapsed());
        rounds.settle();
        rounds.look_at_uses(progress);
        rounds = rounds.plan_again(policy, now, space)?;
        if rounds.plan.removes_nothing() {
            let mut last = rounds.plan.report_of_kept();
            // There was nothing left to confine.
            last.notes.confined = rounds.report.notes.confined;
            rounds.report = rounds.report.followed_by(last);
            break;
        }
        rounds.carry_out(progress);
    }
    let Rounds { mut plan, mut report, left, .. } = rounds;
    plan.leftovers_go = leftovers_go;
    finish(&plan, left.as_ref(), progress, &mut report);
    report = report.measured(&plan);
    if policy.is_some_and(|policy| policy.min_free.is_some()) {
        let gained = report.available_bytes.unwrap_or(0).saturating_sub(before);
        report.notes.room = Room::missed(report.disk_bytes_freed, gained);
    }
    Ok(Pruned { plan, report })
}

/// What the rounds did so far.
struct Rounds<'a> {
    lock: &'a Lock,
    plan: PrunePlan,
    report: PruneReport,
    seen: Option<Seen>,
    left: Option<LeftIndex>,
    settled: Settled,
    measured: Measured,
    /// How long the next round waits for room.
    patience: Duration,
}

/// What was measured before a round, in bytes.
struct Measured {
    /// The free space.
    available_bytes: u64,
    /// What the rounds before should have freed.
    freed_bytes: u64,
}

impl Rounds<'_> {
    /// The space on the file system, if another round may bring a goal nearer.
    fn is_to_go_on(&mut self, policy: &Policy, cache: &CacheDir, progress: &Progress) -> Option<Space> {
        if progress.is_stopped() {
            return None;
        }
        let space = if policy.min_free.is_some() { self.room(policy, cache)? } else { cache.space().ok()? };
        let goals = policy.goals(self.report.used_after(&self.plan), space);
        goals.iter().any(|goal| !goal.met).then_some(space)
    }

    /// Measures the room, once the file system has given back what it holds for later. Some do that in the background:
    /// while what the last round promised is missing, waits for it, for a moment.
    fn room(&mut self, policy: &Policy, cache: &CacheDir) -> Option<Space> {
        const SLICE: Duration = Duration::from_millis(20);
        let root = cache.root()?;
        // If it fails, the room is measured as it is.
        let _ = syncfs(&root.descriptor);
        let freed_bytes = self.report.disk_bytes_freed;
        let by_round = freed_bytes.saturating_sub(self.measured.freed_bytes);
        let promised = self.measured.available_bytes.saturating_add(by_round);
        let mut left = self.patience;
        let (space, is_kept) = loop {
            let space = cache.space().ok()?;
            let is_kept = space.available_bytes >= promised;
            let is_met = policy.min_free.is_some_and(|free| space.available_bytes >= free.bytes_of(space));
            if is_kept || is_met || left.is_zero() {
                break (space, is_kept);
            }
            left = left.saturating_sub(SLICE);
            thread::sleep(SLICE);
        };
        self.patience = if is_kept { PATIENCE } else { self.patience / 2 };
        self.measured = Measured { available_bytes: space.available_bytes, freed_bytes };
        Some(space)
    }

    /// Settles what the last round did.
    fn settle(&mut self) {
        self.settled.are_leftovers_done = true;
        for directory in &mut self.plan.inventory.tree.directories {
            // They changed by what this prune removed.
            directory.status =
                Status::of_descriptor(directory.descriptor.as_fd()).unwrap_or(directory.status);
        }
        let mut exceptions = self.report.notes.exceptions.iter().peekable();
        for (index, fate) in self.plan.blob_fates.iter().enumerate() {
            let exception = exceptions.next_if(|(exception, _)| *exception == index);
            let outcome = exception.map_or(Outcome::Removed, |(_, outcome)| *outcome);
            if let Some(fate) = settled(*fate, outcome) {
                self.settled.settle_blob(index, fate);
            }
        }
        for (index, fate) in self.plan.partial_fates.iter().enumerate() {
            let outcome = self.report.notes.partials.get(index).copied().unwrap_or(Outcome::Removed);
            if let Some(fate) = settled(*fate, outcome) {
                self.settled.settle_partial(index, fate);
            }
        }
    }

    /// If something turned out to be in use, finds out what else is, and what stays while a pull is under way.
    fn look_at_uses(&mut self, progress: &Progress) {
        let is_use = |outcome| {
            matches!(outcome, Outcome::Kept(Keep::InUse | Keep::Spared | Keep::Unprobed | Keep::Recent))
        };
        let notes = &self.report.notes;
        let partials = notes.partials.iter().zip(&self.plan.partial_fates);
        let partials = partials.filter(|(_, fate)| fate.goes()).map(|(outcome, _)| *outcome);
        let mut outcomes = notes.exceptions.iter().map(|(_, outcome)| *outcome).chain(partials);
        if !outcomes.any(is_use) {
            return;
        }
        let mut idle = Idle::of(&self.plan);
        idle.read_references();
        let pulls = match self.seen.take() {
            Some(seen) => Pulls::again(&self.plan.inventory.tree, seen),
            None => Pulls::look(&self.plan, idle.references(), progress),
        };
        idle.note_watch(pulls.was_watched());
        for index in pulls.in_use(progress) {
            self.settled.settle_blob(index, Fate::Keep(Keep::InUse));
        }
        for index in pulls.unprobed() {
            self.settled.settle_blob(index, Fate::Keep(Keep::Unprobed));
        }
        if pulls.sign().is_some() {
            let blobs = 0..self.plan.blob_fates.len();
            for index in blobs.filter(|&index| idle.is_spared(index)) {
                self.settled.settle_blob(index, Fate::Keep(Keep::Spared));
            }
            let partials = self.plan.partials().enumerate();
            for (index, _) in partials.filter(|(_, (partial, _))| idle.is_partial_spared(partial)) {
                self.settled.settle_partial(index, Fate::Keep(Keep::Spared));
            }
        }
        self.seen = Some(pulls.into_seen());
    }

    /// Plans the next round, for what is left.
    fn plan_again(self, policy: &Policy, now: Timestamp, space: Space) -> Result<Self, Error> {
        let mut inventory = self.plan.into_inventory();
        if let Some(LeftIndex { status, index_change: IndexChange::Drop(positions) }) = &self.left {
            inventory.tree.index = *status;
            inventory.references.drop_entries(positions);
        }
        // These are told already.
        inventory.tree.failures = Failures::default();
        let foresight = Foresight::of(&inventory);
        let mut plan = select_around(inventory, policy, &foresight, &self.settled, now, space)?;
        plan.needs_all_references = false;
        let left = self.left.map(LeftIndex::with_nothing_to_drop);
        Ok(Self { plan, left, ..self })
    }

    fn carry_out(&mut self, progress: &Progress) {
        let Round { report, seen, left } = carry_out(&self.plan, self.lock, self.seen.take(), progress);
        self.report = std::mem::take(&mut self.report).followed_by(report);
        self.seen = seen;
        self.left = left.or(self.left.take());
    }
}

/// The fate of an entry after a round in which this was its outcome, if it was to go.
const fn settled(fate: Fate, outcome: Outcome) -> Option<Fate> {
    let reason = match fate {
        Fate::Remove(reason) => reason,
        Fate::Failed => return Some(fate),
        _ => return None,
    };
    Some(match outcome {
        Outcome::Removed => Fate::Removed(reason),
        Outcome::Kept(reason) => Fate::Keep(reason),
        Outcome::Gone => Fate::Gone,
        Outcome::Failed | Outcome::NotReached => Fate::Failed,
    })
}
