//! The result of `usage`.

use oci_cache::{Tally, Usage};
use serde::Serialize;

/// The result of `usage`.
#[derive(Debug, Serialize)]
pub(crate) struct UsageReport {
    /// The directory, absolute and escaped.
    pub(crate) cache_dir: String,
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// What common policies would free.
    pub(crate) would_free: Vec<WouldFree>,
}

/// What a policy would free.
#[derive(Debug, Serialize)]
pub(crate) struct WouldFree {
    /// The flags of `prune`; empty to prune everything.
    pub(crate) flags: String,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}
