//! Finds leftovers: directories that killed prunes left in the cache or beside it.
//!
//! Guarantees: a leftover is recognised by its exact name. A leftover that a running prune holds locked
//! is left alone.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::cache::cache_dir::{CacheDir, Surroundings};
use crate::cache::inventory::Tree;
use crate::cache::ledger::Tally;
use crate::cache::leftover::Leftover;
use crate::cache::names;
use crate::cache::partial::PartialFile;
use crate::error::{Error, Failure};
use crate::os::directory::{list, open_directory};
use crate::os::errno_of;
use crate::scan::tree::scan_tree;

/// Name of the operation that looks for leftovers.
const LOOK: &str = "look for leftovers in";
/// Finds the leftovers with the names `children` in the cache, and all leftovers beside it.
pub(crate) fn find(cache: &CacheDir, children: Vec<CString>, tree: &mut Tree) -> Vec<Leftover> {
    let mut places = Vec::new();
    if let Some(root) = tree.directories.first() {
        places.push((root.descriptor.try_clone(), root.path.clone(), true, children));
    }
    if let Some(surroundings) = cache.surroundings() {
        let (names, listed) = siblings(surroundings);
        places.push((surroundings.parent.try_clone(), surroundings.parent_path.clone(), false, names));
        if let Err(errno) = listed {
            tree.failures.push(Failure::new(LOOK, surroundings.parent_path.clone(), errno));
        }
    }
    if let Some(errno) = cache.surroundings_not_found() {
        tree.failures.push(Failure::new(LOOK, cache.path().to_owned(), errno));
    }
    let mut leftovers = Vec::new();
    for (parent, path, is_child, names) in places {
        let parent = match parent {
            Ok(parent) => Arc::new(parent),
            Err(error) => {
                tree.failures.push(Failure::new(LOOK, path, error));
                continue;
            }
        };
        for name in names {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            match Leftover::read(Arc::clone(&parent), path.clone(), name, is_child) {
                Ok(Some(leftover)) => leftovers.push(leftover),
                Ok(None) if is_child => tree.live_leftovers += 1,
                Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(errno) => tree.failures.push(Failure::new("inspect leftover", path, errno)),
            }
        }
    }
    leftovers
}

/// The names of the cache's leftovers beside it, and whether the whole directory could be listed.
fn siblings(surroundings: &Surroundings) -> (Vec<CString>, Result<(), Errno>) {
    let cache_name = surroundings.name.to_bytes();
    let mut names = Vec::new();
    let listed = list(surroundings.parent.as_fd(), |name| {
        let bytes = name.to_bytes();
        if bytes.starts_with(cache_name) && names::is_leftover(bytes, cache_name) {
            names.push(name.to_owned());
        }
    });
    (names, listed)
}

impl Leftover {
    /// Reads a leftover; `None` while a running prune holds it locked.
    fn read(
        parent: Arc<OwnedFd>,
        path: PathBuf,
        name: CString,
        is_child: bool,
    ) -> Result<Option<Self>, Errno> {
        let (descriptor, status) = open_directory(parent.as_fd(), &name)?;
        // A shared lock: processes that only read do not block each other.
        if flock(&descriptor, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
            return Ok(None);
        }
        let tree = scan_tree(descriptor, &path, None).map_err(errno_of_scan)?;
        let (mut total, mut files) = (Tally::default(), Vec::new());
        for blob in &tree.blobs {
            total.add(blob.size_bytes);
            files.push((blob.inode, blob.links, blob.freeable_bytes()));
        }
        for PartialFile { status, .. } in tree.partials.iter().flat_map(|partial| &partial.files) {
            total.add(status.size_bytes);
            files.push((status.id.inode, status.links, status.disk_bytes));
        }
        let foreign = tree.foreign.into_iter().map(|foreign| foreign.path).collect();
        Ok(Some(Self { path, parent, name, id: status.id, is_child, total, files, foreign }))
    }
}

/// The error number of a failed scan of a leftover.
pub(crate) fn errno_of_scan(error: Error) -> Errno {
    match error {
        Error::Io { source, .. } => errno_of(&source),
        _ => Errno::IO,
    }
}
