//! The scan: finds what is in the cache, classifies it, and follows a layout's index.
//!
//! Takes a [`CacheDir`]; gives an [`Inventory`], and on demand the `References` of a layout.
//!
//! Guarantees: nothing is changed, no time stamp moves, no link is followed, no mount is entered, and
//! nothing foreign is opened, but for an `index.json` that may be a layout's. What vanishes while the scan
//! runs is left out.
//!
//! What it does not guarantee: a snapshot. Pulls go on during the scan.

mod descriptor;
pub(crate) mod index;
pub(crate) mod leftovers;
mod partials;
pub(crate) mod references;
mod statuses;
pub(crate) mod tree;

use crate::cache::cache_dir::{CacheDir, INSPECT};
use crate::cache::inventory::{Inventory, Tree};
use crate::cache::references::References;
use crate::error::Error;
use crate::scan::tree::scan_tree;

/// Scans the cache, and the directory that it stands in for leftovers.
///
/// # Errors
///
/// [`Error::Refused`] if the directory has entries of which none belongs to a cache; [`Error::Io`] if it
/// cannot be listed. What fails below it is a failure in the inventory.
pub fn scan(cache: &CacheDir) -> Result<Inventory, Error> {
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
    if let Some(reason) = tree.refusal() {
        return Err(Error::Refused { path, reason });
    }
    let names = std::mem::take(&mut tree.leftover_names);
    let leftovers = leftovers::find(cache, names, &mut tree);
    Ok(Inventory { path, tree, leftovers, references: References::default(), findings: None })
}
