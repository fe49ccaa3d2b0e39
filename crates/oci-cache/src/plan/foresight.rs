//! What is known of failures before a plan is made: which entries could not be removed.
//!
//! Guarantees: nothing is changed. An entry that is said to fail would fail with the same error, unless permissions
//! change meanwhile.
//!
//! What it does not guarantee: that the others can be removed; see [`crate::os::access`].

use std::os::fd::AsFd as _;

use rustix::io::Errno;

use crate::cache::inventory::{Blob, Inventory, Tree};
use crate::cache::partial::Partial;
use crate::error::Failure;
use crate::os::access::Removals;
use crate::os::directory::open_directory;
use crate::os::status::Status;
use crate::plan::PrunePlan;
use crate::plan::fate::{Fate, Keep};

/// What this process could not remove.
#[derive(Debug, Default)]
pub(crate) struct Foresight {
    /// For each directory of the cache.
    removals: Vec<Removals>,
}

impl Foresight {
    /// Asks for each directory.
    pub(crate) fn of(inventory: &Inventory) -> Self {
        let directories = inventory.tree.directories.iter();
        Self { removals: directories.map(|it| Removals::from(it.descriptor.as_fd())).collect() }
    }

    /// Whether everything can be removed, as far as is known.
    pub(crate) fn is_clear(&self) -> bool {
        self.removals.iter().all(|removals| *removals == Removals::All)
    }

    /// Why the blob could not be removed.
    pub(crate) fn of_blob(&self, tree: &Tree, blob: &Blob) -> Option<Errno> {
        self.removals_in(blob.directory).refuse(|| {
            let name = blob.digest.file_name(blob.spelling);
            Status::of_entry(tree.directory(blob.directory).descriptor.as_fd(), name.as_c_str())
        })
    }

    /// Why the partial could not be removed.
    pub(crate) fn of_partial(&self, tree: &Tree, partial: &Partial) -> Option<Errno> {
        let own = self.removals_in(partial.directory).refuse(|| Ok(partial.status));
        let directory = tree.directory(partial.directory).descriptor.as_fd();
        own.or_else(|| {
            let is_directory = partial.status.is_directory();
            let (opened, _) =
                is_directory.then(|| open_directory(directory, &partial.name).ok()).flatten()?;
            let removals = Removals::from(opened.as_fd());
            partial.files.iter().find_map(|file| removals.refuse(|| Ok(file.status)))
        })
    }

    fn removals_in(&self, directory: u16) -> Removals {
        self.removals.get(usize::from(directory)).copied().unwrap_or(Removals::All)
    }
}

impl PrunePlan {
    /// Whether it is known that a blob cannot be removed. Then it stays, and is told.
    pub(crate) fn is_blob_refused(&mut self, index: usize, foresight: &Foresight) -> bool {
        let tree = &self.inventory.tree;
        let blob = &tree.blobs[index];
        let Some(errno) = foresight.of_blob(tree, blob) else { return false };
        self.foreseen.push(Failure::new("remove", tree.path_of(blob), errno));
        self.blob_fates[index] = Fate::Failed;
        true
    }

    /// Whether it is known that a partial cannot be removed. Then it stays, and is told.
    pub(crate) fn is_partial_refused(&mut self, index: usize, foresight: &Foresight) -> bool {
        let tree = &self.inventory.tree;
        let partial = &tree.partials[index];
        let Some(errno) = foresight.of_partial(tree, partial) else { return false };
        self.foreseen.push(Failure::new("remove", partial.path.clone(), errno));
        self.partial_fates[index] = Fate::Failed;
        true
    }

    /// Keeps what cannot be removed, and with it the images that need it.
    pub(crate) fn keep_what_cannot_go(&mut self, foresight: &Foresight) {
        for index in 0..self.partial_fates.len() {
            if self.partial_fates[index].goes() {
                self.is_partial_refused(index, foresight);
            }
        }
        if foresight.is_clear() {
            return;
        }
        for index in 0..self.blob_fates.len() {
            if self.blob_fates[index].goes() {
                self.is_blob_refused(index, foresight);
            }
        }
        let Self { inventory, blob_fates, .. } = self;
        for image in &inventory.references.images {
            if image.blobs.iter().any(|&blob| blob_fates[blob] == Fate::Failed) {
                image.blobs.iter().for_each(|&blob| blob_fates[blob].stay(Keep::Referenced));
            }
        }
        self.tie_units();
    }
}
