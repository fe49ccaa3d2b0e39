//! Reports what a plan would do: the dry run, and the initial report of every prune.

use crate::cache::ledger::{DiskLedger, Tally};
use crate::cache::leftover::Leftover;
use crate::error::Failure;
use crate::plan::PrunePlan;
use crate::plan::fate::Fate;
use crate::prune::layout_guard::Guard;
use crate::prune::report::{Kept, Outcome, PruneReport};
use crate::prune::sign::Sign;
use crate::prune::strictness::Strictness;

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
        let mut failures = self.inventory.tree.failures.clone();
        failures.merge(self.foreseen.clone());
        failures.extend(problems.iter().map(Failure::duplicate));
        PruneReport {
            cache_dir: self.inventory.path.clone(),
            exists: self.inventory.exists(),
            kept,
            unmatched: self.unmatched.clone(),
            foreign: self.inventory.tree.foreign.len() as u64,
            failures,
            blobs_planned: self.would_free().blobs + self.foreseen.total(),
            ..PruneReport::default()
        }
    }

    /// What applying the plan would remove on a cache that nobody uses, if it could remove everything: the number of
    /// files, and their logical size.
    #[must_use]
    pub fn would_free(&self) -> Tally {
        let mut total = self.work();
        for (partial, _) in self.partials().filter(|(_, fate)| fate.goes()) {
            partial.count_into(&mut total, &mut DiskLedger::default());
        }
        total
    }

    /// Reports what applying the plan would do on a cache that nobody uses: the dry run.
    ///
    /// What it is known that this process could not remove, for want of permission or on a read-only file system, is
    /// in [`PruneReport::failures`].
    ///
    /// # Examples
    ///
    /// ```
    /// use oci_cache::{CacheDir, Policy, scan, select};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path();
    /// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
    /// # let now = std::time::SystemTime::now().into();
    /// let cache = CacheDir::open(path, &[])?;
    /// let plan = select(scan(&cache)?, &Policy::default(), now, cache.space()?)?;
    /// let report = plan.preview();
    /// assert_eq!((report.dry_run, report.blobs_freed, report.bytes_freed), (true, 1, 4));
    /// assert_eq!(scan(&cache)?.blobs().len(), 1, "it is still there");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn preview(&self) -> PruneReport {
        let mut preview = Preview {
            report: PruneReport { dry_run: true, ..self.report_of_kept() },
            freed: Tally::default(),
            disk: DiskLedger::default(),
            strictness: Strictness::of(self),
        };
        let change =
            preview.strictness.as_ref().map_or(&self.index_change, |it| &it.spared.index_change).clone();
        let index = Guard::of(self).and_then(|guard| guard.foresee(&change));
        preview.remove_blobs(self, index.is_some());
        preview.remove_partials(self);
        for leftover in self.leftovers() {
            preview.remove_leftover(leftover);
        }
        let is_unwatched = preview.strictness.as_ref().is_some_and(|strictness| strictness.is_unwatched);
        preview.report.pull = is_unwatched.then_some(Sign::Unwatched);
        match index {
            None => preview.report.notes.index_changed = self.index_change(&change),
            Some(failure) => preview.report.failures.push(failure),
        }
        let report = PruneReport {
            bytes_freed: preview.freed.bytes,
            blobs_freed: preview.freed.blobs,
            disk_bytes_freed: preview.disk.freed_bytes(),
            ..preview.report
        };
        report.measured(self)
    }
}

/// The report of a dry run, while it is made.
struct Preview<'a> {
    report: PruneReport,
    freed: Tally,
    disk: DiskLedger,
    strictness: Option<Strictness<'a>>,
}

impl Preview<'_> {
    fn remove_blobs(&mut self, plan: &PrunePlan, index_stays: bool) {
        let is_bound = plan.is_bound();
        for (index, (blob, _)) in plan.blobs().enumerate().filter(|(_, (_, fate))| fate.goes()) {
            if let Some(reason) = self.strictness.as_ref().and_then(|strictness| strictness.keeps(index)) {
                self.report.kept.add(reason, blob.size_bytes);
                self.report.notes.exceptions.push((index, Outcome::Kept(reason)));
            } else if index_stays && is_bound(&index) {
                self.report.notes.exceptions.push((index, Outcome::Failed));
            } else {
                self.freed.add(blob.size_bytes);
                self.disk.remove_name(blob.inode, blob.links, blob.freeable_bytes());
                self.report.notes.lower += u64::from(blob.is_lower);
            }
        }
    }

    fn remove_partials(&mut self, plan: &PrunePlan) {
        for (partial, fate) in plan.partials() {
            let keep = self.strictness.as_ref().and_then(|strictness| strictness.keeps_partial(partial));
            let outcome = match (fate, keep) {
                (Fate::Remove(_), Some(reason)) => {
                    self.report.kept.add(reason, partial.size_bytes());
                    Outcome::Kept(reason)
                }
                (Fate::Remove(_), None) => {
                    self.report.partials_freed += partial.files.len() as u64;
                    partial.count_into(&mut self.freed, &mut self.disk);
                    Outcome::Removed
                }
                (Fate::Keep(reason), _) => Outcome::Kept(reason),
                (Fate::Removed(_), _) => Outcome::Removed,
                (Fate::Gone, _) => Outcome::Gone,
                (Fate::Failed, _) => Outcome::Failed,
            };
            self.report.notes.partials.push(outcome);
        }
    }

    fn remove_leftover(&mut self, leftover: &Leftover) {
        self.report.foreign += leftover.foreign().len() as u64;
        self.report.notes.foreign_in_leftovers.extend_from_slice(leftover.foreign());
        if let Some(failure) = leftover.foresee_files() {
            self.report.failures.push(failure);
            return;
        }
        leftover.count_into(&mut self.freed, &mut self.disk);
        if !leftover.foreign().is_empty() {
            return;
        }
        match leftover.foresee_directory() {
            Some(failure) => self.report.failures.push(failure),
            None => {
                self.report.leftovers_freed += 1;
                self.report.notes.leftovers.push(leftover.path.clone());
            }
        }
    }
}
