//! What a worker finds out about a file before it removes a name of it.
//!
//! Guarantees: nothing is changed. A lease that a probe returns is held until it is dropped.

use std::ffi::CStr;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use crate::cache::inventory::Blob;
use crate::error::Failure;
use crate::os::lease::{Opened, Probe, ask_again, probe};
use crate::os::status::Status;
use crate::plan::fate::Keep;
use crate::prune::beside::OpenFiles;
use crate::prune::holder::{Holder, Probed, Reason, difference};
use crate::prune::report::Outcome;
use crate::prune::worker::Worker;

impl<'a> Worker<'a> {
    /// Finds out who has the file of this name open, or what becomes of the name if that is settled already.
    pub(crate) fn probe(&mut self, index: usize, name: &CStr) -> Probed<'a> {
        let directory = self.blob(index).directory;
        let watch = match self.open_files {
            OpenFiles::Spare(Some(beside)) => beside.pulls.watch_of(directory),
            _ => None,
        };
        let probe = probe(self.tree.directory(directory).descriptor.as_fd(), name, watch);
        self.judge(index, probe)
    }

    /// Finds out the same again, of a file that this thread has open and whose lease it has released.
    pub(crate) fn probe_again(&mut self, index: usize, opened: Opened<'a>) -> Probed<'a> {
        self.judge(index, ask_again(opened))
    }

    /// What a probe came to, whether it was the first of the file or not.
    pub(crate) fn judge(&mut self, index: usize, probe: Probe<'a>) -> Probed<'a> {
        match probe {
            Probe::Idle(lease) => Probed::Holder(Holder::Nobody(lease)),
            Probe::InUse(_) | Probe::Leased if matches!(self.open_files, OpenFiles::Disregard) => {
                Probed::Holder(Holder::Somebody)
            }
            Probe::InUse(descriptor) => Probed::InUse(descriptor),
            Probe::Leased => Probed::Settled(Outcome::Kept(Keep::InUse)),
            Probe::Unknown => Probed::Holder(Holder::Unknown),
            Probe::Gone => Probed::Settled(self.gone_or_changed(index)),
            Probe::Failed(errno) => Probed::Settled(self.fail("probe", index, errno)),
        }
    }

    /// The status of the open file, if the name certainly still leads to it; faster than a lookup by
    /// name.
    ///
    /// Renaming, linking or replacing a file updates its change time, so an unchanged one is proof, but
    /// not on an overlay.
    pub(crate) fn status_of_held(&self, blob: &Blob, holder: &Holder<'_>) -> Option<Status> {
        let Holder::Nobody(lease) = holder else { return None };
        if self.is_overlay {
            return None;
        }
        let status = Status::of_descriptor(lease.as_fd()).ok();
        status.filter(|status| status.links == 1 && status.changed == blob.changed)
    }

    /// Returns the status of the file that the name leads to, if there is no reason to keep the name.
    pub(crate) fn check(
        &mut self,
        index: usize,
        name: &CStr,
        holder: &Holder<'_>,
        probed: &mut Option<Status>,
    ) -> Result<Status, Reason> {
        let blob = self.blob(index);
        if matches!(holder, Holder::Unknown) && self.open_files.keep_unprobed() {
            return Err(Reason::Settled(Outcome::Kept(Keep::Unprobed)));
        }
        // Whoever opened and closed it before the lease is seen here. Whoever opens it from now on waits.
        if let Some(reason) = self.is_wanted(index, name, true) {
            return Err(Reason::Settled(Outcome::Kept(reason)));
        }
        let directory = self.tree.directory(blob.directory).descriptor.as_fd();
        let held = if probed.is_none() { self.status_of_held(blob, holder) } else { None };
        let status = match held.map_or_else(|| Status::of_entry(directory, name), Ok) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Err(Reason::Settled(Outcome::Gone)),
            Err(errno) => return Err(Reason::Settled(self.fail("inspect", index, errno))),
        };
        if probed.replace(status).is_some_and(|before| before.id != status.id) {
            return Err(Reason::OtherFile);
        }
        difference(self.tree, index, &status)
            .map_or(Ok(status), |reason| Err(Reason::Settled(Outcome::Kept(reason))))
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

    pub(crate) fn fail(&mut self, operation: &'static str, index: usize, errno: Errno) -> Outcome {
        let path = self.tree.path_of(self.blob(index));
        self.removal.failures.push(Failure::new(operation, path, errno));
        Outcome::Failed
    }
}
