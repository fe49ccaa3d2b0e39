//! The result of `verify`.

use oci_cache::{
    CacheDir, Check, Failure, Failures, Finding, Hole, Inventory, PruneReport, Tally, Verification,
    escape_path, holes,
};
use serde::Serialize;

use crate::exit::Exit;

/// The result of `verify`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct VerifyReport {
    /// The directory, absolute and escaped.
    pub(crate) cache_dir: String,
    /// Whether there is a directory at that path.
    pub(crate) exists: bool,
    /// Whether only small blobs and those that look truncated were hashed.
    pub(crate) quick: bool,
    /// How many blobs were checked, and their logical size in bytes.
    pub(crate) blobs_verified: u64,
    pub(crate) bytes_verified: u64,
    /// The corrupt blobs.
    pub(crate) corrupt: Vec<CorruptBlob>,
    /// What the layout's index leads to, and is not there, or not as it is described.
    pub(crate) holes: Vec<Hole>,
    /// Blobs that were being written.
    pub(crate) in_use: Tally,
    /// Blobs that changed every time they were read.
    pub(crate) changed: Tally,
    /// Blobs that could not be read or were not reached.
    pub(crate) unread: Tally,
    /// How many of the corrupt blobs could not be checked for writers.
    #[serde(skip)]
    pub(crate) unprobed: u64,
    /// What could not be inspected or read.
    #[serde(flatten)]
    pub(crate) failures: Failures,
    /// Whether a signal stopped the verification early.
    pub(crate) interrupted: bool,
    /// What was removed, with `--prune`.
    pub(crate) pruned: Option<PruneReport>,
    /// How many corrupt blobs and holes are left, after a prune if there was one.
    #[serde(skip)]
    pub(crate) corrupt_left: usize,
    #[serde(skip)]
    pub(crate) holes_left: usize,
}

/// A corrupt blob.
#[derive(Debug, Serialize)]
pub(crate) struct CorruptBlob {
    /// Where it is, escaped.
    pub(crate) path: String,
    /// Its logical size.
    pub(crate) bytes: u64,
    /// What its content should hash to.
    pub(crate) expected: String,
    /// What it hashes to.
    pub(crate) actual: String,
}

impl VerifyReport {
    /// Builds the result from the verified inventory.
    pub(crate) fn new(
        cache: &CacheDir,
        check: Check,
        inventory: &Inventory,
        verification: Verification,
    ) -> Self {
        let mut report = Self {
            cache_dir: escape_path(cache.path()),
            exists: cache.exists(),
            quick: check == Check::Quick,
            blobs_verified: verification.checked.blobs,
            bytes_verified: verification.checked.bytes,
            corrupt: Vec::new(),
            holes: holes(inventory),
            in_use: Tally::default(),
            changed: Tally::default(),
            unread: Tally::default(),
            unprobed: verification.unprobed,
            failures: inventory.failures().clone(),
            interrupted: verification.interrupted,
            pruned: None,
            corrupt_left: 0,
            holes_left: 0,
        };
        report.holes_left = report.holes.len();
        report.failures.merge(verification.failures);
        for (blob, finding) in inventory.findings() {
            match finding {
                Finding::Corrupt { actual } => report.corrupt.push(CorruptBlob {
                    path: escape_path(&inventory.path_of(blob)),
                    bytes: blob.size_bytes,
                    expected: blob.digest.to_string(),
                    actual: actual.to_string(),
                }),
                Finding::InUse => report.in_use.add(blob.size_bytes),
                Finding::Changed => report.changed.add(blob.size_bytes),
                Finding::Unread => report.unread.add(blob.size_bytes),
            }
        }
        report.corrupt.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        report.corrupt_left = report.corrupt.len();
        // Of a corrupt manifest, that is told already.
        let is_corrupt = |path: &str| report.corrupt.iter().any(|blob| blob.path == path);
        let problems = inventory.references().problems.iter();
        let unread: Vec<&Failure> =
            problems.filter(|problem| !is_corrupt(&escape_path(&problem.path))).collect();
        report.failures.extend(unread.into_iter().map(Failure::duplicate));
        report
    }

    /// The result of a verification that was stopped before it began.
    pub(crate) fn stopped(cache: &CacheDir, check: Check) -> Self {
        Self {
            cache_dir: escape_path(cache.path()),
            exists: cache.exists(),
            quick: check == Check::Quick,
            interrupted: true,
            ..Self::default()
        }
    }

    /// How many blobs there were to verify.
    pub(crate) fn blobs_in_all(&self) -> u64 {
        let unverified = [self.in_use, self.changed, self.unread];
        unverified.iter().fold(self.blobs_verified, |sum, tally| sum + tally.blobs)
    }

    /// How the command exits. Corrupt blobs and holes that remain take precedence over other failures.
    pub(crate) fn exit(&self, printed: Exit) -> Exit {
        let is_complete =
            self.failures.is_empty() && self.pruned.as_ref().is_none_or(PruneReport::is_complete);
        if self.corrupt_left > 0 || self.holes_left > 0 {
            Exit::Found
        } else if is_complete {
            printed
        } else {
            Exit::Incomplete
        }
    }
}
