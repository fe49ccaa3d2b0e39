//! System calls on files and directories. Nothing here knows what a cache is.
//!
//! Takes descriptors and single names; gives what the kernel answers.
//!
//! Guarantees: every call is relative to an open directory and follows no link, so no path is resolved
//! twice. `unsafe` is in [`sys`] only.

pub(crate) mod directory;
pub(crate) mod lease;
pub(crate) mod quiet_read;
pub(crate) mod status;
pub(crate) mod sys;
pub(crate) mod watch;

use std::io;

use rustix::io::Errno;

/// The error number behind an error; `EIO` if there is none.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
