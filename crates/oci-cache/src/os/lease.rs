//! Finds out whether anyone has a file open, by taking a write lease.
//!
//! Guarantees: `InUse` if any process on this kernel has the file open, for reading or writing, through
//! any mount or bind mount of the same file system or any hard link. The file is not changed, no
//! timestamp changes and no other process fails: a process that opens the file while the lease is held
//! waits for its release and then gets the file. While a lease is held, nobody has the file open.
//!
//! What it does not guarantee: `O_PATH` descriptors and clients of a network file system are not seen. A
//! probe through an overlay misses a file that was opened by the path of its layer; a probe by the path
//! of the layer sees a file that was opened through the overlay. On a FUSE file system, a lease shows
//! only the users of that mount. If leases do not work, the answer is `Unknown`.
//!
//! Source: `fcntl(2)`, "Leases"; `docs/prune-protocol.md`.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::os::status::Status;
use crate::os::sys::{Lease, lease_target, set_lease};
use crate::os::watch::{Announced, Watch};

/// For how long a file that looks open is asked after again. A scanner closes its own descriptor only after it has let
/// an open pass (`fanotify(7)`, permission events).
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(1);

/// A file that this process has open, and has announced to the watch of its directory, if there is one.
#[derive(Debug)]
pub(crate) struct Opened<'w> {
    /// Dropped first.
    announced: Option<Announced<'w>>,
    descriptor: OwnedFd,
}

impl Opened<'_> {
    /// The open file, after the name by which it was opened is gone.
    pub(crate) fn unlinked(self) -> OwnedFd {
        if let Some(announced) = self.announced {
            announced.was_unlinked();
        }
        self.descriptor
    }
}

impl AsFd for Opened<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The result of a probe.
#[derive(Debug)]
pub(crate) enum Probe<'w> {
    /// Nobody has the file open, and nobody can open it until the descriptor is closed or the lease
    /// released.
    Idle(Opened<'w>),
    /// Somebody has it open. The descriptor can be [asked again](ask_patiently).
    InUse(Opened<'w>),
    /// Somebody has a lease on it.
    Leased,
    /// Leases do not work for this file.
    Unknown,
    /// The name is gone, or is not a regular file any more.
    Gone,
    /// The probe failed.
    Failed(Errno),
}

/// Probes the file `name` of `directory`. If the directory is watched, the watch must know.
pub(crate) fn probe<'w>(
    directory: BorrowedFd<'_>,
    name: &CStr,
    watch: Option<(&'w Watch, usize)>,
) -> Probe<'w> {
    match open(directory, name, watch) {
        Ok(opened) => ask_again(opened),
        Err(Errno::WOULDBLOCK) => Probe::Leased,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Probe::Gone,
        Err(Errno::ACCESS | Errno::PERM) => Probe::Unknown,
        Err(errno) => Probe::Failed(errno),
    }
}

fn open<'w>(
    directory: BorrowedFd<'_>,
    name: &CStr,
    watch: Option<(&'w Watch, usize)>,
) -> Result<Opened<'w>, Errno> {
    // Non-blocking, so that neither another process's lease nor a fifo in the blob's place can block the
    // prune.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let announced = watch.and_then(|(watch, directory)| watch.announce(directory, name));
    match rustix::io::retry_on_intr(|| openat(directory, name, flags, Mode::empty())) {
        Ok(descriptor) => Ok(Opened { announced, descriptor }),
        Err(errno) => {
            if let Some(announced) = announced {
                announced.was_not_opened();
            }
            Err(errno)
        }
    }
}

/// Probes a file again that this process already has open.
pub(crate) fn ask_again(opened: Opened<'_>) -> Probe<'_> {
    match rustix::io::retry_on_intr(|| set_lease(opened.as_fd(), Lease::Write)) {
        Ok(()) => Probe::Idle(opened),
        Err(Errno::WOULDBLOCK) => Probe::InUse(opened),
        Err(Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK) => {
            Probe::Unknown
        }
        Err(errno) => Probe::Failed(errno),
    }
}

/// Asks again and again after a file that has looked open `since` then, until it does not, or patience ends.
pub(crate) fn ask_patiently(mut opened: Opened<'_>, since: Instant) -> Probe<'_> {
    loop {
        match ask_again(opened) {
            Probe::InUse(again) if since.elapsed() < PATIENCE => {
                thread::sleep(PAUSE);
                opened = again;
            }
            probed => return probed,
        }
    }
}

/// Probes a file as [`probe`] does, and asks again for a while if it looks open.
pub(crate) fn probe_patiently<'w>(
    directory: BorrowedFd<'_>,
    name: &CStr,
    watch: Option<(&'w Watch, usize)>,
) -> Probe<'w> {
    match probe(directory, name, watch) {
        Probe::InUse(opened) => ask_patiently(opened, Instant::now()),
        probed => probed,
    }
}

/// Whether another process holds an exclusive lock on the file `name` of `directory`, by `flock(2)` or `fcntl(2)`.
/// False if there is no such file, or if it cannot be opened. Whoever tries to lock the file at that moment, without
/// waiting, may be refused.
pub(crate) fn is_locked(directory: BorrowedFd<'_>, name: &CStr, watch: Option<(&Watch, usize)>) -> bool {
    // Opening a fifo would let its writer go on.
    if !Status::of_entry(directory, name).is_ok_and(|status| status.is_regular_file()) {
        return false;
    }
    let Ok(opened) = open(directory, name, watch) else { return false };
    // This lock is held for microseconds. It is shared, so that others who share it need not wait.
    if flock(&opened, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
        return true;
    }
    // This takes no lock, it only asks: a lock for writing conflicts with one for reading.
    matches!(fcntl_getlk(&opened, &Flock::from(FlockType::ReadLock)), Ok(Some(_)))
}

/// Whether somebody has the file open for writing; `None` where leases do not work.
pub(crate) fn has_writer(descriptor: BorrowedFd<'_>) -> Option<bool> {
    match rustix::io::retry_on_intr(|| set_lease(descriptor, Lease::Read)) {
        Ok(()) => {
            release_lease(descriptor);
            Some(false)
        }
        Err(Errno::WOULDBLOCK) => Some(true),
        Err(_) => None,
    }
}

/// Takes a lease on an open file: from now on, whoever opens it for writing waits. The descriptor must be open for
/// reading only.
///
/// # Errors
///
/// `EAGAIN` (`EWOULDBLOCK`) if somebody has it open for writing; others where leases do not work.
pub(crate) fn lease_against_writers(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| set_lease(descriptor, Lease::Read))
}

/// Takes a lease on an open file: from now on, whoever opens it waits.
///
/// # Errors
///
/// `EAGAIN` (`EWOULDBLOCK`) if somebody else has it open; others where leases do not work.
pub(crate) fn lease_against_all(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| set_lease(descriptor, Lease::Write))
}

/// Whether somebody has begun to open the file for writing, on which this process holds a
/// [lease against writers](lease_against_writers); see [`is_awaited`].
pub(crate) fn is_written(descriptor: BorrowedFd<'_>) -> bool {
    lease_target(descriptor) != libc::F_RDLCK || set_lease(descriptor, Lease::Read).is_err()
}

/// Whether this process may not lease files of this owner: they belong to another user, and it lacks `CAP_LEASE`.
pub(crate) fn is_refused_for(owner: u32) -> bool {
    let may_lease_all = || capabilities(None).is_ok_and(|its| its.effective.contains(CapabilitySet::LEASE));
    owner != geteuid().as_raw() && !may_lease_all()
}

/// Whether the write lease is still held, and nobody waits for the file.
pub(crate) fn is_undisturbed(descriptor: BorrowedFd<'_>) -> bool {
    lease_target(descriptor) == libc::F_WRLCK
}

/// Whether somebody has begun to open the file on which this process holds a write lease. The kernel counts whoever
/// opens a file before it lets them wait for the lease, and asks for the lease again only if nobody else is counted.
pub(crate) fn is_awaited(descriptor: BorrowedFd<'_>) -> bool {
    !is_undisturbed(descriptor) || set_lease(descriptor, Lease::Write).is_err()
}

/// Whether somebody waits to open the file for writing, on which this process holds a write lease. If only readers wait,
/// the kernel wants it to become a read lease.
pub(crate) fn is_awaited_by_writer(descriptor: BorrowedFd<'_>) -> bool {
    lease_target(descriptor) == libc::F_UNLCK
}

/// Releases the lease, so that whoever waits for the file goes on at once.
pub(crate) fn release_lease(descriptor: BorrowedFd<'_>) {
    // Closing the file releases it too; after a failure, a waiting process only waits longer.
    let _ = set_lease(descriptor, Lease::Released);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    fn probe_in(directory: &std::path::Path) -> Probe<'static> {
        probe(File::open(directory).unwrap().as_fd(), c"blob", None)
    }

    #[test]
    fn readers_writers_and_other_names_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        fs::write(&path, "content").unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::Idle(_)));

        let reader = File::open(&path).unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::InUse(_)));
        drop(reader);
        let writer = File::options().append(true).open(&path).unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::InUse(_)));
        drop(writer);

        let other_name = directory.path().join("other");
        fs::hard_link(&path, &other_name).unwrap();
        let reader = File::open(&other_name).unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::InUse(_)));
        drop(reader);
        assert!(matches!(probe_in(directory.path()), Probe::Idle(_)));
    }

    #[test]
    fn links_and_fifos_are_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::Gone));
        std::os::unix::fs::symlink("/etc/hostname", directory.path().join("blob")).unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::Gone));
    }

    #[test]
    fn an_opener_waits_for_the_lease_and_then_gets_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        fs::write(&path, "content").unwrap();
        let Probe::Idle(lease) = probe_in(directory.path()) else { panic!("somebody has a fresh file open") };
        assert!(!is_awaited(lease.as_fd()));
        let opener = std::thread::spawn(move || fs::read_to_string(path).unwrap());
        while is_undisturbed(lease.as_fd()) {
            std::thread::yield_now();
        }
        assert!(is_awaited(lease.as_fd()) && set_lease(lease.as_fd(), Lease::Write).is_err());
        release_lease(lease.as_fd());
        assert_eq!(opener.join().unwrap(), "content");
    }

    #[test]
    fn a_file_that_looks_open_is_asked_after_until_patience_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        fs::write(&path, "content").unwrap();
        let reader = File::open(&path).unwrap();
        let Probe::InUse(opened) = probe_in(directory.path()) else { panic!("it is open") };
        let since = Instant::now() - PATIENCE;
        let Probe::InUse(opened) = ask_patiently(opened, since) else { panic!("it is open") };
        // It begins to look open only later, so patience does not end before the reader does.
        let since = Instant::now() + Duration::from_secs(60);
        let probed = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(20 * PAUSE);
                drop(reader);
            });
            ask_patiently(opened, since)
        });
        assert!(matches!(probed, Probe::Idle(_)), "{probed:?}");
    }

    #[test]
    fn a_file_on_which_somebody_has_a_lease_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("blob"), "content").unwrap();
        let Probe::Idle(_lease) = probe_in(directory.path()) else {
            panic!("somebody has a fresh file open")
        };
        let started = Instant::now();
        assert!(matches!(probe_in(directory.path()), Probe::Leased));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
