//! One thread of a removal: removes blobs, each only if it is unchanged since the scan.
//!
//! Guarantees, for each blob: it is removed by a single name in an open directory; no path is resolved.
//! It is removed under a lease, where leases work, so nobody has it open at that moment. It is removed
//! only if inode, size and timestamps are those of the scan. Everything counted as removed was removed.
//! One failure does not stop the rest.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::cache::inventory::{Blob, Tree};
use crate::cache::ledger::Tally;
use crate::error::Failure;
use crate::os::lease::{Probe, probe};
use crate::os::status::Status;
use crate::os::sys::close_all;
use crate::os::watch::Watch;
use crate::plan::fate::Keep;
use crate::progress::Progress;
use crate::prune::queue::Queue;
use crate::prune::report::{Kept, Outcome, PruneReport};

/// What to do with a blob that a process has open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OpenFiles<'a> {
    /// Keeps it. If there is a watch, also keeps a blob that was opened since the watch started.
    Spare(Option<&'a Watch>),
    /// Removes it anyway: the directory was moved aside, so nobody can reach it. Its space does not
    /// count as freed.
    Disregard,
}

/// The result of a removal.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    pub(crate) freed: Tally,
    pub(crate) disk_bytes: u64,
    pub(crate) kept: Kept,
    pub(crate) unprobed: u64,
    pub(crate) exceptions: Vec<(usize, Outcome)>,
    pub(crate) failures: Vec<Failure>,
}

impl Removal {
    pub(crate) fn merge(&mut self, other: Self) {
        self.freed += other.freed;
        self.disk_bytes += other.disk_bytes;
        self.kept += other.kept;
        self.unprobed += other.unprobed;
        self.exceptions.extend(other.exceptions);
        self.failures.extend(other.failures);
    }

    /// Adds the result to a report.
    pub(crate) fn count_into(self, report: &mut PruneReport) {
        report.blobs_freed += self.freed.blobs;
        report.bytes_freed += self.freed.bytes;
        report.disk_bytes_freed += self.disk_bytes;
        report.kept += self.kept;
        report.notes.unprobed += self.unprobed;
        report.failures.extend(self.failures);
    }
}

/// One thread of a removal.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) queue: &'a Queue<'a>,
    pub(crate) batch_size: usize,
    /// Whether this worker has a private descriptor table; only then are closes batched.
    pub(crate) has_own_table: bool,
    pub(crate) is_overlay: bool,
    pub(crate) open_files: OpenFiles<'a>,
    pub(crate) progress: &'a Progress,
    /// Removed files of the batch whose descriptors are still open. The kernel frees their space on
    /// close.
    pub(crate) closing: Vec<OwnedFd>,
    pub(crate) removal: Removal,
}

impl<'a> Worker<'a> {
    /// The descriptors that the worker uses but did not open; no others are open on its thread.
    pub(crate) fn needed_descriptors(&self) -> Vec<BorrowedFd<'a>> {
        let directories = self.tree.directories.iter().map(|directory| directory.descriptor.as_fd());
        let watch = match self.open_files {
            OpenFiles::Spare(Some(watch)) => Some(watch.as_fd()),
            _ => None,
        };
        directories.chain(watch).collect()
    }

    pub(crate) fn run(mut self) -> Removal {
        loop {
            let batch = self.queue.take(self.batch_size);
            if batch.is_empty() {
                return self.removal;
            }
            // The watch also sees this prune's own opens, but each name is checked before it is opened.
            if let OpenFiles::Spare(Some(watch)) = self.open_files {
                watch.update();
            }
            for names in self.queue.files(batch) {
                self.remove_file(names);
            }
            close_all(&mut self.closing);
        }
    }

    fn blob(&self, index: usize) -> &'a Blob {
        &self.tree.blobs[index]
    }

    /// Removes all names of one file.
    fn remove_file(&mut self, names: &[usize]) {
        let mut holder = Holder::NotProbed;
        let mut probed = None;
        for &index in names {
            let outcome = if self.progress.is_stopped() {
                Outcome::NotReached
            } else {
                self.remove_name(index, &mut holder, &mut probed)
            };
            let size_bytes = self.blob(index).size_bytes;
            match outcome {
                Outcome::Removed => self.removal.freed.add(size_bytes),
                Outcome::Kept(reason) => self.removal.kept.add(reason, size_bytes),
                Outcome::Gone | Outcome::Failed | Outcome::NotReached => {}
            }
            if outcome != Outcome::Removed {
                // The next name may lead to another file than this one did.
                (holder, probed) = (Holder::NotProbed, None);
                self.removal.exceptions.push((index, outcome));
            }
            self.progress.add(1, size_bytes);
        }
        // If the file still has other names, release its lease now: a process may be waiting for it.
        if let Holder::Nobody(lease) = holder
            && self.has_own_table
            && probed.is_some_and(|status| status.links == 1)
        {
            self.closing.push(lease);
        }
    }

    /// Removes one name, unless there is a reason to keep it.
    ///
    /// Another name of the file may have been probed and removed before; `probed` is then the file's
    /// status before that removal.
    fn remove_name(&mut self, index: usize, holder: &mut Holder, probed: &mut Option<Status>) -> Outcome {
        let blob = self.blob(index);
        let directory = self.tree.directory(blob.directory).descriptor.as_fd();
        let name = blob.digest.file_name(blob.spelling);
        let name = name.as_c_str();
        if let OpenFiles::Spare(Some(watch)) = self.open_files
            && watch.saw(blob.directory, name)
        {
            return Outcome::Kept(Keep::Recent);
        }
        let is_opened_by_this_name = matches!(holder, Holder::NotProbed);
        if is_opened_by_this_name {
            *holder = match self.probe(index, name) {
                Ok(holder) => holder,
                Err(outcome) => return outcome,
            };
        }
        let held = if is_opened_by_this_name { self.status_of_held(blob, holder) } else { None };
        let status = match held.map_or_else(|| Status::of_entry(directory, name), Ok) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Outcome::Gone,
            Err(errno) => return self.fail("inspect", index, errno),
        };
        // Overlay layers number their inodes independently, so the lease may be on another file with the
        // same number.
        if probed.replace(status).is_some_and(|before| before.id != status.id) {
            (*holder, *probed) = (Holder::NotProbed, None);
            return self.remove_name(index, holder, probed);
        }
        if let Some(reason) = difference(blob, &status) {
            return Outcome::Kept(reason);
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Outcome::Gone,
            Err(errno) => return self.fail("remove", index, errno),
        }
        if status.links == 1 && !matches!(holder, Holder::Somebody) {
            self.removal.disk_bytes += status.disk_bytes;
        }
        self.removal.unprobed += u64::from(matches!(holder, Holder::Unknown));
        Outcome::Removed
    }

    /// Finds out who has the file of this name open. Returns the outcome instead, if that settles it.
    fn probe(&mut self, index: usize, name: &CStr) -> Result<Holder, Outcome> {
        let directory = self.tree.directory(self.blob(index).directory);
        match probe(directory.descriptor.as_fd(), name) {
            Probe::Idle(lease) => Ok(Holder::Nobody(lease)),
            Probe::InUse if matches!(self.open_files, OpenFiles::Spare(_)) => Err(Outcome::Kept(Keep::InUse)),
            Probe::InUse => Ok(Holder::Somebody),
            Probe::Unknown => Ok(Holder::Unknown),
            Probe::Gone => Err(self.gone_or_changed(index)),
            Probe::Failed(errno) => Err(self.fail("probe", index, errno)),
        }
    }

    /// The status of the open file, if the name certainly still leads to it; faster than a lookup by
    /// name.
    ///
    /// Renaming, linking or replacing a file updates its change time, so an unchanged one is proof, but
    /// not on an overlay.
    fn status_of_held(&self, blob: &Blob, holder: &Holder) -> Option<Status> {
        let Holder::Nobody(lease) = holder else { return None };
        if self.is_overlay {
            return None;
        }
        let status = Status::of_descriptor(lease.as_fd()).ok();
        status.filter(|status| status.links == 1 && status.changed == blob.changed)
    }

    /// The name could not be opened as a regular file: it is gone, or something else has taken its
    /// place.
    fn gone_or_changed(&self, index: usize) -> Outcome {
        let blob = self.blob(index);
        let name = blob.digest.file_name(blob.spelling);
        match Status::of_entry(self.tree.directory(blob.directory).descriptor.as_fd(), name.as_c_str()) {
            Err(Errno::NOENT) => Outcome::Gone,
            _ => Outcome::Kept(Keep::Changed),
        }
    }

    fn fail(&mut self, operation: &'static str, index: usize, errno: Errno) -> Outcome {
        let path = self.tree.path_of(self.blob(index));
        self.removal.failures.push(Failure::new(operation, path, errno));
        Outcome::Failed
    }
}

/// Who has the file open, as far as known.
enum Holder {
    NotProbed,
    /// Nobody, while the lease is held.
    Nobody(OwnedFd),
    /// Some process, which is ignored.
    Somebody,
    /// Leases do not work for this file.
    Unknown,
}

/// Why the blob must be kept: the file changed or was used since the scan.
fn difference(blob: &Blob, status: &Status) -> Option<Keep> {
    if (status.id.inode, status.size_bytes, status.modified) != (blob.inode, blob.size_bytes, blob.modified) {
        Some(Keep::Changed)
    } else if status.accessed != blob.accessed {
        Some(Keep::Recent)
    } else {
        None
    }
}
