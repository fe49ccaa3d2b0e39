//! Watches who uses files of the cache from now on, with `inotify(7)`.
//!
//! Guarantees: if another process opens, closes or creates a file in a watched directory, or renames one into it,
//! that is seen, whatever process on this kernel does it and through whatever mount of the file system. The access
//! time need not move (`relatime`, `noatime`). Nothing is changed and nobody waits. What this process opens itself
//! and announces with [`Watch::announce`] does not count, nor does what happens to names that only this process gives.
//! If another process opened and closed a file before this process got a lease on it, that is seen under the lease: the
//! kernel queues the close before it grants the lease. The kernel may merge that process's open with this one's, but
//! not the closes: this process takes in all events right before its own close, and only then does a close of that file
//! count as its own.
//!
//! What it does not guarantee: without inotify, nothing is seen. In an overlay, opens by the paths of its layers are
//! missed. If the kernel's queue overflows (16,384 events by default), everything counts as used.
//!
//! Source: `inotify(7)`; Linux's `fs/file_table.c` (`__fput` tells of a close first, then drops the count that a
//! lease is checked against) and `fs/notify/inotify/inotify_fsnotify.c` (equal events merge with the last one).

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// A name in one of the watched directories: the directory's watch descriptor, and the name.
type Key = (i32, CString);

/// More than the kernel's queue holds by default (`/proc/sys/fs/inotify/max_queued_events`).
const MOST_EVENTS: usize = 1 << 15;

/// Watches the directories of a cache.
#[derive(Debug)]
pub(crate) struct Watch {
    notifier: OwnedFd,
    /// The watch descriptor of each directory.
    descriptors: Vec<Option<i32>>,
    /// Whether only this process gives files this name.
    is_own: fn(&[u8]) -> bool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The opens and closes by this process that are still to be seen.
    expected: HashMap<Key, Own>,
    /// The files that other processes used.
    used: HashSet<Key>,
    /// The first of them.
    first: Option<Key>,
    has_overflowed: bool,
}

/// How many opens and closes of a name by this process are still to be seen.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    opens: u32,
    closes: u32,
}

/// What another process was first seen to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// It used the file of this name, in the directory at this position.
    Used(usize, CString),
    /// More happened than the kernel could tell.
    Overflow,
}

impl Watch {
    /// Starts to watch; `None` where inotify is unavailable, or not for every directory.
    pub(crate) fn start<'a>(
        directories: impl Iterator<Item = BorrowedFd<'a>>,
        is_own: fn(&[u8]) -> bool,
    ) -> Option<Self> {
        let notifier = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        // Unlinked files send no events, so a close after the removal of the name need not be expected.
        let flags = WatchFlags::OPEN
            | WatchFlags::CLOSE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR;
        let watch = |directory: BorrowedFd<'_>| {
            let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
            inotify::add_watch(&notifier, path, flags).ok()
        };
        let descriptors: Vec<_> = directories.map(watch).collect();
        descriptors.iter().all(Option::is_some).then(|| Self {
            notifier,
            descriptors,
            is_own,
            seen: Mutex::default(),
        })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }

    /// Announces that this process is about to open the file of this name, in the directory at this position. The
    /// result stands for the open file.
    pub(crate) fn announce(&self, directory: usize, name: &CStr) -> Option<Announced<'_>> {
        let descriptor = (*self.descriptors.get(directory)?)?;
        let key = (descriptor, name.to_owned());
        self.lock().expected.entry(key.clone()).or_default().opens += 1;
        Some(Announced { watch: self, key: Some(key) })
    }

    /// Takes in the events since the last update. Returns the first thing that another process was ever seen to do.
    pub(crate) fn update(&self) -> Option<Sighting> {
        self.update_but(|_| false)
    }

    /// As [`Watch::update`], but ignores events of names for which `is_ignored` holds.
    pub(crate) fn update_but(&self, is_ignored: impl Fn(&CStr) -> bool) -> Option<Sighting> {
        let mut seen = self.lock();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.notifier, &mut buffer);
        // The loop ends when no event is left, or on an error. Nothing more can be read after either. All events that
        // were queued at the start are among the first ones; others may arrive faster than they are read.
        for _ in 0..MOST_EVENTS {
            let Ok(event) = events.next() else { break };
            if !event.file_name().is_some_and(|name| (self.is_own)(name.to_bytes()) || is_ignored(name)) {
                seen.take_in(event.wd(), event.events(), event.file_name());
            }
        }
        if seen.has_overflowed {
            return Some(Sighting::Overflow);
        }
        let (descriptor, name) = seen.first.as_ref()?;
        let directory = self.descriptors.iter().position(|watched| *watched == Some(*descriptor))?;
        Some(Sighting::Used(directory, name.clone()))
    }

    /// Whether another process used the file of this name, in the directory at this position, as of the last
    /// update.
    pub(crate) fn saw(&self, directory: usize, name: &CStr) -> bool {
        let seen = self.lock();
        if seen.has_overflowed {
            return true;
        }
        let Some(Some(descriptor)) = self.descriptors.get(directory) else { return false };
        !seen.used.is_empty() && seen.used.contains(&(*descriptor, name.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watched file that this process opens, and has open until this is dropped. Drop this before the file is closed.
#[derive(Debug)]
pub(crate) struct Announced<'w> {
    watch: &'w Watch,
    key: Option<Key>,
}

impl Announced<'_> {
    /// The file could not be opened.
    pub(crate) fn was_not_opened(mut self) {
        if let Some(key) = self.key.take() {
            let mut seen = self.watch.lock();
            if let Some(own) = seen.expected.get_mut(&key) {
                own.opens = own.opens.saturating_sub(1);
                seen.forget_if_done(&key);
            }
        }
    }

    /// The name is gone: the kernel will not tell of the close.
    pub(crate) fn was_unlinked(mut self) {
        self.key = None;
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            // What was closed up to now was closed by others.
            self.watch.update();
            self.watch.lock().expected.entry(key).or_default().closes += 1;
        }
    }
}

impl Seen {
    fn forget_if_done(&mut self, key: &Key) {
        if self.expected.get(key).is_some_and(|own| (own.opens, own.closes) == (0, 0)) {
            self.expected.remove(key);
        }
    }

    fn take_in(&mut self, descriptor: i32, events: ReadFlags, name: Option<&CStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.has_overflowed = true;
        }
        let Some(name) = name else { return };
        let is_new = events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        // Listing a directory uses no file.
        if events.contains(ReadFlags::ISDIR) && !is_new {
            return;
        }
        let key = (descriptor, name.to_owned());
        if !is_new && let Some(own) = self.expected.get_mut(&key) {
            let left = if events.contains(ReadFlags::OPEN) { &mut own.opens } else { &mut own.closes };
            if *left > 0 {
                *left -= 1;
                self.forget_if_done(&key);
                return;
            }
        }
        self.first.get_or_insert_with(|| key.clone());
        self.used.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::lease::{Probe, ask_again, probe};
    use std::fs::{self, File};
    use std::path::Path;

    use rustix::fs::{AtFlags, unlinkat};

    fn watch(directory: &Path) -> Watch {
        Watch::start([File::open(directory).unwrap().as_fd()].into_iter(), |name| name == b"own").unwrap()
    }

    fn used(name: &CStr) -> Option<Sighting> {
        Some(Sighting::Used(0, name.to_owned()))
    }

    #[test]
    fn what_others_open_create_and_rename_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("old"), "content").unwrap();
        fs::create_dir(path("blobs")).unwrap();
        let opened = watch(directory.path());
        assert_eq!(fs::read_dir(path("blobs")).unwrap().count(), 0);
        assert_eq!((opened.update(), opened.saw(0, c"old")), (None, false));
        drop(File::open(path("old")).unwrap());
        assert_eq!(opened.update(), used(c"old"));
        assert!(opened.saw(0, c"old") && !opened.saw(0, c"other"));

        let own = watch(directory.path());
        fs::rename(path("old"), path("own")).unwrap();
        assert_eq!(own.update(), None);
        fs::rename(path("own"), path("old")).unwrap();
        assert_eq!(own.update(), used(c"old"));

        let created = watch(directory.path());
        fs::create_dir(path(".umoci-1")).unwrap();
        assert_eq!(created.update(), used(c".umoci-1"));
        let renamed = watch(directory.path());
        fs::rename(path("old"), path("new")).unwrap();
        assert_eq!(renamed.update(), used(c"new"));
        // What was seen first stays.
        drop(File::open(path("new")).unwrap());
        drop(File::create(path("newer")).unwrap());
        assert_eq!(renamed.update(), used(c"new"));
    }

    #[test]
    fn own_opens_do_not_count_and_hide_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let root = File::open(directory.path()).unwrap();
        let path = directory.path().join("blob");
        fs::write(&path, "content").unwrap();
        let open = || File::open(&path).unwrap();
        fn probe_blob<'w>(root: &File, watch: &'w Watch) -> Probe<'w> {
            probe(root.as_fd(), c"blob", Some((watch, 0)))
        }

        let alone = watch(directory.path());
        drop(probe_blob(&root, &alone));
        drop(probe_blob(&root, &alone));
        assert_eq!(alone.update(), None);
        // Another process opens and closes the file before the probe, or after it.
        let before = watch(directory.path());
        drop(open());
        let Probe::Idle(lease) = probe_blob(&root, &before) else { panic!("it is idle") };
        assert_eq!(before.update(), used(c"blob"));
        drop(lease);
        let after = watch(directory.path());
        drop(probe_blob(&root, &after));
        drop(open());
        assert_eq!(after.update(), used(c"blob"));
        // It opens the file right before the probe, so that the kernel tells of one open only, and closes it right
        // before the lease is granted, or right before the probe ends.
        for update in [true, false] {
            let merged = watch(directory.path());
            let other = open();
            let Probe::InUse(opened) = probe_blob(&root, &merged) else { panic!("it is in use") };
            drop(other);
            let Probe::Idle(lease) = ask_again(opened) else { panic!("it is idle") };
            if update {
                assert_eq!(merged.update(), used(c"blob"), "under the lease");
            }
            drop(lease);
            assert_eq!(merged.update(), used(c"blob"));
        }
        // The close of a file whose name is gone sends no event, nor does an open that fails.
        let gone = watch(directory.path());
        let Probe::Idle(lease) = probe_blob(&root, &gone) else { panic!("it is idle") };
        unlinkat(&root, "blob", AtFlags::empty()).unwrap();
        drop(lease.unlinked());
        assert!(matches!(probe_blob(&root, &gone), Probe::Gone));
        assert_eq!((gone.update(), gone.lock().expected.len()), (None, 0));
    }

    #[test]
    fn what_cannot_be_watched_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (root, file) = (File::open(directory.path()).unwrap(), tempfile::tempfile().unwrap());
        // A file is refused, as is a directory for which the user has no watch left.
        assert!(Watch::start([root.as_fd(), file.as_fd()].into_iter(), |_| false).is_none());
    }
}
