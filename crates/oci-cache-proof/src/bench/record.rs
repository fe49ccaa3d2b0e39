//! The figures that docs/benchmarks.json holds. The document is made from them.
//!
//! Guarantees: the raw figures of every run are kept. Medians and ratios are never stored, but computed. A
//! figure that was not measured is absent, never zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bench::environment::Environment;

/// The results of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) about: String,
    /// The cache, in words.
    pub(crate) cache: String,
    pub(crate) blobs: usize,
    /// The file system of the cache, in words.
    pub(crate) file_system: String,
    /// The day, in UTC.
    pub(crate) date: String,
    /// The load averages before it began.
    pub(crate) load_average: String,
    pub(crate) environment: Environment,
    /// Why it was not measured, if so.
    pub(crate) not_measured: Option<String>,
    pub(crate) contenders: Vec<ContenderRecord>,
}

/// The results of a contender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContenderRecord {
    pub(crate) name: String,
    /// The command.
    pub(crate) command: String,
    /// What was not installed, if anything.
    pub(crate) missing: Option<String>,
    /// One figure per round.
    pub(crate) wall_seconds: Vec<f64>,
    /// The time from the first to the last removed name, one figure per round.
    pub(crate) half_gone_seconds: Vec<f64>,
    /// The peak memory of the largest process.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// The number of each system call in a run.
    pub(crate) system_calls: BTreeMap<String, u64>,
}

impl Record {
    /// A contender's results.
    pub(crate) fn contender(&self, name: &str) -> Option<&ContenderRecord> {
        self.contenders.iter().find(|contender| contender.name == name)
    }

    /// The pruner, which the others are compared with.
    pub(crate) fn pruner(&self) -> Option<&ContenderRecord> {
        self.contenders.first()
    }

    /// The pruner's wall time per blob, in seconds.
    pub(crate) fn pruner_seconds_per_blob(&self) -> Option<f64> {
        Some(self.pruner()?.wall()? / count(self.blobs))
    }
}

impl ContenderRecord {
    /// The median wall time, in seconds.
    pub(crate) fn wall(&self) -> Option<f64> {
        median(&self.wall_seconds)
    }

    /// The median share of the wall time during which the cache was half-gone.
    pub(crate) fn half_gone_share(&self) -> Option<f64> {
        let rounds = self.half_gone_seconds.iter().zip(&self.wall_seconds);
        median(&rounds.map(|(half_gone, wall)| half_gone / wall).collect::<Vec<_>>())
    }

    /// System calls per blob.
    pub(crate) fn calls_per_blob(&self, blobs: usize) -> Option<f64> {
        let calls: u64 = self.system_calls.values().sum();
        (calls > 0 && blobs > 0).then(|| real(calls) / count(blobs))
    }

    /// The most frequent calls, with their number per blob.
    pub(crate) fn frequent_calls(&self, blobs: usize) -> Vec<(&str, f64)> {
        let mut calls: Vec<(&str, u64)> =
            self.system_calls.iter().map(|(name, calls)| (name.as_str(), *calls)).collect();
        calls.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        let per_blob = calls.into_iter().map(|(name, calls)| (name, real(calls) / count(blobs)));
        per_blob.filter(|(_, per_blob)| *per_blob >= 0.05).collect()
    }
}

/// The middle figure, or the mean of the two in the middle.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The ratio of two figures.
pub(crate) fn ratio(figure: Option<f64>, by: Option<f64>) -> Option<f64> {
    Some(figure? / by.filter(|by| *by > 0.0)?)
}

/// A count as a floating-point number. It is exact below 2^53.
const fn count(number: usize) -> f64 {
    number as f64
}

const fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn ratios_need_both_figures() {
        assert_eq!(ratio(Some(1.0), Some(4.0)), Some(0.25));
        assert_eq!(ratio(None, Some(4.0)), None);
        assert_eq!(ratio(Some(1.0), None), None);
        assert_eq!(ratio(Some(1.0), Some(0.0)), None);
    }

    #[test]
    fn a_share_is_the_median_of_the_rounds() {
        let contender = ContenderRecord {
            wall_seconds: vec![1.0, 2.0, 4.0],
            half_gone_seconds: vec![0.5, 0.2, 1.0],
            ..ContenderRecord::default()
        };
        assert_eq!(contender.half_gone_share(), Some(0.25));
    }

    #[test]
    fn calls_per_blob_and_the_most_frequent() {
        let calls = [("close", 20), ("unlinkat", 10), ("mmap", 0)];
        let system_calls = calls.map(|(name, calls)| (name.to_owned(), calls)).into();
        let contender = ContenderRecord { system_calls, ..ContenderRecord::default() };
        assert_eq!(contender.calls_per_blob(10), Some(3.0));
        assert_eq!(contender.frequent_calls(10), [("close", 2.0), ("unlinkat", 1.0)]);
        assert_eq!(ContenderRecord::default().calls_per_blob(10), None);
    }
}
