//! What the index of an OCI image layout references.
//!
//! Guarantees: an image counts as complete only if all its references are known.

use std::collections::{BTreeMap, HashMap};

use crate::cache::digest::Digest;
use crate::error::Failure;

/// An entry of the layout's index, and the blobs that it references, directly or through manifests.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest in the entry.
    pub digest: Digest,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Another name, which containerd gives it.
    pub(crate) full_name: Option<String>,
    /// The blobs that it references and that exist: indexes into the inventory, in ascending order.
    pub blobs: Vec<usize>,
    /// The indexes and manifests among its references, whether or not they exist, including its own.
    pub(crate) documents: Vec<Digest>,
    /// The configs of its manifests, whether or not they exist.
    pub(crate) configs: Vec<Digest>,
    /// Whether all its references are known.
    pub is_complete: bool,
    /// References to blobs that do not exist.
    pub(crate) missing: Vec<Digest>,
    /// The position of the entry in the index.
    pub(crate) position: usize,
}

impl Image {
    /// An image of which nothing is known but its entry.
    pub(crate) fn of(
        digest: Digest,
        name: Option<String>,
        full_name: Option<String>,
        position: usize,
    ) -> Self {
        Self {
            digest,
            name,
            full_name,
            blobs: Vec::new(),
            documents: Vec::new(),
            configs: Vec::new(),
            is_complete: true,
            missing: Vec::new(),
            position,
        }
    }

    /// Its names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.name.as_deref().into_iter().chain(self.full_name.as_deref())
    }

    /// Whether the entry's manifest is not there.
    pub(crate) fn is_dangling(&self) -> bool {
        self.missing.contains(&self.digest)
    }
}

/// What is unusual about an entry of the index, but no problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// Its manifest is not there: it may have been pulled without it, or lost it.
    AbsentManifest {
        /// The name in the entry, if it has one.
        name: Option<String>,
        /// The digest in the entry.
        digest: Digest,
    },
    /// No blob of a cache can have such a digest.
    UnknownAlgorithm {
        /// The digest in the entry; at most 200 characters of it.
        digest: String,
    },
}

/// What the index of an OCI image layout references.
#[derive(Debug, Default)]
pub struct References {
    /// Whether the references have been read.
    pub(crate) is_read: bool,
    /// Whether there is an index.
    pub has_index: bool,
    /// The entries of the index.
    pub images: Vec<Image>,
    /// Documents that are there but cannot be read.
    pub problems: Vec<Failure>,
    /// What is unusual about entries, but no problem.
    pub remarks: Vec<Remark>,
    /// Blob sizes given by descriptors, in bytes, by index into the inventory.
    pub(crate) sizes: HashMap<usize, u64>,
    /// Those of them that are not the blob's size.
    pub(crate) other_sizes: BTreeMap<usize, u64>,
    /// Whether a document may be there, or elsewhere, but was not read, so that it is unknown what it leads to.
    pub(crate) has_unseen: bool,
    /// For each manifest of which something is there, what is not.
    pub(crate) absent: BTreeMap<Digest, Vec<Digest>>,
}

impl References {
    /// Whether all references of the index are known. If not, no blob is certain to be unreferenced.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && !self.has_unseen
    }

    /// Forgets the entries at these positions, in ascending order, which left the index.
    pub(crate) fn drop_entries(&mut self, positions: &[usize]) {
        self.images.retain(|image| positions.binary_search(&image.position).is_err());
        for image in &mut self.images {
            image.position -= positions.partition_point(|position| *position < image.position);
        }
    }

    /// How many holes an image has: what it leads to, and is not there, or not as it is described.
    pub(crate) fn holes_of(&self, image: &Image) -> usize {
        let absent = image.documents.iter().filter_map(|document| self.absent.get(document)).map(Vec::len);
        let others = image.blobs.iter().filter(|blob| self.other_sizes.contains_key(blob)).count();
        usize::from(image.is_dangling()) + absent.sum::<usize>() + others
    }

    /// For each blob of the inventory, whether different images lead to it. Names of the same image are no
    /// different images.
    pub(crate) fn shared(&self, blobs: usize) -> Vec<bool> {
        let mut leaders: Vec<Option<&Digest>> = vec![None; blobs];
        let mut shared = vec![false; blobs];
        for image in &self.images {
            for &blob in &image.blobs {
                shared[blob] |= leaders[blob].is_some_and(|leader| *leader != image.digest);
                leaders[blob] = Some(&image.digest);
            }
        }
        shared
    }

    /// For each blob of the inventory, how many images lead to it.
    pub(crate) fn counts(&self, blobs: usize) -> Vec<u32> {
        let mut counts = vec![0; blobs];
        for &blob in self.images.iter().flat_map(|image| &image.blobs) {
            counts[blob] += 1;
        }
        counts
    }
}
