//! Watches who opens files of the cache, with `inotify(7)`.
//!
//! Guarantees: every open after the start is seen, by any process on this kernel and through any mount
//! of the file system, even if the file was closed again and its access time did not change (`relatime`,
//! `noatime`). Nothing is changed and no process waits.
//!
//! What it does not guarantee: where inotify is unavailable, opens are missed; the lease probe and the
//! file's timestamps still protect a file. On an overlay, opens by the paths of its layers are missed.
//! If the kernel's event queue overflows, every file counts as opened.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// Watches the directories of a cache.
#[derive(Debug)]
pub(crate) struct Watch {
    notifier: OwnedFd,
    /// Names opened so far, each with the watch descriptor of its directory.
    opened: Mutex<HashSet<(i32, CString)>>,
    /// Whether the event queue overflowed, so that opens were lost.
    has_overflowed: AtomicBool,
    /// The watch descriptor of each directory; `None` if it could not be watched.
    descriptors: Vec<Option<i32>>,
}

impl Watch {
    /// Starts to watch; `None` if inotify is unavailable.
    pub(crate) fn start<'a>(directories: impl Iterator<Item = BorrowedFd<'a>>) -> Option<Self> {
        let notifier = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let watch = |directory: BorrowedFd<'_>| {
            let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
            inotify::add_watch(&notifier, path, WatchFlags::OPEN | WatchFlags::ONLYDIR).ok()
        };
        let descriptors = directories.map(watch).collect();
        Some(Self { notifier, opened: Mutex::default(), has_overflowed: AtomicBool::new(false), descriptors })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }

    /// Whether every directory is watched.
    pub(crate) fn is_whole(&self) -> bool {
        self.descriptors.iter().all(Option::is_some)
    }

    /// Records the files opened since the last update.
    pub(crate) fn update(&self) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.notifier, &mut buffer);
        // The loop ends when no event is left or on an error; nothing more can be read after either.
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.has_overflowed.store(true, Ordering::Relaxed);
            }
            if let Some(name) = event.file_name() {
                opened.insert((event.wd(), name.to_owned()));
            }
        }
    }

    /// Whether the entry `name` of the directory at index `directory` was opened, as of the last update.
    pub(crate) fn saw(&self, directory: u16, name: &CStr) -> bool {
        if self.has_overflowed.load(Ordering::Relaxed) {
            return true;
        }
        let Some(Some(descriptor)) = self.descriptors.get(usize::from(directory)) else { return false };
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        !opened.is_empty() && opened.contains(&(*descriptor, name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn opens_are_seen_and_what_cannot_be_watched_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let blob = directory.path().join("blob");
        fs::write(&blob, "content").unwrap();
        let opened = File::open(directory.path()).unwrap();
        let watch = Watch::start([opened.as_fd()].into_iter()).unwrap();
        watch.update();
        assert!(watch.is_whole() && !watch.saw(0, c"blob"));
        drop(File::open(&blob).unwrap());
        watch.update();
        assert!(watch.saw(0, c"blob") && !watch.saw(0, c"other"));

        // A file that is not a directory cannot be watched, nor can a directory once the user has no
        // watches left.
        let blob = File::open(&blob).unwrap();
        let watch = Watch::start([opened.as_fd(), blob.as_fd()].into_iter()).unwrap();
        assert!(!watch.is_whole());
    }
}
