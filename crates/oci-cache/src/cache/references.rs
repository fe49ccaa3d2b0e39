//! What the index of an OCI image layout references.
//!
//! Guarantees: an image counts as complete only if all its references are known.

use std::collections::HashMap;

use crate::cache::digest::Digest;
use crate::error::Failure;

/// An entry of the layout's index, and the blobs that it references, directly or through manifests.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest in the entry.
    pub digest: Digest,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The blobs that it references and that exist: indexes into the inventory, in ascending order.
    pub blobs: Vec<usize>,
    /// The indexes and manifests among its references, whether or not they exist, including its own.
    pub(crate) documents: Vec<Digest>,
    /// Whether all its references are known.
    pub is_complete: bool,
    /// References to blobs that do not exist.
    pub(crate) missing: Vec<Digest>,
    /// The position of the entry in the index.
    pub(crate) position: usize,
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
}

impl References {
    /// Whether all references of the index are known. If not, no blob is certain to be unreferenced.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
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
