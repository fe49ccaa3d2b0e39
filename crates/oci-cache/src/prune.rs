//! The prune: applies a plan, in place or by the aside strategy.
//!
//! Takes a [`PrunePlan`] and the cache's [`Lock`](crate::Lock); gives a [`PruneReport`]. [`prune`] and
//! [`preview()`] take a path and run all stages.
//!
//! Guarantees: only what the plan says is removed, and only if it is unchanged since the scan.
//! Everything counted as removed was removed. One failure does not stop the rest.

mod aside;
mod confine;
mod in_place;
mod index_rewrite;
mod layout_guard;
mod leftovers;
mod partials;
mod preview;
mod queue;
mod removal;
mod report;
mod to_goal;
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::cache_dir::CacheDir;
use crate::error::{Error, Failure};
use crate::os::status::Timestamp;
use crate::plan::PrunePlan;
use crate::plan::policy::Policy;
use crate::plan::select::select;
use crate::progress::Progress;
use crate::scan::scan;
use crate::verify::{Check, verify};

pub use self::aside::{apply_aside, check_aside};
pub use self::in_place::apply;
pub use self::report::{Kept, Notes, Outcome, PruneParams, PruneReport};
pub use self::to_goal::{Pruned, apply_to_goal};

/// Prunes the cache at `path` in place, by `policy`: opens, locks, scans, plans and applies.
///
/// Refuses `/`, the directories `protected`, their ancestors, and a directory that is not a cache. Waits
/// for the lock until a stop is requested; the report then says that the prune was interrupted.
///
/// # Errors
///
/// As [`CacheDir::open`], [`CacheDir::lock`], [`scan`](crate::scan()) and [`select`].
pub fn prune(
    path: &Path,
    protected: &[PathBuf],
    policy: &Policy,
    now: Timestamp,
    progress: &Progress,
) -> Result<PruneReport, Error> {
    let mut cache = CacheDir::open(path, protected)?;
    let Some(lock) = cache.lock(Duration::MAX, progress, || {})? else {
        let cache_dir = cache.path().to_owned();
        return Ok(PruneReport { cache_dir, interrupted: true, ..PruneReport::default() });
    };
    let (plan, unread) = plan(&cache, policy, now, progress)?;
    let mut report = apply_to_goal(&cache, &lock, plan, policy, progress, |_, _| {})?.report;
    report.failures.extend(unread);
    Ok(report)
}

/// Reports what [`prune`] would do on a cache that nobody uses; changes nothing and needs no lock.
///
/// # Errors
///
/// As [`CacheDir::open`], [`scan`](crate::scan()) and [`select`].
pub fn preview(
    path: &Path,
    protected: &[PathBuf],
    policy: &Policy,
    now: Timestamp,
    progress: &Progress,
) -> Result<PruneReport, Error> {
    let cache = CacheDir::open(path, protected)?;
    let (plan, unread) = plan(&cache, policy, now, progress)?;
    let mut report = plan.preview();
    report.failures.extend(unread);
    Ok(report)
}

/// Makes the plan. Also returns the blobs that could not be read, if the policy had to verify them.
fn plan(
    cache: &CacheDir,
    policy: &Policy,
    now: Timestamp,
    progress: &Progress,
) -> Result<(PrunePlan, Vec<Failure>), Error> {
    let space = cache.space()?;
    let mut inventory = scan(cache)?;
    let unread =
        if policy.corrupt { verify(&mut inventory, Check::Full, progress).failures } else { Vec::new() };
    Ok((select(inventory, policy, now, space)?, unread))
}
