//! Is anyone using this file? A write lease answers.
//!
//! Guarantees: `InUse` if any process on this kernel has the file open, for reading or for writing,
//! through whatever mount of the same file system, bind or hard link; the file is not changed, no time
//! stamp moves, and nobody else is disturbed: whoever opens the file while the lease is held waits until
//! it is released, and then gets the file. While a lease is held, nobody has the file open.
//!
//! What it does not guarantee: `O_PATH` descriptors are not seen, nor are clients of a network file
//! system. Probed through an overlay, a file that was opened by the path of its layer is not seen; the
//! other way round it is. A lease on a FUSE file system tells of users through that mount only. Where leases
//! do not work the answer is `Unknown`.
//!
//! Source: `fcntl(2)`, "Leases"; `docs/prune-protocol.md`.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::os::sys::{Lease, set_lease};

/// What the probe found.
#[derive(Debug)]
pub(crate) enum Probe {
    /// Nobody has the file open, nor can anyone until the descriptor is closed or the lease released.
    Idle(OwnedFd),
    /// Somebody has it open.
    InUse,
    /// Leases do not work for this file.
    Unknown,
    /// The name is gone, or holds something else than a regular file.
    Gone,
    /// It could not be found out.
    Failed(Errno),
}

/// Probes the file `name` of `directory`.
pub(crate) fn probe(directory: BorrowedFd<'_>, name: &CStr) -> Probe {
    // Non-blocking: somebody else's lease, or a fifo in the blob's place, must not hold up the prune.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = match rustix::io::retry_on_intr(|| openat(directory, name, flags, Mode::empty())) {
        Ok(descriptor) => descriptor,
        Err(Errno::WOULDBLOCK) => return Probe::InUse,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Probe::Gone,
        Err(Errno::ACCESS | Errno::PERM) => return Probe::Unknown,
        Err(errno) => return Probe::Failed(errno),
    };
    match rustix::io::retry_on_intr(|| set_lease(descriptor.as_fd(), Lease::Write)) {
        Ok(()) => Probe::Idle(descriptor),
        Err(Errno::WOULDBLOCK) => Probe::InUse,
        Err(Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK) => {
            Probe::Unknown
        }
        Err(errno) => Probe::Failed(errno),
    }
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

/// Releases the lease, so that whoever waits for the file goes on at once.
pub(crate) fn release_lease(descriptor: BorrowedFd<'_>) {
    // Closing releases it too: a failure here only makes somebody wait for that.
    let _ = set_lease(descriptor, Lease::Released);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::sys::lease_target;
    use std::fs::{self, File};

    fn probe_in(directory: &std::path::Path) -> Probe {
        probe(File::open(directory).unwrap().as_fd(), c"blob")
    }

    #[test]
    fn readers_writers_and_other_names_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        fs::write(&path, "content").unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::Idle(_)));

        let reader = File::open(&path).unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::InUse));
        drop(reader);
        let writer = File::options().append(true).open(&path).unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::InUse));
        drop(writer);

        let other_name = directory.path().join("other");
        fs::hard_link(&path, &other_name).unwrap();
        let reader = File::open(&other_name).unwrap();
        assert!(matches!(probe_in(directory.path()), Probe::InUse));
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
        let opener = std::thread::spawn(move || fs::read_to_string(path).unwrap());
        while lease_target(lease.as_fd()) == libc::F_WRLCK {
            std::thread::yield_now();
        }
        release_lease(lease.as_fd());
        assert_eq!(opener.join().unwrap(), "content");
    }
}
