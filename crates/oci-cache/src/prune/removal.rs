//! Removes blobs of a tree on several threads; every prune uses it, through [`crate::prune::units`].
//!
//! Guarantees: those of [`crate::prune::worker`], for all blobs.
//!
//! How it is fast: blobs are removed in inode order. If removals wait for the disk, or blobs are large, there
//! are more threads than cores. Each thread has a private descriptor table, so it can close consecutive descriptors with one
//! system call.

use std::collections::VecDeque;
use std::thread;

use rustix::fs::fstatfs;
use rustix::process::{Resource, getrlimit};

use crate::cache::inventory::Tree;
use crate::os::layer::OVERLAY;
use crate::os::sys::OwnDescriptors;
use crate::progress::Progress;
use crate::prune::beside::OpenFiles;
use crate::prune::queue::{BATCH, Queue};
use crate::prune::removed::Removal;
use crate::prune::reserve::Reserve;
use crate::prune::turns::Turns;
use crate::prune::worker::Worker;

/// Maximum number of removing threads, where removals wait for the disk.
const THREADS: usize = 16;
/// Maximum number for the sake of the cores, where they do not. About a quarter of a thread's work is the
/// removal of names, which the threads do one after the other in each directory.
const THREADS_FOR_CORES: usize = 4;
/// The workers may use the open-file limit divided by this.
const SHARE_OF_OPEN_FILES: u64 = 8;

/// Removes the blobs of `tree` at the indexes `doomed`. Exceptions are in no order.
pub(crate) fn remove_each(
    tree: &Tree,
    doomed: Vec<usize>,
    open_files: OpenFiles<'_>,
    progress: &Progress,
) -> Removal {
    let queue = Queue::new(tree, doomed);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / SHARE_OF_OPEN_FILES;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let threads = queue.worthwhile_threads().min(THREADS).min(limit);
    let at_first = threads_at_first(thread::available_parallelism().map_or(1, usize::from), queue.large());
    let reserve = Reserve::new();
    let batch_size = limit.clamp(1, BATCH);
    let root = tree.directories.first();
    let file_system = root.and_then(|root| fstatfs(&root.descriptor).ok()).map_or(OVERLAY, |it| it.f_type);
    let turns = Turns::in_directories_of(tree, file_system);
    let worker = || Worker {
        tree,
        queue: &queue,
        turns: &turns,
        reserve: &reserve,
        batch_size,
        has_own_table: false,
        is_overlay: file_system == OVERLAY,
        open_files,
        progress,
        closing: Vec::new(),
        waiting: VecDeque::new(),
        removal: Removal::default(),
    };
    on_threads(threads, at_first, &worker)
}

/// How many threads do not wait until they are needed: one for each core, or for each large blob if those are
/// more.
fn threads_at_first(cores: usize, large_blobs: usize) -> usize {
    cores.min(THREADS_FOR_CORES).max(large_blobs)
}

/// Runs `threads` workers, each on its own thread; those beyond `at_first` stand by until they are needed.
/// Runs one worker on the calling thread if `threads` is 0, as for a few blobs, or if no thread can be
/// started.
fn on_threads<'a>(threads: usize, at_first: usize, worker: &(impl Fn() -> Worker<'a> + Sync)) -> Removal {
    thread::scope(|scope| {
        let start = |number| {
            let work = move || {
                let worker = worker();
                if number >= at_first && !worker.reserve.is_needed() {
                    return worker.removal;
                }
                let _on_duty = worker.reserve.on_duty();
                let own = OwnDescriptors::enter(&worker.needed_descriptors());
                Worker { has_own_table: own.is_some(), ..worker }.run()
            };
            thread::Builder::new().spawn_scoped(scope, work).ok()
        };
        let started: Vec<_> = (0..threads).map_while(start).collect();
        if started.is_empty() {
            return worker().run();
        }
        let mut removal = Removal::default();
        for thread in started {
            match thread.join() {
                Ok(part) => removal.merge(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        removal
    })
}

#[cfg(test)]
mod tests {
    use crate::plan::fate::Keep;
    use crate::prune::report::Kept;
    use std::fs::{self, File, FileTimes};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use crate::{CacheDir, Policy, Progress, Space, apply, scan, select};

    #[test]
    fn there_is_a_thread_for_each_core_or_large_blob() {
        let cases = [(1, 0), (2, 0), (64, 0), (2, 9)];
        assert_eq!(cases.map(|(cores, large)| super::threads_at_first(cores, large)), [1, 2, 4, 9]);
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// When the blobs were last used: so long before the plan that no prune waits for them or watches
    /// them.
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
        let mut cache = CacheDir::open(directory.path(), &[]).unwrap();
        let lock = cache.try_lock().unwrap().unwrap();
        let (everything, now) = (Policy::default(), (used() + HOUR).into());
        let plan = select(scan(&cache).unwrap(), &everything, now, Space::default()).unwrap();
        assert_eq!(plan.total().blobs, 4);

        // Size, inode and access time are unchanged.
        fs::write(&rewritten, "x").unwrap();
        // Everything but the inode is unchanged.
        let other = directory.path().join("other");
        write_old(&other, "yy");
        fs::rename(&other, &replaced).unwrap();
        let later = FileTimes::new().set_accessed(used() + HOUR / 2);
        File::open(&read).unwrap().set_times(later).unwrap();

        let report = apply(&plan, &lock, &Progress::default()).unwrap();
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
    fn companions_go_if_their_blob_is_gone_already_and_exceptions_are_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number: u8, ending| directory.path().join(format!("sha256:{number:064x}{ending}"));
        for number in 1..=4 {
            write_old(&path(number, ""), "blob");
            write_old(&path(number, ".json"), "note");
        }
        let mut cache = CacheDir::open(directory.path(), &[]).unwrap();
        let lock = cache.try_lock().unwrap().unwrap();
        let (everything, now) = (Policy::default(), (used() + HOUR).into());
        let plan = select(scan(&cache).unwrap(), &everything, now, Space::default()).unwrap();
        let elsewhere = tempfile::tempdir_in(directory.path().parent().unwrap()).unwrap();
        fs::rename(path(1, ""), elsewhere.path().join("blob")).unwrap();
        for number in [2, 3] {
            fs::write(path(number, ""), "other").unwrap();
        }

        let report = apply(&plan, &lock, &Progress::default()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort_unstable();
        assert_eq!(left, [path(2, ""), path(2, ".json"), path(3, ""), path(3, ".json")]);
        let mut kept = Kept::default();
        (0..4).for_each(|_| kept.add(Keep::Changed, 4));
        assert_eq!((report.blobs_freed, report.kept), (3, kept));
        let exceptions = &report.notes.exceptions;
        assert!(exceptions.is_sorted_by_key(|(index, _)| *index) && exceptions.len() == 5, "{exceptions:?}");
    }

    #[test]
    fn threads_agree_on_what_went() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number: usize| directory.path().join(format!("sha256:{number:064x}"));
        // 400 files. Each hundredth one has a second name; the last two have a name outside the cache.
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
        let mut cache = CacheDir::open(directory.path(), &[]).unwrap();
        let lock = cache.try_lock().unwrap().unwrap();
        let (everything, now) = (Policy::default(), (used() + HOUR).into());
        let plan = select(scan(&cache).unwrap(), &everything, now, Space::default()).unwrap();
        let disk_bytes = plan.inventory.tree.blobs[0].disk_bytes;
        fs::write(path(7), "other").unwrap();
        let _reader = File::open(path(8)).unwrap();

        let report = apply(&plan, &lock, &Progress::default()).unwrap();
        let mut kept = Kept::default();
        kept.add(Keep::Changed, 4);
        kept.add(Keep::InUse, 4);
        assert_eq!((report.blobs_freed, report.bytes_freed, report.kept), (402, 402 * 4, kept));
        assert_eq!(report.disk_bytes_freed, 396 * disk_bytes);
        assert!(
            report.notes.exceptions.is_sorted_by_key(|(index, _)| *index)
                && report.notes.exceptions.len() == 2
        );
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort_unstable();
        assert_eq!(left, [path(7), path(8)]);
    }
}
