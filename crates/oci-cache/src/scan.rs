//! The scan: lists the entries of the cache and classifies them; follows a layout's index.
//!
//! Takes a [`CacheDir`]; gives an [`Inventory`] and, on demand, the `References` of a layout.
//!
//! Guarantees: nothing is changed, no timestamp changes, no symbolic link is followed and no mount is
//! entered. No foreign entry is opened, except an `index.json` that may belong to a layout. Entries that
//! vanish during the scan are left out.
//!
//! What it does not guarantee: a snapshot. Pulls continue during the scan.

mod descriptor;
pub(crate) mod document;
mod document_reader;
pub(crate) mod holes;
pub(crate) mod index;
pub(crate) mod leftovers;
mod lower_layer;
mod nearby;
mod needs;
mod partials;
pub(crate) mod references;
mod refusal;
mod statuses;
mod stores;
pub(crate) mod tree;

use std::io;

use crate::cache::cache_dir::{CacheDir, INSPECT};
use crate::cache::idle::Idleness;
use crate::cache::inventory::{Directory, Inventory, Tree};
use crate::cache::names::Place;
use crate::cache::references::References;
use crate::error::{Error, Failure};
use crate::scan::tree::scan_tree;

/// Scans the cache, and looks for leftovers in its parent directory.
///
/// # Errors
///
/// [`Error::Refused`] if the directory belongs to a store that is no cache, or has entries that do not look like a
/// cache's; [`Error::Io`] if it cannot be listed. Failures below the directory are recorded in the inventory.
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, scan};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// std::fs::write(path.join("sha256:letters"), "Dear")?;
/// let inventory = scan(&CacheDir::open(path, &[])?)?;
/// assert_eq!((inventory.blobs().len(), inventory.blobs()[0].size_bytes), (1, 4));
/// assert_eq!(inventory.foreign().len(), 1, "it is counted, and never removed");
/// # Ok(())
/// # }
/// ```
pub fn scan(cache: &CacheDir) -> Result<Inventory, Error> {
    let inventory = scan_again(cache)?;
    match refusal::of(&inventory.tree, cache.path()) {
        Some(reason) => Err(Error::Refused { path: cache.path().to_owned(), reason }),
        None => Ok(inventory),
    }
}

/// Scans a directory that was recognised as a cache before. What is left of it need not show that.
pub(crate) fn scan_again(cache: &CacheDir) -> Result<Inventory, Error> {
    let path = cache.path().to_owned();
    let cache_name = cache.surroundings().map_or(&b""[..], |surroundings| surroundings.name.to_bytes());
    let mut tree = match cache.root() {
        Some(root) => {
            let descriptor = root.descriptor.try_clone();
            let descriptor =
                descriptor.map_err(|source| Error::Io { operation: INSPECT, path: path.clone(), source })?;
            scan_tree(descriptor, &path, Some(cache_name))?
        }
        None => Tree::default(),
    };
    let is_algorithm = |directory: &Directory| matches!(directory.place, Place::Algorithm(_));
    if tree.blobs.is_empty() && !tree.directories.iter().any(is_algorithm) {
        // Nothing was found, and this is why.
        tree.failures.extend(tree.not_entered.drain(..).map(|(path, kind)| {
            let remedy = match kind {
                "subvolume" => "make it a directory, or the whole cache one subvolume",
                _ => "point at the cache behind it",
            };
            let error = format!("it is a {kind}, which is not entered; {remedy}");
            Failure::new("scan", path, io::Error::other(error))
        }));
    }
    let names = std::mem::take(&mut tree.leftover_names);
    let leftovers = leftovers::find(cache, names, &mut tree);
    Ok(Inventory {
        path,
        tree,
        leftovers,
        idleness: Idleness::of(cache),
        references: References::default(),
        findings: None,
    })
}
