//! The inventory: the classified entries of a cache, as the scan found them.
//!
//! Guarantees: every entry is counted once, as a blob, a partial, a leftover, a layout file or foreign.
//! The cache's directories are held open, so that a later operation on an entry happens in the directory
//! in which the scan found it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cache::cache_dir::Space;
use crate::cache::companions::Companions;
use crate::cache::digest::{BlobName, Digest, Spelling};
use crate::cache::finding::Finding;
use crate::cache::idle::{Idleness, Times};
use crate::cache::ledger::UsedLedger;
use crate::cache::leftover::Leftover;
use crate::cache::names::Place;
use crate::cache::own_changes::OwnChanges;
use crate::cache::own_reads::OwnReads;
use crate::cache::partial::Partial;
use crate::cache::references::{Image, References};
use crate::error::Failures;
use crate::os::status::{Status, Timestamp};

/// A blob: a regular file whose name is a digest.
///
/// A cache can hold millions of blobs, so the record is small (96 bytes). It does not store the name,
/// which follows from the digest and its spelling.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The digest in its name; its content should hash to it.
    pub digest: Digest,
    /// Its logical size, in bytes.
    pub size_bytes: u64,
    /// The space it occupies on disk, in bytes.
    pub disk_bytes: u64,
    /// When its content was last written.
    pub modified: Timestamp,
    /// When its content was last read, as far as the mount records that.
    pub accessed: Timestamp,
    /// When its inode last changed; a rename, or adding or removing a hard link, counts too.
    pub(crate) changed: Timestamp,
    pub(crate) inode: u64,
    pub(crate) links: u32,
    pub(crate) directory: u16,
    pub(crate) spelling: Spelling,
    /// Whether it is on a lower layer of an overlay, so that removing it frees nothing.
    pub(crate) is_lower: bool,
}

impl Blob {
    /// What it uses of the disk, in bytes: the smaller of its size and its blocks. A sparse or compressed file uses less
    /// than its size, and a file's last block more.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.size_bytes.min(self.disk_bytes)
    }

    /// The disk space that is free once its last name is gone, in bytes.
    pub(crate) const fn freeable_bytes(&self) -> u64 {
        if self.is_lower { 0 } else { self.disk_bytes }
    }

    pub(crate) const fn times(&self) -> Times {
        Times { modified: self.modified, accessed: self.accessed, changed: self.changed }
    }

    /// When it was last written or read.
    #[must_use]
    pub fn last_used(&self) -> Timestamp {
        self.modified.max(self.accessed)
    }
}

/// An open directory of the cache.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) descriptor: OwnedFd,
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
    pub(crate) status: Status,
}

/// An entry that does not belong to the cache, or that the prune must not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its path.
    pub path: PathBuf,
    /// Its kind: `file`, `directory`, `symbolic link`, `fifo`, `socket`, `device`, `mount`, or `subvolume` (of
    /// btrfs).
    pub kind: &'static str,
    /// Its logical size, in bytes, if it is a file.
    pub size_bytes: Option<u64>,
    /// Whether its name is that of a blob or of a directory of blobs, so that it stands in the place of one.
    pub stands_for_blobs: bool,
}

/// The entries of one directory tree with the layout of a cache.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) directories: Vec<Directory>,
    pub(crate) blobs: Vec<Blob>,
    pub(crate) companions: Companions,
    pub(crate) own_changes: OwnChanges,
    pub(crate) own_reads: OwnReads,
    pub(crate) partials: Vec<Partial>,
    /// `oci-layout` and `index.json` of an OCI image layout, if they exist.
    pub(crate) oci_layout: Option<Status>,
    pub(crate) index: Option<Status>,
    /// Why the scan could not tell whether there is an index.
    pub(crate) index_unknown: Option<Errno>,
    pub(crate) foreign: Vec<Foreign>,
    /// The links, mounts and subvolumes in the place of directories of blobs, and which of these each is.
    pub(crate) not_entered: Vec<(PathBuf, &'static str)>,
    pub(crate) failures: Failures,
    /// Names of directories in the root that have the name of a leftover.
    pub(crate) leftover_names: Vec<CString>,
    /// The number of leftovers in the root that a running prune holds locked.
    pub(crate) live_leftovers: usize,
}

/// The entries of a cache.
#[derive(Debug)]
pub struct Inventory {
    pub(crate) path: PathBuf,
    pub(crate) tree: Tree,
    pub(crate) leftovers: Vec<Leftover>,
    /// How reads are recorded there.
    pub(crate) idleness: Idleness,
    /// What the layout's index leads to; nothing until it was read.
    pub(crate) references: References,
    /// Blobs that are not known to be intact, by index; `None` until the blobs are verified.
    pub(crate) findings: Option<BTreeMap<usize, Finding>>,
}

impl Inventory {
    /// The blobs, in no particular order.
    #[must_use]
    pub fn blobs(&self) -> &[Blob] {
        &self.tree.blobs
    }

    /// Temporary files of downloads, in progress or aborted.
    #[must_use]
    pub fn partials(&self) -> &[Partial] {
        &self.tree.partials
    }

    /// Directories that killed prunes left behind.
    #[must_use]
    pub fn leftovers(&self) -> &[Leftover] {
        &self.leftovers
    }

    /// Whether the cache exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.tree.directories.is_empty()
    }

    /// The device that the cache is on; zeros if the cache does not exist.
    pub(crate) fn device(&self) -> (u32, u32) {
        self.tree.directories.first().map_or((0, 0), |root| root.status.id.device)
    }

    /// The space on the cache's file system now, if there is a cache and that can be told.
    pub(crate) fn space(&self) -> Option<Space> {
        let root = self.tree.directories.first()?;
        Space::at(root.descriptor.as_fd()).ok()
    }

    /// What the blobs and partials use, in bytes: each file once, the smaller of its size and its blocks.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used(|_| true, |_| true).used_bytes()
    }

    /// What those of the blobs and partials use that are chosen by index.
    pub(crate) fn used(&self, blobs: impl Fn(usize) -> bool, partials: impl Fn(usize) -> bool) -> UsedLedger {
        let mut used = UsedLedger::default();
        for (_, blob) in self.tree.blobs.iter().enumerate().filter(|(index, _)| blobs(*index)) {
            used.add_name(blob.inode, blob.links, blob.used_bytes());
        }
        for (_, partial) in self.tree.partials.iter().enumerate().filter(|(index, _)| partials(*index)) {
            partial.add_to(&mut used);
        }
        used
    }

    /// When an image was last used: its manifests, or the blobs that no other image leads to. A blob that other images
    /// lead to says nothing about this one. `shared` is [`References::shared`]. `None` if none of these exists.
    pub(crate) fn last_use_of(&self, image: &Image, shared: &[bool]) -> Option<Timestamp> {
        let blobs = image.blobs.iter().map(|&index| (index, &self.tree.blobs[index]));
        let own = blobs.filter(|(index, blob)| !shared[*index] || image.documents.contains(&blob.digest));
        own.map(|(_, blob)| blob.last_used()).max()
    }

    /// What the layout's index references.
    ///
    /// Empty until [`read_references`](crate::read_references()) was called or a policy needed it.
    #[must_use]
    pub const fn references(&self) -> &References {
        &self.references
    }

    /// The blobs that are not intact or could not be checked; empty until they are
    /// [verified](crate::verify()).
    pub fn findings(&self) -> impl Iterator<Item = (&Blob, &Finding)> {
        let findings = self.findings.iter().flatten();
        findings.map(|(index, finding)| (&self.tree.blobs[*index], finding))
    }

    /// Entries that do not belong to the cache.
    #[must_use]
    pub fn foreign(&self) -> &[Foreign] {
        &self.tree.foreign
    }

    /// Entries that could not be inspected.
    #[must_use]
    pub const fn failures(&self) -> &Failures {
        &self.tree.failures
    }

    /// The path of a blob, for messages.
    #[must_use]
    pub fn path_of(&self, blob: &Blob) -> PathBuf {
        self.tree.path_of(blob)
    }
}

impl Tree {
    pub(crate) fn directory(&self, index: u16) -> &Directory {
        &self.directories[usize::from(index)]
    }

    /// The directory of a blob, and its name there.
    pub(crate) fn place_of(&self, blob: &Blob) -> (BorrowedFd<'_>, BlobName) {
        (self.directory(blob.directory).descriptor.as_fd(), blob.digest.file_name(blob.spelling))
    }

    pub(crate) fn path_of(&self, blob: &Blob) -> PathBuf {
        self.directory(blob.directory).path.join(blob.digest.file_name(blob.spelling).as_str())
    }

    /// Whether this is a nested cache or an OCI image layout.
    ///
    /// Directories named `blobs` or `ingest` and files named `index.json` are not enough: they are
    /// common elsewhere.
    pub(crate) fn is_nested(&self) -> bool {
        let is_algorithm = |directory: &Directory| matches!(directory.place, Place::Algorithm(_));
        self.oci_layout.is_some() || self.directories.iter().any(is_algorithm)
    }

    /// Whether this is, or may be, an OCI image layout.
    pub(crate) fn is_layout(&self) -> bool {
        self.oci_layout.is_some() || self.index.is_some() || self.index_unknown.is_some()
    }

    /// Whether any entry shows that this is a cache.
    pub(crate) fn belongs_to_a_cache(&self) -> bool {
        let is_empty = self.blobs.is_empty() && self.partials.is_empty() && self.leftover_names.is_empty();
        self.is_nested() || !is_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_record_is_small() {
        assert_eq!(size_of::<Blob>(), 96);
    }
}
