//! System calls on files and directories, independent of what a cache is.
//!
//! Takes descriptors and single names; gives the kernel's answers.
//!
//! Guarantees: every call on an entry is relative to an open directory and follows no symbolic link, so no path
//! is resolved twice. Only [`sys`] contains `unsafe` code: the rest of the library has none but a call of the processor's own
//! instructions for SHA-256.

pub(crate) mod access;
pub(crate) mod attributes;
pub(crate) mod birth;
pub(crate) mod directory;
pub(crate) mod layer;
pub(crate) mod lease;
pub(crate) mod processes;
pub(crate) mod quiet_read;
pub(crate) mod read_through;
pub(crate) mod readers;
pub(crate) mod status;
pub(crate) mod subvolume;
pub(crate) mod sys;
pub(crate) mod watch;

use std::io;

use rustix::io::Errno;

/// The error number of an error; `EIO` if it has none.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
