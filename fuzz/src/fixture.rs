//! Small caches, of which everything is old.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use oci_cache::{CacheDir, Inventory, PrunePlan, Timestamp, scan};
use tempfile::TempDir;

/// The time of every decision.
pub const NOW: Timestamp = Timestamp(2_000_000_000_000_000_000);
/// When everything in the caches was last used.
const OLD: Duration = Duration::from_secs(1_000_000_000);

/// A temporary directory, removed with the run's.
///
/// # Panics
///
/// If it cannot be made.
pub fn directory() -> TempDir {
    tempfile::tempdir().expect("make a temporary directory")
}

/// The digest of the cache's blob of this number.
pub fn digest(number: usize) -> String {
    format!("sha256:{number:064x}")
}

/// Writes an old file.
///
/// # Panics
///
/// If it cannot be written.
pub fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("write a file");
    let file = File::options().write(true).open(path).expect("open a file");
    let old = SystemTime::UNIX_EPOCH + OLD;
    file.set_times(fs::FileTimes::new().set_accessed(old).set_modified(old)).expect("set times");
}

/// A flat cache of this many blobs, numbered from 1.
pub fn flat(blobs: usize) -> TempDir {
    let home = directory();
    (1..=blobs).for_each(|number| write(&home.path().join(digest(number)), b"content"));
    home
}

/// What is in a cache.
///
/// # Panics
///
/// If it cannot be scanned.
pub fn inventory(cache: &Path) -> Inventory {
    scan(&CacheDir::open(cache, &[]).expect("open the cache")).expect("scan the cache")
}

/// The digests of the blobs that go.
pub fn what_goes(plan: &PrunePlan) -> BTreeSet<String> {
    plan.blobs().filter(|(_, fate)| fate.goes()).map(|(blob, _)| blob.digest.to_string()).collect()
}
