//! Observes when updates of an index fall into the gap of a prune.
//!
//! Guarantees: the kernel's own order of events counts, not a clock. A prune's gap begins when it creates its temporary
//! file, after it has read the index, and ends when it renames or removes that file. An update counts if it falls between
//! the two. An update that is renamed into place counts by that rename. One that is written in place counts by a mark that
//! the writer sets right before.
//!
//! Source: `inotify(7)`; Linux's `fs/namei.c` (`vfs_rename` tells of a rename while both directories are locked).

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// How the names of a prune's temporary files begin.
pub(super) const OWN: &[u8] = b"index.json.pruning-";
const INDEX: &[u8] = b"index.json";
/// The mark that ends the observation.
const END: &[u8] = b"end";

/// Where a prune is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Elsewhere,
    /// Between its look at the index and the exchange.
    Gap,
    /// Between the exchange and the removal of what came out.
    Exchanged,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gaps {
    /// How often a prune began to change the index.
    pub(super) opened: u64,
    /// Updates between its look and its exchange.
    pub(super) within: u64,
    /// Updates between its exchange and its removal of the old index.
    pub(super) after: u64,
    phase: Phase,
    /// The last rename by a prune.
    own_rename: u32,
}

/// What happened in the layout's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happened {
    Created,
    /// A rename took the name away. The number is the rename's.
    Left(u32),
    /// A rename gave something the name.
    Arrived(u32),
    Removed,
}

impl Gaps {
    fn note(&mut self, happened: Happened, name: &[u8]) {
        let is_own = name.starts_with(OWN);
        match happened {
            Happened::Created if is_own => {
                self.opened += 1;
                self.phase = Phase::Gap;
            }
            Happened::Left(rename) if is_own => {
                self.phase = Phase::Elsewhere;
                self.own_rename = rename;
            }
            // Only an exchange gives something the temporary file's name.
            Happened::Arrived(_) if is_own => self.phase = Phase::Exchanged,
            Happened::Arrived(rename) if name == INDEX && rename != self.own_rename => self.update(),
            Happened::Removed if is_own => self.phase = Phase::Elsewhere,
            _ => {}
        }
    }

    fn update(&mut self) {
        match self.phase {
            Phase::Elsewhere => {}
            Phase::Gap => self.within += 1,
            Phase::Exchanged => self.after += 1,
        }
    }
}

/// Observes one layout.
#[derive(Debug)]
pub(super) struct Observer {
    notifier: OwnedFd,
    root: i32,
    marks: PathBuf,
    gaps: Mutex<Gaps>,
    opened: Condvar,
}

impl Observer {
    /// Starts to observe. Marks are files in a directory of their own.
    pub(super) fn start(root: &Path, marks: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&marks).with_context(|| format!("make {}", marks.display()))?;
        let notifier = inotify::init(CreateFlags::CLOEXEC).context("start to observe (`inotify_init1`)")?;
        let flags = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
        let root = inotify::add_watch(&notifier, root, flags).context("observe the layout")?;
        inotify::add_watch(&notifier, &marks, WatchFlags::CREATE).context("observe the marks")?;
        Ok(Self { notifier, root, marks, gaps: Mutex::default(), opened: Condvar::new() })
    }

    /// Sets a mark: an update begins.
    pub(super) fn mark(&self, number: u64) -> io::Result<()> {
        File::create(self.marks.join(number.to_string())).map(drop)
    }

    /// Ends the observation.
    pub(super) fn end(&self) -> io::Result<()> {
        File::create(self.marks.join("end")).map(drop)
    }

    /// What was counted so far.
    pub(super) fn gaps(&self) -> Gaps {
        *self.lock()
    }

    /// Waits until a prune has begun to change the index more often than `before`. Returns false after `limit`.
    pub(super) fn wait_for_gap(&self, before: u64, limit: Duration) -> bool {
        let waited = self.opened.wait_timeout_while(self.lock(), limit, |gaps| gaps.opened <= before);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Takes in events until the end.
    pub(super) fn observe(&self) -> anyhow::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.notifier, &mut buffer);
        loop {
            let event = events.next().context("read the events")?;
            anyhow::ensure!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "too many events");
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            let mut gaps = self.lock();
            match (event.wd() == self.root, event.events()) {
                (false, _) if name == END => return Ok(()),
                (false, _) => gaps.update(),
                (true, ReadFlags::CREATE) => gaps.note(Happened::Created, name),
                (true, ReadFlags::MOVED_FROM) => gaps.note(Happened::Left(event.cookie()), name),
                (true, ReadFlags::MOVED_TO) => gaps.note(Happened::Arrived(event.cookie()), name),
                (true, ReadFlags::DELETE) => gaps.note(Happened::Removed, name),
                _ => {}
            }
            drop(gaps);
            self.opened.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPORARY: &[u8] = b"index.json.pruning-0123456789abcdef";

    fn counted(events: &[(Happened, &[u8])]) -> (u64, u64, u64) {
        let mut gaps = Gaps::default();
        events.iter().for_each(|(happened, name)| gaps.note(*happened, name));
        (gaps.opened, gaps.within, gaps.after)
    }

    #[test]
    fn only_updates_of_others_count_and_only_in_the_gap() {
        use Happened::{Arrived, Created, Left, Removed};
        let update = |number| (Arrived(number), INDEX);
        let exchange = [(Left(7), TEMPORARY), (Arrived(7), INDEX), (Left(8), INDEX), (Arrived(8), TEMPORARY)];
        let begin = [update(1), (Created, TEMPORARY), update(2), update(3)];
        let end = [update(9), (Removed, TEMPORARY), update(10)];
        assert_eq!(counted(&[&begin[..], &exchange, &end].concat()), (1, 2, 1));
        assert_eq!(counted(&[(Created, TEMPORARY), (Removed, TEMPORARY), update(1)]), (1, 0, 0));
        assert_eq!(counted(&[(Created, b"index-7"), update(1), (Removed, b"index-7")]), (0, 0, 0));
    }

    #[test]
    fn the_kernel_tells_of_renames_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("layout");
        std::fs::create_dir(&root).unwrap();
        let observer = Observer::start(&root, directory.path().join("marks")).unwrap();
        let temporary = root.join(std::str::from_utf8(TEMPORARY).unwrap());
        std::fs::write(&temporary, "").unwrap();
        std::fs::write(directory.path().join("new"), "").unwrap();
        std::fs::rename(directory.path().join("new"), root.join("index.json")).unwrap();
        observer.mark(1).unwrap();
        std::fs::rename(temporary, root.join("index.json")).unwrap();
        observer.mark(2).unwrap();
        observer.end().unwrap();
        observer.observe().unwrap();
        let gaps = observer.gaps();
        assert_eq!((gaps.opened, gaps.within, gaps.after), (1, 2, 0));
    }
}
