//! The engine of every prune: removes blobs of a tree, each only if it is still what the scan saw.
//!
//! Guarantees, for each blob: it is removed by one name in a held directory, no path is resolved; under
//! a lease, where leases work, so nobody has it open at that moment; and only if it has the inode, size and
//! times that were scanned. What is counted as removed was removed. One failure does not
//! stop the rest.
//!
//! How it is fast: blobs go in inode order, on more threads than there are cores, for many file systems let
//! each removal wait for the disk; each thread has a table of open files of its own, and closes neighbours with
//! one call.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread;

use rustix::fs::{AtFlags, FsWord, fstatfs, unlinkat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::cache::inventory::{Blob, Tree};
use crate::cache::ledger::Tally;
use crate::error::Failure;
use crate::os::lease::{Probe, probe};
use crate::os::status::Status;
use crate::os::sys::{OwnDescriptors, close_all};
use crate::os::watch::Watch;
use crate::plan::fate::Keep;
use crate::progress::Progress;
use crate::prune::queue::{BATCH, Queue};
use crate::prune::report::{Kept, Outcome, PruneReport};

/// How many threads remove, at most. Where nothing waits for the disk, more than there are cores cost a few
/// hundredths of the time; where something does, as with ext4's `discard`, they save most of it.
const THREADS: usize = 16;
/// `OVERLAYFS_SUPER_MAGIC` of Linux's `include/uapi/linux/magic.h`.
const OVERLAY: FsWord = 0x794c_7630;
/// Which part of the limit on open files they may take: each in its own table, or all in a shared one, where each has
/// one file open at a time.
const SHARE_OF_OPEN_FILES: u64 = 8;

/// What to do with a blob that somebody has open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Users<'a> {
    /// It stays; so does one that was opened since the watch began, if there is one.
    Spare(Option<&'a Watch>),
    /// It goes: its name is out of everyone's reach already. Its space is not counted as freed.
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

/// Removes the blobs of `tree` at the indexes `doomed`.
pub(crate) fn remove_blobs(
    tree: &Tree,
    doomed: Vec<usize>,
    users: Users<'_>,
    progress: &Progress,
) -> Removal {
    let queue = Queue::new(tree, doomed);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / SHARE_OF_OPEN_FILES;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let threads = queue.worthwhile_threads().min(THREADS).min(limit);
    let batch_size = limit.clamp(1, BATCH);
    let root = tree.directories.first();
    let is_overlay = root.is_none_or(|root| !fstatfs(&root.descriptor).is_ok_and(|it| it.f_type != OVERLAY));
    let worker = || Worker {
        tree,
        queue: &queue,
        batch_size,
        has_own_table: false,
        is_overlay,
        users,
        progress,
        closing: Vec::new(),
        removal: Removal::default(),
    };
    let mut removal = thread::scope(|scope| {
        // This thread only waits for them, unless there are none: few blobs, or no thread to be had.
        let spawned: Vec<_> = (0..threads)
            .map_while(|_| {
                let worker = worker();
                let work = || {
                    let own = OwnDescriptors::enter(&worker.needed_descriptors());
                    Worker { has_own_table: own.is_some(), ..worker }.run()
                };
                thread::Builder::new().spawn_scoped(scope, work).ok()
            })
            .collect();
        if spawned.is_empty() {
            return worker().run();
        }
        let mut removal = Removal::default();
        for thread in spawned {
            match thread.join() {
                Ok(part) => removal.merge(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        removal
    });
    removal.exceptions.sort_unstable_by_key(|(index, _)| *index);
    removal
}

impl Removal {
    fn merge(&mut self, other: Self) {
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
        report.unprobed += self.unprobed;
        report.failures.extend(self.failures);
    }
}

/// One thread of a removal.
struct Worker<'a> {
    tree: &'a Tree,
    queue: &'a Queue<'a>,
    batch_size: usize,
    /// Only in a table of one's own, which nobody else fills, files wait for each other's close.
    has_own_table: bool,
    is_overlay: bool,
    users: Users<'a>,
    progress: &'a Progress,
    /// Files of the batch that are gone, and wait for their close: in it the kernel frees their space.
    closing: Vec<OwnedFd>,
    removal: Removal,
}

impl<'a> Worker<'a> {
    /// All that a worker uses and did not open itself: nothing else is open where it runs.
    fn needed_descriptors(&self) -> Vec<BorrowedFd<'a>> {
        let directories = self.tree.directories.iter().map(|directory| directory.descriptor.as_fd());
        let watch = match self.users {
            Users::Spare(Some(watch)) => Some(watch.as_fd()),
            _ => None,
        };
        directories.chain(watch).collect()
    }

    fn run(mut self) -> Removal {
        loop {
            let batch = self.queue.take(self.batch_size);
            if batch.is_empty() {
                return self.removal;
            }
            // What this prune opens itself is seen too, but no name is looked at again after that.
            if let Users::Spare(Some(watch)) = self.users {
                watch.update();
            }
            for names in self.queue.files(batch) {
                self.remove_file(names);
            }
            close_all(&mut self.closing);
        }
    }

    fn blob(&self, index: usize) -> &Blob {
        &self.tree.blobs[index]
    }

    /// Removes the names of one file.
    fn remove_file(&mut self, names: &[usize]) {
        let mut user = User::NotProbed;
        let mut probed = None;
        for &index in names {
            let outcome = if self.progress.is_stopped() {
                Outcome::NotReached
            } else {
                self.remove_name(index, &mut user, &mut probed)
            };
            let size_bytes = self.blob(index).size_bytes;
            match outcome {
                Outcome::Removed => self.removal.freed.add(size_bytes),
                Outcome::Kept(reason) => self.removal.kept.add(reason, size_bytes),
                Outcome::Gone | Outcome::Failed | Outcome::NotReached => {}
            }
            if outcome != Outcome::Removed {
                // The name may have led to another file than the next one does.
                (user, probed) = (User::NotProbed, None);
                self.removal.exceptions.push((index, outcome));
            }
            self.progress.advance(1, size_bytes);
        }
        // Of a file that has other names still, the lease ends here: somebody may be waiting for it.
        if let User::Nobody(lease) = user
            && self.has_own_table
            && probed.is_some_and(|status| status.links == 1)
        {
            self.closing.push(lease);
        }
    }

    /// Removes one name, unless something stands against it. Who has the file open was perhaps found out by
    /// another of its names: then `probed` is what the file was before that was removed.
    fn remove_name(&mut self, index: usize, user: &mut User, probed: &mut Option<Status>) -> Outcome {
        let blob = self.blob(index);
        let directory = self.tree.directory(blob.directory);
        let name = blob.digest.file_name(blob.spelling);
        if let Users::Spare(Some(watch)) = self.users
            && watch.saw(blob.directory, name.as_c_str())
        {
            return Outcome::Kept(Keep::Recent);
        }
        let is_opened_by_this_name = matches!(user, User::NotProbed);
        if is_opened_by_this_name {
            *user = match probe(directory.descriptor.as_fd(), name.as_c_str()) {
                Probe::Idle(lease) => User::Nobody(lease),
                Probe::InUse if matches!(self.users, Users::Spare(_)) => return Outcome::Kept(Keep::InUse),
                Probe::InUse => User::Somebody,
                Probe::Unknown => User::Unknown,
                Probe::Gone => return self.gone_or_changed(index),
                Probe::Failed(errno) => return self.fail("probe", index, errno),
            };
        }
        // The open file answers faster than the name. If it was not moved, linked or covered since the scan, all of
        // which move the time of its last change, it is what the name leads to; on an overlay that would not tell.
        let held = match user {
            User::Nobody(lease) if is_opened_by_this_name && !self.is_overlay => {
                let status = Status::of_descriptor(lease.as_fd()).ok();
                status.filter(|status| status.links == 1 && status.changed == blob.changed)
            }
            _ => None,
        };
        let status = held.map_or_else(|| Status::of_entry(directory.descriptor.as_fd(), name.as_c_str()), Ok);
        let status = match status {
            Ok(status) => status,
            Err(Errno::NOENT) => return Outcome::Gone,
            Err(errno) => return self.fail("inspect", index, errno),
        };
        // Layers of an overlay number their files each by itself: the lease must be on this very file.
        if probed.replace(status).is_some_and(|before| before.id != status.id) {
            (*user, *probed) = (User::NotProbed, None);
            return self.remove_name(index, user, probed);
        }
        if let Some(reason) = difference(blob, &status) {
            return Outcome::Kept(reason);
        }
        match unlinkat(&directory.descriptor, name.as_c_str(), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Outcome::Gone,
            Err(errno) => return self.fail("remove", index, errno),
        }
        if status.links == 1 && !matches!(user, User::Somebody) {
            self.removal.disk_bytes += status.disk_bytes;
        }
        if matches!(user, User::Unknown) {
            self.removal.unprobed += 1;
        }
        Outcome::Removed
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
enum User {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, FileTimes};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use crate::{CacheDir, Policy, References, Space, apply, scan, select};

    const HOUR: Duration = Duration::from_secs(3600);

    /// When the blobs were last used: so long before the plan that no prune waits for them or watches them.
    fn used() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn write_old(path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        let times = FileTimes::new().set_accessed(used()).set_modified(used());
        File::open(path).unwrap().set_times(times).unwrap();
    }

    #[test]
    fn what_changed_between_the_scan_and_the_removal_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number: u8| directory.path().join(format!("sha256:{number:064x}"));
        let (rewritten, replaced, read, untouched) = (path(1), path(2), path(3), path(4));
        for (blob, content) in [(&rewritten, "1"), (&replaced, "22"), (&read, "444"), (&untouched, "88888")] {
            write_old(blob, content);
        }
        let cache = CacheDir::open(directory.path(), &[]).unwrap();
        let (everything, now) = (Policy::default(), (used() + HOUR).into());
        let plan = select(scan(&cache).unwrap(), References::default(), &everything, now, Space::default());
        assert_eq!(plan.total().blobs, 4);

        // The size, the inode and the time of the last read are as they were.
        fs::write(&rewritten, "x").unwrap();
        // All but the inode is as it was.
        let other = directory.path().join("other");
        write_old(&other, "yy");
        fs::rename(&other, &replaced).unwrap();
        let later = FileTimes::new().set_accessed(used() + HOUR / 2);
        File::open(&read).unwrap().set_times(later).unwrap();

        let report = apply(&plan, &Progress::default());
        let mut kept = Kept::default();
        kept.add(Keep::Changed, 1);
        kept.add(Keep::Changed, 2);
        kept.add(Keep::Recent, 3);
        assert_eq!((report.blobs_freed, report.bytes_freed, report.kept), (1, 5, kept));
        assert!(report.is_complete(), "{:?}", report.failures);
        let content = |path| fs::read_to_string(path).ok();
        let left = [content(&rewritten), content(&replaced), content(&read), content(&untouched)];
        assert_eq!(left, [Some("x".into()), Some("yy".into()), Some("444".into()), None]);
    }

    #[test]
    fn threads_agree_on_what_went() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number: usize| directory.path().join(format!("sha256:{number:064x}"));
        // 400 files: of each hundredth a second name, of the last two a name outside the cache.
        let outside = tempfile::tempdir_in(directory.path().parent().unwrap()).unwrap();
        for number in 0..400 {
            write_old(&path(number), "four");
            if number % 100 == 0 {
                fs::hard_link(path(number), path(1000 + number)).unwrap();
            }
            if number >= 398 {
                fs::hard_link(path(number), outside.path().join(number.to_string())).unwrap();
            }
        }
        let cache = CacheDir::open(directory.path(), &[]).unwrap();
        let (everything, now) = (Policy::default(), (used() + HOUR).into());
        let plan = select(scan(&cache).unwrap(), References::default(), &everything, now, Space::default());
        let disk_bytes = plan.inventory.tree.blobs[0].disk_bytes;
        fs::write(path(7), "other").unwrap();
        let _reader = File::open(path(8)).unwrap();

        let report = apply(&plan, &Progress::default());
        let mut kept = Kept::default();
        kept.add(Keep::Changed, 4);
        kept.add(Keep::InUse, 4);
        assert_eq!((report.blobs_freed, report.bytes_freed, report.kept), (402, 402 * 4, kept));
        assert_eq!(report.disk_bytes_freed, 396 * disk_bytes);
        assert!(report.exceptions.is_sorted_by_key(|(index, _)| *index) && report.exceptions.len() == 2);
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort_unstable();
        assert_eq!(left, [path(7), path(8)]);
    }
}
