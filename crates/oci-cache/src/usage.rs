//! Summarises what is in a cache.
//!
//! Takes an [`Inventory`]; gives a [`Usage`].
//!
//! Guarantees: it is pure. Every blob and partial is counted in exactly one age class and as exactly one
//! kind.

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
/// The number of largest blobs to list.
const LARGEST: usize = 10;

/// Summary of a cache.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// The blobs.
    pub blobs: Tally,
    /// Temporary files of downloads.
    pub partials: Tally,
    /// Files in directories that killed prunes left.
    pub leftovers: Tally,
    /// Total logical size of blobs and partials, in bytes; `--max-used-space` limits this.
    pub used_bytes: u64,
    /// Disk space of blobs and partials, in bytes; a file with several hard links counts once.
    pub disk_bytes: u64,
    /// The number of foreign entries.
    pub foreign: u64,
    /// The regular files among the foreign entries. What directories among them hold is not known.
    pub foreign_files: Tally,
    /// Blobs and partials by the time since their last use.
    pub by_age: Vec<AgeClass>,
    /// The largest blobs, at most ten.
    pub largest: Vec<LargeBlob>,
    /// The images in the layout's index.
    pub images: Vec<ImageUsage>,
    /// Blobs that the index does not reference; `None` if there is no index or some references are
    /// unknown.
    pub unreferenced: Option<Tally>,
    /// Size of the file system, in bytes; `None` if the cache does not exist.
    pub file_system_bytes: Option<u64>,
    /// Free space for unprivileged processes, in bytes; `None` if the cache does not exist.
    pub available_bytes: Option<u64>,
}

/// Blobs and partials last used within a period.
#[derive(Debug, Serialize)]
pub struct AgeClass {
    /// `hour`, `day`, `week`, `month` or `older`; each class excludes the ones before it.
    pub last_used: &'static str,
    /// The number of blobs and partials in the class, and their logical size.
    #[serde(flatten)]
    pub tally: Tally,
}

/// One of the largest blobs.
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
#[non_exhaustive]
pub struct ImageUsage {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its digest in the index.
    #[serde(serialize_with = "crate::cache::digest::serialize")]
    pub digest: Digest,
    /// The blobs that it references; a blob shared between images counts for each of them.
    #[serde(flatten)]
    pub tally: Tally,
    /// How many of them no other entry of the index leads to: they go if only this entry is removed.
    pub own_blobs: u64,
    /// The logical size of those, in bytes.
    pub own_bytes: u64,
    /// Seconds since the last use of its manifests and of the blobs that no other image leads to; `None` if none of
    /// these exists.
    pub idle_seconds: Option<u64>,
    /// Whether all its references are known.
    pub is_complete: bool,
    /// How much of what it leads to is not there, or not as it is described; see [`Hole`](crate::Hole).
    pub holes: usize,
}

/// Summarises a cache as of `now`. Lists images only if the references were
/// [read](crate::read_references()).
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, scan, usage};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let cache = CacheDir::open(path, &[])?;
/// let usage = usage(&scan(&cache)?, now, cache.space()?);
/// assert_eq!((usage.blobs.blobs, usage.used_bytes, usage.largest[0].bytes), (1, 4, 4));
/// # Ok(())
/// # }
/// ```
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
    let mut foreign_files = Tally::default();
    for size_bytes in inventory.foreign().iter().filter_map(|entry| entry.size_bytes) {
        foreign_files.add(size_bytes);
    }
    Usage {
        blobs,
        partials,
        leftovers,
        used_bytes: inventory.used_bytes(),
        disk_bytes: disk.occupied_bytes(),
        foreign: inventory.foreign().len() as u64,
        foreign_files,
        by_age: by_age(inventory, now),
        largest: largest(inventory, now),
        images: images(inventory, now),
        unreferenced: unreferenced(inventory, references),
        file_system_bytes: inventory.exists().then_some(space.total_bytes),
        available_bytes: inventory.exists().then_some(space.available_bytes),
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
    let is_before = |one: &Blob, other: &Blob| {
        other.size_bytes.cmp(&one.size_bytes).then_with(|| one.digest.cmp(&other.digest)).is_lt()
    };
    let mut largest: Vec<&Blob> = Vec::with_capacity(LARGEST + 1);
    for blob in inventory.blobs() {
        let place = largest.partition_point(|other| is_before(other, blob));
        if place < LARGEST {
            largest.insert(place, blob);
            largest.truncate(LARGEST);
        }
    }
    let large = largest.into_iter().map(|blob| LargeBlob {
        digest: blob.digest.clone(),
        bytes: blob.size_bytes,
        idle_seconds: blob.last_used().age_at(now).as_secs(),
    });
    large.collect()
}

fn images(inventory: &Inventory, now: Timestamp) -> Vec<ImageUsage> {
    let (references, blobs) = (inventory.references(), inventory.blobs());
    let (counts, shared) = (references.counts(blobs.len()), references.shared(blobs.len()));
    let usage = |image: &Image| {
        let (mut tally, mut own) = (Tally::default(), Tally::default());
        for &blob in &image.blobs {
            tally.add(blobs[blob].size_bytes);
            if counts[blob] == 1 {
                own.add(blobs[blob].size_bytes);
            }
        }
        ImageUsage {
            name: image.name.clone(),
            digest: image.digest.clone(),
            tally,
            own_blobs: own.blobs,
            own_bytes: own.bytes,
            idle_seconds: inventory.last_use_of(image, &shared).map(|used| used.age_at(now).as_secs()),
            is_complete: image.is_complete,
            holes: references.holes_of(image),
        }
    };
    references.images.iter().map(usage).collect()
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
