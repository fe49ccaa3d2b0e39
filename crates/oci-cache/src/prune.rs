//! The prune: applies a plan, in place or by the aside strategy.
//!
//! Takes a [`PrunePlan`] and the cache's [`Lock`](crate::Lock); gives a [`PruneReport`]. [`prune`] and
//! [`preview()`] take a path and run all stages.
//!
//! Guarantees: only what the plan says is removed, and only if it is unchanged since the scan.
//! Everything counted as removed was removed. One failure does not stop the rest.

mod arm;
mod aside;
mod beside;
mod certain;
mod confine;
mod early;
mod foresight;
mod holder;
mod in_place;
mod index_exchange;
mod index_rewrite;
pub(crate) mod index_splice;
mod last_look;
mod layout_guard;
mod leftovers;
mod look;
mod newcomers;
mod open;
mod params;
mod partials;
mod preview;
mod probing;
mod pulls;
mod queue;
mod removal;
mod removed;
mod report;
mod reserve;
mod sign;
mod spare;
mod strictness;
mod to_goal;
mod turns;
mod units;
mod watch_first;
mod worker;

use std::path::{Path, PathBuf};

use crate::cache::cache_dir::CacheDir;
use crate::error::Error;
use crate::os::status::Timestamp;
use crate::plan::PrunePlan;
use crate::plan::policy::Policy;
use crate::plan::select::select;
use crate::progress::Progress;
use crate::scan::scan;
use crate::verify::{Check, Verification, verify};

pub use self::aside::{apply_aside, check_aside};
pub use self::confine::check_confinement;
pub use self::in_place::apply;
pub use self::params::{ParamsError, PruneParams};
pub use self::report::{Kept, Notes, Outcome, PruneReport, Room};
pub use self::sign::Sign;
pub use self::to_goal::{Pruned, apply_to_goal};

/// Prunes the cache at `path` in place, by `policy`: opens, locks, scans, plans and applies.
///
/// Refuses `/`, the directories `protected`, their ancestors, and a directory that is not a cache. Does
/// not wait for the lock; to wait, call the stages one by one, with [`CacheDir::lock`].
///
/// # Errors
///
/// [`Error::Locked`] if another prune, or a puller, holds the lock; otherwise as [`CacheDir::open`],
/// [`scan`](crate::scan()) and [`select`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use oci_cache::{Policy, Progress, prune};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let mut policy = Policy::default();
/// policy.older_than = Some(Duration::from_secs(7 * 24 * 3600));
/// let report = prune(path, &[], &policy, now, &Progress::default())?;
/// assert_eq!((report.blobs_freed, report.kept.recent.blobs), (0, 1));
/// # Ok(())
/// # }
/// ```
pub fn prune(
    path: &Path,
    protected: &[PathBuf],
    policy: &Policy,
    now: Timestamp,
    progress: &Progress,
) -> Result<PruneReport, Error> {
    let mut cache = CacheDir::open(path, protected)?;
    let lock = if policy.watch_first { cache.try_lock_beside_readers()? } else { cache.try_lock()? };
    let Some(lock) = lock else {
        return Err(Error::Locked { path: cache.path().to_owned() });
    };
    let (plan, verification) = plan(&cache, policy, now, progress)?;
    let report = apply_to_goal(&cache, &lock, plan, progress)?.report;
    Ok(report.after(verification))
}

/// Reports what [`prune`] would do on a cache that nobody uses; changes nothing and needs no lock.
///
/// # Errors
///
/// As [`CacheDir::open`], [`scan`](crate::scan()), [`select`] and [`check_confinement`].
///
/// # Examples
///
/// ```
/// use oci_cache::{Policy, Progress, preview, prune};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let (policy, progress) = (Policy::default(), Progress::default());
/// let shown = preview(path, &[], &policy, now, &progress)?;
/// assert!(shown.dry_run);
/// let done = prune(path, &[], &policy, now, &progress)?;
/// assert_eq!(shown.bytes_freed, done.bytes_freed);
/// # Ok(())
/// # }
/// ```
pub fn preview(
    path: &Path,
    protected: &[PathBuf],
    policy: &Policy,
    now: Timestamp,
    progress: &Progress,
) -> Result<PruneReport, Error> {
    let cache = CacheDir::open(path, protected)?;
    let (plan, verification) = plan(&cache, policy, now, progress)?;
    plan.check_confinement()?;
    Ok(plan.preview().after(verification))
}

/// Makes the plan. Also returns the verification, if the policy wanted one.
fn plan(
    cache: &CacheDir,
    policy: &Policy,
    now: Timestamp,
    progress: &Progress,
) -> Result<(PrunePlan, Option<Verification>), Error> {
    let space = cache.space()?;
    let mut inventory = scan(cache)?;
    let verification = policy.corrupt.then(|| verify(&mut inventory, Check::Full, progress));
    Ok((select(inventory, policy, now, space)?, verification))
}
