//! The aside strategy: renames the whole cache aside in one atomic step, then removes it under the new
//! name.
//!
//! Guarantees: no blob is touched before the step; only leftovers in the cache are removed and an empty
//! directory is made beside it. After the step, the cache's path holds an empty directory with the same
//! mode and owner. Where the kernel can exchange two names (`RENAME_EXCHANGE`, `rename(2)`), the cache
//! exists at every moment. Elsewhere the cache is renamed and a prepared directory takes its place; if
//! that fails, the cache is renamed back. If the process is killed, the next prune of either strategy
//! removes what is left. Where the strategy cannot work, it refuses.
//!
//! What it does not guarantee: that a pull in progress succeeds; its directory is removed while it runs.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, RenameFlags, Uid, fchmod, fchown, flock, mkdirat, renameat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;

use crate::cache::cache_dir::{CacheDir, Root, Surroundings};
use crate::cache::leftover::Leftover;
use crate::cache::lock::Lock;
use crate::cache::names;
use crate::error::Failure;
use crate::error::{Error, Refusal};
use crate::escape::escape_path;
use crate::os::access::Removals;
use crate::os::directory::open_directory;
use crate::os::status::Status;
use crate::os::subvolume::is_subvolume;
use crate::plan::PrunePlan;
use crate::progress::{Progress, Stage};
use crate::prune::confine::confined;
use crate::prune::leftovers;
use crate::prune::report::{Outcome, PruneReport};

/// Applies a plan that removes everything, by the aside strategy.
///
/// Take the lock before the scan. A cache that does not exist is not created; leftovers are removed in
/// any case.
///
/// # Errors
///
/// [`Error::Refused`] if the strategy cannot work on this cache, or [`Error::OtherLock`] if the lock is
/// on another directory; then nothing was changed. [`Error::Io`] or [`Error::NotRestored`] if the cache
/// could not be renamed aside.
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, Policy, Progress, apply_aside, scan, select};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = &directory.path().join("cache");
/// # std::fs::create_dir(path)?;
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let mut cache = CacheDir::open(path, &[])?;
/// let lock = cache.try_lock()?.ok_or("another prune is running")?;
/// let plan = select(scan(&cache)?, &Policy::default(), now, cache.space()?)?;
/// // It frees everything, also under pulls.
/// let _open = std::fs::File::open(path.join(format!("sha256:{}", "0".repeat(64))))?;
/// let report = apply_aside(&cache, &lock, &plan, &Progress::default())?;
/// assert_eq!((report.blobs_freed, std::fs::read_dir(path)?.count()), (1, 0));
/// # Ok(())
/// # }
/// ```
pub fn apply_aside(
    cache: &CacheDir,
    lock: &Lock,
    plan: &PrunePlan,
    progress: &Progress,
) -> Result<PruneReport, Error> {
    plan.check_lock(lock)?;
    // A reader would go on with the old directory, and so would a puller that takes the lock meanwhile.
    if lock.reader().is_some() {
        return Err(Error::Locked { path: cache.path().to_owned() });
    }
    if !lock.is_on(cache.root().map(|root| root.status.id), cache.path()) {
        return Err(Error::OtherLock { path: cache.path().to_owned() });
    }
    let work = plan.work();
    progress.begin(Stage::Removing, work.blobs, work.bytes);
    let beside = cache.surroundings().map(|surroundings| surroundings.parent.as_fd());
    let (report, is_confined) = confined(plan, beside, progress, || prune(cache, plan, progress));
    report.map(|mut report| {
        report.notes.confined = Some(is_confined);
        if report.notes.left_aside.is_some() {
            tell_what_is_left(plan, &mut report);
        }
        let is_untouched = report.interrupted && report.blobs_freed == 0;
        let report = report.measured(plan);
        let used_bytes = if is_untouched { plan.inventory.used_bytes() } else { report.used_bytes };
        PruneReport { used_bytes, ..report }
    })
}

fn prune(cache: &CacheDir, plan: &PrunePlan, progress: &Progress) -> Result<PruneReport, Error> {
    let mut report = plan.report_of_kept();
    // Make every refusal before anything is changed.
    let prepared = match check(cache, plan)? {
        Some((root, surroundings)) if !progress.is_stopped() => {
            Some((root, Prepared::make(cache, root, surroundings)?))
        }
        _ => None,
    };
    // Remove the leftovers in the cache first: they must not move aside with it.
    let (children, siblings): (Vec<_>, Vec<_>) = plan.leftovers().partition(|leftover| leftover.is_child);
    let are_gone =
        children.iter().all(|leftover| !progress.is_stopped() && leftover.remove(progress, &mut report));
    match prepared {
        Some((_, prepared)) if !are_gone || progress.is_stopped() => prepared.discard(),
        Some((root, prepared)) => match take_aside(cache, root, prepared, progress, &mut report) {
            // Some leftovers are already removed, and the report must say so.
            Err(error) if report.leftovers_freed > 0 => {
                let error = std::io::Error::other(error);
                report.failures.push(Failure::new("move oci cache aside", cache.path().to_owned(), error));
            }
            taken => taken?,
        },
        None => {}
    }
    for leftover in siblings {
        if !progress.is_stopped() {
            leftover.remove(progress, &mut report);
        }
    }
    report.interrupted = progress.is_stopped();
    Ok(report)
}

/// Checks whether the strategy can work, as far as that is possible without changing anything.
///
/// # Errors
///
/// [`Error::Refused`] if it cannot.
pub fn check_aside(cache: &CacheDir, plan: &PrunePlan) -> Result<(), Error> {
    check(cache, plan).map(|_| ())
}

/// The cache and its parent; `None` if there is no cache.
fn check<'a>(cache: &'a CacheDir, plan: &PrunePlan) -> Result<Option<(&'a Root, &'a Surroundings)>, Error> {
    let Some(root) = cache.root() else { return Ok(None) };
    if let Some(cause) = plan.foreseen.causes().first() {
        let (path, error) = (escape_path(cause.first()), &cause.error);
        return Err(refused(cache, format!("{} `{path}`: {error}", cause.operation)));
    }
    if plan.strict {
        return Err(refused(cache, "it removes what is in use, which a strict prune does not".to_owned()));
    }
    if !plan.is_everything() {
        return Err(refused(cache, "it removes the whole cache, but some entries are to be kept".to_owned()));
    }
    if root.status.is_mount_root {
        return Err(refused(cache, "the cache is a mount point".to_owned()));
    }
    if is_subvolume(root.descriptor.as_fd(), &root.status) {
        let why = "the cache is a btrfs subvolume, and the new one would be a plain directory";
        return Err(refused(cache, why.to_owned()));
    }
    let children = plan.inventory.leftovers.iter().filter(|leftover| leftover.is_child);
    let in_children = children.flat_map(Leftover::foreign);
    let mut foreign = plan.inventory.foreign().iter().map(|foreign| &foreign.path).chain(in_children);
    if let Some(foreign) = foreign.next() {
        return Err(refused(
            cache,
            format!("`{}` does not belong to the cache and would be removed with it", escape_path(foreign)),
        ));
    }
    if plan.inventory.tree.live_leftovers > 0 {
        return Err(refused(cache, "another prune is removing a leftover in the cache".to_owned()));
    }
    if let Some(cause) = plan.inventory.failures().causes().first() {
        let path = escape_path(cause.first());
        return Err(refused(
            cache,
            format!("`{path}` cannot be inspected and would be removed with the cache ({})", cause.error),
        ));
    }
    let Some(surroundings) = cache.surroundings() else {
        return Err(refused(cache, "its parent directory cannot be opened".to_owned()));
    };
    let removals = Removals::from(surroundings.parent.as_fd());
    match removals.refuse(|| Ok(root.status)) {
        None => Ok(Some((root, surroundings))),
        Some(errno) if matches!(removals, Removals::None(_)) => Err(refused_beside(cache, errno)),
        Some(errno) => Err(refused_name(cache, errno)),
    }
}

/// Renames the cache aside and removes it.
fn take_aside(
    cache: &CacheDir,
    root: &Root,
    prepared: Prepared<'_>,
    progress: &Progress,
    report: &mut PruneReport,
) -> Result<(), Error> {
    let surroundings = prepared.surroundings;
    // From here on, the new directory stays locked too, until the old one is removed.
    let (aside, _new) = prepared.take_the_place(cache, root)?;
    let path = surroundings.path_of(&aside);
    let descriptor = root.descriptor.try_clone();
    let descriptor = descriptor.map_err(|source| Error::Io {
        operation: "remove old oci cache",
        path: path.clone(),
        source,
    })?;
    let parent = surroundings.parent.as_fd();
    if !leftovers::remove_tree(parent, &aside, descriptor, &path, progress, report) {
        report.notes.left_aside = Some(path);
    }
    Ok(())
}

/// Tells which entries are still there, under the new name.
fn tell_what_is_left(plan: &PrunePlan, report: &mut PruneReport) {
    let outcome = if report.interrupted { Outcome::NotReached } else { Outcome::Failed };
    let tree = &plan.inventory.tree;
    let is_left = |directory: u16, name: &CStr| {
        Status::of_entry(tree.directory(directory).descriptor.as_fd(), name).is_ok()
    };
    for (index, blob) in tree.blobs.iter().enumerate() {
        if is_left(blob.directory, blob.digest.file_name(blob.spelling).as_c_str()) {
            report.notes.exceptions.push((index, outcome));
        }
    }
    let partials = tree.partials.iter();
    report.notes.partials = partials
        .map(|partial| if is_left(partial.directory, &partial.name) { outcome } else { Outcome::Removed })
        .collect();
}

fn refused(cache: &CacheDir, why: String) -> Error {
    Error::Refused { path: cache.path().to_owned(), reason: Refusal::NotAside(why) }
}

fn refused_name(cache: &CacheDir, errno: Errno) -> Error {
    refused(cache, format!("the cache cannot be renamed ({})", std::io::Error::from(errno)))
}

fn refused_beside(cache: &CacheDir, errno: Errno) -> Error {
    let error = std::io::Error::from(errno);
    refused(cache, format!("no directory can be created beside the cache ({error})"))
}

/// An unused name beside the cache.
fn fresh_name(cache: &CacheDir, surroundings: &Surroundings) -> Result<CString, Error> {
    let operation = "generate a random name beside oci cache";
    let name = names::random_aside(surroundings.name.as_bytes());
    let name = name.and_then(|name| CString::new(name).map_err(|_| Errno::INVAL));
    name.map_err(Error::io(operation, cache.path()))
}

/// An empty directory beside the cache, ready to take its place.
struct Prepared<'a> {
    surroundings: &'a Surroundings,
    name: CString,
    descriptor: OwnedFd,
}

impl<'a> Prepared<'a> {
    fn make(cache: &CacheDir, root: &Root, surroundings: &'a Surroundings) -> Result<Self, Error> {
        let name = fresh_name(cache, surroundings)?;
        let refuse = |errno| refused_beside(cache, errno);
        mkdirat(&surroundings.parent, &name, Mode::RWXU).map_err(refuse)?;
        let made = open_directory(surroundings.parent.as_fd(), &name).and_then(|(descriptor, status)| {
            let (owner, group) = (root.status.owner, root.status.group);
            if (status.owner, status.group) != (owner, group) {
                fchown(&descriptor, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)))?;
            }
            fchmod(&descriptor, Mode::from_raw_mode(root.status.mode))?;
            // A process that opens the cache from now on finds it locked, as before.
            flock(&descriptor, FlockOperation::NonBlockingLockExclusive)?;
            Ok(descriptor)
        });
        match made {
            Ok(descriptor) => Ok(Self { surroundings, name, descriptor }),
            Err(errno) => {
                let _ = unlinkat(&surroundings.parent, &name, AtFlags::REMOVEDIR);
                Err(refuse(errno))
            }
        }
    }

    /// Puts the prepared directory in the cache's place.
    ///
    /// Returns the new name of the old cache, and the new directory, locked.
    fn take_the_place(self, cache: &CacheDir, root: &Root) -> Result<(CString, OwnedFd), Error> {
        let (parent, cache_name) = (&self.surroundings.parent, &self.surroundings.name);
        match renameat_with(parent, cache_name, parent, &self.name, RenameFlags::EXCHANGE) {
            Ok(()) => self.check_exchanged(cache, root),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.rename_and_recreate(cache),
            Err(errno) => {
                self.discard();
                Err(refused_name(cache, errno))
            }
        }
    }

    /// Checks that the directory that was exchanged is the one that was scanned.
    fn check_exchanged(self, cache: &CacheDir, root: &Root) -> Result<(CString, OwnedFd), Error> {
        let parent = &self.surroundings.parent;
        let is_the_cache =
            Status::of_entry(parent.as_fd(), &self.name).is_ok_and(|status| status.id == root.status.id);
        if is_the_cache {
            return Ok((self.name, self.descriptor));
        }
        let back = renameat_with(parent, &self.surroundings.name, parent, &self.name, RenameFlags::EXCHANGE);
        back.map_err(Error::io("undo the exchange of oci cache", cache.path()))?;
        self.discard();
        Err(Error::io("rename oci cache aside", cache.path())(Errno::AGAIN))
    }

    /// Fallback if names cannot be exchanged: renames the cache, then puts the new directory in its
    /// place.
    fn rename_and_recreate(self, cache: &CacheDir) -> Result<(CString, OwnedFd), Error> {
        let Surroundings { parent, name: cache_name, .. } = self.surroundings;
        let aside = fresh_name(cache, self.surroundings).inspect_err(|_| self.discard())?;
        if let Err(errno) = renameat(parent, cache_name, parent, &aside) {
            self.discard();
            return Err(Error::io("rename oci cache aside", cache.path())(errno));
        }
        // If another process has recreated the cache meanwhile, its directory stays.
        let recreated = renameat_with(parent, &self.name, parent, cache_name, RenameFlags::NOREPLACE)
            .or_else(|errno| match errno {
                Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
                    renameat(parent, &self.name, parent, cache_name)
                }
                errno => Err(errno),
            });
        match recreated {
            Ok(()) => Ok((aside, self.descriptor)),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                self.discard();
                Ok((aside, self.descriptor))
            }
            Err(recreate) => {
                let restored = renameat(parent, &aside, parent, cache_name);
                let path = cache.path().to_owned();
                self.discard();
                Err(match restored {
                    Ok(()) => Error::io("recreate oci cache", &path)(recreate),
                    Err(restore) => Error::NotRestored {
                        path,
                        aside: self.surroundings.path_of(&aside),
                        restore: restore.into(),
                        recreate: recreate.into(),
                    },
                })
            }
        }
    }

    fn discard(&self) {
        // The directory is empty. If it stays, the next prune removes it as a leftover.
        let _ = unlinkat(&self.surroundings.parent, &self.name, AtFlags::REMOVEDIR);
    }
}
