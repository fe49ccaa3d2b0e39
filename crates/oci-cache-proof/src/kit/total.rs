//! Files in sum.
//!
//! Guarantees: sizes are logical, so they compare with what prunes report.

use std::ops::AddAssign;

/// A count of files and the sum of their sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    /// How many.
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
