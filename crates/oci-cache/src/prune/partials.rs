//! Removes partials: temporary files of known downloaders, and directories of such files.
//!
//! Guarantees: a partial is removed only if it is idle: no process has one of its files open, none holds
//! the directory locked (umoci does), and nothing in it changed since the scan. A directory that
//! contains anything but regular files is not a partial. No symbolic link is followed.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, flock, unlinkat};
use rustix::io::Errno;

use crate::cache::partial::Partial;
use crate::os::directory::open_directory;
use crate::os::lease::{Probe, probe};
use crate::os::status::Status;
use crate::prune::report::PruneReport;
use crate::prune::worker::OpenFiles;

impl Partial {
    /// Checks whether the partial is idle and unchanged since the scan.
    pub(crate) fn look(&self, directory: BorrowedFd<'_>) -> Look {
        match self.try_look(directory) {
            Ok(look) => look,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Look::Gone,
            Err(errno) => Look::Failed(errno),
        }
    }

    fn try_look(&self, directory: BorrowedFd<'_>) -> Result<Look, Errno> {
        if !self.status.is_directory() {
            let (looks, unprobed) = self.look_at_files(directory)?;
            return Ok(looks.unwrap_or(Look::Idle { opened: None, unprobed }));
        }
        let (opened, status) = open_directory(directory, &self.name)?;
        if status.id != self.status.id || status.modified != self.status.modified {
            return Ok(Look::Changed);
        }
        if flock(&opened, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(Look::InUse);
        }
        let (looks, unprobed) = self.look_at_files(opened.as_fd())?;
        Ok(looks.unwrap_or(Look::Idle { opened: Some(opened), unprobed }))
    }

    /// Why the files must not be removed, if there is a reason, and the number of files that could not
    /// be probed.
    fn look_at_files(&self, holder: BorrowedFd<'_>) -> Result<(Option<Look>, u64), Errno> {
        let mut unprobed = 0;
        for file in &self.files {
            let lease = match probe(holder, &file.name) {
                Probe::Idle(lease) => Some(lease),
                Probe::Unknown => {
                    unprobed += 1;
                    None
                }
                Probe::InUse => return Ok((Some(Look::InUse), 0)),
                Probe::Gone => return Ok((Some(Look::Gone), 0)),
                Probe::Failed(errno) => return Err(errno),
            };
            let now = Status::of_entry(holder, &file.name)?;
            drop(lease);
            let stamps = |status: &Status| (status.id, status.size_bytes, status.modified, status.changed);
            if stamps(&now) != stamps(&file.status) {
                return Ok((Some(Look::Changed), 0));
            }
        }
        Ok((None, unprobed))
    }

    /// Removes the partial, once [`Partial::look`] found it idle or if files in use are to be removed
    /// too.
    ///
    /// Returns whether it was removed: a file that is in use by now is kept.
    pub(crate) fn remove(
        &self,
        directory: BorrowedFd<'_>,
        opened: Option<&OwnedFd>,
        open_files: OpenFiles<'_>,
        report: &mut PruneReport,
    ) -> Result<bool, Errno> {
        let holder = opened.map_or(directory, OwnedFd::as_fd);
        for file in &self.files {
            if !remove_file(holder, &file.name, open_files, report)? {
                return Ok(false);
            }
        }
        if opened.is_some() {
            unlinkat(directory, &self.name, AtFlags::REMOVEDIR)?;
        }
        Ok(true)
    }
}

/// What [`Partial::look`] found.
#[derive(Debug)]
pub(crate) enum Look {
    /// It may be removed. If it is a directory, it is held open and locked.
    Idle { opened: Option<OwnedFd>, unprobed: u64 },
    /// A process has it open or locked.
    InUse,
    /// It has changed since the scan.
    Changed,
    /// It no longer exists.
    Gone,
    /// The check failed.
    Failed(Errno),
}

/// Removes a file under a lease, and counts it. Returns `false` if it is in use and must be kept.
fn remove_file(
    directory: BorrowedFd<'_>,
    name: &CStr,
    open_files: OpenFiles<'_>,
    report: &mut PruneReport,
) -> Result<bool, Errno> {
    // Holds the lease until the name is removed.
    let probed = probe(directory, name);
    let is_in_use = matches!(probed, Probe::InUse);
    if is_in_use && matches!(open_files, OpenFiles::Spare(_)) {
        return Ok(false);
    }
    let removed = Status::of_entry(directory, name)
        .and_then(|status| unlinkat(directory, name, AtFlags::empty()).map(|()| status));
    match removed {
        Ok(status) => {
            report.blobs_freed += 1;
            report.partials_freed += 1;
            report.bytes_freed += status.size_bytes;
            report.disk_bytes_freed += if status.links == 1 && !is_in_use { status.disk_bytes } else { 0 };
        }
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    Ok(true)
}
