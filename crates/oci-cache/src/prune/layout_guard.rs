//! Keeps an OCI image layout valid while its blobs are removed.
//!
//! Guarantees: if the index changed since the scan, no blob of the layout goes: a pull is under way, and may count on
//! a blob that it only looked up. Otherwise the index loses the entries that lead to doomed blobs before the blobs
//! go. A pull that was not seen may write back entries that it had read earlier. If it does so within half a second
//! after the prune, the entries that lead to removed blobs are removed again.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::fs::syncfs;
use rustix::io::Errno;

use crate::cache::SETTLE;
use crate::cache::digest::Digest;
use crate::cache::inventory::Directory;
use crate::cache::names::{INDEX, index_path};
use crate::error::Failure;
use crate::os::access::Removals;
use crate::os::errno_of;
use crate::os::status::Status;
use crate::plan::{IndexChange, PrunePlan};
use crate::progress::Progress;
use crate::prune::index_rewrite::{Changed, Rewrite, change_index, would_change};
use crate::prune::pulls::Pulls;
use crate::prune::report::PruneReport;
use crate::prune::sign::Sign;
use crate::scan::index::index_status;
use crate::scan::references::read_tree;
use crate::scan::tree::scan_tree;

/// How often to try to remove entries that a pull wrote back, while other pulls change the index.
const ATTEMPTS: usize = 16;

/// Whether blobs of a layout may be removed.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// They may: the index no longer leads to them. If it changed, what is left of it; `None` within if it had to be
    /// removed.
    Ready(Option<Option<Status>>),
    /// A stop was requested.
    Stopped,
    /// A pull changes the index: this shows it.
    PullUnderWay(Sign),
    /// The first sign of a pull turned up meanwhile, so the rule for pulls under way is in force from now on.
    SignTurnedUp,
    /// The index could not be made ready.
    Failed(Failure),
}

/// The index as the prune left it.
#[derive(Debug)]
pub(crate) struct LeftIndex {
    /// `None` if it had to be removed.
    pub(crate) status: Option<Status>,
    /// What left it.
    pub(crate) index_change: IndexChange,
}

impl LeftIndex {
    /// The same index, once it is known what left it.
    pub(crate) fn with_nothing_to_drop(self) -> Self {
        Self { index_change: IndexChange::Drop(Vec::new()), ..self }
    }
}

/// Guards a layout while a plan removes blobs from it.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    plan: &'a PrunePlan,
    root: &'a Directory,
}

impl<'a> Guard<'a> {
    /// The guard for the plan; `None` if it removes no blob of a layout and no entry of its index.
    pub(crate) fn of(plan: &'a PrunePlan) -> Option<Self> {
        if plan.inventory.tree.is_layout() && plan.needs_index() { Self::new(plan) } else { None }
    }

    /// The guard for a layout whose index was changed.
    pub(crate) fn new(plan: &'a PrunePlan) -> Option<Self> {
        plan.inventory.tree.directories.first().map(|root| Self { plan, root })
    }

    /// As [`prepare`](Self::prepare). If the disk is full, tries once more when the file system has given back what was
    /// removed before.
    pub(crate) fn prepare_on_any_disk(&self, change: &IndexChange, pulls: &Pulls<'_>) -> Readiness {
        let is_full = |failure: &Failure| {
            let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
            full.contains(&failure.error.raw_os_error())
        };
        match self.prepare(change, pulls) {
            Readiness::Failed(failure) if is_full(&failure) && syncfs(&self.root.descriptor).is_ok() => {
                self.prepare(change, pulls)
            }
            readiness => readiness,
        }
    }

    /// Makes the layout ready for the removal of its blobs: changes its index.
    pub(crate) fn prepare(&self, change: &IndexChange, pulls: &Pulls<'_>) -> Readiness {
        let fail = |errno| Readiness::Failed(self.failure(errno));
        let Some(index) = &self.plan.inventory.tree.index else {
            return self.odd().map_or(Readiness::Ready(None), fail);
        };
        let (root, had_sign) = (self.root.descriptor.as_fd(), pulls.sign().is_some());
        let rewrite = match Rewrite::prepare(root, index, change, pulls.watch_of(0)) {
            Ok(Some(rewrite)) => rewrite,
            Ok(None) => return Readiness::PullUnderWay(Sign::Used(self.index_path())),
            Err(errno) => return fail(errno),
        };
        // Writing took as long as the disk needed.
        if pulls.update().is_some() && !had_sign {
            rewrite.discard(root);
            return Readiness::SignTurnedUp;
        }
        match pulls.while_changing_index(|| rewrite.carry_out(root)) {
            Ok(Changed::To(status)) => Readiness::Ready(Some(status)),
            Ok(Changed::NotTheOneSeen) => Readiness::PullUnderWay(Sign::Used(self.index_path())),
            Err(Errno::INVAL | Errno::NOSYS) => Readiness::Failed(self.no_exchange()),
            Err(errno) => fail(errno),
        }
    }

    /// The file system, or the kernel, cannot do what the change needs.
    fn no_exchange(&self) -> Failure {
        let operation = "exchange the index with a new one at once, which this file system cannot do:";
        Failure::new(operation, self.index_path(), Errno::OPNOTSUPP)
    }

    /// Why [`prepare`](Self::prepare) would fail, as far as that is known without changing anything.
    pub(crate) fn foresee(&self, change: &IndexChange) -> Option<Failure> {
        let root = self.root.descriptor.as_fd();
        if self.plan.inventory.tree.index.is_none() {
            return self.odd().map(|errno| self.failure(errno));
        }
        let refused = || Removals::from(root).refuse(|| Status::of_entry(root, INDEX));
        let errno = would_change(root, change).map_or_else(Some, |changes| refused().filter(|_| changes));
        errno.map(|errno| self.failure(errno))
    }

    /// Why the index cannot be changed, if it is none that can be read: a link or a mount in its place may reference
    /// the blobs.
    fn odd(&self) -> Option<Errno> {
        let tree = &self.plan.inventory.tree;
        let is_odd = tree.foreign.iter().any(|foreign| foreign.path == self.index_path());
        tree.index_unknown.or(is_odd.then_some(Errno::NOTSUP))
    }

    fn failure(&self, errno: Errno) -> Failure {
        Failure::new("rewrite the index", self.index_path(), errno)
    }

    /// Where the layout's index is.
    pub(crate) fn index_path(&self) -> PathBuf {
        index_path(&self.root.path)
    }

    /// Waits for half a second. Then removes the entries that lead to removed blobs, if a pull wrote such entries back
    /// into the index.
    ///
    /// # Errors
    ///
    /// That the index could not be checked.
    pub(crate) fn clean_up(
        &self,
        left: &LeftIndex,
        removed: &HashSet<&Digest>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        progress.wait(SETTLE);
        for _ in 0..ATTEMPTS {
            let is_clean = self.try_drop_dangling(left, removed);
            if is_clean.map_err(|errno| Failure::new("check the index", self.index_path(), errno))? {
                break;
            }
        }
        Ok(())
    }

    /// Returns false if another pull changed the index meanwhile.
    fn try_drop_dangling(&self, left: &LeftIndex, removed: &HashSet<&Digest>) -> Result<bool, Errno> {
        let root = self.root.descriptor.as_fd();
        let is_as_left = match (left.status, index_status(root)?) {
            (Some(left), Some(found)) => found.is_same_content(&left),
            (_, found) => found.is_none(),
        };
        if is_as_left {
            return Ok(true);
        }
        let again = root.try_clone_to_owned().map_err(|error| errno_of(&error))?;
        let tree = scan_tree(again, &self.root.path, None).map_err(|_| Errno::IO)?;
        let images = read_tree(&tree).images;
        let dangling =
            images.iter().filter(|image| image.missing.iter().any(|digest| removed.contains(digest)));
        let positions: Vec<usize> = dangling.map(|image| image.position).collect();
        match &tree.index {
            Some(index) => change_index(root, index, &IndexChange::Drop(positions))
                .map(|changed| matches!(changed, Changed::To(_))),
            None => Ok(true),
        }
    }

    /// The digests of the layout's blobs that were removed, by this round or an earlier one.
    pub(crate) fn removed_digests(plan: &'a PrunePlan, report: &PruneReport) -> HashSet<&'a Digest> {
        let stayed: HashSet<usize> = report.notes.exceptions.iter().map(|(index, _)| *index).collect();
        let went = plan.blobs().enumerate().filter(|(index, (blob, fate))| {
            let went = fate.is_past() || fate.goes() && !stayed.contains(index);
            went && plan.is_nested(blob)
        });
        went.map(|(_, (blob, _))| &blob.digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::time::SystemTime;

    use crate::prune::spare::Idle;
    use crate::{CacheDir, Policy, Space, scan, select};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
    fn a_sign_that_turns_up_after_the_look_leaves_the_index_alone_once() {
        let directory = tempfile::tempdir().unwrap();
        let (root, text) = (directory.path(), r#"{"schemaVersion":2,"manifests":[{}]}"#);
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        let blob = root.join(format!("blobs/sha256/{:064x}", 1));
        fs::write(&blob, "content").unwrap();
        File::options().write(true).open(&blob).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        fs::write(root.join("index.json"), text).unwrap();
        let cache = CacheDir::open(root, &[]).unwrap();
        let (now, space) = (SystemTime::now().into(), Space::default());
        let plan = select(scan(&cache).unwrap(), &Policy::default(), now, space).unwrap();
        let idle = Idle::of(&plan);
        let pulls = Pulls::look(&plan, idle.references(), &Progress::default());
        assert_eq!(pulls.sign(), None);
        drop(File::open(&blob).unwrap());

        let guard = Guard::of(&plan).unwrap();
        assert!(matches!(guard.prepare(&IndexChange::Empty, &pulls), Readiness::SignTurnedUp));
        let index = || fs::read_to_string(root.join("index.json")).unwrap();
        assert_eq!((index().as_str(), pulls.sign()), (text, Some(&Sign::Used(blob))));
        assert_eq!(fs::read_dir(root).unwrap().count(), 2, "no new index is left");
        assert!(matches!(guard.prepare(&IndexChange::Empty, &pulls), Readiness::Ready(Some(Some(_)))));
        assert_eq!(index(), r#"{"schemaVersion":2,"manifests":[]}"#);
        assert!(pulls.watch().is_some_and(|watch| watch.update().is_some_and(|sighting| {
            matches!(sighting, crate::os::watch::Sighting::Used(_, name) if name.to_bytes() != b"index.json")
        })));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
    fn only_entries_that_lead_to_what_was_removed_leave_an_index_that_a_pull_wrote_back() {
        for was_removed in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let (root, path) = (directory.path(), directory.path().join("index.json"));
            fs::create_dir_all(root.join("blobs/sha256")).unwrap();
            fs::write(&path, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
            let inventory = scan(&CacheDir::open(root, &[]).unwrap()).unwrap();
            let (now, space) = (SystemTime::now().into(), Space::default());
            let plan = select(inventory, &Policy::default(), now, space).unwrap();
            let status = plan.inventory.tree.index.filter(|_| !was_removed);
            let left = LeftIndex { status, index_change: IndexChange::Empty };

            let digest = |number: u32| format!("sha256:{number:064x}");
            let index = |numbers: &[u32]| {
                let entry = |number: &u32| format!(r#"{{"digest":"{}","size":2}}"#, digest(*number));
                let entries: Vec<String> = numbers.iter().map(entry).collect();
                format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
            };
            fs::write(root.join("new"), index(&[1, 2])).unwrap();
            fs::rename(root.join("new"), &path).unwrap();
            let removed: Digest = digest(1).parse().unwrap();
            let guard = Guard::new(&plan).unwrap();
            guard.clean_up(&left, &HashSet::from([&removed]), &Progress::default()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), index(&[2]), "{was_removed}");
        }
    }
}
