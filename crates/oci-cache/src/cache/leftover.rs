//! Leftovers: directories that killed prunes left behind.
//!
//! Guarantees: a leftover is opened only if its name still leads to the directory that was found.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::cache::ledger::{DiskLedger, Tally};
use crate::os::directory::open_directory;
use crate::os::status::FileId;

/// A directory that a killed prune left behind.
#[derive(Debug)]
pub struct Leftover {
    pub(crate) path: PathBuf,
    pub(crate) parent: Arc<OwnedFd>,
    pub(crate) name: CString,
    pub(crate) id: FileId,
    /// Whether it is in the cache, rather than beside it.
    pub(crate) is_child: bool,
    pub(crate) total: Tally,
    /// The files to be removed with it: inode, number of links, bytes on disk.
    pub(crate) files: Vec<(u64, u32, u64)>,
    pub(crate) foreign: Vec<PathBuf>,
}

impl Leftover {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that contains it.
    pub(crate) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Opens it, if it is still the directory that was found.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        let (descriptor, status) = open_directory(self.parent.as_fd(), &self.name)?;
        if status.id == self.id { Ok(descriptor) } else { Err(Errno::NOENT) }
    }

    /// Its device and inode.
    pub(crate) const fn id(&self) -> ((u32, u32), u64) {
        (self.id.device, self.id.inode)
    }

    /// The number of files in it, and their logical size.
    #[must_use]
    pub const fn total(&self) -> Tally {
        self.total
    }

    /// Entries in it that do not belong to a cache. If there are any, the leftover is not removed.
    #[must_use]
    pub fn foreign(&self) -> &[PathBuf] {
        &self.foreign
    }

    /// Adds the files of the leftover to the tally and the ledger.
    pub(crate) fn count_into(&self, tally: &mut Tally, disk: &mut DiskLedger) {
        *tally += self.total;
        for &(inode, links, disk_bytes) in &self.files {
            disk.remove_name(inode, links, disk_bytes);
        }
    }
}
