//! One thread of a removal: removes blobs of a tree, each only if it is still what the scan saw.
//!
//! Guarantees, for each blob: it is removed by one name in a held directory, no path is resolved; under
//! a lease, where leases work, so nobody has it open at that moment; and only if it has the inode, size and
//! times that were scanned. What is counted as removed was removed. One failure does not stop the rest.

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

/// What to do with a blob that somebody has open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OpenFiles<'a> {
    /// It stays; so does one that was opened since the watch began, if there is one.
    Spare(Option<&'a Watch>),
    /// Removes it anyway: the directory was moved aside, so nobody can reach it. Its space does not count as
    /// freed.
    Disregard,
}

/// What a removal did.
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

    /// Adds what was done to a report.
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
    /// Files of the batch that are gone, and wait for their close: in it the kernel frees their space.
    pub(crate) closing: Vec<OwnedFd>,
    pub(crate) removal: Removal,
}

impl<'a> Worker<'a> {
    /// All that a worker uses and did not open itself: nothing else is open where it runs.
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
            // What this prune opens itself is seen too, but no name is looked at again after that.
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

    /// Removes the names of one file.
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
                // The name may have led to another file than the next one does.
                (holder, probed) = (Holder::NotProbed, None);
                self.removal.exceptions.push((index, outcome));
            }
            self.progress.add(1, size_bytes);
        }
        // Of a file that has other names still, the lease ends here: somebody may be waiting for it.
        if let Holder::Nobody(lease) = holder
            && self.has_own_table
            && probed.is_some_and(|status| status.links == 1)
        {
            self.closing.push(lease);
        }
    }

    /// Removes one name, unless something stands against it. Who has the file open was perhaps found out by
    /// another of its names: then `probed` is what the file was before that was removed.
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
        // Layers of an overlay number their files each by itself: the lease must be on this very file.
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

    /// Finds out who has the file of this name open; or what becomes of the name, if that is settled.
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

    /// The status of the open file, if that is surely what the name leads to: it answers faster than the name.
    /// To move, link or cover a file moves the time of its last change; on an overlay that would not tell.
    fn status_of_held(&self, blob: &Blob, holder: &Holder) -> Option<Status> {
        let Holder::Nobody(lease) = holder else { return None };
        if self.is_overlay {
            return None;
        }
        let status = Status::of_descriptor(lease.as_fd()).ok();
        status.filter(|status| status.links == 1 && status.changed == blob.changed)
    }

    /// The name did not open as a blob does: it is gone, or something else has its place.
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

/// Who has the file open, as far as is known.
enum Holder {
    NotProbed,
    /// Nobody, for as long as the lease is held.
    Nobody(OwnedFd),
    /// Somebody, which is disregarded.
    Somebody,
    /// Leases do not work for this file.
    Unknown,
}

/// Why the file is not the one that was scanned, or not as idle as it was.
fn difference(blob: &Blob, status: &Status) -> Option<Keep> {
    if (status.id.inode, status.size_bytes, status.modified) != (blob.inode, blob.size_bytes, blob.modified) {
        Some(Keep::Changed)
    } else if status.accessed != blob.accessed {
        Some(Keep::Recent)
    } else {
        None
    }
}
