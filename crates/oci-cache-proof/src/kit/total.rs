//! Total number and size of files.
//!
//! Guarantees: sizes are logical sizes, as prunes report them.

use std::ops::AddAssign;

/// A number of files and their total size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    /// The number of files.
    pub(crate) blobs: u64,
    /// The sum of their logical sizes.
    pub(crate) bytes: u64,
}

impl AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.blobs += other.blobs;
        self.bytes += other.bytes;
    }
}
