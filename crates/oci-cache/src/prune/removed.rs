//! The counts of a removal.

use crate::cache::ledger::Tally;
use crate::error::Failures;
use crate::prune::report::{Kept, Outcome, PruneReport};

/// What a removal did.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    pub(crate) freed: Tally,
    pub(crate) disk_bytes: u64,
    /// How many of the removed blobs were on a lower layer of an overlay.
    pub(crate) lower: u64,
    pub(crate) kept: Kept,
    pub(crate) unprobed: u64,
    pub(crate) exceptions: Vec<(usize, Outcome)>,
    pub(crate) failures: Failures,
}

impl Removal {
    pub(crate) fn merge(&mut self, other: Self) {
        self.freed += other.freed;
        self.disk_bytes = self.disk_bytes.saturating_add(other.disk_bytes);
        self.lower += other.lower;
        self.kept += other.kept;
        self.unprobed += other.unprobed;
        self.exceptions.extend(other.exceptions);
        self.failures.merge(other.failures);
    }

    /// Counts what became of the blob at this index.
    pub(crate) fn settle(&mut self, index: usize, outcome: Outcome, size_bytes: u64) {
        match outcome {
            Outcome::Removed => self.freed.add(size_bytes),
            Outcome::Kept(reason) => self.kept.add(reason, size_bytes),
            Outcome::Gone | Outcome::Failed | Outcome::NotReached => {}
        }
        if outcome != Outcome::Removed {
            self.exceptions.push((index, outcome));
        }
    }

    /// Adds the result to a report.
    pub(crate) fn count_into(self, report: &mut PruneReport) {
        report.blobs_freed += self.freed.blobs;
        report.bytes_freed = report.bytes_freed.saturating_add(self.freed.bytes);
        report.disk_bytes_freed = report.disk_bytes_freed.saturating_add(self.disk_bytes);
        report.notes.lower += self.lower;
        report.kept += self.kept;
        report.notes.unprobed += self.unprobed;
        report.failures.merge(self.failures);
    }
}
