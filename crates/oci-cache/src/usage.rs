//! What is in a cache, summed up: for people who look before they prune.
//!
//! Guarantees: pure; every blob and partial is counted in exactly one age and one kind.

use std::time::Duration;

use serde::Serialize;

use crate::cache::cache_dir::Space;
use crate::cache::digest::Digest;
use crate::cache::inventory::{Blob, Inventory};
use crate::cache::ledger::{DiskLedger, Tally};
use crate::cache::references::{Image, References};
use crate::os::status::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How many of the largest blobs are named.
const LARGEST: usize = 10;

/// A cache, summed up.
#[derive(Debug, Serialize)]
pub struct Usage {
    /// The blobs.
    pub blobs: Tally,
    /// Temporary files of downloads.
    pub partials: Tally,
    /// Files in directories that killed prunes left.
    pub leftovers: Tally,
    /// Logical size of blobs and partials together, in bytes: what `--max-used-space` is about.
    pub used_bytes: u64,
    /// What blobs and partials occupy on disk, in bytes; files of several names count once.
    pub disk_bytes: u64,
    /// How many entries are none of the cache's.
    pub foreign: u64,
    /// Blobs and partials by the time since their last use.
    pub by_age: Vec<AgeClass>,
    /// The largest blobs, at most ten.
    pub largest: Vec<LargeBlob>,
    /// The images of the layout's index.
    pub images: Vec<ImageUsage>,
    /// Blobs that the index does not lead to; none if there is no index, or not all of it can be read.
    pub unreferenced: Option<Tally>,
    /// What the file system has in all, in bytes.
    pub file_system_bytes: u64,
    /// What unprivileged processes may still write there, in bytes.
    pub available_bytes: u64,
}

/// What was last used within a span of time.
#[derive(Debug, Serialize)]
pub struct AgeClass {
    /// `hour`, `day`, `week`, `month` or `older`: not in any class before.
    pub last_used: &'static str,
    /// How much of it there is.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A blob worth a look.
#[derive(Debug, Serialize)]
pub struct LargeBlob {
    /// Its digest.
    #[serde(serialize_with = "crate::cache::digest::serialize")]
    pub digest: Digest,
    /// Its logical size, in bytes.
    pub bytes: u64,
    /// Seconds since its last use.
    pub idle_seconds: u64,
}

/// An image of a layout.
#[derive(Debug, Serialize)]
pub struct ImageUsage {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The digest that the index names.
    #[serde(serialize_with = "crate::cache::digest::serialize")]
    pub digest: Digest,
    /// The blobs that it leads to; those shared with other images count for each.
    #[serde(flatten)]
    pub tally: Tally,
    /// Whether everything that it leads to is known.
    pub is_complete: bool,
}

/// Sums up a cache as of `now`. It has images if the references were [read](crate::read_references()).
#[must_use]
pub fn usage(inventory: &Inventory, now: Timestamp, space: Space) -> Usage {
    let references = inventory.references();
    let (mut blobs, mut partials, mut leftovers) = (Tally::default(), Tally::default(), Tally::default());
    let mut disk = DiskLedger::default();
    for blob in inventory.blobs() {
        blobs.add(blob.size_bytes);
        disk.remove_name(blob.inode, blob.links, blob.disk_bytes);
    }
    for partial in inventory.partials() {
        partial.count_into(&mut partials, &mut disk);
    }
    for leftover in inventory.leftovers() {
        leftovers += leftover.total();
    }
    Usage {
        blobs,
        partials,
        leftovers,
        used_bytes: inventory.used_bytes(),
        disk_bytes: disk.occupied_bytes(),
        foreign: inventory.foreign().len() as u64,
        by_age: by_age(inventory, now),
        largest: largest(inventory, now),
        images: references.images.iter().map(|image| image_usage(inventory, image)).collect(),
        unreferenced: unreferenced(inventory, references),
        file_system_bytes: space.total_bytes,
        available_bytes: space.available_bytes,
    }
}

fn by_age(inventory: &Inventory, now: Timestamp) -> Vec<AgeClass> {
    let limits =
        [("hour", HOUR), ("day", DAY), ("week", 7 * DAY), ("month", 30 * DAY), ("older", Duration::MAX)];
    let mut classes: Vec<AgeClass> =
        limits.iter().map(|(last_used, _)| AgeClass { last_used, tally: Tally::default() }).collect();
    let blobs = inventory.blobs().iter().map(|blob| (blob.last_used(), blob.size_bytes));
    let partials = inventory.partials().iter().map(|partial| (partial.last_used(), partial.size_bytes()));
    for (last_used, size_bytes) in blobs.chain(partials) {
        let age = last_used.age_at(now);
        if let Some(class) = limits.iter().position(|(_, limit)| age < *limit) {
            classes[class].tally.add(size_bytes);
        }
    }
    classes
}

fn largest(inventory: &Inventory, now: Timestamp) -> Vec<LargeBlob> {
    let mut order: Vec<&Blob> = inventory.blobs().iter().collect();
    let key = |blob: &&Blob| (std::cmp::Reverse(blob.size_bytes), blob.digest.clone());
    if order.len() > LARGEST {
        order.select_nth_unstable_by_key(LARGEST, key);
        order.truncate(LARGEST);
    }
    order.sort_unstable_by_key(key);
    let large = order.into_iter().map(|blob| LargeBlob {
        digest: blob.digest.clone(),
        bytes: blob.size_bytes,
        idle_seconds: blob.last_used().age_at(now).as_secs(),
    });
    large.collect()
}

fn image_usage(inventory: &Inventory, image: &Image) -> ImageUsage {
    let mut tally = Tally::default();
    for &blob in &image.blobs {
        tally.add(inventory.blobs()[blob].size_bytes);
    }
    ImageUsage {
        name: image.name.clone(),
        digest: image.digest.clone(),
        tally,
        is_complete: image.is_complete,
    }
}

fn unreferenced(inventory: &Inventory, references: &References) -> Option<Tally> {
    if !references.has_index || !references.is_complete() {
        return None;
    }
    let mut tally = Tally::default();
    let counts = references.counts(inventory.blobs().len());
    for (blob, _) in inventory.blobs().iter().zip(counts).filter(|(_, count)| *count == 0) {
        tally.add(blob.size_bytes);
    }
    Some(tally)
}
