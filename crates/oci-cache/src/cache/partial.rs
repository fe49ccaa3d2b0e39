//! Partials: temporary files of known downloaders, and directories of such files.
//!
//! Guarantees: a directory that contains anything but regular files is not a partial.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::cache::ledger::{DiskLedger, Tally, UsedLedger};
use crate::os::status::{Status, Timestamp};

/// A temporary file of a download, or a directory of such files.
#[derive(Clone, Debug)]
pub struct Partial {
    pub(crate) path: PathBuf,
    pub(crate) directory: u16,
    pub(crate) name: CString,
    pub(crate) status: Status,
    pub(crate) files: Vec<PartialFile>,
}

/// One file of a partial. If the partial itself is a file, both have the same name.
#[derive(Clone, Debug)]
pub(crate) struct PartialFile {
    pub(crate) name: CString,
    pub(crate) status: Status,
}

impl Partial {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Total logical size of its files, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.status.size_bytes).fold(0, u64::saturating_add)
    }

    /// When it last changed in any way: by a write, a read, a rename or a change of mode.
    #[must_use]
    pub fn last_used(&self) -> Timestamp {
        let of = |status: &Status| status.modified.max(status.accessed).max(status.changed);
        // Listing a directory updates its access time, so that time is ignored.
        let own = self.status.modified.max(self.status.changed);
        self.files.iter().map(|file| of(&file.status)).fold(own, Timestamp::max)
    }

    /// Adds its files to what is used.
    pub(crate) fn add_to(&self, used: &mut UsedLedger) {
        for PartialFile { status, .. } in &self.files {
            used.add_name(status.id.inode, status.links, status.size_bytes.min(status.disk_bytes));
        }
    }

    /// Removes its files from what is used.
    pub(crate) fn remove_from(&self, used: &mut UsedLedger) {
        for PartialFile { status, .. } in &self.files {
            used.remove_name(status.id.inode, status.links, status.size_bytes.min(status.disk_bytes));
        }
    }

    pub(crate) fn count_into(&self, tally: &mut Tally, disk: &mut DiskLedger) {
        for PartialFile { status, .. } in &self.files {
            tally.add(status.size_bytes);
            disk.remove_name(status.id.inode, status.links, status.disk_bytes);
        }
    }
}
