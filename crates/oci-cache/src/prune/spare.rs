//! The rule for pulls under way: decides what is spared.
//!
//! Guarantees: while a pull is under way, only entries go that are not in use and have certainly been idle for the
//! grace. In a layout, an image stays as a whole if any blob of it is spared, and so does an entry of the index whose
//! manifest is not there. A blob and its companions stay together. Pure, except that it reads the references if the plan
//! did not need them.

use std::time::Duration;

use crate::cache::inventory::{Blob, Inventory};
use crate::cache::names::Place;
use crate::cache::partial::Partial;
use crate::cache::references::References;
use crate::os::status::Timestamp;
use crate::plan::{IndexChange, PrunePlan};
use crate::scan::references::read_tree;

/// If everything to be removed has certainly been idle for this long, the prune does not look for pulls: an ordinary
/// pull is shorter.
pub(crate) const LOOK_FOR: Duration = Duration::from_secs(3600);

/// How idle the entries of a plan have certainly been.
#[derive(Debug)]
pub(crate) struct Idle<'a> {
    plan: &'a PrunePlan,
    /// What the layout's index leads to, if the plan did not need to know.
    read: Option<References>,
    /// Whether the cache was watched for the grace.
    was_watched: bool,
    /// Whether any blob may be in use, however long it has been idle.
    doubts_all: bool,
}

/// What goes and what stays: while a pull is under way, or because it cannot be probed.
#[derive(Debug)]
pub(crate) struct Spared {
    /// For each blob of the inventory, whether it goes.
    pub(crate) goes: Vec<bool>,
    /// The change of the layout's index.
    pub(crate) index_change: IndexChange,
}

/// Whether the blob has certainly been idle for this long.
fn is_idle_for(inventory: &Inventory, blob: &Blob, now: Timestamp, age: Duration) -> bool {
    inventory.idleness.since(blob.times(), now) <= now.before(age)
}

/// Whether none of the partial's times lies within this age. Whatever changes a partial moves one of them.
fn is_partial_idle_for(partial: &Partial, now: Timestamp, age: Duration) -> bool {
    partial.last_used() <= now.before(age)
}

impl<'a> Idle<'a> {
    pub(crate) const fn of(plan: &'a PrunePlan) -> Self {
        Self { plan, read: None, was_watched: false, doubts_all: false }
    }

    /// Reads the references, if the plan did not need them. This opens manifests, so it comes before any watch.
    pub(crate) fn read_references(&mut self) {
        if !self.plan.inventory.references.is_read {
            self.read = Some(read_tree(&self.plan.inventory.tree));
        }
    }

    /// Notes whether the cache was watched for the grace. Then a blob that nobody was seen to use was idle for so long.
    pub(crate) const fn note_watch(&mut self, was_watched: bool) {
        self.was_watched = was_watched;
    }

    /// Whether a blob that the plan removes has not certainly been idle for the grace.
    pub(crate) fn spares_any(&self) -> bool {
        let fates = self.plan.blob_fates.iter().enumerate();
        fates.filter(|(_, fate)| fate.goes()).any(|(index, _)| self.is_spared(index))
    }

    /// What the layout's index leads to.
    pub(crate) fn references(&self) -> &References {
        self.read.as_ref().unwrap_or(&self.plan.inventory.references)
    }

    /// Whether the plan removes nothing on trust.
    pub(crate) const fn is_strict(&self) -> bool {
        self.plan.strict
    }

    /// Whether the plan removes anything that has not certainly been idle for an hour, or for the grace if that is
    /// longer.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let plan = self.plan;
        let blobs = plan.blob_fates.iter().enumerate().filter(|(_, fate)| fate.goes());
        let mut blobs = blobs.map(|(index, _)| index);
        let mut partials = plan.partials().filter(|(_, fate)| fate.goes());
        blobs.any(|index| self.may_be_in_use(index))
            || partials.any(|(partial, _)| self.partial_may_be_in_use(partial))
    }

    /// Whether the blob has not certainly been idle for an hour, or for the grace if that is longer.
    pub(crate) fn may_be_in_use(&self, index: usize) -> bool {
        self.doubts_all || !self.is_idle_for(index, self.plan.grace.max(LOOK_FOR))
    }

    /// From now on, any blob may be in use, however long it has been idle.
    pub(crate) const fn doubt_all(&mut self) {
        self.doubts_all = true;
    }

    fn partial_may_be_in_use(&self, partial: &Partial) -> bool {
        self.doubts_all || !is_partial_idle_for(partial, self.plan.planned_at, self.plan.grace.max(LOOK_FOR))
    }

    /// Whether the blob has not certainly been idle for the grace, so that it stays while a pull is under way. What the
    /// watch saw used must be asked for besides.
    pub(crate) fn is_spared(&self, index: usize) -> bool {
        // A file may be used by another of its names, which the watch does not see.
        let was_watched = self.was_watched && self.plan.inventory.tree.blobs[index].links == 1;
        !was_watched && !self.is_idle_for(index, self.plan.grace)
    }

    /// Whether the partial stays while a pull is under way.
    pub(crate) fn is_partial_spared(&self, partial: &Partial) -> bool {
        !is_partial_idle_for(partial, self.plan.planned_at, self.plan.grace)
    }

    fn is_idle_for(&self, index: usize, age: Duration) -> bool {
        is_idle_for(&self.plan.inventory, &self.plan.inventory.tree.blobs[index], self.plan.planned_at, age)
    }

    /// Splits what the plan removes into what goes and what stays: the blobs for which `stays` holds, and what belongs to
    /// them.
    pub(crate) fn spare(&self, stays: impl Fn(usize) -> bool) -> Spared {
        let plan = self.plan;
        let tree = &plan.inventory.tree;
        let mut goes: Vec<bool> = plan.blob_fates.iter().map(|fate| fate.goes()).collect();
        let planned = goes.clone();
        for (index, goes) in goes.iter_mut().enumerate().filter(|(_, goes)| **goes) {
            *goes = !stays(index);
        }
        let references = self.references();
        // If some references are unknown, an image may lead to any blob of the layout.
        if !references.is_complete() {
            for (blob, goes) in tree.blobs.iter().zip(&mut goes) {
                *goes &= tree.directory(blob.directory).place == Place::Root;
            }
        }
        let stays: Vec<bool> = planned.iter().zip(&goes).map(|(planned, goes)| *planned && !goes).collect();
        for unit in tree.companions.units() {
            if unit.clone().any(|index| !goes[index]) {
                unit.for_each(|index| goes[index] = false);
            }
        }
        for image in &references.images {
            if image.blobs.iter().any(|&blob| stays[blob]) {
                image.blobs.iter().for_each(|&blob| goes[blob] = false);
            }
        }
        let loses_a_blob =
            references.images.iter().filter(|image| image.blobs.iter().any(|&blob| goes[blob]));
        let index_change = IndexChange::Drop(loses_a_blob.map(|image| image.position).collect());
        let is_empty = planned == goes && plan.index_change == IndexChange::Empty;
        Spared { index_change: if is_empty { IndexChange::Empty } else { index_change }, goes }
    }
}
