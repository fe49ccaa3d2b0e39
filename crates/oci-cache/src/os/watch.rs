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
//! What it keeps: 8 bytes for each name that another process used, and as little for each of its own opens of which the
//! kernel has not told yet. After an overflow, nothing.
//!
//! Source: `inotify(7)`; Linux's `fs/file_table.c` (`__fput` tells of a close first, then drops the count that a
//! lease is checked against) and `fs/notify/inotify/inotify_fsnotify.c` (equal events merge with the last one).

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher as _, RandomState};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, WatchFlags};

/// Stands for a name in one of the watched directories: a keyed hash of the directory's watch descriptor and the name.
/// Of a million names, two have the same hash once in 37 million prunes; then one of them counts as used too.
type Key = u64;

/// What adds a file or a directory.
const ADDITIONS: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO);
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
    hashes: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The opens and closes by this process that are still to be seen.
    expected: HashMap<Key, Own>,
    /// The files that other processes used.
    used: HashSet<Key>,
    /// The first of them: the directory's watch descriptor, and the name.
    first: Option<(i32, CString)>,
    /// From then on, every file counts as used, and nothing else is kept.
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
        // Unlinked files send no events, so a close after the removal of the name need not be expected.
        let uses = WatchFlags::OPEN | WatchFlags::CLOSE | WatchFlags::EXCL_UNLINK;
        Self::start_for(uses | ADDITIONS, directories, is_own)
    }

    /// Starts to watch only for files and directories that are created or renamed into one of the directories. What this
    /// process opens need not be announced; that costs nothing.
    pub(crate) fn for_additions<'a>(
        directories: impl Iterator<Item = BorrowedFd<'a>>,
        is_own: fn(&[u8]) -> bool,
    ) -> Option<Self> {
        Self::start_for(ADDITIONS, directories, is_own)
    }

    fn start_for<'a>(
        flags: WatchFlags,
        directories: impl Iterator<Item = BorrowedFd<'a>>,
        is_own: fn(&[u8]) -> bool,
    ) -> Option<Self> {
        let notifier = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let watch = |directory: BorrowedFd<'_>| {
            let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
            inotify::add_watch(&notifier, path, flags | WatchFlags::ONLYDIR).ok()
        };
        let descriptors: Vec<_> = directories.map(watch).collect();
        descriptors.iter().all(Option::is_some).then(|| Self {
            notifier,
            descriptors,
            is_own,
            hashes: RandomState::new(),
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
        let key = self.key(descriptor, name);
        let mut seen = self.lock();
        if !seen.has_overflowed {
            seen.expect(key).opens += 1;
        }
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
                let key = event.file_name().map(|name| self.key(event.wd(), name));
                seen.take_in(key, &event);
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
        !seen.used.is_empty() && seen.used.contains(&self.key(*descriptor, name))
    }

    fn key(&self, descriptor: i32, name: &CStr) -> Key {
        self.hashes.hash_one((descriptor, name))
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
                seen.forget_if_done(key);
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
            let mut seen = self.watch.lock();
            if !seen.has_overflowed {
                seen.expect(key).closes += 1;
            }
        }
    }
}

impl Seen {
    fn forget_if_done(&mut self, key: Key) {
        if self.expected.get(&key).is_some_and(|own| (own.opens, own.closes) == (0, 0)) {
            self.expected.remove(&key);
        }
    }

    /// The opens and closes of a name by this process that are still to be seen.
    fn expect(&mut self, key: Key) -> &mut Own {
        self.expected.entry(key).or_default()
    }

    fn take_in(&mut self, key: Option<Key>, event: &Event<'_>) {
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            // Every file counts as used from now on, so no name needs to be known. Events that are still expected may
            // never come.
            *self = Self { has_overflowed: true, ..Self::default() };
        }
        let (Some(key), Some(name), false) = (key, event.file_name(), self.has_overflowed) else { return };
        let is_new = event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        // Listing a directory uses no file.
        if event.events().contains(ReadFlags::ISDIR) && !is_new {
            return;
        }
        if !is_new && let Some(own) = self.expected.get_mut(&key) {
            let is_open = event.events().contains(ReadFlags::OPEN);
            let left = if is_open { &mut own.opens } else { &mut own.closes };
            if *left > 0 {
                *left -= 1;
                self.forget_if_done(key);
                return;
            }
        }
        self.first.get_or_insert_with(|| (event.wd(), name.to_owned()));
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
    fn additions_are_seen_where_opens_need_not_be_announced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("old"), "content").unwrap();
        let root = File::open(directory.path()).unwrap();
        let watch = Watch::for_additions([root.as_fd()].into_iter(), |name| name == b"own").unwrap();
        drop(File::open(path("old")).unwrap());
        unlinkat(&root, "old", AtFlags::empty()).unwrap();
        assert_eq!(watch.update(), None);
        fs::create_dir(path("new")).unwrap();
        assert_eq!(watch.update(), used(c"new"));
    }

    #[test]
    fn own_opens_leave_nothing_behind_and_an_overflow_neither() {
        let directory = tempfile::tempdir().unwrap();
        let root = File::open(directory.path()).unwrap();
        fs::write(directory.path().join("blob"), "content").unwrap();
        let watch = watch(directory.path());
        let kept = || {
            let seen = watch.lock();
            (seen.expected.len(), seen.used.len())
        };
        for _ in 0..1000 {
            drop(probe(root.as_fd(), c"blob", Some((&watch, 0))));
        }
        assert_eq!((watch.update(), kept()), (None, (0, 0)));
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        for _ in 0..most.trim().parse().unwrap() {
            drop(File::open(directory.path().join("blob")).unwrap());
        }
        while watch.update() != Some(Sighting::Overflow) {}
        drop(probe(root.as_fd(), c"blob", Some((&watch, 0))));
        assert_eq!((watch.update(), kept()), (Some(Sighting::Overflow), (0, 0)));
        assert!(watch.saw(0, c"other"));
    }

    #[test]
    fn what_cannot_be_watched_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (root, file) = (File::open(directory.path()).unwrap(), tempfile::tempfile().unwrap());
        // A file is refused, as is a directory for which the user has no watch left.
        assert!(Watch::start([root.as_fd(), file.as_fd()].into_iter(), |_| false).is_none());
    }
}
