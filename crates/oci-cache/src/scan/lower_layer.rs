//! Finds the files of a cache that are on a lower layer of an overlay, as in a container whose image brings a cache.
//!
//! Guarantees: opens and changes nothing. Where the kernel does not tell, no file counts as one of a lower layer.

use std::os::fd::AsFd as _;

use crate::cache::inventory::Tree;
use crate::os::layer::{is_on_lower_layer, is_overlay};

/// Marks what is on a lower layer. Removing that frees nothing: it only hides it.
pub(crate) fn mark(tree: &mut Tree) {
    let is_on_overlay = tree.directories.first().is_some_and(|root| is_overlay(root.descriptor.as_fd()));
    if !is_on_overlay {
        return;
    }
    for blob in &mut tree.blobs {
        let directory = tree.directories[usize::from(blob.directory)].descriptor.as_fd();
        let name = blob.digest.file_name(blob.spelling);
        match is_on_lower_layer(directory, name.as_c_str()) {
            Some(is_lower) => blob.is_lower = is_lower,
            // Then the kernel tells of no file.
            None => return,
        }
    }
    for partial in &mut tree.partials {
        let directory = tree.directories[usize::from(partial.directory)].descriptor.as_fd();
        if is_on_lower_layer(directory, &partial.name) == Some(true) {
            partial.files.iter_mut().for_each(|file| file.status.disk_bytes = 0);
        }
    }
}
