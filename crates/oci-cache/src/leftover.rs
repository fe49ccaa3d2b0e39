//! Leftovers: directories that killed prunes left, found and removed.
//!
//! Guarantees: a leftover is known by its exact name, inside the cache or beside it; one that a live
//! prune still holds locked is left alone. It goes by the rules of the cache itself: no link is followed,
//! no mount entered, and what is foreign stays, with the directories above it, and is reported. Only its
//! users are disregarded: nobody can open anything in it by the cache's path any more. Files that arrive
//! late, from a pull that still held the directory, are found by another round.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, flock, unlinkat};
use rustix::io::Errno;

use crate::cache_dir::{CacheDir, open_directory};
use crate::inventory::{Directory, Tree, scan_tree};
use crate::ledger::{DiskLedger, Tally};
use crate::listing::list;
use crate::names;
use crate::partial::remove_file;
use crate::progress::Progress;
use crate::removal::{Users, remove_blobs};
use crate::report::{Failure, PruneReport};
use crate::status::{FileId, Status};

/// How often a leftover is gone through for files that arrived late.
const ROUNDS: usize = 16;
/// How deep leftovers are looked for in leftovers. Prunes do not nest them; hostile hands may.
const MAX_DEPTH: usize = 8;

/// A directory that a killed prune left.
#[derive(Debug)]
pub struct Leftover {
    pub(crate) path: PathBuf,
    parent: OwnedFd,
    name: CString,
    id: FileId,
    /// How many leftovers this is, with those in it.
    directories: u64,
    total: Tally,
    /// The names that go with it: inode, links, bytes on disk.
    files: Vec<(u64, u32, u64)>,
    foreign: Vec<PathBuf>,
}

/// Finds the leftovers in the cache, of the given names, and beside it.
pub(crate) fn find(cache: &CacheDir, children: Vec<CString>, tree: &mut Tree) -> Vec<Leftover> {
    let mut leftovers = Vec::new();
    let mut failures = Vec::new();
    let mut look = |parent: BorrowedFd<'_>, path: PathBuf, name: CString| match Leftover::read(
        parent,
        path.clone(),
        name,
    ) {
        Ok(Some(leftover)) => leftovers.push(leftover),
        Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
        Err(errno) => failures.push(Failure::new("inspect leftover", path, errno)),
    };
    if let Some(root) = tree.directories.first() {
        for name in children {
            look(root.descriptor.as_fd(), root.path.join(OsStr::from_bytes(name.as_bytes())), name);
        }
    }
    if let Some(surroundings) = cache.surroundings() {
        let cache_name = surroundings.name.as_bytes();
        let mut siblings = Vec::new();
        // A parent that cannot be listed has none to show.
        let _ = list(surroundings.parent.as_fd(), |name| {
            let bytes = name.to_bytes();
            if bytes.starts_with(cache_name) && names::is_leftover(bytes, cache_name) {
                siblings.push(name.to_owned());
            }
        });
        for name in siblings {
            look(surroundings.parent.as_fd(), surroundings.path_of(&name), name);
        }
    }
    tree.failures.extend(failures);
    leftovers
}

impl Leftover {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its device and inode.
    pub(crate) const fn id(&self) -> ((u32, u32), u64) {
        (self.id.device, self.id.inode)
    }

    /// How many files it holds, and their logical size.
    #[must_use]
    pub const fn total(&self) -> Tally {
        self.total
    }

    /// How many leftovers go with it, counting those in it; none if something foreign keeps it.
    pub(crate) fn removable(&self) -> u64 {
        if self.foreign.is_empty() { self.directories } else { 0 }
    }

    pub(crate) fn foreign(&self) -> &[PathBuf] {
        &self.foreign
    }

    /// Reads a leftover; `None` while a live prune is at work on it.
    fn read(parent: BorrowedFd<'_>, path: PathBuf, name: CString) -> Result<Option<Self>, Errno> {
        let (descriptor, status) = open_directory(parent, &name)?;
        if flock(&descriptor, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let parent = parent.try_clone_to_owned().map_err(|error| crate::cache_dir::errno_of(&error))?;
        let (total, files, foreign) = (Tally::default(), Vec::new(), Vec::new());
        let mut leftover = Self { path, parent, name, id: status.id, directories: 0, total, files, foreign };
        leftover.count(descriptor, 0)?;
        Ok(Some(leftover))
    }

    /// Counts what is in the leftover, and in leftovers in it.
    fn count(&mut self, descriptor: OwnedFd, depth: usize) -> Result<(), Errno> {
        self.directories += 1;
        let path = self.path.clone();
        let tree = scan_tree(descriptor, &path, b"").map_err(errno_of_scan)?;
        for blob in &tree.blobs {
            self.total.add(blob.size_bytes);
            self.files.push((blob.inode, blob.links, blob.disk_bytes));
        }
        for status in tree.partials.iter().flat_map(|partial| &partial.files).map(|file| &file.status) {
            self.total.add(status.size_bytes);
            self.files.push((status.id.inode, status.links, status.disk_bytes));
        }
        self.foreign.extend(tree.foreign.iter().map(|foreign| foreign.path.clone()));
        if depth < MAX_DEPTH
            && let Some(root) = tree.directories.first()
        {
            for name in &tree.leftover_names {
                let (below, _) = open_directory(root.descriptor.as_fd(), name)?;
                self.count(below, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Adds what goes with the leftover to the tally and the ledger.
    pub(crate) fn count_into(&self, tally: &mut Tally, disk: &mut DiskLedger) {
        *tally += self.total;
        for &(inode, links, disk_bytes) in &self.files {
            disk.remove_name(inode, links, disk_bytes);
        }
    }

    /// Removes the leftover, if it is still the one that was found.
    pub(crate) fn remove(&self, progress: &Progress, report: &mut PruneReport) {
        let opened = open_directory(self.parent.as_fd(), &self.name);
        match opened {
            Ok((descriptor, status)) if status.id == self.id => {
                let is_ours = flock(&descriptor, FlockOperation::NonBlockingLockExclusive).is_ok();
                if is_ours
                    && remove_tree(self.parent.as_fd(), &self.name, descriptor, &self.path, progress, report)
                {
                    report.leftovers_freed += 1;
                }
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => report.failures.push(Failure::new("open leftover", self.path.clone(), errno)),
        }
    }
}

/// Removes the directory `name` of `parent`, laid out as a cache and open as `descriptor`. Returns whether
/// it is gone; what keeps it has been reported.
pub(crate) fn remove_tree(
    parent: BorrowedFd<'_>,
    name: &CString,
    descriptor: OwnedFd,
    path: &Path,
    progress: &Progress,
    report: &mut PruneReport,
) -> bool {
    let mut sweep = Sweep { path, progress, report };
    sweep.sweep(parent, name, descriptor, 0).unwrap_or_else(|errno| {
        report.failures.push(Failure::new("remove old oci cache", path.to_owned(), errno));
        false
    })
}

struct Sweep<'a> {
    path: &'a Path,
    progress: &'a Progress,
    report: &'a mut PruneReport,
}

impl Sweep<'_> {
    /// Removes a directory and what is in it. Returns whether it is gone; what keeps it has been reported.
    fn sweep(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        descriptor: OwnedFd,
        depth: usize,
    ) -> Result<bool, Errno> {
        for round in 0..ROUNDS {
            let again = descriptor.try_clone().map_err(|error| crate::cache_dir::errno_of(&error))?;
            let tree = scan_tree(again, self.path, b"").map_err(errno_of_scan)?;
            let failures = self.report.failures.len();
            self.empty(&tree, depth)?;
            if self.progress.is_stopped() || self.report.failures.len() > failures {
                return Ok(false);
            }
            if !tree.foreign.is_empty() {
                self.report.foreign_in_leftovers.extend(tree.foreign.into_iter().map(|foreign| foreign.path));
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

    /// Removes everything in the tree but what is foreign.
    fn empty(&mut self, tree: &Tree, depth: usize) -> Result<(), Errno> {
        let doomed = (0..tree.blobs.len()).collect();
        remove_blobs(tree, doomed, Users::Disregard, self.progress).count_into(self.report);
        self.report.failures.extend(tree.failures.iter().map(Failure::duplicate));
        let Some(root) = tree.directories.first() else { return Ok(()) };
        for partial in &tree.partials {
            let directory = tree.directory(partial.directory).descriptor.as_fd();
            let opened = if partial.status.is_directory() {
                Some(open_directory(directory, &partial.name)?.0)
            } else {
                None
            };
            let report = &mut *self.report;
            if let Err(errno) =
                partial.remove(directory, opened.as_ref(), |status| report.count_partial(status))
            {
                report.failures.push(Failure::new("remove", partial.path.clone(), errno));
            }
        }
        for (file, name) in [(tree.oci_layout, c"oci-layout"), (tree.index, c"index.json")] {
            if file.is_some() {
                remove_file(root.descriptor.as_fd(), name, &mut |_| {})?;
            }
        }
        for name in tree.leftover_names.iter().take_while(|_| depth < MAX_DEPTH) {
            let (below, _) = open_directory(root.descriptor.as_fd(), name)?;
            let is_gone = self.sweep(root.descriptor.as_fd(), name, below, depth + 1)?;
            self.report.leftovers_freed += u64::from(is_gone);
        }
        remove_directories(tree);
        Ok(())
    }
}

/// Removes the directories below the root, deepest first. One that is not empty stays, and keeps those
/// above it: the removal of the root then tells.
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

/// The error number behind a failed scan of a leftover.
fn errno_of_scan(error: crate::Error) -> Errno {
    match error {
        crate::Error::Io { source, .. } => crate::cache_dir::errno_of(&source),
        _ => Errno::IO,
    }
}

impl PruneReport {
    /// Counts a file of a partial, or of a leftover, that was removed.
    pub(crate) fn count_partial(&mut self, status: &Status) {
        self.blobs_freed += 1;
        self.partials_freed += 1;
        self.bytes_freed += status.size_bytes;
        if status.links == 1 {
            self.disk_bytes_freed += status.disk_bytes;
        }
    }
}
