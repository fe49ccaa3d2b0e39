//! The result of `usage`.

use oci_cache::{Failures, Tally, Usage};
use serde::Serialize;

/// The result of `usage`.
#[derive(Debug, Serialize)]
pub(crate) struct UsageReport {
    /// The directory, absolute and escaped.
    pub(crate) cache_dir: String,
    /// Whether there is a directory at that path.
    pub(crate) exists: bool,
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// What common policies would free.
    pub(crate) would_free: Vec<WouldFree>,
    /// What could not be inspected or read.
    #[serde(flatten)]
    pub(crate) failures: Failures,
    /// What the cache may use, in bytes, if that was asked.
    #[serde(skip)]
    pub(crate) budget_bytes: Option<u64>,
}

impl UsageReport {
    /// Whether the cache uses more than it may.
    pub(crate) fn is_over_budget(&self) -> bool {
        self.budget_bytes.is_some_and(|budget| self.usage.used_bytes > budget)
    }

    /// How many images have holes.
    pub(crate) fn images_with_holes(&self) -> u64 {
        self.usage.images.iter().filter(|image| image.holes > 0).count() as u64
    }
}

/// What a policy would free.
#[derive(Debug, Serialize)]
pub(crate) struct WouldFree {
    /// The flags of `prune`; empty to prune everything.
    pub(crate) flags: String,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}
