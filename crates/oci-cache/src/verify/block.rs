//! The block of SHA-256 (FIPS 180-4, section 1).

/// Size of a block, in bytes.
pub(crate) const BLOCK_BYTES: usize = 64;
/// What the hash takes in at a time.
pub(crate) type Block = [u8; BLOCK_BYTES];
