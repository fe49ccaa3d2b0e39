//! Prunes to a goal: if an entry cannot be removed, another one is removed instead.
//!
//! Guarantees: the goal is missed only if nothing more may be removed, or [`MAX_ROUNDS`] rounds were not
//! enough. An entry that one round could not remove is not tried again. Once a pull was under way in a round, later
//! rounds take only what has certainly been idle for the grace.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use crate::cache::cache_dir::{CacheDir, Space};
use crate::cache::inventory::Inventory;
use crate::cache::lock::Lock;
use crate::error::{Error, Failure};
use crate::plan::PrunePlan;
use crate::plan::fate::Keep;
use crate::plan::select::select_around;
use crate::progress::Progress;
use crate::prune::in_place::{apply, apply_knowing};
use crate::prune::report::{Outcome, PruneReport};
use crate::prune::spare::spared_files;
use crate::scan::references::read_references;
use crate::scan::scan_again;

/// Maximum number of rounds of scanning and removing.
const MAX_ROUNDS: usize = 256;

/// A plan that was applied or previewed.
#[derive(Debug)]
pub struct Pruned {
    /// The plan; the last one in a prune to a goal.
    pub plan: PrunePlan,
    /// The report of all rounds together.
    pub report: PruneReport,
    /// Total logical size of the cache's files after the prune, or after it would be applied, in bytes.
    pub used_bytes: u64,
}

impl Pruned {
    /// A plan that is only previewed: the dry run.
    #[must_use]
    pub fn preview(plan: PrunePlan) -> Self {
        let report = plan.preview();
        Self::new(plan, report)
    }

    /// A plan and the report of applying it.
    #[must_use]
    pub fn new(plan: PrunePlan, report: PruneReport) -> Self {
        let left_by_prunes: u64 = plan.leftovers().map(|leftover| leftover.total().bytes).sum();
        let freed = report.bytes_freed.saturating_sub(left_by_prunes);
        let used_bytes = plan.inventory().used_bytes().saturating_sub(freed);
        Self { plan, report, used_bytes }
    }
}

/// Applies a plan in place.
///
/// If the plan's policy has a goal and some entries could not be removed, makes and applies further plans
/// by the same policy without them. Calls `each_round` after every round but the last.
///
/// # Errors
///
/// As [`apply`]. The failure of a later round is only recorded in the report, because the report must
/// tell what was removed.
pub fn apply_to_goal(
    cache: &CacheDir,
    lock: &Lock,
    plan: PrunePlan,
    progress: &Progress,
    mut each_round: impl FnMut(&PrunePlan, &PruneReport),
) -> Result<Pruned, Error> {
    let (planned_at, started, grace) = (plan.planned_at, Instant::now(), plan.grace);
    let space = cache.space()?;
    let report = apply(&plan, lock, progress)?;
    let mut done = Pruned::new(plan, report);
    // Looking for corrupt blobs again would take too long.
    let Some(policy) = done.plan.goal.clone().filter(|policy| !policy.corrupt) else { return Ok(done) };
    let mut all_held = HashMap::new();
    for _ in 1..MAX_ROUNDS {
        let held = held(&done.plan, &done.report);
        if held.is_empty() || progress.is_stopped() {
            break;
        }
        each_round(&done.plan, &done.report);
        all_held.extend(held);
        all_held.extend(done.report.notes.used.iter().map(|&inode| (inode, Keep::Recent)));
        // Some file systems give the room back later.
        let available_bytes = space.available_bytes.saturating_add(done.report.disk_bytes_freed);
        let space = Space { available_bytes, ..space };
        let now = planned_at.after(started.elapsed());
        let pull = done.report.notes.pull.clone();
        let next = inventory_again(cache).and_then(|inventory| {
            // A pull is under way: do not try what it may count on, even if it is new.
            if pull.is_some() {
                all_held.extend(spared_files(&inventory, now, grace));
            }
            let plan = select_around(inventory, &policy, &all_held, now, space)?;
            apply_knowing(&plan, lock, pull.as_ref(), progress).map(|report| Pruned::new(plan, report))
        });
        match next {
            Ok(next) => done = Pruned { report: done.report.followed_by(next.report), ..next },
            Err(error) => {
                let error = io::Error::other(with_source(&error));
                let path = cache.path().to_owned();
                done.report.failures.push(Failure::new("run another round on oci cache", path, error));
                break;
            }
        }
    }
    Ok(done)
}

fn inventory_again(cache: &CacheDir) -> Result<Inventory, Error> {
    let mut inventory = scan_again(cache)?;
    read_references(&mut inventory);
    Ok(inventory)
}

/// The entries that could not be removed: inode number and reason.
fn held(plan: &PrunePlan, report: &PruneReport) -> HashMap<u64, Keep> {
    let tree = &plan.inventory.tree;
    let blobs = report.notes.exceptions.iter().map(|(index, outcome)| (tree.blobs[*index].inode, *outcome));
    let partials = tree.partials.iter().map(|partial| partial.status.id.inode);
    let partials = partials.zip(report.notes.partials.iter().copied()).zip(&plan.partial_fates);
    let partials = partials.filter(|(_, fate)| fate.goes()).map(|(partial, _)| partial);
    let held = blobs.chain(partials).filter_map(|(inode, outcome)| match outcome {
        Outcome::Kept(reason) => Some((inode, reason)),
        _ => None,
    });
    held.collect()
}

/// The error and its causes on one line.
fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", with_source(source)))
}
