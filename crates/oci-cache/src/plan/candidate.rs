//! What passes the filters, and the order in which it is removed.

use std::cmp::Ordering;
use std::path::PathBuf;

use crate::cache::digest::Digest;
use crate::os::status::Timestamp;
use crate::plan::PrunePlan;

/// An entry, or an image, that is removed as a whole.
pub(crate) struct Candidate {
    pub(crate) last_used: Timestamp,
    pub(crate) size_bytes: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy)]
pub(crate) enum What {
    Blob(usize),
    Partial(usize),
    /// An image of the layout, with those of its blobs that no remaining image references.
    Image(usize),
}

impl Candidate {
    /// Orders by least recent use, then larger size, then digest, then path.
    pub(crate) fn compare(&self, other: &Self, plan: &PrunePlan) -> Ordering {
        let by_use = self.last_used.cmp(&other.last_used);
        by_use
            .then(other.size_bytes.cmp(&self.size_bytes))
            .then_with(|| self.name(plan).cmp(&other.name(plan)))
    }

    fn name<'a>(&self, plan: &'a PrunePlan) -> (Option<&'a Digest>, PathBuf, usize) {
        let tree = &plan.inventory.tree;
        match self.what {
            What::Blob(index) => (Some(&tree.blobs[index].digest), tree.path_of(&tree.blobs[index]), 0),
            What::Partial(index) => (None, tree.partials[index].path().to_owned(), 0),
            What::Image(index) => {
                let image = &plan.inventory.references.images[index];
                (Some(&image.digest), PathBuf::new(), image.position)
            }
        }
    }
}
