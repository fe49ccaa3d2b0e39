//! Removes partials: temporary files of known downloaders, and directories of such files.
//!
//! Guarantees: if users are spared, each file is compared with the scanned one under the lease that is held until its
//! name is gone.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::cache::partial::{Partial, PartialFile};
use crate::os::lease::{Probe, probe_patiently};
use crate::os::status::Status;
use crate::plan::fate::Keep;
use crate::prune::beside::OpenFiles;
use crate::prune::look::is_same;
use crate::prune::report::{Outcome, PruneReport};

impl Partial {
    /// Removes the partial, after [`Partial::look`] found it idle or if users are disregarded. Stops at a file that
    /// was opened or changed in the meantime: that file and the rest stay.
    pub(crate) fn remove(
        &self,
        directory: BorrowedFd<'_>,
        opened: Option<&OwnedFd>,
        open_files: OpenFiles<'_>,
        report: &mut PruneReport,
    ) -> Result<Outcome, Errno> {
        let holder = opened.map_or(directory, OwnedFd::as_fd);
        for file in &self.files {
            if let Some(reason) = remove_file(holder, file, open_files, report)? {
                return Ok(Outcome::Kept(reason));
            }
        }
        if opened.is_some() {
            unlinkat(directory, &self.name, AtFlags::REMOVEDIR)?;
        }
        Ok(Outcome::Removed)
    }
}

/// Removes a file under a lease, and counts it. Returns why it stays, if users are to be spared and it is in use or
/// changed.
fn remove_file(
    directory: BorrowedFd<'_>,
    file: &PartialFile,
    open_files: OpenFiles<'_>,
    report: &mut PruneReport,
) -> Result<Option<Keep>, Errno> {
    let spares = matches!(open_files, OpenFiles::Spare(_));
    // Held until the name is gone.
    let probed = probe_patiently(directory, &file.name, None);
    let is_in_use = matches!(probed, Probe::InUse(_) | Probe::Leased);
    if is_in_use && spares {
        return Ok(Some(Keep::InUse));
    }
    let status = match Status::of_entry(directory, &file.name) {
        Err(Errno::NOENT) => return Ok(None),
        status => status?,
    };
    if spares && !is_same(&status, &file.status) {
        return Ok(Some(Keep::Changed));
    }
    match unlinkat(directory, &file.name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        unlinked => unlinked?,
    }
    report.blobs_freed += 1;
    report.partials_freed += 1;
    report.bytes_freed += status.size_bytes;
    report.disk_bytes_freed += if status.links == 1 && !is_in_use { status.disk_bytes } else { 0 };
    Ok(None)
}
