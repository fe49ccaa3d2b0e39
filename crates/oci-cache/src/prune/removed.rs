//! The counts of a removal.

use crate::cache::ledger::Tally;
use crate::error::Failure;
use crate::prune::report::{Kept, Outcome, PruneReport};

/// What a removal did.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    pub(crate) freed: Tally,
    pub(crate) disk_bytes: u64,
    pub(crate) kept: Kept,
    pub(crate) unprobed: u64,
    pub(crate) exceptions: Vec<(usize, Outcome)>,
    pub(crate) failures: Vec<Failure>,
}

impl Removal {
    pub(crate) fn merge(&mut self, other: Self) {
        self.freed += other.freed;
        self.disk_bytes += other.disk_bytes;
        self.kept += other.kept;
        self.unprobed += other.unprobed;
        self.exceptions.extend(other.exceptions);
        self.failures.extend(other.failures);
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
        report.bytes_freed += self.freed.bytes;
        report.disk_bytes_freed += self.disk_bytes;
        report.kept += self.kept;
        report.notes.unprobed += self.unprobed;
        report.failures.extend(self.failures);
    }
}
