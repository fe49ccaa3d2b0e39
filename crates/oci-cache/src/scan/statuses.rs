//! Reads the status of many entries of a directory at once.
//!
//! Guarantees: status is read relative to the open directory, so the entries are those of that
//! directory, whatever happens to its path. Where `O_NOATIME` is allowed, no timestamp changes, not even
//! the directory's.
//!
//! How it is fast: names are read straight from the kernel's buffer, without an allocation for each.
//! While one thread lists, the helper threads read the status of the names it found and build the final
//! records, so no status passes between threads. Each helper has a private descriptor table and moves
//! off the core of the listing thread. A small directory starts no thread.

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

/// The number of names in a batch, the unit of work for a thread.
const BATCH: usize = 512;
/// Maximum number of batches in the queue; the listing thread processes further ones itself.
const BATCHES_IN_WAITING: usize = 16;

/// The parts of a name that is a digest.
pub(crate) type Named = (Digest, Spelling);

/// Reads the status of the entries of `directory` that `names` yields, on all cores.
///
/// Passes the result of `take_in` for each entry to `found`, in any order. `take_in` may run on a thread
/// that has no descriptor but `directory`.
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

/// The state of the listing thread.
struct Lister<'scope, 'found, T, R> {
    directory: BorrowedFd<'scope>,
    read: &'scope R,
    waiting: &'scope Mutex<Receiver<Vec<Named>>>,
    to_helpers: SyncSender<Vec<Named>>,
    to_lister: Sender<Vec<T>>,
    done: Receiver<Vec<T>>,
    /// How many more helpers may be started; `None` until the number of cores is known.
    helpers_left: Option<usize>,
    found: &'found mut dyn FnMut(T),
}

impl<'scope, T: Send + 'scope, R: Fn(Vec<Named>) -> Vec<T> + Sync> Lister<'scope, '_, T, R> {
    /// Gives a batch to the helpers, or processes it here if their queue is full.
    fn hand_over(&mut self, scope: &'scope Scope<'scope, '_>, batch: Vec<Named>) {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let helpers_left = self.helpers_left.get_or_insert_with(|| cores() - 1);
        // Start one helper per batch, so that a directory with few batches starts few.
        if *helpers_left > 0 {
            *helpers_left -= 1;
            let core = current_core();
            let (directory, read) = (self.directory, self.read);
            let (waiting, to_lister) = (self.waiting, self.to_lister.clone());
            // If no thread can be started, the listing thread does all the work.
            let _ = thread::Builder::new().spawn_scoped(scope, move || {
                let _own = OwnDescriptors::enter(&[directory]);
                leave(core);
                while let Some(batch) = next_batch(waiting) {
                    // The listing thread waits for all helpers, so the receiver still exists.
                    let _ = to_lister.send(read(batch));
                }
            });
            // Lets a helper that started on this core run and move to another core at once.
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

    /// Processes the remaining batches and waits for the helpers.
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

/// Moves the calling thread off `core`, if it may use another core.
///
/// The kernel often starts a helper on the core of its parent, and leaves both there for longer than
/// many scans take.
fn leave(core: Option<usize>) {
    let (Some(core), Ok(all)) = (core, sched_getaffinity(None)) else { return };
    if core < CpuSet::MAX_CPU && all.is_set(core) && all.count() > 1 {
        let mut others = all;
        others.unset(core);
        let _ = sched_setaffinity(None, &others);
        let _ = sched_setaffinity(None, &all);
    }
}

/// The next batch; `None` when there are no more.
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
