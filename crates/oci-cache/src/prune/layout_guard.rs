//! Keeps an OCI image layout valid while its blobs are removed.
//!
//! Guarantees: if the index changed since the scan, no blob of the layout goes: a pull is under way, and may count on
//! a blob that it only looked up. Otherwise the index loses the entries that lead to doomed blobs before the blobs
//! go. A pull that was not seen may write back entries that it had read earlier. If it does so within half a second
//! after the prune, the entries that lead to removed blobs are removed again.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cache::SETTLE;
use crate::cache::digest::Digest;
use crate::cache::inventory::Directory;
use crate::cache::names::index_path;
use crate::error::Failure;
use crate::os::errno_of;
use crate::os::status::Status;
use crate::plan::{IndexChange, PrunePlan};
use crate::progress::Progress;
use crate::prune::index_rewrite::{Changed, change_index};
use crate::prune::pulls::{Pulls, Sign};
use crate::prune::report::PruneReport;
use crate::scan::index::index_status;
use crate::scan::references::read_tree;
use crate::scan::tree::scan_tree;

/// How often to try to remove entries that a pull wrote back, while other pulls change the index.
const ATTEMPTS: usize = 16;

/// Whether blobs of a layout may be removed.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// They may: the index no longer leads to them.
    Ready(Option<LeftIndex>),
    /// A stop was requested.
    Stopped,
    /// A pull is under way: this shows it.
    PullUnderWay(Sign),
    /// The index could not be made ready.
    Failed(Failure),
}

/// The index as the prune left it; `None` if it had to be removed.
#[derive(Debug)]
pub(crate) struct LeftIndex(Option<Status>);

/// Guards a layout while a plan removes blobs from it.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    plan: &'a PrunePlan,
    root: &'a Directory,
}

impl<'a> Guard<'a> {
    /// The guard for the plan; `None` if it removes no blob of a layout and no entry of its index.
    pub(crate) fn of(plan: &'a PrunePlan) -> Option<Self> {
        let tree = &plan.inventory.tree;
        let is_layout = tree.oci_layout.is_some() || tree.index.is_some() || tree.index_unknown.is_some();
        let root = tree.directories.first()?;
        (is_layout && plan.needs_index()).then_some(Self { plan, root })
    }

    /// Makes the layout ready for the removal of its blobs: changes its index.
    pub(crate) fn prepare(&self, change: &IndexChange, pulls: &Pulls<'_>) -> Readiness {
        let fail = |errno| Readiness::Failed(Failure::new("rewrite the index", self.index_path(), errno));
        let tree = &self.plan.inventory.tree;
        let Some(index) = &tree.index else {
            // A link or a mount in place of the index may reference the blobs, and cannot be changed.
            let is_odd = tree.foreign.iter().any(|foreign| foreign.path == self.index_path());
            let odd = tree.index_unknown.or(is_odd.then_some(Errno::NOTSUP));
            return odd.map_or(Readiness::Ready(None), fail);
        };
        match pulls.while_changing_index(|| change_index(self.root.descriptor.as_fd(), index, change)) {
            Ok(Changed::To(status)) => Readiness::Ready(Some(LeftIndex(status))),
            Ok(Changed::NotTheOneSeen) => Readiness::PullUnderWay(Sign::Used(self.index_path())),
            Err(errno) => fail(errno),
        }
    }

    fn index_path(&self) -> PathBuf {
        index_path(&self.root.path)
    }

    /// Waits for half a second. Then removes the entries that lead to removed blobs, if a pull wrote such entries back
    /// into the index.
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
        for _ in 0..ATTEMPTS {
            if self.try_drop_dangling(left, report)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns false if another pull changed the index meanwhile.
    fn try_drop_dangling(&self, left: &LeftIndex, report: &PruneReport) -> Result<bool, Errno> {
        let root = self.root.descriptor.as_fd();
        let is_as_left = match (left.0, index_status(root)?) {
            (Some(left), Some(found)) => found.is_same_content(&left),
            (_, found) => found.is_none(),
        };
        if is_as_left {
            return Ok(true);
        }
        let removed = self.removed_digests(report);
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

    /// The digests of the layout's blobs that were removed.
    fn removed_digests(&self, report: &PruneReport) -> HashSet<&Digest> {
        let stayed: HashSet<usize> = report.notes.exceptions.iter().map(|(index, _)| *index).collect();
        let went = self.plan.blobs().enumerate().filter(|(index, (blob, fate))| {
            fate.goes() && self.plan.is_nested(blob) && !stayed.contains(index)
        });
        went.map(|(_, (blob, _))| &blob.digest).collect()
    }
}
