//! Confines a prune to the cache with Landlock: the kernel refuses removals anywhere else.
//!
//! Guarantees, if the kernel supports Landlock: the pruning thread, and threads that it starts, can
//! remove files and directories only beneath the cache's directory and its leftovers, even if the other
//! code has a bug. If something beside the cache must be removed, they can also remove directories, but
//! not files, beneath the parent. The calling thread keeps its rights.
//!
//! If the kernel does not support Landlock, or a filter of system calls blocks it, the prune runs
//! unconfined, unless it is strict: then it does not begin. Every removal is relative to an open directory in any case.
//!
//! Source: `landlock(7)`, `LANDLOCK_ACCESS_FS_REMOVE_FILE` and `_DIR`.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;

use landlock::{
    AccessFs, BitFlags, PathBeneath, RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus,
};

use crate::error::{Error, Refusal};
use crate::plan::PrunePlan;
use crate::progress::Progress;

/// Runs `prune` with permission to remove only the plan's files and directories, and directories beneath
/// `beside`.
///
/// Also returns whether the kernel enforced that.
pub(crate) fn confined<T: Send>(
    plan: &PrunePlan,
    beside: Option<BorrowedFd<'_>>,
    progress: &Progress,
    prune: impl Fn() -> T + Sync,
) -> (T, bool) {
    let caller = thread::current();
    let work = || {
        let is_enforced = is_enforced(restrict_this_thread(plan, beside));
        stop_if_strict(plan, is_enforced, progress);
        let done = (prune(), is_enforced);
        caller.unpark();
        done
    };
    // A thread cannot leave a Landlock domain, so a separate thread enters it and ends with the prune.
    let done = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work).ok()?;
        progress.tell_until(|| thread.is_finished());
        match thread.join() {
            Ok(done) => Some(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    done.unwrap_or_else(|| {
        stop_if_strict(plan, false, progress);
        (prune(), false)
    })
}

/// A stopped prune removes nothing. This is for a confinement that fails although it had just worked.
fn stop_if_strict(plan: &PrunePlan, is_enforced: bool, progress: &Progress) {
    if plan.strict && !is_enforced {
        progress.stop.store(true, Ordering::Relaxed);
    }
}

/// Checks that the kernel can confine a prune. Nothing is changed; the calling thread keeps its rights.
///
/// # Errors
///
/// [`Error::Refused`] for the cache at `path` if it cannot.
pub fn check_confinement(path: &Path) -> Result<(), Error> {
    let confine = || {
        let rules = Ruleset::default().handle_access(AccessFs::RemoveFile | AccessFs::RemoveDir)?;
        rules.create()?.restrict_self()
    };
    let thread = thread::Builder::new().spawn(move || is_enforced(confine()));
    let is_enforced = thread.is_ok_and(|thread| thread.join().unwrap_or(false));
    let refused = || Error::Refused { path: path.to_owned(), reason: Refusal::Unconfined };
    is_enforced.then_some(()).ok_or_else(refused)
}

impl PrunePlan {
    /// As [`check_confinement`], if the plan is strict.
    pub(crate) fn check_confinement(&self) -> Result<(), Error> {
        if self.strict { check_confinement(&self.inventory.path) } else { Ok(()) }
    }
}

fn is_enforced(confined: Result<RestrictionStatus, RulesetError>) -> bool {
    confined.is_ok_and(|status| status.ruleset == RulesetStatus::FullyEnforced)
}

fn restrict_this_thread(
    plan: &PrunePlan,
    beside: Option<BorrowedFd<'_>>,
) -> Result<RestrictionStatus, RulesetError> {
    let directories = BitFlags::from(AccessFs::RemoveDir);
    let everything = AccessFs::RemoveFile | AccessFs::RemoveDir;
    let mut rules = Ruleset::default().handle_access(everything)?.create()?;
    if let Some(root) = plan.inventory.tree.directories.first() {
        rules = rules.add_rule(PathBeneath::new(&root.descriptor, everything))?;
    }
    if let Some(beside) = beside {
        rules = rules.add_rule(PathBeneath::new(beside, directories))?;
    }
    for leftover in plan.leftovers().filter(|leftover| !leftover.is_child) {
        rules = rules.add_rule(PathBeneath::new(leftover.parent(), directories))?;
        // A leftover that cannot be opened cannot be removed either; the removal reports why.
        if let Ok(opened) = leftover.open() {
            rules = rules.add_rule(PathBeneath::new(opened.as_fd(), everything))?;
        }
    }
    rules.restrict_self()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use rustix::fs::{AtFlags, CWD, unlinkat};
    use rustix::io::Errno;

    use crate::{CacheDir, Policy, Space, Timestamp, scan, select};

    #[test]
    fn nothing_beside_the_cache_can_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, canary) = (directory.path().join("oci"), directory.path().join("canary"));
        let blob = cache.join(format!("sha256:{:064x}", 7));
        fs::create_dir(&cache).unwrap();
        fs::write(&blob, "blob").unwrap();
        fs::write(&canary, "canary").unwrap();
        let opened = CacheDir::open(&cache, &[]).unwrap();
        let inventory = scan(&opened).unwrap();
        let policy = Policy::default();
        let plan = select(inventory, &policy, Timestamp(0), Space::default()).unwrap();
        let remove = |path| unlinkat(CWD, path, AtFlags::empty());
        let by_a_thread_of_the_prune =
            || thread::scope(|scope| scope.spawn(|| remove(&canary)).join().unwrap());
        let (results, is_enforced) = confined(&plan, None, &Progress::default(), || {
            (remove(&canary), by_a_thread_of_the_prune(), remove(&blob))
        });
        assert!(is_enforced, "this kernel does not enforce Landlock, so this test can't tell");
        assert_eq!(results, (Err(Errno::ACCESS), Err(Errno::ACCESS), Ok(())));
        assert!(canary.exists() && !blob.exists());
        assert_eq!(remove(&canary), Ok(()), "the calling thread is free");
    }
}
