//! The plan: for each entry, whether it goes or stays, and why.
//!
//! Guarantees: the plan says something of every entry of its inventory; it is never changed after it
//! was made; carrying it out removes what it says and nothing else. The dry run is this plan, rendered.

pub(crate) mod fate;
pub(crate) mod keep_list;
pub(crate) mod policy;
pub(crate) mod saved_plan;
pub(crate) mod select;

use std::path::PathBuf;

use crate::cache::inventory::{Blob, Inventory};
use crate::cache::ledger::Tally;
use crate::cache::leftover::Leftover;
use crate::cache::names::Place;
use crate::cache::partial::Partial;
use crate::cache::references::{Image, References};
use crate::os::status::Timestamp;
use crate::plan::fate::{Fate, Keep};

/// What is to become of each entry of an inventory.
#[derive(Debug)]
pub struct PrunePlan {
    pub(crate) inventory: Inventory,
    pub(crate) planned_at: Timestamp,
    pub(crate) blob_fates: Vec<Fate>,
    pub(crate) partial_fates: Vec<Fate>,
    pub(crate) leftovers_go: Vec<bool>,
    pub(crate) references: References,
    pub(crate) index_change: IndexChange,
    /// What a saved plan lists and is not there any more.
    pub(crate) missing: Tally,
}

/// What is to become of an OCI image layout's index before blobs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexChange {
    /// All its entries go.
    Empty,
    /// The entries at these positions go, in ascending order; none, if there are none.
    Drop(Vec<usize>),
}

impl PrunePlan {
    /// A plan by which every entry stays.
    pub(crate) fn keeping(
        inventory: Inventory,
        references: References,
        now: Timestamp,
        reason: Keep,
    ) -> Self {
        Self {
            planned_at: now,
            blob_fates: vec![Fate::Keep(reason); inventory.tree.blobs.len()],
            partial_fates: vec![Fate::Keep(reason); inventory.tree.partials.len()],
            leftovers_go: vec![false; inventory.leftovers.len()],
            index_change: IndexChange::Drop(Vec::new()),
            missing: Tally::default(),
            inventory,
            references,
        }
    }

    /// What the plan is about.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Gives the inventory and the references back, for another plan.
    #[must_use]
    pub fn into_parts(self) -> (Inventory, References) {
        (self.inventory, self.references)
    }

    /// Each blob and its fate.
    pub fn blobs(&self) -> impl Iterator<Item = (&Blob, Fate)> {
        self.inventory.tree.blobs.iter().zip(self.blob_fates.iter().copied())
    }

    /// Each partial and its fate.
    pub fn partials(&self) -> impl Iterator<Item = (&Partial, Fate)> {
        self.inventory.tree.partials.iter().zip(self.partial_fates.iter().copied())
    }

    /// Each leftover that goes.
    pub fn leftovers(&self) -> impl Iterator<Item = &Leftover> {
        let leftovers = self.inventory.leftovers.iter().zip(&self.leftovers_go);
        leftovers.filter(|(_, goes)| **goes).map(|(leftover, _)| leftover)
    }

    /// What the layout's index leads to, as far as the plan wanted to know.
    #[must_use]
    pub const fn references(&self) -> &References {
        &self.references
    }

    /// How many blobs have a time of last use that lies ahead of the plan's own; they count as just used.
    #[must_use]
    pub fn from_the_future(&self) -> usize {
        self.inventory.tree.blobs.iter().filter(|blob| blob.last_used() > self.planned_at).count()
    }

    /// How many entries leave the layout's index, and where it is; none if it stays as it is. Of a prune of
    /// everything the number is not known.
    pub(crate) fn index_change(&self) -> Option<(PathBuf, Option<usize>)> {
        let root = self.inventory.tree.directories.first()?;
        self.inventory.tree.index.as_ref()?;
        let entries = match &self.index_change {
            IndexChange::Empty => None,
            IndexChange::Drop(positions) if positions.is_empty() => return None,
            IndexChange::Drop(positions) => Some(positions.len()),
        };
        self.removes_nested_blobs().then(|| (root.path.join("index.json"), entries))
    }

    /// The positions of the index's entries that lead to a blob that goes.
    pub(crate) fn entries_without_their_blobs(&self) -> IndexChange {
        IndexChange::Drop(self.images_that_go().map(|image| image.position).collect())
    }

    /// The digests of the images that lose a blob.
    pub(crate) fn doomed_images(&self) -> Vec<String> {
        self.images_that_go().map(|image| image.digest.to_string()).collect()
    }

    fn images_that_go(&self) -> impl Iterator<Item = &Image> {
        let goes = |blob: &usize| matches!(self.blob_fates[*blob], Fate::Remove(_));
        self.references.images.iter().filter(move |image| image.blobs.iter().any(goes))
    }

    /// Whether every entry goes.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.blob_fates.iter().chain(&self.partial_fates).all(|fate| matches!(fate, Fate::Remove(_)))
    }

    /// How many blobs go, and their logical size.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for (blob, _) in self.blobs().filter(|(_, fate)| matches!(fate, Fate::Remove(_))) {
            total.add(blob.size_bytes);
        }
        total
    }

    /// Whether a blob of an OCI image layout or nested cache goes.
    pub(crate) fn removes_nested_blobs(&self) -> bool {
        self.blobs().any(|(blob, fate)| matches!(fate, Fate::Remove(_)) && self.is_nested(blob))
    }

    pub(crate) fn is_nested(&self, blob: &Blob) -> bool {
        self.inventory.tree.directory(blob.directory).place != Place::Root
    }
}
