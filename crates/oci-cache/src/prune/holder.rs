//! Who has a file open, and whether it is still the file that was scanned.

use crate::cache::inventory::Tree;
use crate::os::lease::Opened;
use crate::os::status::Status;
use crate::plan::fate::Keep;
use crate::prune::report::Outcome;

/// What a probe came to.
#[derive(Debug)]
pub(crate) enum Probed<'a> {
    Holder(Holder<'a>),
    /// What becomes of the name.
    Settled(Outcome),
    /// Somebody has the file open, perhaps only for a moment.
    InUse(Opened<'a>),
}

/// Who has the file open, as far as is known.
#[derive(Debug)]
pub(crate) enum Holder<'a> {
    NotProbed,
    /// Nobody, while the lease is held.
    Nobody(Opened<'a>),
    /// Some process, which is ignored.
    Somebody,
    /// Leases do not work for this file.
    Unknown,
}

/// Why a name is not removed, or not yet.
pub(crate) enum Reason {
    Settled(Outcome),
    /// It leads to another file than was probed: overlay layers number their inodes independently.
    OtherFile,
}

/// Why the blob of this index must be kept: the file changed or was used since the scan.
pub(crate) fn difference(tree: &Tree, index: usize, status: &Status) -> Option<Keep> {
    let blob = &tree.blobs[index];
    if (status.id.inode, status.size_bytes, status.modified) != (blob.inode, blob.size_bytes, blob.modified) {
        Some(Keep::Changed)
    } else if status.accessed != blob.accessed && !tree.own_reads.explain(index, status.accessed) {
        Some(Keep::Recent)
    } else {
        None
    }
}
