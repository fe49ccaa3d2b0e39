//! Caches that no process uses.
//!
//! Guarantees: every pull is counted. After `settle`, no blob counts as recently used.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::kit::pulls::flat::RemoteBlob;
use crate::kit::total::Total;
use crate::smoke::images::Images;
use crate::smoke::registry::Way;
use crate::smoke::tally::Tally;

/// The number of blobs in a flat cache.
const FLAT_BLOBS: u64 = 300;
/// How long a used blob may count as recent.
const SETTLING: Duration = Duration::from_secs(2);

/// Pulls every image into a layout.
pub(crate) fn fill_layout(images: &Images<'_>, layout: &Path) -> Tally {
    let mut tally = Tally::default();
    for image in Images::names() {
        tally.add_pull(images.pull(image, layout, Way::Near));
    }
    tally
}

/// Pulls blobs into a flat cache.
pub(crate) fn fill_flat(cache: &Path) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..FLAT_BLOBS {
        tally.pull_blob(RemoteBlob { seed }, cache, &mut Total::default());
    }
    tally
}

/// Waits until no blob counts as recent.
pub(crate) fn settle() {
    thread::sleep(SETTLING);
}
