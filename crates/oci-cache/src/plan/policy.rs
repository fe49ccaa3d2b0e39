//! The policy: filters that narrow what may go, and goals that say when it is enough.

use std::collections::HashSet;
use std::time::Duration;

use crate::cache::cache_dir::Space;
use crate::cache::digest::Digest;
use crate::plan::fate::Remove;

/// Which entries may be removed, and when to stop. By default, all are removed.
///
/// Start from [`Policy::default`] and set what is wanted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Policy {
    /// Only what was neither written nor read for so long.
    pub older_than: Option<Duration>,
    /// Only blobs that the layout's index does not lead to.
    pub unreferenced: bool,
    /// Only corrupt blobs, as [`crate::verify()`] found them: none, if the inventory was not verified. An entry
    /// of the layout's index that leads to one leaves the index; the rest of its image stays.
    pub corrupt: bool,
    /// Not these digests; not an image, if its manifest or an index or manifest below it is among them.
    pub keep: HashSet<Digest>,
    /// Stop when the cache's files have at most this logical size together, in bytes.
    pub max_used_bytes: Option<u64>,
    /// Stop when the file system has at least so much room.
    pub min_free: Option<FreeSpace>,
}

/// An amount of room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeSpace {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system's size; above 100 is never met.
    Percent(u8),
}

impl FreeSpace {
    /// The amount in bytes, on a file system of such a size.
    #[must_use]
    pub fn bytes_of(self, space: Space) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                let bytes = u128::from(space.total_bytes) * u128::from(percent) / 100;
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }
}

impl Policy {
    /// Whether everything goes.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let has_filter = self.older_than.is_some() || self.unreferenced || self.corrupt;
        !has_filter && self.keep.is_empty() && !self.has_goal()
    }

    /// Whether there is a goal.
    #[must_use]
    pub const fn has_goal(&self) -> bool {
        self.max_used_bytes.is_some() || self.min_free.is_some()
    }

    /// Whether it depends on what the layout's index leads to. A prune of everything does not.
    pub(crate) fn wants_references(&self) -> bool {
        !self.is_everything()
    }

    /// Why an entry goes, if no goal stops it.
    pub(crate) fn reason(&self) -> Remove {
        if self.corrupt {
            Remove::Corrupt
        } else if self.max_used_bytes.is_some() {
            Remove::OverBudget
        } else if self.min_free.is_some() {
            Remove::LowSpace
        } else if self.unreferenced {
            Remove::Unreferenced
        } else if self.older_than.is_some() {
            Remove::Old
        } else {
            Remove::Everything
        }
    }
}
