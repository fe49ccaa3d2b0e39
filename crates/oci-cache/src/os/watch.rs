//! Watches who uses files of the cache from now on, with `inotify(7)`.
//!
//! Guarantees: if another process opens, closes or creates a file in a watched directory, or renames one into it,
//! that is seen, whatever process on this kernel does it and through whatever mount of the file system. The access
//! time need not move (`relatime`, `noatime`). Nothing is changed and nobody waits. What this process opens itself
//! and announces with [`Watch::expect`] does not count. If another process opened and closed a file before this
//! process got a lease on it, that is seen under the lease: the kernel queues the close before it grants the lease,
//! and while this process has the file open it merges that close with no other event of the file.
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

/// Watches the directories of a cache.
#[derive(Debug)]
pub(crate) struct Watch {
    notifier: OwnedFd,
    /// The watch descriptor of each directory.
    descriptors: Vec<Option<i32>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The opens and closes by this process that are still to come.
    expected: HashMap<Key, Own>,
    /// The files that other processes used.
    used: HashSet<Key>,
    /// The first of them.
    first: Option<Key>,
    has_overflowed: bool,
}

/// How many opens and closes of a name by this process are still to come.
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
    pub(crate) fn start<'a>(directories: impl Iterator<Item = BorrowedFd<'a>>) -> Option<Self> {
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
            seen: Mutex::default(),
        })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }

    /// Announces that this process is about to open and close the file of this name, in the directory at this
    /// position.
    pub(crate) fn expect(&self, directory: usize, name: &CStr) {
        if let Some(Some(descriptor)) = self.descriptors.get(directory) {
            let mut seen = self.lock();
            let own = seen.expected.entry((*descriptor, name.to_owned())).or_default();
            (own.opens, own.closes) = (own.opens + 1, own.closes + 1);
        }
    }

    /// Takes an announcement back: the file could not be opened.
    pub(crate) fn forget(&self, directory: usize, name: &CStr) {
        if let Some(Some(descriptor)) = self.descriptors.get(directory) {
            let key = (*descriptor, name.to_owned());
            let mut seen = self.lock();
            if let Some(own) = seen.expected.get_mut(&key) {
                (own.opens, own.closes) = (own.opens.saturating_sub(1), own.closes.saturating_sub(1));
                if (own.opens, own.closes) == (0, 0) {
                    seen.expected.remove(&key);
                }
            }
        }
    }

    /// Takes in the events since the last update. Returns the first thing that another process was ever seen to do.
    pub(crate) fn update(&self) -> Option<Sighting> {
        self.update_but(|_| false)
    }

    /// As [`Watch::update`], but ignores events of names for which `is_own` holds.
    pub(crate) fn update_but(&self, is_own: impl Fn(&CStr) -> bool) -> Option<Sighting> {
        let mut seen = self.lock();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.notifier, &mut buffer);
        // The loop ends when no event is left, or on an error. Nothing more can be read after either.
        while let Ok(event) = events.next() {
            if !event.file_name().is_some_and(&is_own) {
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

impl Seen {
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
                if (own.opens, own.closes) == (0, 0) {
                    self.expected.remove(&key);
                }
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
    use crate::os::lease::{Probe, probe};
    use std::fs::{self, File};
    use std::path::Path;

    use rustix::fs::{AtFlags, unlinkat};

    fn watch(directory: &Path) -> Watch {
        Watch::start([File::open(directory).unwrap().as_fd()].into_iter()).unwrap()
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
        let other = || drop(File::open(&path).unwrap());
        // Another process opens and closes the file at this moment of a probe.
        for moment in 0..4 {
            fs::write(&path, "content").unwrap();
            let watch = watch(directory.path());
            let at = |now: i32| {
                if now == moment {
                    other();
                }
            };
            at(0);
            watch.expect(0, c"blob");
            at(1);
            let Probe::Idle(lease) = probe(root.as_fd(), c"blob") else { panic!("it is idle") };
            let seen_under_lease = watch.update();
            assert_eq!(seen_under_lease, if moment < 2 { used(c"blob") } else { None }, "moment {moment}");
            drop(lease);
            at(2);
            assert_eq!(watch.update(), if moment < 3 { used(c"blob") } else { None }, "moment {moment}");
        }
        // The close of a file whose name is gone sends no event.
        let watch = watch(directory.path());
        watch.expect(0, c"blob");
        let Probe::Idle(lease) = probe(root.as_fd(), c"blob") else { panic!("it is idle") };
        unlinkat(&root, "blob", AtFlags::empty()).unwrap();
        drop(lease);
        assert_eq!(watch.update(), None);
    }

    #[test]
    fn what_cannot_be_watched_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (root, file) = (File::open(directory.path()).unwrap(), tempfile::tempfile().unwrap());
        // A file is refused, as is a directory for which the user has no watch left.
        assert!(Watch::start([root.as_fd(), file.as_fd()].into_iter()).is_none());
    }
}
