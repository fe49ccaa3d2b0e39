//! Keeps an OCI image layout valid while its blobs go.
//!
//! Guarantees: no blob goes while a pull into the layout shows itself, by a temporary file in use, by a
//! directory or index that changed since the scan, or by reading the index: such a pull may count on a blob that it only looked up.
//! What refers goes first: the index loses the entries that lead to blobs that go, before they go. A pull
//! that was too early to be seen may write back entries that it had read before; if it does so within
//! half a second after the prune, those that lead to removed blobs are taken out again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cache::SETTLE;
use crate::cache::digest::Digest;
use crate::cache::inventory::Directory;
use crate::cache::partial::Partial;
use crate::error::Failure;
use crate::os::errno_of;
use crate::os::status::Status;
use crate::os::watch::Watch;
use crate::plan::fate::Fate;
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
pub(crate) enum Way {
    /// They may.
    Clear,
    /// A stop was asked for.
    Stopped,
    /// A pull is under way: this shows it.
    PullInFlight(PathBuf),
    /// The index could not be made ready.
    Failed(Failure),
}

/// Guards a layout from which a plan removes blobs.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    plan: &'a PrunePlan,
    root: &'a Directory,
    /// The index as the prune left it, once it has; inside, whether there is one.
    left: RefCell<Option<Option<Status>>>,
}

impl<'a> Guard<'a> {
    /// The guard that the plan needs; none if it removes no blob of a layout.
    pub(crate) fn of(plan: &'a PrunePlan) -> Option<Self> {
        let tree = &plan.inventory.tree;
        let is_layout = tree.oci_layout.is_some() || tree.index.is_some() || tree.index_unknown.is_some();
        let root = tree.directories.first()?;
        (is_layout && plan.removes_nested_blobs()).then_some(Self { plan, root, left: RefCell::new(None) })
    }

    /// Makes the layout ready for the removal of its blobs: nothing may refer to them any more.
    pub(crate) fn make_way(&self, watch: Option<&Watch>) -> Way {
        let path = self.root.path.join("index.json");
        if let Some(path) = self.pull_in_flight() {
            return Way::PullInFlight(path);
        }
        // Pulls read the index before they write anything, and write back what they read.
        if let Some(watch) = watch {
            watch.update();
            if watch.saw(0, c"index.json") {
                return Way::PullInFlight(path);
            }
        }
        let Some(index) = &self.plan.inventory.tree.index else {
            // A link or a mount in its place may name the blobs, and cannot be changed.
            if let Some(errno) = self.plan.inventory.tree.index_unknown {
                return Way::Failed(Failure::new("rewrite the index", path, errno));
            }
            let is_odd = self.plan.inventory.tree.foreign.iter().any(|foreign| foreign.path == path);
            return match is_odd {
                true => Way::Failed(Failure::new("rewrite the index", path, Errno::NOTSUP)),
                false => Way::Clear,
            };
        };
        match change_index(self.root.descriptor.as_fd(), index, &self.plan.index_change) {
            Ok(Changed::To(status)) => {
                self.left.replace(Some(status));
                Way::Clear
            }
            Ok(Changed::NotTheOneSeen) => Way::PullInFlight(path),
            Err(errno) => Way::Failed(Failure::new("rewrite the index", path, errno)),
        }
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
    pub(crate) fn clean_up(&self, progress: &Progress, report: &mut PruneReport) {
        let Some(left) = self.left.take() else { return };
        if left.is_none() {
            report.index_removed = Some(self.root.path.join("index.json"));
        }
        progress.wait(SETTLE);
        if let Err(errno) = self.drop_dangling(left, report) {
            report.failures.push(Failure::new("check the index", self.root.path.join("index.json"), errno));
        }
    }

    fn drop_dangling(&self, left: Option<Status>, report: &PruneReport) -> Result<(), Errno> {
        let root = self.root.descriptor.as_fd();
        let is_as_left = match (left, index_status(root)?) {
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
        let stayed: HashSet<usize> = report.exceptions.iter().map(|(index, _)| *index).collect();
        let went = self.plan.blobs().enumerate().filter(|(index, (blob, fate))| {
            matches!(fate, Fate::Remove(_)) && self.plan.is_nested(blob) && !stayed.contains(index)
        });
        went.map(|(_, (blob, _))| &blob.digest).collect()
    }
}
