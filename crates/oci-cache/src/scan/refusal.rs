//! Decides whether a directory is refused: because it belongs to a store that is no cache, or is no cache at all.
//!
//! Guarantees: an empty directory is never refused, nor one that contains nothing but what belongs to no tool in
//! particular. So a prune that has removed everything can be repeated.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::cache::inventory::{Foreign, Tree};
use crate::cache::names;
use crate::error::Refusal;
use crate::escape::escape;
use crate::scan::nearby::caches_near;
use crate::scan::stores;

/// Why the scanned directory is refused, if it is.
pub(crate) fn of(tree: &Tree, path: &Path) -> Option<Refusal> {
    let root = tree.directories.first()?;
    if let Some(store) = stores::owner(root, tree) {
        return Some(store);
    }
    let names = tree.foreign.iter().map(|entry| entry.path.file_name().unwrap_or_default().as_bytes());
    let others: Vec<&[u8]> = names.filter(|name| !names::is_neutral(name)).collect();
    let example = escape(others.first()?);
    let (blobs, entries) = (tree.blobs.len() + tree.partials.len(), others.len());
    // Links and mounts in the place of a cache's entries do not make it something else.
    let strangers = others.iter().filter(|name| !names::is_of_a_cache(name)).count();
    // A nested cache has directories of its own. A flat one is known by what is in it.
    if tree.is_nested() || is_elsewhere(tree) || tree.belongs_to_a_cache() && blobs >= strangers {
        return None;
    }
    let nearby = caches_near(path);
    Some(stores::named(root, tree).unwrap_or(Refusal::NotACache { blobs, entries, example, nearby }))
}

/// Whether all that there is stands in the place of a cache's directories, and has its blobs elsewhere: a mount, or a
/// subvolume. It is told what that is.
fn is_elsewhere(tree: &Tree) -> bool {
    let is_place = |entry: &Foreign| {
        let name = entry.path.file_name().unwrap_or_default().as_bytes();
        matches!(entry.kind, "mount" | "subvolume") && entry.stands_for_blobs || names::is_neutral(name)
    };
    tree.foreign.iter().all(is_place)
}
