//! One entry of a saved plan: its path and its identity.
//!
//! Guarantees: a sound path stays in the cache; that of a leftover may also be beside it. An entry is
//! identified by device, inode, size and modification time.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cache::digest::{Digest, Spelling};
use crate::cache::inventory::Inventory;
use crate::cache::partial::Partial;
use crate::escape::{escape, escape_path};
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

    pub(crate) fn is(
        &self,
        (size_bytes, device, inode, modified): (u64, (u32, u32), u64, Timestamp),
    ) -> bool {
        (self.size_bytes, self.device, self.inode, self.modified) == (size_bytes, device, inode, modified)
    }

    pub(crate) const fn fate(&self, is_same: bool) -> Fate {
        if is_same { Fate::Remove(Remove::Listed) } else { Fate::Keep(Keep::Changed) }
    }
}

/// The identity of a partial: size, device, inode and modification time. The size of a directory is the
/// total size of its files.
pub(crate) fn identity(partial: &Partial) -> (u64, (u32, u32), u64, Timestamp) {
    let Status { id, modified, .. } = partial.status;
    (partial.size_bytes(), id.device, id.inode, modified)
}

/// The escaped path of an entry in a saved plan: relative to the cache, with `../` for entries beside
/// it.
pub(crate) fn relative(inventory: &Inventory, path: &Path) -> String {
    match path.strip_prefix(&inventory.path) {
        Ok(below) => escape_path(below),
        Err(_) => format!("../{}", escape(path.file_name().unwrap_or_default().as_bytes())),
    }
}
