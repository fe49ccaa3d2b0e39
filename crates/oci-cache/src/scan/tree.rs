//! Scans one directory tree with the layout of a cache, and classifies its entries.
//!
//! Guarantees: as [`crate::scan()`].

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::cache::cache_dir::INSPECT;
use crate::cache::companions::Companions;
use crate::cache::inventory::{Blob, Directory, Foreign, Tree};
use crate::cache::names::{self, Place};
use crate::error::Error;
use crate::error::Failure;
use crate::os::directory::{list, open_directory};
use crate::os::errno_of;
use crate::os::status::Status;
use crate::os::subvolume::is_nested_subvolume;
use crate::scan::index;
use crate::scan::lower_layer;
use crate::scan::partials;
use crate::scan::statuses::{Named, read_statuses};

/// Scans one directory tree with the layout of a cache.
///
/// `cache_name` is `None` in a leftover: prunes do not nest leftovers, so there are none to look for.
pub(crate) fn scan_tree(root: OwnedFd, path: &Path, cache_name: Option<&[u8]>) -> Result<Tree, Error> {
    let status = Status::of_descriptor(root.as_fd()).map_err(Error::io(INSPECT, path))?;
    let mut scanner = Scanner { tree: Tree::default(), device: OwnDevice(status.id.device), cache_name };
    let root = Directory { descriptor: root, path: path.to_owned(), place: Place::Root, status };
    scanner.scan_directory(root).map_err(Error::io(INSPECT, path))?;
    let mut tree = scanner.tree;
    lower_layer::mark(&mut tree);
    tree.companions =
        Companions::among(tree.blobs.iter().map(|blob| (blob.directory, &blob.digest, blob.spelling)));
    Ok(tree)
}

struct Scanner<'a> {
    tree: Tree,
    device: OwnDevice,
    cache_name: Option<&'a [u8]>,
}

impl Scanner<'_> {
    /// Lists a directory, reads the status of possible cache entries, and descends where the layout
    /// does.
    fn scan_directory(&mut self, directory: Directory) -> Result<(), Errno> {
        let place = directory.place;
        let Ok(index) = u16::try_from(self.tree.directories.len()) else { return Err(Errno::MFILE) };
        self.tree.directories.push(directory);
        let mut others = Vec::new();
        let held = self.tree.directory(index).descriptor.try_clone().map_err(|error| errno_of(&error))?;
        let names = |each: &mut dyn FnMut(Named)| {
            list(held.as_fd(), |name| match names::blob(place, name.to_bytes()) {
                Some(named) => each(named),
                None => others.push(name.to_owned()),
            })
        };
        let device = self.device;
        read_statuses(
            held.as_fd(),
            names,
            &|named, status| device.take_in(index, named, status),
            &mut |sight| match sight {
                Sight::Blob(blob) => self.tree.blobs.push(blob),
                Sight::Other(other) => self.add_other_than_a_blob(index, *other),
            },
        )?;
        // Classify `blobs` and `oci-layout` first: they decide the meaning of the other names.
        others.sort_by_key(|name| name.to_bytes() != names::BLOBS && name.as_c_str() != names::OCI_LAYOUT);
        for name in others {
            self.add_other(index, name);
        }
        Ok(())
    }

    /// Adds an entry that has the name of a blob but is not one.
    fn add_other_than_a_blob(&mut self, index: u16, ((digest, spelling), status): Other) {
        let name = digest.file_name(spelling);
        match status {
            Ok(status) => self.add_foreign(index, name.as_str().as_ref(), &status),
            Err(Errno::NOENT) => {}
            Err(errno) => self.add_failure(index, name.as_str().as_ref(), errno),
        }
    }

    /// Classifies an entry whose name is not a digest.
    fn add_other(&mut self, index: u16, c_name: CString) {
        let directory = self.tree.directory(index);
        let place = directory.place;
        let bytes = c_name.to_bytes();
        let name = OsStr::from_bytes(bytes);
        let status = match Status::of_entry(directory.descriptor.as_fd(), &c_name) {
            Ok(status) => status,
            Err(Errno::NOENT) => return,
            Err(errno) => {
                if place == Place::Root && *c_name == *names::INDEX {
                    self.tree.index_unknown = Some(errno);
                }
                return self.add_failure(index, name, errno);
            }
        };
        let bytes = name.as_bytes();
        let is_own_directory = status.is_directory() && self.device.is_own(&status);
        let is_nested = self.tree.is_nested();
        if place == Place::Root && self.device.is_own_file(&status) && *c_name == *names::OCI_LAYOUT {
            self.tree.oci_layout = Some(status);
        } else if place == Place::Root
            && self.device.is_own_file(&status)
            && *c_name == *names::INDEX
            && is_nested
            && (self.tree.oci_layout.is_some() || index::is_index(directory.descriptor.as_fd()))
        {
            self.tree.index = Some(status);
        } else if let Some(below) = below(place, bytes, is_nested)
            && is_own_directory
        {
            self.scan_below(index, name, &c_name, below, &status);
        } else if place == Place::Root
            && is_own_directory
            && self.cache_name.is_some_and(|name| names::is_leftover(bytes, name))
        {
            self.tree.leftover_names.push(c_name.clone());
        } else if names::is_partial(place, bytes) {
            self.add_partial(index, name, c_name.clone(), &status);
        } else {
            self.add_foreign(index, name, &status);
        }
    }

    /// Descends into a directory of the layout.
    fn scan_below(&mut self, index: u16, name: &OsStr, c_name: &CString, place: Place, status: &Status) {
        let parent = self.tree.directory(index);
        let path = parent.path.join(name);
        let opened = match open_directory(parent.descriptor.as_fd(), c_name) {
            // It is a mount point: entering it would leave the file system.
            Err(Errno::XDEV) => {
                return self.add_foreign(index, name, &Status { is_mount_root: true, ..*status });
            }
            opened => opened,
        };
        let scanned = opened.and_then(|(descriptor, status)| {
            self.scan_directory(Directory { descriptor, path, place, status })
        });
        match scanned {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => self.add_failure(index, name, errno),
        }
    }

    fn add_partial(&mut self, index: u16, name: &OsStr, c_name: CString, status: &Status) {
        let directory = self.tree.directory(index);
        let path = directory.path.join(name);
        if !self.device.is_own(status) {
            return self.add_foreign(index, name, status);
        }
        match partials::read(directory, index, c_name, path, status) {
            Ok(Some(partial)) => self.tree.partials.push(partial),
            Ok(None) => self.add_foreign(index, name, status),
            Err(Errno::NOENT) => {}
            Err(errno) => self.add_failure(index, name, errno),
        }
    }

    fn add_foreign(&mut self, index: u16, name: &OsStr, status: &Status) {
        let directory = self.tree.directory(index);
        let (path, place, bytes) = (directory.path.join(name), directory.place, name.as_bytes());
        let kind = match status {
            status if self.device.is_own(status) => kind_name(status),
            status if is_nested_subvolume(status, self.device.0) => "subvolume",
            _ => "mount",
        };
        let stands_for_a_directory = below(place, bytes, false).is_some();
        let stands_for_blobs = stands_for_a_directory || names::blob(place, bytes).is_some();
        if stands_for_a_directory && matches!(kind, "symbolic link" | "mount" | "subvolume") {
            self.tree.not_entered.push((path.clone(), kind));
        }
        let size_bytes = (kind == "file").then_some(status.size_bytes);
        self.tree.foreign.push(Foreign { path, kind, size_bytes, stands_for_blobs });
    }

    fn add_failure(&mut self, index: u16, name: &OsStr, errno: Errno) {
        let path = self.tree.directory(index).path.join(name);
        self.tree.failures.push(Failure::new("inspect", path, errno));
    }
}

/// The device that the cache is on.
#[derive(Clone, Copy)]
struct OwnDevice((u32, u32));

impl OwnDevice {
    /// Classifies an entry of the directory `index` whose name is a digest, by its status.
    fn take_in(self, index: u16, (digest, spelling): Named, status: Result<Status, Errno>) -> Sight {
        match status {
            Ok(status) if self.is_own_file(&status) => Sight::Blob(Blob {
                digest,
                size_bytes: status.size_bytes,
                disk_bytes: status.disk_bytes,
                modified: status.modified,
                accessed: status.accessed,
                changed: status.changed,
                inode: status.id.inode,
                links: status.links,
                directory: index,
                spelling,
                is_lower: false,
            }),
            status => Sight::Other(Box::new(((digest, spelling), status))),
        }
    }

    /// Whether the entry is on the cache's file system and is not a mount.
    ///
    /// The device alone is not enough: on an overlay, a file may be in another layer than its directory
    /// and so have another device.
    fn is_own(self, status: &Status) -> bool {
        let is_own_device = status.id.device == self.0;
        let is_own_file = status.is_regular_file() && status.knows_mount_roots;
        (is_own_device || is_own_file) && !status.is_mount_root
    }

    fn is_own_file(self, status: &Status) -> bool {
        status.is_regular_file() && self.is_own(status)
    }
}

/// An entry whose name is a digest.
enum Sight {
    Blob(Blob),
    Other(Box<Other>),
}

type Other = (Named, Result<Status, Errno>);

/// The place of a subdirectory that belongs to a layout; `None` for any other name.
fn below(place: Place, name: &[u8], is_nested: bool) -> Option<Place> {
    match place {
        Place::Root if name == names::BLOBS => Some(Place::Blobs),
        Place::Root if name == names::INGEST && is_nested => Some(Place::Ingest),
        Place::Blobs => names::algorithm_directory(name).map(Place::Algorithm),
        _ => None,
    }
}

fn kind_name(status: &Status) -> &'static str {
    match status.kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        _ => "device",
    }
}
