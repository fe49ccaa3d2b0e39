//! Removes leftovers: directories that killed prunes left behind.
//!
//! Guarantees: a leftover is recognised by its exact name, in the cache or beside it. One that a running
//! prune holds locked is left alone. A leftover is removed by the rules of the cache: no symbolic link
//! is followed and no mount is entered; foreign entries stay, with the directories above them, and are
//! reported. Unlike in the cache, files in use are removed too: nobody can open them by the cache's path
//! any more. Files that arrive late, from a pull that still had the directory open, are removed in
//! another round.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, flock, unlinkat};
use rustix::io::Errno;

use crate::cache::inventory::{Directory, Tree};
use crate::cache::leftover::Leftover;
use crate::cache::names;
use crate::error::Failure;
use crate::os::directory::open_directory;
use crate::os::errno_of;
use crate::progress::Progress;
use crate::prune::beside::OpenFiles;
use crate::prune::report::PruneReport;
use crate::prune::units::remove_blobs;
use crate::scan::leftovers::errno_of_scan;
use crate::scan::tree::scan_tree;

/// Maximum number of passes over a leftover, for files that arrive late.
const ROUNDS: usize = 16;

impl Leftover {
    /// Removes the leftover, if it is still the directory that was found. Returns whether it was
    /// removed.
    pub(crate) fn remove(&self, progress: &Progress, report: &mut PruneReport) -> bool {
        let is_gone = match self.open() {
            Ok(descriptor) => {
                let is_live =
                    flock(&descriptor, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK);
                !is_live
                    && remove_tree(self.parent.as_fd(), &self.name, descriptor, &self.path, progress, report)
            }
            Err(Errno::NOENT) => false,
            Err(errno) => {
                report.failures.push(Failure::new("open leftover", self.path.clone(), errno));
                false
            }
        };
        if is_gone {
            report.leftovers_freed += 1;
            report.notes.leftovers.push(self.path.clone());
        }
        is_gone
    }
}

/// Removes the directory `name` of `parent`, which has the layout of a cache and is open as
/// `descriptor`.
///
/// Returns whether it was removed; if not, adds the cause to the report.
pub(crate) fn remove_tree(
    parent: BorrowedFd<'_>,
    name: &CString,
    descriptor: OwnedFd,
    path: &Path,
    progress: &Progress,
    report: &mut PruneReport,
) -> bool {
    sweep(parent, name, descriptor, path, progress, report).unwrap_or_else(|errno| {
        report.failures.push(Failure::new("remove old oci cache", path.to_owned(), errno));
        false
    })
}

fn sweep(
    parent: BorrowedFd<'_>,
    name: &CString,
    descriptor: OwnedFd,
    path: &Path,
    progress: &Progress,
    report: &mut PruneReport,
) -> Result<bool, Errno> {
    for round in 0..ROUNDS {
        let again = descriptor.try_clone().map_err(|error| errno_of(&error))?;
        let tree = scan_tree(again, path, None).map_err(errno_of_scan)?;
        let failures = report.failures.total();
        empty(&tree, progress, report)?;
        if progress.is_stopped() || report.failures.total() > failures {
            return Ok(false);
        }
        if !tree.foreign.is_empty() {
            report.foreign += tree.foreign.len() as u64;
            report.notes.foreign_in_leftovers.extend(tree.foreign.into_iter().map(|foreign| foreign.path));
            return Ok(false);
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::NOTEMPTY | Errno::EXIST) if round + 1 < ROUNDS => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// Removes everything in the tree except foreign entries.
fn empty(tree: &Tree, progress: &Progress, report: &mut PruneReport) -> Result<(), Errno> {
    let doomed = (0..tree.blobs.len()).collect();
    remove_blobs(tree, doomed, OpenFiles::Disregard, progress).count_into(report);
    report.failures.merge(tree.failures.clone());
    let Some(root) = tree.directories.first() else { return Ok(()) };
    for partial in &tree.partials {
        let directory = tree.directory(partial.directory).descriptor.as_fd();
        let opened = if partial.status.is_directory() {
            Some(open_directory(directory, &partial.name)?.0)
        } else {
            None
        };
        if let Err(errno) = partial.remove(directory, opened.as_ref(), OpenFiles::Disregard, report) {
            report.failures.push(Failure::new("remove", partial.path.clone(), errno));
        }
    }
    for (file, name) in [(tree.oci_layout, names::OCI_LAYOUT), (tree.index, names::INDEX)] {
        if file.is_some() {
            match unlinkat(&root.descriptor, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    remove_directories(tree);
    Ok(())
}

/// Removes the directories below the root, the deepest first. A directory that is not empty stays, as do
/// those above it; removing the root then fails and shows that.
fn remove_directories(tree: &Tree) {
    for directory in tree.directories.iter().skip(1).rev() {
        let holder =
            tree.directories.iter().find(|holder| Some(holder.path.as_path()) == directory.path.parent());
        let name = directory.path.file_name().and_then(|name| CString::new(name.as_bytes()).ok());
        if let (Some(Directory { descriptor, .. }), Some(name)) = (holder, name) {
            let _ = unlinkat(descriptor, &name, AtFlags::REMOVEDIR);
        }
    }
}
