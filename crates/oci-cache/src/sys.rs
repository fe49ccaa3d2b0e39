//! System calls that no safe crate offers: the one module with `unsafe`.
//!
//! Guarantees: each function takes integers and descriptors only, and touches no memory of the process.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

use crate::cache_dir::errno_of;

/// Chooses the signal by which the kernel tells of a broken lease: `F_SETSIG` of Linux's
/// `include/uapi/asm-generic/fcntl.h`, the same on every architecture.
const F_SETSIG: libc::c_int = 10;

/// A lease on an open file (`fcntl(2)`, "Leases").
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lease {
    /// Any other open of the file stands against it.
    Write,
    /// Any open of the file for writing stands against it; it wants a descriptor for reading.
    Read,
    /// No lease.
    Released,
}

/// Takes or releases a lease.
pub(crate) fn set_lease(descriptor: BorrowedFd<'_>, lease: Lease) -> Result<(), Errno> {
    let argument = match lease {
        Lease::Write => libc::F_WRLCK,
        Lease::Read => libc::F_RDLCK,
        Lease::Released => return fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK),
    };
    // Whoever opens the file breaks the lease, and the kernel tells the holder by a signal: by default
    // SIGIO, which would end the process. SIGURG is ignored by default.
    fcntl(descriptor, F_SETSIG, libc::SIGURG)?;
    fcntl(descriptor, libc::F_SETLEASE, argument)
}

#[expect(unsafe_code, reason = "F_SETSIG and F_SETLEASE are in no safe crate")]
fn fcntl(descriptor: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor is open for as long as it is borrowed; both commands take an int and touch
    // no memory of this process.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), command, argument) };
    if result == -1 { Err(errno_of(&io::Error::last_os_error())) } else { Ok(()) }
}

/// Gives the calling thread, and those that it starts from then on, the disk only when nobody else
/// wants it (`ioprio_set(2)`, class idle).
///
/// # Errors
///
/// What the system call gives.
#[expect(unsafe_code, reason = "ioprio_set is in no safe crate")]
pub fn set_idle_io_priority() -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: the call takes three ints and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the lease on a file is to become, while somebody waits for it.
#[cfg(test)]
#[expect(unsafe_code, reason = "F_GETLEASE is in no safe crate")]
pub(crate) fn lease_target(descriptor: BorrowedFd<'_>) -> libc::c_int {
    // SAFETY: as in `fcntl`.
    unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETLEASE) }
}
