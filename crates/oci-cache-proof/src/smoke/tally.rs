//! The counts of an exercise.
//!
//! Guarantees: every failure is counted. The first ten are kept in words.

use std::path::Path;

use crate::kit::counts::{Counts, keep_first};
use crate::kit::pulls::broken::Broken;
use crate::kit::pulls::flat::RemoteBlob;
use crate::kit::total::Total;

/// The number of failures to keep in words.
const DETAILS: usize = 10;

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// A pull failed at this step.
    Pull(&'static str),
    /// An index names a missing blob.
    BrokenLayout,
    /// A prune failed.
    Prune,
    /// A prune reported or did something wrong.
    Check,
}

/// The counts of one exercise.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The number of pulls, including failed ones.
    pub(crate) pulls: u64,
    /// The number of prunes, including failed ones.
    pub(crate) prunes: u64,
    /// The number of blobs that prunes reported as freed.
    pub(crate) blobs_freed: u64,
    /// The number of bytes that prunes reported as freed.
    pub(crate) bytes_freed: u64,
    failures: Counts<Failure>,
    details: Vec<String>,
}

impl Tally {
    /// Counts a failure.
    pub(crate) fn fail(&mut self, failure: Failure, detail: &str) {
        self.failures.add(failure, 1);
        keep_first(&mut self.details, DETAILS, [format!("{}: {detail}", failure.name())]);
    }

    /// Counts a failed check, unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.fail(Failure::Check, &detail());
        }
    }

    /// Pulls a blob into a flat cache and counts the pull. Adds what it writes to `written`.
    pub(crate) fn pull_blob(&mut self, blob: RemoteBlob, cache: &Path, written: &mut Total) {
        self.pulls += 1;
        if let Err(Broken { step, cause }) = blob.pull(cache, written) {
            self.fail(Failure::Pull(step), &format!("{}: {cause}", blob.path_in(cache).display()));
        }
    }

    /// Adds the counts of another part of the exercise.
    pub(crate) fn merge(&mut self, other: Self) {
        self.pulls += other.pulls;
        self.prunes += other.prunes;
        self.blobs_freed += other.blobs_freed;
        self.bytes_freed += other.bytes_freed;
        self.failures.merge(other.failures);
        keep_first(&mut self.details, DETAILS, other.details);
    }

    /// The number of failures.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.sum()
    }

    /// The number of failures that `select` picks.
    pub(crate) fn failures_of(&self, select: impl Fn(Failure) -> bool) -> u64 {
        self.failures.iter().filter(|(failure, _)| select(**failure)).map(|(_, count)| count).sum()
    }

    /// The steps at which pulls failed, with their counts.
    pub(crate) fn failed_steps(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.failures.iter().filter_map(|(failure, count)| match failure {
            Failure::Pull(step) => Some((*step, count)),
            _ => None,
        })
    }

    /// The first failures, in words.
    pub(crate) fn details(&self) -> &[String] {
        &self.details
    }
}

impl Failure {
    fn name(self) -> String {
        match self {
            Self::Pull(step) => format!("pull failed ({step})"),
            Self::BrokenLayout => "broken layout".to_owned(),
            Self::Prune => "prune failed".to_owned(),
            Self::Check => "check failed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_the_first_are_kept() {
        let mut tally = Tally::default();
        for number in 0..7 {
            tally.fail(Failure::Pull("create"), &number.to_string());
        }
        let mut other = Tally { pulls: 9, ..Tally::default() };
        for number in 7..20 {
            other.fail(Failure::BrokenLayout, &number.to_string());
        }
        other.check(true, || unreachable!());
        tally.merge(other);
        assert_eq!((tally.pulls, tally.failures()), (9, 20));
        assert_eq!(tally.failures_of(|failure| failure == Failure::BrokenLayout), 13);
        assert_eq!(tally.failed_steps().collect::<Vec<_>>(), [("create", 7)]);
        assert_eq!(tally.details().len(), DETAILS);
        assert_eq!(tally.details()[9], "broken layout: 9");
    }
}
