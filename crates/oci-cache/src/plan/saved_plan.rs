//! A saved plan: written by one run, applied by another.
//!
//! Guarantees: a plan is checked before it is used: format, version, every field, and the directory it
//! was made for, by device and inode. It can name entries of that directory only: its paths are compared
//! with those of a new scan and are never opened. An entry is removed only if it is still the same file
//! (device, inode, size, modification time and birth time, where the file system keeps that) or, for a leftover, the same directory (device and
//! inode).
//!
//! Format: one JSON object, see `docs/saved-plan.md`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;

use serde::{Serialize, Serializer};

use crate::cache::cache_dir::CacheDir;
use crate::cache::digest::Digest;
use crate::cache::inventory::Inventory;
use crate::cache::ledger::Tally;
use crate::cache::references::Image;
use crate::escape::escape_path;
use crate::os::status::Timestamp;
use crate::plan::PrunePlan;
use crate::plan::fate::{Fate, Keep};
use crate::plan::foresight::Foresight;
use crate::plan::plan_reader::{FORMAT, PlanDocument, PlannedImage, SavedPlanError, SoundEntry, VERSION};
use crate::plan::policy::Policy;
use crate::plan::saved_entry::{Identity, Kind, SavedEntry, relative};
use crate::scan::references::read_references;

/// A plan read from a file.
#[derive(Debug)]
pub struct SavedPlan(PlanDocument);

impl SavedPlan {
    /// Reads a plan.
    ///
    /// # Errors
    ///
    /// [`SavedPlanError::NotAPlan`] or [`SavedPlanError::Newer`].
    pub fn from_json(content: &[u8]) -> Result<Self, SavedPlanError> {
        Self::from_reader(content)
    }

    /// Reads a plan of at most [`MAX_PLAN_BYTES`](crate::MAX_PLAN_BYTES), as a stream: memory grows only with the images
    /// and entries that are in it.
    ///
    /// # Errors
    ///
    /// [`SavedPlanError::NotAPlan`], [`SavedPlanError::Newer`] or [`SavedPlanError::Unread`].
    pub fn from_reader(content: impl io::Read) -> Result<Self, SavedPlanError> {
        let plan = Self(PlanDocument::read(content)?);
        if plan.has_twins() { Err(SavedPlanError::NotAPlan(None)) } else { Ok(plan) }
    }

    /// What it lists.
    fn entries(&self) -> impl Iterator<Item = &SavedEntry> {
        self.0.entries.iter().map(|SoundEntry(entry)| entry)
    }

    /// Whether an entry is listed twice.
    fn has_twins(&self) -> bool {
        let mut seen = HashSet::with_capacity(self.0.entries.len());
        self.entries().any(|entry| !seen.insert((entry.kind, &entry.path)))
    }

    /// Checks that the plan was made for this directory.
    ///
    /// # Errors
    ///
    /// [`SavedPlanError::AnotherDirectory`].
    pub fn check_directory(&self, cache: &CacheDir) -> Result<(), SavedPlanError> {
        let id = cache.root().map(|root| root.status.id);
        let is_it = match id {
            Some(id) => (id.device, id.inode) == (self.0.device, self.0.inode),
            None => escape_path(cache.path()) == self.0.cache_dir,
        };
        if is_it { Ok(()) } else { Err(SavedPlanError::AnotherDirectory(self.0.cache_dir.clone())) }
    }

    /// Decides on a fresh inventory: what is listed and unchanged goes, everything else stays. Of the policy, only
    /// [`grace`](Policy::grace) and [`strict`](Policy::strict) apply.
    #[must_use]
    pub fn select(&self, mut inventory: Inventory, now: Timestamp, policy: &Policy) -> PrunePlan {
        read_references(&mut inventory);
        let listed: HashMap<(Kind, &str), &SavedEntry> =
            self.entries().map(|entry| ((entry.kind, entry.path.as_str()), entry)).collect();
        let mut plan = PrunePlan::keeping(inventory, now, Keep::Unlisted);
        plan.grace = policy.grace;
        plan.strict = policy.strict;
        let device = plan.inventory.device();
        let mut found = 0;
        let still_referenced = self.still_referenced(&plan);
        for (index, is_referenced) in still_referenced.into_iter().enumerate() {
            let blob = &plan.inventory.tree.blobs[index];
            let path = relative(&plan.inventory, &plan.inventory.path_of(blob));
            let Some(entry) = listed.get(&(Kind::Blob, path.as_str())) else { continue };
            found += 1;
            let (directory, name) = plan.inventory.tree.place_of(blob);
            let is_same = entry.is(Identity::of_blob(blob, device), directory, name.as_c_str());
            plan.blob_fates[index] = match is_same {
                true if is_referenced => Fate::Keep(Keep::Referenced),
                is_same => entry.fate(is_same),
            };
        }
        plan.tie_units();
        for index in 0..plan.partial_fates.len() {
            let partial = &plan.inventory.tree.partials[index];
            let path = relative(&plan.inventory, partial.path());
            let Some(entry) = listed.get(&(Kind::Partial, path.as_str())) else { continue };
            found += 1;
            let directory = plan.inventory.tree.directory(partial.directory).descriptor.as_fd();
            let is_same = entry.is(Identity::of_partial(partial), directory, &partial.name);
            plan.partial_fates[index] = entry.fate(is_same);
        }
        for index in 0..plan.leftovers_go.len() {
            let leftover = &plan.inventory.leftovers[index];
            let path = relative(&plan.inventory, leftover.path());
            let entry = listed.get(&(Kind::Leftover, path.as_str()));
            let is_same = entry.is_some_and(|entry| (entry.device, entry.inode) == leftover.id());
            plan.leftovers_go[index] = is_same;
            found += usize::from(is_same);
        }
        plan.keep_what_cannot_go(&Foresight::of(&plan.inventory));
        plan.missing = self.missing(found);
        plan.index_change = plan.entries_without_their_blobs();
        plan
    }

    /// For each blob, whether an image references it that the plan did not include. If some references
    /// are unknown, every blob of a layout counts as referenced.
    fn still_referenced(&self, plan: &PrunePlan) -> Vec<bool> {
        let mut referenced = vec![!plan.inventory.references.is_complete(); plan.blob_fates.len()];
        for (blob, is_referenced) in plan.inventory.tree.blobs.iter().zip(&mut referenced) {
            *is_referenced &= plan.is_nested(blob);
        }
        let doomed: HashSet<&Digest> = self.0.images.iter().map(|PlannedImage(digest)| digest).collect();
        let stays = |image: &&Image| !doomed.contains(&image.digest);
        for image in plan.inventory.references.images.iter().filter(stays) {
            for &blob in &image.blobs {
                referenced[blob] = true;
            }
        }
        referenced
    }

    /// Counts the listed entries that no longer exist.
    fn missing(&self, found: usize) -> Tally {
        let missing = self.0.entries.len().saturating_sub(found) as u64;
        Tally { blobs: missing, bytes: 0 }
    }
}

/// Writes a plan as JSON.
///
/// Reads the references of the layout's index first, unless already read, because the plan lists the
/// images that lose blobs.
///
/// # Errors
///
/// The error of the writer.
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, Policy, SavedPlan, save_plan, scan, select};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let cache = CacheDir::open(path, &[])?;
/// let policy = Policy::default();
/// let mut file = Vec::new();
/// save_plan(&mut select(scan(&cache)?, &policy, now, cache.space()?)?, &cache, &mut file)?;
///
/// // Later: what is listed and has not changed goes, everything else stays.
/// std::fs::write(path.join(format!("sha256:{}", "1".repeat(64))), "a new blob")?;
/// let saved = SavedPlan::from_json(&file)?;
/// saved.check_directory(&cache)?;
/// let plan = saved.select(scan(&cache)?, now, &policy);
/// assert_eq!((plan.blobs().count(), plan.total().blobs), (2, 1));
/// # Ok(())
/// # }
/// ```
pub fn save_plan(plan: &mut PrunePlan, cache: &CacheDir, mut writer: impl io::Write) -> io::Result<()> {
    read_references(&mut plan.inventory);
    let id = cache.root().map(|root| root.status.id);
    let document = Document {
        format: FORMAT,
        version: VERSION,
        cache_dir: escape_path(cache.path()),
        device: id.map_or((0, 0), |id| id.device),
        inode: id.map_or(0, |id| id.inode),
        images: images_that_go(plan),
        entries: Entries(plan),
    };
    serde_json::to_writer(&mut writer, &document)?;
    writer.write_all(b"\n")
}

/// The digests of the images that lose a blob.
fn images_that_go(plan: &PrunePlan) -> Vec<String> {
    plan.images_that_go().map(|image| image.digest.to_string()).collect()
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    version: u32,
    cache_dir: String,
    device: (u32, u32),
    inode: u64,
    images: Vec<String>,
    entries: Entries<'a>,
}

/// The entries of a plan, built one at a time while writing.
struct Entries<'a>(&'a PrunePlan);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plan = self.0;
        let inventory = &plan.inventory;
        let device = inventory.device();
        // What has changed since the scan would be another file than was planned for: it is left out.
        let blobs = plan.blobs().filter(|(_, fate)| fate.goes()).filter_map(|(blob, _)| {
            let (directory, name) = inventory.tree.place_of(blob);
            let identity = Identity::of_blob(blob, device);
            let born = identity.birth(directory, name.as_c_str()).ok()?;
            let path = relative(inventory, &inventory.path_of(blob));
            Some(SavedEntry {
                digest: Some(blob.digest.to_string()),
                ..entry(Kind::Blob, path, identity, born)
            })
        });
        let partials = plan.partials().filter(|(_, fate)| fate.goes()).filter_map(|(partial, _)| {
            let directory = inventory.tree.directory(partial.directory).descriptor.as_fd();
            let identity = Identity::of_partial(partial);
            let born = identity.birth(directory, &partial.name).ok()?;
            Some(entry(Kind::Partial, relative(inventory, partial.path()), identity, born))
        });
        let leftovers = plan.leftovers().map(|leftover| {
            let (device, inode) = leftover.id();
            let (path, size_bytes) = (relative(inventory, leftover.path()), leftover.total().bytes);
            let modified = Timestamp(0);
            let born = None;
            SavedEntry { kind: Kind::Leftover, path, digest: None, size_bytes, device, inode, modified, born }
        });
        serializer.collect_seq(blobs.chain(partials).chain(leftovers))
    }
}

/// An entry without a digest.
fn entry(kind: Kind, path: String, identity: Identity, born: Option<Timestamp>) -> SavedEntry {
    let Identity { size_bytes, device, inode, modified, .. } = identity;
    SavedEntry { kind, path, digest: None, size_bytes, device, inode, modified, born }
}
