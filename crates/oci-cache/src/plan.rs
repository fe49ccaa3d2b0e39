//! The plan: for each entry, whether it goes or stays, and why.
//!
//! Guarantees: the plan says something of every entry of its inventory; it is never changed after it
//! was made; carrying it out removes what it says and nothing else. The dry run is this plan, rendered.

use crate::inventory::{Blob, Inventory};
use crate::ledger::{DiskLedger, Tally};
use crate::names::Place;
use crate::partial::Partial;
use crate::report::{Failure, Kept, PruneReport};
use crate::status::Timestamp;

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
}

impl Keep {
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
}

impl PrunePlan {
    /// What the plan is about.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Each blob and its fate.
    pub fn blobs(&self) -> impl Iterator<Item = (&Blob, Fate)> {
        self.inventory.tree.blobs.iter().zip(self.blob_fates.iter().copied())
    }

    /// Each partial and its fate.
    pub fn partials(&self) -> impl Iterator<Item = (&Partial, Fate)> {
        self.inventory.tree.partials.iter().zip(self.partial_fates.iter().copied())
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
        let is_nested = |blob: &Blob| self.inventory.tree.directory(blob.directory).place != Place::Root;
        self.blobs().any(|(blob, fate)| matches!(fate, Fate::Remove(_)) && is_nested(blob))
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
        PruneReport {
            cache_dir: self.inventory.path.clone(),
            kept,
            foreign: self.inventory.tree.foreign.len() as u64,
            failures: self.inventory.tree.failures.iter().map(Failure::duplicate).collect(),
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
        for leftover in &self.inventory.leftovers {
            leftover.count_into(&mut freed, &mut disk);
            report.leftovers_freed += leftover.removable();
            report.foreign_in_leftovers.extend_from_slice(leftover.foreign());
        }
        PruneReport {
            dry_run: true,
            bytes_freed: freed.bytes,
            blobs_freed: freed.blobs,
            disk_bytes_freed: disk.freed_bytes(),
            ..report
        }
    }
}
