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
    /// Whether its file has other names, which may be candidates too. Asked while blobs are read in the order of the
    /// inventory. In the order of last use, each would be read from memory again.
    pub(crate) has_other_names: bool,
    /// How its digest begins; 0 if it has none. It decides most ties without a look at the inventory, which sorting a
    /// large cache would wait for.
    start: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum What {
    Blob(usize),
    Partial(usize),
    /// An image of the layout, with those of its blobs that no remaining image references.
    Image(usize),
}

impl Candidate {
    pub(crate) fn new(plan: &PrunePlan, last_used: Timestamp, size_bytes: u64, what: What) -> Self {
        let has_other_names = what.file(plan).is_some_and(|(_, links)| links > 1);
        let start = what.digest(plan).map_or(0, Digest::start);
        Self { last_used, size_bytes, what, has_other_names, start }
    }

    /// Orders by least recent use, then larger size, then digest, then path.
    pub(crate) fn compare(&self, other: &Self, plan: &PrunePlan) -> Ordering {
        let by_use = self.last_used.cmp(&other.last_used);
        by_use
            .then(other.size_bytes.cmp(&self.size_bytes))
            .then(self.start.cmp(&other.start))
            .then_with(|| self.what.digest(plan).cmp(&other.what.digest(plan)))
            .then_with(|| self.what.place(plan).cmp(&other.what.place(plan)))
    }
}

impl What {
    /// The inode of its file, and how many names that has; of a partial with several files, only its own inode. `None` for
    /// an image.
    pub(crate) fn file(self, plan: &PrunePlan) -> Option<(u64, u32)> {
        let tree = &plan.inventory.tree;
        match self {
            Self::Blob(index) => Some((tree.blobs[index].inode, tree.blobs[index].links)),
            Self::Partial(index) => {
                let status = &tree.partials[index].status;
                Some((status.id.inode, if status.is_directory() { 1 } else { status.links }))
            }
            Self::Image(_) => None,
        }
    }

    fn digest(self, plan: &PrunePlan) -> Option<&Digest> {
        match self {
            Self::Blob(index) => Some(&plan.inventory.tree.blobs[index].digest),
            Self::Partial(_) => None,
            Self::Image(index) => Some(&plan.inventory.references.images[index].digest),
        }
    }

    /// Where it is. A path is built anew each time, so this is asked only where the digests are equal.
    fn place(self, plan: &PrunePlan) -> (PathBuf, usize) {
        let tree = &plan.inventory.tree;
        match self {
            Self::Blob(index) => (tree.path_of(&tree.blobs[index]), 0),
            Self::Partial(index) => (tree.partials[index].path().to_owned(), 0),
            Self::Image(index) => (PathBuf::new(), plan.inventory.references.images[index].position),
        }
    }
}
