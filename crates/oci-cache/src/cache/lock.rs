//! The lock of a cache.
//!
//! Guarantees: at most one process holds the lock at a time. At the moment it is taken, the lock is on
//! the directory that the path leads to. It is released when the guard is dropped or the process ends.
//!
//! Whoever holds the lock finds a layout's `index.json` as other processes left it, also after a prune was killed.
//!
//! What it does not guarantee: `flock(2)` is advisory, so the lock stops only processes that take it
//! too. A puller may block prunes with a shared lock.
//!
//! A process that cannot write to the cache is no puller, but it may hold the lock for one: for a daemon that pulls, say. A
//! prune that watches for the length of the grace sees what such a pull uses, so that lock need not block it:
//! [`CacheDir::try_lock_beside_readers`] then takes the shared lock too. Of several prunes that do so at once, each sees
//! the others' locks, and at most one goes on. A puller can take the shared lock while such a prune is at work, so the
//! prune looks out for that: see [`crate::os::readers`].

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, flock, openat};
use rustix::io::Errno;

use crate::cache::cache_dir::CacheDir;
use crate::cache::displaced_index;
use crate::cache::names::index_path;
use crate::error::Error;
use crate::os::directory::OPEN_DIRECTORY;
use crate::os::processes::{Process, process_with};
use crate::os::readers::Readers;
use crate::os::status::FileId;
use crate::progress::Progress;

/// Name of the operation that takes the lock.
const OPERATION: &str = "lock oci cache";
/// Name of the operation that gives an index its place back.
const GIVE_BACK: &str = "give back the place that a killed prune took from";
/// Interval between two attempts.
const POLL: Duration = Duration::from_millis(20);
/// Interval between two looks at who holds the lock, which take longer.
const LOOK: Duration = Duration::from_secs(1);

/// The right to change a cache; needed to apply a plan.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct Lock {
    /// The locked directory, in an open file description of its own; `None` if the cache does not exist or
    /// locks are unsupported.
    locked: Option<OwnedFd>,
    id: Option<FileId>,
    path: PathBuf,
    is_exclusive: bool,
    /// Those who hold the shared lock beside this one.
    readers: Option<Arc<Readers>>,
    gave_index_back: bool,
}

impl Lock {
    /// Whether other prunes are excluded.
    ///
    /// Some network file systems do not support locks; the guard is then given without one.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// Whether a prune was killed before it could give another process's `index.json` its place back, and this did it.
    #[must_use]
    pub const fn gave_index_back(&self) -> bool {
        self.gave_index_back
    }

    /// Gives another process's index its place back, if a killed prune has displaced it.
    fn with_index_given_back(mut self, cache: &CacheDir) -> Result<Self, Error> {
        if let Some(root) = cache.root() {
            let given = displaced_index::give_back(root.descriptor.as_fd());
            self.gave_index_back = given.map_err(Error::io(GIVE_BACK, &index_path(cache.path())))?;
        }
        Ok(self)
    }

    /// If processes hold the shared lock that cannot write to the cache, so that a prune goes on beside them: one of them.
    #[must_use]
    pub fn reader(&self) -> Option<&Process> {
        self.readers.as_deref().map(|readers| &readers.first)
    }

    /// Lets others share the lock until it is regained. No other prune gets it: prunes take it alone.
    pub(crate) fn share(&self) {
        if let (Some(locked), None) = (&self.locked, &self.readers) {
            // If it fails, others wait for longer.
            let _ = flock(locked, FlockOperation::NonBlockingLockShared);
        }
    }

    /// Takes the lock alone again. Returns whether that worked; if not, somebody else holds it, and this process does not.
    pub(crate) fn regain(&self) -> bool {
        match (&self.locked, &self.readers) {
            (Some(locked), None) => flock(locked, FlockOperation::NonBlockingLockExclusive).is_ok(),
            _ => true,
        }
    }

    pub(crate) const fn readers(&self) -> Option<&Arc<Readers>> {
        self.readers.as_ref()
    }

    /// Whether the lock is on the directory `id`, or on the cache that does not exist at `path`.
    pub(crate) fn is_on(&self, id: Option<FileId>, path: &Path) -> bool {
        self.id == id && (id.is_some() || self.path == path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(locked) = &self.locked {
            // A failure does no harm: closing the last descriptor releases the lock too.
            let _ = flock(locked, FlockOperation::NonBlockingUnlock);
        }
    }
}

impl CacheDir {
    /// Tries to take the lock of this cache.
    ///
    /// Returns `None` while another prune, or a puller with a shared lock, holds it. If another
    /// directory has replaced the one at the path, as the aside strategy does, opens and locks the new
    /// one.
    ///
    /// # Errors
    ///
    /// As [`CacheDir::open`]; also [`Error::Io`] if locking fails. It is not an error if the file system
    /// does not support locks: see [`Lock::is_exclusive`].
    ///
    /// # Examples
    ///
    /// ```
    /// use oci_cache::CacheDir;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path();
    /// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
    /// let mut cache = CacheDir::open(path, &[])?;
    /// let lock = cache.try_lock()?.ok_or("another prune is running")?;
    /// assert!(cache.try_lock()?.is_none());
    /// drop(lock);
    /// assert!(cache.try_lock()?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_lock(&mut self) -> Result<Option<Lock>, Error> {
        loop {
            let path = self.path().to_owned();
            let Some(root) = self.root() else {
                return Ok(Some(Lock {
                    locked: None,
                    id: None,
                    path,
                    is_exclusive: true,
                    readers: None,
                    gave_index_back: false,
                }));
            };
            let id = root.status.id;
            // An open file description of its own, so that the lock also excludes other users in this process.
            let opened = openat(&root.descriptor, c".", OPEN_DIRECTORY, Mode::empty());
            let opened = opened.map_err(Error::io(OPERATION, &path))?;
            match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => continue,
                // NFS answers EBADF for a directory.
                Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                    return Ok(Some(Lock {
                        locked: None,
                        id: Some(id),
                        path,
                        is_exclusive: false,
                        readers: None,
                        gave_index_back: false,
                    }));
                }
                Err(errno) => return Err(Error::io(OPERATION, &path)(errno)),
            }
            let lock = Lock {
                locked: Some(opened),
                id: Some(id),
                path,
                is_exclusive: true,
                readers: None,
                gave_index_back: false,
            };
            let current = self.open_again()?;
            if current.root().map(|root| root.status.id) == Some(id) {
                return lock.with_index_given_back(self).map(Some);
            }
            *self = current;
        }
    }

    /// As [`CacheDir::try_lock`], for a prune in place. Also takes the lock if only processes hold it that certainly cannot
    /// write to the cache. In doubt, it does not: who holds the lock can be told only by root, outside containers.
    ///
    /// # Errors
    ///
    /// As [`CacheDir::try_lock`].
    pub fn try_lock_beside_readers(&mut self) -> Result<Option<Lock>, Error> {
        let lock = self.try_lock()?;
        let Some(root) = self.root().filter(|_| lock.is_none()) else { return Ok(lock) };
        if Readers::of(root.descriptor.as_fd(), 0).is_none() {
            return Ok(None);
        }
        let id = root.status.id;
        let opened = openat(&root.descriptor, c".", OPEN_DIRECTORY, Mode::empty());
        let opened = opened.map_err(Error::io(OPERATION, self.path()))?;
        if flock(&opened, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(None);
        }
        // Another prune may have done the same meanwhile. Both see each other now, and give way.
        let Some(readers) = Readers::of(opened.as_fd(), 1) else { return Ok(None) };
        let (locked, path, readers) = (Some(opened), self.path().to_owned(), Some(Arc::new(readers)));
        let lock = Lock { locked, id: Some(id), path, is_exclusive: true, readers, gave_index_back: false };
        let is_current = self.open_again()?.root().map(|root| root.status.id) == Some(id);
        if is_current { lock.with_index_given_back(self).map(Some) } else { Ok(None) }
    }

    /// Waits for the lock of this cache; calls `on_wait` once if it has to wait.
    ///
    /// Returns `None` if a stop is requested while it waits.
    ///
    /// # Errors
    ///
    /// As [`CacheDir::try_lock`]; also [`Error::Locked`] if the lock is still held after `timeout`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use oci_cache::{CacheDir, Error, Progress};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path();
    /// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
    /// let (mut mine, mut other) = (CacheDir::open(path, &[])?, CacheDir::open(path, &[])?);
    /// let _held = other.try_lock()?;
    /// let mut has_waited = false;
    /// let late = mine.lock(Duration::from_millis(20), &Progress::default(), || has_waited = true);
    /// assert!(matches!(late, Err(Error::Locked { .. })) && has_waited);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(
        &mut self,
        timeout: Duration,
        progress: &Progress,
        on_wait: impl FnOnce(),
    ) -> Result<Option<Lock>, Error> {
        self.wait_for(timeout, progress, on_wait, Self::try_lock)
    }

    /// As [`CacheDir::lock`], with [`CacheDir::try_lock_beside_readers`].
    ///
    /// # Errors
    ///
    /// As [`CacheDir::lock`].
    pub fn lock_beside_readers(
        &mut self,
        timeout: Duration,
        progress: &Progress,
        on_wait: impl FnOnce(),
    ) -> Result<Option<Lock>, Error> {
        let mut looked: Option<Instant> = None;
        self.wait_for(timeout, progress, on_wait, |cache| {
            if looked.is_some_and(|looked| looked.elapsed() < LOOK) {
                return cache.try_lock();
            }
            looked = Some(Instant::now());
            cache.try_lock_beside_readers()
        })
    }

    fn wait_for(
        &mut self,
        timeout: Duration,
        progress: &Progress,
        on_wait: impl FnOnce(),
        mut attempt: impl FnMut(&mut Self) -> Result<Option<Lock>, Error>,
    ) -> Result<Option<Lock>, Error> {
        let started = Instant::now();
        let mut on_wait = Some(on_wait);
        loop {
            if let Some(lock) = attempt(self)? {
                return Ok(Some(lock));
            }
            if progress.is_stopped() {
                return Ok(None);
            }
            if started.elapsed() >= timeout {
                return Err(Error::Locked { path: self.path().to_owned() });
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait();
            }
            thread::sleep(POLL);
        }
    }

    /// A process that has the cache's directory open, as whoever holds its lock does. Others may have it open too, and
    /// without privilege, those of other users are not seen.
    #[must_use]
    pub fn opened_by(&self) -> Option<Process> {
        process_with(self.root()?.status.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn whoever_gets_the_lock_finds_the_index_that_a_killed_prune_displaced() {
        let directory = tempfile::tempdir().unwrap();
        let (root, index) = (directory.path(), directory.path().join("index.json"));
        std::fs::write(&index, "new").unwrap();
        let mut cache = CacheDir::open(root, &[]).unwrap();
        assert!(!cache.try_lock().unwrap().unwrap().gave_index_back());
        let opened = cache.root().unwrap().descriptor.as_fd();
        let (status, born) = crate::os::birth::status_and_birth(opened, c"index.json").unwrap();
        let name = crate::cache::names::index_draft(status.id.inode, born).into_string().unwrap();
        std::fs::write(root.join(name), "displaced").unwrap();
        assert!(cache.try_lock().unwrap().unwrap().gave_index_back());
        assert_eq!(std::fs::read_to_string(index).unwrap(), "displaced");
    }

    #[test]
    fn one_at_a_time_until_the_guard_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let open = || CacheDir::open(directory.path(), &[]).unwrap();
        let (mut first, mut second) = (open(), open());
        let lock = first.try_lock().unwrap().unwrap();
        assert!(lock.is_exclusive() && second.try_lock().unwrap().is_none());

        // The lock outlives the `CacheDir` through which it was taken.
        drop(first);
        assert!(second.try_lock().unwrap().is_none());
        let mut waits = 0;
        let result = second.lock(Duration::ZERO, &Progress::default(), || waits += 1);
        assert!(matches!(result, Err(Error::Locked { .. })), "{result:?}");
        let stopped = Progress::default();
        stopped.stop.store(true, Ordering::Relaxed);
        assert!(second.lock(Duration::MAX, &stopped, || waits += 1).unwrap().is_none());
        assert_eq!(waits, 0);

        let waiting = thread::spawn(move || {
            let mut has_waited = false;
            let lock = second.lock(Duration::MAX, &Progress::default(), || has_waited = true).unwrap();
            (lock.is_some(), has_waited)
        });
        thread::sleep(5 * POLL);
        drop(lock);
        assert_eq!(waiting.join().unwrap(), (true, true));
        assert!(open().try_lock().unwrap().is_some(), "the other thread's guard is gone");
    }
}
