//! Finds out from which directories this process could remove names, without trying.
//!
//! Guarantees: nothing is changed. What the kernel would refuse for want of permission, on a read-only file system, or
//! in an immutable or append-only directory is known; in a sticky directory, it depends on who owns the entry.
//!
//! What it does not guarantee: that a removal works. A security module may still refuse it, and an entry may be
//! immutable itself.
//!
//! Source: `faccessat(2)`; `unlink(2)`, "Errors"; `may_delete` in Linux's `fs/namei.c`.

use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use crate::os::status::Status;

/// The bit of a mode that lets only owners remove entries (`S_ISVTX`).
const STICKY: u32 = 0o1000;

/// Which names this process could remove from a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removals {
    /// All, as far as is known.
    All,
    /// Those of its own files.
    Own,
    /// None, and this is what the kernel would answer.
    None(Errno),
}

impl Removals {
    /// Asks the kernel.
    pub(crate) fn from(directory: BorrowedFd<'_>) -> Self {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        // An old kernel cannot be asked, and says so.
        if let Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) =
            accessat(directory, c".", access, AtFlags::EACCESS)
        {
            return Self::None(errno);
        }
        match Status::of_descriptor(directory) {
            Ok(status) if status.is_fixed => Self::None(Errno::PERM),
            Ok(status) if status.mode & STICKY != 0 && !is_owner(&status) => Self::Own,
            _ => Self::All,
        }
    }

    /// What the kernel would answer to a removal of an entry with this status; `None` if it would remove it.
    pub(crate) fn refuse(self, entry: impl FnOnce() -> Result<Status, Errno>) -> Option<Errno> {
        match self {
            Self::All => None,
            Self::Own => entry().is_ok_and(|status| !is_owner(&status)).then_some(Errno::PERM),
            Self::None(errno) => Some(errno),
        }
    }
}

/// Whether this process counts as the owner.
fn is_owner(status: &Status) -> bool {
    let may_act_as_owner =
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER));
    geteuid().as_raw() == status.owner || may_act_as_owner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, Permissions};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn ones_own_directories_are_open() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o700, 0o1700] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            let removals = Removals::from(File::open(directory.path()).unwrap().as_fd());
            assert_eq!((removals, removals.refuse(|| Err(Errno::NOENT))), (Removals::All, None));
        }
        assert_eq!(Removals::None(Errno::ROFS).refuse(|| Err(Errno::NOENT)), Some(Errno::ROFS));
        let own = || Status::of_descriptor(File::open(directory.path()).unwrap().as_fd());
        assert_eq!(Removals::Own.refuse(own), None);
        let others = || own().map(|status| Status { owner: u32::MAX - 1, ..status });
        let is_privileged = capabilities(None).unwrap().effective.contains(CapabilitySet::FOWNER);
        assert_eq!(Removals::Own.refuse(others), (!is_privileged).then_some(Errno::PERM));
    }
}
