//! What the index of an OCI image layout leads to.
//!
//! Guarantees: an image is complete only if everything that it leads to is known.

use std::collections::HashMap;

use crate::cache::digest::Digest;
use crate::error::Failure;

/// An entry of the layout's index, and the blobs that it leads to.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest that the entry names.
    pub digest: Digest,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The blobs that it leads to and that are there: positions in the inventory, in ascending order.
    pub blobs: Vec<usize>,
    /// The indexes and manifests among what it leads to, itself included, there or not.
    pub(crate) documents: Vec<Digest>,
    /// Whether everything that it leads to is known.
    pub is_complete: bool,
    /// What it leads to and is not there.
    pub(crate) missing: Vec<Digest>,
    /// Its position in the index.
    pub(crate) position: usize,
}

/// What the index of an OCI image layout leads to.
#[derive(Debug, Default)]
pub struct References {
    /// Whether they were read.
    pub(crate) is_read: bool,
    /// Whether there is an index.
    pub has_index: bool,
    /// The entries of the index.
    pub images: Vec<Image>,
    /// Documents that are missing or cannot be read.
    pub problems: Vec<Failure>,
    /// The sizes that descriptors give for blobs, in bytes, by position in the inventory.
    pub(crate) sizes: HashMap<usize, u64>,
}

impl References {
    /// Whether all that the index leads to is known. If not, no blob is surely unreferenced.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
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
