//! Measures how near a plan comes to its goals while it takes more and more.
//!
//! Guarantees: pure. What a file uses, and what it frees, counts when its last name goes: the last in the cache for what
//! the cache uses, the last of all for free space.

use crate::cache::cache_dir::Space;
use crate::cache::inventory::Blob;
use crate::cache::ledger::{DiskLedger, Tally, UsedLedger};
use crate::plan::PrunePlan;
use crate::plan::policy::Policy;

/// How near the goals are.
pub(crate) struct Meter {
    used: UsedLedger,
    disk: DiskLedger,
    available_bytes: u64,
    max_used_bytes: Option<u64>,
    min_free_bytes: Option<u64>,
}

impl Meter {
    /// The measure before anything that the plan decides on goes.
    pub(crate) fn of(plan: &PrunePlan, policy: &Policy, space: Space) -> Self {
        let used = plan
            .inventory
            .used(|index| !plan.blob_fates[index].is_past(), |index| !plan.partial_fates[index].is_past());
        let mut disk = DiskLedger::default();
        plan.leftovers().for_each(|leftover| leftover.count_into(&mut Tally::default(), &mut disk));
        Self {
            used,
            disk,
            available_bytes: space.available_bytes,
            max_used_bytes: policy.max_used.map(|used| used.bytes_of(space)),
            min_free_bytes: policy.min_free.map(|free| free.bytes_of(space)),
        }
    }

    fn is_used_met(&self) -> bool {
        self.max_used_bytes.is_none_or(|max| self.used.used_bytes() <= max)
    }

    fn is_free_met(&self) -> bool {
        let available_bytes = self.available_bytes.saturating_add(self.disk.freed_bytes());
        self.min_free_bytes.is_none_or(|min| available_bytes >= min)
    }

    /// Whether there are goals, and all are met.
    pub(crate) fn is_met(&self) -> bool {
        let has_goal = self.max_used_bytes.is_some() || self.min_free_bytes.is_some();
        has_goal && self.is_used_met() && self.is_free_met()
    }

    /// Takes blobs and partials away if that brings a goal nearer that is not met. Without goals, takes everything.
    pub(crate) fn take(&mut self, plan: &PrunePlan, blobs: &[usize], partials: &[usize]) -> bool {
        let blobs = || blobs.iter().map(|&index| &plan.inventory.tree.blobs[index]);
        let partials = || partials.iter().map(|&index| &plan.inventory.tree.partials[index]);
        let files = || partials().flat_map(|partial| &partial.files).map(|file| &file.status);
        let take = |meter: &mut Self| {
            for blob in blobs() {
                meter.used.remove_name(blob.inode, blob.links, blob.used_bytes());
                meter.disk.remove_name(blob.inode, blob.links, blob.freeable_bytes());
            }
            partials().for_each(|partial| partial.remove_from(&mut meter.used));
            files().for_each(|file| meter.disk.remove_name(file.id.inode, file.links, file.disk_bytes));
        };
        self.helps(take, |meter| {
            for blob in blobs() {
                meter.used.add_name(blob.inode, blob.links, blob.used_bytes());
                meter.disk.restore_name(blob.inode, blob.links, blob.freeable_bytes());
            }
            partials().for_each(|partial| partial.add_to(&mut meter.used));
            files().for_each(|file| meter.disk.restore_name(file.id.inode, file.links, file.disk_bytes));
        })
    }

    /// Whether one of the blobs may bring an unmet goal nearer, once whatever else needs it is gone too.
    pub(crate) fn could_help(&self, plan: &PrunePlan, blobs: &[usize]) -> bool {
        let blobs = || blobs.iter().map(|&index| &plan.inventory.tree.blobs[index]);
        let has_no_other_names =
            |blob: &Blob| blob.links <= 1 || self.used.names_of(blob.inode) >= blob.links;
        !self.is_used_met() && blobs().any(|blob| blob.used_bytes() > 0)
            || !self.is_free_met()
                && blobs().any(|blob| blob.freeable_bytes() > 0 && has_no_other_names(blob))
    }

    /// Takes something away, and puts it back if that does not help.
    fn helps(&mut self, take: impl FnOnce(&mut Self), put_back: impl FnOnce(&mut Self)) -> bool {
        let (is_used_met, is_free_met) = (self.is_used_met(), self.is_free_met());
        let (used_bytes, freed_bytes) = (self.used.used_bytes(), self.disk.freed_bytes());
        take(self);
        let has_no_goal = self.max_used_bytes.is_none() && self.min_free_bytes.is_none();
        let helps = has_no_goal
            || !is_used_met && self.used.used_bytes() < used_bytes
            || !is_free_met && self.disk.freed_bytes() > freed_bytes;
        if !helps {
            put_back(self);
        }
        helps
    }
}
