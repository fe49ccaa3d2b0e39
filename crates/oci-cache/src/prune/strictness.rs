//! What a strict prune keeps, as far as a dry run can tell.
//!
//! Guarantees: no blob is opened, and nothing is changed. What is foreseen to stay would stay, unless owners and limits
//! change meanwhile.
//!
//! What it does not guarantee: that everything else goes. Whether a file system grants leases shows only once one is
//! taken.

use std::collections::HashSet;
use std::os::fd::AsFd as _;

use crate::cache::inventory::Tree;
use crate::cache::names;
use crate::cache::partial::Partial;
use crate::os::lease::is_refused_for;
use crate::os::status::Status;
use crate::os::watch::Watch;
use crate::plan::PrunePlan;
use crate::plan::fate::Keep;
use crate::prune::spare::{Idle, Spared};

/// What stays of what a strict plan removes.
#[derive(Debug)]
pub(crate) struct Strictness<'a> {
    idle: Idle<'a>,
    unprobed: HashSet<usize>,
    /// Whether it could not be watched who opens files, so that a pull would count as under way.
    pub(crate) is_unwatched: bool,
    pub(crate) spared: Spared,
}

impl<'a> Strictness<'a> {
    /// Looks at the owners of what the plan removes; `None` if the plan is not strict.
    pub(crate) fn of(plan: &'a PrunePlan) -> Option<Self> {
        if !plan.strict {
            return None;
        }
        let tree = &plan.inventory.tree;
        let doomed = plan.blob_fates.iter().enumerate().filter(|(_, fate)| fate.goes());
        let unprobed: HashSet<usize> =
            doomed.map(|(index, _)| index).filter(|&index| is_blob_refused(tree, index)).collect();
        let directories = tree.directories.iter().map(|directory| directory.descriptor.as_fd());
        let is_unwatched = Watch::start(directories, names::is_own_temporary).is_none();
        let mut idle = Idle::of(plan);
        idle.read_references();
        let spared = idle.spare(|index| unprobed.contains(&index) || is_unwatched && idle.is_spared(index));
        Some(Self { idle, unprobed, is_unwatched, spared })
    }

    /// Why the blob of this index would stay, if the plan removes it.
    pub(crate) fn keeps(&self, index: usize) -> Option<Keep> {
        let is_known = self.is_unwatched && !self.unprobed.contains(&index);
        let reason = if is_known { Keep::Spared } else { Keep::Unprobed };
        (!self.spared.goes[index]).then_some(reason)
    }

    /// Why the partial would stay, if the plan removes it.
    pub(crate) fn keeps_partial(&self, partial: &Partial) -> Option<Keep> {
        let is_refused = || partial.files.iter().any(|file| is_refused_for(file.status.owner));
        if self.is_unwatched && self.idle.is_partial_spared(partial) {
            Some(Keep::Spared)
        } else {
            is_refused().then_some(Keep::Unprobed)
        }
    }
}

fn is_blob_refused(tree: &Tree, index: usize) -> bool {
    let (directory, name) = tree.place_of(&tree.blobs[index]);
    Status::of_entry(directory, name.as_c_str()).is_ok_and(|status| is_refused_for(status.owner))
}
