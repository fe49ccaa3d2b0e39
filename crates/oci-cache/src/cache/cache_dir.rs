//! Opens the cache directory and checks that it may be pruned.
//!
//! Guarantees: the path is resolved once, when it is opened. From then on, the cache is the directory
//! behind the descriptor, whatever happens to the path. A directory that must not be pruned (`/`, a
//! protected directory, or an ancestor of one) is refused by device and inode, so no spelling, link or
//! bind mount gets around the check.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};
use rustix::io::Errno;

use crate::error::{Error, Refusal};
use crate::os::directory::OPEN_DIRECTORY;
use crate::os::errno_of;
use crate::os::status::{FileId, Status};

/// Name of the step that inspects the cache.
pub(crate) const INSPECT: &str = "inspect oci cache";

/// An open cache directory, or the path of one that does not exist.
#[derive(Debug)]
pub struct CacheDir {
    path: PathBuf,
    protected: Vec<PathBuf>,
    root: Option<Root>,
    surroundings: Option<Surroundings>,
    /// Why the parent could not be opened; `None` if it was opened, is missing, or permission was
    /// denied.
    not_found: Option<Errno>,
}

/// How a mount records the time of the last read (`mount(8)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessTimes {
    /// `noatime`: never; the last use is the last write.
    Never,
    /// `relatime`: the first read after a write, then at most one read a day.
    Daily,
    /// `strictatime`: every read.
    Always,
}

/// Space on the cache's file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Free space for unprivileged processes (`f_bavail`, `statvfs(3)`).
    pub available_bytes: u64,
    /// Size of the file system (`f_blocks`).
    pub total_bytes: u64,
}

impl Space {
    /// The space on the file system of a directory.
    pub(crate) fn at(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let answer = fstatvfs(directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
        Ok(Self { available_bytes: bytes(answer.f_bavail), total_bytes: bytes(answer.f_blocks) })
    }
}

/// The open cache directory.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) descriptor: OwnedFd,
    pub(crate) status: Status,
}

/// The parent of the cache directory, and the cache's name in it; used to find siblings and to rename
/// the cache aside.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) parent: OwnedFd,
    pub(crate) parent_path: PathBuf,
    pub(crate) name: CString,
}

impl CacheDir {
    /// Opens the cache at `path`; follows a symbolic link here, once.
    ///
    /// A path that does not exist is an empty cache. Refuses `/`, the directories `protected` and all
    /// their ancestors; ignores protected directories that do not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if `path` is empty, names something other than a directory, or is protected;
    /// [`Error::Io`] if it cannot be opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// use oci_cache::{CacheDir, Error};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path();
    /// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
    /// let cache = CacheDir::open(path, &[])?;
    /// assert_eq!(cache.path(), path);
    /// // The root directory, a protected directory and what contains one are refused.
    /// for refused in [Path::new("/"), path] {
    ///     let refused = CacheDir::open(refused, &[path.to_owned()]);
    ///     assert!(matches!(refused, Err(Error::Refused { .. })));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(path: &Path, protected: &[PathBuf]) -> Result<Self, Error> {
        let refuse = |reason| Error::Refused { path: path.to_owned(), reason };
        if path.as_os_str().is_empty() {
            return Err(refuse(Refusal::EmptyPath));
        }
        let absolute = std::path::absolute(path).map_err(|source| Error::Io {
            operation: INSPECT,
            path: path.to_owned(),
            source,
        })?;
        let flags = OPEN_DIRECTORY.difference(OFlags::NOFOLLOW);
        let root = match openat(CWD, &absolute, flags, Mode::empty()) {
            Ok(descriptor) => {
                let status = Status::of_descriptor(descriptor.as_fd()).map_err(Error::io(INSPECT, path))?;
                Some(Root { descriptor, status })
            }
            Err(Errno::NOENT) => None,
            Err(Errno::NOTDIR) => return Err(refuse(Refusal::NotADirectory)),
            Err(errno) => return Err(Error::io(INSPECT, path)(errno)),
        };
        if let Some(root) = &root
            && let Some(reason) = protected_by(root.status.id, protected)
        {
            return Err(refuse(reason));
        }
        let (surroundings, not_found) = match Surroundings::find(&absolute, root.as_ref()) {
            Ok(found) => (found, None),
            Err(errno) => (None, Some(errno)),
        };
        Ok(Self { path: absolute, protected: protected.to_vec(), root, surroundings, not_found })
    }

    /// The absolute path, with symbolic links not resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a directory exists at the path.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.root.is_some()
    }

    /// Reads the free space and the size of the cache's file system; both are 0 for a cache that does
    /// not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file system does not report them.
    pub fn space(&self) -> Result<Space, Error> {
        let Some(root) = &self.root else { return Ok(Space::default()) };
        Space::at(root.descriptor.as_fd()).map_err(Error::io("read the free space of", &self.path))
    }

    /// How the mount records the time of the last read; `None` if the cache does not exist, or the file system does
    /// not say.
    #[must_use]
    pub fn access_times(&self) -> Option<AccessTimes> {
        let root = self.root.as_ref()?;
        let flags = fstatvfs(&root.descriptor).ok()?.f_flag;
        Some(match flags {
            flags if flags.contains(StatVfsMountFlags::NOATIME) => AccessTimes::Never,
            flags if flags.contains(StatVfsMountFlags::RELATIME) => AccessTimes::Daily,
            _ => AccessTimes::Always,
        })
    }

    /// Opens the same path again.
    pub(crate) fn open_again(&self) -> Result<Self, Error> {
        Self::open(&self.path, &self.protected)
    }

    pub(crate) const fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    pub(crate) const fn surroundings_not_found(&self) -> Option<Errno> {
        self.not_found
    }

    pub(crate) const fn surroundings(&self) -> Option<&Surroundings> {
        self.surroundings.as_ref()
    }
}

impl Surroundings {
    /// Opens the parent and finds the cache's name in it.
    ///
    /// Returns `None` if the parent is missing or may not be opened, if the path has no name, or if the
    /// name does not lead back to the open directory. Nothing beside the cache is then looked for.
    fn find(path: &Path, root: Option<&Root>) -> Result<Option<Self>, Errno> {
        match Self::try_find(path, root) {
            Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR) => Ok(None),
            found => found,
        }
    }

    fn try_find(path: &Path, root: Option<&Root>) -> Result<Option<Self>, Errno> {
        let (real, parent) = match root {
            // Nothing exists at the path, so its last component is not a link that must be resolved.
            None => {
                (path.to_owned(), openat(CWD, path.parent().unwrap_or(path), OPEN_DIRECTORY, Mode::empty())?)
            }
            Some(root) => {
                let real = fs::canonicalize(path).map_err(|error| errno_of(&error))?;
                (real, openat(&root.descriptor, c"..", OPEN_DIRECTORY, Mode::empty())?)
            }
        };
        let name = real.file_name().and_then(|name| CString::new(name.as_bytes()).ok());
        let (Some(parent_path), Some(name)) = (real.parent().map(Path::to_owned), name) else {
            return Ok(None);
        };
        if let Some(root) = root {
            // The name was found by path. It counts only if it leads back to the open directory.
            let found = Status::of_entry(parent.as_fd(), &name)?;
            if found.id != root.status.id {
                return Ok(None);
            }
        }
        Ok(Some(Self { parent, parent_path, name }))
    }

    /// The path of a sibling, for messages.
    pub(crate) fn path_of(&self, name: &CString) -> PathBuf {
        self.parent_path.join(OsStr::from_bytes(name.as_bytes()))
    }
}

/// Whether the directory is `/`, one of `protected`, or an ancestor of one.
fn protected_by(id: FileId, protected: &[PathBuf]) -> Option<Refusal> {
    let is_held = |path: &Path| fs::metadata(path).is_ok_and(|metadata| is_same(id, &metadata));
    if is_held(Path::new("/")) {
        return Some(Refusal::Protected("/".into()));
    }
    protected.iter().find_map(|directory| {
        let real = fs::canonicalize(directory).ok()?;
        real.ancestors().any(is_held).then(|| Refusal::Protected(directory.clone()))
    })
}

fn is_same(id: FileId, metadata: &fs::Metadata) -> bool {
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    id == FileId { device, inode: metadata.ino() }
}
