//! The plan: for each entry, whether it goes or stays, and why.
//!
//! Guarantees: the plan says something of every entry of its inventory; it is never changed after it
//! was made; carrying it out removes what it says and nothing else. The dry run is this plan, rendered.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::cache::inventory::{Blob, Inventory};
use crate::cache::ledger::{DiskLedger, Tally};
use crate::cache::leftover::Leftover;
use crate::cache::names::Place;
use crate::cache::partial::Partial;
use crate::cache::references::{Image, References};
use crate::error::Failure;
use crate::os::status::Timestamp;
use crate::report::{Kept, Outcome, PruneReport};

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes.
    Remove(Remove),
    /// It stays.
    Keep(Keep),
}

/// Why an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remove {
    /// Everything goes.
    Everything,
    /// It was not used for long enough.
    Old,
    /// The layout's index does not lead to it.
    Unreferenced,
    /// The cache is over its budget.
    OverBudget,
    /// The file system has too little room.
    LowSpace,
    /// Its content does not hash to its name.
    Corrupt,
    /// The saved plan lists it.
    Listed,
}

impl Remove {
    /// The reason in words.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Everything => "everything goes",
            Self::Old => "not used for long enough",
            Self::Unreferenced => "unreferenced",
            Self::OverBudget => "over the budget",
            Self::LowSpace => "space is low",
            Self::Corrupt => "corrupt",
            Self::Listed => "listed in the plan",
        }
    }
}

/// Why an entry stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A process has it open, or a pull that is under way may count on it.
    InUse,
    /// It was used too recently.
    Recent,
    /// The layout's index leads to it.
    Referenced,
    /// It was named to be kept.
    Pinned,
    /// The goal is met without it.
    GoalMet,
    /// It is not what it was when the plan was made.
    Changed,
    /// The saved plan does not list it.
    Unlisted,
    /// It is not corrupt, and only what is corrupt goes.
    Intact,
    /// It could not be read, or its turn did not come, and only what is corrupt goes.
    Unread,
}

impl Keep {
    /// The reason as it is named in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Recent => "recent",
            Self::Referenced => "referenced",
            Self::Pinned => "pinned",
            Self::GoalMet => "goal_met",
            Self::Changed => "changed",
            Self::Unlisted => "unlisted",
            Self::Intact => "intact",
            Self::Unread => "unread",
        }
    }

    /// The reason in words.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::InUse => "in use",
            Self::Recent => "used recently",
            Self::Referenced => "referenced",
            Self::Pinned => "pinned",
            Self::GoalMet => "goal met",
            Self::Changed => "changed since the plan was made",
            Self::Unlisted => "not in the plan",
            Self::Intact => "not corrupt",
            Self::Unread => "not read, so not known to be corrupt",
        }
    }
}

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

    /// What could not go, by inode number, and why: what a prune of this plan reported as kept.
    #[must_use]
    pub fn held(&self, report: &PruneReport) -> HashMap<u64, Keep> {
        let tree = &self.inventory.tree;
        let blobs = report.exceptions.iter().map(|(index, outcome)| (tree.blobs[*index].inode, *outcome));
        let partials = tree.partials.iter().map(|partial| partial.status.id.inode);
        let goes = |fate: &Fate| matches!(fate, Fate::Remove(_));
        let partials = partials.zip(report.partials.iter().copied()).zip(&self.partial_fates);
        let partials = partials.filter(|(_, fate)| goes(fate)).map(|(partial, _)| partial);
        let held = blobs.chain(partials).filter_map(|(inode, outcome)| match outcome {
            Outcome::Kept(reason) => Some((inode, reason)),
            _ => None,
        });
        held.collect()
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

    /// The report as it stands before anything is done: what stays by plan, what is foreign, and what
    /// could not be inspected.
    pub(crate) fn report_of_kept(&self) -> PruneReport {
        let mut kept = Kept::default();
        let kept_blobs = self.blobs().map(|(blob, fate)| (blob.size_bytes, fate));
        let kept_partials = self.partials().map(|(partial, fate)| (partial.size_bytes(), fate));
        for (size_bytes, fate) in kept_blobs.chain(kept_partials) {
            if let Fate::Keep(reason) = fate {
                kept.add(reason, size_bytes);
            }
        }
        kept.changed += self.missing;
        let failures = self.inventory.tree.failures.iter().chain(&self.references.problems);
        PruneReport {
            cache_dir: self.inventory.path.clone(),
            kept,
            foreign: self.inventory.tree.foreign.len() as u64,
            failures: failures.map(Failure::duplicate).collect(),
            ..PruneReport::default()
        }
    }

    /// What carrying out the plan would do, on a cache that nobody uses: the dry run.
    #[must_use]
    pub fn preview(&self) -> PruneReport {
        let mut report = self.report_of_kept();
        let (mut freed, mut disk) = (Tally::default(), DiskLedger::default());
        let goes = |fate| matches!(fate, Fate::Remove(_));
        for (partial, _) in self.partials().filter(|(_, fate)| goes(*fate)) {
            partial.count_into(&mut freed, &mut disk);
        }
        report.partials_freed = freed.blobs;
        for (blob, _) in self.blobs().filter(|(_, fate)| goes(*fate)) {
            freed.add(blob.size_bytes);
            disk.remove_name(blob.inode, blob.links, blob.disk_bytes);
        }
        for leftover in self.leftovers() {
            leftover.count_into(&mut freed, &mut disk);
            report.leftovers_freed += u64::from(leftover.foreign().is_empty());
            report.foreign += leftover.foreign().len() as u64;
            report.foreign_in_leftovers.extend_from_slice(leftover.foreign());
        }
        PruneReport {
            dry_run: true,
            bytes_freed: freed.bytes,
            blobs_freed: freed.blobs,
            disk_bytes_freed: disk.freed_bytes(),
            index_changed: self.index_change(),
            ..report
        }
    }
}
