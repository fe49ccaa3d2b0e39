//! One entry of a saved plan: its path and its identity.
//!
//! Guarantees: a sound path stays in the cache; that of a leftover may also be beside it. An entry is
//! identified by device, inode, size and modification time and, where the file system keeps it, birth time. Its change
//! time says nothing: a hard link, a change of mode or a prune that arms the file moves it, days later too.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::cache::digest::{Digest, Spelling};
use crate::cache::inventory::{Blob, Inventory};
use crate::cache::partial::Partial;
use crate::escape::{escape, escape_path};
use crate::os::birth::status_and_birth;
use crate::os::status::{Status, Timestamp};
use crate::plan::fate::{Fate, Keep, Remove};

/// One entry of a saved plan.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedEntry {
    pub(crate) kind: Kind,
    /// The path relative to the cache, escaped.
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    pub(crate) size_bytes: u64,
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) modified: Timestamp,
    /// When it was made, if the file system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) born: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Blob,
    Partial,
    Leftover,
}

impl SavedEntry {
    /// Whether the path stays in the cache, or beside it for a leftover, and a blob's name matches its
    /// digest.
    pub(crate) fn is_sound(&self) -> bool {
        let below = match self.kind {
            Kind::Leftover => self.path.strip_prefix("../").unwrap_or(&self.path),
            Kind::Blob | Kind::Partial => &self.path,
        };
        let is_below = below.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let name = below.rsplit('/').next().unwrap_or_default();
        let spells = |digest: Digest| {
            Spelling::ALL.into_iter().any(|spelling| digest.file_name(spelling).as_str() == name)
        };
        is_below
            && match (self.kind, &self.digest) {
                (Kind::Blob, Some(digest)) => digest.parse().is_ok_and(spells),
                (Kind::Blob, None) => false,
                (Kind::Partial | Kind::Leftover, digest) => digest.is_none(),
            }
    }

    /// Whether the plan means the file of this status, which was found as the entry `name` of `directory`. Without a
    /// birth time in the plan, that one is not asked for.
    pub(crate) fn is(&self, identity: Identity, directory: BorrowedFd<'_>, name: &CStr) -> bool {
        let Identity { size_bytes, device, inode, modified, .. } = identity;
        (self.size_bytes, self.device, self.inode, self.modified) == (size_bytes, device, inode, modified)
            && self.born.is_none_or(|born| identity.birth(directory, name) == Ok(Some(born)))
    }

    pub(crate) const fn fate(&self, is_same: bool) -> Fate {
        if is_same { Fate::Remove(Remove::Listed) } else { Fate::Keep(Keep::Changed) }
    }
}

/// What identifies an entry, as the scan found it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) size_bytes: u64,
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) modified: Timestamp,
    changed: Timestamp,
}

impl Identity {
    pub(crate) const fn of_blob(blob: &Blob, device: (u32, u32)) -> Self {
        let Blob { size_bytes, inode, modified, changed, .. } = *blob;
        Self { size_bytes, device, inode, modified, changed }
    }

    /// That of a partial. The size of a directory is the total size of its files.
    pub(crate) fn of_partial(partial: &Partial) -> Self {
        let Status { id, modified, changed, .. } = partial.status;
        Self { size_bytes: partial.size_bytes(), device: id.device, inode: id.inode, modified, changed }
    }

    /// When the entry `name` of `directory` was made, if the file system tells. The scan does not keep it for every blob.
    ///
    /// # Errors
    ///
    /// If it is not the scanned one any more, or cannot be read.
    pub(crate) fn birth(self, directory: BorrowedFd<'_>, name: &CStr) -> Result<Option<Timestamp>, Errno> {
        let (status, born) = status_and_birth(directory, name)?;
        let is_scanned = (status.id.inode, status.changed) == (self.inode, self.changed);
        if is_scanned { Ok(born) } else { Err(Errno::STALE) }
    }
}

/// The escaped path of an entry in a saved plan: relative to the cache, with `../` for entries beside
/// it.
pub(crate) fn relative(inventory: &Inventory, path: &Path) -> String {
    match path.strip_prefix(&inventory.path) {
        Ok(below) => escape_path(below),
        Err(_) => format!("../{}", escape(path.file_name().unwrap_or_default().as_bytes())),
    }
}
