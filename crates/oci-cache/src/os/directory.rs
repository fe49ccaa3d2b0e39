//! Opens directories by name within an open directory, and lists them.
//!
//! Guarantees: a directory is listed through its descriptor, so the entries are those of the open
//! directory, whatever happens to its path. Where `O_NOATIME` is allowed, no timestamp changes, not even
//! the directory's. No symbolic link is followed and no mount point is entered.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use crate::os::quiet_read::open_without_atime;
use crate::os::status::Status;

/// Flags that open a directory for listing and do not follow a link in the last component.
pub(crate) const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Size of the buffer for directory entries: a few hundred blob names per system call.
const BUFFER_BYTES: usize = 64 << 10;

/// Opens the entry `name` of `directory` for listing; refuses symbolic links and mount points.
pub(crate) fn open_directory(directory: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, Status), Errno> {
    let descriptor = rustix::io::retry_on_intr(|| openat(directory, name, OPEN_DIRECTORY, Mode::empty()))?;
    let status = Status::of_descriptor(descriptor.as_fd())?;
    if status.is_mount_root { Err(Errno::XDEV) } else { Ok((descriptor, status)) }
}

/// Calls `each` with every name in the directory, except `.` and `..`.
pub(crate) fn list(directory: BorrowedFd<'_>, mut each: impl FnMut(&CStr)) -> Result<(), Errno> {
    // Opened anew: the read position belongs to the open file description, so nobody else can move it.
    let opened = open_without_atime(directory, c".", OPEN_DIRECTORY)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = RawDir::new(opened.as_fd(), buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if [c".", c".."].contains(&entry.file_name()) => {}
            Ok(entry) => each(entry.file_name()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
