//! What went before the prune looks for pulls, and what was seen meanwhile.
//!
//! Guarantees: changes nothing. [`crate::prune::certain`] says what goes then.

use std::os::fd::AsFd as _;

use crate::cache::inventory::Tree;
use crate::os::status::{Status, Timestamp};
use crate::os::watch::Watch;
use crate::prune::removed::Removal;
use crate::prune::report::PruneReport;
use crate::prune::sign::Sign;

/// What went before the look for pulls, and what was seen meanwhile. By default, nothing.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// For each blob of the inventory, whether its outcome is known; empty if no blob was to go early.
    pub(crate) is_settled: Vec<bool>,
    pub(crate) removal: Removal,
    /// Watches for what others create, up to the look.
    pub(crate) watch: Option<Watch>,
    /// The first sign of a pull, but for those of the watch.
    pub(crate) sign: Option<Sign>,
}

impl Early {
    /// Whether the outcome of the blob at this index is known.
    pub(crate) fn has_settled(&self, index: usize) -> bool {
        self.is_settled.get(index) == Some(&true)
    }

    /// For each blob of the inventory, whether it is gone; empty if no blob was to go early.
    pub(crate) fn gone(&self) -> Vec<bool> {
        let mut gone = self.is_settled.clone();
        for (index, _) in &self.removal.exceptions {
            gone[*index] = false;
        }
        gone
    }

    /// When each directory of the tree was last changed, as far as this prune changed it or the scan saw it.
    pub(crate) fn modified(&self, tree: &Tree) -> Vec<Timestamp> {
        let mut modified = scanned(tree);
        if !self.is_settled.is_empty() {
            for (modified, directory) in modified.iter_mut().zip(&tree.directories) {
                let now = Status::of_descriptor(directory.descriptor.as_fd());
                *modified = now.map_or(*modified, |status| status.modified);
            }
        }
        modified
    }

    /// Adds what went to the report of the rest.
    pub(crate) fn count_into(mut self, report: &mut PruneReport) {
        report.notes.exceptions.append(&mut self.removal.exceptions);
        report.notes.exceptions.sort_unstable_by_key(|(index, _)| *index);
        self.removal.count_into(report);
    }
}

/// When each directory was last changed before the scan.
pub(crate) fn scanned(tree: &Tree) -> Vec<Timestamp> {
    tree.directories.iter().map(|directory| directory.status.modified).collect()
}

/// The sign that a directory changed since these times.
pub(crate) fn changed_directory(tree: &Tree, since: &[Timestamp]) -> Option<Sign> {
    let mut directories = tree.directories.iter().zip(since);
    let changed = directories.find(|(directory, since)| {
        Status::of_descriptor(directory.descriptor.as_fd()).is_ok_and(|status| status.modified != **since)
    });
    changed.map(|(directory, _)| Sign::Changed(directory.path.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fate::Keep;
    use crate::prune::report::Outcome;

    #[test]
    fn exceptions_are_in_order_whenever_they_were_found() {
        let kept = |index| (index, Outcome::Kept(Keep::InUse));
        let removal = Removal { exceptions: vec![kept(1)], ..Removal::default() };
        let early = Early { is_settled: vec![false, true], removal, ..Early::default() };
        let mut report = PruneReport::default();
        report.notes.exceptions = vec![kept(0), kept(2)];
        early.count_into(&mut report);
        assert_eq!(report.notes.exceptions, [0, 1, 2].map(kept));
    }
}
