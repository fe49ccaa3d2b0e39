//! One thread of a removal: removes blobs, each only if it is unchanged since the scan.
//!
//! Guarantees, for each blob: it is removed by a single name in an open directory; no path is resolved.
//! It is removed under a lease, where leases work, so nobody has it open at that moment. It is removed
//! only if inode, size and timestamps are those of the scan. No lease is held while the thread waits for
//! others in the directory. If a pull may have used it within the hour, or
//! the grace, the watch is read under the lease: whoever opened and closed it before is seen, and whoever
//! opens it now waits. Everything counted as removed was removed. One failure does not stop the rest.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::mem;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::cache::inventory::{Blob, Tree};
use crate::os::lease::{PATIENCE, Probe, ask_again, ask_patiently, is_undisturbed, release_lease};
use crate::os::status::Status;
use crate::os::sys::close_all;
use crate::os::watch::Watch;
use crate::plan::fate::Keep;
use crate::progress::Progress;
use crate::prune::beside::{Beside, OpenFiles};
use crate::prune::holder::{Holder, Probed, Reason};
use crate::prune::queue::Queue;
use crate::prune::removed::Removal;
use crate::prune::report::Outcome;
use crate::prune::turns::{Turn, Turns};

/// One thread of a removal.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) queue: &'a Queue<'a>,
    pub(crate) turns: &'a Turns,
    pub(crate) batch_size: usize,
    /// Whether this worker has a private descriptor table; only then are closes batched.
    pub(crate) has_own_table: bool,
    pub(crate) is_overlay: bool,
    pub(crate) open_files: OpenFiles<'a>,
    pub(crate) progress: &'a Progress,
    /// Removed files of the batch whose descriptors are still open. The kernel frees their space on
    /// close.
    pub(crate) closing: Vec<OwnedFd>,
    /// Files that looked open, and will be asked again.
    pub(crate) waiting: VecDeque<Waiting<'a>>,
    pub(crate) removal: Removal,
}

/// A file that looked open: its names that are left, and since when it waits.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    names: &'a [usize],
    descriptor: OwnedFd,
    since: Instant,
}

impl<'a> Worker<'a> {
    /// The descriptors that the worker uses but did not open; no others are open on its thread.
    pub(crate) fn needed_descriptors(&self) -> Vec<BorrowedFd<'a>> {
        let directories = self.tree.directories.iter().map(|directory| directory.descriptor.as_fd());
        let watch = match self.open_files {
            OpenFiles::Spare(Some(beside)) => beside.pulls.watch(),
            _ => None,
        };
        directories.chain(watch.map(Watch::as_fd)).collect()
    }

    pub(crate) fn run(mut self) -> Removal {
        loop {
            let batch = self.queue.take(self.batch_size);
            if batch.is_empty() {
                self.ask_again(true);
                close_all(&mut self.closing);
                return self.removal;
            }
            // This prune's own opens fill the kernel's queue too, which is bounded.
            if let OpenFiles::Spare(Some(beside)) = self.open_files {
                beside.pulls.update();
            }
            for names in self.queue.files(batch) {
                self.remove_file(names, Holder::NotProbed);
            }
            self.ask_again(false);
            close_all(&mut self.closing);
        }
    }

    /// Asks files again that looked open: all of them, or only those that have waited long enough, and those that
    /// exceed the size of a batch.
    fn ask_again(&mut self, all: bool) {
        while let Some(first) = self.waiting.front() {
            let left = PATIENCE.saturating_sub(first.since.elapsed());
            if !all && !left.is_zero() && self.waiting.len() <= self.batch_size {
                return;
            }
            let Some(Waiting { names, descriptor, since }) = self.waiting.pop_front() else { return };
            match ask_patiently(descriptor, since) {
                Probe::Idle(lease) => self.remove_file(names, Holder::Nobody(lease)),
                _ => self.keep_all(names, Keep::InUse),
            }
        }
    }

    pub(crate) fn blob(&self, index: usize) -> &'a Blob {
        &self.tree.blobs[index]
    }

    fn keep_all(&mut self, names: &[usize], reason: Keep) {
        for &index in names {
            self.settle(index, Outcome::Kept(reason));
        }
    }

    /// Counts what became of a name.
    fn settle(&mut self, index: usize, outcome: Outcome) {
        let size_bytes = self.blob(index).size_bytes;
        match outcome {
            Outcome::Removed => self.removal.freed.add(size_bytes),
            Outcome::Kept(reason) => self.removal.kept.add(reason, size_bytes),
            Outcome::Gone | Outcome::Failed | Outcome::NotReached => {}
        }
        if outcome != Outcome::Removed {
            self.removal.exceptions.push((index, outcome));
        }
        self.progress.add(1, size_bytes);
    }

    /// Removes the names of one file. The holder is known if the file was probed before.
    fn remove_file(&mut self, names: &'a [usize], mut holder: Holder) {
        let mut probed = None;
        for (position, &index) in names.iter().enumerate() {
            let outcome = if self.progress.is_stopped() {
                Outcome::NotReached
            } else {
                match self.remove_name(index, &mut holder, &mut probed) {
                    Ok(outcome) => outcome,
                    Err(descriptor) => {
                        let since = Instant::now();
                        return self.waiting.push_back(Waiting {
                            names: &names[position..],
                            descriptor,
                            since,
                        });
                    }
                }
            };
            if outcome != Outcome::Removed {
                // The next name may lead to another file than this one did.
                (holder, probed) = (Holder::NotProbed, None);
            }
            self.settle(index, outcome);
        }
        // If the file still has other names, release its lease now: a process may be waiting for it.
        if let Holder::Nobody(lease) = holder
            && self.has_own_table
            && probed.is_some_and(|status: Status| status.links == 1)
        {
            self.closing.push(lease);
        }
    }

    /// Removes one name, unless there is a reason to keep it. If the file was probed by another of its names,
    /// `holder` is the result, and `probed` the file's status before that name was removed.
    ///
    /// # Errors
    ///
    /// The descriptor of a file that looks open, perhaps only for a moment.
    fn remove_name(
        &mut self,
        index: usize,
        holder: &mut Holder,
        probed: &mut Option<Status>,
    ) -> Result<Outcome, OwnedFd> {
        let blob = self.blob(index);
        let name = blob.digest.file_name(blob.spelling);
        let name = name.as_c_str();
        if let Some(reason) = self.is_wanted(index, name, false) {
            return Ok(Outcome::Kept(reason));
        }
        if matches!(holder, Holder::NotProbed) {
            *holder = match self.probe(index, name) {
                Probed::Holder(holder) => holder,
                Probed::Settled(outcome) => return Ok(outcome),
                Probed::InUse(descriptor) => return Err(descriptor),
            };
        }
        let mut turn = None;
        let (status, _turn) = loop {
            let status = match self.check(index, name, holder, probed) {
                Ok(status) => status,
                Err(Reason::Settled(outcome)) => return Ok(outcome),
                Err(Reason::OtherFile) => {
                    drop(turn);
                    (*holder, *probed) = (Holder::NotProbed, None);
                    return self.remove_name(index, holder, probed);
                }
            };
            let directory = usize::from(blob.directory);
            if let Some(turn) = turn.take().or_else(|| self.turns.take_soon(directory)) {
                break (status, turn);
            }
            // Whoever uses the blob meanwhile is seen by another check.
            turn = Some(self.wait_without_lease(directory, holder)?);
        };
        // If somebody waits for the lease, the kernel may take it away at any moment.
        if let Holder::Nobody(lease) = holder
            && !is_undisturbed(lease.as_fd())
        {
            return Ok(Outcome::Kept(Keep::InUse));
        }
        Ok(self.unlink(index, name, holder, &status))
    }

    /// Waits for the turn in a directory. Holds no lease meanwhile, and takes it again afterwards.
    ///
    /// # Errors
    ///
    /// The descriptor of a file that looks open since then.
    fn wait_without_lease(&self, directory: usize, holder: &mut Holder) -> Result<Turn<'a>, OwnedFd> {
        let lease = match mem::replace(holder, Holder::Unknown) {
            Holder::Nobody(lease) => lease,
            other => {
                *holder = other;
                return Ok(self.turns.wait(directory));
            }
        };
        release_lease(lease.as_fd());
        let turn = self.turns.wait(directory);
        match ask_again(lease) {
            Probe::Idle(lease) => *holder = Holder::Nobody(lease),
            Probe::InUse(descriptor) => return Err(descriptor),
            _ => {}
        }
        Ok(turn)
    }

    fn unlink(&mut self, index: usize, name: &CStr, holder: &Holder, status: &Status) -> Outcome {
        let directory = self.tree.directory(self.blob(index).directory).descriptor.as_fd();
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

    /// Why the blob stays, if a pull may want it. With `look`, takes in what the watch has seen since the last update.
    /// A blob that has certainly been idle for long enough is not looked for.
    pub(crate) fn is_wanted(&self, index: usize, name: &CStr, look: bool) -> Option<Keep> {
        let OpenFiles::Spare(Some(Beside { pulls, idle })) = self.open_files else { return None };
        if !idle.may_be_in_use(index) {
            return None;
        }
        let sign = if look { pulls.update() } else { pulls.sign() };
        if pulls.saw(usize::from(self.blob(index).directory), name) {
            return Some(Keep::Recent);
        }
        (sign.is_some() && idle.is_spared(index)).then_some(Keep::InUse)
    }
}
