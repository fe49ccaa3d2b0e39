//! Reports what a plan would do: the dry run, and the initial report of every prune.

use crate::cache::ledger::{DiskLedger, Tally};
use crate::error::Failure;
use crate::plan::PrunePlan;
use crate::plan::fate::Fate;
use crate::prune::report::{Kept, PruneReport};

impl PrunePlan {
    /// The report before anything is done: entries that the plan keeps, foreign entries, and entries
    /// that could not be inspected.
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
        let problems = if self.needs_all_references { &self.inventory.references.problems[..] } else { &[] };
        let failures = self.inventory.tree.failures.iter().chain(problems);
        PruneReport {
            cache_dir: self.inventory.path.clone(),
            kept,
            unmatched: self.unmatched.clone(),
            foreign: self.inventory.tree.foreign.len() as u64,
            failures: failures.map(Failure::duplicate).collect(),
            ..PruneReport::default()
        }
    }

    /// Reports what applying the plan would do on a cache that nobody uses: the dry run.
    #[must_use]
    pub fn preview(&self) -> PruneReport {
        let mut report = self.report_of_kept();
        let (mut freed, mut disk) = (Tally::default(), DiskLedger::default());
        for (partial, _) in self.partials().filter(|(_, fate)| fate.goes()) {
            partial.count_into(&mut freed, &mut disk);
        }
        report.partials_freed = freed.blobs;
        for (blob, _) in self.blobs().filter(|(_, fate)| fate.goes()) {
            freed.add(blob.size_bytes);
            disk.remove_name(blob.inode, blob.links, blob.disk_bytes);
        }
        for leftover in self.leftovers() {
            leftover.count_into(&mut freed, &mut disk);
            report.leftovers_freed += u64::from(leftover.foreign().is_empty());
            report.foreign += leftover.foreign().len() as u64;
            report.notes.foreign_in_leftovers.extend_from_slice(leftover.foreign());
        }
        report.notes.index_changed = self.index_change(&self.index_change);
        PruneReport {
            dry_run: true,
            bytes_freed: freed.bytes,
            blobs_freed: freed.blobs,
            disk_bytes_freed: disk.freed_bytes(),
            ..report
        }
    }
}
