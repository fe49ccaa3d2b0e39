//! Finds caches near a directory that is none, to name them in the refusal.
//!
//! Guarantees: no link is followed. The number of entries is limited. A directory that belongs to a store is not named.
//!
//! What it does not guarantee: that it finds every cache.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::cache::digest::Digest;
use crate::scan::stores;

/// How many levels below and above are looked at.
const LEVELS: usize = 2;
/// The maximum number of entries to look at.
const MOST_ENTRIES: usize = 10_000;

/// The caches up to two levels above and below, in order.
pub(crate) fn caches_near(path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().skip(1).take(LEVELS).filter(|directory| is_layout(directory));
    let mut found: BTreeSet<PathBuf> = above.map(Path::to_owned).collect();
    // A flat cache shows by its files, one level further down.
    let below = WalkDir::new(path).min_depth(1).max_depth(LEVELS + 1).follow_links(false);
    for entry in below.into_iter().take(MOST_ENTRIES).flatten() {
        let is_directory = entry.file_type().is_dir();
        if is_directory && entry.depth() <= LEVELS && is_layout(entry.path()) {
            found.insert(entry.into_path());
        } else if !is_directory
            && entry.depth() > 1
            && Digest::from_flat_name(entry.file_name().as_bytes()).is_some()
            && let Some(directory) = entry.path().parent()
        {
            found.insert(directory.to_owned());
        }
    }
    found.into_iter().filter(|directory| !stores::own(directory)).collect()
}

fn is_layout(directory: &Path) -> bool {
    let has = |name: &str| directory.join(name).symlink_metadata();
    has("oci-layout").is_ok_and(|file| file.is_file())
        || has("blobs/sha256").is_ok_and(|blobs| blobs.is_dir())
}
