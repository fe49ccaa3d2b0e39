//! What a verification finds out about a blob.

use crate::cache::digest::Digest;

/// What is wrong with a blob, or kept it from being checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Its content does not hash to its name.
    Corrupt {
        /// What the content hashes to.
        actual: Digest,
    },
    /// Somebody is writing to it.
    InUse,
    /// It changed each time it was read.
    Changed,
    /// It could not be read, or a stop was asked for before its turn came.
    Unread,
}
