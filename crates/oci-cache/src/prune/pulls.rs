//! Looks for signs that a pull is under way.
//!
//! Guarantees: a pull is seen if it has any blob or partial of the cache open, if it opens, closes, creates or
//! renames a file while this prune looks, or if it holds a lock that pullers take. Whoever does so counts as a pull.
//! Nothing is changed. A process that opens a file while that file is probed waits for microseconds.
//!
//! A pull into a layout may read the index, be silent, and write the index last. If the mount records reads, and the
//! index may have been read within the last five seconds, the look goes on until five seconds after that.
//!
//! What it does not guarantee: a pull that looked blobs up earlier, and now waits with nothing of the cache open, is
//! not seen. Neither are uses that neither a lease nor inotify shows: see [`crate::os::lease`] and
//! [`crate::os::watch`].

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::SETTLE;
use crate::cache::idle::Times;
use crate::cache::inventory::{Blob, Tree};
use crate::cache::lock::Lock;
use crate::cache::names::{self, Place};
use crate::cache::references::References;
use crate::os::lease::{Opened, Probe, ask_patiently, is_locked, probe};
use crate::os::readers::Readers;
use crate::os::status::Timestamp;
use crate::os::watch::{Sighting, Watch};
use crate::plan::PrunePlan;
use crate::progress::{Progress, Stage};
use crate::prune::early::{Early, changed_directory};
use crate::prune::look::Look;
use crate::prune::newcomers::Newcomers;
use crate::prune::open::{open_blob, open_partial};
use crate::prune::sign::Sign;
use crate::scan::index::index_status;

/// If the index does not lead to a blob that is younger than this, a pull has just written it.
const NEW: Duration = Duration::from_secs(60);
/// How long a pull may be silent after it has read a layout's index. Before skopeo fetches anything, it asks a registry for
/// the manifest, which takes several round trips (containers/image, `oci/layout/oci_dest.go`, `newImageDestination` reads
/// the index).
const SILENCE: Duration = Duration::from_secs(5);
/// How many blobs a thread probes at a time. Those that look open are open here too for so long.
const BATCH: usize = 64;

/// What is known about pulls; the watch adds to it while blobs are removed.
#[derive(Debug)]
pub(crate) struct Pulls<'a> {
    tree: &'a Tree,
    seen: Seen,
}

/// What was seen of pulls in a cache; a later round goes on with it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    watch: Option<Watch>,
    sign: OnceLock<Sign>,
    /// The blobs that processes had open when the prune looked. In a cache without images, at most one a thread.
    open: Mutex<HashSet<usize>>,
    /// The partials that processes had open when the prune looked.
    open_partials: Mutex<HashSet<usize>>,
    /// The blobs that could not be probed when the prune looked, if that matters: in a strict prune.
    unprobed: Option<Mutex<HashSet<usize>>>,
    /// Whether the look watched for the grace.
    was_watched: bool,
    /// Others who take the lock that readers share with this prune.
    newcomers: Newcomers,
}

impl<'a> Pulls<'a> {
    /// Goes on with what was seen in the same tree.
    pub(crate) const fn again(tree: &'a Tree, seen: Seen) -> Self {
        Self { tree, seen }
    }

    /// What was seen.
    pub(crate) fn into_seen(self) -> Seen {
        self.seen
    }

    /// Whether the look watched for the grace.
    pub(crate) const fn was_watched(&self) -> bool {
        self.seen.was_watched
    }

    /// Looks for pulls in the whole cache: for half a second or, if a pull may just have read a layout's index, for up to
    /// five, or until the first sign. If the plan is to watch first,
    /// watches for the grace before.
    pub(crate) fn look(plan: &'a PrunePlan, references: &References, progress: &Progress) -> Self {
        Self::look_after(&Early::default(), plan, references, progress)
    }

    /// As [`Pulls::look`], after blobs went early: in what they left of the cache.
    pub(crate) fn look_after(
        early: &Early,
        plan: &'a PrunePlan,
        references: &References,
        progress: &Progress,
    ) -> Self {
        let tree = &plan.inventory.tree;
        let not_in_index = blob_not_in_index(tree, references, plan.planned_at);
        let directories = tree.directories.iter();
        let watch =
            Watch::start(directories.map(|directory| directory.descriptor.as_fd()), names::is_own_temporary);
        let unprobed = plan.strict.then(Mutex::default);
        let mut pulls = Self { tree, seen: Seen { watch, unprobed, ..Seen::default() } };
        // Both watches overlap, and the times of directories are read after the new one began, so there is no gap.
        let modified = early.modified(tree);
        if let Some(sign) = &early.sign {
            pulls.found(sign.clone());
        }
        pulls.take_in(early.watch.as_ref());
        if let Some(path) = not_in_index {
            pulls.found(Sign::NotInIndex(path));
        }
        if pulls.seen.watch.is_none() && !tree.directories.is_empty() {
            pulls.found(Sign::Unwatched);
        }
        pulls.look_at_locks();
        pulls.seen.was_watched = plan.will_watch_first() && pulls.watch_for(plan.grace, progress);
        progress.enter(Stage::Looking);
        if plan.grace.is_zero() {
            // Nothing but what is seen in this time is spared.
            pulls.wait(SETTLE, true, progress);
        } else {
            pulls.wait(SETTLE.max(silence_left(plan)), false, progress);
        }
        // An image stays as a whole if any of its blobs is open or cannot be probed, so all of them must be known.
        let are_all_asked = !references.images.is_empty() || plan.strict;
        pulls.probe_all(are_all_asked, &early.gone(), progress);
        pulls.look_at_locks();
        if let Some(sign) = changed_directory(tree, &modified) {
            pulls.found(sign);
        }
        pulls.update();
        pulls
    }

    /// The watch, if inotify is available.
    pub(crate) const fn watch(&self) -> Option<&Watch> {
        self.seen.watch.as_ref()
    }

    /// The first sign that was found, as of the last update.
    pub(crate) fn sign(&self) -> Option<&Sign> {
        self.seen.sign.get()
    }

    /// Takes in what the watch has seen since the last update. Returns the first sign that was ever found.
    pub(crate) fn update(&self) -> Option<&Sign> {
        if self.seen.newcomers.look() {
            self.found(self.lock_sign());
        }
        self.take_in(self.watch());
        self.sign()
    }

    /// Takes in what a watch has seen.
    fn take_in(&self, watch: Option<&Watch>) {
        match watch.and_then(Watch::update) {
            None => {}
            Some(Sighting::Overflow) => self.found(Sign::Unwatched),
            Some(Sighting::Used(directory, name)) => self.found(Sign::Used(self.path(directory, &name))),
        }
    }

    /// Does work that changes the index. What happens to the index meanwhile counts as this process's own doing.
    pub(crate) fn while_changing_index<T>(&self, work: impl FnOnce() -> T) -> T {
        self.update();
        let done = work();
        if let Some(watch) = &self.seen.watch {
            watch.update_but(|name| name == names::INDEX);
        }
        done
    }

    /// Does work that opens and removes partials. What happens to these meanwhile counts as this process's own doing.
    pub(crate) fn while_removing_partials<T>(&self, work: impl FnOnce() -> T) -> T {
        self.update();
        let done = work();
        if let Some(watch) = &self.seen.watch {
            let names: HashSet<&CStr> =
                self.tree.partials.iter().map(|partial| partial.name.as_c_str()).collect();
            watch.update_but(|name| names.contains(name));
        }
        done
    }

    /// Records a sign, if it is the first.
    pub(crate) fn found(&self, sign: Sign) {
        let _ = self.seen.sign.set(sign);
    }

    /// The watch of the directory at this position.
    pub(crate) fn watch_of(&self, directory: u16) -> Option<(&Watch, usize)> {
        self.seen.watch.as_ref().map(|watch| (watch, usize::from(directory)))
    }

    /// Whether another process used this file, as of the last update.
    pub(crate) fn saw(&self, directory: usize, name: &CStr) -> bool {
        self.seen.watch.as_ref().is_some_and(|watch| watch.saw(directory, name))
    }

    /// Whether a process had this blob open when the prune looked, or used it since, as of the last update.
    pub(crate) fn is_in_use(&self, index: usize) -> bool {
        self.seen.open.lock().unwrap_or_else(PoisonError::into_inner).contains(&index)
            || self.saw_blob(&self.tree.blobs[index])
    }

    /// In a strict prune, the blobs that could not be probed when the prune looked.
    pub(crate) fn unprobed(&self) -> HashSet<usize> {
        let lock = |set: &Mutex<HashSet<usize>>| set.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.seen.unprobed.as_ref().map(lock).unwrap_or_default()
    }

    /// Whether a process had this partial open when the prune looked.
    pub(crate) fn is_partial_open(&self, index: usize) -> bool {
        self.seen.open_partials.lock().unwrap_or_else(PoisonError::into_inner).contains(&index)
    }

    fn saw_blob(&self, blob: &Blob) -> bool {
        self.saw(usize::from(blob.directory), blob.digest.file_name(blob.spelling).as_c_str())
    }

    /// The blobs that are in use, by index into the inventory: all that are open, and those that other processes used
    /// since the look.
    pub(crate) fn in_use(&self, progress: &Progress) -> Vec<usize> {
        self.probe_all(true, &[], progress);
        self.update();
        (0..self.tree.blobs.len()).filter(|&index| self.is_in_use(index)).collect()
    }

    /// Also looks out for others than these readers who take the lock.
    pub(crate) fn beside(mut self, readers: Option<Arc<Readers>>) -> Self {
        self.seen.newcomers = Newcomers::beside(readers);
        self.update();
        self
    }

    /// Whether readers share the lock with this prune.
    pub(crate) const fn is_beside_readers(&self) -> bool {
        self.seen.newcomers.are_looked_for()
    }

    /// Takes the lock again that others could share while the prune watched. If one of them still does, nothing goes.
    pub(crate) fn under(self, lock: &Lock) -> Self {
        if !lock.regain() {
            self.seen.newcomers.note();
            self.found(self.lock_sign());
        }
        self
    }

    /// If somebody else than readers has taken the lock, as of the last update, the sign of it: nothing more goes.
    pub(crate) fn locked_out(&self) -> Option<Sign> {
        self.seen.newcomers.have_come().then(|| self.lock_sign())
    }

    fn lock_sign(&self) -> Sign {
        Sign::Locked(self.tree.directories.first().map(|root| root.path.clone()).unwrap_or_default())
    }

    fn path(&self, directory: usize, name: &CStr) -> PathBuf {
        self.tree.directories[directory].path.join(OsStr::from_bytes(name.to_bytes()))
    }

    /// Waits for this long, or until the first sign unless it is `to_the_end`. Meanwhile it empties the kernel's queue,
    /// which is bounded.
    pub(crate) fn wait(&self, duration: Duration, to_the_end: bool, progress: &Progress) {
        const SLICE: Duration = Duration::from_millis(20);
        let started = Instant::now();
        loop {
            let left = duration.saturating_sub(started.elapsed());
            if left.is_zero() || progress.is_stopped() || self.sign().is_some() && !to_the_end {
                return;
            }
            progress.wait(left.min(SLICE));
            self.update();
        }
    }

    /// Looks at the locks that pullers take.
    fn look_at_locks(&self) {
        let Some(root) = self.tree.directories.first() else { return };
        for name in names::PULLERS_LOCKS {
            if is_locked(root.descriptor.as_fd(), name, self.watch_of(0)) {
                self.found(Sign::Locked(self.path(0, name)));
            }
        }
    }

    /// Probes every partial, then every blob that is not known to be gone, but unless `to_the_end` only until there is a
    /// sign.
    fn probe_all(&self, to_the_end: bool, gone: &[bool], progress: &Progress) {
        let tree = self.tree;
        for (index, partial) in tree.partials.iter().enumerate() {
            let directory = tree.directory(partial.directory).descriptor.as_fd();
            match partial.look(directory, self.watch_of(partial.directory)) {
                Look::InUse => {
                    self.seen.open_partials.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
                    self.found(open_partial(partial));
                }
                Look::Changed => self.found(Sign::Changed(partial.path.clone())),
                Look::Idle { .. } | Look::Gone | Look::Failed(_) => {}
            }
        }
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let start = next.fetch_add(BATCH, Ordering::Relaxed);
                let is_enough = self.sign().is_some() && !to_the_end;
                if start >= tree.blobs.len() || is_enough || progress.is_stopped() {
                    return;
                }
                let end = tree.blobs.len().min(start + BATCH);
                let left = (start..end).filter(|&index| gone.get(index) != Some(&true));
                let waiting = left.filter_map(|index| Some((index, self.probe(index)?)));
                self.ask_again(waiting.collect());
                self.update();
            }
        };
        let cores = thread::available_parallelism().map_or(1, usize::from).min(tree.blobs.len() / BATCH);
        thread::scope(|scope| {
            for _ in 1..cores {
                // If no thread can be started, this one does all the work.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
    }

    /// Probes a blob. Returns its descriptor, and since when it waits, if it looks open.
    fn probe(&self, index: usize) -> Option<(Opened<'_>, Instant)> {
        let blob = &self.tree.blobs[index];
        let directory = self.tree.directory(blob.directory).descriptor.as_fd();
        let name = blob.digest.file_name(blob.spelling);
        match probe(directory, name.as_c_str(), self.watch_of(blob.directory)) {
            Probe::InUse(opened) => return Some((opened, Instant::now())),
            Probe::Leased => self.found_open(index),
            Probe::Unknown => {
                if let Some(unprobed) = &self.seen.unprobed {
                    unprobed.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
                }
            }
            Probe::Idle(_) | Probe::Gone | Probe::Failed(_) => {}
        }
        None
    }

    /// Asks again after blobs that look open: perhaps it is only a scanner, which closes a file in a moment.
    fn ask_again(&self, waiting: Vec<(usize, (Opened<'_>, Instant))>) {
        for (index, (opened, since)) in waiting {
            if matches!(ask_patiently(opened, since), Probe::InUse(_)) {
                self.found_open(index);
            }
        }
    }

    fn found_open(&self, index: usize) {
        self.seen.open.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        if self.sign().is_some() {
            return;
        }
        self.found(open_blob(self.tree, index));
    }
}

/// For how long a pull that has read a layout's index may still be silent; zero if none has, or if no reads are recorded.
fn silence_left(plan: &PrunePlan) -> Duration {
    let idleness = plan.inventory.idleness;
    let root = plan.inventory.tree.directories.first().filter(|_| idleness.records_reads());
    let index = root.and_then(|root| index_status(root.descriptor.as_fd()).ok().flatten());
    index.filter(|index| index.accessed > index.modified).map_or(Duration::ZERO, |index| {
        SILENCE.saturating_sub(idleness.since(Times::of(&index), plan.planned_at).age_at(plan.planned_at))
    })
}

/// A new blob of a layout that the index does not lead to. Before the first pull is done, there may be no index: skopeo
/// writes it, and `oci-layout`, last (containers/image, `oci/layout/oci_dest.go`, `Commit`).
fn blob_not_in_index(tree: &Tree, references: &References, now: Timestamp) -> Option<PathBuf> {
    let counts = references.counts(tree.blobs.len());
    // A time far in the future says nothing.
    let is_new = |blob: &Blob| blob.modified > now.before(NEW) && blob.modified.before(NEW) < now;
    let is_nested = |blob: &Blob| tree.directory(blob.directory).place != Place::Root;
    let found =
        tree.blobs.iter().zip(counts).find(|(blob, count)| *count == 0 && is_new(blob) && is_nested(blob));
    found.map(|(blob, _)| tree.path_of(blob))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::mem::MaybeUninit;
    use std::path::Path;
    use std::time::SystemTime;

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use rustix::fs::{FlockOperation, flock};

    use crate::cache::idle::Idleness;
    use crate::plan::IndexChange;
    use crate::prune::index_rewrite::{Changed, change_index};
    use crate::{CacheDir, Policy, Space, scan, select};

    /// The plan to remove everything.
    #[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
    fn plan(root: &Path) -> PrunePlan {
        let inventory = scan(&CacheDir::open(root, &[]).unwrap()).unwrap();
        select(inventory, &Policy::default(), SystemTime::now().into(), Space::default()).unwrap()
    }

    /// What is known of pulls when a watch has just begun.
    fn watched(tree: &Tree) -> Pulls<'_> {
        let directories = tree.directories.iter().map(|directory| directory.descriptor.as_fd());
        let watch = Watch::start(directories, names::is_own_temporary);
        assert!(watch.is_some());
        Pulls { tree, seen: Seen { watch, ..Seen::default() } }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
    fn only_a_read_since_the_last_write_makes_the_look_longer() {
        const HOUR: Duration = Duration::from_secs(3600);
        let directory = tempfile::tempdir().unwrap();
        let (root, index) = (directory.path(), directory.path().join("index.json"));
        fs::write(root.join("oci-layout"), "{}").unwrap();
        fs::write(&index, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        // How long ago it was written, and read.
        for (written, read, is_longer) in [
            (HOUR, Duration::ZERO, true),
            (HOUR, 2 * HOUR, false),
            // The mount would have recorded another read.
            (30 * HOUR, 26 * HOUR, false),
        ] {
            let now = SystemTime::now();
            let times = fs::FileTimes::new().set_modified(now - written).set_accessed(now - read);
            File::options().write(true).open(&index).unwrap().set_times(times).unwrap();
            let mut plan = plan(root);
            plan.inventory.idleness = Idleness::of_relatime();
            assert_eq!(silence_left(&plan) > SILENCE / 2, is_longer, "{written:?} {read:?}");
            plan.inventory.idleness = Idleness::default();
            assert_eq!(silence_left(&plan), Duration::ZERO);
        }
    }

    #[test]
    fn a_lock_taken_during_the_look_shows_a_pull() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".lock");
        fs::write(directory.path().join(format!("sha256:{:064x}", 1)), "content").unwrap();
        fs::write(&path, "").unwrap();
        let lock = File::open(&path).unwrap();
        let plan = plan(directory.path());
        let closes = inotify::init(CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&closes, directory.path(), WatchFlags::CLOSE).unwrap();
        let pulls = thread::scope(|scope| {
            scope.spawn(|| {
                // The first file that the look closes is the lock, which is free.
                inotify::Reader::new(&closes, &mut [MaybeUninit::uninit(); 512]).next().unwrap();
                flock(&lock, FlockOperation::LockExclusive).unwrap();
            });
            Pulls::look(&plan, &References::default(), &Progress::default())
        });
        assert_eq!(pulls.sign(), Some(&Sign::Locked(path)));
    }

    #[test]
    fn only_what_happens_to_the_index_while_it_is_changed_is_own_doing() {
        type Act = fn(&Path);
        let (nothing, use_index, use_blob): (Act, Act, Act) = (
            |_| (),
            |root| drop(File::open(root.join("index.json")).unwrap()),
            |root| drop(File::open(root.join(format!("sha256:{:064x}", 1))).unwrap()),
        );
        for (before, meanwhile, after, used) in [
            (nothing, nothing, nothing, None),
            (nothing, use_index, nothing, None),
            (use_index, nothing, nothing, Some("index.json".to_owned())),
            (nothing, nothing, use_index, Some("index.json".to_owned())),
            (nothing, use_blob, nothing, Some(format!("sha256:{:064x}", 1))),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path();
            fs::write(root.join("oci-layout"), "{}").unwrap();
            fs::write(root.join("index.json"), r#"{"schemaVersion":2,"manifests":["a"]}"#).unwrap();
            fs::write(root.join(format!("sha256:{:064x}", 1)), "content").unwrap();
            let plan = plan(root);
            let tree = &plan.inventory.tree;
            let pulls = watched(tree);
            before(root);
            let changed = pulls.while_changing_index(|| {
                meanwhile(root);
                let seen = tree.index.as_ref().unwrap();
                change_index(tree.directories[0].descriptor.as_fd(), seen, &IndexChange::Empty)
            });
            assert!(matches!(changed, Ok(Changed::To(Some(_)))), "{changed:?}");
            after(root);
            assert_eq!(pulls.update(), used.map(|name| Sign::Used(root.join(name))).as_ref());
        }
    }

    #[test]
    fn a_prune_that_goes_on_knows_all_that_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> =
            (0..3 * BATCH).map(|number| directory.path().join(format!("sha256:{number:064x}"))).collect();
        for path in &paths {
            fs::write(path, "content").unwrap();
        }
        let plan = plan(directory.path());
        let open: Vec<File> = paths[1..].iter().map(|path| File::open(path).unwrap()).collect();
        let progress = Progress::default();
        // In a cache without images, the look ends with the first sign.
        let pulls = Pulls::look(&plan, &References::default(), &progress);
        assert!(matches!(pulls.sign(), Some(Sign::Open { .. })), "{:?}", pulls.sign());
        assert_eq!(pulls.in_use(&progress).len(), open.len());
        drop(File::open(&paths[0]).unwrap());
        assert_eq!(pulls.in_use(&progress).len(), paths.len(), "one was used meanwhile");
    }

    #[test]
    fn if_the_kernel_cannot_tell_of_all_uses_every_file_counts_as_used() {
        let directory = tempfile::tempdir().unwrap();
        let [used, other] = [1, 2].map(|number| directory.path().join(format!("sha256:{number:064x}")));
        for path in [&used, &other] {
            fs::write(path, "content").unwrap();
        }
        let plan = plan(directory.path());
        let pulls = watched(&plan.inventory.tree);
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        // Each use is two events, unless a process that another test starts has the file open for a moment too.
        for _ in 0..most {
            drop(File::open(&used).unwrap());
        }
        // One update takes in a bounded number of events; the kernel tells of the overflow last.
        (0..most / 10_000).for_each(|_| drop(pulls.watch().unwrap().update()));
        assert_eq!(pulls.update(), Some(&Sign::Unwatched));
        let name = std::ffi::CString::new(other.file_name().unwrap().as_bytes()).unwrap();
        assert!(pulls.saw(0, &name));
        assert!((0..plan.inventory.blobs().len()).all(|index| pulls.is_in_use(index)));
    }

    #[test]
    fn a_partial_that_is_open_and_a_blob_with_a_lease_show_a_pull() {
        let directory = tempfile::tempdir().unwrap();
        let blob = directory.path().join(format!("sha256:{:064x}", 1));
        fs::write(&blob, "content").unwrap();
        let look = || {
            let plan = plan(directory.path());
            let pulls = Pulls::look(&plan, &References::default(), &Progress::default());
            (pulls.sign().cloned(), pulls.is_in_use(0))
        };
        let leased = File::open(&blob).unwrap();
        crate::os::lease::lease_against_all(leased.as_fd()).unwrap();
        let (sign, is_in_use) = look();
        assert!(matches!(&sign, Some(Sign::Open { path, .. }) if *path == blob), "{sign:?}");
        assert!(is_in_use);
        drop(leased);

        let partial = directory.path().join("oci-put-blob1");
        let _open = File::create(&partial).unwrap();
        let (sign, is_in_use) = look();
        assert!(matches!(&sign, Some(Sign::Open { path, .. }) if *path == partial), "{sign:?}");
        assert!(!is_in_use);
    }
}
