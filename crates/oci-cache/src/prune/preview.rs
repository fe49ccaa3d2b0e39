//! What a plan would do, as a report: the dry run, and where every prune starts from.

use std::collections::HashMap;

use crate::cache::ledger::{DiskLedger, Tally};
use crate::error::Failure;
use crate::plan::PrunePlan;
use crate::plan::fate::{Fate, Keep};
use crate::prune::report::{Kept, Outcome, PruneReport};

impl PrunePlan {
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
