//! Lists directories, and reads the status of many entries at once.
//!
//! Guarantees: a directory is listed through its descriptor, so these are the entries of the directory
//! that is held, whatever became of its path; no time stamp moves where `O_NOATIME` is allowed, not even
//! the directory's.
//!
//! How it is fast: names are read straight from the kernel's buffer, without an allocation each; while one
//! thread lists, the others read the status of what it found, and make of it what is kept: no status is handed
//! from thread to thread. Each helper has its own table of open files, and leaves the core of the thread that
//! lists. A small directory starts no thread.

use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::cache::digest::{Digest, Spelling};
use crate::os::status::Status;
use crate::os::sys::{OwnDescriptors, current_core};

/// How many names go to a thread at a time.
const BATCH: usize = 512;
/// How many batches wait at most; the thread that lists takes what goes beyond.
const BATCHES_IN_WAITING: usize = 16;

/// A name that is a digest, taken apart.
pub(crate) type Named = (Digest, Spelling);

/// Reads the status of the entries of `directory` that `names` gives, on all cores; passes what `take_in` makes of
/// each to `found`, in any order. `take_in` may run where no other descriptor is open than `directory`.
pub(crate) fn read_statuses<T: Send>(
    directory: BorrowedFd<'_>,
    names: impl FnOnce(&mut dyn FnMut(Named)) -> Result<(), Errno>,
    take_in: &(impl Fn(Named, Result<Status, Errno>) -> T + Sync),
    found: &mut dyn FnMut(T),
) -> Result<(), Errno> {
    let read = |batch: Vec<Named>| -> Vec<T> {
        let read_one = |(digest, spelling): Named| {
            let status = Status::of_entry(directory, digest.file_name(spelling).as_c_str());
            take_in((digest, spelling), status)
        };
        batch.into_iter().map(read_one).collect()
    };
    let (to_helpers, waiting) = sync_channel(BATCHES_IN_WAITING);
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        let (to_lister, done) = channel();
        let mut lister = Lister {
            directory,
            read: &read,
            waiting: &waiting,
            to_helpers,
            to_lister,
            done,
            helpers_left: None,
            found,
        };
        let mut batch = Vec::new();
        let listed = names(&mut |named| {
            batch.push(named);
            if batch.len() == BATCH {
                lister.hand_over(scope, mem::take(&mut batch));
            }
        });
        lister.finish(batch);
        listed
    })
}

/// The thread that lists.
struct Lister<'scope, 'found, T, R> {
    directory: BorrowedFd<'scope>,
    read: &'scope R,
    waiting: &'scope Mutex<Receiver<Vec<Named>>>,
    to_helpers: SyncSender<Vec<Named>>,
    to_lister: Sender<Vec<T>>,
    done: Receiver<Vec<T>>,
    /// How many helpers may still be started, once that is known.
    helpers_left: Option<usize>,
    found: &'found mut dyn FnMut(T),
}

impl<'scope, T: Send + 'scope, R: Fn(Vec<Named>) -> Vec<T> + Sync> Lister<'scope, '_, T, R> {
    /// Gives a batch to the helpers, or reads it here if they have enough to do.
    fn hand_over(&mut self, scope: &'scope Scope<'scope, '_>, batch: Vec<Named>) {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let helpers_left = self.helpers_left.get_or_insert_with(|| cores() - 1);
        // One more for each batch: a directory of few batches needs few.
        if *helpers_left > 0 {
            *helpers_left -= 1;
            let core = current_core();
            let (directory, read) = (self.directory, self.read);
            let (waiting, to_lister) = (self.waiting, self.to_lister.clone());
            // Where no thread is to be had, the lister reads all.
            let _ = thread::Builder::new().spawn_scoped(scope, move || {
                let _own = OwnDescriptors::enter(&[directory]);
                leave(core);
                while let Some(batch) = next_batch(waiting) {
                    // The lister waits for all, so it is there to receive.
                    let _ = to_lister.send(read(batch));
                }
            });
            // A helper that was put on this core goes to another at once.
            thread::yield_now();
        }
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) =
            self.to_helpers.try_send(batch)
        {
            (self.read)(batch).into_iter().for_each(&mut *self.found);
        }
        while let Ok(done) = self.done.try_recv() {
            done.into_iter().for_each(&mut *self.found);
        }
    }

    /// Reads what is left, and waits for the helpers.
    fn finish(self, batch: Vec<Named>) {
        let Self { read, waiting, to_helpers, to_lister, done, found, .. } = self;
        drop((to_helpers, to_lister));
        read(batch).into_iter().for_each(&mut *found);
        while let Some(batch) = next_batch(waiting) {
            read(batch).into_iter().for_each(&mut *found);
        }
        done.into_iter().flatten().for_each(found);
    }
}

/// Moves the calling thread off `core`, where there is another that it may use. The kernel often starts a helper on
/// the core of the thread that started it, and leaves both there for longer than many a scan takes.
fn leave(core: Option<usize>) {
    let (Some(core), Ok(all)) = (core, sched_getaffinity(None)) else { return };
    if core < CpuSet::MAX_CPU && all.is_set(core) && all.count() > 1 {
        let mut others = all;
        others.unset(core);
        let _ = sched_setaffinity(None, &others);
        let _ = sched_setaffinity(None, &all);
    }
}

/// The next batch; `None` once no more will come.
fn next_batch(waiting: &Mutex<Receiver<Vec<Named>>>) -> Option<Vec<Named>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::directory::list;
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_large_directory_is_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let count = BATCH * (BATCHES_IN_WAITING + 3) + 7;
        for number in 0..count {
            fs::write(directory.path().join(format!("sha256:{number:064x}")), "").unwrap();
        }
        let opened = fs::File::open(directory.path()).unwrap();
        let accessed = || fs::metadata(directory.path()).unwrap().atime_nsec();
        let before = accessed();
        let mut found = Vec::new();
        let list = |each: &mut dyn FnMut(Named)| {
            list(opened.as_fd(), |name| each(Digest::from_flat_name(name.to_bytes()).unwrap()))
        };
        let digest_of = |(digest, _): Named, status: Result<Status, Errno>| {
            assert!(status.unwrap().is_regular_file());
            digest
        };
        read_statuses(opened.as_fd(), list, &digest_of, &mut |digest| found.push(digest)).unwrap();
        found.sort_unstable();
        found.dedup();
        assert_eq!((found.len(), accessed()), (count, before));
    }
}
