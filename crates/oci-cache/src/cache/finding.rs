//! What a verification found out about a blob.

use crate::cache::digest::Digest;

/// Why a verified blob is not known to be intact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Its content does not hash to its name.
    Corrupt {
        /// The digest of the content.
        actual: Digest,
    },
    /// A process has it open for writing.
    InUse,
    /// It changed during every attempt to read it.
    Changed,
    /// It could not be read, or the verification was stopped before it was checked.
    Unread,
}
