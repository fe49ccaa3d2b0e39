//! Keeps an OCI image layout valid while its blobs go.
//!
//! Guarantees: no blob goes while a pull into the layout shows itself, by a temporary file in use, by a
//! directory or index that changed since the scan, or by reading the index: such a pull may count on a blob that it only looked up.
//! What refers goes first: the index loses the entries that lead to blobs that go, before they go. A pull
//! that was too early to be seen may write back entries that it had read before; if it does so within
//! half a second after the prune, those that lead to removed blobs are taken out again.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cache::SETTLE;
use crate::cache::digest::Digest;
use crate::cache::inventory::Directory;
use crate::cache::names::{INDEX, index_path};
use crate::cache::partial::Partial;
use crate::error::Failure;
use crate::os::errno_of;
use crate::os::status::Status;
use crate::os::watch::Watch;
use crate::plan::{IndexChange, PrunePlan};
use crate::progress::Progress;
use crate::prune::index_rewrite::{Changed, change_index};
use crate::prune::partials::Look;
use crate::prune::report::PruneReport;
use crate::scan::index::index_status;
use crate::scan::references::read_tree;
use crate::scan::tree::scan_tree;

/// Whether the blobs of a layout may go.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// They may: nothing refers to them any more.
    Ready(Option<LeftIndex>),
    /// A stop was asked for.
    Stopped,
    /// A pull is under way: this shows it.
    PullInFlight(PathBuf),
    /// The index could not be made ready.
    Failed(Failure),
}

/// The index as the prune left it; none if it had to be removed.
#[derive(Debug)]
pub(crate) struct LeftIndex(Option<Status>);

/// Guards a layout from which a plan removes blobs.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    plan: &'a PrunePlan,
    root: &'a Directory,
}

impl<'a> Guard<'a> {
    /// The guard that the plan needs; none if it removes no blob of a layout.
    pub(crate) fn of(plan: &'a PrunePlan) -> Option<Self> {
        let tree = &plan.inventory.tree;
        let is_layout = tree.oci_layout.is_some() || tree.index.is_some() || tree.index_unknown.is_some();
        let root = tree.directories.first()?;
        (is_layout && plan.removes_nested_blobs()).then_some(Self { plan, root })
    }

    /// Makes the layout ready for the removal of its blobs.
    pub(crate) fn prepare(&self, watch: Option<&Watch>) -> Readiness {
        if let Some(path) = self.pull_in_flight() {
            return Readiness::PullInFlight(path);
        }
        // Pulls read the index before they write anything, and write back what they read.
        if let Some(watch) = watch {
            watch.update();
            if watch.saw(0, INDEX) {
                return Readiness::PullInFlight(self.index_path());
            }
        }
        let fail = |errno| Readiness::Failed(Failure::new("rewrite the index", self.index_path(), errno));
        let tree = &self.plan.inventory.tree;
        let Some(index) = &tree.index else {
            // A link or a mount in its place may name the blobs, and cannot be changed.
            let is_odd = tree.foreign.iter().any(|foreign| foreign.path == self.index_path());
            let odd = tree.index_unknown.or(is_odd.then_some(Errno::NOTSUP));
            return odd.map_or(Readiness::Ready(None), fail);
        };
        match change_index(self.root.descriptor.as_fd(), index, &self.plan.index_change) {
            Ok(Changed::To(status)) => Readiness::Ready(Some(LeftIndex(status))),
            Ok(Changed::NotTheOneSeen) => Readiness::PullInFlight(self.index_path()),
            Err(errno) => fail(errno),
        }
    }

    fn index_path(&self) -> PathBuf {
        index_path(&self.root.path)
    }

    /// What shows that somebody writes to the layout.
    fn pull_in_flight(&self) -> Option<PathBuf> {
        let tree = &self.plan.inventory.tree;
        let is_in_use = |partial: &&Partial| {
            let directory = tree.directory(partial.directory).descriptor.as_fd();
            matches!(partial.look(directory), Look::InUse)
        };
        let partial = tree.partials.iter().find(is_in_use).map(|partial| partial.path.clone());
        partial.or_else(|| {
            let is_changed = |directory: &&Directory| {
                Status::of_descriptor(directory.descriptor.as_fd())
                    .is_ok_and(|status| status.modified != directory.status.modified)
            };
            tree.directories.iter().find(is_changed).map(|directory| directory.path.clone())
        })
    }

    /// Waits a little, and takes out what a pull wrote back into the index that leads to removed blobs.
    pub(crate) fn clean_up(&self, left: &LeftIndex, progress: &Progress, report: &mut PruneReport) {
        if left.0.is_none() {
            report.notes.index_removed = Some(self.index_path());
        }
        progress.wait(SETTLE);
        if let Err(errno) = self.drop_dangling(left, report) {
            report.failures.push(Failure::new("check the index", self.index_path(), errno));
        }
    }

    fn drop_dangling(&self, left: &LeftIndex, report: &PruneReport) -> Result<(), Errno> {
        let root = self.root.descriptor.as_fd();
        let is_as_left = match (left.0, index_status(root)?) {
            (Some(left), Some(found)) => found.is_same_content(&left),
            (_, found) => found.is_none(),
        };
        if is_as_left {
            return Ok(());
        }
        let removed = self.removed_digests(report);
        let again = root.try_clone_to_owned().map_err(|error| errno_of(&error))?;
        let tree = scan_tree(again, &self.root.path, None).map_err(|_| Errno::IO)?;
        let images = read_tree(&tree).images;
        let dangling =
            images.iter().filter(|image| image.missing.iter().any(|digest| removed.contains(digest)));
        let positions: Vec<usize> = dangling.map(|image| image.position).collect();
        match &tree.index {
            // Should another pull be faster, its own index is the next prune's to look at.
            Some(index) => change_index(root, index, &IndexChange::Drop(positions)).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The digests of the layout's blobs that the plan removed.
    fn removed_digests(&self, report: &PruneReport) -> HashSet<&Digest> {
        let stayed: HashSet<usize> = report.notes.exceptions.iter().map(|(index, _)| *index).collect();
        let went = self.plan.blobs().enumerate().filter(|(index, (blob, fate))| {
            fate.goes() && self.plan.is_nested(blob) && !stayed.contains(index)
        });
        went.map(|(_, (blob, _))| &blob.digest).collect()
    }
}
