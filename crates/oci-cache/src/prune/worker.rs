//! One thread of a removal: removes blobs, each only if it is unchanged since the scan.
//!
//! Guarantees, for each blob: it is removed by a single name in an open directory; no path is resolved.
//! It is removed under a lease, where leases work, so nobody has it open at that moment. It is removed
//! only if inode, size and all times are those of the scan; a change time that this prune set is explained.
//! While the thread waits for others in the directory, it holds a lease only
//! [briefly](crate::prune::turns). If a pull may have used the blob within the hour, or the grace, the watch
//! is read under the lease: whoever opened and closed it before is seen, and whoever opens it now waits.
//! Everything counted as removed was removed. One failure does not stop the rest.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::mem;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::cache::inventory::{Blob, Tree};
use crate::os::lease::{Opened, PATIENCE, Probe, ask_patiently, is_undisturbed, release_lease};
use crate::os::status::Status;
use crate::os::sys::close_all;
use crate::os::watch::Watch;
use crate::plan::fate::Keep;
use crate::progress::Progress;
use crate::prune::beside::{Beside, OpenFiles};
use crate::prune::holder::{Holder, Probed, Reason};
use crate::prune::last_look::{self, Unlinked};
use crate::prune::queue::Queue;
use crate::prune::removed::Removal;
use crate::prune::report::Outcome;
use crate::prune::reserve::Reserve;
use crate::prune::turns::{BRIEFLY, Turn, Turns};

/// One thread of a removal.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) queue: &'a Queue<'a>,
    pub(crate) turns: &'a Turns,
    pub(crate) reserve: &'a Reserve,
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
    opened: Opened<'a>,
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
            match self.closing.len() {
                // Each was closed at once, or none was open: nobody knows what waits for the disk.
                0 => self.reserve.call(),
                files => self.reserve.watch(files, || close_all(&mut self.closing)),
            }
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
            let Some(Waiting { names, opened, since }) = self.waiting.pop_front() else { return };
            match ask_patiently(opened, since) {
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
        self.removal.settle(index, outcome, size_bytes);
        self.progress.add(1, size_bytes);
    }

    /// Removes the names of one file. The holder is known if the file was probed before.
    fn remove_file(&mut self, names: &'a [usize], mut holder: Holder<'a>) {
        let mut probed = None;
        for (position, &index) in names.iter().enumerate() {
            let outcome = if self.progress.is_stopped() {
                Outcome::NotReached
            } else {
                match self.remove_name(index, &mut holder, &mut probed) {
                    Ok(outcome) => outcome,
                    Err(opened) => {
                        let since = Instant::now();
                        return self.waiting.push_back(Waiting { names: &names[position..], opened, since });
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
        if let Holder::Nobody(lease) = holder {
            let descriptor = lease.unlinked();
            if self.has_own_table && probed.is_some_and(|status: Status| status.links == 1) {
                self.closing.push(descriptor);
            }
        }
    }

    /// Removes one name, unless there is a reason to keep it. If the file was probed by another of its names,
    /// `holder` is the result, and `probed` the file's status before that name was removed.
    ///
    /// # Errors
    ///
    /// A file that looks open, perhaps only for a moment.
    fn remove_name(
        &mut self,
        index: usize,
        holder: &mut Holder<'a>,
        probed: &mut Option<Status>,
    ) -> Result<Outcome, Opened<'a>> {
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
                Probed::InUse(opened) => return Err(opened),
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
            // Without a lease, there is no second probe to save.
            let time = if matches!(holder, Holder::Nobody(_)) { BRIEFLY } else { Duration::ZERO };
            if let Some(turn) = turn.take().or_else(|| self.turns.take_within(directory, time)) {
                break (status, turn);
            }
            // Whoever uses the blob meanwhile is seen by this probe or by another check.
            let (taken, again) = self.wait_without_lease(index, mem::replace(holder, Holder::NotProbed));
            turn = Some(taken);
            *holder = match again {
                Probed::Holder(holder) => holder,
                Probed::Settled(outcome) => return Ok(outcome),
                Probed::InUse(opened) => return Err(opened),
            };
        };
        // If somebody waits for the lease, the kernel may take it away at any moment.
        if let Holder::Nobody(lease) = holder
            && !is_undisturbed(lease.as_fd())
        {
            return Ok(Outcome::Kept(Keep::InUse));
        }
        Ok(self.unlink(index, name, holder, &status))
    }

    /// Waits for the turn in the directory of a name. Holds no lease meanwhile, and then finds out again who has the file
    /// open.
    fn wait_without_lease(&mut self, index: usize, holder: Holder<'a>) -> (Turn<'a>, Probed<'a>) {
        let directory = usize::from(self.blob(index).directory);
        let Holder::Nobody(lease) = holder else {
            return (self.turns.wait(directory), Probed::Holder(holder));
        };
        release_lease(lease.as_fd());
        let turn = self.turns.wait(directory);
        (turn, self.probe_again(index, lease))
    }

    fn unlink(&mut self, index: usize, name: &CStr, holder: &Holder<'_>, status: &Status) -> Outcome {
        let directory = self.tree.directory(self.blob(index).directory).descriptor.as_fd();
        // Leads to the file even when this name of it is gone, opens nothing, and shows as no use.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let has_others = status.links > 1;
        let others = has_others.then(|| openat(directory, name, flags, Mode::empty())).and_then(Result::ok);
        let unlinked = match holder {
            Holder::Nobody(lease) if self.may_be_in_use(index) && !self.is_overlay => {
                last_look::unlink(directory, name, lease.as_fd(), status.id)
            }
            _ => unlinkat(directory, name, AtFlags::empty()).map(|()| Unlinked::Removed),
        };
        if let Some(after) = others.and_then(|file| Status::of_descriptor(file.as_fd()).ok())
            && after.id == status.id
        {
            self.tree.own_changes.record(after.id.inode, after.changed);
        }
        match unlinked {
            Ok(Unlinked::Removed) => {}
            Ok(Unlinked::Opened) => return Outcome::Kept(Keep::InUse),
            Ok(Unlinked::Replaced) => return Outcome::Kept(Keep::Changed),
            Err(Errno::NOENT) => return Outcome::Gone,
            Err(errno) => return self.fail("remove", index, errno),
        }
        if self.blob(index).is_lower {
            self.removal.lower += 1;
        } else if status.links == 1 && !matches!(holder, Holder::Somebody) {
            self.removal.disk_bytes = self.removal.disk_bytes.saturating_add(status.disk_bytes);
        }
        let is_on_trust = matches!((holder, self.open_files), (Holder::Unknown, OpenFiles::Spare(_)));
        self.removal.unprobed += u64::from(is_on_trust);
        Outcome::Removed
    }

    /// Whether a pull may have looked the blob up: it has not certainly been idle for long enough.
    fn may_be_in_use(&self, index: usize) -> bool {
        matches!(self.open_files, OpenFiles::Spare(Some(beside)) if beside.idle.may_be_in_use(index))
    }

    /// Why the blob stays, if a pull may want it. With `look`, takes in what the watch has seen since the last update.
    /// A blob that has certainly been idle for long enough is not looked for.
    pub(crate) fn is_wanted(&self, index: usize, name: &CStr, look: bool) -> Option<Keep> {
        let OpenFiles::Spare(Some(Beside { pulls, idle })) = self.open_files else { return None };
        if !idle.may_be_in_use(index) {
            return None;
        }
        let sign = if look { pulls.update() } else { pulls.sign() };
        if pulls.locked_out().is_some() {
            return Some(Keep::Spared);
        }
        if pulls.saw(usize::from(self.blob(index).directory), name) {
            return Some(Keep::Recent);
        }
        (sign.is_some() && idle.is_spared(index)).then_some(Keep::Spared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs::{self, File, FileTimes};
    use std::os::unix::fs::MetadataExt as _;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc;
    use std::thread;
    use std::time::SystemTime;

    use crate::cache::names;
    use crate::prune::pulls::Pulls;
    use crate::prune::spare::Idle;
    use crate::{CacheDir, Policy, PrunePlan, Space, scan, select};

    /// A flat cache of three blobs that were written ten minutes ago, and the plan to remove everything.
    struct Fixture {
        directory: tempfile::TempDir,
        plan: PrunePlan,
        progress: Progress,
    }

    impl Fixture {
        fn new() -> Self {
            Self::aged(Duration::from_secs(600))
        }

        #[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
        fn aged(age: Duration) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let then = SystemTime::now() - age;
            for number in 0..3 {
                let path = Self::path_in(directory.path(), number);
                fs::write(&path, "content").unwrap();
                let times = FileTimes::new().set_accessed(then).set_modified(then);
                File::open(&path).unwrap().set_times(times).unwrap();
            }
            let cache = CacheDir::open(directory.path(), &[]).unwrap();
            let now = SystemTime::now().into();
            let plan = select(scan(&cache).unwrap(), &Policy::default(), now, Space::default()).unwrap();
            Self { directory, plan, progress: Progress::default() }
        }

        fn path_in(directory: &Path, number: usize) -> PathBuf {
            directory.join(format!("sha256:{number:064x}"))
        }

        fn path(&self, number: usize) -> PathBuf {
            Self::path_in(self.directory.path(), number)
        }

        /// The index of the blob of this number, as the only name of its file.
        fn names(&self, number: usize) -> &'static [usize] {
            let name = self.path(number);
            let blobs = self.plan.inventory.tree.blobs.iter();
            let paths = blobs.map(|blob| self.plan.inventory.path_of(blob));
            vec![paths.into_iter().position(|path| path == name).unwrap()].leak()
        }

        /// Looks for pulls, finds none, and lets a worker act, which has its turn if the directory's mutex is free.
        fn with_worker(&self, act: impl FnOnce(&mut Worker<'_>, &Turns)) -> Removal {
            let idle = Idle::of(&self.plan);
            let pulls = Pulls::look(&self.plan, idle.references(), &self.progress);
            assert_eq!(pulls.sign(), None);
            let tree = &self.plan.inventory.tree;
            let (queue, turns) = (Queue::new(tree, Vec::new()), Turns::in_directories_of(tree, 0));
            let reserve = Reserve::new();
            let mut worker = Worker {
                tree,
                queue: &queue,
                turns: &turns,
                reserve: &reserve,
                batch_size: 32,
                has_own_table: false,
                is_overlay: false,
                open_files: OpenFiles::Spare(Some(Beside { pulls: &pulls, idle: &idle })),
                progress: &self.progress,
                closing: Vec::new(),
                waiting: VecDeque::new(),
                removal: Removal::default(),
            };
            act(&mut worker, &turns);
            worker.removal
        }
    }

    /// Takes the lease on the file of this name, as the worker does.
    fn lease<'x>(worker: &mut Worker<'x>, index: usize) -> Holder<'x> {
        let blob = worker.blob(index);
        match worker.probe(index, blob.digest.file_name(blob.spelling).as_c_str()) {
            Probed::Holder(holder @ Holder::Nobody(_)) => holder,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_use_between_two_updates_of_the_watch_is_seen_under_the_lease() {
        let fixture = Fixture::new();
        let (used, other) = (fixture.names(1), fixture.names(2));
        let removal = fixture.with_worker(|worker, _| {
            drop(File::open(fixture.path(1)).unwrap());
            worker.remove_file(used, Holder::NotProbed);
            worker.remove_file(other, Holder::NotProbed);
        });
        let expected = [(used[0], Outcome::Kept(Keep::Recent)), (other[0], Outcome::Kept(Keep::Spared))];
        assert_eq!(removal.exceptions, expected);
        assert!(fixture.path(1).exists() && fixture.path(2).exists());
    }

    #[test]
    fn only_a_name_that_a_pull_may_want_is_hidden_before_it_goes() {
        let (fresh, old) = (Duration::from_secs(600), Duration::from_secs(48 * 3600));
        for (age, is_overlay, is_hidden) in [(fresh, false, true), (fresh, true, false), (old, false, false)]
        {
            let fixture = Fixture::aged(age);
            let inode = fs::metadata(fixture.path(1)).unwrap().ino();
            let name = fixture.path(1).file_name().unwrap().to_str().unwrap().to_owned();
            let hidden = names::hidden(&CString::new(name).unwrap(), inode);
            let directory = File::open(fixture.directory.path()).unwrap();
            let seen = Watch::start([directory.as_fd()].into_iter(), |_| false).unwrap();
            let removal = fixture.with_worker(|worker, _| {
                worker.is_overlay = is_overlay;
                worker.remove_file(fixture.names(1), Holder::NotProbed);
            });
            assert_eq!((removal.freed.blobs, fixture.path(1).exists()), (1, false));
            seen.update();
            assert_eq!(seen.saw(0, &hidden), is_hidden, "{age:?} {is_overlay}");
        }
    }

    #[test]
    fn a_probe_that_fails_keeps_the_blob() {
        let fixture = Fixture::new();
        let names = fixture.names(1);
        let removal = fixture.with_worker(|worker, _| {
            let failed = worker.judge(names[0], Probe::Failed(Errno::IO));
            assert!(matches!(failed, Probed::Settled(Outcome::Failed)), "{failed:?}");
            let unknown = worker.judge(names[0], Probe::Unknown);
            assert!(matches!(unknown, Probed::Holder(Holder::Unknown)), "{unknown:?}");
        });
        assert_eq!(removal.failures.total(), 1);
    }

    #[test]
    fn a_file_that_somebody_waits_for_stays() {
        let fixture = Fixture::new();
        let names = fixture.names(1);
        let path = fixture.path(1);
        let removal = fixture.with_worker(|worker, _| {
            let holder = lease(worker, names[0]);
            thread::scope(|scope| {
                let reader = scope.spawn(|| fs::read_to_string(&path).unwrap());
                while matches!(&holder, Holder::Nobody(lease) if is_undisturbed(lease.as_fd())) {
                    thread::yield_now();
                }
                worker.remove_file(names, holder);
                assert_eq!(reader.join().unwrap(), "content");
            });
        });
        assert_eq!(removal.exceptions, [(names[0], Outcome::Kept(Keep::InUse))]);
        assert!(fixture.path(1).exists());
    }

    #[test]
    fn no_lease_is_held_while_waiting_long_for_a_turn() {
        for stays_open in [true, false] {
            let fixture = Fixture::new();
            let names = fixture.names(1);
            let path = fixture.path(1);
            let removal = fixture.with_worker(|worker, turns| {
                let holder = lease(worker, names[0]);
                thread::scope(|scope| {
                    let (taken, is_taken) = mpsc::channel();
                    let other = scope.spawn(move || {
                        let turn = turns.take_within(0, BRIEFLY).unwrap();
                        taken.send(()).unwrap();
                        // The lease is released while the turn is taken, so this open returns.
                        let opened = File::open(&path).unwrap();
                        let still_open = stays_open.then_some(opened);
                        drop(turn);
                        still_open
                    });
                    is_taken.recv().unwrap();
                    worker.remove_file(names, holder);
                    let still_open = other.join().unwrap();
                    assert_eq!(worker.waiting.len(), usize::from(stays_open));
                    worker.ask_again(true);
                    drop(still_open);
                });
            });
            let reason = if stays_open { Keep::InUse } else { Keep::Recent };
            assert_eq!(removal.exceptions, [(names[0], Outcome::Kept(reason))]);
            assert!(fixture.path(1).exists());
        }
    }
}
