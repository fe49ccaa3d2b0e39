//! How thorough a verification is.

/// How thoroughly to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Hash every blob.
    Full,
    /// Hash only blobs that may be truncated: those with a wrong size, a missing trailer or no content.
    Quick,
}
