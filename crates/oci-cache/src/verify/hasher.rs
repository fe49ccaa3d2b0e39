//! The hash of a content, by the algorithm of its name.
//!
//! Guarantees: content is added in whole blocks, so nothing is copied.

use sha2::{Digest as _, Sha512};

use crate::cache::digest::{Algorithm, Digest};
use crate::verify::sha256::Sha256;

/// A content that is being hashed.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::new(Sha512::new())),
        }
    }

    /// Adds content, in a multiple of 64 bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes.as_chunks().0),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Adds content to two hashes, each in a multiple of 64 bytes; faster than one after the other.
    pub(crate) fn update_both([first, second]: [&mut Self; 2], [left, right]: [&[u8]; 2]) {
        if let (Self::Sha256(first), Self::Sha256(second)) = (&mut *first, &mut *second) {
            Sha256::update_both([first, second], [left.as_chunks().0, right.as_chunks().0]);
        } else {
            first.update(left);
            second.update(right);
        }
    }

    /// Adds the end of the content.
    pub(crate) fn finish(self, rest: &[u8]) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finish(rest)),
            Self::Sha512(mut hasher) => {
                hasher.update(rest);
                Digest::Sha512(Box::new(hasher.finalize().into()))
            }
        }
    }
}
