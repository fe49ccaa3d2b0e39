//! The plan: decides for each entry whether it is removed or kept, and why.
//!
//! Takes an [`Inventory`], and a policy or a saved plan; gives a [`PrunePlan`].
//!
//! Guarantees: the plan covers every entry of its inventory, and its decisions never change once made. Applying it
//! removes only what it says. A dry run shows this plan.

pub(crate) mod amount;
mod candidate;
pub(crate) mod fate;
pub(crate) mod foresight;
pub(crate) mod goal;
pub(crate) mod keep_list;
mod meter;
pub(crate) mod pins;
pub(crate) mod plan_reader;
pub(crate) mod policy;
mod saved_entry;
pub(crate) mod saved_plan;
pub(crate) mod select;
pub(crate) mod settled;
mod take;

use std::path::PathBuf;
use std::time::Duration;

use crate::cache::cache_dir::Space;
use crate::cache::inventory::{Blob, Inventory};
use crate::cache::ledger::Tally;
use crate::cache::leftover::Leftover;
use crate::cache::lock::Lock;
use crate::cache::names::{Place, index_path};
use crate::cache::partial::Partial;
use crate::cache::references::Image;
use crate::error::{Error, Failures};
use crate::os::status::Timestamp;
use crate::plan::fate::{Fate, Keep};
use crate::plan::pins::Unmatched;
use crate::plan::policy::{DEFAULT_GRACE, Policy};

/// The fate of each entry of an inventory.
#[derive(Debug)]
pub struct PrunePlan {
    pub(crate) inventory: Inventory,
    pub(crate) planned_at: Timestamp,
    pub(crate) blob_fates: Vec<Fate>,
    pub(crate) partial_fates: Vec<Fate>,
    pub(crate) leftovers_go: Vec<bool>,
    pub(crate) index_change: IndexChange,
    /// Whether unknown references affect the plan, so that its report must list them.
    pub(crate) needs_all_references: bool,
    /// The space on the file system when the plan was made.
    pub(crate) space: Space,
    /// The policy that the plan was made for, if it has a goal: further rounds keep to it.
    pub(crate) goal: Option<Policy>,
    /// For how long an entry must certainly have been idle to be removed while a pull is under way.
    pub(crate) grace: Duration,
    /// Whether nothing is removed on trust; see [`Policy::strict`].
    pub(crate) strict: bool,
    /// Whether to watch the cache for the grace before anything is removed.
    pub(crate) watch_first: bool,
    /// Whether what stays is to be armed: made to record its next read.
    pub(crate) arms: bool,
    /// What was to go, but is known not to be removable: it stays.
    pub(crate) foreseen: Failures,
    /// Pins of the policy that match nothing.
    pub(crate) unmatched: Unmatched,
    /// Entries of a saved plan that no longer exist.
    pub(crate) missing: Tally,
}

/// The change of an OCI image layout's index before blobs are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexChange {
    /// Remove all entries.
    Empty,
    /// Remove the entries at these positions, in ascending order; an empty list changes nothing.
    Drop(Vec<usize>),
}

impl IndexChange {
    /// Whether it removes certain entries.
    pub(crate) fn drops_entries(&self) -> bool {
        matches!(self, Self::Drop(positions) if !positions.is_empty())
    }
}

impl PrunePlan {
    /// A plan that keeps every entry.
    pub(crate) fn keeping(inventory: Inventory, now: Timestamp, reason: Keep) -> Self {
        Self {
            planned_at: now,
            blob_fates: vec![Fate::Keep(reason); inventory.tree.blobs.len()],
            partial_fates: vec![Fate::Keep(reason); inventory.tree.partials.len()],
            leftovers_go: vec![false; inventory.leftovers.len()],
            index_change: IndexChange::Drop(Vec::new()),
            foreseen: Failures::default(),
            unmatched: Unmatched::default(),
            missing: Tally::default(),
            needs_all_references: true,
            space: Space::default(),
            goal: None,
            grace: DEFAULT_GRACE,
            strict: false,
            watch_first: false,
            arms: false,
            inventory,
        }
    }

    /// This plan, made to watch first or not; see [`Policy::watch_first`].
    #[must_use]
    pub fn watching_first(mut self, watch_first: bool) -> Self {
        self.watch_first = watch_first;
        self
    }

    /// Checks that the lock is on the plan's directory.
    pub(crate) fn check_lock(&self, lock: &Lock) -> Result<(), Error> {
        let id = self.inventory.tree.directories.first().map(|root| root.status.id);
        if lock.is_on(id, &self.inventory.path) {
            Ok(())
        } else {
            Err(Error::OtherLock { path: self.inventory.path.clone() })
        }
    }

    /// The inventory that the plan was made for.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Returns the inventory, for use in another plan.
    #[must_use]
    pub fn into_inventory(self) -> Inventory {
        self.inventory
    }

    /// Each blob and its fate.
    pub fn blobs(&self) -> impl Iterator<Item = (&Blob, Fate)> {
        self.inventory.tree.blobs.iter().zip(self.blob_fates.iter().copied())
    }

    /// Each partial and its fate.
    pub fn partials(&self) -> impl Iterator<Item = (&Partial, Fate)> {
        self.inventory.tree.partials.iter().zip(self.partial_fates.iter().copied())
    }

    /// Each leftover that will be removed.
    pub fn leftovers(&self) -> impl Iterator<Item = &Leftover> {
        let leftovers = self.inventory.leftovers.iter().zip(&self.leftovers_go);
        leftovers.filter(|(_, goes)| **goes).map(|(leftover, _)| leftover)
    }

    /// The number of blobs last used after the plan was made, by their timestamps. They count as just
    /// used.
    #[must_use]
    pub fn from_the_future(&self) -> usize {
        self.inventory.tree.blobs.iter().filter(|blob| blob.last_used() > self.planned_at).count()
    }

    /// How many entries leave the layout's index, and where it is; none if it stays as it is. Of a prune of
    /// everything the number is not known.
    pub(crate) fn index_change(&self, change: &IndexChange) -> Option<(PathBuf, Option<usize>)> {
        let root = self.inventory.tree.directories.first()?;
        self.inventory.tree.index.as_ref()?;
        let entries = match change {
            IndexChange::Empty => None,
            IndexChange::Drop(positions) if positions.is_empty() => return None,
            IndexChange::Drop(positions) => Some(positions.len()),
        };
        self.needs_index().then(|| (index_path(&root.path), entries))
    }

    /// Whether it removes neither a blob nor a partial nor an entry of the index.
    pub(crate) fn removes_nothing(&self) -> bool {
        !self.blob_fates.iter().chain(&self.partial_fates).any(|fate| fate.goes())
            && !self.index_change.drops_entries()
    }

    /// The positions of the index entries that reference a blob to be removed.
    pub(crate) fn entries_without_their_blobs(&self) -> IndexChange {
        IndexChange::Drop(self.images_that_go().map(|image| image.position).collect())
    }

    /// Also drops the index entries of these images, but for those of which a blob cannot be removed.
    pub(crate) fn drop_entries(&mut self, images: Vec<usize>) {
        if let IndexChange::Drop(positions) = &mut self.index_change {
            let all = images.into_iter().map(|index| &self.inventory.references.images[index]);
            let cannot_go =
                |image: &&Image| image.blobs.iter().any(|&blob| self.blob_fates[blob] == Fate::Failed);
            positions.extend(all.filter(|image| !cannot_go(image)).map(|image| image.position));
            positions.sort_unstable();
            positions.dedup();
        }
    }

    /// The images that reference a blob to be removed.
    pub(crate) fn images_that_go(&self) -> impl Iterator<Item = &Image> {
        let goes = |blob: &usize| self.blob_fates[*blob].goes();
        self.inventory.references.images.iter().filter(move |image| image.blobs.iter().any(goes))
    }

    /// Whether it spares more than what is in use while a pull is under way; see [`Policy::grace`].
    #[must_use]
    pub const fn has_grace(&self) -> bool {
        !self.grace.is_zero()
    }

    /// Whether it was made to remove everything: without a filter, a goal or a list.
    #[must_use]
    pub fn was_for_everything(&self) -> bool {
        self.index_change == IndexChange::Empty
    }

    /// Keeps each blob and its companions together: if one of them stays, all of them stay.
    fn tie_units(&mut self) {
        for unit in self.inventory.tree.companions.units() {
            let stays = unit.clone().map(|index| self.blob_fates[index]).find(|fate| !fate.goes());
            if let Some(stays) = stays {
                unit.for_each(|index| self.blob_fates[index] = stays);
            }
        }
    }

    /// Whether every blob and partial will be removed.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.blob_fates.iter().chain(&self.partial_fates).all(|fate| fate.goes())
    }

    /// The number of blobs to be removed, and their logical size.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for (blob, _) in self.blobs().filter(|(_, fate)| fate.goes()) {
            total.add(blob.size_bytes);
        }
        total
    }

    /// The number of files that a prune removes with the blobs and leftovers, and their logical size.
    pub(crate) fn work(&self) -> Tally {
        let mut work = self.total();
        self.leftovers().for_each(|leftover| work += leftover.total());
        work
    }

    /// Whether the layout's index must change first: blobs that it may lead to go, or entries of it.
    pub(crate) fn needs_index(&self) -> bool {
        self.removes_nested_blobs() || self.index_change.drops_entries()
    }

    /// Whether a blob of an OCI image layout or nested cache will be removed.
    pub(crate) fn removes_nested_blobs(&self) -> bool {
        self.blobs().any(|(blob, fate)| fate.goes() && self.is_nested(blob))
    }

    pub(crate) fn is_nested(&self, blob: &Blob) -> bool {
        self.inventory.tree.directory(blob.directory).place != Place::Root
    }
}
