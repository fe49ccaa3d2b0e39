//! What is in the cache, classified: the result of the scan.
//!
//! Guarantees: every entry is counted once, as a blob, a partial, a leftover, a layout file or foreign. The
//! cache's own directories are held open, so that whatever is done later to an entry is done in the very
//! directory it was seen in.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cache::digest::{Digest, Spelling};
use crate::cache::finding::Finding;
use crate::cache::leftover::Leftover;
use crate::cache::names::Place;
use crate::cache::partial::Partial;
use crate::cache::references::References;
use crate::error::Failure;
use crate::error::Refusal;
use crate::escape::escape;
use crate::os::status::{Status, Timestamp};

/// A blob: a regular file whose name is a digest.
///
/// A cache can hold millions, so the record is small (96 bytes) and the name is not kept: the digest
/// and its spelling give it back.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What its name says its content hashes to.
    pub digest: Digest,
    /// Its logical size.
    pub size_bytes: u64,
    /// What it occupies on disk.
    pub disk_bytes: u64,
    /// When its content was last written.
    pub modified: Timestamp,
    /// When its content was last read, as far as the mount records it.
    pub accessed: Timestamp,
    /// When its inode last changed: also by a rename, and by a link more or less.
    pub(crate) changed: Timestamp,
    pub(crate) inode: u64,
    pub(crate) links: u32,
    pub(crate) directory: u16,
    pub(crate) spelling: Spelling,
}

impl Blob {
    /// When it was last written or read.
    #[must_use]
    pub fn last_used(&self) -> Timestamp {
        self.modified.max(self.accessed)
    }
}

/// A directory of the cache, held open.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) descriptor: OwnedFd,
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
    pub(crate) status: Status,
}

/// Something that is none of the cache's business, or that the prune must leave alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Where it is.
    pub path: PathBuf,
    /// What it is: `file`, `directory`, `symbolic link`, `fifo`, `socket`, `device`, `mount`.
    pub kind: &'static str,
}

/// The entries of one directory tree that is laid out as a cache.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) directories: Vec<Directory>,
    pub(crate) blobs: Vec<Blob>,
    pub(crate) partials: Vec<Partial>,
    /// `oci-layout` and `index.json` of an OCI image layout, where they are there.
    pub(crate) oci_layout: Option<Status>,
    pub(crate) index: Option<Status>,
    /// Why it is not known whether there is an index.
    pub(crate) index_unknown: Option<Errno>,
    pub(crate) foreign: Vec<Foreign>,
    pub(crate) failures: Vec<Failure>,
    /// Names of directories in the root that are leftovers by their name.
    pub(crate) leftover_names: Vec<CString>,
    /// How many of them a live prune is at work on.
    pub(crate) live_leftovers: usize,
}

/// What is in a cache.
#[derive(Debug)]
pub struct Inventory {
    pub(crate) path: PathBuf,
    pub(crate) tree: Tree,
    pub(crate) leftovers: Vec<Leftover>,
    /// What the layout's index leads to; nothing until it was read.
    pub(crate) references: References,
    /// What is not intact, by position, once the blobs were verified.
    pub(crate) findings: Option<BTreeMap<usize, Finding>>,
}

impl Inventory {
    /// The blobs, in no order.
    #[must_use]
    pub fn blobs(&self) -> &[Blob] {
        &self.tree.blobs
    }

    /// The temporary files of downloads, under way or broken off.
    #[must_use]
    pub fn partials(&self) -> &[Partial] {
        &self.tree.partials
    }

    /// What killed prunes left.
    #[must_use]
    pub fn leftovers(&self) -> &[Leftover] {
        &self.leftovers
    }

    /// Whether there is a cache.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.tree.directories.is_empty()
    }

    /// The device that the cache is on; zeros for one that does not exist.
    pub(crate) fn device(&self) -> (u32, u32) {
        self.tree.directories.first().map_or((0, 0), |root| root.status.id.device)
    }

    /// The logical size of the blobs and partials together, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let blobs = self.tree.blobs.iter().map(|blob| blob.size_bytes);
        let partials = self.tree.partials.iter().map(Partial::size_bytes);
        blobs.chain(partials).fold(0, u64::saturating_add)
    }

    /// What the layout's index leads to, once [`read_references`](crate::read_references()) was called or a
    /// policy wanted to know; nothing before.
    #[must_use]
    pub const fn references(&self) -> &References {
        &self.references
    }

    /// The blobs that are not intact, or could not be checked, once they were
    /// [verified](crate::verify()); none before.
    pub fn findings(&self) -> impl Iterator<Item = (&Blob, &Finding)> {
        let findings = self.findings.iter().flatten();
        findings.map(|(index, finding)| (&self.tree.blobs[*index], finding))
    }

    /// What is not the cache's.
    #[must_use]
    pub fn foreign(&self) -> &[Foreign] {
        &self.tree.foreign
    }

    /// What could not be looked at.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
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

    pub(crate) fn path_of(&self, blob: &Blob) -> PathBuf {
        self.directory(blob.directory).path.join(blob.digest.file_name(blob.spelling).as_str())
    }

    /// Whether this is a nested cache or an OCI image layout. Directories named `blobs` or `ingest` and
    /// files named `index.json` are no sign of that: many things have those.
    pub(crate) fn is_nested(&self) -> bool {
        let is_algorithm = |directory: &Directory| matches!(directory.place, Place::Algorithm(_));
        self.oci_layout.is_some() || self.directories.iter().any(is_algorithm)
    }

    /// Whether anything here is a sign of a cache. Temporary files are none: their names say too little.
    fn belongs_to_a_cache(&self) -> bool {
        self.is_nested() || !self.blobs.is_empty() || !self.leftover_names.is_empty()
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        // An empty cache on a file system of its own has this one directory.
        let others: Vec<&Foreign> = self
            .foreign
            .iter()
            .filter(|entry| entry.path.file_name() != Some(OsStr::new("lost+found")))
            .collect();
        let first = others.first()?;
        let example = escape(first.path.file_name().unwrap_or_default().as_bytes());
        (!self.belongs_to_a_cache()).then_some(Refusal::NotACache { entries: others.len(), example })
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
