//! An amount of space: a number of bytes, or a share of the file system.
//!
//! Guarantees: pure. A share is computed without overflow, and rounded down to whole bytes.

use serde::{Deserialize, Serialize};

use crate::cache::cache_dir::Space;

/// An amount of space on a file system. As JSON, `{"bytes": 1000}` or `{"percent": 20}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// A number of bytes.
    Bytes(u64),
    /// A percentage of the file system's size.
    Percent(u8),
}

impl Amount {
    /// The amount in bytes, on a file system of the size in `space`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_file_system() {
        let space = |total_bytes| Space { available_bytes: 7, total_bytes };
        for (amount, total_bytes, bytes) in [
            (Amount::Bytes(5), 0, 5),
            (Amount::Percent(20), 1000, 200),
            (Amount::Percent(20), 1004, 200),
            (Amount::Percent(0), 1000, 0),
            (Amount::Percent(100), u64::MAX, u64::MAX),
            (Amount::Percent(255), u64::MAX, u64::MAX),
            (Amount::Percent(20), 0, 0),
        ] {
            assert_eq!(amount.bytes_of(space(total_bytes)), bytes, "{amount:?} of {total_bytes}");
        }
    }
}
